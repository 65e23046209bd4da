//! The vectors of `vectors/own/` that say what anybody may send, over real sockets and through the layer.

use doorward_core::{
    api_key::KeyOwner,
    session::{OpaqueToken, TokenHash},
};
use doorward_testkit::wire::{Answer, Wire};
use serde_json::Value;

use super::{NotThere, bytes, cases, judge, load, text};
use crate::world::{Caller, Request, Seen, Setup, Surface, Verdict, World, json, outcome};

const SESSION: &str = "__Host-doorward_sid";

fn refused(status: u16, reason: &str) -> Verdict {
    Verdict::Refused(status, reason.to_owned())
}

fn admitted(subject: &str) -> Verdict {
    Verdict::Admitted(subject.to_owned())
}

/// The table of what could not be expressed, as text.
fn listed(not_there: &NotThere) -> Vec<String> {
    not_there.iter().map(|((surface, why), count)| format!("{surface} {count}: {why}")).collect()
}

/// `vectors/own/path-confusion.json`.
#[tokio::test]
async fn every_odd_path_gets_the_same_verdict_everywhere_and_goes_on_as_it_came() {
    let world = World::start(
        "[[rules]]\npath = \"/public/*\"\nallow = [\"public\"]\napp = \"web\"\n\
         [[rules]]\npath = \"/admin/*\"\nallow = [\"session\"]\napp = \"web\"\n",
    )
    .await;
    let mut not_there = NotThere::new();
    for case in cases(&load("own/path-confusion.json")) {
        let target = text(case, "target");
        let (verdict, _) = judge(&world, target, &Request::get(bytes(target)), &mut not_there).await;
        let expected = match text(case, "expect") {
            "public" => admitted(""),
            "admin" => refused(401, "no_credential"),
            "default_deny" => refused(403, "no_rule"),
            "reject_400" => refused(400, "request_malformed"),
            other => panic!("{target}: unknown verdict {other}"),
        };
        assert_eq!(verdict, expected, "{target}");
    }
    assert_eq!(listed(&not_there), PATHS_NOT_THERE);
}

const PATHS_NOT_THERE: [&str; 3] = [
    "Envoy 6: Envoy puts the path behind ours, so it begins with a slash",
    "Layer 4: a target that is no http::Uri never gets to a service",
    "Layer 2: http::Uri has cut a part off before anybody sees it",
];

/// The vector's names in ours, in the same spelling.
fn ours(text: &str) -> String {
    let names = [
        ("Auth", "Doorward"),
        ("auth", "doorward"),
        ("AUTH", "DOORWARD"),
        ("User", "Subject"),
        ("user", "subject"),
        ("USER", "SUBJECT"),
    ];
    names.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
}

fn pairs(case: &Value) -> Vec<(&str, &str)> {
    let inbound = case["inbound"].as_array().unwrap().iter();
    inbound.map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect()
}

/// All that a caller of the header vectors can be.
struct Callers {
    world: World,
    alice: Caller,
    alice_id: String,
    token: String,
    keys: [String; 2],
    owner: String,
}

impl Callers {
    async fn start() -> Self {
        let world = World::start(
            "[[rules]]\npath = \"/public/*\"\nallow = [\"public\"]\napp = \"web\"\n\
             [[rules]]\npath = \"/*\"\nallow = [\"session\", \"api_key\", \"bearer\"]\napp = \"web\"\n",
        )
        .await;
        let mut alice = world.browser("alice@example.com").await;
        let alice_id = json(&alice.get("/auth/session").await)["user"]["id"].as_str().unwrap().to_owned();
        let owner = world.user("bob@example.com").await.id;
        let one = world.api_key(KeyOwner::User(owner), &[], |_| {}).await;
        let two = world.api_key(KeyOwner::User(owner), &[], |_| {}).await;
        let token = format!("Bearer {}", world.issuer.mint(&world.claims()));
        Self { world, alice, alice_id, token, keys: [one, two], owner: owner.to_string() }
    }

    async fn judge(&self, name: &str, request: &Request, not_there: &mut NotThere) -> (Verdict, Option<Seen>) {
        judge(&self.world, name, request, not_there).await
    }

