//! The identity assertion: proof for apps that want more than headers.

use std::time::Duration;

use doorward_core::{
    jose::{Algorithm, AlgorithmSet, JwkSet, Selection},
    token::{self, TokenPolicy},
};
use serde_json::Value;

use super::world::{HOST, Request, Seen, Setup, World, json, outcome};

const RULES: &str = r#"
    [[rules]]
    path = "/public/*"
    allow = ["public"]
    app = "web"

    [[rules]]
    path = "/*"
    allow = ["session", "bearer"]
    app = "web"
"#;

/// Reads an assertion as an app would: with the published keys, for its own audience.
pub(crate) async fn read(world: &World, assertion: &str) -> Value {
    let published = world.anonymous().get("/auth/assertion/jwks").await;
    assert_eq!(published.status, 200, "{published:?}");
    let set = JwkSet::parse(&published.body).unwrap();
    let unverified = token::parse(assertion).unwrap();
    let Selection::Key(key) = set.select(unverified.key_id(), Algorithm::EdDsa) else {
        panic!("the assertion's key is not published")
    };
    let policy = TokenPolicy {
        issuer: world.running.server.site().redirects.own.to_string(),
        aliases: Vec::new(),
        audiences: vec!["web".to_owned()],
        algorithms: AlgorithmSet::of(&[Algorithm::EdDsa]),
        required_claims: vec!["method".to_owned()],
        clock_tolerance: Duration::ZERO,
        max_token_age: None,
        kind: Some("doorward-assertion+jwt".to_owned()),
    };
    let verified = token::verify(unverified, key, &policy, world.clock.now()).unwrap();
    let mut claims = Value::Object(verified.get().more.to_map());
    claims["sub"] = verified.get().subject.clone().into();
    claims
}

#[tokio::test]
async fn an_app_that_asks_for_proof_gets_it_once_per_caller_and_others_get_none() {
    let plain = World::start(RULES).await;
    let mut alice = plain.browser("alice@example.com").await;
    assert_eq!(Seen::of(&alice.get("/x").await).header("x-doorward-assertion"), None);
    plain.stop().await;

    let world = Setup::of(RULES).app("assertion = true").start().await;
    let mut alice = world.browser("alice@example.com").await;
    let first = Seen::of(&alice.ask(Request::new("GET", "/x").with("X-Doorward-Assertion", "forged")).await);
    let assertion = first.header("x-doorward-assertion").unwrap().to_owned();
    let claims = read(&world, &assertion).await;
    assert_eq!(claims["email"], "alice@example.com");
    assert_eq!(claims["method"], "session");
    assert_eq!(claims["sub"].as_str(), first.header("x-doorward-subject"));
    assert_eq!(Seen::of(&alice.get("/y").await).header("x-doorward-assertion"), Some(&*assertion), "signed again");

    let bob = Seen::of(&world.browser("bob@example.com").await.get("/x").await);
    assert_ne!(bob.header("x-doorward-assertion"), Some(&*assertion), "one caller's assertion went to another");
    let nobody = Seen::of(&world.anonymous().get("/public/x").await);
    assert_eq!(nobody.header("x-doorward-assertion"), None);

    // Close to its end it is signed anew, so an app always has time to read it.
    world.advance(Duration::from_secs(200)).await;
    let later = Seen::of(&alice.get("/x").await);
    assert_ne!(later.header("x-doorward-assertion"), Some(&*assertion));
    read(&world, later.header("x-doorward-assertion").unwrap()).await;

    // It is no credential, here least of all.
    assert_eq!(outcome(&world.bearer(&assertion).get("/x").await), (401, Some("token_wrong_issuer")));
    world.stop().await;
}

#[tokio::test]
async fn forward_auth_hands_the_assertion_over_too_and_always_writes_the_header() {
    let world = Setup::of(RULES).app("assertion = true").start().await;
    let ask = |path: &str| {
        Request::new("GET", "/auth/check/caddy")
            .with("X-Forwarded-Method", "GET")
            .with("X-Forwarded-Proto", "https")
            .with("X-Forwarded-Host", HOST)
            .with("X-Forwarded-Uri", path)
    };
    let public = world.anonymous().ask(ask("/public/x")).await;
    assert_eq!((public.status, public.header("x-doorward-assertion")), (200, Some("")));
    let mut alice = world.browser("alice@example.com").await;
    let answer = alice.ask(ask("/x")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let claims = read(&world, answer.header("x-doorward-assertion").unwrap()).await;
    assert_eq!(claims["email"], "alice@example.com");
    let unread = json(&world.anonymous().ask(ask("/x")).await);
    assert_eq!(unread["reason"], "no_credential");
    world.stop().await;
}
