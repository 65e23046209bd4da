//! What a new configuration takes over, what the next process takes over, and what is heard of it all.

use std::sync::Mutex;

use doorward_gate::issuer::{IssuerChange, IssuerEvent, IssuerParts, Listener};

use super::*;

fn parts(clock: &Clock, store: Option<&Store>) -> IssuerParts {
    IssuerParts { clock: clock.clone(), store: store.cloned(), listener: Listener::default() }
}

fn follow(world: &mut World, configs: Vec<IssuerConfig>) {
    let next = Issuers::following(configs, parts(&world.clock, None), Some(&world.issuers)).unwrap();
    next.start();
    world.issuers = next;
}

#[tokio::test]
async fn the_same_issuer_goes_on_with_keys_verdicts_and_budget_under_a_new_configuration() {
    let mut world = World::warm().await;
    let token = world.token();
    let before = world.verify_now(&token).unwrap();
    let flood = |world: &World, n: u64| {
        world.issuer.mint_with(&json!({"kid": format!("made-up-{n}")}), &world.issuer.claims("app", START))
    };
    for n in 0..50 {
        let denial = world.verify_in_time(&flood(&world, n)).await.unwrap_err();
        assert!(matches!(denial.reason, Reason::TokenUnknownKey | Reason::KeysUnavailable));
        let same = vec![config(&world.issuer)];
        follow(&mut world, same);
        assert!(Arc::ptr_eq(&before, &world.verify_now(&token).unwrap()), "the verdict was found anew");
    }
    assert_eq!(world.issuer.hits(), 2, "a new configuration is no new budget");
}

#[tokio::test]
async fn with_other_rules_the_keys_stay_and_the_verdicts_go() {
    let mut world = World::warm().await;
    let token = world.token();
    assert!(world.verify_now(&token).is_ok());
    world.issuer.die().await;
    let mut other = config(&world.issuer);
    other.policy.audiences = vec!["another".to_owned()];
    follow(&mut world, vec![other]);
    assert_eq!(reason(world.verify_now(&token)), Reason::TokenWrongAudience);
    let same = vec![config(&world.issuer)];
    follow(&mut world, same);
    assert!(world.verify_now(&token).is_ok(), "known keys, though the issuer is dead");
    assert_eq!(world.issuer.hits(), 1);
}

#[tokio::test]
async fn a_new_issuer_starts_and_one_that_is_gone_stops() {
    let mut world = World::warm().await;
    let added = Issuer::start().await;
    let second = IssuerConfig { name: "second".to_owned(), ..config(&added) };
    follow(&mut world, vec![second]);
    until("the new one is fetched", || added.hits() == 1).await;
    assert_eq!(reason(world.verify_in_time(&world.token()).await), Reason::TokenWrongIssuer);
    world.clock.advance(Duration::from_secs(3600));
    until("only the new one is fetched again", || added.hits() == 2).await;
    assert_eq!(world.issuer.hits(), 1);
}

#[tokio::test]
async fn another_address_of_the_keys_is_another_definition() {
    let mut world = World::warm().await;
    let elsewhere = Issuer::start().await;
    let moved = IssuerConfig { source: KeySource::Url(elsewhere.jwks_url().parse().unwrap()), ..config(&world.issuer) };
    follow(&mut world, vec![moved]);
    assert_eq!(reason(world.verify_in_time(&world.token()).await), Reason::TokenBadSignature);
    assert!(elsewhere.hits() >= 1);
}

#[tokio::test]
async fn ten_thousand_requests_from_a_cold_start_with_a_first_set_or_kept_keys_ask_the_issuer_nothing() {
    let (issuer, store) = (Issuer::start().await, Store::memory());
    let clock = Clock::manual(Timestamp::from_secs(START));
    let first = JwkSet::parse(issuer.key_set().to_string().as_bytes()).unwrap();
    let with_first =
        IssuerConfig { first: Some(first), first_made: Some(Timestamp::from_secs(START - 90_000)), ..config(&issuer) };
    let token = |n: u64| {
        let mut claims = issuer.claims("app", START);
        claims["jti"] = json!(n.to_string());
        issuer.mint(&claims)
    };
    let ask_often = async |issuers: &Issuers| {
        for n in 0..10_000 {
            let verdict = issuers.verify(&token(n), clock.now()).wait().await;
            assert!(verdict.is_ok(), "{n}: {verdict:?}");
        }
    };
    let issuers = Issuers::new(vec![with_first], &clock, Some(&store)).unwrap();
    issuers.start();
    ask_often(&issuers).await;
    assert_eq!(issuer.hits(), 0, "with a first set");

    let record = config(&issuer).record().unwrap();
    store.put_issuer_keys(record, issuer.key_set().to_string(), Timestamp::from_secs(START - 300)).await.unwrap();
    let issuers = Issuers::new(vec![config(&issuer)], &clock, Some(&store)).unwrap();
    issuers.start();
    // From the very first request on: it waits for the store, not for the issuer.
    ask_often(&issuers).await;
    assert_eq!(issuer.hits(), 0, "with kept keys");
}

