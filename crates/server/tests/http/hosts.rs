//! Several hosts behind one door: each is an origin of its own, with cookies of its own.

use super::world::{HOST, Request, Seen, World, json, outcome};

const RULES: &str = r#"
    [[rules]]
    path = "/*"
    allow = ["session"]
    csrf = "origin"
    app = "web"

    [[rules]]
    host = "other.example"
    path = "/*"
    allow = ["session"]
    csrf = "origin"
    app = "web"
"#;

#[tokio::test]
async fn a_link_asked_for_on_another_host_leads_back_to_it_and_signs_in_there() {
    let world = World::start(RULES).await;
    let mut there = world.visitor();
    let ask = Request::new("POST", "/auth/login/request-link")
        .to("other.example")
        .with("Origin", "https://other.example")
        .with("Content-Type", "application/json")
        .body(r#"{"email":"alice@example.com","return_to":"/reports"}"#);
    assert_eq!(there.ask(ask).await.status, 200);
    world.mailbox.arrived(1).await;
    let mail = world.mailbox.mails().remove(0);
    let link = mail.text.split_whitespace().find(|word| word.contains("token=")).unwrap().to_owned();
    let (address, token) = link.split_once("?token=").unwrap();
    assert_eq!(address, "https://other.example/auth/login/callback");
    let back = Request::new("POST", "/auth/login/callback")
        .to("other.example")
        .with("Origin", "https://other.example")
        .with("Content-Type", "application/json")
        .body(format!(r#"{{"token":"{token}"}}"#));
    assert_eq!(json(&there.ask(back).await)["ok"], true);

    let change = |origin: &str| Request::new("POST", "/x").to("other.example").with("Origin", origin);
    let seen = Seen::of(&there.ask(change("https://other.example")).await);
    assert_eq!(seen.header("x-doorward-email"), Some("alice@example.com"));
    // A page of the first host is another site for the second.
    let foreign = there.ask(change(&format!("https://{HOST}"))).await;
    assert_eq!(outcome(&foreign), (403, Some("cross_site")));
    world.stop().await;
}

#[tokio::test]
async fn a_host_that_is_none_of_ours_decides_nothing() {
    let world = World::start(RULES).await;
    let ask = Request::new("POST", "/auth/login/request-link")
        .to("evil.example")
        .with("Content-Type", "application/json")
        .body(r#"{"email":"alice@example.com"}"#);
    assert_eq!(outcome(&world.visitor().ask(ask).await), (421, Some("host_unknown")));
    // From a peer that is no proxy, forwarding headers change nothing about the link either.
    let ask = Request::new("POST", "/auth/login/request-link")
        .to(format!("{HOST}:1337"))
        .with("Content-Type", "application/json")
        .body(r#"{"email":"alice@example.com"}"#);
    let answer = world.visitor().ask(ask.with("Origin", format!("https://{HOST}"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    world.mailbox.arrived(1).await;
    let text = &world.mailbox.mails()[0].text;
    assert!(text.contains(&format!("https://{HOST}/auth/login/callback?token=")), "{text}");
    world.stop().await;
}