    async fn identity(&self, case: &Value, not_there: &mut NotThere) {
        let name = text(case, "name");
        let add = |request: Request| {
            pairs(case).into_iter().fold(request, |request, (name, value)| request.with(&ours(name), ours(value)))
        };
        let (verdict, seen) = self.judge(name, &add(Request::get("/public/a")), not_there).await;
        assert_eq!(verdict, admitted(""), "{name}");
        let (by_token, told) =
            self.judge(name, &add(Request::get("/a").with("Authorization", &self.token)), not_there).await;
        assert_eq!(by_token, admitted("main|subject-1"), "{name}");
        for seen in [seen.unwrap(), told.unwrap()] {
            assert!(!format!("{seen:?}").contains("admin"), "{name}: {seen:?}");
            assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.2"), "{name}: {seen:?}");
            assert_eq!(seen.header("x-forwarded-host"), Some("app.example"), "{name}: {seen:?}");
        }
        // What a layer's app sees is judged as strictly.
        let (_, inside) = self.world.judge(Surface::Layer, &add(Request::get("/public/a"))).await.unwrap();
        assert!(!format!("{inside:?}").contains("admin"), "{name}: {inside:?}");
    }

    async fn forwarded(&self, case: &Value, not_there: &mut NotThere) {
        let name = text(case, "name");
        let (header, value) = pairs(case)[0];
        let request = Request::get("/public/a").with(header, value);
        let (verdict, seen) = self.judge(name, &request, not_there).await;
        if header.eq_ignore_ascii_case("x-http-method-override") {
            assert_eq!(verdict, refused(400, "request_malformed"), "{name}");
            return;
        }
        assert_eq!(verdict, admitted(""), "{name}");
        let (_, inside) = self.world.judge(Surface::Layer, &request).await.unwrap();
        for seen in [seen.unwrap(), inside.unwrap()] {
            let spoofed = seen.headers.iter().find(|(name, told)| {
                told == value && name.replace('_', "-").eq_ignore_ascii_case(&header.replace('_', "-"))
            });
            assert_eq!(spoofed, None, "{name}");
        }
    }

    async fn host(&self, case: &Value, not_there: &mut NotThere) {
        let (name, expect) = (text(case, "name"), &case["expect"]);
        let mut request = Request::get(expect["target"].as_str().unwrap_or("/public/a"));
        request.hosts = pairs(case).into_iter().map(|(_, value)| value.into()).collect();
        let (verdict, _) = self.judge(name, &request, not_there).await;
        let expected =
            if expect["same_rule_as"].is_string() { admitted("") } else { refused(400, "request_malformed") };
        assert_eq!(verdict, expected, "{name}");
    }

    async fn authorization(&self, case: &Value, not_there: &mut NotThere) {
        let (name, expect) = (text(case, "name"), &case["expect"]);
        let mut request = Request::get("/a");
        let (is_rule, [one, two]) = (expect["rule"].is_string(), &self.keys);
        if is_rule {
            request = request.with("Cookie", self.alice.cookies());
        }
        for (header, value) in pairs(case).into_iter().filter(|(header, _)| *header != "Cookie") {
            // `T` and `U` are good credentials.
            let words = value.split_inclusive([' ', ',']).map(|word| {
                match word {
                    "T" => one.as_str(),
                    "T," => return format!("{one},"),
                    "U" => two.as_str(),
                    other => other,
                }
                .to_owned()
            });
            request = request.with(header, bytes(&words.collect::<String>()));
        }
        let (verdict, _) = self.judge(name, &request, not_there).await;
        let result = expect["result"].as_str().map_or_else(|| expect["status"].to_string(), str::to_owned);
        let expected: &[Verdict] = match result.as_str() {
            _ if is_rule => &[admitted(&self.alice_id)],
            "ok" => &[admitted(&self.owner)],
            "ok_or_400" => &[refused(400, "request_malformed")],
            "400" => &[refused(400, "request_malformed"), refused(400, "ambiguous_credential")],
            "401" => &[refused(401, "no_credential")],
            "401, never 500" => &[refused(401, "api_key_not_found")],
            "400/431" => &[refused(400, "request_malformed")],
            other => panic!("{name}: unknown verdict {other}"),
        };
        assert!(expected.contains(&verdict), "{name}: {verdict:?} is none of {expected:?}");
    }
}

