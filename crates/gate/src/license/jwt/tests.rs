//! The provider against a hub over a real socket, with license JWTs of a real issuer.

use std::time::Duration;

use doorward_core::{
    id::UserId,
    jose::{Algorithm, AlgorithmSet, JwkSet},
    license::LicenseState as S,
    secret::Secret,
    time::Timestamp,
    token::TokenPolicy,
};
use doorward_testkit::{
    issuer::{Fault as IssuerFault, Issuer, Rotation},
    license::{ACCOUNT, Fault, LicenseServer, PRODUCT, PRODUCT_TOKEN, USER_TOKEN},
};

use super::*;
use crate::{
    clock::Clock,
    issuer::{IssuerConfig, KeySource},
    license::provider::FaultKind,
};

const NOW: i64 = 1_800_000_000;
const END: &str = "license_expires_at";

/// A hub, its issuer, and a license of Ann's; the token is what the test says.
struct Stage {
    clock: Clock,
    issuer: Arc<Issuer>,
    hub: LicenseServer,
    provider: JwtProvider,
    ann: String,
    license: String,
}

fn policy(issuer: &Issuer) -> TokenPolicy {
    TokenPolicy {
        issuer: issuer.url(),
        aliases: vec![],
        audiences: vec![PRODUCT.to_owned()],
        algorithms: AlgorithmSet::of(&[Algorithm::EdDsa]),
        required_claims: vec![],
        clock_tolerance: Duration::from_secs(30),
        max_token_age: None,
        kind: None,
    }
}

impl Stage {
    /// `source` says where the keys come from.
    async fn with(source: impl FnOnce(&Issuer) -> KeySource) -> Self {
        Self::tolerating(Duration::from_secs(30), source).await
    }

    /// Where clocks may be so far apart.
    async fn tolerating(clock_tolerance: Duration, source: impl FnOnce(&Issuer) -> KeySource) -> Self {
        let clock = Clock::manual(Timestamp::from_secs(NOW));
        let issuer = Arc::new(Issuer::start().await);
        let mut config = IssuerConfig::new("hub", TokenPolicy { clock_tolerance, ..policy(&issuer) }, source(&issuer));
        config.fetch_timeout = Duration::from_secs(1);
        let issuers = Issuers::new(vec![config], &clock, None).unwrap();
        issuers.start();
        let theirs = clock.clone();
        let hub = LicenseServer::start(move || theirs.now().wall.as_millis()).await;
        let endpoint =
            Endpoint { url: hub.url().parse().unwrap(), host: None, token: Secret::new(PRODUCT_TOKEN.to_owned()) };
        let config = JwtConfig {
            endpoint,
            account: ACCOUNT.to_owned(),
            product: Some(PRODUCT.to_owned()),
            issuer: "hub".to_owned(),
            end_claim: END.to_owned(),
            issuers,
        };
        let provider = JwtProvider::new(config, clock.clone());
        let ann = hub.user("ann@example.com");
        let license = hub.license(&ann);
        Self { clock, issuer, hub, provider: provider.unwrap(), ann, license }
    }

    async fn new() -> Self {
        let stage = Self::with(|issuer| KeySource::Url(issuer.jwks_url().parse().unwrap())).await;
        stage.mint(json!({}));
        stage
    }

    /// License JWTs from now on: good claims with these in place of them; null removes.
    fn mint(&self, changes: Value) {
        let (issuer, clock) = (Arc::clone(&self.issuer), self.clock.clone());
        self.hub.be_hub(move |_, owner| {
            let now = clock.now().wall.as_secs();
            let mut claims = json!({
                "iss": issuer.url(), "aud": PRODUCT, "sub": owner?.id, "iat": now - 60, "exp": now + 3600,
            });
            for (name, value) in changes.as_object()? {
                claims[name] = value.clone();
            }
            claims.as_object_mut()?.retain(|_, value| !value.is_null());
            Some(issuer.mint_with(&json!({"typ": "JWT"}), &claims))
        });
    }

