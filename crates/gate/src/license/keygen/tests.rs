//! The provider against a license server over a real socket.

mod faults;
mod vectors;

use doorward_core::{
    id::UserId,
    keygen::{AccountKeys, User},
    license::{Holder, LicenseState as S},
    user::Email,
};
use doorward_testkit::license::{ACCOUNT, Algorithm as SignedWith, LicenseServer, OnExpiry, PRODUCT, PRODUCT_TOKEN};
use serde_json::Map;

use super::*;
use crate::license::provider::ProviderFault;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

struct Stage {
    clock: Clock,
    server: LicenseServer,
    provider: KeygenProvider,
}

fn config(server: &LicenseServer) -> KeygenConfig {
    KeygenConfig {
        endpoint: Endpoint {
            url: server.url().parse().unwrap(),
            host: None,
            token: Secret::new(PRODUCT_TOKEN.to_owned()),
        },
        account: ACCOUNT.to_owned(),
        product: PRODUCT.to_owned(),
        keys: AccountKeys::parse(&[server.public_key(SignedWith::Ed25519)]).unwrap(),
    }
}

impl Stage {
    async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    async fn with(change: impl FnOnce(&mut KeygenConfig, &LicenseServer)) -> Self {
        let clock = Clock::manual(Timestamp::from_secs(NOW));
        let theirs = clock.clone();
        let server = LicenseServer::start(move || theirs.now().wall.as_millis()).await;
        let mut config = config(&server);
        change(&mut config, &server);
        let provider = KeygenProvider::new(config, clock.clone()).unwrap();
        Self { clock, server, provider }
    }

    async fn ask(&self, question: Question) -> Result<Observation, ProviderFault> {
        self.provider.ask(question, self.clock.now()).await
    }

    /// About the user with this subject.
    async fn about(&self, subject: &str) -> Observation {
        self.ask(Question { subject: Some(subject.to_owned()), ..question() }).await.unwrap()
    }

    fn targets(&self) -> Vec<String> {
        self.server.heard().into_iter().map(|heard| heard.target).collect()
    }
}

/// About a user of whom nothing is known.
fn question() -> Question {
    let holder = Holder::User(UserId::mint(Timestamp::EPOCH, [1; 10]));
    Question { holder, license_id: None, subject: None, email: None, judged_at: Timestamp::EPOCH }
}

fn email(text: &str) -> Option<Email> {
    Some(Email::parse(text).unwrap())
}

#[tokio::test]
async fn a_user_is_found_by_mail_address_and_their_license_by_its_verdict() {
    let stage = Stage::new().await;
    let user = stage.server.user("ann+1@example.com");
    let license = stage.server.license(&user);
    stage.server.ends_in(&license, 10 * DAY);
    stage.server.entitle(&license, "sso");
    let found = stage.ask(Question { email: email("Ann+1@Example.com"), ..question() }).await.unwrap();
    let wanted = Observation {
        state: S::Active,
        license_id: Some(license.clone()),
        expires_at: Some(Timestamp::from_secs(NOW + 10 * DAY)),
        entitlements: ["sso".to_owned()].into(),
        observed_at: Timestamp::from_secs(NOW),
    };
    assert_eq!(found, wanted);
    let account = format!("/v1/accounts/{ACCOUNT}");
    let asked = [
        format!("{account}/users/ann%2B1%40example.com"),
        format!("{account}/licenses?user={user}&product={PRODUCT}&page%5Bnumber%5D=1&page%5Bsize%5D=100"),
        format!("{account}/licenses/{license}/actions/validate"),
        format!("{account}/licenses/{license}/entitlements?page%5Bnumber%5D=1&page%5Bsize%5D=100"),
    ];
    assert_eq!(stage.targets(), asked);
    let heard = stage.server.heard();
    assert!(heard.iter().all(|heard| heard.method == "GET" && heard.has_credential), "{heard:?}");
    assert!(heard.iter().all(|heard| heard.version.as_deref() == Some(VERSION)), "{heard:?}");
    assert_eq!(stage.server.validation_events(), 0, "nobody is told, so no webhook feeds itself");
    assert_eq!(stage.about(&user).await, wanted, "with the subject known, nobody is looked for");
    assert_eq!(stage.server.hits(), 7);
}

