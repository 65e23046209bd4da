//! Examples of the RFCs and of the IETF JOSE cookbook.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use doorward_core::{
    jose::{Compact, HeaderAlgorithm, Jwk, KeyProblem, hs256},
    reason::Reason,
};
use serde_json::Value;

use crate::vectors::{load, text};

pub(crate) fn decode(text: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// The public part of a key that an example prints whole.
fn public(key: &Value) -> Jwk {
    let mut key = key.clone();
    for name in ["d", "p", "q", "dp", "dq", "qi"] {
        key.as_object_mut().unwrap().remove(name);
    }
    Jwk::parse(&key).unwrap_or_else(|problem| panic!("{key}: {problem}"))
}

fn verifies(key: &Value, token: &str) -> bool {
    if key["kty"] == "oct" {
        return hs256::open(&hs256::MacKey::new(&decode(text(key, "k"))).unwrap(), token).is_ok();
    }
    let jws = Compact::parse(token).unwrap();
    let HeaderAlgorithm::Signature(algorithm) = jws.header().algorithm else { panic!("{token}") };
    public(key).key.is_signature(algorithm, jws.signing_input(), jws.signature())
}

fn refusal(token: &str) -> Option<Reason> {
    Compact::parse(token).err().map(|denial| denial.reason)
}

#[test]
fn the_tokens_of_the_rfcs_verify_and_the_unsigned_one_does_not() {
    let file = load("rfc/rfc-examples.json");
    for example in file["jws"].as_array().unwrap() {
        let token = text(example, "token");
        if text(example, "alg") == "none" {
            assert_eq!(Compact::parse(token).unwrap().header().algorithm, HeaderAlgorithm::Other);
            let denial = doorward_core::token::parse(token).unwrap().algorithm().unwrap_err();
            assert_eq!(denial.reason, Reason::TokenAlgNotAllowed);
        } else {
            assert!(verifies(&example["jwk"], token), "{}", example["ref"]);
        }
    }
}

#[test]
fn thumbprints_are_those_of_the_rfcs() {
    let file = load("rfc/rfc-examples.json");
    for example in file["thumbprints"].as_array().unwrap() {
        let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(public(&example["jwk"]).key.thumbprint());
        assert_eq!(thumbprint, text(example, "thumbprint_sha256"), "{}", example["ref"]);
    }
}

#[test]
fn signed_examples_of_the_cookbook_verify_in_the_compact_form() {
    for name in [
        "ietf-jose-cookbook/jws/4_1.rsa_v15_signature.json",
        "ietf-jose-cookbook/jws/4_2.rsa-pss_signature.json",
        "ietf-jose-cookbook/jws/4_4.hmac-sha2_integrity_protection.json",
        "ietf-jose-cookbook/curve25519/jws.json",
    ] {
        let file = load(name);
        assert!(verifies(&file["input"]["key"], text(&file["output"], "compact")), "{name}");
    }
}

#[test]
fn what_the_profile_leaves_out_is_refused() {
    // P-521 is not supported, neither as an algorithm nor as a key.
    let file = load("ietf-jose-cookbook/jws/4_3.ecdsa_signature.json");
    let jws = text(&file["output"], "compact");
    assert_eq!(Compact::parse(jws).unwrap().header().algorithm, HeaderAlgorithm::Other);
    // Detached: the signature is over a payload that is not there.
    let file = load("ietf-jose-cookbook/jws/4_5.signature_with_detached_content.json");
    assert!(!verifies(&file["input"]["key"], text(&file["output"], "compact")));
    // JSON serialisations only.
    for name in [
        "ietf-jose-cookbook/jws/4_6.protecting_specific_header_fields.json",
        "ietf-jose-cookbook/jws/4_7.protecting_content_only.json",
        "ietf-jose-cookbook/jws/4_8.multiple_signatures.json",
    ] {
        let file = load(name);
        assert!(file["output"]["compact"].is_null(), "{name}");
        assert_eq!(refusal(&file["output"]["json"].to_string()), Some(Reason::TokenMalformed), "{name}");
    }
    for name in [
        "ietf-jose-cookbook/rfc7797/4.2.hmac-sha2_b64_false.json",
        "ietf-jose-cookbook/rfc7797/hmac-sha2_b64_false.json",
    ] {
        let file = load(name);
        let token =
            file["output"]["compact"].as_str().map_or_else(|| file["output"]["json"].to_string(), str::to_owned);
        assert_eq!(refusal(&token), Some(Reason::TokenMalformed), "{name}");
    }
}

#[test]
fn encrypted_examples_of_the_cookbook_are_refused() {
    let folder = crate::vectors::root().join("vectors/ietf-jose-cookbook/jwe");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let file = load(&format!("ietf-jose-cookbook/jwe/{name}"));
        // The nested one is signed inside and encrypted outside.
        let output = if file["encrypt"].is_object() { &file["encrypt"]["output"] } else { &file["output"] };
        for form in output.as_object().unwrap().values() {
            let token = form.as_str().map_or_else(|| form.to_string(), str::to_owned);
            assert_eq!(refusal(&token), Some(Reason::TokenMalformed), "{name}");
            count += 1;
        }
    }
    assert!(count >= 15, "{count} encrypted texts");
}

#[test]
fn keys_of_the_cookbook_are_public_or_refused() {
    for (name, expected) in [
        ("3_1.ec_public_key.json", Some(KeyProblem::UnsupportedType)),
        ("3_2.ec_private_key.json", Some(KeyProblem::Private)),
        ("3_3.rsa_public_key.json", None),
        ("3_4.rsa_private_key.json", Some(KeyProblem::Private)),
        ("3_5.symmetric_key_mac_computation.json", Some(KeyProblem::Symmetric)),
        ("3_6.symmetric_key_encryption.json", Some(KeyProblem::Symmetric)),
    ] {
        let key = load(&format!("ietf-jose-cookbook/jwk/{name}"));
        assert_eq!(Jwk::parse(&key).err(), expected, "{name}");
    }
}
