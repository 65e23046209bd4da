//! The world keeps what its description promises.

use std::time::Duration;

use serde_json::json;

use super::{Request, Seen, World, json, outcome};

const RULES: &str = r#"
    [[rules]]
    path = "/public/*"
    allow = ["public"]
    app = "web"

    [[rules]]
    path = "/*"
    allow = ["session", "api_key", "bearer"]
    app = "web"
"#;

#[tokio::test]
async fn a_world_admits_its_callers_and_its_app_tells_what_it_heard() {
    let world = World::start(RULES).await;
    assert_eq!(outcome(&world.anonymous().get("/x").await), (401, Some("no_credential")));
    let seen = Seen::of(&world.anonymous().get("/public/x?y=%41").await);
    assert_eq!(seen.line, "GET /public/x?y=%41 HTTP/1.1");

    let mut alice = world.browser("alice@example.com").await;
    let seen = Seen::of(&alice.ask(Request::new("PUT", "/x").body("hello")).await);
    let email = Some("alice@example.com");
    assert_eq!((seen.header("x-doorward-email"), seen.header("remote-email")), (email, email));
    assert_eq!((seen.header("cookie"), seen.body.as_str()), (None, "hello"));
    let session = json(&alice.get("/auth/session").await);
    assert_eq!(session["user"]["email"], json!("alice@example.com"));

    let seen = Seen::of(&world.bearer(&world.issuer.mint(&world.claims())).get("/x").await);
    assert_eq!(seen.header("x-doorward-subject"), Some("main|subject-1"));
    let owner = doorward_core::api_key::KeyOwner::User(world.user("bob@example.com").await.id);
    let key = world.api_key(owner, &[], |_| {}).await;
    let seen = Seen::of(&world.bearer(&key).get("/x").await);
    assert_eq!(seen.header("x-doorward-method"), Some("api_key"));

    world.advance(Duration::from_secs(3600)).await;
    assert_eq!(outcome(&alice.get("/x").await), (401, Some("session_idle")));
    world.stop().await;
}