#[tokio::test]
async fn the_verdict_counts_and_not_the_status() {
    let stage = Stage::new().await;
    let (server, user) = (&stage.server, stage.server.user("ann@example.com"));
    let license = server.license(&user);
    server.change(&license, |license| license.is_inactive = true);
    assert_eq!(stage.about(&user).await.state, S::Active, "INACTIVE is a word for people");
    server.ends_in(&license, 2 * DAY);
    assert_eq!(stage.about(&user).await.state, S::Active, "so is EXPIRING");
    server.change(&license, |license| license.verdict = Some((true, "TOO_MANY_MACHINES")));
    assert_eq!(stage.about(&user).await.state, S::Active);
    server.change(&license, |license| license.verdict = Some((false, "A_CODE_OF_TOMORROW")));
    assert_eq!(stage.about(&user).await.state, S::Invalid);
    server.change(&license, |license| license.verdict = None);
    server.suspend(&license);
    assert_eq!(stage.about(&user).await.state, S::Suspended);
    server.reinstate(&license);
    server.ban(&user);
    assert_eq!(stage.about(&user).await.state, S::Banned);
    server.unban(&user);
    server.ends_in(&license, -DAY);
    for (policy, state) in [
        (OnExpiry::Restrict, S::Expired),
        (OnExpiry::Revoke, S::Expired),
        (OnExpiry::Maintain, S::ActiveBeyondExpiry),
        (OnExpiry::Allow, S::ActiveBeyondExpiry),
    ] {
        server.change(&license, |license| license.on_expiry = policy);
        let said = stage.about(&user).await;
        assert_eq!((said.state, said.expires_at), (state, Some(Timestamp::from_secs(NOW - DAY))), "{policy:?}");
    }
    server.revoke(&license);
    assert_eq!(stage.about(&user).await.state, S::None, "what is revoked is gone");
}

#[tokio::test]
async fn of_several_licenses_the_best_counts() {
    let stage = Stage::new().await;
    let (server, user) = (&stage.server, stage.server.user("ann@example.com"));
    let over = server.license(&user);
    server.ends_in(&over, -DAY);
    let suspended = server.license(&user);
    server.suspend(&suspended);
    let said = stage.about(&user).await;
    assert_eq!((said.state, said.license_id), (S::Expired, Some(over)), "a grace is better than nothing");
    let short = server.license(&user);
    server.ends_in(&short, DAY);
    let long = server.license(&user);
    server.ends_in(&long, 300 * DAY);
    let said = stage.about(&user).await;
    assert_eq!((said.state, said.license_id), (S::Active, Some(long.clone())));
    server.change(&long, |license| license.verdict = Some((false, "NO_MACHINES")));
    assert_eq!(stage.about(&user).await.license_id, Some(short), "the next one, where the best does not count here");
    let shared = server.license(&server.user("owner@example.com"));
    server.change(&shared, |license| license.users.push(user.clone()));
    assert_eq!(stage.about(&user).await.license_id, Some(shared), "one that never ends, of somebody else");
}

#[tokio::test]
async fn licenses_of_another_product_are_none() {
    let stage = Stage::new().await;
    let user = stage.server.user("ann@example.com");
    let license = stage.server.license(&user);
    stage.server.change(&license, |license| license.product = "another".to_owned());
    assert_eq!(stage.about(&user).await.state, S::None);
    let by_id = stage.ask(Question { license_id: Some(license.clone()), ..question() }).await.unwrap();
    assert_eq!(by_id.state, S::Invalid, "asked about by its id");
    let by_hand = stage.provider.validate(&LicenseName::Id(license)).await.unwrap();
    assert_eq!(by_hand.state, S::Invalid);
}

