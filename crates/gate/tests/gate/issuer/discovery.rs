//! Keys found through the issuer's metadata.

use super::{pages::Pages, *};

const OIDC: &str = "/realms/main/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server/realms/main";

/// An issuer whose metadata and keys are pages; `signer` signs for it.
struct House {
    pages: Pages,
    signer: Issuer,
    issuers: Issuers,
    clock: Clock,
}

impl House {
    async fn with(origins: impl FnOnce(&Issuer) -> Vec<url::Origin>) -> Self {
        let (pages, signer) = (Pages::start().await, Issuer::start().await);
        let clock = Clock::manual(Timestamp::from_secs(START));
        let source = KeySource::Discovery { origins: origins(&signer) };
        let config = IssuerConfig::new("main", policy(&format!("{}/realms/main", pages.url())), source);
        let config = IssuerConfig { fetch_timeout: FETCH, ..config };
        let issuers = Issuers::new(vec![config], &clock, None).unwrap();
        Self { pages, signer, issuers, clock }
    }

    async fn new() -> Self {
        Self::with(|_| vec![]).await
    }

    fn iss(&self) -> String {
        format!("{}/realms/main", self.pages.url())
    }

    fn metadata(&self, jwks_path: &str) -> serde_json::Value {
        json!({"issuer": self.iss(), "jwks_uri": format!("{}{jwks_path}", self.pages.url())})
    }

    fn token(&self) -> String {
        let mut claims = self.signer.claims("app", self.clock.now().wall.as_secs());
        claims["iss"] = json!(self.iss());
        self.signer.mint(&claims)
    }

    async fn verify(&self) -> Result<Arc<VerifiedToken>, Denial> {
        let verdict = self.issuers.verify(&self.token(), self.clock.now()).wait();
        tokio::time::timeout(WITHIN, verdict).await.expect("the verdict came too late")
    }

