//! Forward-auth: each dialect reads its own family of headers and refuses the others.

use doorward_core::{dialect::Dialect, request::Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use crate::vectors::{cases, load, text};

/// Builds headers from pairs; names as on the wire.
pub(crate) fn headers(pairs: &Value) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for pair in pairs.as_array().unwrap() {
        let (name, value) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

#[test]
fn every_dialect_reads_what_the_vector_says_or_refuses() {
    let file = load("own/forward-family.json");
    for case in cases(&file) {
        let name = text(case, "name");
        let dialect = Dialect::ALL.into_iter().find(|dialect| dialect.as_str() == text(case, "dialect")).unwrap();
        let (request, headers) = (&case["request"], headers(&case["headers"]));
        let method = Method::from_bytes(text(request, "method").as_bytes()).unwrap();
        let trusted = case["peer_trusted"].as_bool().unwrap();
        let read = dialect.read(trusted, &method, text(request, "host"), text(request, "suffix"), &headers);
        match (&case["expect"], read) {
            (Value::String(reason), Err(denial)) => assert_eq!(denial.reason.code(), reason, "{name}"),
            (expected @ Value::Object(_), Ok(original)) => {
                assert_eq!(original.method.as_str(), text(expected, "method"), "{name}");
                assert_eq!(original.scheme.map(Scheme::as_str), expected["scheme"].as_str(), "{name}");
                assert_eq!(
                    (original.host, &*original.target),
                    (text(expected, "host"), text(expected, "target")),
                    "{name}"
                );
            }
            (expected, read) => panic!("{name}: expected {expected}, got {read:?}"),
        }
    }
}
