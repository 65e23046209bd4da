//! The eleven golden license tokens (B24), made here from seeds and drift-checked:
//! `UPDATE_GOLDEN=1 cargo test -p doorward-core --test core golden` writes them again.

use std::{env, fs, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use doorward_core::{
    decision::Denial,
    jose::{Algorithm, AlgorithmSet, JwkSet, Selection, sign::SigningKey},
    reason::Reason,
    time::{Now, Timestamp},
    token::{self, TokenPolicy},
};
use serde_json::{Value, json};

use crate::vectors::{load, root, text};

const FILE: &str = "golden/license-jwt.json";
const NOW: i64 = 1_748_000_000;
const ISSUER: &str = "https://keygen.example.test";
const ACCOUNT: &str = "acct-golden";
const PRODUCT: &str = "prod-golden";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

fn claims() -> Value {
    json!({
        "sub": "user-golden", "email": "user@example.test", "iss": ISSUER, "aud": PRODUCT,
        "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 3600,
    })
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

fn mint(seed: u8, kid: &str, claims: &Value) -> String {
    key(seed).mint("JWT", Some(kid), claims).unwrap()
}

fn unsigned(header: &Value) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(header), encode(&claims()))
}

/// Flips a bit in the middle of the signature. At its end there are spare bits, and a flip there may be no
/// change at all or a change of the encoding only.
fn tampered() -> String {
    let token = mint(1, "golden-1", &claims());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    let middle = signature.len() / 2;
    signature[middle] ^= 1;
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn masquerade() -> String {
    let public = key(1).public_jwk("golden-1");
    let public = BASE64_URL_SAFE_NO_PAD.decode(text(&public, "x")).unwrap();
    let token = unsigned(&json!({"alg": "HS256", "typ": "JWT", "kid": "golden-1"}));
    let mac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &public);
    let tag = aws_lc_rs::hmac::sign(&mac, token.as_bytes());
    format!("{token}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
}

fn generate() -> Value {
    let one = json!([key(1).public_jwk("golden-1")]);
    let rotated = json!([key(2).public_jwk("golden-2"), key(1).public_jwk("golden-1")]);
    let vector = |name: &str, description: &str, jwt: String, expected: &str, keys: &Value| {
        let expected = if expected == "valid" { json!("valid") } else { json!({ "error": expected }) };
        json!({"name": name, "description": description, "jwt": jwt, "jwks": {"keys": keys}, "now": NOW, "expected": expected})
    };
    let good = |claims: &Value| mint(1, "golden-1", claims);
    let none = unsigned(&json!({"alg": "none", "typ": "JWT", "kid": "golden-1"})) + ".";
    json!({
        "$issuer": ISSUER, "$account_id": ACCOUNT, "$product_id": PRODUCT,
        "$coverage": ["valid", "expired", "claim", "signature", "alg", "kid"],
        "vectors": [
            vector("valid_eddsa_fresh", "fresh and signed by the published key", good(&claims()), "valid", &one),
            vector("expired", "ended a minute ago", good(&with("exp", NOW - 60)), "expired", &one),
            vector("wrong_iss", "another issuer", good(&with("iss", "https://evil.example.test")), "claim", &one),
            vector("wrong_aud", "another product", good(&with("aud", "prod-other")), "claim", &one),
            vector("nbf_future", "begins in five minutes", good(&with("nbf", NOW + 300)), "claim", &one),
            vector("tampered_signature", "one bit in the middle of the signature flipped", tampered(), "signature", &one),
            vector("alg_none", "unsigned", none, "alg", &one),
            vector("alg_hs256_masquerade", "HMAC keyed with the public key", masquerade(), "alg", &one),
            vector("kid_unknown", "names a key that is not published", mint(1, "golden-9", &claims()), "kid", &one),
            vector("post_rotation_kid_matched", "signed by the newer of two published keys", mint(2, "golden-2", &claims()), "valid", &rotated),
            vector("wrong_key_for_kid", "signed by another key than the one it names", mint(3, "golden-1", &claims()), "signature", &one),
        ],
    })
}

fn judge(vector: &Value, file: &Value) -> Result<(), Denial> {
    let policy = TokenPolicy {
        issuer: text(file, "$issuer").to_owned(),
        aliases: vec![],
        audiences: vec![text(file, "$product_id").to_owned()],
        algorithms: AlgorithmSet::of(&[Algorithm::EdDsa]),
        required_claims: vec!["email".to_owned()],
        clock_tolerance: Duration::from_secs(30),
        max_token_age: Some(Duration::from_secs(86_400)),
        kind: None,
    };
    let now = Now { wall: Timestamp::from_secs(vector["now"].as_i64().unwrap()), mono: Duration::ZERO };
    let keys = JwkSet::parse(vector["jwks"].to_string().as_bytes()).unwrap();
    let token = token::parse(text(vector, "jwt"))?;
    match keys.select(token.key_id(), token.algorithm()?) {
        Selection::Key(key) => token::verify(token, key, &policy, now).map(|_| ()),
        Selection::Mismatch => Err(Reason::TokenKeyMismatch.into()),
        Selection::Unknown => Err(Reason::TokenUnknownKey.into()),
    }
}

/// The origin's category of a reason (B15).
fn category(reason: Reason) -> &'static str {
    match reason {
        Reason::TokenExpired => "expired",
        Reason::TokenWrongIssuer | Reason::TokenWrongAudience | Reason::TokenNotYetValid => "claim",
        Reason::TokenBadSignature => "signature",
        Reason::TokenAlgNotAllowed => "alg",
        Reason::TokenUnknownKey => "kid",
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_golden_file_is_what_the_generator_makes() {
    let made = serde_json::to_string_pretty(&generate()).unwrap() + "\n";
    let path = root().join("vectors").join(FILE);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &made).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), made, "drifted; run again with UPDATE_GOLDEN=1");
}

#[test]
fn all_eleven_golden_tokens_get_their_verdict() {
    let file = load("golden/license-jwt.json");
    let vectors = file["vectors"].as_array().unwrap();
    for vector in vectors {
        let verdict = judge(vector, &file);
        let expected = vector["expected"]["error"].as_str();
        assert_eq!(verdict.err().map(|denial| category(denial.reason)), expected, "{}", vector["name"]);
    }
    assert_eq!(vectors.len(), 11);
}
