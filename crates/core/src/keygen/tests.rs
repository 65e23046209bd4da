use http::{HeaderMap, HeaderValue};

use super::*;
use crate::{jose::KeyProblem, time::Timestamp};

/// The Ed25519 key of RFC 8410 §10.1, and the forms in which people are given such keys.
const HEX: &str = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn a_key_is_pinned_in_every_form_and_once() {
    let der = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
    for text in [HEX, &base64(HEX), PEM, &base64(PEM), der] {
        let mut keys = AccountKeys::default();
        keys.pin(text).unwrap();
        assert!(keys.has(Algorithm::Ed25519) && !keys.has(Algorithm::RsaSha256), "{text}");
        assert_eq!(keys.pin(HEX), Err(PinProblem::Twice));
    }
    for bad in ["", "00", &HEX[2..], &base64("hello"), &"0".repeat(5000)] {
        let outcome = AccountKeys::default().pin(bad);
        assert_eq!(outcome, Err(PinProblem::Key(KeyProblem::Unreadable)), "{bad}");
    }
    assert_eq!(AccountKeys::parse(&[HEX, "x"]).unwrap_err().0, 1);
}

fn message(headers: &HeaderMap) -> Result<Signed, Problem> {
    let message = Message { method: "GET", target: "/v1/ping", host: "h", headers, body: b"" };
    let keys = AccountKeys::parse(&[HEX]).unwrap();
    verify_message(&message, &keys, "acct", std::time::Duration::from_secs(300), Timestamp::EPOCH)
}

#[test]
fn an_answer_without_a_signature_says_nothing_and_is_no_forgery() {
    assert_eq!(message(&HeaderMap::new()), Err(Problem::Unsigned));
}

#[test]
fn a_signature_header_has_each_parameter_once_and_no_other() {
    for header in [
        "",
        "keyid=\"acct\"",
        "keyid=\"acct\", algorithm=\"ed25519\", signature=\"AA==\"",
        "keyid=\"acct\", keyid=\"acct\", algorithm=\"ed25519\", signature=\"AA==\", headers=\"date\"",
        "keyid=\"acct\", algorithm=\"ed25519\", signature=\"AA==\", headers=\"date\", created=\"1\"",
        "keyid=acct, algorithm=\"ed25519\", signature=\"AA==\", headers=\"date\"",
        // A signature over less than everything would leave the rest to whoever sends it.
        "keyid=\"acct\", algorithm=\"ed25519\", signature=\"AA==\", headers=\"date\"",
        "keyid=\"acct\", algorithm=\"ed25519\", signature=\"AA==\", headers=\"\"",
    ] {
        let headers = HeaderMap::from_iter([("keygen-signature".parse().unwrap(), HeaderValue::from_static(header))]);
        assert!(matches!(message(&headers), Err(Problem::Malformed(_))), "{header}");
    }
    let mut twice = HeaderMap::new();
    twice.append("keygen-signature", HeaderValue::from_static("a"));
    twice.append("keygen-signature", HeaderValue::from_static("a"));
    assert_eq!(message(&twice), Err(Problem::Malformed("Keygen-Signature")));
}

#[test]
fn the_deprecated_scheme_that_hides_its_data_in_the_signature_is_read_strictly() {
    use aws_lc_rs::{
        encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
        rsa::{KeyPair, KeySize},
        signature::KeyPair as _,
    };
    use rsa::{Pkcs1v15Sign, RsaPrivateKey, pkcs8::DecodePrivateKey as _};

    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let keys = AccountKeys::parse(&[base64::engine::general_purpose::STANDARD.encode(public.as_ref())]).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let private = RsaPrivateKey::from_pkcs8_der(private.as_ref()).unwrap();
    let block = private.sign(Pkcs1v15Sign::new_unprefixed(), b"user@example.com").unwrap();

    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE.encode(bytes);
    assert_eq!(verify_key(&encode(&block), Scheme::Pkcs1Encrypt, &keys).unwrap(), b"user@example.com");
    let mut other = block.clone();
    other[100] ^= 1;
    for bad in [&other[..], &block[1..], &[0; 256], &[0xff; 256], b""] {
        assert_eq!(verify_key(&encode(bad), Scheme::Pkcs1Encrypt, &keys), Err(Problem::BadSignature));
    }
    let without = AccountKeys::parse(&[HEX]).unwrap();
    let outcome = verify_key(&encode(&block), Scheme::Pkcs1Encrypt, &without);
    assert_eq!(outcome, Err(Problem::NoKey(Algorithm::RsaSha256)));

    // The older forms without `key/` sign the data itself.
    let data = b"{\"license\":1}";
    let digest = <sha2::Sha256 as sha2::Digest>::digest(data);
    let plain = private.sign(Pkcs1v15Sign::new::<sha2::Sha256>(), &digest).unwrap();
    let key = format!("{}.{}", encode(data), encode(&plain));
    assert_eq!(verify_key(&key, Scheme::Pkcs1Sign, &keys).unwrap(), data);
    assert_eq!(verify_key(&key, Scheme::PssSign, &keys), Err(Problem::BadSignature));
    let changed = format!("{}.{}", encode(b"{\"license\":2}"), encode(&plain));
    assert_eq!(verify_key(&changed, Scheme::Pkcs1Sign, &keys), Err(Problem::BadSignature));
}