#[tokio::test]
async fn keys_kept_by_an_earlier_process_are_used_over_an_older_first_set_and_not_over_a_newer_one() {
    for (first_made, expected) in [(START - 3600, true), (START - 60, false)] {
        let (issuer, store) = (Issuer::start().await, Store::memory());
        let clock = Clock::manual(Timestamp::from_secs(START));
        let first = JwkSet::parse(issuer.key_set().to_string().as_bytes()).unwrap();
        issuer.rotate(Rotation::Abrupt);
        let config =
            IssuerConfig { first: Some(first), first_made: Some(Timestamp::from_secs(first_made)), ..config(&issuer) };
        let record = config.record().unwrap();
        store.put_issuer_keys(record, issuer.key_set().to_string(), Timestamp::from_secs(START - 600)).await.unwrap();
        let issuers = Issuers::new(vec![config], &clock, Some(&store)).unwrap();
        let mut world = World { issuer, issuers, clock };
        world.issuer.die().await;
        world.issuers.start();
        let token = world.token();
        if expected {
            until("kept keys", || matches!(world.verify(&token), Verdict::Ready(Ok(_)))).await;
        } else {
            assert_eq!(reason(world.verify_in_time(&token).await), Reason::KeysUnavailable);
        }
    }
}

#[tokio::test]
async fn without_kept_keys_the_first_request_goes_on_to_the_issuer_at_once() {
    let store = Store::memory();
    let world = World::cold(Issuer::start().await, Some(&store));
    world.issuers.start();
    assert!(world.verify_in_time(&world.token()).await.is_ok());
    assert_eq!(world.issuer.hits(), 1);
}

#[tokio::test]
async fn a_replaced_key_and_a_fetch_for_a_token_are_heard_of_once_each() {
    let issuer = Issuer::start().await;
    let clock = Clock::manual(Timestamp::from_secs(START));
    let heard: Arc<Mutex<Vec<IssuerEvent>>> = Arc::default();
    let hears = Arc::clone(&heard);
    let listener = Listener::new(move |event| hears.lock().unwrap().push(event));
    let parts = IssuerParts { clock: clock.clone(), store: None, listener };
    let issuers = Issuers::following(vec![config(&issuer)], parts, None).unwrap();
    let world = World { issuer, issuers, clock };
    assert!(world.verify_in_time(&world.token()).await.is_ok());
    assert_eq!(heard.lock().unwrap().len(), 0, "the first fetch is no news");
    world.issuer.rotate(Rotation::SameId);
    world.clock.advance(Duration::from_secs(60));
    assert!(world.verify_in_time(&world.token()).await.is_ok(), "and the new material is used");
    let heard: Vec<_> =
        heard.lock().unwrap().iter().map(|event| (event.issuer.to_string(), event.what.clone())).collect();
    let expected = [
        IssuerChange::KeyChanged { kid: world.issuer.key_id().into() },
        IssuerChange::FetchedForToken { is_in_use: true },
    ];
    assert_eq!(heard, expected.map(|what| ("main".to_owned(), what)));
}

#[tokio::test]
async fn an_outage_is_reported_while_known_keys_serve() {
    let mut world = World::warm().await;
    assert_eq!(world.issuers.outage("main", world.clock.now()), None);
    world.issuer.die().await;
    world.clock.advance(Duration::from_secs(700));
    until("a failed fetch", || world.status().failures > 0).await;
    assert!(world.verify_now(&world.token()).is_ok());
    assert_eq!(world.issuers.outage("main", world.clock.now()), Some(Duration::from_secs(700)));
    assert_eq!(world.status().serves_for, Some(Duration::from_secs(24 * 3600 - 700)));
    world.issuer.revive().await;
    let is_over = || {
        world.clock.advance(Duration::from_secs(1));
        world.issuers.outage("main", world.clock.now()).is_none()
    };
    until("the end of the outage", is_over).await;
}
