//! Public keys, checked and parsed once, for as many verifications as they live.

use std::fmt;

use aws_lc_rs::{
    digest,
    signature::{self, ParsedPublicKey, RsaPublicKeyComponents},
};

use super::{
    algorithm::{Algorithm, AlgorithmSet},
    base64url,
    key_material::KeyMaterial,
    roca,
};

const MIN_RSA_BITS: usize = 2048;
const MAX_RSA_BITS: usize = 8192;

/// Why a key is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyProblem {
    /// The key is not an object, or a member is missing or has the wrong type; names the member.
    Malformed(&'static str),
    /// `kty`, `crv` or the type in the DER is none that we verify with.
    UnsupportedType,
    /// `alg` is none of ours, or not one of this kind of key.
    UnsupportedAlgorithm,
    /// A private key was published: whoever fetched it can sign.
    Private,
    /// A symmetric key in a set of public keys.
    Symmetric,
    /// `use` or `key_ops` says that it is for something else.
    NotForSigning,
    /// RSA below 2048 bits (RFC 7518 §3.3).
    TooWeak,
    /// RSA above 8192 bits; verifying with it would cost too much.
    TooLarge,
    /// RSA exponent even, below 65537 or absurdly large.
    BadExponent,
    /// RSA modulus of the broken generator of CVE-2017-15361.
    Roca,
    /// Not a point of its curve.
    NotOnCurve,
    /// An Ed25519 point of small order, under which anybody can sign.
    SmallOrder,
    /// Another key of the set has the same `kid` and fits the same algorithm.
    DuplicateKid,
    /// The text is neither hex, base64, PEM nor DER of a public key that we know.
    Unreadable,
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(member) => return write!(f, "member `{member}` is missing or malformed"),
            Self::UnsupportedType => "key type or curve is not supported; use Ed25519, P-256, P-384 or RSA",
            Self::UnsupportedAlgorithm => "`alg` is not a supported signature algorithm of this kind of key",
            Self::Private => {
                "contains private key material and must be considered compromised; publish the public part"
            }
            Self::Symmetric => "is a symmetric key; a set of public keys must not hold any",
            Self::NotForSigning => "is not for signatures by its `use` or `key_ops`",
            Self::TooWeak => "RSA modulus has fewer than 2048 bits",
            Self::TooLarge => "RSA modulus has more than 8192 bits",
            Self::BadExponent => "RSA exponent must be odd, at least 65537 and below 2^33",
            Self::Roca => "RSA modulus comes from the broken generator of CVE-2017-15361; make a new key",
            Self::NotOnCurve => "is not a point of its curve",
            Self::SmallOrder => "is an Ed25519 point of small order",
            Self::DuplicateKid => "shares its `kid` with another key for the same algorithm",
            Self::Unreadable => "is not a public key in hex, base64, PEM or DER",
        })
    }
}

impl std::error::Error for KeyProblem {}

/// A public key that passed every check, parsed for fast verification.
#[derive(Clone)]
pub struct PublicKey {
    /// One entry per algorithm that the key admits: aws-lc-rs binds a parsed key to its parameters.
    parsed: Box<[(Algorithm, ParsedPublicKey)]>,
    algorithms: AlgorithmSet,
    thumbprint: [u8; 32],
}

