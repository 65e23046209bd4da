//! Header smuggling: identity, forwarding, host and authorization headers that are not what they seem.

use std::net::IpAddr;

use doorward_core::{
    api_key,
    client::{TrustedProxies, derive},
    credential::{self, CookieNames, Credential, CredentialKind, CredentialSet},
    decision::Denial,
    forward::{ForwardPolicy, identity_headers, strip},
    id::{DecisionId, UserId},
    principal::{Authenticated, Principal, PrincipalKind, SubjectId},
    reason::Reason,
    request::{Host, RequestPath, Scheme, check_head},
    rule::{PathMode, RuleSet},
    session::OpaqueToken,
    time::Timestamp,
    token::Claims,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use crate::{
    path_vectors::rule,
    vectors::{cases, load, text},
};

/// Cases that the core has no part in, each with where it is shown.
const ELSEWHERE: &[(&str, &str)] = &[
    ("hop-by-hop removal of X-Forwarded-For", "the proxy sets it last: server, proxy/headers"),
    ("Authorization and Cookie are not sent to error/login back ends", "not applicable: pages are Doorward's own"),
];

const ALL: CredentialSet = CredentialSet::NONE
    .with(CredentialKind::Session)
    .with(CredentialKind::ApiKey)
    .with(CredentialKind::Bearer)
    .with(CredentialKind::Legacy);

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

fn headers(case: &Value, rename: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for pair in case["inbound"].as_array().unwrap() {
        let read = |at: usize| {
            let text = pair[at].as_str().unwrap();
            if rename { ours(text) } else { text.to_owned() }
        };
        // Values are bytes on the wire; the file shows them as Latin-1.
        let value: Vec<u8> = read(1).chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        headers.append(HeaderName::from_bytes(read(0).as_bytes()).unwrap(), HeaderValue::from_bytes(&value).unwrap());
    }
    headers
}

fn caller() -> Principal {
    Principal {
        kind: PrincipalKind::User,
        subject: SubjectId::local(UserId::mint(Timestamp::EPOCH, [1; 10])),
        user_id: None,
        email: None,
        org_id: None,
        authenticated: Authenticated::Bearer { claims: Claims::default().into() },
        expires_at: None,
    }
}

fn identity(case: &Value) {
    let name = text(case, "name");
    let mut headers = headers(case, true);
    strip(&mut headers, &ForwardPolicy::default());
    let expect = case["expect"].as_object().unwrap();
    match expect.keys().next().unwrap().as_str() {
        "upstream_must_not_see" | "upstream_must_not_see_as_identity" => {
            assert!(headers.is_empty(), "{name}: {headers:?} is left");
        }
        "upstream_sees_identity" => {
            let decision = DecisionId::mint(Timestamp::EPOCH, [2; 10]);
            identity_headers(Some(&caller()), None, decision).write(&mut headers, &[]);
            assert_eq!(headers["x-doorward-subject"], caller().subject.to_string().as_str(), "{name}");
        }
        other => panic!("{name}: unknown verdict {other}"),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn forwarded(case: &Value) {
    let name = text(case, "name");
    let mut headers = headers(case, false);
    let proxies = |networks: &[&str]| TrustedProxies::new(networks.iter().map(|text| text.parse().unwrap()).collect());
    let client = |peer, trusted| derive(ip(peer), Scheme::Http, "app.example", &headers, &trusted).unwrap();
    let expect = &case["expect"];
    if expect["ignored_and_replaced"] == true {
        assert_eq!(case["peer_trusted"], false, "{name}");
        let client = client("8.8.8.8", proxies(&["127.0.0.1"]));
        assert_eq!((client.ip, client.scheme, client.host), (ip("8.8.8.8"), Scheme::Http, "app.example"), "{name}");
        // An override of the method is more than ignored: the whole request is refused.
        let is_override = headers.contains_key("x-http-method-override");
        headers.insert("host", HeaderValue::from_static("app.example"));
        assert_eq!(check_head(&Method::POST, &headers, None).is_err(), is_override, "{name}");
        headers.remove("host");
        strip(&mut headers, &ForwardPolicy::default());
        assert!(headers.is_empty(), "{name}: {headers:?} is left");
        return;
    }
    let ips: Vec<IpAddr> = match text(expect, "client_ip") {
        "6.6.6.6 only when 10.0.0.7 is trusted" => {
            let trusted = client("127.0.0.1", proxies(&["127.0.0.1", "10.0.0.0/8"]));
            let untrusted = client("127.0.0.1", proxies(&["127.0.0.1"]));
            assert_eq!((trusted.ip, untrusted.ip), (ip("6.6.6.6"), ip("10.0.0.7")), "{name}");
            return;
        }
        "parse or fall back to peer, never panic" => {
            let trusted: [&[&str]; 3] = [&["127.0.0.1"], &["127.0.0.1", "::1"], &["127.0.0.1", "::1", "1.2.3.4"]];
            trusted.iter().map(|trusted| client("127.0.0.1", proxies(trusted)).ip).collect()
        }
        other => panic!("{name}: unknown verdict {other}"),
    };
    assert_eq!(ips, [ip("::1"), ip("1.2.3.4"), ip("1.2.3.4")], "{name}");
}

fn host(case: &Value) {
    let name = text(case, "name");
    let (headers, expect) = (headers(case, false), &case["expect"]);
    if let Some(same) = expect["same_rule_as"].as_str() {
        let rules = RuleSet::new(vec![rule("/*", true, PathMode::Strict)]);
        let path = RequestPath::parse("/a", PathMode::Strict).unwrap();
        let find = |host| rules.find(host, &path, &Method::GET);
        assert_eq!(find(headers["host"].to_str().unwrap()), find(same), "{name}");
        assert_eq!(find(same), Ok(0), "{name}");
        return;
    }
    assert_eq!(expect["status"], 400, "{name}");
    let authority = expect["target"].as_str().map(|target| {
        assert!(RequestPath::parse(target, PathMode::SameRule).is_err(), "{name}");
        target.trim_start_matches("http://").split('/').next().unwrap()
    });
    let refused = check_head(&Method::GET, &headers, authority).unwrap_err();
    assert_eq!(refused.reason, Reason::RequestMalformed, "{name}");
    if headers.get_all("host").iter().count() == 1 && authority.is_none() {
        assert!(Host::parse(headers["host"].to_str().unwrap()).is_err(), "{name}");
    }
}

fn found(headers: &HeaderMap) -> Result<Option<Credential<'_>>, Denial> {
    credential::find(headers, ALL, &CookieNames::SECURE)
}

fn authorization(case: &Value) {
    let name = text(case, "name");
    let expect = &case["expect"];
    if expect["rule"].is_string() {
        let good = OpaqueToken::mint([9; 32]);
        let cookie = format!("__Host-doorward_sid={}", good.expose());
        let mut headers = headers(case, false);
        headers.insert("cookie", HeaderValue::from_str(&cookie).unwrap());
        let Ok(Some(Credential::Session(Some(token)))) = found(&headers) else { panic!("{name}") };
        assert_eq!(token.hash(), good.hash(), "{name}");
        return;
    }
    let headers = headers(case, false);
    let result = expect["result"].as_str().map_or_else(|| expect["status"].to_string(), str::to_owned);
    match (result.as_str(), found(&headers)) {
        ("ok", Ok(Some(Credential::ApiKey("T")))) => {}
        // Anything but one space is no credential of RFC 6750 §2.1: 400 of the two that are allowed.
        ("ok_or_400" | "400/431", Err(denial)) => assert_eq!(denial.reason, Reason::RequestMalformed, "{name}"),
        ("400", Err(denial)) => assert_eq!(denial.reason.status(), 400, "{name}"),
        // Nothing that is a credential here: `no_credential`, a 401.
        ("401", Ok(None)) => {}
        // A text like any other, which no key will have.
        ("401, never 500", Ok(Some(Credential::ApiKey(text)))) => assert!(api_key::hash_presented(text).is_ok()),
        (expected, got) => panic!("{name}: expected {expected}, got {got:?}"),
    }
}

#[test]
fn every_header_case_gets_the_verdict_of_the_vector() {
    let file = load("own/header-smuggling.json");
    let mut elsewhere = 0;
    for case in cases(&file) {
        let name = text(case, "name");
        if ELSEWHERE.iter().any(|(other, _)| *other == name) {
            elsewhere += 1;
            continue;
        }
        match text(case, "class") {
            "identity" => identity(case),
            "forwarded" => forwarded(case),
            "host" => host(case),
            "authorization" => authorization(case),
            "bypass" => {
                assert_eq!(text(&case["expect"], "decision"), "unauthenticated", "{name}");
                assert!(matches!(found(&headers(case, false)), Ok(None)), "{name}");
            }
            other => panic!("{name}: unknown class {other}"),
        }
    }
    assert_eq!(elsewhere, ELSEWHERE.len());
}
