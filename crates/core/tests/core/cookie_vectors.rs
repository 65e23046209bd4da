//! Cookies that are not ours, and requests that another site sent.

use doorward_core::{
    credential::{self, CookieNames, Credential, CredentialKind, CredentialSet},
    csrf::{self, CsrfKey, CsrfKeys, OriginPolicy},
    origin::Origin,
    reason::Reason,
    request::{RequestFacts, RequestPath, Scheme, check_head},
    rule::{CsrfMode, PathMode},
    secret::Secret,
    session::{OpaqueToken, TokenHash},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use crate::vectors::{cases, load, text};

/// Cases that only a running server can show; its routes admit no GET that changes anything.
const ELSEWHERE: &[(&str, &str)] = &[
    ("GET never changes state", "server, http tests: GET /logout and GET /login/callback"),
    ("HEAD never changes state", "server, http tests: HEAD /login/callback"),
];

const SESSION: CredentialSet =
    CredentialSet::NONE.with(CredentialKind::Session).with(CredentialKind::Bearer).with(CredentialKind::ApiKey);

/// The vector's cookie in our name and with tokens of our form.
fn cookie(text: &str) -> Result<HeaderMap, http::header::InvalidHeaderValue> {
    let good = OpaqueToken::mint([1; 32]).expose();
    let text = text.replace("__Host-sid", "__Host-doorward_sid").replace("__host-sid", "__host-doorward_sid");
    let text = text.replace("__HOST-SID", "__HOST-DOORWARD_SID").replace("EVIL", &OpaqueToken::mint([2; 32]).expose());
    let text = text.replace("GO\u{1}OD", &format!("{}\u{1}{}", &good[..20], &good[20..]));
    let text = if text.ends_with("=GOO") { text.replace("GOO", &good[..42]) } else { text.replace("GOOD", &good) };
    let mut headers = HeaderMap::new();
    for line in text.split('\n') {
        headers.append("cookie", HeaderValue::from_bytes(line.as_bytes())?);
    }
    Ok(headers)
}

fn check_cookie(case: &Value) {
    let (name, expect) = (text(case, "name"), text(case, "expect"));
    let Ok(headers) = cookie(text(&case["request"], "cookie")) else {
        // The HTTP library refuses the line before anybody sees it.
        assert_eq!((name, expect), ("control byte in value", "anonymous"));
        return;
    };
    let good = OpaqueToken::mint([1; 32]).hash();
    match (expect, credential::find(&headers, SESSION, &CookieNames::SECURE)) {
        ("session" | "session_or_431", Ok(Some(Credential::Session(Some(token))))) => {
            assert_eq!(token.hash(), good, "{name}");
        }
        // Under our name, but nothing that was ever minted: it is not looked up, and no bearer is tried.
        ("anonymous" | "anonymous_or_reject", Ok(Some(Credential::Session(None)))) => {
            assert!(["truncated token", "token with appended byte", "comma separated"].contains(&name), "{name}");
        }
        ("anonymous", Ok(None)) => {}
        ("reject_ambiguous", Err(denial)) => assert_eq!(denial.reason, Reason::AmbiguousCredential, "{name}"),
        (_, got) => panic!("{name}: expected {expect}, got {got:?}"),
    }
}

fn keys() -> CsrfKeys {
    CsrfKeys { current: CsrfKey::new(&Secret::new([7; 32])), previous: None }
}

/// `T(s1)` in words of the file: the token of session `s1`.
fn token(text: &str) -> String {
    text.strip_prefix("T(")
        .map_or_else(String::new, |rest| csrf::mint(&keys(), &TokenHash::of(rest.trim_end_matches(')').as_bytes())))
}

fn verdict(request: &Value, policy: &OriginPolicy) -> Result<(), Reason> {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("app.example"));
    let mut set = |name: &'static str, value: Option<String>| {
        if let Some(value) = value {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
        }
    };
    let member = |key: &str| request[key].as_str().map(str::to_owned);
    set("x-csrf-token", request["csrf"].as_str().map(token));
    set("cookie", request["csrf_cookie"].as_str().map(|text| format!("__Host-doorward_csrf={}", token(text))));
    set("sec-fetch-site", member("site"));
    set("origin", member("origin"));
    set("referer", member("referer"));
    set("content-type", member("content_type"));
    set("x-http-method-override", member("override"));
    let session = OpaqueToken::mint([1; 32]);
    if request["bearer"].is_string() {
        set("authorization", Some("Bearer a.b.c".to_owned()));
        set("cookie", Some(format!("__Host-doorward_sid={}", session.expose())));
    }
    let query = request["query_csrf"]
        .as_str()
        .map_or_else(String::new, |text| format!("?csrf_token={}&x-csrf-token={0}", token(text)));
    let target = format!("{}{query}", request["path"].as_str().unwrap_or("/"));
    let method = Method::from_bytes(text(request, "method").as_bytes()).unwrap();
    let reason = |denial: doorward_core::decision::Denial| denial.reason;
    check_head(&method, &headers, None).map_err(reason)?;
    RequestPath::parse(&target, PathMode::Strict).map_err(reason)?;
    if request["bearer"].is_string() {
        // Which credential authenticates decides whether this check is made at all.
        let found = credential::find(&headers, SESSION, &CookieNames::SECURE).map_err(reason)?;
        assert_eq!(found.map(|credential| credential.kind()), Some(CredentialKind::Session));
    }
    let facts = RequestFacts {
        method: &method,
        scheme: Scheme::Https,
        host: "app.example",
        target: &target,
        headers: &headers,
        client: [127, 0, 0, 1].into(),
        is_upgrade: false,
        may_leave_http: false,
    };
    // Sign-in and sign-out need the origin, not the token (and a webhook has neither session nor origin).
    let own_route = ["/logout", "/auth/callback", "/webhooks/license"].contains(&target.as_str());
    match request["session"].as_str() {
        Some(session) if !own_route => {
            csrf::check(&facts, CsrfMode::Token, &TokenHash::of(session.as_bytes()), &keys(), policy).map_err(reason)
        }
        _ => csrf::check_origin(&headers, policy).map_err(reason),
    }
}