impl PublicKey {
    /// An Ed25519 key from its 32 bytes (RFC 8032 §5.1.5).
    ///
    /// # Errors
    /// [`KeyProblem::Malformed`] for another length, [`KeyProblem::NotOnCurve`] where the coordinate is not
    /// reduced, [`KeyProblem::SmallOrder`].
    pub fn ed25519(bytes: &[u8]) -> Result<Self, KeyProblem> {
        let point: &[u8; 32] = bytes.try_into().map_err(|_| KeyProblem::Malformed("x"))?;
        check_ed25519(point)?;
        let key = ParsedPublicKey::new(&signature::ED25519, point).map_err(|_| KeyProblem::NotOnCurve)?;
        let x = base64url::encode(point);
        let thumbprint = sha256(&format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
        Ok(Self::new(vec![(Algorithm::EdDsa, key)], thumbprint))
    }

    /// A P-256 key from its affine coordinates.
    ///
    /// # Errors
    /// [`KeyProblem::Malformed`] for coordinates of another length, [`KeyProblem::NotOnCurve`].
    pub fn p256(x: &[u8], y: &[u8]) -> Result<Self, KeyProblem> {
        Self::ec(Algorithm::Es256, 32, x, y)
    }

    /// A P-384 key from its affine coordinates.
    ///
    /// # Errors
    /// As [`PublicKey::p256`].
    pub fn p384(x: &[u8], y: &[u8]) -> Result<Self, KeyProblem> {
        Self::ec(Algorithm::Es384, 48, x, y)
    }

    fn ec(algorithm: Algorithm, length: usize, x: &[u8], y: &[u8]) -> Result<Self, KeyProblem> {
        // Full length, leading zeros included (RFC 7518 §6.2.1.2).
        if x.len() != length {
            return Err(KeyProblem::Malformed("x"));
        }
        if y.len() != length {
            return Err(KeyProblem::Malformed("y"));
        }
        let (curve, parameters) = match algorithm {
            Algorithm::Es256 => ("P-256", &signature::ECDSA_P256_SHA256_FIXED),
            _ => ("P-384", &signature::ECDSA_P384_SHA384_FIXED),
        };
        let point = [&[4], x, y].concat();
        let key = ParsedPublicKey::new(parameters, point).map_err(|_| KeyProblem::NotOnCurve)?;
        let (x, y) = (base64url::encode(x), base64url::encode(y));
        let thumbprint = sha256(&format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#));
        Ok(Self::new(vec![(algorithm, key)], thumbprint))
    }

    /// An RSA key from modulus and exponent, big-endian without leading zeros; `only` binds it to one algorithm.
    ///
    /// # Errors
    /// [`KeyProblem::Malformed`], [`KeyProblem::TooWeak`], [`KeyProblem::TooLarge`], [`KeyProblem::BadExponent`],
    /// [`KeyProblem::Roca`], [`KeyProblem::UnsupportedAlgorithm`] where `only` is not of RSA.
    pub fn rsa(n: &[u8], e: &[u8], only: Option<Algorithm>) -> Result<Self, KeyProblem> {
        check_rsa(n, e)?;
        let components = RsaPublicKeyComponents { n, e };
        let wanted = only.as_ref().map_or(Algorithm::RSA, std::slice::from_ref);
        let mut parsed = Vec::with_capacity(wanted.len());
        for algorithm in wanted {
            let parameters = algorithm.rsa().ok_or(KeyProblem::UnsupportedAlgorithm)?;
            let key = components.to_parsed_public_key(parameters).map_err(|_| KeyProblem::Malformed("n"))?;
            parsed.push((*algorithm, key));
        }
        let (n, e) = (base64url::encode(n), base64url::encode(e));
        let thumbprint = sha256(&format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#));
        Ok(Self::new(parsed, thumbprint))
    }

    /// A single key as a config may give it: hex or base64 (of the 32 bytes of Ed25519, or of DER), or PEM.
    ///
    /// PEM may be `PUBLIC KEY` (SubjectPublicKeyInfo) or `RSA PUBLIC KEY` (PKCS#1).
    ///
    /// # Errors
    /// [`KeyProblem::Private`] for a PEM of a private key, [`KeyProblem::Unreadable`], and whatever the key itself is refused for.
    pub fn parse_text(text: &str) -> Result<Self, KeyProblem> {
        Self::of_material(&KeyMaterial::read_text(text)?)
    }

    /// A key from DER: SubjectPublicKeyInfo, or PKCS#1 RSAPublicKey.
    ///
    /// # Errors
    /// [`KeyProblem::Unreadable`], and whatever the key itself is refused for.
    pub fn parse_der(der: &[u8]) -> Result<Self, KeyProblem> {
        Self::of_material(&KeyMaterial::read_der(der)?)
    }

    pub(super) fn of_material(material: &KeyMaterial) -> Result<Self, KeyProblem> {
        match material {
            KeyMaterial::Ed25519(key) => Self::ed25519(key),
            KeyMaterial::P256(point) => affine(point, 32).and_then(|(x, y)| Self::p256(x, y)),
            KeyMaterial::P384(point) => affine(point, 48).and_then(|(x, y)| Self::p384(x, y)),
            KeyMaterial::Rsa { n, e } => Self::rsa(n, e, None),
        }
    }

    fn new(parsed: Vec<(Algorithm, ParsedPublicKey)>, thumbprint: [u8; 32]) -> Self {
        let algorithms = parsed.iter().fold(AlgorithmSet::NONE, |set, (algorithm, _)| set.with(*algorithm));
        Self { parsed: parsed.into(), algorithms, thumbprint }
    }

    /// The algorithms that this key verifies.
    pub fn algorithms(&self) -> AlgorithmSet {
        self.algorithms
    }

    /// The JWK thumbprint with SHA-256 (RFC 7638): equal for the same material under any `kid`.
    pub fn thumbprint(&self) -> [u8; 32] {
        self.thumbprint
    }

    /// Whether `signature` is this key's signature over `message` with `algorithm`.
    ///
    /// False as well for an algorithm that the key does not admit.
    pub fn is_signature(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.iter().find(|(admitted, _)| *admitted == algorithm).is_some_and(|(_, key)| match algorithm.hash() {
            // Hashed first: setting up a context for both at once takes longer than the hash of a short message.
            Some(hash) => key.verify_digest_sig(&digest::digest(hash, message), signature).is_ok(),
            // Ed25519 hashes for itself, twice and with more than the message (RFC 8032 §5.1.7).
            None => key.verify_sig(message, signature).is_ok(),
        })
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {:?})", base64url::encode(&self.thumbprint), self.algorithms)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.thumbprint == other.thumbprint && self.algorithms == other.algorithms
    }
}

impl Eq for PublicKey {}

fn sha256(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    hash
}

/// Coordinates of an uncompressed SEC 1 point (§2.3.3).
fn affine(point: &[u8], length: usize) -> Result<(&[u8], &[u8]), KeyProblem> {
    match point.split_first() {
        Some((4, coordinates)) if coordinates.len() == 2 * length => Ok(coordinates.split_at(length)),
        _ => Err(KeyProblem::Unreadable),
    }
}

/// Refuses coordinates that are not reduced, and the points whose order divides the cofactor: under such
/// a key one signature fits many messages.
fn check_ed25519(point: &[u8; 32]) -> Result<(), KeyProblem> {
    const PRIME: [u8; 32] = {
        let mut prime = [0xff; 32];
        prime[0] = 0xed;
        prime[31] = 0x7f;
        prime
    };
    // y of the points of order 1, 2, 4 and 8; the sign of x is the top bit and does not matter.
    const SMALL: [[u8; 32]; 5] = [
        {
            let mut one = [0; 32];
            one[0] = 1;
            one
        },
        {
            let mut minus_one = PRIME;
            minus_one[0] = 0xec;
            minus_one
        },
        [0; 32],
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
            0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
            0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let mut y = *point;
    y[31] &= 0x7f;
    if y.iter().rev().ge(PRIME.iter().rev()) {
        return Err(KeyProblem::NotOnCurve);
    }
    if SMALL.contains(&y) {
        return Err(KeyProblem::SmallOrder);
    }
    Ok(())
}

fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), KeyProblem> {
    let (Some(first), Some(last)) = (n.first(), n.last()) else { return Err(KeyProblem::Malformed("n")) };
    // A leading zero MUST be omitted (RFC 7518 §2, Base64urlUInt); an even modulus is no product of odd primes.
    if *first == 0 || last & 1 == 0 {
        return Err(KeyProblem::Malformed("n"));
    }
    let bits = n.len() * 8 - first.leading_zeros() as usize;
    if bits < MIN_RSA_BITS {
        return Err(KeyProblem::TooWeak);
    }
    if bits > MAX_RSA_BITS {
        return Err(KeyProblem::TooLarge);
    }
    if e.first() == Some(&0) || e.len() > 5 {
        return Err(KeyProblem::BadExponent);
    }
    let exponent = e.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    if exponent < 65_537 || exponent.is_multiple_of(2) || exponent >= 1 << 33 {
        return Err(KeyProblem::BadExponent);
    }
    if roca::has_fingerprint(n) {
        return Err(KeyProblem::Roca);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;
    use crate::jose::key_material::{MAX_TEXT, decode_hex};

    /// RFC 8410 §10.1.
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    const RAW_HEX: &str = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";

    #[test]
    fn one_key_reads_the_same_from_hex_base64_pem_and_der() {
        let key = PublicKey::parse_text(PEM).unwrap();
        let raw = decode_hex(RAW_HEX).unwrap();
        let der = STANDARD.decode("MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=").unwrap();
        for text in [RAW_HEX, &STANDARD.encode(&raw), &base64url::encode(&raw), &STANDARD.encode(&der)] {
            assert_eq!(PublicKey::parse_text(text).as_ref(), Ok(&key), "{text}");
        }
        assert_eq!(PublicKey::parse_der(&der), Ok(key));
    }

    #[test]
    fn text_that_is_no_public_key_says_so() {
        let private = PEM.replace("PUBLIC", "PRIVATE");
        assert_eq!(PublicKey::parse_text(&private), Err(KeyProblem::Private));
        let cut = PEM.replace("-----END", "----END");
        for bad in ["", "00", "not a key!", &cut, &RAW_HEX[2..], &"0".repeat(MAX_TEXT + 1)] {
            assert_eq!(PublicKey::parse_text(bad), Err(KeyProblem::Unreadable), "{bad}");
        }
    }

    #[test]
    fn ed25519_points_of_small_order_or_above_the_prime_are_refused() {
        let mut point = [0; 32];
        for sign in [0, 0x80] {
            point[31] = sign;
            assert_eq!(PublicKey::ed25519(&point), Err(KeyProblem::SmallOrder));
        }
        assert_eq!(PublicKey::ed25519(&[0xff; 32]), Err(KeyProblem::NotOnCurve));
        let eight = decode_hex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a").unwrap();
        assert_eq!(PublicKey::ed25519(&eight), Err(KeyProblem::SmallOrder));
    }

    #[test]
    fn rsa_exponents_and_sizes_outside_the_bounds_are_refused() {
        let mut n = [0xff; 256];
        n[7] = 0x5a;
        assert_eq!(check_rsa(&n, &[1, 0, 1]), Ok(()));
        for e in [&[][..], &[1], &[3], &[1, 0, 0], &[0, 1, 0, 1], &[2, 0, 0, 0, 1], &[1, 0, 0, 0, 0, 1]] {
            assert_eq!(check_rsa(&n, e), Err(KeyProblem::BadExponent), "{e:?}");
        }
        assert_eq!(check_rsa(&n[..255], &[1, 0, 1]), Err(KeyProblem::TooWeak));
        assert_eq!(check_rsa(&[0xff; 1025], &[1, 0, 1]), Err(KeyProblem::TooLarge));
        n[255] = 0xfe;
        assert_eq!(check_rsa(&n, &[1, 0, 1]), Err(KeyProblem::Malformed("n")));
    }
}
