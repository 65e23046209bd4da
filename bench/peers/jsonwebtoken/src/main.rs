//! Judges the cases on standard input with `jsonwebtoken`: a line `accept`, `reject` or `panic` for each.
//!
//! Run by `bench/peers/run.py` as `jsonwebtoken-judge SETUP KIND`; what a case is stands there. `documented` is what its
//! documentation shows, `hardened` adds every check that it has and does not make by itself.

use std::{env, io, panic};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, crypto,
    jwk::{Jwk, JwkSet},
};
use serde_json::Value;

fn main() {
    let [_, setup, kind] = &env::args().collect::<Vec<_>>()[..] else { panic!("SETUP KIND") };
    let given: Value = serde_json::from_reader(io::stdin()).expect("cases");
    panic::set_hook(Box::new(|_| {}));
    for case in given["cases"].as_array().expect("cases") {
        let judged = panic::catch_unwind(|| match kind.as_str() {
            "raw" => raw(case),
            "jws" => jws(case),
            _ => strict(case, &given, setup == "hardened"),
        });
        println!("{}", match judged {
            Ok(Some(())) => "accept",
            Ok(None) => "reject",
            Err(_) => "panic",
        });
    }
}

fn is_allowed(case: &Value, algorithm: Algorithm) -> bool {
    let mut names = case["algorithms"].as_array().into_iter().flatten().filter_map(Value::as_str);
    names.any(|name| name.parse() == Ok(algorithm))
}

/// The key that the token names.
fn key(case: &Value, kid: Option<&str>) -> Option<DecodingKey> {
    let jwk: Jwk = match &case["jwk"] {
        Value::Null => serde_json::from_value::<JwkSet>(case["jwks"].clone()).ok()?.find(kid?)?.clone(),
        jwk => serde_json::from_value(jwk.clone()).ok()?,
    };
    DecodingKey::from_jwk(&jwk).ok()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

fn raw(case: &Value) -> Option<()> {
    let algorithm: Algorithm = case["algorithms"][0].as_str()?.parse().ok()?;
    let message = hex(case["message"].as_str()?)?;
    crypto::verify(case["signature"].as_str()?, &message, &key(case, None)?, algorithm).ok()?.then_some(())
}

/// The payload is any bytes, so `decode` cannot be asked.
fn jws(case: &Value) -> Option<()> {
    let text = case["token"].as_str()?;
    let header = jsonwebtoken::decode_header(text).ok()?;
    if !is_allowed(case, header.alg) {
        return None;
    }
    let (message, signature) = text.rsplit_once('.')?;
    // Whoever wants the payload has to decode it.
    BASE64_URL_SAFE_NO_PAD.decode(message.split_once('.')?.1).ok()?;
    crypto::verify(signature, message.as_bytes(), &key(case, header.kid.as_deref())?, header.alg).ok()?.then_some(())
}

fn strict(case: &Value, given: &Value, is_hardened: bool) -> Option<()> {
    let text = case["token"].as_str()?;
    let header = jsonwebtoken::decode_header(text).ok()?;
    let key = key(case, header.kid.as_deref())?;
    // One family at a time is what the library takes; the header's must be allowed.
    if !is_allowed(case, header.alg) {
        return None;
    }
    let mut validation = Validation::new(header.alg);
    validation.leeway = given["leeway"].as_u64()?;
    validation.set_issuer(&[given["issuer"].as_str()?]);
    validation.set_audience(&[given["audience"].as_str()?]);
    if is_hardened {
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        let is_kind = |typ: &str| {
            let typ = typ.to_ascii_lowercase();
            let typ = typ.strip_prefix("application/").unwrap_or(&typ);
            case["typ"].as_str().map_or(typ == "jwt" || typ == "at+jwt", |kind| typ.eq_ignore_ascii_case(kind))
        };
        if !header.typ.as_deref().is_none_or(is_kind) {
            return None;
        }
    }
    jsonwebtoken::decode::<Value>(text, &key, &validation).ok().map(drop)
}