/// `vectors/own/header-smuggling.json`.
#[tokio::test]
async fn every_odd_header_gets_the_same_verdict_everywhere_and_no_app_is_told_a_lie() {
    let callers = Callers::start().await;
    let (mut not_there, mut of_trusted, mut elsewhere) = (NotThere::new(), 0, 0);
    for case in cases(&load("own/header-smuggling.json")) {
        let name = text(case, "name");
        match text(case, "class") {
            // Who may say something about the client: asked of a server that trusts its peer.
            "forwarded" if case["peer_trusted"] == true => {
                of_trusted += 1;
                chain(&callers.world, case).await;
            }
            "identity" => callers.identity(case, &mut not_there).await,
            "forwarded" => callers.forwarded(case, &mut not_there).await,
            "bypass" => {
                let (header, value) = pairs(case)[0];
                let request = Request::get("/a").with(header, value);
                let (verdict, _) = callers.judge(name, &request, &mut not_there).await;
                assert_eq!(verdict, refused(401, "no_credential"), "{name}");
            }
            "host" => callers.host(case, &mut not_there).await,
            // Not applicable: Doorward's error and login pages are its own.
            "authorization" if case["expect"]["check"].is_string() => elsewhere += 1,
            "authorization" => callers.authorization(case, &mut not_there).await,
            other => panic!("{name}: unknown class {other}"),
        }
    }
    assert_eq!((of_trusted, elsewhere), (2, 1));
    assert_eq!(listed(&not_there), HEADERS_NOT_THERE);
}

const HEADERS_NOT_THERE: [&str; 6] = [
    "Caddy 1: a front proxy has one host to tell, or refused before",
    "Envoy 1: Envoy puts the path behind ours, so it begins with a slash",
    "Envoy 1: a front proxy has one host to tell, or refused before",
    "Haproxy 1: a front proxy has one host to tell, or refused before",
    "Nginx 1: a front proxy has one host to tell, or refused before",
    "Traefik 1: a front proxy has one host to tell, or refused before",
];

/// `X-Forwarded-For` of a trusted peer: read from its right end.
async fn chain(world: &World, case: &Value) {
    let name = text(case, "name");
    let value = pairs(case)[0].1;
    let whoami = |world: &World| world.anonymous().with("X-Forwarded-For", value);
    let client = |answer: &Answer| json(answer)["client"]["address"].as_str().unwrap().to_owned();
    let near = client(&whoami(world).get("/auth/whoami").await);
    if text(&case["expect"], "client_ip").starts_with("6.6.6.6") {
        let both = "trusted_proxies = [\"127.0.0.1/32\", \"10.0.0.0/8\"]";
        let far = Setup::of("").listen(both).start().await;
        let far = client(&whoami(&far).get("/auth/whoami").await);
        assert_eq!((near.as_str(), far.as_str()), ("10.0.0.7", "6.6.6.6"), "{name}");
    } else {
        assert_eq!(near, "::1", "{name}");
    }
}

/// `vectors/own/cookie-csrf.json`, its cookies.
#[tokio::test]
async fn every_odd_cookie_gets_the_same_verdict_everywhere() {
    let callers = Callers::start().await;
    let good = callers.alice.cookie(SESSION).unwrap().to_owned();
    let evil = OpaqueToken::mint([2; 32]).expose();
    let mut not_there = NotThere::new();
    for case in cases(&load("own/cookie-csrf.json")).iter().filter(|case| case["request"]["cookie"].is_string()) {
        let (name, expect) = (text(case, "name"), text(case, "expect"));
        let cookie = text(&case["request"], "cookie");
        let cookie = cookie.replace("__Host-sid", SESSION).replace("__host-sid", "__host-doorward_sid");
        let cookie = cookie.replace("__HOST-SID", "__HOST-DOORWARD_SID").replace("EVIL", &evil);
        let cookie = cookie.replace("GO\u{1}OD", &format!("{}\u{1}{}", &good[..20], &good[20..]));
        let cookie =
            if cookie.ends_with("=GOO") { cookie.replace("GOO", &good[..42]) } else { cookie.replace("GOOD", &good) };
        let request = cookie.split('\n').fold(Request::get("/a"), |request, line| request.with("Cookie", line));
        let (verdict, _) = callers.judge(name, &request, &mut not_there).await;
        let expected = match expect {
            "session" | "session_or_431" => admitted(&callers.alice_id),
            "reject_ambiguous" => refused(400, "ambiguous_credential"),
            "anonymous" if name == "control byte in value" => refused(400, "request_malformed"),
            // Under our name, but nothing that was ever minted.
            "anonymous" | "anonymous_or_reject"
                if ["truncated token", "token with appended byte", "comma separated"].contains(&name) =>
            {
                refused(401, "session_unknown")
            }
            "anonymous" => refused(401, "no_credential"),
            other => panic!("{name}: unknown verdict {other}"),
        };
        assert_eq!(verdict, expected, "{name}");
    }
    assert_eq!(listed(&not_there), COOKIES_NOT_THERE);
}

