//! Golden requests: kinds of credential × rules × methods × cross-site protection × hosts, each with its exact
//! status and reason, the same from all surfaces.

use std::{collections::BTreeMap, time::Duration};

use doorward_core::{
    api_key::KeyOwner,
    effects::Effects,
    id::UserId,
    revocation::{NewRevocation, Scope},
    session::OpaqueToken,
    time::Timestamp,
};
use serde_json::{Value, json};

use super::{NotThere, judge};
use crate::world::{Request, Setup, Verdict, World, json as body};

const RULES: &str = r#"
    [[rules]]
    path = "/public/*"
    allow = ["public"]
    app = "web"

    [[rules]]
    path = "/read/*"
    methods = ["GET"]
    allow = ["session"]
    app = "web"

    [[rules]]
    path = "/form/*"
    allow = ["session"]
    csrf = "token"
    app = "web"

    [[rules]]
    path = "/open-form/*"
    allow = ["session"]
    csrf = "off"
    app = "web"

    [[rules]]
    path = "/deploy/*"
    allow = ["api_key"]
    require = { capability = "deploy" }
    app = "web"

    [[rules]]
    path = "/service/*"
    allow = ["bearer"]
    require = { claims = { tenant_id = "acme" }, scopes = ["write"] }
    app = "web"

    [[rules]]
    path = "/careful/*"
    allow = ["session", "bearer"]
    require = { recent_auth = true }
    app = "web"

    [[rules]]
    path = "/all/*"
    allow = ["session", "api_key", "bearer"]
    app = "web"

    [[rules]]
    host = "api.example"
    path = "/v1/*"
    allow = ["bearer"]
    app = "web"
"#;

/// A browser, by its cookie; its own `Origin` comes with `same`.
struct People {
    world: World,
    /// Everything that a row can name.
    words: BTreeMap<&'static str, String>,
}

impl People {
    async fn start() -> Self {
        let world = Setup::of(RULES).session("idle = \"60m\"\nabsolute = \"7d\"\nrecent_auth = \"5m\"").start().await;
        let mut words = BTreeMap::new();
        let early = world.browser("early@example.com").await;
        world.advance(Duration::from_secs(30 * 60)).await;
        let mut late = world.browser("late@example.com").await;
        let mut banned = world.browser("banned@example.com").await;
        let mut gone = world.browser("gone@example.com").await;
        for (word, browser) in [("early", &early), ("late", &late), ("banned", &banned), ("gone", &gone)] {
            words.insert(word, browser.cookies());
        }
        let who = body(&late.get("/auth/session").await);
        words.insert("late id", who["user"]["id"].as_str().unwrap().to_owned());
        words.insert("late csrf", who["csrf_token"].as_str().unwrap().to_owned());
        let id = body(&banned.get("/auth/session").await)["user"]["id"].as_str().unwrap().parse().unwrap();
        let (id, at) = (UserId::from_uuid(id), world.clock.now().wall);
        let told = NewRevocation { scope: Scope::User { id }, at, until: None, why: "ban".to_owned() };
        world.store().set_banned(id, Some(at), Effects::default().with_revocation(told)).await.unwrap();
        gone.post("/auth/logout", &json!({})).await;
        let owner = KeyOwner::User(world.user("owner@example.com").await.id);
        let KeyOwner::User(id) = &owner else { unreachable!() };
        words.insert("owner id", id.to_string());
        let past = Timestamp::from_secs(at.as_secs() - 1);
        words.insert("key", world.api_key(owner.clone(), &["deploy"], |_| {}).await);
        words.insert("weak key", world.api_key(owner.clone(), &["look"], |_| {}).await);
        words.insert("old key", world.api_key(owner.clone(), &["deploy"], |key| key.expires_at = Some(past)).await);
        words.insert("taken key", world.api_key(owner, &["deploy"], |key| key.revoked_at = Some(past)).await);
        let claims = |change: Value| {
            let mut claims = world.claims();
            claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            world.issuer.mint(&claims)
        };
        let now = at.as_secs();
        words.insert("token", claims(json!({ "tenant_id": "acme", "scope": "read write" })));
        words.insert("narrow token", claims(json!({ "tenant_id": "acme", "scope": "read" })));
        words.insert("other token", claims(json!({ "tenant_id": "other", "scope": "write" })));
        words.insert("old token", claims(json!({ "iat": now - 600, "exp": now - 300 })));
        words.insert("early token", claims(json!({ "nbf": now + 300 })));
        words.insert("foreign token", claims(json!({ "aud": "other" })));
        words.insert("strange token", claims(json!({ "iss": "https://evil.example" })));
        let good = words["token"].clone();
        words.insert("forged token", format!("{}AAAA", &good[..good.len() - 4]));
        words.insert("unknown", format!("__Host-doorward_sid={}", OpaqueToken::mint([5; 32]).expose()));
        let twice = format!("{}; {}", words["late"], words["unknown"]);
        words.insert("twice", twice);
        world.gate().follow().await;
        Self { world, words }
    }

