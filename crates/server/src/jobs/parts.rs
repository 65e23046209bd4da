//! What jobs work with.

use std::{collections::BTreeMap, sync::Arc};

use doorward_core::cutover::Ceiling;
use doorward_gate::{
    clock::Clock,
    gate::{Gate, GateParts},
    issuer::Listener,
    license::FileListener,
    mail::outbox::Outbox,
    observe::Unobserved,
    ring::Ring,
};
use doorward_store::Store;

use crate::{
    assemble,
    config::Config,
    http::Server,
    license,
    lifecycle::{self, Host, StartError},
    local_license::LocalLicense,
    telemetry::Methods,
};

/// What a job may need. A server hands in its own; a command makes some.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// Store, clock, policy, issuers, licenses.
    pub(crate) gate: Gate,
    /// Our own keys. In a command they are not loaded.
    pub(crate) ring: Ring,
    /// Where mail is configured.
    pub(crate) outbox: Option<Outbox>,
    /// What the file says about the soak window, if anything.
    pub(crate) legacy: Option<Ceiling>,
    /// The name of this installation in mails.
    pub(crate) site: String,
    /// The method counts of this process; a command has none.
    pub(crate) methods: Option<Arc<Methods>>,
}

impl Parts {
    /// Those of a running server, as its configuration is now.
    pub(crate) fn of(server: &Server, ring: &Ring, outbox: Option<&Outbox>) -> Self {
        let site = server.site();
        Self {
            gate: server.gate.clone(),
            ring: ring.clone(),
            outbox: outbox.cloned(),
            legacy: site.legacy,
            site: site.pages.name.clone(),
            methods: Some(Arc::clone(&server.methods)),
        }
    }

    /// Those of a process that does not serve. Nothing is fetched or read, and nothing runs in the background.
    ///
    /// # Errors
    /// What is wrong in the configuration.
    pub(crate) fn without_server(store: &Store, config: &Config, clock: &Clock) -> Result<Self, StartError> {
        let wrong = |error: anyhow::Error| StartError::Misconfigured(error.to_string());
        let root = lifecycle::root_secret(config, clock)?;
        let host = Host {
            clock: clock.clone(),
            mailer: None,
            directory: None,
            license: None,
            vars: BTreeMap::new(),
            is_demo: false,
        };
        let mailer = lifecycle::mailer(config, &host)?;
        let assembled = assemble::assemble(config, 1, store, &host, Listener::default(), None).map_err(wrong)?;
        let (gate, _) = Gate::new(GateParts {
            clock: clock.clone(),
            store: store.clone(),
            issuers: assembled.issuers,
            policy: assembled.policy,
            observer: Box::new(Unobserved),
            cache_capacity: 1,
        });
        // What lies in the place of the license file is news for the servers, which look at it every second.
        let local = LocalLicense::from_config(&config.license, FileListener::new(|_| {}), None);
        let local = local.map_err(StartError::Misconfigured)?;
        gate.use_licenses(license::parts(config, &host, &gate.issuers(), local.as_ref()).map_err(wrong)?);
        Ok(Self {
            gate,
            ring: Ring::new(root, store.clone(), clock.clone()),
            outbox: mailer.map(|mailer| Outbox::new(store.clone(), mailer, clock.clone())),
            legacy: assembled.site.legacy,
            site: assembled.site.pages.name,
            methods: None,
        })
    }
}
