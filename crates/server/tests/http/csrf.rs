//! Cross-site protection, route by route as the table declares it.

use doorward::http::routes::{Guard, ROUTES, Route};
use doorward_core::rule::CsrfMode;
use doorward_testkit::wire::Answer;
use serde_json::json;

use crate::world::{Caller, Request, World, json as body, outcome, set_cookies};

const RULES: &str = r#"
    [[rules]]
    path = "/token/*"
    allow = ["session", "bearer"]
    csrf = "token"
    app = "web"

    [[rules]]
    path = "/*"
    allow = ["session", "bearer"]
    app = "web"
"#;
const CSRF: &str = "__Host-doorward_csrf";
const FORM: &str = "application/x-www-form-urlencoded";
const FOREIGN: [(&str, &str); 5] = [
    ("Sec-Fetch-Site", "cross-site"),
    ("Sec-Fetch-Site", "same-site"),
    ("Origin", "https://evil.example"),
    ("Origin", "null"),
    ("Origin", "http://app.example"),
];

/// A name that no session has.
fn path(route: &Route) -> String {
    format!("/auth{}", route.path.replace("{id}", "01a06f3c-2c00-7000-8000-000000000000"))
}

/// Every method of every route that changes something.
fn changing() -> impl Iterator<Item = (&'static Route, &'static str)> {
    ROUTES
        .iter()
        // No browser has what these are signed with.
        .filter(|route| route.guard != Guard::Signed)
        .flat_map(|route| route.methods.iter().map(move |method| (route, *method)))
        .filter(|(_, m)| *m != "GET")
}

async fn form(browser: &mut Caller, method: &str, path: &str, fields: &str, header: Option<(&str, &str)>) -> Answer {
    let request = Request::new(method, path).with("Content-Type", FORM).body(fields);
    browser.ask(header.into_iter().fold(request, |request, (name, value)| request.with(name, value))).await
}

#[tokio::test]
async fn every_route_that_changes_something_refuses_what_other_sites_send() {
    let world = World::start(RULES).await;
    let mut ada = world.browser("ada@example.com").await;
    let token = ada.cookie(CSRF).unwrap().to_owned();
    let fields = format!("token=x&email=ada%40example.com&code=x&csrf_token={token}");
    let mut seen = 0;
    for (route, method) in changing() {
        for foreign in FOREIGN {
            let answer = form(&mut ada, method, &path(route), &fields, Some(foreign)).await;
            assert_eq!(outcome(&answer), (403, Some("cross_site")), "{method} {} {foreign:?}", route.path);
            assert!(set_cookies(&answer).is_empty(), "{method} {}: {answer:?}", route.path);
        }
        seen += 1;
    }
    assert!(seen >= 6, "{seen}");
    assert_eq!(ada.get("/x").await.status, 200, "nothing of it signed anybody out");
}

