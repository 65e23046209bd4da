//! Keys of the account, and what is signed with them.

use std::sync::OnceLock;

use aws_lc_rs::{
    digest::{SHA256, digest},
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{self, KeySize},
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::ACCOUNT;

/// How it signs. The fourth of Keygen's, RSA-PSS, is covered by recorded answers: no library here signs with its salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Unless something else is asked for.
    Ed25519,
    /// P-256, the signature in DER.
    EcdsaP256,
    /// PKCS#1 v1.5.
    RsaSha256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ed25519, Self::EcdsaP256, Self::RsaSha256];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256 => "ecdsa-p256",
            Self::RsaSha256 => "rsa-sha256",
        }
    }
}

pub(super) struct Keys {
    ed25519: Ed25519KeyPair,
    p256: EcdsaKeyPair,
    /// Made when it is first used: that takes a while.
    rsa: OnceLock<rsa::KeyPair>,
}

impl Keys {
    pub(super) fn generate() -> Self {
        Self {
            ed25519: Ed25519KeyPair::generate().unwrap(),
            p256: EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_ASN1_SIGNING).unwrap(),
            rsa: OnceLock::new(),
        }
    }

    fn rsa(&self) -> &rsa::KeyPair {
        self.rsa.get_or_init(|| rsa::KeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    /// Hex for Ed25519, DER (SubjectPublicKeyInfo) in base64 for the others.
    pub(super) fn public(&self, algorithm: Algorithm) -> String {
        let der = |der: PublicKeyX509Der<'_>| BASE64_STANDARD.encode(der.as_ref());
        match algorithm {
            Algorithm::Ed25519 => self.ed25519.public_key().as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
            Algorithm::EcdsaP256 => der(self.p256.public_key().as_der().unwrap()),
            Algorithm::RsaSha256 => der(self.rsa().public_key().as_der().unwrap()),
        }
    }

    /// As `data.meta.keys` of the account shows it: hex, or PEM, in base64 once more.
    pub(super) fn published(&self, algorithm: Algorithm) -> String {
        let public = self.public(algorithm);
        BASE64_STANDARD.encode(match algorithm {
            Algorithm::Ed25519 => public,
            Algorithm::EcdsaP256 | Algorithm::RsaSha256 => {
                format!("-----BEGIN PUBLIC KEY-----\n{public}\n-----END PUBLIC KEY-----\n")
            }
        })
    }

    #[allow(clippy::disallowed_methods, reason = "test keys only; the library wants a generator for RSA and ECDSA")]
    fn sign(&self, algorithm: Algorithm, text: &[u8]) -> String {
        let random = SystemRandom::new();
        BASE64_STANDARD.encode(match algorithm {
            Algorithm::Ed25519 => self.ed25519.sign(text).as_ref().to_vec(),
            Algorithm::EcdsaP256 => self.p256.sign(&random, text).unwrap().as_ref().to_vec(),
            Algorithm::RsaSha256 => {
                let mut signature = vec![0; self.rsa().public_modulus_len()];
                self.rsa().sign(&signature::RSA_PKCS1_SHA256, &random, text, &mut signature).unwrap();
                signature
            }
        })
    }

    /// The headers of a message that was signed at `now`; `target` and `host` as the other side will see them.
    pub(super) fn headers(
        &self,
        algorithm: Algorithm,
        (method, target, host): (&str, &str, &str),
        now: i64,
        body: &[u8],
    ) -> Vec<(String, String)> {
        let date = http_date(now);
        let digest = format!("sha-256={}", BASE64_STANDARD.encode(digest(&SHA256, body)));
        let method = method.to_ascii_lowercase();
        let text = format!("(request-target): {method} {target}\nhost: {host}\ndate: {date}\ndigest: {digest}");
        let signature = self.sign(algorithm, text.as_bytes());
        let header = signature_header(ACCOUNT, algorithm, &signature);
        let pairs = [
            ("Date", &date),
            ("Digest", &digest),
            ("Keygen-Date", &date),
            ("Keygen-Digest", &digest),
            ("Keygen-Signature", &header),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.clone())).into()
    }
}

pub(super) fn signature_header(account: &str, algorithm: Algorithm, signature: &str) -> String {
    let algorithm = algorithm.as_str();
    format!(
        "keyid=\"{account}\", algorithm=\"{algorithm}\", signature=\"{signature}\", \
         headers=\"(request-target) host date digest\""
    )
}

fn at(millis: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(millis).unwrap()
}

/// RFC 9110 §5.6.7.
pub(super) fn http_date(millis: i64) -> String {
    at(millis).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// As documents have it.
pub(super) fn timestamp(millis: i64) -> String {
    at(millis).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