    fn question(&self) -> Question {
        Question {
            holder: Holder::User(UserId::mint(Timestamp::EPOCH, [1; 10])),
            license_id: Some(self.license.clone()),
            subject: Some(self.ann.clone()),
            email: None,
            judged_at: self.clock.now().wall,
        }
    }

    async fn ask(&self) -> Result<Observation, ProviderFault> {
        self.provider.ask(self.question(), self.clock.now()).await
    }

    async fn state(&self) -> Result<S, FaultKind> {
        self.ask().await.map(|said| said.state).map_err(|fault| fault.kind)
    }
}

#[tokio::test]
async fn a_license_jwt_says_what_its_claims_say() {
    let stage = Stage::new().await;
    stage.mint(json!({"entitlements": ["sso", "api"], END: NOW + 86_400}));
    let wanted = Observation {
        state: S::Active,
        license_id: Some(stage.license.clone()),
        expires_at: Some(Timestamp::from_secs(NOW + 86_400)),
        entitlements: ["api".to_owned(), "sso".to_owned()].into(),
        observed_at: Timestamp::from_secs(NOW - 60),
    };
    assert_eq!(stage.ask().await, Ok(wanted));
    let heard = stage.hub.heard();
    let target = format!("/v1/accounts/{ACCOUNT}/licenses/actions/validate-key");
    assert_eq!((heard[0].method.as_str(), heard[0].target.as_str()), ("POST", target.as_str()));
    assert_eq!(heard[0].body, Some(json!({"meta": {"key": stage.license, "scope": {"product": PRODUCT}}})));
}

#[tokio::test]
async fn a_missing_status_is_active_and_an_unknown_one_is_refused() {
    let stage = Stage::new().await;
    for (word, state) in [
        ("ACTIVE", Ok(S::Active)),
        ("valid", Ok(S::Active)),
        ("Expiring", Ok(S::Active)),
        ("EXPIRED", Ok(S::Expired)),
        ("SUSPENDED", Ok(S::Suspended)),
        ("banned", Ok(S::Banned)),
        ("none", Ok(S::None)),
        ("a word of tomorrow", Err(FaultKind::Untrusted)),
        ("", Err(FaultKind::Untrusted)),
    ] {
        stage.mint(json!({ "status": word }));
        assert_eq!(stage.state().await, state, "{word:?}");
    }
    stage.mint(json!({ "status": 7 }));
    assert_eq!(stage.state().await, Err(FaultKind::Untrusted));
    stage.mint(json!({}));
    assert_eq!(stage.state().await, Ok(S::Active));
}

#[tokio::test]
async fn the_end_of_the_license_is_what_its_claim_says_and_never_that_of_the_token() {
    let stage = Stage::new().await;
    let end =
        async || stage.ask().await.map(|said| said.expires_at.map(Timestamp::as_secs)).map_err(|fault| fault.kind);
    assert_eq!(end().await, Ok(None), "the token ends in an hour, the license not at all");
    for (claim, wanted) in [
        (json!(NOW + 86_400), Ok(Some(NOW + 86_400))),
        (json!(NOW - 86_400), Ok(Some(NOW - 86_400))),
        (json!("2027-01-16T08:00:00.000Z"), Ok(Some(NOW + 86_400))),
        (json!("2027-01-16T10:00:00+02:00"), Ok(Some(NOW + 86_400))),
        (json!((NOW + 86_400) * 1000), Err(FaultKind::Untrusted)),
        (json!("tomorrow"), Err(FaultKind::Untrusted)),
        (json!("2027-01-16"), Err(FaultKind::Untrusted)),
        (json!(-1), Err(FaultKind::Untrusted)),
        (json!(true), Err(FaultKind::Untrusted)),
        (json!([NOW]), Err(FaultKind::Untrusted)),
    ] {
        stage.mint(json!({ END: claim }));
        assert_eq!(end().await, wanted, "{claim}");
    }
    let moment = |claim| said::moment(&claim).unwrap();
    assert_eq!(moment(Value::Null), None, "null is no end");
}

