//! Sessions: how they end, and what other sites cannot do with them.

use std::time::Duration;

use serde_json::json;

use super::{CSRF, RULES, SID, set};
use crate::world::{Request, World, json as body, outcome};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_session_ends_an_hour_after_its_last_use_and_not_before() {
    let world = World::start(RULES).await;
    let mut ada = world.browser("ada@example.com").await;
    for _ in 0..3 {
        world.advance(59 * MINUTE).await;
        assert_eq!(ada.get("/x").await.status, 200);
    }
    world.advance(60 * MINUTE).await;
    let over = ada.get("/x").await;
    assert_eq!(outcome(&over), (401, Some("session_idle")));
    assert_eq!(body(&over)["remedy"], "sign_in");
    assert_eq!(body(&ada.get("/auth/session").await), json!({ "authenticated": false }));
}

#[tokio::test]
async fn a_session_in_constant_use_ends_after_seven_days() {
    let world = World::start(RULES).await;
    let mut ada = world.browser("ada@example.com").await;
    let step = 56 * MINUTE;
    let steps = 7 * 24 * 60 / 56;
    for _ in 1..steps {
        world.advance(step).await;
        assert_eq!(ada.get("/x").await.status, 200);
    }
    world.advance(step).await;
    assert_eq!(outcome(&ada.get("/x").await), (401, Some("session_expired_absolute")));
}

#[tokio::test]
async fn signing_out_ends_the_session_everywhere_and_clears_its_cookies() {
    let world = World::start(RULES).await;
    let mut ada = world.browser("ada@example.com").await;
    let copy = ada.clone();
    assert_eq!(ada.get("/x").await.status, 200);
    let out = ada.post("/auth/logout", &json!({})).await;
    assert_eq!((out.status, out.text().as_str()), (200, r#"{"ok":true}"#));
    assert_eq!(set(&out, SID), Some((false, "Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax".to_owned())));
    assert_eq!(set(&out, CSRF), Some((false, "Path=/; Max-Age=0; Secure; SameSite=Lax".to_owned())));
    let stolen = outcome(&copy.clone().get("/x").await).1.map(str::to_owned);
    assert!(["session_unknown", "session_revoked"].map(|code| Some(code.to_owned())).contains(&stolen), "{stolen:?}");
    assert_eq!(body(&copy.clone().get("/auth/session").await), json!({ "authenticated": false }));
    let again = copy.clone().post("/auth/logout", &json!({})).await;
    assert_eq!(again.status, 200, "whoever is out already is out");
    assert_eq!(world.anonymous().post("/auth/logout", &json!({})).await.status, 200);
}

#[tokio::test]
async fn nobody_hears_that_they_are_out_while_a_second_cookie_keeps_a_session_alive() {
    let world = World::start(RULES).await;
    let mut ada = world.browser("ada@example.com").await;
    let bob = world.browser("bob@example.com").await;
    let doubled = format!("{SID}={}; {SID}={}", ada.cookie(SID).unwrap(), bob.cookie(SID).unwrap());
    let out = ada.clone().with("Cookie", &doubled).post("/auth/logout", &json!({})).await;
    assert_eq!(outcome(&out), (400, Some("ambiguous_credential")));
    assert_eq!(ada.get("/x").await.status, 200);
}

#[tokio::test]
async fn signing_in_again_gives_a_new_session_and_ends_the_old_one() {
    let world = World::start(RULES).await;
    let mut ada = world.browser("ada@example.com").await;
    let before = ada.clone();
    assert_eq!(ada.get("/x").await.status, 200);
    ada.sign_in(&world.mailbox, "ada@example.com").await;
    assert_ne!(ada.cookie(SID), before.cookie(SID));
    assert_eq!(ada.get("/x").await.status, 200);
    assert_eq!(before.clone().get("/x").await.status, 401);
}

#[tokio::test]
async fn a_token_rule_takes_the_sessions_own_csrf_token_from_its_header_and_nothing_else() {
    let world = World::start(RULES).await;
    let mut ada = world.browser("ada@example.com").await;
    let mut bob = world.browser("bob@example.com").await;
    let token = body(&ada.get("/auth/session").await)["csrf_token"].as_str().unwrap().to_owned();
    let foreign = body(&bob.get("/auth/session").await)["csrf_token"].as_str().unwrap().to_owned();
    let post = |token: Option<&str>| {
        let request = Request::new("POST", format!("/token/x?csrf_token={}", token.unwrap_or("x")));
        token.into_iter().fold(request, |request, token| request.with("X-CSRF-Token", token))
    };
    assert_eq!(ada.ask(post(Some(&token))).await.status, 200);
    assert_eq!(outcome(&ada.ask(post(None)).await), (403, Some("csrf_missing")));
    for wrong in [foreign.as_str(), "x", &token[..token.len() - 1], &token.to_uppercase()] {
        let refused = ada.ask(post(Some(wrong))).await;
        assert_eq!(outcome(&refused), (403, Some("csrf_mismatch")), "{wrong}");
        assert_eq!(body(&refused)["remedy"], "refresh_csrf");
    }
    let doubled = post(Some(&token)).with("X-CSRF-Token", &token);
    assert_eq!(outcome(&ada.ask(doubled).await), (400, Some("request_malformed")));
    for (name, value) in [("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.example")] {
        let crossed = post(Some(&token)).with(name, value);
        assert_eq!(outcome(&ada.ask(crossed).await), (403, Some("cross_site")), "{name}: {value}");
    }
    assert_eq!(ada.get("/token/x").await.status, 200, "reading needs no token");
    assert_eq!(ada.ask(Request::new("POST", "/x")).await.status, 200, "another rule asks for the origin alone");
}

#[tokio::test]
async fn a_navigation_with_a_dead_session_is_sent_to_sign_in_and_a_script_never() {
    let world = World::start(RULES).await;
    let mut ada = world.browser("ada@example.com").await;
    world.advance(61 * MINUTE).await;
    let page = ada.ask(Request::get("/deep/page?x=1&y=2").with("Sec-Fetch-Mode", "navigate")).await;
    assert_eq!(page.status, 302);
    assert_eq!(page.header("location"), Some("/auth/login?return_to=%2Fdeep%2Fpage%3Fx%3D1%26y%3D2"));
    assert_eq!(page.header("x-doorward-reason"), Some("session_idle"));
    let script = ada.ask(Request::get("/deep/page").with("Sec-Fetch-Mode", "cors").with("Accept", "text/html")).await;
    assert_eq!(outcome(&script), (401, Some("session_idle")));
    assert_eq!(script.header("content-type"), Some("application/problem+json"));
}

#[tokio::test]
async fn a_page_that_signs_out_is_sent_to_one_that_says_so() {
    let world = World::start(RULES).await;
    let mut ada = world.browser("ada@example.com").await;
    let out = ada.ask(Request::new("POST", "/auth/logout").with("Sec-Fetch-Mode", "navigate")).await;
    assert_eq!((out.status, out.header("location")), (303, Some("/auth/login?signed_out")));
    let page = ada.ask(Request::get("/auth/login?signed_out").with("Sec-Fetch-Mode", "navigate")).await;
    assert!(page.text().contains("You are signed out"), "{page:?}");
    world.stop().await;
}
