//! License and machine files: verified first, opened afterwards.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    digest::{Context, SHA256},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{AccountKeys, Algorithm, Problem, decode_standard, parse_time};
use crate::{secret::Secret, time::Timestamp};

/// Longest file looked at, in bytes; one with a hundred entitlements has about 60,000.
pub const MAX_FILE_BYTES: usize = 256 * 1024;

/// What a file is about; part of what is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A license.
    License,
    /// A machine of a license.
    Machine,
}

impl FileKind {
    const fn label(self) -> &'static str {
        match self {
            Self::License => "LICENSE FILE",
            Self::Machine => "MACHINE FILE",
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::License => "license/",
            Self::Machine => "machine/",
        }
    }
}

/// How the inside of a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// Base64; readable by anybody.
    Plain,
    /// AES-256-GCM under a key made of the license key. It hides; it proves nothing.
    Encrypted,
}

/// A file whose signature fits; its inside is not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LicenseFile {
    /// What it is about.
    pub kind: FileKind,
    /// With what it was signed.
    pub algorithm: Algorithm,
    /// How its inside is packed.
    pub sealed: Sealed,
    inside: String,
}

#[derive(Deserialize)]
struct Envelope {
    enc: String,
    sig: String,
    alg: String,
}

impl LicenseFile {
    /// Takes a file of `kind` apart and verifies its signature.
    ///
    /// The name of the algorithm in a file is not signed, so only `allowed` ones are looked at.
    ///
    /// # Errors
    /// [`Problem::Malformed`], [`Problem::AlgorithmNotAllowed`], [`Problem::NoKey`], [`Problem::BadSignature`].
    pub fn verify(
        text: &str,
        kind: FileKind,
        allowed: &[(Sealed, Algorithm)],
        keys: &AccountKeys,
    ) -> Result<Self, Problem> {
        let envelope = unwrap(text, kind)?;
        let (sealed, algorithm) = envelope.alg.split_once('+').ok_or(Problem::AlgorithmNotAllowed)?;
        let sealed = match sealed {
            "base64" => Sealed::Plain,
            "aes-256-gcm" => Sealed::Encrypted,
            _ => return Err(Problem::AlgorithmNotAllowed),
        };
        let algorithm = Algorithm::parse(algorithm).ok_or(Problem::AlgorithmNotAllowed)?;
        if !allowed.contains(&(sealed, algorithm)) {
            return Err(Problem::AlgorithmNotAllowed);
        }
        let signature = decode_standard(&envelope.sig).ok_or(Problem::Malformed("the signature"))?;
        let message = [kind.prefix(), &envelope.enc].concat();
        keys.verify(algorithm, message.as_bytes(), &signature)?;
        Ok(Self { kind, algorithm, sealed, inside: envelope.enc })
    }

    /// Reads the inside; `license_key` (and, for a machine file, the `fingerprint`) opens an encrypted one.
    ///
    /// Not verified: any time in it, and that it is about the license, product and account that are wanted.
    ///
    /// # Errors
    /// [`Problem::NotOpened`], [`Problem::Malformed`].
    pub fn open(&self, license_key: Option<&Secret<String>>, fingerprint: &str) -> Result<Document, Problem> {
        let plain = match self.sealed {
            Sealed::Plain => decode_standard(&self.inside).ok_or(Problem::Malformed("the inside of the file"))?,
            Sealed::Encrypted => {
                let license_key = license_key.ok_or(Problem::NotOpened)?;
                let mut digest = Context::new(&SHA256);
                digest.update(license_key.expose().as_bytes());
                if self.kind == FileKind::Machine {
                    digest.update(fingerprint.as_bytes());
                }
                decrypt(&self.inside, digest.finish().as_ref())?
            }
        };
        Document::read(&plain)
    }
}

fn unwrap(text: &str, kind: FileKind) -> Result<Envelope, Problem> {
    let malformed = || Problem::Malformed("the file");
    let text = text.trim();
    if text.len() > MAX_FILE_BYTES {
        return Err(malformed());
    }
    let body = text
        .strip_prefix("-----BEGIN ")
        .and_then(|rest| rest.strip_prefix(kind.label()))
        .and_then(|rest| rest.strip_prefix("-----"))
        .and_then(|rest| rest.strip_suffix("-----"))
        .and_then(|rest| rest.strip_suffix(kind.label()))
        .and_then(|rest| rest.strip_suffix("-----END "))
        .ok_or_else(malformed)?;
    let joined: String = body.split_ascii_whitespace().collect();
    let json = decode_standard(&joined).ok_or_else(malformed)?;
    serde_json::from_slice(&json).map_err(|_| malformed())
}

/// `base64(ciphertext).base64(nonce of 12 bytes).base64(tag of 16 bytes)`, no additional data.
fn decrypt(inside: &str, key: &[u8]) -> Result<Vec<u8>, Problem> {
    let malformed = || Problem::Malformed("the inside of the file");
    let mut parts = inside.split('.').map(decode_standard);
    let (Some(Some(mut text)), Some(Some(nonce)), Some(Some(tag)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed());
    };
    let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| malformed())?;
    if tag.len() != AES_256_GCM.tag_len() {
        return Err(malformed());
    }
    text.extend_from_slice(&tag);
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(|_| Problem::NotOpened)?);
    let length = key.open_in_place(nonce, Aad::empty(), &mut text).map_err(|_| Problem::NotOpened)?.len();
    text.truncate(length);
    Ok(text)
}

/// The inside of a file, as it was when it was issued.
#[derive(Clone, Debug)]
pub struct Document {
    /// When it was issued.
    pub issued: Timestamp,
    /// When the file ends; not the license. It is not `issued` plus the time to live, which calendars make differ.
    pub expires_at: Option<Timestamp>,
    /// The resource and what is included with it, as JSON:API documents have them.
    pub json: Box<RawValue>,
}

impl Document {
    fn read(plain: &[u8]) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Outer {
            meta: Meta,
        }
        #[derive(Deserialize)]
        struct Meta {
            issued: String,
            expiry: Option<String>,
        }
        let malformed = || Problem::Malformed("the inside of the file");
        let json: Box<RawValue> = serde_json::from_slice(plain).map_err(|_| malformed())?;
        let Outer { meta } = serde_json::from_str(json.get()).map_err(|_| malformed())?;
        let time = |text: String| parse_time(&text).ok_or_else(malformed);
        Ok(Self { issued: time(meta.issued)?, expires_at: meta.expiry.map(time).transpose()?, json })
    }
}
