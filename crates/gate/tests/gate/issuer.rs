//! Issuers over real sockets, against an issuer that rotates, fails, floods and dies.

mod carried;
mod discovery;
mod pages;
mod refreshed;
mod scenarios;
mod sources;

use std::{sync::Arc, time::Duration};

use doorward_core::{
    decision::Denial,
    jose::{Algorithm, AlgorithmSet, JwkSet},
    reason::Reason,
    time::Timestamp,
    token::TokenPolicy,
};
use doorward_gate::{
    clock::Clock,
    issuer::{IssuerConfig, IssuerError, Issuers, KeySource, Verdict, VerifiedToken},
};
use doorward_store::Store;
use doorward_testkit::issuer::{self, Fault, Issuer, Rotation};
use futures_util::future::join_all;
use serde_json::json;

pub(crate) const START: i64 = 1_800_000_000;
const WITHIN: Duration = Duration::from_secs(50);
/// What a fetch may take: more than [`WITHIN`], so that no failure that a test waits for is one of too little time.
const FETCH: Duration = Duration::from_mins(1);

pub(crate) fn policy(issuer: &str) -> TokenPolicy {
    TokenPolicy {
        issuer: issuer.to_owned(),
        aliases: vec![],
        audiences: vec!["app".to_owned()],
        algorithms: AlgorithmSet::of(&[Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256]),
        required_claims: vec![],
        clock_tolerance: Duration::from_secs(30),
        max_token_age: None,
        kind: None,
    }
}

fn config(issuer: &Issuer) -> IssuerConfig {
    let url = issuer.jwks_url().parse().unwrap();
    let config = IssuerConfig::new("main", policy(&issuer.url()), KeySource::Url(url));
    IssuerConfig { fetch_timeout: FETCH, ..config }
}

/// For an issuer that does not answer to an end: each of its fetches is over soon.
fn hasty(config: IssuerConfig) -> IssuerConfig {
    IssuerConfig { fetch_timeout: Duration::from_secs(2), ..config }
}

fn world_of(issuer: Issuer, change: impl FnOnce(IssuerConfig) -> IssuerConfig) -> World {
    let clock = Clock::manual(Timestamp::from_secs(START));
    let issuers = Issuers::new(vec![change(config(&issuer))], &clock, None).unwrap();
    World { issuer, issuers, clock }
}

/// Waits until `condition` holds, for a bounded time.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let done = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(WITHIN, done).await.is_ok(), "{what}: not within {WITHIN:?}");
}

struct World {
    issuer: Issuer,
    issuers: Issuers,
    clock: Clock,
}

impl World {
    /// An issuer whose keys have been fetched once.
    async fn warm() -> Self {
        let world = Self::cold(Issuer::start().await, None);
        world.issuers.start();
        until("warm", || world.keys() == 1).await;
        world
    }

    /// The same where a fetch is over soon; one that the machine was too slow for is made up for.
    async fn warm_and_hasty() -> Self {
        let world = world_of(Issuer::start().await, hasty);
        world.issuers.start();
        world.until_mended().await;
        world
    }

    /// Waits until a fetch has come to a good end; the clock moves on meanwhile.
    async fn until_mended(&self) {
        until("mended", || {
            self.clock.advance(Duration::from_secs(1));
            self.keys() == 1 && self.status().failures == 0
        })
        .await;
    }

    fn cold(issuer: Issuer, store: Option<&Store>) -> Self {
        let clock = Clock::manual(Timestamp::from_secs(START));
        let issuers = Issuers::new(vec![config(&issuer)], &clock, store).unwrap();
        Self { issuer, issuers, clock }
    }

    fn now_secs(&self) -> i64 {
        self.clock.now().wall.as_secs()
    }

    fn token(&self) -> String {
        self.issuer.mint(&self.issuer.claims("app", self.now_secs()))
    }

    fn verify(&self, token: &str) -> Verdict {
        self.issuers.verify(token, self.clock.now())
    }

    /// The verdict, which must not need any waiting.
    fn verify_now(&self, token: &str) -> Result<Arc<VerifiedToken>, Denial> {
        match self.verify(token) {
            Verdict::Ready(verdict) => verdict,
            Verdict::Pending(_) => panic!("the verdict is not ready"),
        }
    }

    async fn verify_in_time(&self, token: &str) -> Result<Arc<VerifiedToken>, Denial> {
        tokio::time::timeout(WITHIN, self.verify(token).wait()).await.expect("the verdict came too late")
    }

