//! Properties of everything that reads a request: no input panics, the fast path and the tree agree with
//! a plain scan, stripping twice is stripping once.

use doorward_core::{
    client::{TrustedProxies, derive},
    credential::{self, CookieNames, CredentialKind, CredentialSet},
    dialect::Dialect,
    forward::{ForwardPolicy, is_reserved, strip},
    origin::Origin,
    reason::Reason,
    redirect::{RedirectPolicy, ReturnTo},
    request::{Host, RequestPath, Scheme, check_head},
    rule::{PathMode, RuleSet},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

use crate::path_vectors::rule;

const ALL: CredentialSet = CredentialSet::NONE
    .with(CredentialKind::Session)
    .with(CredentialKind::ApiKey)
    .with(CredentialKind::Bearer)
    .with(CredentialKind::Legacy);

/// Few and short segments, so that paths and patterns meet; case varies.
fn segment() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("A"), Just("ab"), Just("a.b"), Just("~")]
}

fn path() -> impl Strategy<Value = String> {
    (prop::collection::vec(segment(), 0..4), any::<bool>()).prop_map(|(segments, slash)| {
        let path = format!("/{}", segments.join("/"));
        if slash && path.len() > 1 { format!("{path}/") } else { path }
    })
}

fn pattern() -> impl Strategy<Value = String> {
    (prop::collection::vec(segment(), 0..3), any::<bool>()).prop_map(|(segments, star)| {
        match (segments.join("/"), star) {
            (path, false) => format!("/{path}"),
            (path, true) if path.is_empty() => "/*".to_owned(),
            (path, true) => format!("/{path}/*"),
        }
    })
}

/// Bytes that are near to what confuses readers of paths.
fn odd_target() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-bA/.;%?#\\\\ ]",
        Just("..".to_owned()),
        Just("//".to_owned()),
        "%[0-9a-fA-F]{2}",
        Just("%2e".to_owned()),
        Just("%2f".to_owned()),
        Just("%252e".to_owned()),
        "\\PC"
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn rules(patterns: &[String], mode: PathMode) -> RuleSet {
    RuleSet::new(patterns.iter().map(|pattern| rule(pattern, true, mode)).collect())
}

fn find(rules: &RuleSet, target: &str) -> Result<usize, Reason> {
    let path = RequestPath::parse(target, rules.path_mode()).map_err(|denial| denial.reason)?;
    rules.find("app.example", &path, &Method::GET).map_err(|denial| denial.reason)
}

fn header_map() -> impl Strategy<Value = HeaderMap> {
    let name = prop_oneof![
        "[a-z_.-]{1,12}",
        "(http_)?[xX][-_.]?(doorward|forwarded|original)[-_.](subject|for|uri)[-_]?",
        Just("cookie".to_owned()),
        Just("authorization".to_owned()),
        Just("x-forwarded-for".to_owned()),
        Just("host".to_owned()),
        Just("origin".to_owned())
    ];
    let value = prop_oneof![
        "(__Host-)?doorward_(sid|csrf)=[a-z]{0,3}(; ?a=b)?",
        "(;| |=|doorward_sid){0,6}",
        "[Bb]earer [a-z.,_]{0,12}",
        prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ];
    prop::collection::vec((name, value), 0..8).prop_map(|pairs| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
            {
                headers.append(name, value);
            }
        }
        headers
    })
}

