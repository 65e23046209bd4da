//! License keys that carry their own signature.

use super::{AccountKeys, Algorithm, Problem, decode_url};
use crate::jose::{self, Compact, HeaderAlgorithm};

/// Longest license key looked at, in bytes; Keygen's limit.
pub const MAX_KEY_BYTES: usize = 16 * 1024;

/// How a policy makes the keys of its licenses. It comes from the configuration and is never guessed from a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `ED25519_SIGN`.
    Ed25519Sign,
    /// `ECDSA_P256_SIGN`.
    EcdsaP256Sign,
    /// `RSA_2048_PKCS1_SIGN_V2`.
    Pkcs1SignV2,
    /// `RSA_2048_PKCS1_PSS_SIGN_V2`.
    PssSignV2,
    /// `RSA_2048_JWT_RS256`.
    JwtRs256,
    /// `RSA_2048_PKCS1_SIGN`, deprecated by Keygen.
    Pkcs1Sign,
    /// `RSA_2048_PKCS1_PSS_SIGN`, deprecated by Keygen.
    PssSign,
    /// `RSA_2048_PKCS1_ENCRYPT`: the data recovered from the signature itself.
    Pkcs1Encrypt,
}

impl Scheme {
    /// Every scheme.
    pub const ALL: &'static [Self] = &[
        Self::Ed25519Sign,
        Self::EcdsaP256Sign,
        Self::Pkcs1SignV2,
        Self::PssSignV2,
        Self::JwtRs256,
        Self::Pkcs1Sign,
        Self::PssSign,
        Self::Pkcs1Encrypt,
    ];

    /// Keygen's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519Sign => "ED25519_SIGN",
            Self::EcdsaP256Sign => "ECDSA_P256_SIGN",
            Self::Pkcs1SignV2 => "RSA_2048_PKCS1_SIGN_V2",
            Self::PssSignV2 => "RSA_2048_PKCS1_PSS_SIGN_V2",
            Self::JwtRs256 => "RSA_2048_JWT_RS256",
            Self::Pkcs1Sign => "RSA_2048_PKCS1_SIGN",
            Self::PssSign => "RSA_2048_PKCS1_PSS_SIGN",
            Self::Pkcs1Encrypt => "RSA_2048_PKCS1_ENCRYPT",
        }
    }

    /// Reads Keygen's word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scheme| scheme.as_str() == word)
    }

    const fn algorithm(self) -> Algorithm {
        match self {
            Self::Ed25519Sign => Algorithm::Ed25519,
            Self::EcdsaP256Sign => Algorithm::EcdsaP256,
            Self::PssSignV2 | Self::PssSign => Algorithm::RsaPssSha256,
            Self::Pkcs1SignV2 | Self::Pkcs1Sign | Self::JwtRs256 | Self::Pkcs1Encrypt => Algorithm::RsaSha256,
        }
    }
}

/// Verifies a license key of `scheme` and gives back what it says: by default JSON, but a policy may put any text
/// there.
///
/// Not verified: anything that it says. A key never changes: renewal, suspension and revocation are not in it.
///
/// # Errors
/// [`Problem::Malformed`], [`Problem::NoKey`], [`Problem::BadSignature`], [`Problem::AlgorithmNotAllowed`] (a JWT
/// that is not RS256).
pub fn verify_key(text: &str, scheme: Scheme, keys: &AccountKeys) -> Result<Vec<u8>, Problem> {
    let malformed = Problem::Malformed("the license key");
    let text = text.trim();
    if text.len() > MAX_KEY_BYTES {
        return Err(malformed);
    }
    let algorithm = scheme.algorithm();
    match scheme {
        Scheme::Ed25519Sign | Scheme::EcdsaP256Sign | Scheme::Pkcs1SignV2 | Scheme::PssSignV2 => {
            let (signed, signature) = text.split_once('.').ok_or_else(|| malformed.clone())?;
            let data = signed.strip_prefix("key/").ok_or_else(|| malformed.clone())?;
            let signature = decode_url(signature).ok_or_else(|| malformed.clone())?;
            keys.verify(algorithm, signed.as_bytes(), &signature)?;
            decode_url(data).ok_or(malformed)
        }
        Scheme::Pkcs1Sign | Scheme::PssSign => {
            let (data, signature) = text.split_once('.').ok_or_else(|| malformed.clone())?;
            let data = decode_url(data).ok_or_else(|| malformed.clone())?;
            let signature = decode_url(signature).ok_or(malformed)?;
            keys.verify(algorithm, &data, &signature)?;
            Ok(data)
        }
        Scheme::JwtRs256 => {
            let token = Compact::parse(text).map_err(|_| malformed)?;
            if token.header().algorithm != HeaderAlgorithm::Signature(jose::Algorithm::Rs256) {
                return Err(Problem::AlgorithmNotAllowed);
            }
            keys.verify(algorithm, token.signing_input(), token.signature())?;
            Ok(token.payload().to_vec())
        }
        Scheme::Pkcs1Encrypt => keys.recover(&decode_url(text).ok_or(malformed)?),
    }
}