    fn problem(&self) -> String {
        let status = self.issuers.status(self.clock.now()).remove(0).keys;
        status.last_problem.map(|problem| problem.to_string()).unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_cold_requests_cost_one_look_at_the_metadata_and_one_at_the_keys() {
    let issuer = Issuer::start().await;
    let clock = Clock::manual(Timestamp::from_secs(START));
    let config = IssuerConfig { source: KeySource::Discovery { origins: vec![] }, ..config(&issuer) };
    let issuers = Issuers::new(vec![config], &clock, None).unwrap();
    let world = World { issuer, issuers, clock };
    let token = world.token();
    let verdicts = join_all((0..1000).map(|_| world.verify_in_time(&token))).await;
    assert!(verdicts.iter().all(Result::is_ok), "{:?}", verdicts.iter().find(|verdict| verdict.is_err()));
    assert_eq!((world.issuer.discoveries(), world.issuer.hits()), (1, 1));
    // Ten minutes long its place is taken as known.
    world.clock.advance(Duration::from_secs(61));
    world.issuer.rotate(Rotation::Abrupt);
    assert!(world.verify_in_time(&world.token()).await.is_ok());
    assert_eq!((world.issuer.discoveries(), world.issuer.hits()), (1, 2));
    let status = world.issuers.status(world.clock.now()).remove(0);
    assert_eq!((status.source, status.address), ("discovery", Some(world.issuer.jwks_url())));
}

#[tokio::test]
async fn metadata_is_found_in_the_place_of_openid_connect_or_of_rfc_8414() {
    for place in [OIDC, OAUTH] {
        let house = House::new().await;
        house.pages.show(place, &house.metadata("/keys"));
        house.pages.show("/keys", &house.signer.key_set());
        assert!(house.verify().await.is_ok(), "{place}: {}", house.problem());
        assert_eq!(house.pages.asked(place), 1);
        // Asked first from now on.
        house.clock.advance(Duration::from_secs(700));
        house.signer.rotate(Rotation::Abrupt);
        house.pages.show("/keys", &house.signer.key_set());
        assert!(house.verify().await.is_ok());
        assert_eq!((house.pages.asked(OIDC), house.pages.asked(place)), (if place == OIDC { 2 } else { 1 }, 2));
    }
}

#[tokio::test]
async fn metadata_about_another_issuer_is_refused_and_its_keys_are_not_even_looked_at() {
    let house = House::new().await;
    house.pages.show("/keys", &house.signer.key_set());
    for other in ["https://evil.test", &format!("{}/", house.iss()), &house.pages.url()] {
        let mut metadata = house.metadata("/keys");
        metadata["issuer"] = json!(other);
        house.pages.show(OIDC, &metadata);
        house.clock.advance(Duration::from_secs(60));
        assert_eq!(reason(house.verify().await), Reason::KeysUnavailable, "{other}");
        assert!(house.problem().contains("about another issuer"), "{}", house.problem());
    }
    assert_eq!(house.pages.asked("/keys"), 0);
}

#[tokio::test]
async fn a_key_set_on_another_origin_is_refused_unless_it_is_allowed() {
    let stranger = House::new().await;
    let metadata = |house: &House| json!({"issuer": house.iss(), "jwks_uri": house.signer.jwks_url()});
    stranger.pages.show(OIDC, &metadata(&stranger));
    assert_eq!(reason(stranger.verify().await), Reason::KeysUnavailable);
    assert!(stranger.problem().contains("on another origin"), "{}", stranger.problem());
    assert_eq!(stranger.signer.hits(), 0);
    let allowed = House::with(|signer| vec![signer.jwks_url().parse::<url::Url>().unwrap().origin()]).await;
    allowed.pages.show(OIDC, &metadata(&allowed));
    assert!(allowed.verify().await.is_ok(), "{}", allowed.problem());
    for open in ["http://sso.example.com/keys", "file:///etc/passwd", "https://169.254.169.254/keys"] {
        let house = House::new().await;
        house.pages.show(OIDC, &json!({"issuer": house.iss(), "jwks_uri": open}));
        assert_eq!(reason(house.verify().await), Reason::KeysUnavailable);
        assert!(house.problem().contains("neither https nor on loopback"), "{}", house.problem());
    }
}

#[tokio::test]
async fn a_key_set_that_moved_is_followed_and_no_key_is_lost_on_the_way() {
    let house = House::new().await;
    house.pages.show(OIDC, &house.metadata("/old"));
    house.pages.show("/old", &house.signer.key_set());
    assert!(house.verify().await.is_ok());
    let known = house.token();
    house.signer.rotate(Rotation::Abrupt);
    house.pages.remove("/old");
    house.pages.show(OIDC, &house.metadata("/new"));
    house.pages.show("/new", &house.signer.key_set());
    house.clock.advance(Duration::from_secs(61));
    assert_eq!(reason(house.verify().await), Reason::KeysUnavailable, "its keys cannot be had at the known place");
    assert!(house.issuers.verify(&known, house.clock.now()).wait().await.is_ok());
    house.clock.advance(Duration::from_secs(2));
    assert!(house.verify().await.is_ok(), "{}", house.problem());
    assert_eq!((house.pages.asked("/old"), house.pages.asked("/new")), (2, 1));
}

#[tokio::test]
async fn while_metadata_is_away_the_known_place_serves_and_wrong_metadata_is_not_worked_round() {
    let house = House::new().await;
    house.pages.show(OIDC, &house.metadata("/keys"));
    house.pages.show("/keys", &house.signer.key_set());
    assert!(house.verify().await.is_ok());
    for head in [
        "503 Service Unavailable",
        "302 Found\r\nLocation: https://evil.test/",
        "302 Found\r\nLocation: file:/etc/passwd",
    ] {
        house.pages.say(OIDC, head);
        house.clock.advance(Duration::from_secs(700));
        house.signer.rotate(Rotation::Abrupt);
        house.pages.show("/keys", &house.signer.key_set());
        assert!(house.verify().await.is_ok(), "{head}: {}", house.problem());
    }
    let known = house.token();
    house.pages.show(OIDC, &json!({"issuer": "https://evil.test", "jwks_uri": "https://evil.test/keys"}));
    house.clock.advance(Duration::from_secs(700));
    house.signer.rotate(Rotation::Abrupt);
    house.pages.show("/keys", &house.signer.key_set());
    assert_eq!(reason(house.verify().await), Reason::KeysUnavailable);
    assert!(house.problem().contains("another issuer"), "{}", house.problem());
    assert_ne!(reason(house.issuers.verify(&known, house.clock.now()).wait().await), Reason::KeysUnavailable);
    assert_eq!(house.issuers.status(house.clock.now())[0].keys.keys, 1, "the known keys stay");
}

#[tokio::test]
async fn metadata_that_has_not_changed_is_not_sent_again() {
    let house = House::new().await;
    house.pages.show_tagged(OIDC, &house.metadata("/keys"), "\"v1\"");
    house.pages.show_tagged("/keys", &house.signer.key_set(), "\"k1\"");
    house.issuers.start();
    for round in 1..=3 {
        until("fetched", || house.pages.asked("/keys") == round).await;
        until("reported", || house.issuers.status(house.clock.now())[0].keys.age.is_some_and(|age| age.is_zero()))
            .await;
        house.clock.advance(Duration::from_secs(700));
    }
    assert_eq!(house.pages.heard().matches("if-none-match: \"v1\"").count(), 2);
    assert_eq!(house.pages.heard().matches("if-none-match: \"k1\"").count(), 2);
}

#[tokio::test]
async fn metadata_that_is_too_large_or_broken_is_refused_within_limits() {
    let house = House::new().await;
    house.pages.show(OIDC, &json!({"issuer": house.iss(), "padding": "x".repeat(600 * 1024)}));
    assert_eq!(reason(house.verify().await), Reason::KeysUnavailable);
    assert!(house.problem().contains("larger than"), "{}", house.problem());
    // Announces more than it sends.
    house.pages.say(OIDC, "200 OK\r\nContent-Length: 1000");
    house.clock.advance(Duration::from_secs(60));
    assert_eq!(reason(house.verify().await), Reason::KeysUnavailable);
    assert!(!house.problem().is_empty());
}

#[tokio::test]
async fn an_issuer_that_is_no_url_cannot_be_discovered() {
    let clock = Clock::manual(Timestamp::from_secs(START));
    let of = |issuer: &str| {
        let config = IssuerConfig::new("main", policy(issuer), KeySource::Discovery { origins: vec![] });
        Issuers::new(vec![config], &clock, None).err()
    };
    assert!(matches!(of("urn:issuer"), Some(IssuerError::NotAnIssuer { .. })));
    assert!(matches!(of("https://a.test/?tenant=1"), Some(IssuerError::NotAnIssuer { .. })));
    assert!(matches!(of("http://a.test"), Some(IssuerError::InsecureUrl { .. })));
    assert!(of("https://a.test").is_none());
}
