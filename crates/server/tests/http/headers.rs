//! Security headers: on all of our own answers, and on an app's only where the configuration says so.

use doorward::http::routes::{Guard, ROUTES};
use doorward_testkit::{
    upstream::RawUpstream,
    wire::{Answer, Wire},
};

use crate::world::{HOST, Request, Setup, World};

const HSTS: &str = "max-age=63072000; includeSubDomains; preload";

fn assert_hardened(what: &str, answer: &Answer) {
    let header = |name: &str| answer.header(name).unwrap_or_else(|| panic!("{what}: no {name} in {}", answer.head));
    let policy = header("content-security-policy");
    for part in
        ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
    {
        assert!(policy.split(';').any(|given| given.trim() == part), "{what}: {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{what}: {policy}");
    assert_eq!((header("x-content-type-options"), header("x-frame-options")), ("nosniff", "DENY"), "{what}");
    assert_eq!(header("referrer-policy"), "strict-origin", "{what}");
    assert_eq!(header("cross-origin-opener-policy"), "same-origin", "{what}");
    assert_eq!(header("cross-origin-resource-policy"), "same-origin", "{what}");
    assert!(header("permissions-policy").contains("camera=()"), "{what}");
    assert!(!header("cache-control").is_empty(), "{what}");
    for absent in ["server", "x-powered-by"] {
        assert_eq!(answer.header(absent), None, "{what}");
    }
}

#[tokio::test]
async fn every_answer_of_ours_carries_them_errors_and_redirects_included() {
    let world = World::start("[[rules]]\npath = \"/*\"\nallow = [\"session\"]\napp = \"web\"\n").await;
    for route in ROUTES {
        let path = format!("/auth{}", route.path.replace("{id}", "7").replace('*', "x"));
        let methods = if route.methods.is_empty() { &["GET"] } else { route.methods };
        for method in methods.iter().chain(&["PATCH"]) {
            for accept in ["*/*", "text/html"] {
                let answer = world.visitor().ask(Request::new(method, &path).with("Accept", accept)).await;
                assert_hardened(&format!("{method} {path}"), &answer);
            }
        }
        assert!(route.guard != Guard::Peer || route.path.starts_with("/check/"));
    }
    for (what, request) in [
        ("a refusal of a rule", Request::get("/x")),
        ("a redirect to sign in", Request::get("/x").with("Sec-Fetch-Mode", "navigate")),
        ("a foreign host", Request::get("/x").to(b"other.example")),
        ("an odd path", Request::get("/a/%2e%2e/b")),
        ("nothing there", Request::get("/auth/nothing")),
        ("another site", Request::new("POST", "/auth/logout").with("Origin", "https://evil.example")),
    ] {
        assert_hardened(what, &world.visitor().ask(request).await);
    }
    let unread = Wire::ask(world.address(), format!("GET / HTTP/1.1\nHost: {HOST}\n\n")).await;
    assert_eq!(unread.status, 400);
    assert_hardened("what is refused unread", &unread);
    let admin = Wire::ask(world.running.admin, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_hardened("the admin listener", &admin);
}

#[tokio::test]
async fn hsts_is_said_where_it_is_configured_and_over_https_alone() {
    let rules = "[headers]\nhsts = \"max-age=63072000;includesubdomains ; PRELOAD\"\n\
                 [[rules]]\npath = \"/*\"\nallow = [\"public\"]\napp = \"web\"\n";
    let world = World::start(rules).await;
    let over = |scheme: &str, path: &str| {
        Request::get(path).with("X-Forwarded-For", "192.0.2.7").with("X-Forwarded-Proto", scheme)
    };
    for path in ["/auth/login", "/auth/nothing", "/auth/session", "/a/%2e%2e/b"] {
        let secure = world.anonymous().ask(over("https", path)).await;
        assert_eq!(secure.header("strict-transport-security"), Some(HSTS), "{path}: {secure:?}");
        let plain = world.anonymous().ask(over("http", path)).await;
        assert_eq!(plain.header("strict-transport-security"), None, "{path}: {plain:?}");
    }
    let app = world.anonymous().ask(over("https", "/x")).await;
    assert_eq!(app.header("strict-transport-security"), None, "an app's answer is left alone: {app:?}");
    let silent = World::start("").await;
    let answer = silent.anonymous().ask(over("https", "/auth/login")).await;
    assert_eq!(answer.header("strict-transport-security"), None, "{answer:?}");
}

#[tokio::test]
async fn an_apps_answer_is_left_alone_unless_the_app_is_to_be_hardened() {
    let said: &[u8] = b"HTTP/1.1 200 OK\r\nServer: app/1\r\nX-Powered-By: app\r\nX-Frame-Options: DENY\r\n\
        Content-Length: 2\r\n\r\nok";
    let app = RawUpstream::answering(said).await;
    let rules = format!(
        "[headers]\nhsts = \"max-age=600\"\n[apps.old]\nupstream = \"{}\"\nharden = true\n\
         [[rules]]\npath = \"/old/*\"\nallow = [\"public\"]\napp = \"old\"\n\
         [[rules]]\npath = \"/*\"\nallow = [\"public\"]\napp = \"web\"\n",
        app.url()
    );
    let world = Setup::of(&rules).upstream(app.url()).start().await;
    let over_https =
        |path: &str| Request::get(path).with("X-Forwarded-For", "192.0.2.7").with("X-Forwarded-Proto", "https");
    let left = world.anonymous().ask(over_https("/x")).await;
    assert_eq!((left.header("server"), left.header("x-powered-by")), (Some("app/1"), Some("app")), "{left:?}");
    for name in ["content-security-policy", "x-content-type-options", "referrer-policy", "strict-transport-security"] {
        assert_eq!(left.header(name), None, "{left:?}");
    }
    let hardened = world.anonymous().ask(over_https("/old/x")).await;
    assert_eq!((hardened.header("server"), hardened.header("x-powered-by")), (None, None), "{hardened:?}");
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
        ("strict-transport-security", "max-age=600"),
    ] {
        assert_eq!(hardened.header(name), Some(value), "{hardened:?}");
    }
    assert_eq!(hardened.header("content-security-policy"), None, "nobody but the app knows what its pages load");
}
