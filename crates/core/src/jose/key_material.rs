//! Public keys in the forms in which people are given them, taken out of their wrapping.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    base64url,
    der::{self, Material},
    public_key::KeyProblem,
};

/// Longest text of a single key that is looked at; an 8192-bit key in PEM has about 1,500 bytes.
pub(super) const MAX_TEXT: usize = 8192;

/// What a public key is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyMaterial {
    /// 32 bytes.
    Ed25519(Vec<u8>),
    /// SEC 1 point on P-256.
    P256(Vec<u8>),
    /// SEC 1 point on P-384.
    P384(Vec<u8>),
    /// Modulus and exponent without leading zeros.
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

impl KeyMaterial {
    /// Material of a key that [`super::PublicKey::parse_text`] takes.
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "keygen")]
    pub(crate) fn parse_text(text: &str) -> Result<Self, KeyProblem> {
        let material = Self::read_text(text)?;
        super::PublicKey::of_material(&material)?;
        Ok(material)
    }

    /// Hex, base64 or PEM; nothing about the key is checked yet.
    pub(super) fn read_text(text: &str) -> Result<Self, KeyProblem> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(KeyProblem::Unreadable);
        }
        if let Some(armoured) = text.strip_prefix("-----BEGIN ") {
            return read_pem(armoured);
        }
        let bytes = decode_hex(text).or_else(|| decode_base64(text)).ok_or(KeyProblem::Unreadable)?;
        if bytes.len() == 32 { Ok(Self::Ed25519(bytes)) } else { Self::read_der(&bytes) }
    }

    /// SubjectPublicKeyInfo, or PKCS#1 RSAPublicKey; nothing about the key is checked yet.
    pub(super) fn read_der(der: &[u8]) -> Result<Self, KeyProblem> {
        let material = der::subject_public_key_info(der).or_else(|| der::rsa_public_key(der));
        material.map(Self::of).ok_or(KeyProblem::Unreadable)
    }

    fn of(material: Material<'_>) -> Self {
        match material {
            Material::Ed25519(key) => Self::Ed25519(key.to_vec()),
            Material::P256(point) => Self::P256(point.to_vec()),
            Material::P384(point) => Self::P384(point.to_vec()),
            Material::Rsa { n, e } => Self::Rsa { n: n.to_vec(), e: e.to_vec() },
        }
    }
}

fn read_pem(armoured: &str) -> Result<KeyMaterial, KeyProblem> {
    let (label, body) = armoured.split_once("-----").ok_or(KeyProblem::Unreadable)?;
    if label.ends_with("PRIVATE KEY") {
        return Err(KeyProblem::Private);
    }
    let body = body.strip_suffix("-----").and_then(|body| body.strip_suffix(label)).ok_or(KeyProblem::Unreadable)?;
    let body = body.strip_suffix("-----END ").ok_or(KeyProblem::Unreadable)?;
    let text: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(text).map_err(|_| KeyProblem::Unreadable)?;
    let material = match label {
        "PUBLIC KEY" => der::subject_public_key_info(&der),
        "RSA PUBLIC KEY" => der::rsa_public_key(&der),
        _ => None,
    };
    material.map(KeyMaterial::of).ok_or(KeyProblem::Unreadable)
}

pub(super) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let joined: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(&joined).ok().or_else(|| base64url::decode(joined.trim_end_matches('=')).ok())
}
