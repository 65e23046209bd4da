//! Keys of a test issuer: made, published and signed with.

use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    rsa::{self, KeySize},
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Value, json};

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// P-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSA with 2048 bits, PKCS#1 v1.5.
    #[serde(rename = "RS256")]
    Rs256,
}

impl Algorithm {
    /// The name in a header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

enum Signer {
    EdDsa(Ed25519KeyPair),
    Es256(EcdsaKeyPair),
    Rs256(rsa::KeyPair),
}

/// A key pair with its id.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) algorithm: Algorithm,
    signer: Signer,
}

impl Key {
    pub(super) fn generate(id: String, algorithm: Algorithm) -> Self {
        let signer = match algorithm {
            Algorithm::EdDsa => Signer::EdDsa(Ed25519KeyPair::generate().unwrap()),
            Algorithm::Es256 => {
                Signer::Es256(EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
            }
            Algorithm::Rs256 => Signer::Rs256(rsa::KeyPair::generate(KeySize::Rsa2048).unwrap()),
        };
        Self { id, algorithm, signer }
    }

    /// The public key as it is published (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
    pub(super) fn jwk(&self) -> Value {
        let mut jwk = match &self.signer {
            Signer::EdDsa(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())}),
            Signer::Es256(pair) => {
                // 04 ‖ x ‖ y (SEC 1 §2.3.3).
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)})
            }
            Signer::Rs256(pair) => {
                // SubjectPublicKeyInfo of a 2048-bit key ends with 256 bytes of modulus and INTEGER 65537.
                let der = pair.public_key().as_der().unwrap();
                let modulus = &der.as_ref()[der.as_ref().len() - 5 - 256..der.as_ref().len() - 5];
                json!({"kty": "RSA", "n": encode(modulus), "e": "AQAB"})
            }
        };
        jwk["kid"] = json!(self.id);
        jwk["alg"] = json!(self.algorithm.as_str());
        jwk["use"] = json!("sig");
        jwk
    }

    /// The public key as DER (SubjectPublicKeyInfo); RSA only.
    pub(super) fn spki(&self) -> Option<Vec<u8>> {
        match &self.signer {
            Signer::Rs256(pair) => Some(pair.public_key().as_der().unwrap().as_ref().to_vec()),
            Signer::EdDsa(_) | Signer::Es256(_) => None,
        }
    }

    /// A compact JWS over whatever header and claims it is given.
    #[allow(clippy::disallowed_methods, reason = "test keys only; the library wants a generator for RSA and ECDSA")]
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> String {
        let input = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let random = SystemRandom::new();
        let signature = match &self.signer {
            Signer::EdDsa(pair) => pair.sign(input.as_bytes()).as_ref().to_vec(),
            Signer::Es256(pair) => pair.sign(&random, input.as_bytes()).unwrap().as_ref().to_vec(),
            Signer::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, input.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        format!("{input}.{}", encode(&signature))
    }
}

/// base64url without padding (RFC 7515 §2).
pub(super) fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
