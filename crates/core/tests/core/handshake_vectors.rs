//! WebSocket handshakes: which are admitted before anything is upgraded.

use doorward_core::{
    credential::{self, CookieNames, CredentialKind, CredentialSet},
    csrf::{self, CsrfKey, CsrfKeys, OriginPolicy},
    origin::Origin,
    reason::Reason,
    request::{RequestFacts, Scheme, is_websocket_upgrade},
    rule::CsrfMode,
    secret::Secret,
    session::{OpaqueToken, TokenHash},
};
use http::{HeaderMap, HeaderValue, Method, header::UPGRADE};
use serde_json::Value;

use crate::vectors::{cases, load, text};

/// Cases about what happens after the handshake or on the wire: they need our own socket routes and a
/// server, and belong to its tests once those routes exist.
const AFTER_THE_HANDSHAKE: [&str; 13] = [
    "API key in Sec-WebSocket-Protocol",
    "no credential: first frame must authenticate within 5 s",
    "auth frame unknown key",
    "auth frame revoked key",
    "auth frame without capability",
    "binary auth frame",
    "second auth frame with another identity",
    "mutating frame without csrf_token under a cookie session",
    "license suspended while open",
    "key revoked while open",
    "access token expires while open",
    "upgrade with body bytes before 101",
    "h2 extended CONNECT",
];

/// What the gate does first about a handshake: credential, then origin where a session decides.
fn handshake(request: &Value) -> Result<Option<CredentialKind>, Reason> {
    let mut headers = HeaderMap::new();
    headers.insert("upgrade", HeaderValue::from_static("websocket"));
    let mut set = |name: &'static str, value: String| headers.append(name, HeaderValue::from_str(&value).unwrap());
    let session = OpaqueToken::mint([1; 32]);
    if request["cookie"].is_string() {
        set("cookie", format!("__Host-doorward_sid={}", session.expose()));
    }
    if let Some(key) = request["bearer"].as_str() {
        set("authorization", format!("Bearer {key}"));
    }
    let origins = match &request["origin"] {
        Value::Array(origins) => origins.clone(),
        Value::Null => Vec::new(),
        origin => vec![origin.clone()],
    };
    for origin in origins {
        set("origin", origin.as_str().unwrap().to_owned());
    }
    let target = format!("/ws?{}", request["query"].as_str().unwrap_or_default());
    let facts = RequestFacts {
        method: &Method::GET,
        scheme: Scheme::Https,
        host: "app.example",
        target: &target,
        headers: &headers,
        client: [127, 0, 0, 1].into(),
        is_upgrade: is_websocket_upgrade(&Method::GET, &headers),
        may_leave_http: false,
    };
    assert!(facts.is_upgrade);
    let allowed = CredentialSet::NONE.with(CredentialKind::Session).with(CredentialKind::ApiKey);
    let found = credential::find(&headers, allowed, &CookieNames::SECURE).map_err(|denial| denial.reason)?;
    let kind = found.map(|credential| credential.kind());
    if kind == Some(CredentialKind::Session) {
        let keys = CsrfKeys { current: CsrfKey::new(&Secret::new([7; 32])), previous: None };
        let policy = OriginPolicy { own: Origin::parse("https://app.example").unwrap(), allowed: Vec::new() };
        let hash: TokenHash = session.hash();
        for mode in [CsrfMode::Origin, CsrfMode::Token] {
            csrf::check(&facts, mode, &hash, &keys, &policy).map_err(|denial| denial.reason)?;
        }
    }
    Ok(kind)
}

#[test]
fn every_handshake_gets_the_verdict_of_the_vector() {
    let file = load("own/websocket.json");
    let mut later = 0;
    for case in cases(&file) {
        let (name, expect) = (text(case, "name"), text(case, "expect"));
        if AFTER_THE_HANDSHAKE.contains(&name) {
            later += 1;
            continue;
        }
        if let Some(method) = case["request"]["method"].as_str() {
            // Not a handshake at all: it is judged as the plain request that it is, never upgraded.
            let headers = HeaderMap::from_iter([(UPGRADE, HeaderValue::from_static("websocket"))]);
            assert!(!is_websocket_upgrade(&Method::from_bytes(method.as_bytes()).unwrap(), &headers), "{name}");
            continue;
        }
        match (expect, handshake(&case["request"])) {
            ("101", Ok(Some(_))) | ("401", Ok(None)) => {}
            ("403" | "403 bad_origin", Err(reason)) => assert_eq!(reason, Reason::CrossSite, "{name}"),
            ("400", Err(reason)) => assert_eq!(reason.status(), 400, "{name}"),
            (expect, got) => panic!("{name}: expected {expect}, got {got:?}"),
        }
    }
    assert_eq!(later, AFTER_THE_HANDSHAKE.len());
}
