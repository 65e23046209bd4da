//! What Keygen signs: answers, webhooks, license keys, license and machine files.
//!
//! Keygen has no JWK set. An account has at most one key per algorithm; they are pinned in the
//! configuration, because keys that are fetched from the server that they are to prove would prove
//! nothing. Nothing here looks at a clock except to judge a time that it is given, and nothing here
//! says whether a license is usable: that is derived from what was read.

mod account;
mod account_key;
mod dataset;
mod license_file;
mod license_key;
mod message;
mod notice;
mod resource;

use std::fmt;

pub use account::{ApiError, User, read_account_keys, read_entitlements};
pub use account_key::{AccountKeys, PinProblem};
pub use dataset::Dataset;
pub use license_file::{Document, FileKind, LicenseFile, MAX_FILE_BYTES, Sealed};
pub use license_key::{MAX_KEY_BYTES, Scheme, verify_key};
pub use message::{Message, Signed, claimed_date, verify_message};
pub use notice::{MAX_NOTICE_BYTES, Notice};
pub use resource::{License, Validation};

/// A signature algorithm of Keygen, as headers and files name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ECDSA on P-256 with SHA-256, the signature in DER.
    EcdsaP256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaSha256,
    /// RSASSA-PSS with SHA-256 and the longest salt that fits: 222 bytes at 2048 bits.
    RsaPssSha256,
}

impl Algorithm {
    /// Every algorithm, the default first.
    pub const ALL: &'static [Self] = &[Self::Ed25519, Self::EcdsaP256, Self::RsaSha256, Self::RsaPssSha256];

    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256 => "ecdsa-p256",
            Self::RsaSha256 => "rsa-sha256",
            Self::RsaPssSha256 => "rsa-pss-sha256",
        }
    }

    /// Reads a name from the wire.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|algorithm| algorithm.as_str() == name)
    }
}

/// Why something of Keygen's is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is no signature. Keygen signs no 429, no error of a proxy and nothing before it knows the
    /// account, so this says nothing about a license.
    Unsigned,
    /// `signature=""`: the server cannot use its own keys, commonly after its `ENCRYPTION_*` secrets changed.
    EmptySignature,
    /// Not in the form that Keygen writes; says what.
    Malformed(&'static str),
    /// Signed for another account.
    OtherAccount,
    /// The algorithm is none that is allowed here.
    AlgorithmNotAllowed,
    /// No key of this algorithm is pinned.
    NoKey(Algorithm),
    /// The body is not the one that was signed.
    BadDigest,
    /// The signature does not fit.
    BadSignature,
    /// Made too long ago, or too far ahead of our clock.
    Stale,
    /// It is encrypted, and the license key (or the fingerprint) does not open it.
    NotOpened,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsigned => "it carries no signature",
            Self::EmptySignature => {
                "its signature is empty: the license server cannot use its keys; check its ENCRYPTION_* secrets"
            }
            Self::Malformed(what) => return write!(f, "{what} is missing or malformed"),
            Self::OtherAccount => "it was signed for another account",
            Self::AlgorithmNotAllowed => "its algorithm is not allowed here",
            Self::NoKey(algorithm) => return write!(f, "no {} key is pinned", algorithm.as_str()),
            Self::BadDigest => "the body is not the one that was signed",
            Self::BadSignature => "the signature does not fit",
            Self::Stale => "it was made too long ago or too far in the future",
            Self::NotOpened => "the license key or the machine's fingerprint does not open it",
        })
    }
}

impl std::error::Error for Problem {}

/// Base64url as license keys have it: padding is written, and read or not.
fn decode_url(text: &str) -> Option<Vec<u8>> {
    URL_ANY_PADDING.decode(text).ok()
}

/// Standard base64, padding written or not; white space has been taken out.
fn decode_standard(text: &str) -> Option<Vec<u8>> {
    STANDARD_ANY_PADDING.decode(text).ok()
}

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL_ANY_PADDING: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);
const STANDARD_ANY_PADDING: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);

/// A time as Keygen writes it: RFC 3339, in UTC with milliseconds there; any offset is taken, no offset is refused.
pub fn parse_time(text: &str) -> Option<crate::time::Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(crate::time::Timestamp::from_millis(at.as_millisecond()))
}

#[cfg(test)]
mod tests;
