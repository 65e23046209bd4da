//! Each scenario of `vectors/own/scenarios.json` about key sets, driven.
//!
//! Where the file says `jwks_unavailable`, Doorward says `keys_unavailable`. That the port is bound and health is live with
//! every neighbour dead (1) is shown on the executable, in `crates/server/tests/http/process/boot.rs`.

use doorward_testkit::issuer::Poison;

use super::{pages::Pages, *};

fn scenarios() -> Vec<(u64, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/own/scenarios.json");
    let document: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let rows = document["jwks"].as_array().unwrap().iter();
    rows.map(|row| (row["n"].as_u64().unwrap(), row["steps"].as_str().unwrap().to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_about_key_sets_goes_as_expected() {
    let all = scenarios();
    assert!(all.len() >= 18, "{} scenarios", all.len());
    for (n, steps) in all {
        let run = async {
            match n {
                1 => no_keys_is_503_and_never_401().await,
                2 => keys_after_a_minute_of_failure().await,
                3 => a_rotation_under_a_thousand_requests().await,
                4 => a_replaced_key_under_the_same_id().await,
                5 => a_flood_of_ids().await,
                6 => an_expired_token().await,
                7 => answers_that_are_too_much().await,
                8 => an_empty_set().await,
                9 => one_bad_key().await,
                10 => one_id_at_two_issuers().await,
                11 => metadata_of_another_issuer().await,
                12 => a_key_set_on_another_host().await,
                13 => a_name_that_changes_its_address(),
                14 => a_wrong_certificate().await,
                15 => a_dead_issuer_past_max_stale().await,
                16 => a_clock_that_jumps().await,
                17 => killed_during_a_refresh().await,
                18 => given_keys().await,
                other => panic!("nobody drives scenario {other}: {steps}"),
            }
        };
        run.await;
    }
}

async fn no_keys_is_503_and_never_401() {
    for fault in [Fault::Status(404), Fault::Status(500), Fault::Silent] {
        let world = world_of(Issuer::start().await, hasty);
        world.issuer.fault(Some(fault));
        world.issuers.start();
        let denial = world.verify_in_time(&world.token()).await.unwrap_err();
        assert_eq!((denial.reason, denial.reason.status()), (Reason::KeysUnavailable, 503));
        assert!(denial.retry_after().is_some());
    }
}

async fn keys_after_a_minute_of_failure() {
    let world = World::cold(Issuer::start().await, None);
    world.issuer.fault(Some(Fault::Status(500)));
    world.issuers.start();
    until("failing", || {
        world.clock.advance(Duration::from_secs(1));
        world.clock.now().mono >= Duration::from_secs(60) && world.status().failures > 0
    })
    .await;
    world.issuer.fault(None);
    until("good", || {
        world.clock.advance(Duration::from_secs(1));
        world.keys() == 1
    })
    .await;
    assert!(world.verify_now(&world.token()).is_ok());
}

async fn a_rotation_under_a_thousand_requests() {
    let world = World::warm().await;
    world.clock.advance(Duration::from_secs(60));
    world.issuer.rotate(Rotation::Abrupt);
    let token = world.token();
    let verdicts = join_all((0..1000).map(|_| world.verify_in_time(&token))).await;
    assert!(verdicts.iter().all(Result::is_ok));
    assert_eq!(world.issuer.hits(), 2);
}

async fn a_replaced_key_under_the_same_id() {
    let world = World::warm().await;
    world.clock.advance(Duration::from_secs(60));
    world.issuer.rotate(Rotation::SameId);
    assert!(world.verify_in_time(&world.token()).await.is_ok());
    assert_eq!(world.issuer.hits(), 2);
}

async fn a_flood_of_ids() {
    let world = World::warm().await;
    let good = world.token();
    let claims = world.issuer.claims("app", START);
    let flood: Vec<_> =
        (0..10_000).map(|n| world.issuer.mint_with(&json!({"kid": format!("made-up-{n}")}), &claims)).collect();
    for part in flood.chunks(100) {
        for verdict in join_all(part.iter().map(|token| world.verify_in_time(token))).await {
            assert!(matches!(reason(verdict), Reason::TokenUnknownKey | Reason::KeysUnavailable));
        }
        // Not even a lock is waited for: the verdict is there.
        assert!(world.verify_now(&good).is_ok());
    }
    assert!(world.issuer.hits() <= 2, "{} fetches", world.issuer.hits());
}

async fn an_expired_token() {
    let world = World::warm().await;
    let token = world.token();
    world.clock.advance(Duration::from_secs(400));
    assert_eq!(reason(world.verify_now(&token)), Reason::TokenExpired);
    assert_eq!(world.issuer.hits(), 1);
}

async fn answers_that_are_too_much() {
    let (patient, hasty) = (World::warm().await, World::warm_and_hasty().await);
    let stranger = Issuer::start().await;
    let faults = [
        (Fault::Large(50 << 20), true),
        (Fault::Endless, true),
        (Fault::Drip, true),
        (Fault::GzipBomb, true),
        (Fault::RedirectLoop, true),
        (Fault::Redirect("http://issuer.test/jwks.json".to_owned()), true),
        (Fault::Redirect("http://169.254.169.254/latest/meta-data".to_owned()), true),
        (Fault::Redirect("https://169.254.169.254/".to_owned()), true),
        (Fault::Redirect("file:///etc/passwd".to_owned()), true),
        (Fault::Redirect("file:/etc/passwd".to_owned()), true),
        (Fault::Redirect("data:application/json,{\"keys\":[]}".to_owned()), true),
        (Fault::Redirect("gopher://127.0.0.1/".to_owned()), true),
        (Fault::Redirect(stranger.jwks_url()), true),
        (Fault::Html, true),
        (Fault::NotASet, true),
        (Fault::CutOff, true),
        // The type is not what makes a key set; what it holds is.
        (Fault::WrongType, false),
        // Within the origin a redirect is followed.
        (Fault::Moved, false),
    ];
    for (fault, is_failure) in faults {
        let is_endless = matches!(fault, Fault::Endless | Fault::Drip);
        let world = if is_endless { &hasty } else { &patient };
        world.issuer.fault(Some(fault.clone()));
        let hits = world.issuer.hits();
        world.clock.advance(Duration::from_secs(700));
        let settled = until("settled", || {
            let status = world.status();
            world.issuer.hits() > hits && (status.failures > 0 || status.age == Some(Duration::ZERO))
        });
        assert!(tokio::time::timeout(WITHIN, settled).await.is_ok(), "{fault:?} took too long");
        assert_eq!(world.status().failures > 0, is_failure, "{fault:?}: {:?}", world.status().last_problem);
        assert_eq!(world.keys(), 1, "{fault:?}");
        assert!(world.verify_now(&world.token()).is_ok(), "{fault:?}");
        world.issuer.fault(None);
        world.clock.advance(Duration::from_secs(700));
        world.until_mended().await;
    }
    assert_eq!(stranger.hits(), 0);
}

async fn an_empty_set() {
    let world = World::warm().await;
    world.issuer.fault(Some(Fault::Empty));
    world.clock.advance(Duration::from_secs(700));
    until("alarm", || world.status().last_problem.is_some()).await;
    assert!(world.verify_now(&world.token()).is_ok());
}

async fn one_bad_key() {
    let world = World::cold(Issuer::start().await, None);
    for poison in [Poison::UnknownType, Poison::NotAnObject, Poison::WeakRsa, Poison::OffCurve, Poison::Symmetric] {
        world.issuer.poison(poison);
    }
    assert!(world.verify_in_time(&world.token()).await.is_ok());
    assert_eq!((world.keys(), world.status().skipped.len()), (1, 5), "skipped and reported");
}

async fn one_id_at_two_issuers() {
    let (one, two) = (Issuer::start().await, Issuer::start().await);
    assert_eq!(one.key_id(), two.key_id());
    let clock = Clock::manual(Timestamp::from_secs(START));
    let second = IssuerConfig { name: "second".to_owned(), ..config(&two) };
    let issuers = Issuers::new(vec![config(&one), second], &clock, None).unwrap();
    let verify = async |token: String| issuers.verify(&token, clock.now()).wait().await;
    assert!(verify(one.mint(&one.claims("app", START))).await.is_ok());
    assert!(verify(two.mint(&two.claims("app", START))).await.is_ok());
    assert_eq!(reason(verify(two.mint(&one.claims("app", START))).await), Reason::TokenBadSignature);
}

/// An issuer whose metadata is `metadata`, for a token of its own.
async fn discovered(metadata: impl FnOnce(&str, &Issuer) -> serde_json::Value) -> (Reason, u64) {
    let (pages, signer) = (Pages::start().await, Issuer::start().await);
    pages.show("/.well-known/openid-configuration", &metadata(&pages.url(), &signer));
    pages.show("/keys", &signer.key_set());
    let clock = Clock::manual(Timestamp::from_secs(START));
    let config = IssuerConfig::new("main", policy(&pages.url()), KeySource::Discovery { origins: vec![] });
    let issuers = Issuers::new(vec![config], &clock, None).unwrap();
    let mut claims = signer.claims("app", START);
    claims["iss"] = json!(pages.url());
    let verdict = issuers.verify(&signer.mint(&claims), clock.now()).wait().await;
    (reason(verdict), signer.hits() + pages.asked("/keys") as u64)
}

async fn metadata_of_another_issuer() {
    let found = discovered(|url, _| json!({"issuer": "https://other.test", "jwks_uri": format!("{url}/keys")})).await;
    assert_eq!(found, (Reason::KeysUnavailable, 0));
}

async fn a_key_set_on_another_host() {
    let found = discovered(|url, signer| json!({"issuer": url, "jwks_uri": signer.jwks_url()})).await;
    assert_eq!(found, (Reason::KeysUnavailable, 0), "allowed ones: `discovery::a_key_set_on_another_origin_…`");
}

/// Names are checked where they are resolved, and the address that passed is the one that is connected to: shown by
/// the unit tests of `issuer::client`. What is left is that addresses given as such are judged alike.
fn a_name_that_changes_its_address() {
    let clock = Clock::manual(Timestamp::from_secs(START));
    for url in [
        "http://sso.example.com/jwks",
        "https://169.254.169.254/jwks",
        "https://[fe80::1]/jwks",
        "https://0.0.0.0/jwks",
    ] {
        let config = IssuerConfig::new("main", policy("https://sso.example.com"), KeySource::Url(url.parse().unwrap()));
        assert!(matches!(Issuers::new(vec![config], &clock, None), Err(IssuerError::InsecureUrl { .. })), "{url}");
    }
}

async fn a_wrong_certificate() {
    // Whoever answers in plain text is not the issuer of an https URL; a certificate of nobody is shown on the executable, in
    // `crates/server/tests/http/process/issuer_keys.rs`.
    let issuer = Issuer::start().await;
    let url = issuer.jwks_url().replace("http://", "https://");
    let clock = Clock::manual(Timestamp::from_secs(START));
    let config = IssuerConfig { source: KeySource::Url(url.parse().unwrap()), ..config(&issuer) };
    let issuers = Issuers::new(vec![config], &clock, None).unwrap();
    let world = World { issuer, issuers, clock };
    assert_eq!(reason(world.verify_in_time(&world.token()).await), Reason::KeysUnavailable);
    assert_eq!(world.issuer.hits(), 0, "no fallback to plain http");
}

async fn a_dead_issuer_past_max_stale() {
    let mut world = World::warm().await;
    world.issuer.die().await;
    world.clock.advance(Duration::from_secs(24 * 3600 - 1));
    assert!(world.verify_now(&world.token()).is_ok());
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(reason(world.verify_in_time(&world.token()).await), Reason::KeysUnavailable);
}

async fn a_clock_that_jumps() {
    for by in [-86_400, 86_400] {
        let world = World::warm().await;
        world.clock.set_wall(Timestamp::from_secs(START + by));
        assert!(world.verify_now(&world.token()).is_ok(), "not frozen: {by}");
        for n in 0..100 {
            let made_up =
                world.issuer.mint_with(&json!({"kid": n.to_string()}), &world.issuer.claims("app", world.now_secs()));
            assert!(matches!(
                reason(world.verify_in_time(&made_up).await),
                Reason::TokenUnknownKey | Reason::KeysUnavailable
            ));
        }
        assert!(world.issuer.hits() <= 2, "not hammered: {by}: {}", world.issuer.hits());
        world.clock.advance(Duration::from_secs(60));
        world.issuer.rotate(Rotation::Abrupt);
        assert!(world.verify_in_time(&world.token()).await.is_ok(), "a new key is found: {by}");
    }
}

async fn killed_during_a_refresh() {
    let folder = tempfile::tempdir().unwrap();
    let store = crate::sqlite(folder.path());
    store.wait_ready(WITHIN).await.unwrap();
    let world = World::cold(Issuer::start().await, Some(&store));
    assert!(world.verify_in_time(&world.token()).await.is_ok());
    let kept = config(&world.issuer).record().unwrap();
    let is_kept = async {
        while store.issuer_keys(kept.clone()).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WITHIN, is_kept).await.expect("the keys were not kept");
    world.issuer.fault(Some(Fault::Silent));
    world.clock.advance(Duration::from_secs(700));
    let hits = world.issuer.hits();
    let unknown = world.issuer.mint_with(&json!({"kid": "x"}), &world.issuer.claims("app", world.now_secs()));
    let asking = world.verify(&unknown);
    drop(asking);
    until("a fetch is under way", || world.issuer.hits() > hits).await;
    store.close().await;
    let World { issuer, clock, .. } = world;
    let store = crate::sqlite(folder.path());
    let issuers = Issuers::new(vec![config(&issuer)], &clock, Some(&store)).unwrap();
    let world = World { issuer, issuers, clock };
    world.issuers.start();
    until("kept keys serve", || world.keys() == 1).await;
    assert!(world.verify_now(&world.token()).is_ok());
    store.close().await;
}

async fn given_keys() {
    let issuer = Issuer::start().await;
    let set = JwkSet::parse(issuer.key_set().to_string().as_bytes()).unwrap();
    let clock = Clock::manual(Timestamp::from_secs(START));
    let config = IssuerConfig { source: KeySource::Inline(set), ..config(&issuer) };
    let issuers = Issuers::new(vec![config], &clock, None).unwrap();
    let unknown = issuer.mint_with(&json!({"kid": "other"}), &issuer.claims("app", START));
    assert_eq!(reason(issuers.verify(&unknown, clock.now()).wait().await), Reason::TokenUnknownKey);
    assert_eq!(issuer.hits(), 0);
}