#[tokio::test]
async fn who_is_unknown_has_no_license_and_who_cannot_be_known_is_not_asked_about() {
    let stage = Stage::new().await;
    let nobody = stage.ask(Question { email: email("nobody@example.com"), ..question() }).await.unwrap();
    assert_eq!((nobody.state, nobody.observed_at), (S::None, Timestamp::from_secs(NOW)));
    assert_eq!(stage.server.hits(), 1);
    let user = stage.server.user("ann@example.com");
    assert_eq!(stage.about(&user).await.state, S::None, "without a license");
    stage.server.delete_user(&user);
    assert_eq!(stage.about(&user).await.state, S::None, "deleted");
    let hits = stage.server.hits();
    assert_eq!(stage.ask(question()).await.unwrap().state, S::None);
    assert_eq!(stage.server.hits(), hits);
}

#[tokio::test]
async fn long_lists_are_read_page_by_page_and_not_for_ever() {
    let stage = Stage::new().await;
    let (server, user) = (&stage.server, stage.server.user("ann@example.com"));
    let first = server.license(&user);
    for number in 0..150 {
        let license = server.license(&user);
        server.suspend(&license);
        server.entitle(&first, &format!("code-{number}"));
    }
    let said = stage.about(&user).await;
    assert_eq!((said.license_id, said.entitlements.len()), (Some(first.clone()), 150), "on the second page");
    assert_eq!(server.hits(), 2 + 1 + 2);
    for _ in 0..300 {
        let license = server.license(&user);
        server.suspend(&license);
    }
    let said = stage.about(&user).await;
    assert_eq!(said.state, S::Suspended, "the newest three hundred are looked at");
    assert_eq!(server.hits(), 5 + MAX_PAGES + MAX_VALIDATED);
}

#[tokio::test]
async fn somebody_who_asks_by_hand_gets_a_full_validation_with_a_nonce() {
    let stage = Stage::new().await;
    let license = stage.server.license(&stage.server.user("ann@example.com"));
    stage.server.entitle(&license, "sso");
    let key = LicenseName::Key(Secret::new(stage.server.key_of(&license)));
    for name in [&key, &LicenseName::Id(license.clone())] {
        let said = stage.provider.validate(name).await.unwrap();
        assert_eq!((said.state, said.license_id.as_ref()), (S::Active, Some(&license)));
        assert_eq!(said.entitlements.len(), 1);
    }
    let nonces: Vec<_> =
        stage.server.heard().iter().filter_map(|heard| Some(heard.body.as_ref()?["meta"]["nonce"].clone())).collect();
    assert_eq!(nonces.len(), 2);
    assert_ne!(nonces[0], nonces[1]);
    assert_eq!(stage.server.validation_events(), 2);
    for unknown in [LicenseName::Key(Secret::new("unknown".to_owned())), LicenseName::Id("unknown".to_owned())] {
        assert_eq!(stage.provider.validate(&unknown).await.unwrap().state, S::None);
    }
    stage.server.fault(Some(doorward_testkit::license::Fault::WrongNonce));
    assert_eq!(stage.provider.validate(&key).await, Err(Trouble::OtherNonce));
}

#[tokio::test]
async fn users_are_made_once() {
    let stage = Stage::new().await;
    let address = email("Ann@Example.com").unwrap();
    assert_eq!(stage.provider.find_user(&address).await, Ok(None));
    let metadata = Map::from_iter([("appSlug".to_owned(), "web".into())]);
    let Ok(Enrolled::Created(User { id, email, .. })) = stage.provider.create_user(&address, metadata).await else {
        panic!("not created");
    };
    assert_eq!(email.as_deref(), Some("ann@example.com"));
    assert_eq!(stage.server.change_user(&id, |user| user.metadata["appSlug"].clone()), "web");
    let again = stage.provider.create_user(&address, Map::new()).await.unwrap();
    assert!(matches!(again, Enrolled::Known(user) if user.id == id));
}