#[tokio::test]
async fn where_the_configuration_says_so_the_license_ends_with_the_token() {
    let mut stage = Stage::new().await;
    let inner = &stage.provider.0;
    let endpoint =
        Endpoint { url: stage.hub.url().parse().unwrap(), host: None, token: Secret::new(PRODUCT_TOKEN.to_owned()) };
    let config = JwtConfig {
        endpoint,
        account: ACCOUNT.to_owned(),
        product: None,
        issuer: "hub".to_owned(),
        end_claim: "exp".to_owned(),
        issuers: inner.issuers.clone(),
    };
    stage.provider = JwtProvider::new(config, stage.clock.clone()).unwrap();
    stage.mint(json!({ END: NOW + 86_400 }));
    assert_eq!(stage.ask().await.unwrap().expires_at, Some(Timestamp::from_secs(NOW + 3600)));
}

#[tokio::test]
async fn a_token_that_has_ended_is_a_license_that_has_ended_then_or_before() {
    let stage = Stage::new().await;
    stage.mint(json!({"exp": NOW - 31}));
    let said = stage.ask().await.unwrap();
    assert_eq!((said.state, said.expires_at), (S::Expired, Some(Timestamp::from_secs(NOW - 31))));
    for (stated, end) in [(NOW - 86_400, NOW - 86_400), (NOW + 86_400, NOW - 31)] {
        stage.mint(json!({"exp": NOW - 31, END: stated}));
        let said = stage.ask().await.unwrap();
        assert_eq!((said.state, said.expires_at), (S::Expired, Some(Timestamp::from_secs(end))), "{stated}");
    }
    stage.mint(json!({"exp": NOW - 29}));
    assert_eq!(stage.state().await, Ok(S::Active), "within the tolerance of the issuer");
}

#[tokio::test]
async fn users_are_made_once_whether_the_hub_refuses_a_second_one_or_not() {
    let stage = Stage::new().await;
    let email = Email::parse("Bob@example.com").unwrap();
    let metadata = Map::from_iter([("appSlug".to_owned(), "web".into())]);
    let Ok(Enrolled::Created(User { id, .. })) = stage.provider.create_user(&email, metadata).await else {
        panic!("not created");
    };
    assert_eq!(
        stage.hub.change_user(&id, |user| (user.email.clone(), user.metadata["appSlug"].clone())),
        ("bob@example.com".to_owned(), json!("web"))
    );
    let again = stage.provider.create_user(&email, Map::new()).await.unwrap();
    assert!(matches!(again, Enrolled::Known(user) if user.id == id));
    stage.hub.fault(Some(Fault::OtherShape));
    let carol = Email::parse("carol@example.com").unwrap();
    let trouble = stage.provider.create_user(&carol, Map::new()).await.unwrap_err();
    assert!(matches!(trouble, Trouble::Shape(_)), "a user without an id is none: {trouble}");
}

#[tokio::test]
async fn a_token_about_somebody_or_something_else_does_not_count_here() {
    let stage = Stage::new().await;
    stage.mint(json!({"sub": "somebody else"}));
    assert_eq!(stage.state().await, Ok(S::Invalid));
    stage.mint(json!({"aud": "another product"}));
    assert_eq!(stage.state().await, Ok(S::Invalid));
    stage.mint(json!({"exp": null}));
    assert_eq!(stage.state().await, Ok(S::Invalid));
    stage.mint(json!({}));
    let nobody = Question { subject: None, ..stage.question() };
    let said = stage.provider.ask(nobody, stage.clock.now()).await.unwrap();
    assert_eq!(said.state, S::Invalid, "somebody whose subject is not known could be anybody");
    let everybody = Question { holder: Holder::Installation, subject: None, ..stage.question() };
    assert_eq!(stage.provider.ask(everybody, stage.clock.now()).await.unwrap().state, S::Active);
}

