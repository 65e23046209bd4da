//! From the configuration to the parts that act on it.

use std::sync::Arc;

use anyhow::anyhow;
use doorward_core::{
    csrf::{CsrfKey, CsrfKeys, OriginPolicy},
    forward::IdentityField,
    origin::Origin,
    redirect::RedirectPolicy,
    ring::KeySet,
    secret::Secret,
};
use doorward_gate::{
    flow::{
        LinkWorker, SubjectDirectory,
        sign_in::{SignIn, SignInConfig, SignInParts},
    },
    issuer::{IssuerParts, Issuers, Listener},
    policy::{App, Policy},
    rate::{Limit, MemoryLimits, Quota},
    ring::Ring,
};
use doorward_store::Store;

use crate::{
    config::{self, Config, ResolvedApp},
    http::{OwnRules, Site, SiteApp, cookies::Cookies, harden::Configured},
    lifecycle::Host,
    pages,
    proxy::{ProxyOptions, Upstream, UpstreamOptions},
};

/// What one version of the configuration becomes.
pub(crate) struct Assembled {
    /// For decisions.
    pub policy: Arc<Policy>,
    /// For tokens.
    pub issuers: Issuers,
    /// For the HTTP surface.
    pub site: Site,
}

/// Builds everything that is swapped together. Nothing is opened or fetched; what `old` issuers know already is taken
/// over.
///
/// # Errors
/// What only shows when parts are built, in words for the operator.
pub(crate) fn assemble(
    config: &Config,
    version: u64,
    store: &Store,
    host: &Host,
    listener: Listener,
    old: Option<&Issuers>,
) -> Result<Assembled, anyhow::Error> {
    let own = Origin::parse(&config.public_url.origin()).ok_or_else(|| anyhow!("public_url has no origin"))?;
    let apps = config.resolved_apps();
    let cookies = Cookies::new(config.public_url.is_https());
    let policy = Policy::new(
        version,
        config.core_rules(),
        apps.iter().map(gate_app).collect(),
        config.session.limits(),
        cookies.names,
        OriginPolicy { own: own.clone(), allowed: config.login.allowed_origins.clone() },
    );
    let policy = Arc::new(match &config.legacy {
        Some(legacy) => policy.with_legacy(legacy.policy()),
        None => policy,
    });
    let site = Site {
        policy: Arc::clone(&policy),
        pages: pages::Site { name: config.public_url.host().to_owned(), base: config.base_path.as_str().to_owned() },
        redirects: RedirectPolicy {
            own,
            allowed: config.login.allowed_origins.clone(),
            base_path: config.base_path.as_str().to_owned(),
        },
        trusted: config.trusted_proxies(),
        apps: apps.iter().map(site_app).collect::<Result<_, _>>()?,
        cookies,
        response_floor: config.login.response_floor,
        link_ttl: config.login.link_ttl,
        code_ttl: config.login.code_ttl.min(config.login.link_ttl),
        is_demo: host.is_demo,
        headers: Configured::new(config.headers.hsts.as_ref().map(config::Hsts::as_str), &config.login.allowed_origins),
        own_rules: OwnRules::new(config.legacy.is_some())?,
        legacy: config.legacy.as_ref().map(config::Legacy::ceiling),
        jobs: config.effective_jobs(host.license.is_some(), host.mailer.is_some()),
    };
    for issuer in &config.issuers {
        if let Some(path) = issuer.keys.missing_first() {
            let (issuer, file) = (&issuer.name.0, path.display());
            tracing::warn!(issuer, %file, "there is no first key set; `doorward keys fetch` writes it, live keys serve");
        }
    }
    let parts = IssuerParts { clock: host.clock.clone(), store: Some(store.clone()), listener };
    let issuers = Issuers::following(config.issuers.iter().map(config::Issuer::to_gate).collect(), parts, old)?;
    Ok(Assembled { policy, issuers, site })
}

fn gate_app(app: &ResolvedApp) -> App {
    App { name: Arc::clone(&app.name), audience: Some(app.audience.as_str().into()), assertion: app.app.assertion }
}

fn site_app(app: &ResolvedApp) -> Result<SiteApp, anyhow::Error> {
    let mut options = UpstreamOptions::new(Arc::clone(&app.name), app.app.upstream.to_string());
    options.connect = app.app.timeout.connect;
    options.idle = app.app.timeout.idle;
    let extra: Vec<_> = app
        .app
        .headers
        .iter()
        // Reading refused every other key.
        .filter_map(|(field, name)| Some((IdentityField::parse(field)?, name.0.clone())))
        .collect();
    Ok(SiteApp {
        upstream: Upstream::new(options, &ProxyOptions::default())?,
        extra_names: extra.iter().map(|(_, name)| name.clone()).collect(),
        extra,
        cors: app.app.cors,
        harden: app.app.harden,
        assertion: app.app.assertion.then(|| app.audience.as_str().into()),
    })
}

/// The settings of the sign-in.
pub(crate) fn sign_in_config(config: &Config) -> SignInConfig {
    SignInConfig {
        site: config.public_url.host().to_owned(),
        callback_url: format!("{}{}/login/callback", config.public_url.origin(), config.base_path.as_str()),
        link_ttl: config.login.link_ttl,
        code_ttl: config.login.code_ttl,
        sessions: config.session.limits(),
        allow_sign_up: config.login.allow_sign_up,
    }
}

/// The sign-in and its worker.
pub(crate) fn sign_in(
    config: &Config,
    store: &Store,
    ring: &Ring,
    host: &Host,
    directory: Option<Arc<dyn SubjectDirectory>>,
) -> (SignIn, LinkWorker) {
    let is_demo = host.is_demo;
    // In the demo everybody is the same client, and somebody who tries things out asks often.
    let limits = MemoryLimits::with(&host.clock, |limit| match limit {
        Limit::LinkPerClient | Limit::LinkPerAddress if is_demo => Quota::per_minute(60),
        limit => limit.quota(),
    });
    let parts = SignInParts {
        store: store.clone(),
        ring: ring.clone(),
        clock: host.clock.clone(),
        limits: Arc::new(limits),
        directory,
    };
    SignIn::new(sign_in_config(config), parts)
}

/// The CSRF keys of a ring: the current one makes, the newest previous one is still accepted.
pub(crate) fn csrf_keys(set: &KeySet) -> CsrfKeys {
    let key = |bytes: &[u8; 32]| CsrfKey::new(&Secret::new(*bytes));
    CsrfKeys {
        current: key(set.current().expose()),
        // The first accepted one is the current.
        previous: set.accepted().nth(1).map(|previous| key(previous.expose())),
    }
}
