//! Provider `file`: the license file that lies here, or the lease from a relay; both are looked after by a job, because
//! nobody tells us when a file is put in its place or a lease ends.

use std::sync::Arc;

use doorward_core::{
    audit::{AuditEvent, EventKind},
    keygen::AccountKeys,
    license::Holder,
    secret::Secret,
    time::Timestamp,
};
use doorward_gate::{
    clock::Clock,
    license::{Applied, Expected, FileListener, FileNews, FileProvider, LicenseProvider, RelayOptions, RelayProvider},
};

use crate::{
    config::{self, Provider},
    http::Server,
    telemetry::{Metrics, audit, audit::AuditQueue, metrics::NameLabel},
};

/// Where the license of the installation comes from.
#[derive(Clone, Debug)]
pub enum LocalLicense {
    /// A file, or a folder of them.
    File(FileProvider),
    /// A keygen-relay.
    Relay(RelayProvider),
}

impl LocalLicense {
    /// From `[license]`, if its provider is `file`; `listener` hears of the file. What an `old` one holds stays where the
    /// configuration asks for the same.
    ///
    /// # Errors
    /// What shows only when it is built, with the key.
    pub(crate) fn from_config(
        config: &config::License,
        listener: FileListener,
        old: Option<&Self>,
    ) -> Result<Option<Self>, String> {
        if config.provider != Provider::File {
            return Ok(None);
        }
        let expected = expected(config, config.account_keys());
        if let (Some(url), Some(fingerprint)) = (&config.relay_url, &config.fingerprint) {
            let options = RelayOptions {
                url: url.as_url().clone(),
                fingerprint: fingerprint.clone(),
                pool: config.relay_pool.clone(),
                secret: config.relay_secret.as_ref().map(|secret| secret.0.clone()),
                // A relay leases license files; the fingerprint is only this node's name there.
                expected: Expected { fingerprint: None, ..expected },
            };
            let old = old.and_then(|old| if let Self::Relay(relay) = old { Some(relay) } else { None });
            return RelayProvider::following(options, old)
                .map(|relay| Some(Self::Relay(relay)))
                .map_err(|what| format!("license.relay_url: {what}"));
        }
        // Reading refused a `[license]` without the one and the other.
        let path = config.path.clone().ok_or("license.path is missing")?;
        let old = old.and_then(|old| if let Self::File(file) = old { Some(file) } else { None });
        Ok(Some(Self::File(FileProvider::following(path, expected, listener, old))))
    }

    /// The provider.
    pub(crate) fn provider(&self) -> Arc<dyn LicenseProvider> {
        match self {
            Self::File(file) => Arc::new(file.clone()),
            Self::Relay(relay) => Arc::new(relay.clone()),
        }
    }

    /// Looks after it: asks at once when the file changed or the lease has to be extended.
    pub(crate) async fn look_after(&self, server: &Server) {
        let Some(licenses) = server.gate.licenses() else { return };
        let clock = server.gate.clock();
        match self {
            Self::Relay(relay) if relay.is_due(clock.now()) => {
                if let Err(error) = licenses.refresh(Holder::Installation).await {
                    tracing::debug!(%error, "the lease of a license is not extended");
                }
            }
            Self::Relay(_) => {}
            Self::File(file) => {
                if file.is_passed_over() && server.gate.store().license(Holder::Installation).await == Ok(None) {
                    // Somebody said that it is to count: `doorward license forget`.
                    file.start_over();
                }
                let looked = file.clone();
                let changed = tokio::task::spawn_blocking(move || looked.has_changed()).await;
                if !changed.unwrap_or(false) && !file.is_to_be_compared() {
                    return;
                }
                // Not as a question: one that failed before must not make the new file wait.
                let Ok(judged_at) = licenses.judged_at().await else { return };
                let Ok(observation) = file.read(judged_at).await else { return };
                match licenses.observe(Holder::Installation, observation.clone(), None).await {
                    // A process that has just started learns only here that something newer is known.
                    Ok(Applied::Older) => {
                        if let Ok(Some(row)) = server.gate.store().license(Holder::Installation).await {
                            file.passed_over(&observation, &row.known.observation);
                        }
                    }
                    Ok(_) => file.compared(&observation),
                    Err(error) => tracing::debug!(%error, "the license file waits for the store"),
                }
            }
        }
    }
}

impl LocalLicense {
    /// Gives a lease back, so that others need not wait for its end.
    pub(crate) async fn release(&self, clock: &Clock) {
        if let Self::Relay(relay) = self {
            relay.release(clock.now()).await;
        }
    }
}

/// What a license must be to count here.
pub(crate) fn expected(config: &config::License, keys: AccountKeys) -> Expected {
    Expected {
        keys,
        scheme: config.scheme,
        account: config.account.clone(),
        product: config.product.clone(),
        license_key: config.license_key.as_ref().map(|key| Secret::new(key.0.expose().trim().to_owned())),
        fingerprint: config.fingerprint.clone(),
        max_age: config.file_max_age,
    }
}

/// A listener that audits and counts.
pub(crate) fn listener(metrics: &Arc<Metrics>, audit: &Arc<AuditQueue>, clock: &Clock) -> FileListener {
    let (metrics, queue, clock) = (Arc::clone(metrics), Arc::clone(audit), clock.clone());
    FileListener::new(move |news| {
        let at = clock.now().wall;
        let (event, name) = match news {
            FileNews::Taken { file, license_id, ends_at } => {
                let mut event = AuditEvent::new(EventKind::LicenseFileTaken, at);
                event.detail.more = audit::more([
                    ("file", file.into()),
                    ("license_id", license_id.into()),
                    ("ends_at", ends_at.map(Timestamp::as_secs).into()),
                ]);
                (event, "taken")
            }
            FileNews::Refused { why } => {
                let mut event = AuditEvent::new(EventKind::LicenseFileRefused, at);
                event.detail.more = audit::more([("why", why.into())]);
                (event, "refused")
            }
        };
        metrics.license_files.get_or_create(&NameLabel { name: name.to_owned() }).inc();
        queue.push(event);
    })
}