#[tokio::test]
async fn a_token_that_proves_nothing_is_a_fault() {
    let stage = Stage::new().await;
    assert_eq!(stage.state().await, Ok(S::Active));
    stage.mint(json!({"nbf": NOW + 300}));
    assert_eq!(stage.state().await, Err(FaultKind::Untrusted), "two clocks differ");
    stage.mint(json!({"iss": "https://another.example"}));
    assert_eq!(stage.state().await, Err(FaultKind::Untrusted));
    stage.hub.be_hub(|_, _| Some("no token".to_owned()));
    assert_eq!(stage.state().await, Err(FaultKind::Untrusted));
    // Keys of somebody else under the name that we know.
    stage.mint(json!({}));
    stage.issuer.freeze(true);
    stage.issuer.rotate(Rotation::SameId);
    let fault = stage.ask().await.unwrap_err();
    assert_eq!((fault.kind, fault.note.contains("token_bad_signature")), (FaultKind::Untrusted, true), "{fault}");
}

#[tokio::test]
async fn a_token_that_was_made_while_the_hub_was_asked_is_believed_without_any_tolerance() {
    let stage = Stage::tolerating(Duration::ZERO, |issuer| {
        KeySource::Inline(JwkSet::parse(issuer.key_set().to_string().as_bytes()).unwrap())
    })
    .await;
    let (issuer, clock) = (Arc::clone(&stage.issuer), stage.clock.clone());
    stage.hub.be_hub(move |_, owner| {
        clock.advance(Duration::from_secs(2));
        let now = clock.now().wall.as_secs();
        let claims = json!({
            "iss": issuer.url(), "aud": PRODUCT, "sub": owner?.id, "iat": now, "nbf": now, "exp": now + 3600,
        });
        Some(issuer.mint_with(&json!({"typ": "JWT"}), &claims))
    });
    let said = stage.ask().await.unwrap();
    assert_eq!((said.state, said.observed_at), (S::Active, Timestamp::from_secs(NOW + 2)));
    // What bears our own stamp still says when it was asked for.
    stage.hub.be_hub({
        let (issuer, clock) = (Arc::clone(&stage.issuer), stage.clock.clone());
        move |_, owner| {
            clock.advance(Duration::from_secs(2));
            let claims = json!({"iss": issuer.url(), "aud": PRODUCT, "sub": owner?.id, "exp": NOW + 4});
            Some(issuer.mint_with(&json!({"typ": "JWT"}), &claims))
        }
    });
    let said = stage.ask().await.unwrap();
    assert_eq!((said.state, said.observed_at), (S::Expired, Timestamp::from_secs(NOW + 2)));
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_are_no_verdict_and_keys_of_the_configuration_need_no_fetch() {
    let stage = Stage::with(|issuer| {
        issuer.fault(Some(IssuerFault::Status(404)));
        KeySource::Url(issuer.jwks_url().parse().unwrap())
    })
    .await;
    stage.mint(json!({}));
    assert_eq!(stage.state().await, Err(FaultKind::Unavailable));
    let stage = Stage::with(|issuer| {
        issuer.fault(Some(IssuerFault::Status(404)));
        KeySource::Inline(JwkSet::parse(issuer.key_set().to_string().as_bytes()).unwrap())
    })
    .await;
    stage.mint(json!({}));
    assert_eq!(stage.state().await, Ok(S::Active));
    assert_eq!(stage.issuer.hits(), 0);
}

#[tokio::test]
async fn a_no_needs_no_token_and_a_yes_does() {
    let stage = Stage::new().await;
    stage.hub.be_hub(|_, _| None);
    assert_eq!(stage.state().await, Err(FaultKind::Untrusted), "valid, says something without a signature");
    stage.hub.suspend(&stage.license);
    assert_eq!(stage.state().await, Ok(S::Suspended));
    stage.hub.ban(&stage.ann);
    assert_eq!(stage.state().await, Ok(S::Banned));
    stage.hub.revoke(&stage.license);
    let said = stage.ask().await.unwrap();
    assert_eq!((said.state, said.license_id), (S::None, Some(stage.license.clone())), "revoked: turned off, not kept");
}

#[tokio::test]
async fn whoever_has_no_license_here_is_not_asked_about() {
    let stage = Stage::new().await;
    let said = stage.provider.ask(Question { license_id: None, ..stage.question() }, stage.clock.now()).await.unwrap();
    assert_eq!((said.state, stage.hub.hits()), (S::None, 0));
}

#[tokio::test]
async fn a_hub_that_fails_says_nothing_about_licenses() {
    let stage = Stage::new().await;
    for (fault, kind, note) in [
        (Fault::Page(502), FaultKind::Unavailable, "502"),
        (Fault::TooMany(7), FaultKind::Unavailable, "429"),
        (Fault::Endless, FaultKind::Unavailable, "too long"),
        (Fault::Page(200), FaultKind::Untrusted, "`meta`"),
        (Fault::Page(404), FaultKind::Untrusted, "404"),
        (Fault::Refuse(401, "TOKEN_INVALID".to_owned()), FaultKind::Misconfigured, "401, TOKEN_INVALID"),
        (Fault::Redirect("https://hub.example.com/".to_owned()), FaultKind::Misconfigured, "https://hub.example.com"),
    ] {
        stage.hub.fault(Some(fault.clone()));
        let met = stage.ask().await.unwrap_err();
        assert!(met.kind == kind && met.note.contains(note), "{fault:?}: {met}");
        assert_eq!(met.retry_after.is_some(), fault == Fault::TooMany(7));
    }
    stage.hub.fault(None);
    stage.hub.die().await;
    assert_eq!(stage.state().await, Err(FaultKind::Unavailable));
    stage.hub.revive().await;
    assert_eq!(stage.state().await, Ok(S::Active));
}

#[tokio::test]
async fn a_mail_address_is_that_of_the_user_who_has_it() {
    let stage = Stage::new().await;
    let email = |text: &str| Email::parse(text).unwrap();
    let found = stage.provider.find_user(&email("Ann@example.com")).await.unwrap();
    assert_eq!(found.map(|user| user.id), Some(stage.ann.clone()));
    assert_eq!(stage.provider.find_user(&email("bob@example.com")).await, Ok(None));
    let target = format!("/v1/accounts/{ACCOUNT}/users?filter%5Bemail%5D=ann%40example.com");
    assert_eq!(stage.hub.heard()[0].target, target);
    // A server that does not know the filter gives everybody.
    let theirs = stage.clock.clone();
    let other = LicenseServer::start(move || theirs.now().wall.as_millis()).await;
    other.user("ann@example.com");
    let endpoint =
        Endpoint { url: other.url().parse().unwrap(), host: None, token: Secret::new(PRODUCT_TOKEN.to_owned()) };
    let config = JwtConfig {
        endpoint,
        account: ACCOUNT.to_owned(),
        product: None,
        issuer: "hub".to_owned(),
        end_claim: END.to_owned(),
        issuers: stage.provider.0.issuers.clone(),
    };
    let provider = JwtProvider::new(config, stage.clock.clone());
    assert_eq!(provider.unwrap().find_user(&email("bob@example.com")).await, Ok(None));
}

#[tokio::test]
async fn the_doctor_asks_about_a_license_that_is_not_there() {
    let stage = Stage::new().await;
    assert_eq!(stage.provider.inspect().await, Ok(()));
    stage.hub.fault(Some(Fault::Page(200)));
    assert!(stage.provider.inspect().await.is_err());
    let printed = format!("{:?}", stage.provider);
    assert!(!printed.contains(PRODUCT_TOKEN) && !printed.contains(USER_TOKEN), "{printed}");
}
