//! CORS: what a page of an allowed origin can do, and that nobody else can.

use std::collections::BTreeSet;

use doorward::http::routes::{Guard, ROUTES};
use doorward_testkit::{upstream::RawUpstream, wire::Answer};
use serde_json::json;

use crate::world::{Caller, HOST, Request, Setup, World, json as body, outcome};

const RULES: &str = r#"
    [apps.open]
    upstream = "APP"
    cors = true

    [[rules]]
    path = "/open/*"
    allow = ["session"]
    csrf = "token"
    app = "open"

    [[rules]]
    path = "/api/*"
    methods = ["GET", "PATCH"]
    allow = ["session"]
    app = "open"

    [[rules]]
    path = "/*"
    allow = ["session"]
    app = "web"
"#;
const SPA: &str = "https://spa.example";
const LOGIN: &str = "allow_sign_up = true\nresponse_floor = \"0s\"\nallowed_origins = [\"https://spa.example\"]";
const OTHERS: [&str; 6] = [
    "https://evil.example",
    "http://spa.example",
    "https://spa.example:8443",
    "https://spa.example.evil.example",
    "null",
    "https://SPA.example, https://spa.example",
];

/// An app with words of its own about CORS.
async fn app() -> RawUpstream {
    let said: &[u8] =
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: X-Total\r\n\
        Server: app/1\r\nX-Powered-By: app\r\nContent-Length: 2\r\n\r\nok";
    RawUpstream::answering(said).await
}

async fn world(app: &RawUpstream) -> World {
    Setup::of(&RULES.replace("APP", &app.url())).login(LOGIN).upstream(app.url()).start().await
}

fn preflight(path: &str, origin: &str, method: &str) -> Request {
    let request = Request::new("OPTIONS", path).with("Origin", origin).with("Sec-Fetch-Site", "same-site");
    let request = request.with("Access-Control-Request-Method", method);
    request.with("Access-Control-Request-Headers", "content-type,x-csrf-token")
}

/// A list in a header, or in several of them.
fn list(answer: &Answer, name: &str) -> BTreeSet<String> {
    let lines = answer.head.lines().filter_map(|line| line.split_once(':'));
    let values = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).flat_map(|(_, value)| value.split(','));
    values.map(|word| word.trim().to_ascii_lowercase()).collect()
}

fn is_for(answer: &Answer, origin: Option<&str>) -> bool {
    let credentials = answer.header("access-control-allow-credentials");
    answer.header("access-control-allow-origin") == origin && (credentials == Some("true")) == origin.is_some()
}

/// As a page of another origin on the same site asks.
fn from_spa(browser: &Caller, request: Request) -> (Caller, Request) {
    (browser.clone(), request.with("Origin", SPA).with("Sec-Fetch-Site", "same-site").with("Sec-Fetch-Mode", "cors"))
}

