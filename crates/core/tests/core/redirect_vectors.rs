//! Redirect targets: where nobody may be sent after signing in.

use doorward_core::{
    origin::Origin,
    redirect::{RedirectPolicy, ReturnTo},
};

use crate::vectors::{cases, load, text};

fn policy(own: &str, allowed: &[&str]) -> RedirectPolicy {
    RedirectPolicy {
        own: Origin::parse(own).unwrap(),
        allowed: allowed.iter().map(|origin| Origin::parse(origin).unwrap()).collect(),
        base_path: "/.pilot".to_owned(),
    }
}

#[test]
fn every_target_is_taken_or_replaced_as_the_vector_says() {
    let file = load("own/redirect-targets.json");
    let allowed: Vec<_> = file["allow"].as_array().unwrap().iter().map(|origin| origin.as_str().unwrap()).collect();
    let policy = policy(text(&file, "origin"), &allowed);
    for case in cases(&file) {
        let target = text(case, "return_to");
        let read = ReturnTo::parse(target, &policy);
        match text(case, "expect") {
            "allow" => {
                let whole = if read.as_str().starts_with('/') {
                    format!("{}{}", policy.own, read.as_str())
                } else {
                    read.as_str().to_owned()
                };
                let meant = url::Url::parse(text(&file, "origin")).unwrap().join(target).unwrap();
                assert_eq!((whole.as_str(), read.is_fallback()), (meant.as_str(), false), "{target}");
            }
            "fallback" => {
                assert_eq!((read.as_str(), read.is_fallback()), ("/", true), "{target}: {}", text(case, "why"));
            }
            other => panic!("{target}: unknown verdict {other}"),
        }
    }
}

/// Query-unescapes once, as Go's `url.QueryUnescape` does; a line with a bad escape stays as it is.
fn query_unescape(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
                let Some(value) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
                    return line.as_bytes().to_vec();
                };
                rest = &after[2..];
                value
            }
            other => other,
        });
    }
    bytes
}

#[test]
fn none_of_the_open_redirect_payloads_is_followed() {
    let file = load("oauth2-proxy/openredirects.json");
    let policy = policy("https://app.example", &["https://docs.app.example:8443"]);
    let lines = file["lines"].as_array().unwrap();
    let (mut not_text, mut followed) = (0, Vec::new());
    for line in lines {
        let line = line.as_str().unwrap();
        match String::from_utf8(query_unescape(line)) {
            Ok(target) if !ReturnTo::parse(&target, &policy).is_fallback() => followed.push(target),
            Ok(_) => {}
            Err(_) => not_text += 1,
        }
    }
    assert_eq!(followed, Vec::<String>::new());
    assert_eq!((lines.len(), not_text), (558, 2), "the two that are no text cannot be a target at all");
}