fn check_csrf(case: &Value) {
    let (name, expect, request) = (text(case, "name"), text(case, "expect"), &case["request"]);
    let own = Origin::parse("https://app.example").unwrap();
    let mut policy = OriginPolicy { own, allowed: Vec::new() };
    let got = verdict(request, &policy);
    let expected = match expect {
        "allow" | "allow (token decides)" | "allow to HMAC check" => Ok(()),
        "403 csrf_missing" | "403 (cookie wins)" | "403 unless documented" => Err(Reason::CsrfMissing),
        "403 csrf_mismatch" => Err(Reason::CsrfMismatch),
        "403 origin" => Err(Reason::CrossSite),
        "403 origin unless allowlisted" => {
            policy.allowed.push(Origin::parse(text(request, "origin")).unwrap());
            assert_eq!(verdict(request, &policy), Ok(()), "{name}");
            Err(Reason::CrossSite)
        }
        "403" if request["site"] == "cross-site" => Err(Reason::CrossSite),
        "403" => Err(Reason::CsrfMissing),
        "400" => Err(Reason::RequestMalformed),
        // More than treated as GET: the interface refuses every method override.
        "treated as GET" => Err(Reason::RequestMalformed),
        other => panic!("{name}: unknown verdict {other}"),
    };
    assert_eq!(got, expected, "{name}");
    assert!(got.err().is_none_or(|reason| [400, 403].contains(&reason.status())), "{name}");
}

#[test]
fn every_cookie_and_csrf_case_gets_the_verdict_of_the_vector() {
    let file = load("own/cookie-csrf.json");
    let mut elsewhere = 0;
    for case in cases(&file) {
        if ELSEWHERE.iter().any(|(name, _)| *name == text(case, "name")) {
            elsewhere += 1;
        } else if case["request"]["cookie"].is_string() {
            check_cookie(case);
        } else {
            check_csrf(case);
        }
    }
    assert_eq!(elsewhere, ELSEWHERE.len());
}
