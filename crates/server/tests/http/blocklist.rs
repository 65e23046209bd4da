//! Blocked tokens and subjects: the admin listener, and the set in Redis that somebody else writes.

use std::time::Duration;

use doorward_store::shared::ANSWER;
use doorward_testkit::{
    redis::{self, Redis},
    wire::{Answer, Wire},
};
use serde_json::{Value, json};

use crate::{
    process::until,
    world::{Setup, World, outcome},
};

const RULES: &str = "[[rules]]\npath = \"/careless\"\nallow = [\"bearer\"]\non_stale = \"allow\"\napp = \"web\"\n\
    [[rules]]\npath = \"/*\"\nallow = [\"bearer\"]\napp = \"web\"\n";
const SET: &str = "titanium:blocklist";
const PATIENCE: Duration = Duration::from_mins(1);

/// Asks the admin listener; `fields` are whole header lines.
async fn admin(world: &World, method: &str, fields: &str, body: &str) -> Answer {
    let length = body.len();
    let request = format!(
        "{method} /blocklist HTTP/1.1\r\nHost: 127.0.0.1:8081\r\n{fields}Content-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    Wire::ask(world.running.admin, &request).await
}

async fn change(world: &World, method: &str, body: Value) -> Answer {
    admin(world, method, "Content-Type: application/json\r\n", &body.to_string()).await
}

fn document(answer: &Answer) -> Value {
    serde_json::from_str(&answer.text()).unwrap_or_else(|_| panic!("{answer:?}"))
}

fn token(world: &World, jti: &str, subject: &str) -> String {
    let mut claims = world.claims();
    claims["jti"] = jti.into();
    claims["sub"] = subject.into();
    world.issuer.mint(&claims)
}

async fn ask(world: &World, token: &str, path: &str) -> (u16, Option<String>) {
    let answer = world.bearer(token).get(path).await;
    let (status, reason) = outcome(&answer);
    (status, reason.map(str::to_owned))
}

/// Asks until the shared set could say: a server that got no processor for as long as an answer may take counts as one
/// that is down.
async fn told(world: &World, token: &str, path: &str) -> (u16, Option<String>) {
    let answer = async || Some(ask(world, token, path).await).filter(|said| said.0 != 503);
    until("the shared set says", PATIENCE, answer).await.0
}

fn refused(reason: &str, status: u16) -> (u16, Option<String>) {
    (status, Some(reason.to_owned()))
}

#[tokio::test]
async fn what_the_admin_listener_blocks_is_refused_at_the_next_request_until_it_is_taken_back() {
    let world = World::start(RULES).await;
    let (one, two) = (token(&world, "1", "ada"), token(&world, "2", "bob"));
    assert_eq!(ask(&world, &one, "/x").await, (200, None));
    let made = change(&world, "POST", json!({"issuer": "main", "jti": "1", "for": "12h", "why": "stolen"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(document(&made)["jti"], "1");
    assert_eq!(ask(&world, &one, "/x").await, refused("token_revoked", 401));
    assert_eq!(change(&world, "POST", json!({"issuer": "main", "subject": "bob"})).await.status, 201);
    assert_eq!(ask(&world, &two, "/x").await, refused("token_revoked", 401));

    let list = document(&admin(&world, "GET", "", "").await);
    let entries = list["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!((&entries[0]["why"], &entries[1]["subject"]), (&json!("stolen"), &json!("bob")));
    assert_eq!((&entries[1]["until"], &list["next"]), (&Value::Null, &Value::Null));

    let removed = change(&world, "DELETE", json!({"issuer": "main", "subject": "bob", "why": "found"})).await;
    assert_eq!((removed.status, document(&removed)), (200, json!({"removed": true})));
    assert_eq!(ask(&world, &two, "/x").await, (200, None));
    world.advance(Duration::from_hours(12)).await;
    assert_eq!(ask(&world, &token(&world, "1", "ada"), "/x").await, (200, None), "the entry has ended");
    let gone = change(&world, "DELETE", json!({"issuer": "main", "jti": "1"})).await;
    assert_eq!(document(&gone), json!({"removed": false}));
    let deep = "GET /healthz/deep HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(document(&Wire::ask(world.running.admin, deep).await)["shared"], Value::Null);
}

#[tokio::test]
async fn a_page_of_another_site_cannot_change_the_list_and_a_wrong_entry_is_refused() {
    let world = World::start(RULES).await;
    let entry = json!({"issuer": "main", "jti": "1"}).to_string();
    let json_type = "Content-Type: application/json\r\n";
    for (fields, status, reason) in [
        ("Content-Type: text/plain\r\n".to_owned(), 400, "request_malformed"),
        ("Content-Type: application/x-www-form-urlencoded\r\n".to_owned(), 400, "request_malformed"),
        (format!("{json_type}Origin: https://evil.example\r\n"), 403, "cross_site"),
        (format!("{json_type}Origin: null\r\n"), 403, "cross_site"),
        (format!("{json_type}Sec-Fetch-Site: cross-site\r\n"), 403, "cross_site"),
        (format!("{json_type}Referer: https://evil.example/\r\n"), 403, "cross_site"),
    ] {
        for method in ["POST", "DELETE"] {
            let answer = admin(&world, method, &fields, &entry).await;
            assert_eq!(outcome(&answer), (status, Some(reason)), "{method} {fields}");
        }
    }
    let own = format!("{json_type}Origin: http://127.0.0.1:8081\r\nSec-Fetch-Site: same-origin\r\n");
    for bad in [
        json!({"issuer": "main"}),
        json!({"issuer": "main", "jti": "1", "subject": "2"}),
        json!({"issuer": "nobody", "jti": "1"}),
        json!({"issuer": "main", "jti": "1", "for": "12h", "until": "2030-01-01T00:00:00Z"}),
        json!({"issuer": "main", "jti": "1", "until": "2001-01-01T00:00:00Z"}),
        json!({"issuer": "main", "jti": "1", "surprise": true}),
        json!({"issuer": "main", "jti": "a\u{0}"}),
    ] {
        let answer = admin(&world, "POST", &own, &bad.to_string()).await;
        assert_eq!(outcome(&answer), (400, Some("request_malformed")), "{bad}");
    }
    assert_eq!(world.store().last_revocation().await, Ok(0));
    assert_eq!(admin(&world, "POST", &own, &entry).await.status, 201);
    assert_eq!(outcome(&admin(&world, "PATCH", &own, &entry).await), (405, Some("method_not_allowed")));
}

#[tokio::test]
async fn the_list_of_a_listener_with_a_token_needs_the_token() {
    let listen = "admin_token = \"only for this test, only for this test\"";
    let world = Setup::of(RULES).listen(listen).start().await;
    assert_eq!(outcome(&admin(&world, "GET", "", "").await), (401, Some("no_credential")));
    let fields = "Content-Type: application/json\r\nAuthorization: Bearer only for this test, only for this test\r\n";
    assert_eq!(admin(&world, "POST", fields, r#"{"issuer":"main","jti":"1"}"#).await.status, 201);
}

#[tokio::test]
async fn off_loopback_the_admin_listener_never_goes_without_a_token() {
    let listen = "admin_token = \"only for this test, only for this test\"";
    let world = Setup::of(RULES).listen(listen).start().await;
    let asked = async || outcome(&admin(&world, "GET", "", "").await).0;
    assert!(!world.server().use_admin_token(None, "192.0.2.1".parse().unwrap()));
    assert_eq!(asked().await, 401, "the old one stays");
    world.reload(|text| text.replace(listen, ""));
    assert_eq!(asked().await, 200, "on loopback it may go");
}

async fn with_redis(redis: &Redis) -> World {
    let shared = format!("{RULES}[shared]\nurl = \"{}\"\nblocklist_set = \"{SET}\"\n", redis.url());
    Setup::of(&shared).start().await
}

async fn until_up(world: &World) {
    let up = || world.server().shared.status().unwrap().problem.is_none();
    until("the shared set can be asked", PATIENCE, async || up().then_some(())).await;
}

#[tokio::test]
async fn a_member_of_the_shared_set_is_refused_at_the_next_request_and_passes_once_it_is_gone() {
    let Some(redis) = redis::start(&[]).await else { return };
    let world = with_redis(&redis).await;
    until_up(&world).await;
    let (ada, bob) = (token(&world, "1", "ada"), token(&world, "2", "bob"));
    assert_eq!(told(&world, &ada, "/x").await, (200, None));
    redis.command(&["SADD", SET, "ada"]);
    assert_eq!(told(&world, &ada, "/x").await, refused("token_revoked", 401));
    // Where the rule lets pass whoever cannot be told about, the answer may be late as well.
    let careless = async || (ask(&world, &ada, "/careless").await == refused("token_revoked", 401)).then_some(());
    until("the careless rule refuses a member too", PATIENCE, careless).await;
    assert_eq!(told(&world, &bob, "/x").await, (200, None));
    redis.command(&["FLUSHALL"]);
    assert_eq!(told(&world, &ada, "/x").await, (200, None));
}

#[tokio::test]
async fn a_redis_that_is_down_or_slow_closes_strict_rules_and_lets_careless_ones_pass_in_time() {
    let Some(mut redis) = redis::prepare(&[]) else { return };
    let world = with_redis(&redis).await;
    let ada = token(&world, "1", "ada");
    let down = async |world: &World| {
        let strict = world.bearer(&ada).get("/x").await;
        assert_eq!(outcome(&strict), (503, Some("shared_unavailable")));
        assert!(strict.header("retry-after").is_some(), "{strict:?}");
        assert_eq!(ask(world, &ada, "/careless").await, (200, None));
    };
    down(&world).await;
    redis.revive().await;
    until_up(&world).await;
    assert_eq!(told(&world, &ada, "/x").await, (200, None));
    // Slow: the first question waits for the bound, the others for nothing.
    redis.command(&["CLIENT", "PAUSE", "60000", "ALL"]);
    down(&world).await;
    let mut waited = 0;
    for _ in 0..100 {
        let (status, took) = until("an answer", PATIENCE, async || Some(ask(&world, &ada, "/x").await.0)).await;
        assert_eq!(status, 503);
        waited += usize::from(took >= ANSWER);
    }
    assert!(waited < 50, "{waited} of a hundred waited for a Redis that is known to be slow");
    let deep = "GET /healthz/deep HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let deep = Wire::ask(world.running.admin, deep).await;
    assert_eq!((deep.status, &document(&deep)["shared"]["up"]), (503, &json!(false)));
    redis.crash().await;
    down(&world).await;
    redis.revive().await;
    until_up(&world).await;
    assert_eq!(told(&world, &ada, "/x").await, (200, None));
    redis.command(&["SADD", SET, "ada"]);
    assert_eq!(told(&world, &ada, "/x").await, refused("token_revoked", 401));
}
