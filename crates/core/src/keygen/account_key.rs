//! The pinned public keys of an account.

use std::fmt;

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents};
use rsa::{BigUint, Pss, RsaPublicKey};
use sha2::{Digest as _, Sha256};

use super::{Algorithm, Problem, decode_standard};
use crate::jose::{KeyMaterial, KeyProblem};

/// The longest PSS salt at 2048 bits and SHA-256: 256 − 32 − 2 (RFC 8017 §9.1.1). Keygen always fills it, and
/// libraries that expect a salt as long as the digest refuse genuine signatures.
const PSS_SALT: usize = 222;
/// Longest text of a pinned key, in bytes.
const MAX_TEXT: usize = 4096;

/// Why a pinned key is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinProblem {
    /// The text is no public key in any form that Keygen or its tools show.
    Key(KeyProblem),
    /// Keygen's RSA keys have 2048 bits, its curve is P-256.
    NotOfKeygen,
    /// Two keys for one algorithm; an account has one.
    Twice,
}

impl fmt::Display for PinProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(problem) => problem.fmt(f),
            Self::NotOfKeygen => f.write_str("Keygen's keys are Ed25519, P-256 or RSA with 2048 bits; this is another"),
            Self::Twice => f.write_str("a second key of this type; an account has one"),
        }
    }
}

impl std::error::Error for PinProblem {}

#[derive(Clone)]
enum AccountKey {
    Ed25519(ParsedPublicKey),
    EcdsaP256(ParsedPublicKey),
    Rsa { pkcs1: ParsedPublicKey, public: RsaPublicKey },
}

/// The keys of one account, at most one of each type.
#[derive(Clone, Default)]
pub struct AccountKeys(Vec<AccountKey>);

/// In whatever order they were pinned.
impl PartialEq for AccountKeys {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && Algorithm::ALL.iter().all(|algorithm| self.has(*algorithm) == other.has(*algorithm))
            && self.differing(other).is_empty()
    }
}

impl Eq for AccountKeys {}

impl AccountKeys {
    /// Adds a key from text: hex, base64 of it (as `data.meta.keys` of the account has it), PEM, base64 of PEM,
    /// base64 of DER.
    ///
    /// # Errors
    /// [`PinProblem`].
    pub fn pin(&mut self, text: &str) -> Result<(), PinProblem> {
        let key = read(text)?;
        if self.0.iter().any(|held| std::mem::discriminant(held) == std::mem::discriminant(&key)) {
            return Err(PinProblem::Twice);
        }
        self.0.push(key);
        Ok(())
    }

