//! Tokens that nobody should accept.

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::key::{Algorithm, Key, encode};

/// A way to cheat. Everything that is not mentioned is as in a good token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forgery {
    /// `alg: none`, no signature (RFC 8725 §2.1).
    None,
    /// `alg: NoNe`.
    NoneInMixedCase,
    /// HS256 with the public key as PEM for a secret.
    HmacWithPem,
    /// HS256 with the public key as DER for a secret.
    HmacWithDer,
    /// HS256 with the published JWK member (`n` or `x`) for a secret.
    HmacWithMember,
    /// Another algorithm's name over the right signature.
    Relabelled(String),
    /// The attacker's key in `jwk`, signed with it.
    EmbeddedKey,
    /// The attacker's key set in `jku`, signed with a key that is not there.
    Jku(String),
    /// The attacker's certificate in `x5u`.
    X5u(String),
    /// This `kid`, signed by the attacker.
    Kid(Value),
    /// A `kid` of this many bytes.
    LongKid(usize),
    /// The right `kid`, signed by the attacker.
    Signature,
    /// No signature.
    NoSignature,
    /// A critical extension that nobody knows (RFC 7515 §4.1.11).
    Critical,
    /// An unencoded payload (RFC 7797).
    Unencoded,
}

impl Forgery {
    pub(super) fn token(&self, key: &Key, claims: &Value) -> String {
        let mut header = json!({"alg": key.algorithm.as_str(), "kid": key.id, "typ": "at+jwt"});
        let attacker = || Key::generate(key.id.clone(), key.algorithm);
        let unsigned = |header: &Value| {
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
        };
        let keyed = |mut header: Value, secret: &[u8]| {
            header["alg"] = json!("HS256");
            let input = unsigned(&header);
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
            format!("{input}.{}", encode(tag.as_ref()))
        };
        match self {
            Self::None | Self::NoneInMixedCase => {
                header["alg"] = json!(if *self == Self::None { "none" } else { "NoNe" });
                unsigned(&header) + "."
            }
            Self::HmacWithPem => keyed(header, pem(key).as_bytes()),
            Self::HmacWithDer => keyed(header, &key.spki().unwrap_or_else(|| pem(key).into_bytes())),
            Self::HmacWithMember => {
                let jwk = key.jwk();
                let member = if key.algorithm == Algorithm::Rs256 { &jwk["n"] } else { &jwk["x"] };
                keyed(header, member.as_str().unwrap().as_bytes())
            }
            Self::Relabelled(name) => {
                header["alg"] = json!(name);
                key.sign(&header, claims)
            }
            Self::EmbeddedKey => {
                let attacker = attacker();
                header["jwk"] = attacker.jwk();
                attacker.sign(&header, claims)
            }
            Self::Jku(url) => {
                header["jku"] = json!(url);
                header["kid"] = json!("attacker");
                attacker().sign(&header, claims)
            }
            Self::X5u(url) => {
                header["x5u"] = json!(url);
                attacker().sign(&header, claims)
            }
            Self::Kid(kid) => {
                header["kid"] = kid.clone();
                attacker().sign(&header, claims)
            }
            Self::LongKid(bytes) => {
                header["kid"] = json!("k".repeat(*bytes));
                attacker().sign(&header, claims)
            }
            Self::Signature => attacker().sign(&header, claims),
            Self::NoSignature => unsigned(&header) + ".",
            Self::Critical => {
                header["crit"] = json!(["exp-at-noon"]);
                header["exp-at-noon"] = json!(true);
                key.sign(&header, claims)
            }
            Self::Unencoded => {
                header["b64"] = json!(false);
                header["crit"] = json!(["b64"]);
                key.sign(&header, claims)
            }
        }
    }
}

/// The public key as people paste it, RSA in its usual armour, others as their JWK.
fn pem(key: &Key) -> String {
    let Some(der) = key.spki() else { return key.jwk().to_string() };
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}
