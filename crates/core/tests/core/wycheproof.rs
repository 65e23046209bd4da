//! Project Wycheproof: JOSE sets and raw signatures (G1 of the security plan).

use doorward_core::{
    decision::Denial,
    jose::{Algorithm, Compact, HeaderAlgorithm, JwkSet, KeyProblem, PublicKey, Selection, hs256},
    reason::Reason,
};
use serde_json::{Value, json};

use crate::{
    jose_examples::decode,
    vectors::{load, text},
};

/// Cases of `json_web_signature_test.json` whose label is wrong, and what is right.
const DISPUTED: &[(u64, bool, &str)] = &[
    (346, false, "the key is bound to PS256, the token says PS384"),
    (347, false, "the key is labelled ES521, which is no algorithm; P-521 is not supported"),
    (350, false, "as 346"),
    (351, false, "as 347"),
    (367, true, "marked invalid, and is the same text as the valid case 357"),
    (370, true, "as 367"),
    (372, false, "marked valid, and holds a `?`, which is not base64url"),
    (373, false, "as 372"),
];

fn tests(file: &Value) -> Vec<(&Value, &Value)> {
    let groups = file["testGroups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["tests"].as_array().unwrap().iter().map(move |test| (group, test))).collect()
}

/// Verifies with the keys of an issuer: parsed, chosen, checked; the payload is any bytes.
fn verify_with(keys: &JwkSet, token: &str) -> Result<(), Denial> {
    let jws = Compact::parse(token)?;
    let HeaderAlgorithm::Signature(algorithm) = jws.header().algorithm else {
        return Err(Reason::TokenAlgNotAllowed.into());
    };
    match keys.select(jws.header().key_id.as_deref(), algorithm) {
        Selection::Key(key) if key.is_signature(algorithm, jws.signing_input(), jws.signature()) => Ok(()),
        Selection::Key(_) => Err(Reason::TokenBadSignature.into()),
        Selection::Mismatch => Err(Reason::TokenKeyMismatch.into()),
        Selection::Unknown => Err(Reason::TokenUnknownKey.into()),
    }
}

/// Verifies as our own HS256 token, with a key that we chose by hand.
fn verify_own(key: &Value, token: &str) -> bool {
    let bytes = decode(text(key, "k"));
    hs256::MacKey::new(&bytes).is_ok_and(|key| hs256::open(&key, token).is_ok())
}

fn set_of(keys: &Value) -> JwkSet {
    let set = if keys["keys"].is_array() { keys.clone() } else { json!({ "keys": [keys] }) };
    JwkSet::parse(set.to_string().as_bytes()).unwrap()
}

#[test]
fn all_401_signatures_of_json_web_signature_are_judged_right() {
    let file = load("wycheproof/json_web_signature_test.json");
    let (mut undisputed, mut disputed, mut wrong) = (0, 0, Vec::new());
    for (group, test) in tests(&file) {
        let (id, token) = (test["tcId"].as_u64().unwrap(), text(test, "jws"));
        let is_accepted = match &group["public"] {
            Value::Null => verify_own(&group["private"], token),
            key => verify_with(&set_of(key), token).is_ok(),
        };
        let expected = match DISPUTED.iter().find(|(known, ..)| *known == id) {
            Some((_, expected, _)) => {
                disputed += 1;
                *expected
            }
            None => {
                undisputed += 1;
                text(test, "result") == "valid"
            }
        };
        if is_accepted != expected {
            wrong.push(format!("tc{id} {}: accepted {is_accepted}", text(test, "comment")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((undisputed, disputed), (393, 8));
}

#[test]
fn all_26_key_sets_of_json_web_key_are_judged_by_our_policy() {
    // Valid by the vectors and refused here: symmetric keys never come from a set.
    const REFUSED_BY_POLICY: &[u64] = &[2, 13, 14, 15];
    let file = load("wycheproof/json_web_key_test.json");
    let mut count = 0;
    for (group, test) in tests(&file) {
        let id = test["tcId"].as_u64().unwrap();
        let keys = if group["public"].is_null() { &group["private"] } else { &group["public"] };
        let set = set_of(keys);
        let is_accepted = verify_with(&set, text(test, "jws")).is_ok();
        let is_valid = text(test, "result") == "valid" && !REFUSED_BY_POLICY.contains(&id);
        assert_eq!(is_accepted, is_valid, "tc{id} {}: {:?}", text(test, "comment"), set.skipped());
        if REFUSED_BY_POLICY.contains(&id) {
            assert!(set.skipped().iter().all(|key| key.problem == KeyProblem::Symmetric), "tc{id}");
        }
        count += 1;
    }
    assert_eq!(count, 26);
}

#[test]
fn the_keys_that_wycheproof_wants_refused_are_refused_for_the_right_cause() {
    let file = load("wycheproof/json_web_key_test.json");
    let causes = [
        (6, KeyProblem::NotForSigning),
        (7, KeyProblem::Roca),
        (8, KeyProblem::TooWeak),
        (9, KeyProblem::BadExponent),
        (19, KeyProblem::UnsupportedAlgorithm),
        (20, KeyProblem::UnsupportedAlgorithm),
        (21, KeyProblem::NotForSigning),
        (22, KeyProblem::NotOnCurve),
        (23, KeyProblem::Malformed("x")),
        (24, KeyProblem::Malformed("n")),
    ];
    for (wanted, cause) in causes {
        let tests = tests(&file);
        let (group, _) = tests.iter().find(|(_, test)| test["tcId"] == wanted).unwrap();
        let set = set_of(&group["public"]);
        assert_eq!(set.skipped().first().map(|key| &key.problem), Some(&cause), "tc{wanted}");
    }
}

#[test]
fn json_web_crypto_is_judged_right_and_what_is_encrypted_is_refused() {
    let file = load("wycheproof/json_web_crypto_test.json");
    let (mut signed, mut encrypted) = (0, 0);
    for (group, test) in tests(&file) {
        let id = test["tcId"].as_u64().unwrap();
        // Some are in a JSON serialisation, which is no token here.
        let written = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if !test["jwe"].is_null() {
            let token = written(&test["jwe"]);
            assert_eq!(
                Compact::parse(&token).err().map(|denial| denial.reason),
                Some(Reason::TokenMalformed),
                "tc{id}"
            );
            encrypted += 1;
            continue;
        }
        let token = &written(&test["jws"]);
        let keys = if group["public"].is_null() { &group["private"] } else { &group["public"] };
        let is_accepted = match keys["kty"].as_str() {
            Some("oct") => verify_own(keys, token),
            _ => verify_with(&set_of(keys), token).is_ok(),
        };
        let is_symmetric_set = keys["keys"].as_array().is_some_and(|keys| keys.iter().any(|key| key["kty"] == "oct"));
        let is_valid = text(test, "result") == "valid" && !is_symmetric_set;
        assert_eq!(is_accepted, is_valid, "tc{id} {}", text(test, "comment"));
        signed += 1;
    }
    assert_eq!((signed, encrypted), (49, 34));
}

#[test]
fn no_encrypted_token_passes_for_a_signed_one() {
    let file = load("wycheproof/json_web_encryption_test.json");
    for (_, test) in tests(&file) {
        let Some(token) = test["jwe"].as_str() else { panic!("{test}") };
        assert_eq!(Compact::parse(token).err().map(|denial| denial.reason), Some(Reason::TokenMalformed), "{test}");
    }
}

/// Signature files and the algorithm that they are about.
const RAW: &[(&str, Algorithm)] = &[
    ("wycheproof/ed25519_test.json", Algorithm::EdDsa),
    ("wycheproof/ecdsa_secp256r1_sha256_p1363_test.json", Algorithm::Es256),
    ("wycheproof/ecdsa_secp384r1_sha384_p1363_test.json", Algorithm::Es384),
    ("wycheproof/rsa_signature_2048_sha256_test.json", Algorithm::Rs256),
    ("wycheproof/rsa_signature_2048_sha384_test.json", Algorithm::Rs384),
    ("wycheproof/rsa_signature_2048_sha512_test.json", Algorithm::Rs512),
    ("wycheproof/rsa_signature_3072_sha256_test.json", Algorithm::Rs256),
    ("wycheproof/rsa_signature_4096_sha512_test.json", Algorithm::Rs512),
    ("wycheproof/rsa_pss_2048_sha256_mgf1_32_test.json", Algorithm::Ps256),
    ("wycheproof/rsa_pss_2048_sha384_mgf1_48_test.json", Algorithm::Ps384),
    ("wycheproof/rsa_pss_3072_sha256_mgf1_32_test.json", Algorithm::Ps256),
    ("wycheproof/rsa_pss_4096_sha512_mgf1_64_test.json", Algorithm::Ps512),
];

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn key_of(group: &Value) -> Result<PublicKey, KeyProblem> {
    let key = PublicKey::parse_text(text(group, "publicKeyPem"));
    assert_eq!(key, PublicKey::parse_der(&hex(text(group, "publicKeyDer"))), "PEM and DER say the same");
    key
}

#[test]
fn raw_signatures_of_our_algorithms_are_judged_right() {
    let (mut count, mut refused) = (0, 0);
    for (name, algorithm) in RAW {
        let file = load(name);
        for (group, test) in tests(&file) {
            let key = match key_of(group) {
                Ok(key) => key,
                // A sound key with e = 3, which we do not take from anybody.
                Err(KeyProblem::BadExponent) if group["publicKey"]["publicExponent"] == "03" => {
                    refused += 1;
                    continue;
                }
                Err(problem) => panic!("{name}: a key is refused: {problem}"),
            };
            let is_accepted = key.is_signature(*algorithm, &hex(text(test, "msg")), &hex(text(test, "sig")));
            let expected = match text(test, "result") {
                "valid" => true,
                // PKCS#1 v1.5 without the NULL of the hash's parameters: RFC 8017 §9.2 wants it.
                "invalid" | "acceptable" => false,
                other => panic!("{other}"),
            };
            assert_eq!(is_accepted, expected, "{name} tc{}", test["tcId"]);
            count += 1;
        }
    }
    assert_eq!((count, refused), (2519, 4));
}

#[test]
fn of_other_pss_parameters_only_ours_pass() {
    let file = load("wycheproof/rsa_pss_misc_test.json");
    let ours =
        [(Algorithm::Ps256, "SHA-256", 32), (Algorithm::Ps384, "SHA-384", 48), (Algorithm::Ps512, "SHA-512", 64)];
    let mut accepted = 0;
    for (group, test) in tests(&file) {
        let key = key_of(group).unwrap();
        for (algorithm, hash, salt) in ours {
            let is_ours = group["sha"] == hash && group["mgfSha"] == hash && group["sLen"] == salt;
            let is_accepted = key.is_signature(algorithm, &hex(text(test, "msg")), &hex(text(test, "sig")));
            assert_eq!(is_accepted, is_ours, "tc{} as {algorithm}", test["tcId"]);
            accepted += usize::from(is_accepted);
        }
    }
    assert!(accepted > 0, "not one set of parameters is ours");
}

#[test]
fn hmac_tags_are_judged_right_and_short_keys_refused() {
    let file = load("wycheproof/hmac_sha256_test.json");
    let (mut judged, mut refused) = (0, 0);
    for (group, test) in tests(&file).into_iter().filter(|(group, _)| group["tagSize"] == 256) {
        let key = hex(text(test, "key"));
        if key.len() < hs256::MIN_KEY_BYTES {
            assert!(hs256::MacKey::new(&key).is_err());
            refused += 1;
            continue;
        }
        // The message of a token is its own text; so the tag is checked on the primitive below it.
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
        let is_accepted = aws_lc_rs::hmac::verify(&key, &hex(text(test, "msg")), &hex(text(test, "tag"))).is_ok();
        assert_eq!(is_accepted, text(test, "result") == "valid", "tc{} {group}", test["tcId"]);
        judged += 1;
    }
    assert_eq!((judged, refused), (84, 3));
}

#[test]
fn p521_is_refused_as_a_key_and_as_an_algorithm() {
    let file = load("wycheproof/ecdsa_secp521r1_sha512_p1363_test.json");
    let mut count = 0;
    for (group, test) in tests(&file) {
        if let Some(key) = group["publicKeyJwk"].as_object() {
            let set = set_of(&Value::Object(key.clone()));
            assert!(set.is_empty() && set.skipped()[0].problem == KeyProblem::UnsupportedType, "{key:?}");
        }
        assert_eq!(PublicKey::parse_text(text(group, "publicKeyPem")), Err(KeyProblem::Unreadable));
        assert!(text(test, "result") == "valid" || text(test, "result") == "invalid");
        count += 1;
    }
    assert_eq!(count, 318);
    let token = Compact::parse("eyJhbGciOiJFUzUxMiJ9.e30.AAAA").unwrap();
    assert_eq!(token.header().algorithm, HeaderAlgorithm::Other);
}

#[test]
fn longer_hmacs_are_judged_right_below_us_and_refused_by_us() {
    use aws_lc_rs::hmac;
    for (name, bits, algorithm, header) in [
        ("wycheproof/hmac_sha384_test.json", 384, hmac::HMAC_SHA384, "eyJhbGciOiJIUzM4NCJ9"),
        ("wycheproof/hmac_sha512_test.json", 512, hmac::HMAC_SHA512, "eyJhbGciOiJIUzUxMiJ9"),
    ] {
        let file = load(name);
        let mut judged = 0;
        for (group, test) in tests(&file).into_iter().filter(|(group, _)| group["tagSize"] == bits) {
            let key = hmac::Key::new(algorithm, &hex(text(test, "key")));
            let is_accepted = hmac::verify(&key, &hex(text(test, "msg")), &hex(text(test, "tag"))).is_ok();
            assert_eq!(is_accepted, text(test, "result") == "valid", "{name} tc{} {group}", test["tcId"]);
            judged += 1;
        }
        assert_eq!(judged, 87, "{name}");
        // No token of anybody may use them: not even our own, which are HS256.
        let token = format!("{header}.e30.AAAA");
        assert_eq!(Compact::parse(&token).unwrap().header().algorithm, HeaderAlgorithm::Other);
        let key = hs256::MacKey::new(&[7; 64]).unwrap();
        assert_eq!(hs256::open(&key, &token).unwrap_err().reason, Reason::TokenAlgNotAllowed);
    }
}

/// Every way in which a published key can be too weak, malformed or meant for something else, one by one: the problem,
/// and a word of what `check` and `explain` say about it.
#[test]
fn keys_that_must_not_be_used_are_skipped_one_by_one_and_say_why() {
    let good = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let p256 = json!({"kty": "EC", "crv": "P-256", "x": "eZWDLehINXoAPu3kXrGPlmWhQn5YNKi3OcKur20AsTo",
        "y": "PeLX_fXmmrzymKEOpBEr2VUt6w0SO7uM7SXMeGkKjss"});
    let rsa = load("ietf-jose-cookbook/jwk/3_3.rsa_public_key.json");
    let roca = &load("wycheproof/json_web_key_test.json");
    let roca = tests(roca).iter().find(|(_, test)| test["tcId"] == 7).unwrap().0["public"].clone();
    let roca = if roca["keys"].is_array() { roca["keys"][0].clone() } else { roca };
    let with = |key: &Value, name: &str, value: Value| {
        let mut key = key.clone();
        key[name] = value;
        key
    };
    let encode = |bytes: &[u8]| base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, bytes);
    let modulus = |bits: usize| {
        let mut bytes = vec![0xff; bits / 8];
        bytes[0] = 0x80;
        encode(&bytes)
    };
    let mut order_8 = hex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");
    let cases = [
        (roca, KeyProblem::Roca, "CVE-2017-15361"),
        (with(&rsa, "e", json!("AQ")), KeyProblem::BadExponent, "exponent"),
        (with(&rsa, "e", json!("Aw")), KeyProblem::BadExponent, "65537"),
        (with(&rsa, "e", json!("AQAA")), KeyProblem::BadExponent, "odd"),
        (with(&rsa, "e", json!("AAEAAQ")), KeyProblem::BadExponent, "exponent"),
        (with(&rsa, "n", json!(modulus(1024))), KeyProblem::TooWeak, "fewer than 2048"),
        (with(&rsa, "n", json!(modulus(2040))), KeyProblem::TooWeak, "fewer than 2048"),
        (with(&rsa, "n", json!(modulus(8200))), KeyProblem::TooLarge, "more than 8192"),
        (with(&good, "x", json!(encode(&order_8))), KeyProblem::SmallOrder, "small order"),
        (with(&good, "x", json!(encode(&[0; 32]))), KeyProblem::SmallOrder, "small order"),
        (with(&good, "x", json!(encode(&[0xff; 32]))), KeyProblem::NotOnCurve, "point of its curve"),
        (with(&good, "x", json!(encode(&[1; 31]))), KeyProblem::Malformed("x"), "`x`"),
        (with(&p256, "y", json!(encode(&[1; 32]))), KeyProblem::NotOnCurve, "point of its curve"),
        (with(&p256, "x", json!(encode(&[0; 32]))), KeyProblem::NotOnCurve, "point of its curve"),
        (with(&p256, "x", json!(encode(&[1; 33]))), KeyProblem::Malformed("x"), "`x`"),
        (with(&good, "use", json!("enc")), KeyProblem::NotForSigning, "`use`"),
        (with(&good, "key_ops", json!(["sign"])), KeyProblem::NotForSigning, "`key_ops`"),
        (with(&good, "key_ops", json!("verify")), KeyProblem::Malformed("key_ops"), "`key_ops`"),
        (with(&good, "alg", json!("ES256")), KeyProblem::UnsupportedAlgorithm, "`alg`"),
        (with(&good, "alg", json!("ES512")), KeyProblem::UnsupportedAlgorithm, "`alg`"),
        (with(&rsa, "alg", json!("HS256")), KeyProblem::UnsupportedAlgorithm, "`alg`"),
        (with(&p256, "crv", json!("secp256k1")), KeyProblem::UnsupportedType, "type or curve"),
        (with(&good, "d", json!("AA")), KeyProblem::Private, "compromised"),
        (json!({"kty": "oct", "k": "AA"}), KeyProblem::Symmetric, "symmetric"),
    ];
    order_8[31] |= 0x80;
    let signed = with(&good, "x", json!(encode(&order_8)));
    for (key, problem, word) in cases.into_iter().chain([(signed, KeyProblem::SmallOrder, "small order")]) {
        // Beside a good one, which stays.
        let set = set_of(&json!({"keys": [with(&key, "kid", json!("bad")), with(&good, "kid", json!("good"))]}));
        let [skipped] = set.skipped() else { panic!("{key}: {:?}", set.skipped()) };
        assert_eq!((skipped.problem.clone(), set.len()), (problem, 1), "{key}");
        let said = skipped.to_string();
        assert!(said.contains(word) && said.contains("bad"), "{said}");
    }
}