#[tokio::test]
async fn every_route_that_asks_for_a_token_takes_the_sessions_own_and_no_other() {
    let world = World::start(RULES).await;
    let mut ada = world.browser("ada@example.com").await;
    let bob = world.browser("bob@example.com").await;
    let before = world.browser("ada@example.com").await;
    let own = ada.cookie(CSRF).unwrap().to_owned();
    let mut seen = 0;
    for (route, method) in changing().filter(|(route, _)| route.csrf == CsrfMode::Token) {
        let path = path(route);
        let missing = form(&mut ada, method, &path, "x=y", None).await;
        assert_eq!(outcome(&missing), (403, Some("csrf_missing")), "{method} {path}");
        let wrong = [bob.cookie(CSRF).unwrap(), before.cookie(CSRF).unwrap(), "x", &own[1..], &own.to_lowercase()];
        for wrong in wrong {
            let by_header = form(&mut ada, method, &path, "", Some(("X-CSRF-Token", wrong))).await;
            assert_eq!(outcome(&by_header), (403, Some("csrf_mismatch")), "{method} {path}");
            let by_field = form(&mut ada, method, &path, &format!("csrf_token={wrong}"), None).await;
            assert_eq!(outcome(&by_field), (403, Some("csrf_mismatch")), "{method} {path}");
        }
        // Neither the address nor a second field may say it, and a header that is there is the one that counts.
        let by_query = form(&mut ada, method, &format!("{path}?csrf_token={own}"), "", None).await;
        assert_eq!(outcome(&by_query), (403, Some("csrf_missing")), "{method} {path}");
        let twice = form(&mut ada, method, &path, &format!("csrf_token={own}&csrf_token={own}"), None).await;
        assert_eq!(outcome(&twice), (403, Some("csrf_missing")), "{method} {path}");
        let both = form(&mut ada, method, &path, &format!("csrf_token={own}"), Some(("X-CSRF-Token", "x"))).await;
        assert_eq!(outcome(&both), (403, Some("csrf_mismatch")), "{method} {path}");
        let as_json = Request::new(method, &path).with("Content-Type", "application/json");
        let as_json = ada.ask(as_json.body(json!({ "csrf_token": own }).to_string())).await;
        assert_eq!(outcome(&as_json), (403, Some("csrf_missing")), "{method} {path}");

        let asked_for = form(&mut ada, method, &path, "", Some(("X-CSRF-Token", &own))).await;
        let refused = outcome(&asked_for).1.unwrap_or_default().to_owned();
        assert!(!refused.starts_with("csrf") && refused != "cross_site", "{method} {path}: {refused}");
        seen += 1;
    }
    assert!(seen >= 3, "{seen}");
}

#[tokio::test]
async fn every_route_that_asks_for_a_recent_sign_in_refuses_an_old_one_and_every_other_kind_of_credential() {
    let world = World::start(RULES).await;
    let mut ada = world.browser("ada@example.com").await;
    let token = world.issuer.mint(&world.claims());
    let key = world.api_key(doorward_core::api_key::KeyOwner::User(world.user("k@example.com").await.id), &[], |_| {});
    let key = key.await;
    let own = ada.cookie(CSRF).unwrap().to_owned();
    world.advance(std::time::Duration::from_secs(300)).await;
    let mut seen = 0;
    for (route, method) in changing().filter(|(route, _)| route.recent_auth) {
        let path = path(route);
        let old = form(&mut ada, method, &path, "", Some(("X-CSRF-Token", &own))).await;
        assert_eq!(outcome(&old), (401, Some("re_auth_required")), "{method} {path}");
        assert_eq!(body(&old)["max_age_seconds"], 300);
        for credential in [&token, &key] {
            let answer = world.bearer(credential).ask(Request::new(method, &path)).await;
            assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
        }
        seen += 1;
    }
    assert!(seen >= 3, "{seen}");
}

#[tokio::test]
async fn every_route_that_asks_for_a_session_refuses_whoever_has_none() {
    let world = World::start(RULES).await;
    for route in ROUTES.iter().filter(|route| matches!(route.guard, Guard::Required(_))) {
        for method in route.methods {
            let answer = world.anonymous().ask(Request::new(method, path(route))).await;
            assert_eq!(outcome(&answer), (401, Some("no_credential")), "{method} {}", route.path);
        }
    }
}

