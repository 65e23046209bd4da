//! Doorward inside an axum app instead of in front of it: no second process, no config file, no database.
//!
//! What stands here is all that an app needs to admit callers by tokens of an issuer it trusts:
//!
//! 1. [`Settings`]: whose tokens, for which audience. In a real app these come from its own configuration.
//! 2. [`Door::new`]: the issuer's keys, the rules, and the gate made of both.
//! 3. [`Door::open`]: the app, and the gate's background work to be spawned beside it. That fetches keys and follows revocations; without it the gate
//!    soon knows nothing new and refuses rather than guesses.
//! 4. The routes, with [`GateLayer`] as the outermost layer. Handlers find out who calls with
//!    [`Caller`]; a request that no rule admits never reaches them.
//!
//! The layer judges exactly as `doorward serve` does: same rules, same reasons, same problem documents.

use std::{future::Future, time::Duration};

use axum::{Json, Router, routing::get};
use doorward_core::{
    credential::{CookieNames, CredentialKind, CredentialSet},
    csrf::OriginPolicy,
    jose::{Algorithm, AlgorithmSet, JwkSet},
    origin::Origin,
    request::Scheme,
    rule::{Access, Rule},
    session::SessionLimits,
    token::TokenPolicy,
    user::Email,
};
use doorward_gate::{
    axum::Caller,
    clock::Clock,
    gate::{Gate, GateParts, GateTask},
    issuer::{IssuerConfig, Issuers, KeySource},
    observe::Unobserved,
    policy::Policy,
    tower::GateLayer,
};
use doorward_store::Store;
use serde_json::{Value, json};
use url::Url;

/// Where an issuer's keys come from.
#[derive(Clone, Debug)]
pub enum Keys {
    /// Fetched, cached, and fetched again when a token names a key that is not known yet.
    Url(Url),
    /// Written down; a rotation needs a restart.
    Inline(JwkSet),
}

/// What the app has to know to admit anybody.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The host that clients use, without port; requests for another one are answered with 421.
    pub host: String,
    /// The exact `iss` of good tokens.
    pub issuer: String,
    /// The `aud` that means this app.
    pub audience: String,
    /// Keys of the issuer.
    pub keys: Keys,
}

/// The gate and what it has to do in the background.
#[derive(Debug)]
pub struct Door {
    gate: Gate,
    task: GateTask,
}

impl Door {
    /// Puts the gate together. Nothing is fetched yet; an issuer that is down is no error.
    ///
    /// # Errors
    /// Settings that cannot work, in words for whoever wrote them.
    pub fn new(settings: &Settings, clock: Clock) -> anyhow::Result<Self> {
        // Revocations and sessions live in a store. Tokens alone need none that lasts; an app whose users
        // sign in opens SQLite or PostgreSQL here, with the features of those names.
        let store = Store::memory();
        let keys = match &settings.keys {
            Keys::Url(url) => KeySource::Url(url.clone()),
            Keys::Inline(set) => KeySource::Inline(set.clone()),
        };
        let tokens = TokenPolicy {
            issuer: settings.issuer.clone(),
            aliases: vec![],
            // A token for somebody else is no token for us.
            audiences: vec![settings.audience.clone()],
            // Named one by one; a token cannot choose another one.
            algorithms: AlgorithmSet::of(&[Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256]),
            required_claims: vec![],
            clock_tolerance: Duration::from_secs(30),
            max_token_age: Some(Duration::from_secs(24 * 3600)),
            kind: None,
        };
        let issuers = Issuers::new(vec![IssuerConfig::new("main", tokens, keys)], &clock, Some(&store))?;
        let (gate, task) = Gate::new(GateParts {
            clock,
            store,
            issuers,
            policy: policy(&settings.host)?.into(),
            // Metrics and logs of decisions are the app's business: implement `Observe`.
            observer: Box::new(Unobserved),
            cache_capacity: 10_000,
        });
        Ok(Self { gate, task })
    }

    /// The app behind the gate, and the gate's background work, which ends when `stop` completes. Spawn the
    /// work before serving the app.
    pub fn open(self, stop: impl Future<Output = ()>) -> (Router, impl Future<Output = ()>) {
        let Self { gate, task } = self;
        let app = app(gate.clone());
        let work = async move {
            // Starts fetching keys now, so that the first caller does not wait for them.
            gate.issuers().start();
            gate.run(task, stop).await;
        };
        (app, work)
    }
}

/// The rules, in order: the first whose path matches decides, and what none matches is refused.
fn policy(host: &str) -> anyhow::Result<Policy> {
    let bearer = CredentialSet::NONE.with(CredentialKind::Bearer);
    let rules =
        vec![Rule::new(host, "/public", Access::Public)?, Rule::new(host, "/api/*", Access::Credential(bearer))?];
    let own = Origin::parse(&format!("https://{host}")).ok_or_else(|| anyhow::anyhow!("{host:?} is no host name"))?;
    // Only sessions look at these two, and no rule here admits one.
    let hour = Duration::from_secs(3600);
    let sessions = SessionLimits { idle: hour, absolute: 24 * hour, recent_auth: hour };
    let origins = OriginPolicy { own, allowed: vec![] };
    Ok(Policy::new(1, rules, vec![], sessions, CookieNames::SECURE, origins))
}

/// The routes. The gate goes on last, which in axum makes it the outermost layer: it judges before anything else
/// sees a request. Tell it the address of clients with `into_make_service_with_connect_info`.
fn app(gate: Gate) -> Router {
    Router::new().route("/public", get(public)).route("/api/me", get(me)).layer(GateLayer::new(gate, Scheme::Https))
}

/// Open to all. `Option<Caller>` is right where nobody need have been authenticated; a public rule looks at no
/// credential, so here it is always `None`.
async fn public(caller: Option<Caller>) -> Json<Value> {
    Json(json!({ "hello": caller.map_or("stranger".to_owned(), |caller| caller.0.subject.to_string()) }))
}

/// Says who calls. `Caller` cannot be had without an authenticated request: had the rules let somebody
/// anonymous through to here, the answer would be a 500 and an error in the log, not a guess.
async fn me(Caller(principal): Caller) -> Json<Value> {
    Json(json!({
        "subject": principal.subject.to_string(),
        "email": principal.email.as_ref().map(Email::as_str),
        "method": principal.authenticated.as_str(),
    }))
}
