//! What the servers under test need: a person with a session, an issuer's key, a gate.

use std::{path::Path, sync::Arc, time::Duration};

use doorward_core::{
    credential::{CookieNames, CredentialKind, CredentialSet},
    csrf::{CsrfKey, CsrfKeys, OriginPolicy},
    effects::Effects,
    jose::{Algorithm, AlgorithmSet, JwkSet},
    license::{LicensePolicy, LicenseState, Observation},
    origin::Origin,
    rule::{Access, CsrfMode, LicenseMode, OnStale, PathMode, PathPattern, Require, Rule},
    secret::Secret,
    session::{OpaqueToken, SessionLimits},
    time::{Now, Timestamp},
    token::TokenPolicy,
    user::User,
};
use doorward_gate::{
    clock::Clock,
    gate::{Gate, GateParts},
    issuer::{IssuerConfig, Issuers, KeySource},
    license::{Answering, LicenseParts, LicenseProvider, Question},
    observe::Unobserved,
    policy::{App, Policy},
};
use doorward_store::{Consume, CreateUser, Store, StoreOptions, conformance};
use serde_json::{Value, json};

/// Who is looked after by the tokens of this bench.
pub(crate) const AUDIENCE: &str = "https://api.example.com";
/// Whom the tokens come from. Nobody listens there: keys are given, not fetched.
pub(crate) const ISSUER: &str = "https://id.example.com";

/// The claims of an ordinary access token, about 600 bytes once signed; `number` makes it one of its kind.
pub(crate) fn claims(number: usize, now: i64) -> Value {
    json!({
        "iss": ISSUER, "sub": "018f3a5e-7c1b-7d2e-9f3a-4b5c6d7e8f90", "aud": AUDIENCE, "client_id": "web",
        "iat": now - 5, "nbf": now - 5, "exp": now + 3600, "jti": format!("01J8ZQ4T{number:018}"),
        "scope": "openid profile email orders:read", "email": "ann@example.com", "email_verified": true,
        "org_id": "org_7Q2M9X4B1C",
    })
}

/// The same in 8 KB: groups, as directories add them.
pub(crate) fn large_claims(number: usize, now: i64) -> Value {
    let mut claims = claims(number, now);
    claims["groups"] = (0..165).map(|group| format!("CN=team-{group:04},OU=groups,DC=example")).collect();
    claims
}

/// What tokens must look like.
pub(crate) fn token_policy() -> TokenPolicy {
    TokenPolicy {
        issuer: ISSUER.to_owned(),
        aliases: vec![],
        audiences: vec![AUDIENCE.to_owned()],
        algorithms: AlgorithmSet::of(&[Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256]),
        required_claims: vec![],
        clock_tolerance: Duration::from_secs(30),
        max_token_age: None,
        kind: None,
    }
}

/// An issuer whose keys are at hand.
pub(crate) fn issuers(key_set: &Value, clock: &Clock) -> Issuers {
    let set = JwkSet::parse(key_set.to_string().as_bytes()).unwrap();
    let config = IssuerConfig::new("main", token_policy(), KeySource::Inline(set));
    Issuers::new(vec![config], clock, None).unwrap()
}

/// A gate with one rule for everything, which admits `kind`; it is kept up to date in the background.
pub(crate) async fn gate(store: Store, issuers: Issuers, clock: &Clock, kind: CredentialKind) -> Gate {
    gate_with(store, issuers, clock, kind, LicenseMode::None).await
}

/// The same, with a rule that asks for a license, and a vendor from whom everybody has one.
pub(crate) async fn licensed_gate(store: Store, issuers: Issuers, clock: &Clock, kind: CredentialKind) -> Gate {
    let gate = gate_with(store, issuers, clock, kind, LicenseMode::ActiveOrGraceRead).await;
    gate.use_licenses(Some(LicenseParts {
        provider: Arc::new(Generous),
        policy: LicensePolicy { trust_for: Duration::from_hours(24), grace: Duration::from_hours(168) },
        cache_ttl: Duration::from_mins(5),
        issuer: Some("main".into()),
    }));
    gate
}

/// A vendor from whom everybody has a license.
#[derive(Debug)]
struct Generous;

impl LicenseProvider for Generous {
    fn name(&self) -> &'static str {
        "generous"
    }

    fn ask(&self, _: Question, now: Now) -> Answering {
        let observation = Observation {
            state: LicenseState::Active,
            license_id: Some("018f3a5e-7c1b-7d2e-9f3a-4b5c6d7e8f90".to_owned()),
            expires_at: Some(now.wall.plus(Duration::from_hours(365 * 24))),
            entitlements: ["AUDIT_LOG", "SSO"].map(str::to_owned).into(),
            observed_at: now.wall,
        };
        Box::pin(std::future::ready(Ok(observation)))
    }

    fn is_per_user(&self) -> bool {
        true
    }
}