    /// All of `texts`.
    ///
    /// # Errors
    /// The position of the first that is not used, and why.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, (usize, PinProblem)> {
        let mut keys = Self::default();
        for (at, text) in texts.iter().enumerate() {
            keys.pin(text.as_ref()).map_err(|problem| (at, problem))?;
        }
        Ok(keys)
    }

    /// Whether none is pinned.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a key of `algorithm` is pinned.
    pub fn has(&self, algorithm: Algorithm) -> bool {
        self.find(algorithm).is_some()
    }

    /// Algorithms for which both hold a key, and not the same one.
    pub fn differing(&self, other: &Self) -> Vec<Algorithm> {
        let differs = |algorithm: &Algorithm| match (self.find(*algorithm), other.find(*algorithm)) {
            (Some(AccountKey::Ed25519(a)), Some(AccountKey::Ed25519(b)))
            | (Some(AccountKey::EcdsaP256(a)), Some(AccountKey::EcdsaP256(b))) => a.as_ref() != b.as_ref(),
            (Some(AccountKey::Rsa { public: a, .. }), Some(AccountKey::Rsa { public: b, .. })) => a != b,
            _ => false,
        };
        Algorithm::ALL.iter().copied().filter(differs).collect()
    }

    fn find(&self, algorithm: Algorithm) -> Option<&AccountKey> {
        self.0.iter().find(|key| match key {
            AccountKey::Ed25519(_) => algorithm == Algorithm::Ed25519,
            AccountKey::EcdsaP256(_) => algorithm == Algorithm::EcdsaP256,
            AccountKey::Rsa { .. } => matches!(algorithm, Algorithm::RsaSha256 | Algorithm::RsaPssSha256),
        })
    }

    /// Verifies `signature` over `message`.
    ///
    /// # Errors
    /// [`Problem::NoKey`], [`Problem::BadSignature`].
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), Problem> {
        let is_signature = match self.find(algorithm).ok_or(Problem::NoKey(algorithm))? {
            AccountKey::Ed25519(key) | AccountKey::EcdsaP256(key) => key.verify_sig(message, signature).is_ok(),
            AccountKey::Rsa { public, .. } if algorithm == Algorithm::RsaPssSha256 => {
                public.verify(Pss::new_with_salt::<Sha256>(PSS_SALT), &Sha256::digest(message), signature).is_ok()
            }
            AccountKey::Rsa { pkcs1, .. } => pkcs1.verify_sig(message, signature).is_ok(),
        };
        if is_signature { Ok(()) } else { Err(Problem::BadSignature) }
    }

    /// What `block` was before the account's RSA private key was applied to it (RFC 8017 §5.2.2, RSAVP1), with the
    /// padding of a signature (§9.2, type 1) taken off.
    pub(super) fn recover(&self, block: &[u8]) -> Result<Vec<u8>, Problem> {
        let Some(AccountKey::Rsa { public, .. }) = self.find(Algorithm::RsaSha256) else {
            return Err(Problem::NoKey(Algorithm::RsaSha256));
        };
        if block.len() != MODULUS {
            return Err(Problem::BadSignature);
        }
        let number = rsa::hazmat::rsa_encrypt(public, &BigUint::from_bytes_be(block));
        let bytes = number.map_err(|_| Problem::BadSignature)?.to_bytes_be();
        // `00 01 FF…FF 00 data`; the first zero is not in the number.
        let padded = bytes.strip_prefix(&[1]).filter(|_| bytes.len() == MODULUS - 1).ok_or(Problem::BadSignature)?;
        let ones = padded.iter().take_while(|byte| **byte == 0xff).count();
        match padded.get(ones) {
            Some(0) if ones >= 8 => Ok(padded[ones + 1..].to_vec()),
            _ => Err(Problem::BadSignature),
        }
    }
}

/// Bytes of Keygen's RSA modulus.
const MODULUS: usize = 256;

fn read(text: &str) -> Result<AccountKey, PinProblem> {
    let text = text.trim();
    let unreadable = PinProblem::Key(KeyProblem::Unreadable);
    if text.len() > MAX_TEXT {
        return Err(unreadable);
    }
    // `data.meta.keys` wraps hex and PEM in base64 once more.
    let joined: String = text.split_ascii_whitespace().collect();
    let inner = decode_standard(&joined).and_then(|bytes| String::from_utf8(bytes).ok());
    let text = inner.as_deref().map(str::trim).filter(|inner| is_text_of_a_key(inner)).unwrap_or(text);
    match KeyMaterial::parse_text(text).map_err(PinProblem::Key)? {
        KeyMaterial::Ed25519(point) => {
            let key = ParsedPublicKey::new(&signature::ED25519, point);
            key.map(AccountKey::Ed25519).map_err(|_| PinProblem::Key(KeyProblem::NotOnCurve))
        }
        KeyMaterial::P256(point) => {
            let key = ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, point);
            key.map(AccountKey::EcdsaP256).map_err(|_| PinProblem::Key(KeyProblem::NotOnCurve))
        }
        KeyMaterial::Rsa { n, e } if n.len() == MODULUS => {
            let malformed = PinProblem::Key(KeyProblem::Malformed("n"));
            let pkcs1 = RsaPublicKeyComponents { n: &n, e: &e }
                .to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256)
                .map_err(|_| malformed.clone())?;
            let public = RsaPublicKey::new(BigUint::from_bytes_be(&n), BigUint::from_bytes_be(&e));
            Ok(AccountKey::Rsa { pkcs1, public: public.map_err(|_| malformed)? })
        }
        KeyMaterial::P384(_) | KeyMaterial::Rsa { .. } => Err(PinProblem::NotOfKeygen),
    }
}

fn is_text_of_a_key(text: &str) -> bool {
    text.starts_with("-----BEGIN ") || text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl fmt::Debug for AccountKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = Algorithm::ALL.iter().filter(|algorithm| self.has(**algorithm));
        f.debug_list().entries(held).finish()
    }
}
