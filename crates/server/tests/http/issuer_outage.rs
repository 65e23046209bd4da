//! An issuer that is away, silent or changing while the whole server is asked, and clocks that are set meanwhile.

use std::{net::Ipv4Addr, time::Duration};

use doorward_core::{
    keys::KeyStatus,
    request::{RequestFacts, Scheme},
    time::Timestamp,
};
use doorward_testkit::{
    issuer::{Fault, Rotation},
    wire::{Answer, Wire},
};
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Method, header::AUTHORIZATION};
use serde_json::{Value, json};

use crate::{
    door::until,
    process::until as until_async,
    world::{HOST, NOW, World, outcome},
};

const RULES: &str = "[[rules]]\npath = \"/*\"\nallow = [\"bearer\"]\napp = \"web\"\n";
const PATIENCE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn token(world: &World) -> String {
    world.issuer.mint(&world.claims())
}

async fn ask(world: &World, token: &str) -> Answer {
    world.bearer(token).get("/x").await
}

async fn admin(world: &World, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    Wire::ask(world.running.admin, request).await
}

/// The issuer on the admin listener, with the status of the page.
async fn shown(world: &World) -> (u16, Value) {
    let answer = admin(world, "/healthz/deep").await;
    let page: Value = serde_json::from_str(&answer.text()).unwrap();
    (answer.status, page["issuers"][0].clone())
}

fn keys(world: &World) -> KeyStatus {
    world.gate().issuers().status(world.clock.now()).remove(0).keys
}

fn waiters(world: &World) -> usize {
    world.gate().issuers().status(world.clock.now())[0].waiters
}

fn is_not_now(answer: &Answer) -> bool {
    outcome(answer) == (503, Some("keys_unavailable")) && answer.header("retry-after").is_some()
}

#[tokio::test]
async fn an_outage_shows_on_the_admin_listener_in_the_metrics_and_in_decisions_and_ends_in_503_never_in_401() {
    let mut world = World::start(RULES).await;
    assert_eq!(ask(&world, &token(&world)).await.status, 200);
    world.issuer.die().await;
    world.advance(Duration::from_secs(700)).await;
    until("a fetch failed", || keys(&world).failures > 0).await;
    assert_eq!(ask(&world, &token(&world)).await.status, 200, "known keys serve");

    let (status, issuer) = shown(&world).await;
    assert_eq!((status, &issuer["keys"]), (200, &json!(1)));
    assert_eq!((&issuer["fetched_seconds_ago"], &issuer["serves_for_seconds"]), (&json!(700), &json!(86_400 - 700)));
    assert!(issuer["failures"].as_u64() > Some(0) && issuer["last_error"].is_string(), "{issuer}");
    let is_measured = async || {
        let text = admin(&world, "/metrics").await.text();
        let value = |name: &str| {
            let name = format!("doorward_issuer_{name}{{name=\"main\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)).map(str::to_owned)
        };
        let failures = value("fetch_failures")?.parse::<u32>().unwrap();
        let times = (value("keys_age_seconds")?, value("keys_serve_seconds")?);
        (failures > 0 && times == ("700".to_owned(), "85700".to_owned())).then_some(())
    };
    until_async("the metrics say so", PATIENCE, is_measured).await;
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {}", token(&world))).unwrap());
    let facts = RequestFacts {
        method: &Method::GET,
        scheme: Scheme::Https,
        host: HOST,
        target: "/x",
        headers: &headers,
        client: Ipv4Addr::LOCALHOST.into(),
        is_upgrade: false,
        may_leave_http: false,
    };
    let decision = world.gate().check(&facts).decision().await;
    assert!(decision.outcome.is_ok());
    assert_eq!(decision.keys_age, Some(Duration::from_secs(700)), "the decision names the age of the keys");

    world.advance(DAY).await;
    let refused = ask(&world, &token(&world)).await;
    assert!(is_not_now(&refused), "too old to be relied on: {refused:?}");
    assert_eq!(shown(&world).await.0, 503);
    assert_eq!(keys(&world).keys, 0);
    world.issuer.revive().await;
    let is_back = async || {
        world.advance(Duration::from_secs(1)).await;
        (ask(&world, &token(&world)).await.status == 200).then_some(())
    };
    until_async("the keys are back", PATIENCE, is_back).await;
    assert_eq!(shown(&world).await.0, 200);
}

#[tokio::test]
async fn an_issuer_that_dies_with_fifty_tokens_of_a_new_key_waiting_costs_each_a_503_and_known_ones_nothing() {
    let mut world = World::start(RULES).await;
    let known = token(&world);
    assert_eq!(ask(&world, &known).await.status, 200);
    // The fetch that says nothing lasts until everybody has come.
    world.advance(Duration::from_secs(60)).await;
    world.issuer.fault(Some(Fault::Silent));
    let (old, hits) = (token(&world), world.issuer.hits());
    world.issuer.rotate(Rotation::Abrupt);
    let young: Vec<String> = (0..50).map(|_| token(&world)).collect();
    let (address, host) = (world.address(), HOST);
    let waiting: Vec<_> = young
        .iter()
        .map(|token| {
            let request = format!(
                "GET /x HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
            );
            tokio::spawn(async move { Wire::ask(address, request).await })
        })
        .collect();
    until("all of them wait", || waiters(&world) == 50).await;
    for _ in 0..20 {
        assert_eq!(ask(&world, &old).await.status, 200, "nobody with a known key waits behind them");
    }
    world.issuer.die().await;
    for answer in join_all(waiting).await {
        let answer = answer.unwrap();
        assert!(is_not_now(&answer), "{answer:?}");
    }
    assert_eq!((waiters(&world), world.issuer.hits()), (0, hits + 1), "one fetch for all of them");
    assert_eq!(ask(&world, &old).await.status, 200);
    world.issuer.fault(None);
    world.issuer.revive().await;
    world.advance(Duration::from_secs(61)).await;
    assert_eq!(ask(&world, &young[0]).await.status, 200);
    assert_eq!(outcome(&ask(&world, &old).await), (401, Some("token_unknown_key")), "its key is gone");
}

#[tokio::test]
async fn a_wall_clock_that_jumps_by_a_year_makes_no_key_older_or_younger_and_nobody_is_asked_more_often() {
    for (years, of_before) in [(1, "token_expired"), (-1, "token_not_yet_valid")] {
        let world = World::start(RULES).await;
        let before = token(&world);
        assert_eq!(ask(&world, &before).await.status, 200);
        let hits = world.issuer.hits();
        world.clock.set_wall(Timestamp::from_secs(NOW + years * 365 * 86_400));
        world.gate().follow().await;
        assert_eq!(ask(&world, &token(&world)).await.status, 200, "{years}: the keys are what they were");
        let refused = ask(&world, &before).await;
        assert_eq!(
            outcome(&refused),
            (401, Some(of_before)),
            "{years}: a verdict that was kept is judged by the new time"
        );
        for number in 0..100 {
            let unknown = world.issuer.mint_with(&json!({"kid": format!("unknown-{number}")}), &world.claims());
            let refused = ask(&world, &unknown).await;
            assert!(outcome(&refused) == (401, Some("token_unknown_key")) || is_not_now(&refused), "{refused:?}");
        }
        assert!(world.issuer.hits() <= hits + 1, "{years}: the budget is one of monotonic time");
        assert_eq!(keys(&world).age, Some(Duration::ZERO));
        world.advance(Duration::from_secs(61)).await;
        world.issuer.rotate(Rotation::Abrupt);
        assert_eq!(ask(&world, &token(&world)).await.status, 200, "{years}: a new key is found");
        world.stop().await;
    }
}
