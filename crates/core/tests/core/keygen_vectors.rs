//! `vectors/keygen/keygen.json`: everything of Keygen's that is signed, genuine and forged.

use std::{collections::BTreeMap, time::Duration};

use doorward_core::{
    keygen::{
        AccountKeys, Algorithm, Document, FileKind, License, LicenseFile, Message, Problem, Scheme, Sealed, verify_key,
        verify_message,
    },
    secret::Secret,
    time::Timestamp,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::vectors::{load, text};

fn vectors() -> Vec<Value> {
    let file = load("keygen/keygen.json");
    file["vectors"].as_array().unwrap().clone()
}

fn of_kind(kind: &str) -> Vec<Value> {
    let found: Vec<Value> = vectors().into_iter().filter(|vector| vector["kind"] == kind).collect();
    assert!(!found.is_empty(), "no vector of kind {kind}");
    found
}

fn keys(vector: &Value) -> AccountKeys {
    AccountKeys::parse(&[text(&vector["public_key"], "value")]).unwrap()
}

/// Why a forged one is refused; each has one reason.
fn problem_of(name: &str) -> Problem {
    match name {
        "neg-key-wrong-prefix" | "neg-key-no-dot" => Problem::Malformed("the license key"),
        "neg-key-jwt-alg-none" | "neg-key-jwt-hs256-with-public-pem" => Problem::AlgorithmNotAllowed,
        "neg-licfile-alg-downgraded" => Problem::AlgorithmNotAllowed,
        "neg-licfile-alg-rsa-with-ed25519-key" => Problem::NoKey(Algorithm::RsaSha256),
        "neg-machinefile-as-license" => Problem::BadSignature,
        "neg-machinefile-wrong-fingerprint" => Problem::NotOpened,
        "neg-webhook-body-reserialized" => Problem::BadDigest,
        "neg-response-empty-signature" => Problem::EmptySignature,
        _ => Problem::BadSignature,
    }
}

fn assert_verdict<T: std::fmt::Debug>(vector: &Value, outcome: Result<T, Problem>) -> Option<T> {
    let name = text(vector, "name");
    match (text(vector, "expected"), outcome) {
        ("valid", Ok(value)) => Some(value),
        ("invalid", Err(problem)) => {
            assert_eq!(problem, problem_of(name), "{name}");
            None
        }
        (expected, outcome) => panic!("{name}: {expected}, and was {outcome:?}"),
    }
}

#[test]
fn every_kind_of_vector_has_a_test_here() {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for vector in vectors() {
        *kinds.entry(text(&vector, "kind").to_owned()).or_default() += 1;
    }
    let counts: Vec<(&str, usize)> = kinds.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    let wanted = [
        ("account_public_keys", 1),
        ("license_file", 22),
        ("license_key", 15),
        ("machine_file", 4),
        ("response_signature", 7),
        ("webhook_signature", 5),
    ];
    assert_eq!(counts, wanted);
}

#[test]
fn license_keys_are_believed_by_their_scheme_alone() {
    for vector in of_kind("license_key") {
        let scheme = Scheme::parse(text(&vector, "scheme")).unwrap();
        let outcome = verify_key(text(&vector, "input"), scheme, &keys(&vector));
        if let Some(data) = assert_verdict(&vector, outcome) {
            match &vector["decoded"] {
                Value::String(plain) => assert_eq!(String::from_utf8(data).unwrap(), *plain),
                decoded => {
                    let decoded = decoded.get("claims").unwrap_or(decoded);
                    assert_eq!(serde_json::from_slice::<Value>(&data).unwrap(), *decoded, "{}", vector["name"]);
                }
            }
        }
    }
}

/// What a configuration that expects files of this scheme allows. One vector claims another `alg` than the files of
/// its license have.
fn allowed(vector: &Value) -> Vec<(Sealed, Algorithm)> {
    let scheme = match text(vector, "name") {
        "neg-licfile-alg-downgraded" => "aes-256-gcm+ed25519",
        _ => text(vector, "scheme"),
    };
    let (sealed, algorithm) = scheme.split_once('+').unwrap();
    let sealed = if sealed == "base64" { Sealed::Plain } else { Sealed::Encrypted };
    vec![(sealed, Algorithm::parse(algorithm).unwrap())]
}

/// License key and fingerprint that open a file; for machine files one text in the vector, the key being what Keygen's
/// generator writes.
fn secret(vector: &Value) -> Option<(Secret<String>, String)> {
    let secret = vector.get("secret")?;
    let value = text(secret, "value").to_owned();
    Some(match value.split_once("-V3") {
        Some((key, fingerprint)) if vector["kind"] == "machine_file" => {
            (Secret::new(format!("{key}-V3")), fingerprint.to_owned())
        }
        _ => (Secret::new(value), String::new()),
    })
}

fn time(vector: &Value, name: &str) -> Option<Timestamp> {
    let text = vector["clock"][name].as_str()?;
    let at: jiff::Timestamp = text.parse().unwrap();
    Some(Timestamp::from_millis(at.as_millisecond()))
}

#[test]
fn files_are_verified_before_they_are_opened() {
    for vector in of_kind("license_file").into_iter().chain(of_kind("machine_file")) {
        let kind = if vector["kind"] == "machine_file" { FileKind::Machine } else { FileKind::License };
        // The wrong label is found before the signature; in this vector it was changed along with the kind.
        let file = LicenseFile::verify(text(&vector, "input"), kind, &allowed(&vector), &keys(&vector));
        let secret = secret(&vector);
        let is_closed = secret.is_none() && text(&vector, "scheme").starts_with("aes");
        let opened: Result<Option<Document>, Problem> = file.and_then(|file| match (&secret, is_closed) {
            (_, true) => Ok(None),
            (Some((key, fingerprint)), _) => file.open(Some(key), fingerprint).map(Some),
            (None, _) => file.open(None, "").map(Some),
        });
        if let Some(Some(document)) = assert_verdict(&vector, opened) {
            assert_eq!(Some(document.issued), time(&vector, "issued"), "{}", vector["name"]);
            assert_eq!(document.expires_at, time(&vector, "file_expiry"), "{}", vector["name"]);
            let license = License::of_document(&document);
            if kind == FileKind::License {
                assert_eq!(license.unwrap().expires_at, time(&vector, "license_expiry"), "{}", vector["name"]);
            }
            let json: Value = serde_json::from_str(document.json.get()).unwrap();
            // The vector holds a summary of the document.
            for place in ["/data/id", "/data/attributes", "/meta"] {
                let wanted = vector["decoded"].pointer(place);
                assert!(wanted.is_none() || json.pointer(place) == wanted, "{} {place}", vector["name"]);
            }
        }
    }
}

#[test]
fn an_encrypted_file_stays_closed_without_its_license_key() {
    let vector = of_kind("license_file").into_iter().find(|vector| vector["name"] == "licfile-dart").unwrap();
    let file =
        LicenseFile::verify(text(&vector, "input"), FileKind::License, &allowed(&vector), &keys(&vector)).unwrap();
    assert_eq!(file.open(None, "").unwrap_err(), Problem::NotOpened);
    assert_eq!(file.open(Some(&Secret::new("another".to_owned())), "").unwrap_err(), Problem::NotOpened);
}

const WINDOW: Duration = Duration::from_secs(300);

fn check_message(vector: &Value, after: i64) -> Result<(), Problem> {
    check_message_for(vector, text(vector, "keyid"), after)
}

fn check_message_for(vector: &Value, account: &str, after: i64) -> Result<(), Problem> {
    let input = &vector["input"];
    let mut headers = HeaderMap::new();
    for (name, value) in input["headers"].as_object().unwrap() {
        let value = HeaderValue::from_str(value.as_str().unwrap()).unwrap();
        headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    let date = headers.get("keygen-date").or_else(|| headers.get("date")).unwrap().to_str().unwrap();
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).unwrap();
    let message = Message {
        method: text(input, "method"),
        target: text(input, "request_target"),
        host: text(input, "host"),
        headers: &headers,
        body: text(input, "body").as_bytes(),
    };
    let now = Timestamp::from_secs(date.as_second() + after);
    verify_message(&message, &keys(vector), account, WINDOW, now).map(|signed| {
        assert_eq!(signed.at.as_secs(), date.as_second());
    })
}

#[test]
fn answers_and_webhooks_are_believed_for_the_target_host_and_body_that_they_were_signed_for() {
    for vector in of_kind("response_signature").into_iter().chain(of_kind("webhook_signature")) {
        assert_verdict(&vector, check_message(&vector, 0));
        if vector["expected"] == "valid" {
            assert_eq!(check_message_for(&vector, "another account", 0), Err(Problem::OtherAccount));
            for (after, outcome) in
                [(300, Ok(())), (-300, Ok(())), (301, Err(Problem::Stale)), (-301, Err(Problem::Stale))]
            {
                assert_eq!(check_message(&vector, after), outcome, "{} {after} s later", vector["name"]);
            }
        }
    }
}

#[test]
fn the_keys_of_an_account_are_read_in_the_form_in_which_it_shows_them() {
    for vector in of_kind("account_public_keys") {
        let input = vector["input"].as_object().unwrap();
        let shown: Vec<&str> = input
            .iter()
            .filter(|(name, _)| name.contains(".keys."))
            .map(|(_, value)| value.as_str().unwrap())
            .collect();
        let keys = AccountKeys::parse(&shown).unwrap();
        for algorithm in Algorithm::ALL {
            let is_shown = *algorithm != Algorithm::EcdsaP256 || input.contains_key("data.meta.keys.ecdsa");
            assert_eq!(keys.has(*algorithm), is_shown, "{algorithm:?}");
        }
    }
}
