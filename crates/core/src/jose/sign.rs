//! Signing tokens of our own with Ed25519 (RFC 8037).

use std::fmt;

use aws_lc_rs::{
    error::KeyRejected,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{base64url, public_key::PublicKey};

/// The header that we write.
#[derive(Serialize)]
pub(super) struct Protected<'a> {
    pub(super) alg: &'a str,
    pub(super) typ: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kid: Option<&'a str>,
}

/// `base64url(header) "." base64url(claims)`.
pub(super) fn signing_input(header: &Protected<'_>, claims: &impl Serialize) -> Result<String, serde_json::Error> {
    let (header, claims) = (serde_json::to_vec(header)?, serde_json::to_vec(claims)?);
    let mut token = String::with_capacity((header.len() + claims.len()) * 4 / 3 + 100);
    base64url::encode_onto(&header, &mut token);
    token.push('.');
    base64url::encode_onto(&claims, &mut token);
    Ok(token)
}

pub(super) fn append_signature(token: &mut String, signature: &[u8]) {
    token.push('.');
    base64url::encode_onto(signature, token);
}

/// An Ed25519 private key. Does not print.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// From the 32 secret bytes (RFC 8032 §5.1.5), random or derived.
    ///
    /// # Errors
    /// Where the library refuses them.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyRejected> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self)
    }

    /// Mints a token of type `kind` under `kid`.
    ///
    /// # Errors
    /// Where `claims` cannot be written as JSON.
    pub fn mint(&self, kind: &str, kid: Option<&str>, claims: &impl Serialize) -> Result<String, serde_json::Error> {
        let mut token = signing_input(&Protected { alg: "EdDSA", typ: kind, kid }, claims)?;
        let signature = self.0.sign(token.as_bytes());
        append_signature(&mut token, signature.as_ref());
        Ok(token)
    }

    /// The signature over `message` (RFC 8032 §5.1.6), for what is no token.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }

    /// The public key as a JWK to publish.
    pub fn public_jwk(&self, kid: &str) -> Value {
        let x = base64url::encode(self.0.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig", "alg": "EdDSA"})
    }

    /// The public key, for verifying; `None` for a seed whose public point is refused, which no random seed has.
    pub fn public_key(&self) -> Option<PublicKey> {
        PublicKey::ed25519(self.0.public_key().as_ref()).ok()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jose::{Algorithm, Compact, JwkSet, Selection};

    #[test]
    fn a_minted_token_verifies_with_the_published_key() {
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let token = key.mint("doorward-assertion+jwt", Some("k1"), &json!({"sub": "u"})).unwrap();
        let set = JwkSet::parse(json!({"keys": [key.public_jwk("k1")]}).to_string().as_bytes()).unwrap();
        let jws = Compact::parse(&token).unwrap();
        let Selection::Key(public) = set.select(jws.header().key_id.as_deref(), Algorithm::EdDsa) else {
            panic!("the key was not found");
        };
        assert!(public.is_signature(Algorithm::EdDsa, jws.signing_input(), jws.signature()));
        assert_eq!(key.public_key().as_ref(), Some(&**public));
        assert_eq!(format!("{key:?}"), "SigningKey(…)");
    }
}