#[tokio::test]
async fn every_route_answers_the_preflight_of_an_allowed_origin_with_all_that_it_needs() {
    let app = app().await;
    let world = world(&app).await;
    let mut seen = 0;
    for route in ROUTES.iter().filter(|route| route.guard != Guard::Peer) {
        let path = format!("/auth{}", route.path.replace("{id}", "7").replace('*', "x"));
        for method in route.methods {
            let answer = world.anonymous().ask(preflight(&path, SPA, method)).await;
            assert_eq!((answer.status, is_for(&answer, Some(SPA))), (204, true), "{method} {path}: {answer:?}");
            assert!(list(&answer, "access-control-allow-methods").contains(&method.to_ascii_lowercase()), "{path}");
            let names = list(&answer, "access-control-allow-headers");
            assert!(names.is_superset(&["content-type", "authorization", "x-csrf-token"].map(str::to_owned).into()));
            assert!(list(&answer, "vary").contains("origin") && answer.header("access-control-max-age").is_some());
            for other in OTHERS {
                let answer = world.anonymous().ask(preflight(&path, other, method)).await;
                assert!(answer.status == 405 && is_for(&answer, None), "{other} {path}: {answer:?}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 12, "{seen}");
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_signs_in_reads_the_session_and_changes_things() {
    let app = app().await;
    let world = world(&app).await;
    let mut spa = world.visitor().with("Origin", SPA).with("Sec-Fetch-Site", "same-site");
    spa.sign_in(&world.mailbox, "ada@example.com").await;
    let session = spa.get("/auth/session").await;
    assert!(is_for(&session, Some(SPA)) && list(&session, "vary").contains("origin"), "{session:?}");
    let token = body(&session)["csrf_token"].as_str().unwrap().to_owned();
    let change = Request::new("POST", "/auth/sessions/revoke-others");
    let missing = spa.ask(change.clone()).await;
    assert_eq!(outcome(&missing), (403, Some("csrf_missing")));
    assert!(is_for(&missing, Some(SPA)), "a page must be able to read why: {missing:?}");
    let exposed = list(&missing, "access-control-expose-headers");
    for name in ["x-doorward-reason", "x-doorward-decision", "retry-after", "ratelimit", "www-authenticate"] {
        assert!(exposed.contains(name), "{name}: {exposed:?}");
    }
    let done = spa.ask(change.with("X-CSRF-Token", &token)).await;
    assert!(done.status == 200 && is_for(&done, Some(SPA)), "{done:?}");
    let gone = spa.ask(Request::new("DELETE", "/auth/sessions/7").with("X-CSRF-Token", &token)).await;
    assert_eq!((outcome(&gone), is_for(&gone, Some(SPA))), ((404, Some("not_found")), true));
    let out = spa.post("/auth/logout", &json!({})).await;
    assert!(out.status == 200 && is_for(&out, Some(SPA)), "{out:?}");
}

#[tokio::test]
async fn no_other_origin_can_read_an_answer_and_our_own_needs_no_leave() {
    let app = app().await;
    let world = world(&app).await;
    let ada = world.browser("ada@example.com").await;
    for origin in OTHERS.iter().copied().chain([format!("https://{HOST}").as_str()]) {
        let mut page = ada.clone();
        let answer = page.ask(Request::get("/auth/session").with("Origin", origin)).await;
        assert!(is_for(&answer, None) && list(&answer, "vary").contains("origin"), "{origin}: {answer:?}");
        assert!(answer.header("access-control-expose-headers").is_none(), "{origin}");
    }
    let twice = Request::get("/auth/session").with("Origin", SPA).with("Origin", "https://evil.example");
    assert!(is_for(&ada.clone().ask(twice).await, None));
    let plain = World::start("").await;
    let answer = plain.anonymous().ask(Request::get("/auth/session").with("Origin", SPA)).await;
    assert!(is_for(&answer, None) && answer.header("vary").is_none(), "nobody is on the list: {answer:?}");
}

#[tokio::test]
async fn an_app_speaks_for_itself_unless_the_door_is_told_to() {
    let app = app().await;
    let world = world(&app).await;
    let ada = world.browser("ada@example.com").await;
    // Without `cors` the door adds nothing, neither to answers nor to its refusals, and takes nothing away.
    let (mut page, request) = from_spa(&ada, Request::get("/x"));
    let answer = page.ask(request).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")), "{answer:?}");
    let asked = world.anonymous().ask(preflight("/x", SPA, "GET")).await;
    assert_eq!((outcome(&asked), is_for(&asked, None)), ((401, Some("no_credential")), true));

    // With it, preflights need no cookie, and answers and refusals can be read by the listed origin alone.
    for (path, method, admitted) in [("/open/x", "DELETE", "delete"), ("/api/x", "PATCH", "patch")] {
        let asked = world.anonymous().ask(preflight(path, SPA, method)).await;
        assert!(asked.status == 204 && is_for(&asked, Some(SPA)), "{path}: {asked:?}");
        assert!(list(&asked, "access-control-allow-methods").contains(admitted), "{path}: {asked:?}");
        assert!(list(&asked, "access-control-allow-headers").contains("x-csrf-token"), "{path}: {asked:?}");
    }
    let (mut page, request) = from_spa(&ada, Request::get("/open/x"));
    let answer = page.ask(request).await;
    assert!(answer.status == 200 && is_for(&answer, Some(SPA)), "{answer:?}");
    assert!(
        list(&answer, "access-control-expose-headers")
            .is_superset(&["x-total", "retry-after"].map(str::to_owned).into())
    );
    let (mut page, request) = from_spa(&ada, Request::new("POST", "/open/x"));
    let refused = page.ask(request).await;
    assert_eq!((outcome(&refused), is_for(&refused, Some(SPA))), ((403, Some("csrf_missing")), true));
    for other in OTHERS {
        let asked = world.anonymous().ask(preflight("/open/x", other, "GET")).await;
        assert_eq!((outcome(&asked), is_for(&asked, None)), ((401, Some("no_credential")), true), "{other}");
        let answer = ada.clone().ask(Request::get("/open/x").with("Origin", other)).await;
        assert!(is_for(&answer, None), "the app's own `*` is not passed on: {answer:?}");
    }
}

#[tokio::test]
async fn a_forward_auth_answer_says_nothing_about_cors() {
    let app = app().await;
    let world = world(&app).await;
    let request = Request::get("/auth/check/nginx").with("X-Original-Method", "GET").with("X-Original-URL", "/x");
    let request = request.with("X-Forwarded-Host", HOST).with("Origin", SPA);
    let answer = world.anonymous().ask(request).await;
    assert!(answer.status == 401 && is_for(&answer, None) && answer.header("vary").is_none(), "{answer:?}");
}