#[tokio::test]
async fn each_pinned_key_is_enough() {
    for algorithm in [SignedWith::Ed25519, SignedWith::EcdsaP256, SignedWith::RsaSha256] {
        let stage = Stage::with(|config, server| {
            config.keys = AccountKeys::parse(&[server.public_key(algorithm)]).unwrap();
        })
        .await;
        let user = stage.server.user("ann@example.com");
        stage.server.license(&user);
        assert_eq!(stage.about(&user).await.state, S::Active, "{algorithm:?}");
    }
}

#[tokio::test]
async fn a_server_that_insists_on_its_host_and_tls_is_asked_through_the_back_door_when_told_so() {
    let stage = Stage::with(|config, server| {
        config.endpoint.host = Some("licenses.example.com".to_owned());
        server.in_production("licenses.example.com");
    })
    .await;
    let user = stage.server.user("ann@example.com");
    stage.server.license(&user);
    assert_eq!(stage.about(&user).await.state, S::Active);
    assert_eq!(stage.server.heard()[0].host, "licenses.example.com");
}

#[tokio::test]
async fn the_doctor_hears_what_fits_and_what_does_not() {
    let stage = Stage::new().await;
    stage.server.skew(90);
    let found = stage.provider.inspect().await.unwrap();
    assert_eq!(found, Inspection { edition: Some("CE".to_owned()), skew: 90, differing: vec![], knows_product: true });
    let other = Stage::with(|config, server| {
        let ecdsa = server.public_key(SignedWith::EcdsaP256);
        let another = "e8601e48b69383ba520245fd07971e983d06d22c4257cfd82304601479cee788";
        config.product = "another".to_owned();
        config.keys = AccountKeys::parse(&[ecdsa.as_str(), another]).unwrap();
    })
    .await;
    // Answers are asked for in the first algorithm with a key, and that key is wrong.
    let trouble = other.provider.inspect().await.unwrap_err();
    assert!(trouble.remedy().contains("license.public_keys"), "{trouble}");
    let product = Stage::with(|config, _| config.product = "another".to_owned()).await;
    assert!(!product.provider.inspect().await.unwrap().knows_product);
}

#[tokio::test]
async fn names_that_would_lead_elsewhere_are_not_asked_about() {
    let stage = Stage::new().await;
    for name in ["..", "."] {
        let fault = stage.ask(Question { license_id: Some(name.to_owned()), ..question() }).await.unwrap_err();
        assert!(fault.note.contains("no URL can carry"), "{name}: {fault}");
    }
    for name in ["a/../../me", "a?b=c", "a#b", "%2e%2e", ""] {
        let said = stage.ask(Question { license_id: Some(name.to_owned()), ..question() }).await;
        assert!(said.is_ok_and(|said| said.state == S::None), "{name}");
    }
    assert!(stage.targets().iter().all(|target| target.starts_with(&format!("/v1/accounts/{ACCOUNT}/licenses/"))));
}

#[test]
fn nothing_that_is_printed_holds_the_token() {
    let endpoint = Endpoint {
        url: "https://licenses.example.com".parse().unwrap(),
        host: None,
        token: Secret::new(PRODUCT_TOKEN.to_owned()),
    };
    let keys = AccountKeys::default();
    let config = KeygenConfig { endpoint, account: ACCOUNT.to_owned(), product: PRODUCT.to_owned(), keys };
    let printed = format!("{config:?} {:?}", KeygenProvider::new(config.clone(), Clock::system()).unwrap());
    assert!(!printed.contains(PRODUCT_TOKEN) && printed.contains(ACCOUNT), "{printed}");
    let name = format!("{:?}", LicenseName::Key(Secret::new("AAAA-BBBB".to_owned())));
    assert!(!name.contains("AAAA"), "{name}");
}
