//! Keys that no verifier can use, each broken in its own way, to be published beside good ones.

use serde::Deserialize;
use serde_json::{Value, json};

use super::key::{Algorithm, Key, encode};

/// A way for a published key to be unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Poison {
    /// A key type that nobody knows yet.
    UnknownType,
    /// A curve that nobody knows yet.
    UnknownCurve,
    /// Not an object at all.
    NotAnObject,
    /// No `kty`.
    NoType,
    /// A `kid` that is a number.
    NumericId,
    /// An RSA modulus that is not base64url.
    BadBase64,
    /// An RSA key without its modulus.
    NoModulus,
    /// An RSA key of 512 bits.
    WeakRsa,
    /// An RSA key of 16384 bits: slow to verify with.
    HugeRsa,
    /// An RSA key with the exponent 1, under which everybody can sign.
    ExponentOne,
    /// A point that is not on its curve.
    OffCurve,
    /// An Ed25519 key of 31 bytes.
    ShortKey,
    /// A symmetric key, published.
    Symmetric,
    /// A private key, published.
    Private,
    /// A key for encryption, of a kind that could verify.
    Encryption,
}

impl Poison {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::UnknownType,
        Self::UnknownCurve,
        Self::NotAnObject,
        Self::NoType,
        Self::NumericId,
        Self::BadBase64,
        Self::NoModulus,
        Self::WeakRsa,
        Self::HugeRsa,
        Self::ExponentOne,
        Self::OffCurve,
        Self::ShortKey,
        Self::Symmetric,
        Self::Private,
        Self::Encryption,
    ];

    /// What it is, in a few words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::UnknownType => "a key type of the future",
            Self::UnknownCurve => "a curve of the future",
            Self::NotAnObject => "a number in place of a key",
            Self::NoType => "a key without `kty`",
            Self::NumericId => "a `kid` that is a number",
            Self::BadBase64 => "a modulus that is not base64url",
            Self::NoModulus => "an RSA key without modulus",
            Self::WeakRsa => "an RSA key of 512 bits",
            Self::HugeRsa => "an RSA key of 16384 bits",
            Self::ExponentOne => "an RSA key with exponent 1",
            Self::OffCurve => "a point off its curve",
            Self::ShortKey => "an Ed25519 key of 31 bytes",
            Self::Symmetric => "a symmetric key",
            Self::Private => "a private key",
            Self::Encryption => "a key for encryption",
        }
    }

    /// The member of `keys` that it stands for; its id is `poison`.
    pub(super) fn jwk(self) -> Value {
        let rsa = |bytes: usize, e: &str| {
            // Odd and of full length; nobody looks for its factors.
            let modulus = encode(&vec![0xc5; bytes]);
            json!({"kty": "RSA", "kid": "poison", "alg": "RS256", "use": "sig", "n": modulus, "e": e})
        };
        let good = |algorithm| Key::generate("poison".to_owned(), algorithm).jwk();
        match self {
            Self::UnknownType => {
                json!({"kty": "AKP", "kid": "poison", "alg": "ML-DSA-65", "pub": encode(&[7; 1952])})
            }
            Self::UnknownCurve => json!({"kty": "OKP", "crv": "Ed25521", "kid": "poison", "x": encode(&[7; 64])}),
            Self::NotAnObject => json!(42),
            Self::NoType => json!({"kid": "poison", "alg": "EdDSA", "x": encode(&[7; 32])}),
            Self::NumericId => {
                let mut jwk = good(Algorithm::EdDsa);
                jwk["kid"] = json!(17);
                jwk
            }
            Self::BadBase64 => {
                let mut jwk = rsa(256, "AQAB");
                jwk["n"] = json!("this is/not+base64url==");
                jwk
            }
            Self::NoModulus => json!({"kty": "RSA", "kid": "poison", "alg": "RS256", "e": "AQAB"}),
            Self::WeakRsa => rsa(64, "AQAB"),
            Self::HugeRsa => rsa(2048, "AQAB"),
            Self::ExponentOne => rsa(256, "AQ"),
            Self::OffCurve => {
                let mut jwk = good(Algorithm::Es256);
                jwk["y"] = jwk["x"].clone();
                jwk
            }
            Self::ShortKey => json!({"kty": "OKP", "crv": "Ed25519", "kid": "poison", "x": encode(&[7; 31])}),
            Self::Symmetric => json!({"kty": "oct", "kid": "poison", "alg": "HS256", "k": encode(&[7; 32])}),
            Self::Private => {
                let mut jwk = good(Algorithm::EdDsa);
                jwk["d"] = json!(encode(&[9; 32]));
                jwk
            }
            Self::Encryption => {
                let mut jwk = rsa(256, "AQAB");
                jwk["use"] = json!("enc");
                jwk["alg"] = json!("RSA-OAEP-256");
                jwk
            }
        }
    }
}