    fn keys(&self) -> usize {
        self.status().keys
    }

    fn status(&self) -> doorward_core::keys::KeyStatus {
        self.issuers.status(self.clock.now()).remove(0).keys
    }
}

fn reason(verdict: Result<Arc<VerifiedToken>, Denial>) -> Reason {
    verdict.expect_err("a refusal was expected").reason
}

#[tokio::test]
async fn a_token_of_a_known_key_is_judged_at_once() {
    let world = World::warm().await;
    let token = world.verify_now(&world.token()).unwrap();
    assert_eq!((&*token.issuer, &*token.principal.subject.subject), ("main", "subject-1"));
    // With the tolerance of the policy: so long it is accepted.
    let tolerance = policy("https://issuer.example").clock_tolerance;
    assert_eq!(token.principal.expires_at, Some(Timestamp::from_secs(START + 300).plus(tolerance)));
    assert_eq!(world.issuer.hits(), 1);
}

#[tokio::test]
async fn a_token_that_comes_again_is_not_verified_again_until_keys_or_time_say_so() {
    let world = World::warm().await;
    let token = world.token();
    let (one, again) = (world.verify_now(&token).unwrap(), world.verify_now(&token).unwrap());
    assert!(Arc::ptr_eq(&one, &again));
    world.clock.set_wall(Timestamp::from_secs(START - 31));
    assert_eq!(reason(world.verify_now(&token)), Reason::TokenNotYetValid);
    world.clock.set_wall(Timestamp::from_secs(START + 329));
    assert!(world.verify_now(&token).is_ok());
    world.clock.set_wall(Timestamp::from_secs(START + 330));
    assert_eq!(reason(world.verify_now(&token)), Reason::TokenExpired);
}

#[tokio::test]
async fn a_token_that_comes_again_allocates_nothing() {
    let world = World::warm().await;
    let token = world.token();
    let now = world.clock.now();
    assert!(world.verify_now(&token).is_ok());
    let allocated = allocation_counter::measure(|| {
        let Verdict::Ready(Ok(token)) = world.issuers.verify(&token, now) else { panic!("it was good before") };
        drop(token);
    });
    assert_eq!(allocated.count_total, 0);
}

#[tokio::test]
async fn nothing_is_kept_of_tokens_where_none_are_to_be_kept() {
    let issuer = Issuer::start().await;
    let clock = Clock::manual(Timestamp::from_secs(START));
    let set = JwkSet::parse(issuer.key_set().to_string().as_bytes()).unwrap();
    let given = IssuerConfig::new("main", policy(&issuer.url()), KeySource::Inline(set));
    let issuers = Issuers::new(vec![IssuerConfig { token_cache: 0, ..given }], &clock, None).unwrap();
    let token = issuer.mint(&issuer.claims("app", START));
    let verify = || match issuers.verify(&token, clock.now()) {
        Verdict::Ready(verdict) => verdict.unwrap(),
        Verdict::Pending(_) => panic!("the key is given"),
    };
    assert!(!Arc::ptr_eq(&verify(), &verify()));
}

#[tokio::test]
async fn a_token_with_another_signature_is_not_taken_for_one_that_was_good() {
    let world = World::warm().await;
    let token = world.token();
    assert!(world.verify_now(&token).is_ok());
    // Every byte counts, also those of the signature.
    for at in [token.len() - 10, token.len() / 2, 5] {
        let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
        let forged = format!("{}{other}{}", &token[..at], &token[at + 1..]);
        assert!(world.verify_in_time(&forged).await.is_err(), "byte {at}");
    }
}

#[tokio::test]
async fn a_token_whose_key_was_withdrawn_is_refused_although_it_was_good_before() {
    let world = World::warm().await;
    let token = world.token();
    assert!(world.verify_now(&token).is_ok());
    world.issuer.rotate(Rotation::Abrupt);
    world.clock.advance(Duration::from_secs(60));
    assert!(world.verify_in_time(&world.token()).await.is_ok());
    assert_eq!(reason(world.verify_now(&token)), Reason::TokenUnknownKey);
}