    fn word<'a>(&'a self, word: &'a str) -> &'a str {
        self.words.get(word).map_or(word, String::as_str)
    }

    /// A request in words: `key:value` after the target, where `cookie` and `bearer` name a credential.
    fn request(&self, method: &str, target: &str, with: &[(&str, &str)]) -> Request {
        let mut request = Request::new(method, target);
        for (kind, word) in with {
            let value = self.word(word);
            request = match *kind {
                "host" => request.to(value),
                "cookie" => request.with("Cookie", value),
                "bearer" => request.with("Authorization", format!("Bearer {value}")),
                header => request.with(header, value),
            };
        }
        request
    }
}

const SAME: (&str, &str) = ("Origin", "https://app.example");
const EVIL: (&str, &str) = ("Origin", "https://evil.example");
const SITE: (&str, &str) = ("Sec-Fetch-Site", "cross-site");

/// Method, target, what comes along; then status and reason, or 200 and who it was.
type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)], u16, &'static str);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    // Nobody.
    ("GET", "/public/x", &[], 200, ""),
    ("DELETE", "/public", &[EVIL, SITE], 200, ""),
    ("GET", "/publicx", &[], 403, "no_rule"),
    ("GET", "/PUBLIC/x", &[], 403, "no_rule"),
    ("GET", "/public/../all/x", &[], 400, "request_malformed"),
    ("GET", "/all/x", &[], 401, "no_credential"),
    ("GET", "/nothing", &[("cookie", "late")], 403, "no_rule"),
    // Hosts.
    ("GET", "/public/x", &[("host", "APP.example:8443")], 200, ""),
    ("GET", "/public/x", &[("host", "app.example.")], 200, ""),
    ("GET", "/public/x", &[("host", "evil.example")], 421, "host_unknown"),
    ("GET", "/public/x", &[("host", "api.example")], 403, "no_rule"),
    ("GET", "/v1/x", &[], 403, "no_rule"),
    ("GET", "/v1/x", &[("host", "api.example"), ("bearer", "token")], 200, "main|subject-1"),
    // Methods.
    ("GET", "/read/x", &[("cookie", "late")], 200, "late id"),
    ("HEAD", "/read/x", &[("cookie", "late")], 200, "late id"),
    ("POST", "/read/x", &[("cookie", "late"), SAME], 403, "rule_denies"),
    ("POST", "/read/x", &[], 403, "rule_denies"),
    ("GET", "/read/x", &[("cookie", "late"), ("X-HTTP-Method-Override", "POST")], 400, "request_malformed"),
    ("TRACE", "/public/x", &[], 400, "request_malformed"),
    // Sessions.
    ("GET", "/all/x", &[("cookie", "late")], 200, "late id"),
    ("GET", "/all/x", &[("cookie", "unknown")], 401, "session_unknown"),
    ("GET", "/all/x", &[("cookie", "gone")], 401, "session_unknown"),
    ("GET", "/all/x", &[("cookie", "__Host-doorward_sid=short")], 401, "session_unknown"),
    ("GET", "/all/x", &[("cookie", "doorward_sid=short")], 401, "no_credential"),
    ("GET", "/all/x", &[("cookie", "banned")], 403, "user_banned"),
    ("GET", "/all/x", &[("cookie", "twice")], 400, "ambiguous_credential"),
    ("GET", "/deploy/x", &[("cookie", "late")], 401, "no_credential"),
    ("GET", "/careful/x", &[("cookie", "late")], 200, "late id"),
    ("GET", "/careful/x", &[("cookie", "early")], 401, "re_auth_required"),
    // Cross-site.
    ("POST", "/all/x", &[("cookie", "late"), SAME], 200, "late id"),
    ("POST", "/all/x", &[("cookie", "late"), EVIL], 403, "cross_site"),
    ("POST", "/all/x", &[("cookie", "late"), SITE], 403, "cross_site"),
    ("POST", "/all/x", &[("cookie", "late"), ("Origin", "null")], 403, "cross_site"),
    ("POST", "/all/x", &[("bearer", "token"), EVIL], 200, "main|subject-1"),
    ("POST", "/form/x", &[("cookie", "late"), SAME], 403, "csrf_missing"),
    ("POST", "/form/x", &[("cookie", "late"), SAME, ("X-CSRF-Token", "x")], 403, "csrf_mismatch"),
    ("POST", "/form/x", &[("cookie", "late"), SAME, ("X-CSRF-Token", "late csrf")], 200, "late id"),
    ("POST", "/form/x", &[("cookie", "late"), EVIL, ("X-CSRF-Token", "late csrf")], 403, "cross_site"),
    ("GET", "/form/x", &[("cookie", "late")], 200, "late id"),
    ("POST", "/open-form/x", &[("cookie", "late"), EVIL], 200, "late id"),
    // API keys.
    ("GET", "/deploy/x", &[("bearer", "key")], 200, "owner id"),
    ("POST", "/deploy/x", &[("bearer", "key"), EVIL], 200, "owner id"),
    ("GET", "/deploy/x", &[("bearer", "weak key")], 403, "missing_capability"),
    ("GET", "/deploy/x", &[("bearer", "old key")], 401, "api_key_expired"),
    ("GET", "/deploy/x", &[("bearer", "taken key")], 401, "api_key_revoked"),
    ("GET", "/deploy/x", &[("bearer", "dwk_short")], 401, "api_key_not_found"),
    ("GET", "/service/x", &[("bearer", "key")], 401, "no_credential"),
    // Tokens.
    ("GET", "/service/x", &[("bearer", "token")], 200, "main|subject-1"),
    ("GET", "/service/x", &[("bearer", "narrow token")], 403, "missing_scope"),
    ("GET", "/service/x", &[("bearer", "other token")], 403, "missing_claim"),
    ("GET", "/service/x", &[("bearer", "old token")], 401, "token_expired"),
    ("GET", "/service/x", &[("bearer", "early token")], 401, "token_not_yet_valid"),
    ("GET", "/service/x", &[("bearer", "foreign token")], 401, "token_wrong_audience"),
    ("GET", "/service/x", &[("bearer", "strange token")], 401, "token_wrong_issuer"),
    ("GET", "/service/x", &[("bearer", "a.b.c")], 401, "token_malformed"),
    ("GET", "/careful/x", &[("bearer", "token")], 401, "re_auth_required"),
    // Several at once: the first kind decides, also when it fails.
    ("GET", "/all/x", &[("cookie", "late"), ("bearer", "old token")], 200, "late id"),
    ("GET", "/all/x", &[("cookie", "unknown"), ("bearer", "token")], 401, "session_unknown"),
    ("GET", "/all/x", &[("bearer", "token"), ("bearer", "key")], 400, "ambiguous_credential"),
    ("GET", "/service/x", &[("cookie", "unknown"), ("bearer", "token")], 200, "main|subject-1"),
    // Last, because it may make the issuer's keys be fetched again.
    ("GET", "/service/x", &[("bearer", "forged token")], 401, "token_bad_signature"),
];

#[tokio::test]
async fn every_golden_request_gets_its_exact_answer_from_every_surface() {
    let people = People::start().await;
    let mut not_there = NotThere::new();
    let mut wrong = Vec::new();
    for (method, target, with, status, word) in TABLE {
        let name = format!("{method} {target} {with:?}");
        let request = people.request(method, target, with);
        let (verdict, _) = judge(&people.world, &name, &request, &mut not_there).await;
        let expected = match *status {
            200 => Verdict::Admitted(people.word(word).to_owned()),
            status => Verdict::Refused(status, (*word).to_owned()),
        };
        if verdict != expected {
            wrong.push(format!("{name}: {verdict:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(not_there.is_empty(), "{not_there:?}");
}
