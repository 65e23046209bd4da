//! The few lines of DER (X.690) that a public key needs: definite lengths, minimal encoding, no rest.

/// OBJECT IDENTIFIER contents.
const ED25519: &[u8] = &[0x2b, 0x65, 0x70]; // 1.3.101.112, RFC 8410 §3
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]; // 1.2.840.10045.2.1, RFC 5480 §2.1.1
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]; // 1.2.840.10045.3.1.7
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22]; // 1.3.132.0.34
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]; // 1.2.840.113549.1.1.1

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const NULL: u8 = 0x05;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// Key material as a SubjectPublicKeyInfo or RSAPublicKey holds it; nothing about it is checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Material<'a> {
    /// 32 bytes, if the key is sound.
    Ed25519(&'a [u8]),
    /// SEC 1 point on P-256.
    P256(&'a [u8]),
    /// SEC 1 point on P-384.
    P384(&'a [u8]),
    /// Modulus and exponent without leading zeros.
    Rsa { n: &'a [u8], e: &'a [u8] },
}

/// Reads an RSAPublicKey (RFC 8017 §A.1.1).
pub(super) fn rsa_public_key(der: &[u8]) -> Option<Material<'_>> {
    let (mut body, rest) = take(der, SEQUENCE)?;
    let n = unsigned(&mut body)?;
    let e = unsigned(&mut body)?;
    (rest.is_empty() && body.is_empty()).then_some(Material::Rsa { n, e })
}

/// Reads a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) of a type that we know.
pub(super) fn subject_public_key_info(der: &[u8]) -> Option<Material<'_>> {
    let (body, rest) = take(der, SEQUENCE)?;
    let (algorithm, body) = take(body, SEQUENCE)?;
    let (bits, after) = take(body, BIT_STRING)?;
    let (0, key) = bits.split_first().map(|(unused, key)| (*unused, key))? else { return None };
    if !rest.is_empty() || !after.is_empty() {
        return None;
    }
    let (oid, parameters) = take(algorithm, OBJECT_IDENTIFIER)?;
    match oid {
        ED25519 if parameters.is_empty() => Some(Material::Ed25519(key)),
        RSA_ENCRYPTION if matches!(take(parameters, NULL), Some(([], []))) => rsa_public_key(key),
        EC_PUBLIC_KEY => match take(parameters, OBJECT_IDENTIFIER)? {
            (P256, []) => Some(Material::P256(key)),
            (P384, []) => Some(Material::P384(key)),
            _ => None,
        },
        _ => None,
    }
}

/// An INTEGER that is positive, without the zero that only carries the sign.
fn unsigned<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (bytes, rest) = take(input, INTEGER)?;
    *input = rest;
    match bytes {
        [0, next, ..] if *next >= 0x80 => Some(&bytes[1..]),
        [first, ..] if *first != 0 && *first < 0x80 => Some(bytes),
        _ => None,
    }
}

/// The contents of the element of type `tag` that `input` begins with, and what follows it.
fn take(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, input) = input.split_first()?;
    let (first, input) = input.split_first()?;
    let (length, input) = match *first {
        short @ 0..=0x7f => (usize::from(short), input),
        0x81 => {
            let (length, input) = input.split_first()?;
            (usize::from(*length).checked_sub(0x80)? + 0x80, input)
        }
        0x82 => {
            let (length, input) = input.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_be_bytes(*length));
            (length.checked_sub(0x100)? + 0x100, input)
        }
        _ => return None,
    };
    (*found == tag && length <= input.len()).then(|| input.split_at(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410 §10.1.
    const ED25519_SPKI: &[u8] = &[
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00, 0x19, 0xbf, 0x44, 0x09, 0x69, 0x84,
        0xcd, 0xfe, 0x85, 0x41, 0xba, 0xc1, 0x67, 0xdc, 0x3b, 0x96, 0xc8, 0x50, 0x86, 0xaa, 0x30, 0xb6, 0xb6, 0xcb,
        0x0c, 0x5c, 0x38, 0xad, 0x70, 0x31, 0x66, 0xe1,
    ];

    #[test]
    fn the_key_of_rfc_8410_is_read() {
        assert_eq!(subject_public_key_info(ED25519_SPKI), Some(Material::Ed25519(&ED25519_SPKI[12..])));
    }

    #[test]
    fn every_cut_and_every_appended_byte_is_refused() {
        for end in 0..ED25519_SPKI.len() {
            assert_eq!(subject_public_key_info(&ED25519_SPKI[..end]), None, "cut at {end}");
        }
        assert_eq!(subject_public_key_info(&[ED25519_SPKI, &[0]].concat()), None);
    }

    #[test]
    fn integers_are_positive_and_minimal() {
        let key = |n: &[u8]| {
            let mut body = vec![INTEGER, u8::try_from(n.len()).unwrap()];
            body.extend_from_slice(n);
            body.extend_from_slice(&[INTEGER, 3, 1, 0, 1]);
            [&[SEQUENCE, u8::try_from(body.len()).unwrap()], &*body].concat()
        };
        assert_eq!(rsa_public_key(&key(&[0, 0x81])), Some(Material::Rsa { n: &[0x81], e: &[1, 0, 1] }));
        for bad in [&[][..], &[0], &[0, 1], &[0x81], &[0, 0, 0x81]] {
            assert_eq!(rsa_public_key(&key(bad)), None, "{bad:?}");
        }
    }
}