#[tokio::test]
async fn a_mail_address_counts_only_where_the_issuer_verified_it() {
    let world = World::warm().await;
    for (is_verified, expected) in [(json!(true), Some("ann@example.com")), (json!(false), None), (json!("true"), None)]
    {
        let mut claims = world.issuer.claims("app", START);
        claims["email"] = json!("ann@example.com");
        claims["email_verified"] = is_verified;
        let token = world.verify_now(&world.issuer.mint(&claims)).unwrap();
        assert_eq!(token.principal.email.as_ref().map(doorward_core::user::Email::as_str), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_costs_one_fetch_for_a_thousand_requests() {
    let world = World::warm().await;
    world.clock.advance(Duration::from_secs(60));
    world.issuer.rotate(Rotation::Abrupt);
    world.issuer.fault(Some(Fault::Slow(Duration::from_millis(100))));
    let token = world.token();
    let verdicts = join_all((0..1000).map(|_| world.verify_in_time(&token))).await;
    assert!(verdicts.iter().all(Result::is_ok), "{:?}", verdicts.iter().find(|verdict| verdict.is_err()));
    assert_eq!(world.issuer.hits(), 2);
}

#[tokio::test]
async fn a_key_that_appears_right_after_a_fetch_is_found_without_a_blind_window() {
    let world = World::warm().await;
    world.clock.advance(Duration::from_millis(1));
    world.issuer.rotate(Rotation::Overlap);
    assert!(world.verify_in_time(&world.token()).await.is_ok());
}

#[tokio::test]
async fn new_material_under_an_old_id_is_found_by_its_signature() {
    let world = World::warm().await;
    world.clock.advance(Duration::from_secs(60));
    world.issuer.rotate(Rotation::SameId);
    let token = world.token();
    let verdicts = join_all((0..100).map(|_| world.verify_in_time(&token))).await;
    assert!(verdicts.iter().all(Result::is_ok), "{:?}", verdicts.iter().find(|verdict| verdict.is_err()));
    assert_eq!(world.issuer.hits(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_made_up_keys_costs_the_budget_and_delays_nobody() {
    let world = World::warm().await;
    let good = world.token();
    let claims = world.issuer.claims("app", START);
    for minute in 0..5_u64 {
        let flood =
            (0..2000).map(|n| world.issuer.mint_with(&json!({"kid": format!("made-up-{minute}-{n}")}), &claims));
        let flood: Vec<_> = flood.collect();
        let verdicts = join_all(flood.iter().map(|token| world.verify_in_time(token)));
        let (verdicts, ()) = tokio::join!(verdicts, async {
            for _ in 0..100 {
                assert!(world.verify_now(&good).is_ok());
                tokio::task::yield_now().await;
            }
        });
        for verdict in verdicts {
            let reason = reason(verdict);
            assert!(matches!(reason, Reason::TokenUnknownKey | Reason::KeysUnavailable), "{reason:?}");
        }
        let allowed = 2 * (minute + 1);
        assert!(world.issuer.hits() <= allowed, "{} fetches after {minute} minutes", world.issuer.hits());
        world.clock.advance(Duration::from_secs(60));
    }
}

#[tokio::test]
async fn an_expired_or_tampered_token_costs_no_fetch() {
    let world = World::warm().await;
    let old = world.token();
    world.clock.advance(Duration::from_secs(400));
    assert_eq!(reason(world.verify_now(&old)), Reason::TokenExpired);
    // Issued before the last fetch and changed on the way: nothing new can be found out about it.
    let old = world.issuer.mint(&world.issuer.claims("app", START - 60));
    let middle = old.len() - 40;
    let other = if &old[middle..=middle] == "A" { "B" } else { "A" };
    let tampered = format!("{}{other}{}", &old[..middle], &old[middle + 1..]);
    assert_eq!(reason(world.verify_now(&tampered)), Reason::TokenBadSignature);
    assert_eq!(world.issuer.hits(), 1);
}

#[tokio::test]
async fn a_dead_issuer_delays_nothing_until_its_keys_are_too_old() {
    let mut world = World::warm().await;
    world.issuer.die().await;
    for _ in 0..23 {
        world.clock.advance(Duration::from_secs(3600));
        assert!(world.verify_now(&world.token()).is_ok());
    }
    until("a failed refresh is seen", || world.status().failures > 0).await;
    assert!(world.verify_now(&world.token()).is_ok());
    world.clock.advance(Duration::from_secs(3600));
    let denial = world.verify_in_time(&world.token()).await.unwrap_err();
    assert_eq!(denial.reason, Reason::KeysUnavailable);
    assert!(denial.retry_after().is_some());
}

#[tokio::test]
async fn with_a_dead_issuer_the_start_waits_for_nothing_and_recovers_by_itself() {
    let mut issuer = Issuer::start().await;
    issuer.die().await;
    let mut world = World::cold(issuer, None);
    world.issuers.start();
    until("a failed fetch", || world.status().failures > 0).await;
    assert_eq!(reason(world.verify_in_time(&world.token()).await), Reason::KeysUnavailable);
    world.issuer.revive().await;
    until("recovery", || {
        world.clock.advance(Duration::from_secs(1));
        world.keys() == 1
    })
    .await;
    assert!(world.verify_now(&world.token()).is_ok());
}

#[tokio::test]
async fn a_broken_answer_keeps_the_keys_and_says_what_is_wrong() {
    let (patient, hasty) = (World::warm().await, World::warm_and_hasty().await);
    let other = Issuer::start().await;
    let faults = [
        (Fault::Status(404), "status 404"),
        (Fault::Status(500), "status 500"),
        (Fault::Garbage, "not strict JSON"),
        (Fault::Html, "not strict JSON"),
        (Fault::Empty, "no usable key"),
        (Fault::Redirect(other.jwks_url()), "redirected"),
        (Fault::Redirect("http://169.254.169.254/latest".to_owned()), "redirected"),
        (Fault::Large(600 * 1024), "larger than"),
        (Fault::Slow(Duration::from_secs(30)), "in time"),
    ];
    for (fault, expected) in faults {
        let world = if matches!(fault, Fault::Slow(_)) { &hasty } else { &patient };
        world.issuer.fault(Some(fault.clone()));
        world.clock.advance(Duration::from_secs(700));
        let problem = || world.status().last_problem.map(|problem| problem.to_string()).unwrap_or_default();
        until(expected, || problem().contains(expected)).await;
        assert!(world.verify_now(&world.token()).is_ok(), "{fault:?}");
    }
    assert_eq!(other.hits(), 0);
    for world in [patient, hasty] {
        world.issuer.fault(None);
        world.clock.advance(Duration::from_secs(700));
        world.until_mended().await;
        assert!(world.status().last_problem.is_none());
    }
}

#[tokio::test]
async fn keys_are_looked_up_at_the_issuer_that_the_token_names() {
    let (one, two) = (Issuer::start().await, Issuer::start().await);
    let clock = Clock::manual(Timestamp::from_secs(START));
    let second = IssuerConfig { name: "second".to_owned(), ..config(&two) };
    let issuers = Issuers::new(vec![config(&one), second], &clock, None).unwrap();
    assert_eq!(one.key_id(), two.key_id());
    let verify = async |token: String| issuers.verify(&token, clock.now()).wait().await;
    assert_eq!(&*verify(one.mint(&one.claims("app", START))).await.unwrap().issuer, "main");
    assert_eq!(&*verify(two.mint(&two.claims("app", START))).await.unwrap().issuer, "second");
    assert_eq!(reason(verify(two.mint(&one.claims("app", START))).await), Reason::TokenBadSignature);
    let mut stranger = one.claims("app", START);
    stranger["iss"] = json!("https://stranger.test");
    assert_eq!(reason(verify(one.mint(&stranger)).await), Reason::TokenWrongIssuer);
    stranger["iss"] = json!(["https://stranger.test"]);
    assert_eq!(reason(verify(one.mint(&stranger)).await), Reason::TokenWrongIssuer);
    stranger.as_object_mut().unwrap().remove("iss");
    assert_eq!(reason(verify(one.mint(&stranger)).await), Reason::TokenMissingClaim);
}

#[tokio::test]
async fn every_kind_of_key_of_the_issuer_verifies() {
    let world = World::cold(Issuer::start().await, None);
    for algorithm in [issuer::Algorithm::Es256, issuer::Algorithm::Rs256, issuer::Algorithm::EdDsa] {
        world.issuer.add_key(algorithm);
    }
    for _ in 0..2 {
        assert!(world.verify_in_time(&world.token()).await.is_ok());
        world.issuer.add_key(issuer::Algorithm::Es256);
        world.clock.advance(Duration::from_secs(60));
    }
}

#[tokio::test]
async fn the_last_good_keys_serve_the_next_process_while_the_issuer_is_dead() {
    let store = Store::memory();
    let mut world = World::cold(Issuer::start().await, Some(&store));
    world.issuers.start();
    let record = format!("{} {}", world.issuer.url(), world.issuer.jwks_url());
    let kept = async {
        while store.issuer_keys(record.clone()).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WITHIN, kept).await.expect("the keys were not kept");
    world.issuer.die().await;
    let next = Issuers::new(vec![config(&world.issuer)], &world.clock, Some(&store)).unwrap();
    next.start();
    until("recalled", || next.status(world.clock.now())[0].keys.keys == 1).await;
    assert!(next.verify(&world.token(), world.clock.now()).wait().await.is_ok());
}

#[tokio::test]
async fn a_first_set_serves_before_any_fetch_and_the_issuer_fills_in_what_it_lacks() {
    let issuer = Issuer::start().await;
    let first = JwkSet::parse(issuer.key_set().to_string().as_bytes()).unwrap();
    let clock = Clock::manual(Timestamp::from_secs(START));
    let issuers = Issuers::new(vec![IssuerConfig { first: Some(first), ..config(&issuer) }], &clock, None).unwrap();
    let world = World { issuer, issuers, clock };
    assert!(world.verify_now(&world.token()).is_ok());
    assert_eq!(world.issuer.hits(), 0);
    world.issuer.rotate(Rotation::Abrupt);
    assert!(world.verify_in_time(&world.token()).await.is_ok());
    assert_eq!(world.issuer.hits(), 1);
}

#[tokio::test]
async fn a_key_file_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let issuer = Issuer::start().await;
    std::fs::write(&path, issuer.key_set().to_string()).unwrap();
    let clock = Clock::manual(Timestamp::from_secs(START));
    let config = IssuerConfig { source: KeySource::File(path.clone()), ..config(&issuer) };
    let issuers = Issuers::new(vec![config], &clock, None).unwrap();
    let world = World { issuer, issuers, clock };
    world.issuers.start();
    until("read", || world.keys() == 1).await;
    world.issuer.rotate(Rotation::Overlap);
    std::fs::write(&path, world.issuer.key_set().to_string()).unwrap();
    until("read again", || world.keys() == 2).await;
    assert!(world.verify_now(&world.token()).is_ok());
    std::fs::remove_file(&path).unwrap();
    world.clock.advance(Duration::from_secs(1_000_000));
    assert!(world.verify_now(&world.token()).is_ok());
    assert_eq!(world.issuer.hits(), 0);
}

#[tokio::test]
async fn given_keys_answer_without_any_network() {
    let issuer = Issuer::start().await;
    let set = JwkSet::parse(issuer.key_set().to_string().as_bytes()).unwrap();
    let clock = Clock::manual(Timestamp::from_secs(START));
    let issuers =
        Issuers::new(vec![IssuerConfig { source: KeySource::Inline(set), ..config(&issuer) }], &clock, None).unwrap();
    let world = World { issuer, issuers, clock };
    world.issuers.start();
    assert!(world.verify_now(&world.token()).is_ok());
    let unknown = world.issuer.mint_with(&json!({"kid": "other"}), &world.issuer.claims("app", START));
    assert_eq!(reason(world.verify_now(&unknown)), Reason::TokenUnknownKey);
    assert_eq!(world.issuer.hits(), 0);
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_the_start() {
    let clock = Clock::manual(Timestamp::from_secs(START));
    let of = |source| IssuerConfig::new("main", policy("https://issuer.test"), source);
    let insecure = of(KeySource::Url("http://issuer.test/jwks".parse().unwrap()));
    assert!(matches!(Issuers::new(vec![insecure], &clock, None), Err(IssuerError::InsecureUrl { .. })));
    let empty = of(KeySource::Inline(JwkSet::parse(br#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#).unwrap()));
    let error = Issuers::new(vec![empty], &clock, None).unwrap_err().to_string();
    assert!(error.contains("symmetric key"), "{error}");
    let url = || of(KeySource::Url("https://issuer.test/jwks".parse().unwrap()));
    assert!(matches!(Issuers::new(vec![url(), url()], &clock, None), Err(IssuerError::Duplicate { .. })));
}

#[tokio::test]
async fn a_request_that_goes_away_does_not_take_the_fetch_with_it() {
    let world = World::cold(Issuer::start().await, None);
    world.issuer.fault(Some(Fault::Slow(Duration::from_millis(50))));
    drop(world.verify(&world.token()));
    until("fetched", || world.keys() == 1).await;
    assert_eq!(world.issuer.hits(), 1);
}

#[tokio::test]
async fn the_background_ends_with_the_last_handle() {
    let World { issuer, issuers, clock } = World::warm().await;
    drop(issuers);
    clock.advance(Duration::from_secs(86_400));
    // Long enough for a task that still ran to fetch: it looks every half second.
    let fetched_again = tokio::time::timeout(Duration::from_millis(1200), async {
        while issuer.hits() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(fetched_again.await.is_err());
}