#[tokio::test]
async fn a_session_without_its_csrf_cookie_gets_a_new_one_with_a_403_that_says_retry() {
    let world = World::start(RULES).await;
    let ada = world.browser("ada@example.com").await;
    let sid = ada.cookie("__Host-doorward_sid").unwrap().to_owned();
    let own = ada.cookie(CSRF).unwrap().to_owned();
    for target in ["/token/x", "/auth/sessions/revoke-others"] {
        // The session cookie alone, as a browser that lost the other one.
        let mut bare = world.visitor();
        let first = bare.ask(Request::new("POST", target).with("Cookie", format!("__Host-doorward_sid={sid}"))).await;
        assert_eq!(outcome(&first), (403, Some("csrf_missing")), "{target}");
        let told = body(&first);
        assert_eq!((&told["retryable"], &told["remedy"]), (&json!(true), &json!("refresh_csrf")));
        assert_eq!(bare.cookie(CSRF), Some(own.as_str()), "{target}: {first:?}");
        let again = Request::new("POST", target).with("Cookie", format!("__Host-doorward_sid={sid}; {CSRF}={own}"));
        let again = bare.ask(again.with("X-CSRF-Token", bare.cookie(CSRF).unwrap())).await;
        assert_eq!(again.status, 200, "{target}: {again:?}");
    }
    // One of an older session is replaced as well; a good one is left alone; another site gets nothing set.
    let request = |cookie: &str| {
        let cookies = format!("__Host-doorward_sid={sid}; {CSRF}={cookie}");
        Request::new("POST", "/token/x").with("Cookie", cookies).with("X-CSRF-Token", cookie)
    };
    let stale = world.visitor().ask(request("of-an-older-session")).await;
    assert_eq!(outcome(&stale), (403, Some("csrf_mismatch")));
    assert!(set_cookies(&stale)[0].starts_with(&format!("{CSRF}={own}; ")), "{stale:?}");
    let mut bare = world.visitor();
    let known = Request::new("POST", "/token/x").with("Cookie", format!("__Host-doorward_sid={sid}; {CSRF}={own}"));
    assert!(set_cookies(&bare.ask(known).await).is_empty());
    let page = Request::new("POST", "/token/x").with("Cookie", format!("__Host-doorward_sid={sid}"));
    let page = bare.ask(page.with("Sec-Fetch-Mode", "navigate")).await;
    assert!(page.status == 403 && page.text().contains("repeat the request"), "{page:?}");
}

#[tokio::test]
async fn the_credential_that_authenticated_decides_and_a_junk_bearer_skips_nothing() {
    let world = World::start(RULES).await;
    let ada = world.browser("ada@example.com").await;
    let good = world.issuer.mint(&world.claims());
    for authorization in ["Bearer junk", "Bearer a.b.c", &format!("Bearer {good}")] {
        for target in ["/token/x", "/auth/sessions/revoke-others"] {
            let mut both = ada.clone().with("Authorization", authorization);
            assert_eq!(outcome(&both.ask(Request::new("POST", target)).await), (403, Some("csrf_missing")), "{target}");
        }
        let crossed = Request::new("POST", "/x").with("Origin", "https://evil.example");
        let crossed = ada.clone().with("Authorization", authorization).ask(crossed).await;
        assert_eq!(outcome(&crossed), (403, Some("cross_site")), "{authorization}");
    }
    // No browser sends a bearer by itself, so a bearer alone is asked for no token.
    let alone = Request::new("POST", "/token/x").with("Origin", "https://evil.example");
    assert_eq!(world.bearer(&good).ask(alone).await.status, 200);
}

#[tokio::test]
async fn no_other_site_opens_a_socket_with_a_persons_cookie() {
    let world = World::start(RULES).await;
    let ada = world.browser("ada@example.com").await;
    let handshake = |origin: Option<&str>| {
        let request = Request::get("/x").with("Connection", "Upgrade").with("Upgrade", "websocket");
        let request = request.with("Sec-WebSocket-Version", "13").with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        origin.into_iter().fold(request.with("Cookie", ada.cookies()), |request, origin| request.with("Origin", origin))
    };
    for origin in
        [None, Some("https://evil.example"), Some("null"), Some("http://app.example"), Some("https://a.app.example")]
    {
        let answer = world.anonymous().ask(handshake(origin)).await;
        assert_eq!(outcome(&answer), (403, Some("cross_site")), "{origin:?}");
    }
    // Our own origin gets as far as the app, which opens none.
    let answer = world.anonymous().ask(handshake(Some("https://app.example"))).await;
    assert_eq!((answer.status, answer.header("x-app")), (200, Some("web")), "{answer:?}");
}