proptest! {
    #[test]
    fn the_tree_finds_what_a_plain_scan_finds(patterns in prop::collection::vec(pattern(), 0..8), path in path()) {
        let found = find(&rules(&patterns, PathMode::Strict), &path);
        let scan = |fold: fn(&str) -> String| {
            let matches = |pattern: &String| doorward_core::rule::PathPattern::parse(&fold(pattern)).unwrap().matches(&fold(&path));
            patterns.iter().position(matches)
        };
        let (exact, folded) = (scan(str::to_owned), scan(str::to_ascii_lowercase));
        let expected = match exact {
            None => Err(Reason::NoRule),
            Some(_) if exact != folded => Err(Reason::RequestMalformed),
            Some(rule) => Ok(rule),
        };
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn an_escape_for_a_plain_character_never_meets_another_rule(
        patterns in prop::collection::vec(pattern(), 1..6), path in path(), at in any::<prop::sample::Index>(),
    ) {
        let strict = rules(&patterns, PathMode::Strict);
        let at = at.index(path.len());
        let byte = path.as_bytes()[at];
        if byte != b'/' {
            let escaped = format!("{}%{byte:02x}{}", &path[..at], &path[at + 1..]);
            match find(&strict, &escaped) {
                Ok(rule) => prop_assert_eq!(find(&strict, &path), Ok(rule)),
                Err(reason) => prop_assert!([Reason::NoRule, Reason::RequestMalformed].contains(&reason)),
            }
        }
    }

    #[test]
    fn same_rule_agrees_with_strict_wherever_strict_decides(
        patterns in prop::collection::vec(pattern(), 1..6), target in odd_target(),
    ) {
        let (strict, lenient) = (find(&rules(&patterns, PathMode::Strict), &target), find(&rules(&patterns, PathMode::SameRule), &target));
        if strict.is_ok() || lenient == Err(Reason::NoRule) {
            prop_assert_eq!(strict, lenient);
        }
    }

    #[test]
    fn no_target_and_no_host_panics(target in ".{0,40}", odd in odd_target(), host in ".{0,20}") {
        let strict = rules(&["/a/*".to_owned(), "/*".to_owned()], PathMode::SameRule);
        for target in [target, odd] {
            if let Ok(path) = RequestPath::parse(&target, PathMode::SameRule) {
                prop_assert_eq!(path.target(), &target);
                let _ = strict.find(&host, &path, &Method::GET);
                prop_assert_eq!(strict.explain(&host, &path, &Method::GET).len(), 2);
            }
        }
        if let Ok(read) = Host::parse(&host) {
            let again = read.to_authority(Scheme::Http);
            prop_assert_eq!(Host::parse(&again).unwrap().to_authority(Scheme::Http), again);
        }
    }

    #[test]
    fn no_header_panics_and_stripping_twice_is_stripping_once(headers in header_map()) {
        let _ = credential::find(&headers, ALL, &CookieNames::LOOPBACK);
        let _ = check_head(&Method::GET, &headers, Some("app.example"));
        let trusted = TrustedProxies::new(vec!["127.0.0.1".parse().unwrap()]);
        let _ = derive([127, 0, 0, 1].into(), Scheme::Http, "a", &headers, &trusted);
        for dialect in Dialect::ALL {
            let _ = dialect.read(true, &Method::GET, "a", "/", &headers);
        }
        let mut once = headers;
        let policy = ForwardPolicy { used: Some(CredentialKind::ApiKey), ..ForwardPolicy::default() };
        strip(&mut once, &policy);
        let mut twice = once.clone();
        strip(&mut twice, &policy);
        prop_assert_eq!(&once, &twice);
        prop_assert!(once.keys().all(|name| !is_reserved(name)) && !once.contains_key("authorization"));
        let session = CredentialSet::NONE.with(CredentialKind::Session);
        for names in [CookieNames::SECURE, CookieNames::LOOPBACK] {
            prop_assert!(matches!(credential::find(&once, session, &names), Ok(None)));
        }
    }

    #[test]
    fn a_redirect_leads_home_or_to_a_listed_origin_and_reads_back_as_itself(
        text in prop_oneof![".{0,40}", "[/\\\\a-z.%:@?#]{0,20}", "https?:/{0,3}(app.example|docs.example|evil.test)[/:@.\\\\a-z0-9%#?]{0,12}"],
    ) {
        let policy = RedirectPolicy {
            own: Origin::parse("https://app.example").unwrap(),
            allowed: vec![Origin::parse("https://docs.example").unwrap()],
            base_path: "/auth".to_owned(),
        };
        let read = ReturnTo::parse(&text, &policy);
        let target = read.as_str();
        let joined = url::Url::parse("https://app.example/auth/login").unwrap().join(target).unwrap();
        prop_assert!(["app.example", "docs.example"].contains(&joined.host_str().unwrap()) && joined.scheme() == "https");
        prop_assert!(HeaderValue::from_str(target).is_ok());
        prop_assert!(!target.starts_with("//") && (target.starts_with('/') || target.starts_with("https://docs.example/")));
        let again = ReturnTo::parse(target, &policy);
        prop_assert_eq!(again.as_str(), target);
    }
}