async fn gate_with(store: Store, issuers: Issuers, clock: &Clock, kind: CredentialKind, license: LicenseMode) -> Gate {
    let rule = Rule {
        name: "rules[0] /*".into(),
        host: "127.0.0.1".into(),
        path: PathPattern::parse("/*").unwrap(),
        methods: vec![],
        access: Access::Credential(CredentialSet::NONE.with(kind)),
        csrf: CsrfMode::Token,
        license,
        on_stale: OnStale::Deny,
        require: Require::default(),
        app: 0,
        paths: PathMode::Strict,
        forward_authorization: false,
    };
    let limits = SessionLimits {
        idle: Duration::from_hours(24),
        absolute: Duration::from_hours(168),
        recent_auth: Duration::from_mins(5),
    };
    let origins = OriginPolicy { own: Origin::parse("http://127.0.0.1").unwrap(), allowed: vec![] };
    let app = App { name: "web".into(), audience: None, assertion: false };
    let (gate, task) = Gate::new(GateParts {
        clock: clock.clone(),
        store,
        issuers,
        policy: Policy::new(1, vec![rule], vec![app], limits, CookieNames::LOOPBACK, origins).into(),
        observer: Box::new(Unobserved),
        cache_capacity: 100_000,
    });
    // Rules protect against cross-site requests as they do by default, and that needs keys.
    let csrf = CsrfKey::new(&Secret::new(clock.random()));
    gate.use_csrf_keys(CsrfKeys { current: csrf, previous: None });
    gate.follow().await;
    let background = gate.clone();
    tokio::spawn(async move { background.run(task, std::future::pending()).await });
    gate
}

/// Opens the database that Doorward makes in `data`, and waits until it can be used.
pub(crate) async fn sqlite(data: &Path) -> Store {
    let store = Store::open("sqlite:doorward.db", StoreOptions::new(data, Clock::system().random())).unwrap();
    store.wait_ready(Duration::from_secs(30)).await.unwrap();
    store
}

/// A new user.
pub(crate) async fn user(store: &Store) -> User {
    let user = conformance::user();
    assert_eq!(store.create_user(user.clone(), Effects::default()).await, Ok(CreateUser::Created));
    user
}

/// Signs `user` in: a link is made and used. Gives the value of the session cookie.
pub(crate) async fn sign_in(store: &Store, user: &User, clock: &Clock) -> String {
    let (now, token) = (clock.now().wall, OpaqueToken::mint(clock.random()));
    let link = conformance::link(user);
    let mut plan = conformance::plan(&link, user);
    plan.session.hash = token.hash();
    plan.session.user_agent = Some(USER_AGENT.to_owned());
    begin(&mut plan.session, now);
    store.put_link(link, Effects::default()).await.unwrap();
    assert_eq!(store.consume_link(plan, Effects::default()).await, Ok(Consume::Consumed));
    token.expose()
}

/// What a browser calls itself; sessions remember it.
const USER_AGENT: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";

fn begin(session: &mut doorward_core::session::Session, now: Timestamp) {
    session.created_at = now;
    session.authenticated_at = now;
    session.last_used_at = now;
    session.expires_at = now.plus(Duration::from_hours(168));
}

/// A configuration for a whole Doorward in `data`, all of whose neighbours but `app` are dead.
pub(crate) fn config(data: &Path, port: u16, app: &str) -> Arc<str> {
    let issuer = "http://127.0.0.1:1";
    format!(
        r#"
public_url = "http://127.0.0.1:{port}"
data_dir = "{data}"
listen = {{ http = "127.0.0.1:{port}", admin = "127.0.0.1:0", trusted_proxies = ["127.0.0.1/32"] }}
mail = {{ url = "smtp://127.0.0.1:1", from = "Doorward <login@example.com>" }}

[apps.web]
upstream = "{app}"

[[issuers]]
name = "main"
issuer = "{issuer}"
audiences = ["{AUDIENCE}"]
algorithms = ["EdDSA"]
keys = {{ jwks_url = "{issuer}/jwks.json" }}

[[rules]]
path = "/public/*"
allow = ["public"]
app = "web"

[[rules]]
path = "/*"
allow = ["session"]
app = "web"
"#,
        data = data.display()
    )
    .into()
}