const COOKIES_NOT_THERE: [&str; 6] = [
    "Caddy 1: a value that no header can carry, which a front proxy refuses or cleans",
    "Envoy 1: a value that no header can carry, which a front proxy refuses or cleans",
    "Haproxy 1: a value that no header can carry, which a front proxy refuses or cleans",
    "Layer 1: a value that is no http::HeaderValue",
    "Nginx 1: a value that no header can carry, which a front proxy refuses or cleans",
    "Traefik 1: a value that no header can carry, which a front proxy refuses or cleans",
];

/// A request of the CSRF vectors by a browser that is signed in.
fn csrf_request(world: &World, case: &Value, session: &str) -> Request {
    let request = &case["request"];
    // `T(s1)` in words of the file: the value of session `s1`, which is the browser's.
    let value = |text: &str| {
        let Some(name) = text.strip_prefix("T(").map(|rest| rest.trim_end_matches(')')) else { return String::new() };
        let own = OpaqueToken::parse(session).unwrap().hash();
        let hash = if name == "s1" { own } else { TokenHash::of(name.as_bytes()) };
        world.running.server.csrf_value(&hash).unwrap()
    };
    let member = |key: &str| request[key].as_str();
    let path = match member("path").unwrap_or("/") {
        "/logout" => "/auth/logout",
        "/auth/callback" => "/auth/login/callback",
        other => other,
    };
    let query =
        member("query_csrf").map_or_else(String::new, |text| format!("?csrf_token={}&x-csrf-token={0}", value(text)));
    let mut made = Request::new(text(request, "method"), format!("{path}{query}"));
    let mut cookies = vec![];
    if request["session"].is_string() {
        cookies.push(format!("{SESSION}={session}"));
    }
    cookies.extend(member("csrf_cookie").map(|text| format!("__Host-doorward_csrf={}", value(text))));
    let headers = [
        ("Cookie", Some(cookies.join("; ")).filter(|cookies| !cookies.is_empty())),
        ("X-CSRF-Token", member("csrf").map(value)),
        ("Sec-Fetch-Site", member("site").map(str::to_owned)),
        ("Origin", member("origin").map(str::to_owned)),
        ("Referer", member("referer").map(str::to_owned)),
        ("Content-Type", member("content_type").map(str::to_owned)),
        ("X-HTTP-Method-Override", member("override").map(str::to_owned)),
        ("Authorization", member("bearer").map(|_| "Bearer a.b.c".to_owned())),
    ];
    for (name, value) in headers {
        if let Some(value) = value {
            made = made.with(name, value);
        }
    }
    if let Some(text) = member("body_csrf") {
        made = made.body(format!("{{\"csrf_token\":\"{}\"}}", value(text)));
    }
    made
}

const CSRF_RULE: &str =
    "[[rules]]\npath = \"/*\"\nallow = [\"session\", \"bearer\"]\ncsrf = \"token\"\napp = \"web\"\n";

/// `vectors/own/cookie-csrf.json`, its requests.
#[tokio::test]
async fn every_forged_request_gets_the_same_verdict_everywhere() {
    let world = World::start(CSRF_RULE).await;
    let sibling = Setup::of(CSRF_RULE)
        .login("allow_sign_up = true\nresponse_floor = \"0s\"\nallowed_origins = [\"https://blog.app.example\"]")
        .start()
        .await;
    let alice = world.browser("alice@example.com").await;
    let session = alice.cookie(SESSION).unwrap();
    let at_sibling = sibling.browser("alice@example.com").await;
    let (mut not_there, mut own_routes, mut webhooks) = (NotThere::new(), 0, 0);
    for case in cases(&load("own/cookie-csrf.json")).iter().filter(|case| case["request"]["method"].is_string()) {
        let (name, expect) = (text(case, "name"), text(case, "expect"));
        let request = csrf_request(&world, case, session);
        let expected = match expect {
            "allow" | "allow (token decides)" => None,
            "403 csrf_missing" | "403 (cookie wins)" | "403 unless documented" => Some((403, "csrf_missing")),
            "403 csrf_mismatch" => Some((403, "csrf_mismatch")),
            "403 origin" => Some((403, "cross_site")),
            "403 origin unless allowlisted" => {
                let there = csrf_request(&sibling, case, at_sibling.cookie(SESSION).unwrap());
                let (verdict, _) = judge(&sibling, name, &there, &mut not_there).await;
                assert!(matches!(verdict, Verdict::Admitted(_)), "{name}: {verdict:?}");
                Some((403, "cross_site"))
            }
            "403" if case["request"]["site"] == "cross-site" => Some((403, "cross_site")),
            "403" => Some((403, "csrf_missing")),
            // An override is refused, not read.
            "400" | "treated as GET" => Some((400, "request_malformed")),
            // Webhooks are no part of this release; the path is the app's and asks for a session like any other.
            "allow to HMAC check" => {
                webhooks += 1;
                continue;
            }
            "no state change" => {
                own_routes += 1;
                continue;
            }
            other => panic!("{name}: unknown verdict {other}"),
        };
        if request.target.starts_with(b"/auth/") {
            // A route of the server's own, which layer and forward-auth do not have.
            own_routes += 1;
            let answer = world.as_client(&request).await;
            let (status, reason) = expected.unwrap();
            assert_eq!(outcome(&answer), (status, Some(reason)), "{name}");
            continue;
        }
        let (verdict, _) = judge(&world, name, &request, &mut not_there).await;
        match expected {
            None => assert!(matches!(verdict, Verdict::Admitted(_)), "{name}: {verdict:?}"),
            Some((status, reason)) => assert_eq!(verdict, refused(status, reason), "{name}"),
        }
    }
    assert_eq!((own_routes, webhooks), (4, 1));
    assert!(not_there.is_empty(), "{not_there:?}");
}

