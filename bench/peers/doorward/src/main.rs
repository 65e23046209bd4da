//! Judges the cases on standard input with `doorward-core`: a line `accept`, `reject` or `panic` for each.
//!
//! Run by `bench/peers/run.py` as `doorward-judge documented KIND`; what a case is stands there.

use std::{
    env, io, panic,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use doorward_core::{
    jose::{Algorithm, AlgorithmSet, Compact, HeaderAlgorithm, JwkSet, Selection, hs256},
    time::{Now, Timestamp},
    token::{self, TokenPolicy},
};
use serde_json::{Value, json};

fn main() {
    let kind = env::args().nth(2).expect("KIND");
    let given: Value = serde_json::from_reader(io::stdin()).expect("cases");
    panic::set_hook(Box::new(|_| {}));
    for case in given["cases"].as_array().expect("cases") {
        let judged = panic::catch_unwind(|| match kind.as_str() {
            "raw" => raw(case),
            "jws" => jws(case),
            _ => strict(case, &given),
        });
        println!("{}", match judged {
            Ok(Some(())) => "accept",
            Ok(None) => "reject",
            Err(_) => "panic",
        });
    }
}

fn names(case: &Value) -> impl Iterator<Item = &str> {
    case["algorithms"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn bytes(text: &Value) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text.as_str()?).ok()
}

fn keys(case: &Value) -> Option<JwkSet> {
    let set = if case["jwk"].is_null() { case["jwks"].clone() } else { json!({"keys": [case["jwk"]]}) };
    JwkSet::parse(set.to_string().as_bytes()).ok()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

fn raw(case: &Value) -> Option<()> {
    let algorithm = Algorithm::parse(names(case).next()?)?;
    let set = keys(case)?;
    let (_, key) = set.keys().next()?;
    key.is_signature(algorithm, &hex(case["message"].as_str()?)?, &bytes(&case["signature"])?).then_some(())
}

/// The payload is any bytes.
fn jws(case: &Value) -> Option<()> {
    let text = case["token"].as_str()?;
    // Secrets are never an issuer's: one by itself is judged as the key of tokens of our own.
    if case["jwk"]["kty"] == "oct" {
        return hs256::open(&hs256::MacKey::new(&bytes(&case["jwk"]["k"])?).ok()?, text).ok().map(drop);
    }
    let token = Compact::parse(text).ok()?;
    let HeaderAlgorithm::Signature(algorithm) = token.header().algorithm else { return None };
    if !names(case).any(|name| Algorithm::parse(name) == Some(algorithm)) {
        return None;
    }
    let set = keys(case)?;
    let Selection::Key(key) = set.select(token.header().key_id.as_deref(), algorithm) else { return None };
    key.is_signature(algorithm, token.signing_input(), token.signature()).then_some(())
}

fn strict(case: &Value, given: &Value) -> Option<()> {
    let algorithms: Vec<Algorithm> = names(case).filter_map(Algorithm::parse).collect();
    let policy = TokenPolicy {
        issuer: given["issuer"].as_str()?.to_owned(),
        aliases: vec![],
        audiences: vec![given["audience"].as_str()?.to_owned()],
        algorithms: AlgorithmSet::of(&algorithms),
        required_claims: vec![],
        clock_tolerance: Duration::from_secs(given["leeway"].as_u64()?),
        max_token_age: None,
        kind: case["typ"].as_str().map(str::to_owned),
    };
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let now = Now { wall: Timestamp::from_secs(i64::try_from(seconds).ok()?), mono: Duration::ZERO };
    let token = token::parse(case["token"].as_str()?).ok()?;
    let set = keys(case)?;
    let Selection::Key(key) = set.select(token.key_id(), token.algorithm().ok()?) else { return None };
    token::verify(token, key, &policy, now).ok().map(drop)
}