/// The rest of `vectors/own/cookie-csrf.json`: what only fetches a page changes nothing.
#[tokio::test]
async fn nothing_that_only_looks_signs_anybody_in_or_out() {
    let world = World::start(CSRF_RULE).await;
    let mut alice = world.browser("alice@example.com").await;
    assert_eq!(outcome(&alice.get("/auth/logout").await), (405, Some("method_not_allowed")));
    assert_eq!(json(&alice.get("/auth/session").await)["authenticated"], true);
    let mut bob = world.visitor();
    let token = bob.ask_for_link(&world.mailbox, "bob@example.com", "/").await;
    for method in ["HEAD", "GET", "HEAD"] {
        let looked = bob.ask(Request::new(method, format!("/auth/login/callback?token={token}"))).await;
        assert_eq!(outcome(&looked), (200, None), "{method}");
    }
    assert_eq!(json(&bob.get("/auth/session").await)["authenticated"], false);
    let done = bob.post("/auth/login/callback", &serde_json::json!({ "token": token })).await;
    assert_eq!(outcome(&done), (200, None));
}

/// `vectors/own/forward-family.json`: whom the question names, and who asks.
#[tokio::test]
async fn every_dialect_reads_its_own_family_of_headers_and_refuses_the_others() {
    // Only what the vector's questions ask about is open, so an answer of 200 has read all of it.
    let world =
        World::start("[[rules]]\npath = \"/a/b\"\nmethods = [\"PUT\"]\nallow = [\"public\"]\napp = \"web\"\n").await;
    let mut counts = [0; 3];
    for case in cases(&load("own/forward-family.json")) {
        let (name, dialect, request) = (text(case, "name"), text(case, "dialect"), &case["request"]);
        let target = format!("/auth/check/{dialect}{}", text(request, "suffix"));
        let mut check = Request::new(text(request, "method"), target).to(text(request, "host"));
        for pair in case["headers"].as_array().unwrap() {
            check = check.with(pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        }
        let answer = if case["peer_trusted"] == true {
            Wire::ask(world.address(), check.bytes()).await
        } else {
            world.as_client(&check).await
        };
        match &case["expect"] {
            Value::Object(expected) => {
                assert_eq!((&expected["host"], &expected["method"]), (&"app.example".into(), &"PUT".into()), "{name}");
                assert_eq!(expected["target"], "/a/b?c=1", "{name}");
                assert_eq!(outcome(&answer), (200, None), "{name}: {answer:?}");
                counts[0] += 1;
            }
            Value::String(reason) if reason == "untrusted_peer" => {
                // For strangers the route does not exist.
                assert_eq!(outcome(&answer), (404, Some("not_found")), "{name}");
                counts[1] += 1;
            }
            Value::String(reason) => {
                let status = if dialect == "nginx" { 403 } else { 400 };
                assert_eq!(outcome(&answer), (status, Some(reason.as_str())), "{name}: {answer:?}");
                let real = answer.header("x-doorward-status");
                assert_eq!(real, (dialect == "nginx").then_some("400"), "{name}");
                counts[2] += 1;
            }
            other => panic!("{name}: unknown verdict {other}"),
        }
    }
    assert_eq!(counts, [14, 5, 144]);
}
