//! The ring of our own keys: what they are for, and how they are wrapped at rest.
//!
//! Every key is 32 random bytes with one purpose. The store keeps it encrypted (AES-256-GCM) under a
//! key that HKDF-SHA256 (RFC 5869) derives from the root secret and the purpose; purpose and id are
//! authenticated with it, so a row that is copied to another purpose or id does not open. A reader of
//! the database alone therefore forges nothing, and replicas with the same root share the keys.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    constant_time::verify_slices_are_equal,
    hkdf,
};
use zeroize::{Zeroize, Zeroizing};

use crate::{id::RingKeyId, secret::Secret, time::Timestamp};

/// What a key is for. A key of one purpose is never used for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Signs the token in a sign-in link (HS256).
    Link,
    /// Binds CSRF values to sessions (HMAC-SHA256).
    Session,
    /// Signs the identity assertion to an upstream (seed of an Ed25519 key).
    Assertion,
    /// Signs audit checkpoints (seed of an Ed25519 key).
    Audit,
    /// Hashes addresses of strangers and typed codes (HMAC-SHA256).
    Login,
}

impl Purpose {
    /// All purposes.
    pub const ALL: [Self; 5] = [Self::Link, Self::Session, Self::Assertion, Self::Audit, Self::Login];

    /// The word in the store and in `keys rotate PURPOSE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Session => "session",
            Self::Assertion => "assertion",
            Self::Audit => "audit",
            Self::Login => "login",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == word)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a key stands in its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyState {
    /// Mints and verifies. At most one per purpose.
    Current,
    /// Verifies what it minted before the last rotation.
    Previous,
    /// Neither; kept for the record.
    Retired,
}

impl KeyState {
    /// The word in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Retired => "retired",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Current, Self::Previous, Self::Retired].into_iter().find(|state| state.as_str() == word)
    }
}

/// A key as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingKey {
    /// Its name.
    pub id: RingKeyId,
    /// What it is for.
    pub purpose: Purpose,
    /// The wrapped key; see [`wrap`].
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Where it stands.
    pub state: KeyState,
}

/// The one secret that the operator keeps; it wraps every key of the ring.
#[derive(Clone, Debug)]
pub struct RootSecret(Secret<Vec<u8>>);

/// The root secret is too short to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootTooShort {
    /// Bytes found, white space at the end not counted.
    pub found: usize,
}

impl fmt::Display for RootTooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the root secret has {} bytes and needs at least {}", self.found, RootSecret::MIN)
    }
}

impl std::error::Error for RootTooShort {}

impl RootSecret {
    /// Fewest bytes.
    pub const MIN: usize = 32;

    /// Takes the content of a root file; line ends and blanks at its end do not count.
    ///
    /// # Errors
    /// [`RootTooShort`] below [`RootSecret::MIN`] bytes. How random the bytes are cannot be checked.
    pub fn parse(content: &[u8]) -> Result<Self, RootTooShort> {
        let trimmed = content.trim_ascii_end();
        if trimmed.len() < Self::MIN {
            return Err(RootTooShort { found: trimmed.len() });
        }
        Ok(Self(Secret::new(trimmed.to_vec())))
    }

    /// Whether `other` is the same secret. How long that takes tells no more than the lengths of both.
    pub fn is_same(&self, other: &Self) -> bool {
        verify_slices_are_equal(self.0.expose(), other.0.expose()).is_ok()
    }

    fn wrapping_key(&self, purpose: Purpose) -> Option<LessSafeKey> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"doorward key ring v1");
        let prk = salt.extract(self.0.expose());
        let info = [b"wrap ".as_slice(), purpose.as_str().as_bytes()];
        let okm = prk.expand(&info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

/// A key of the ring, ready for use.
#[derive(Clone, Debug)]
pub struct KeyMaterial {
    /// Its name.
    pub id: RingKeyId,
    secret: Secret<[u8; 32]>,
}

impl KeyMaterial {
    /// A key made of random bytes.
    pub fn mint(id: RingKeyId, random: [u8; 32]) -> Self {
        Self { id, secret: Secret::new(random) }
    }

    /// The key's bytes. Each call is a place to review.
    pub fn expose(&self) -> &[u8; 32] {
        self.secret.expose()
    }
}

/// Why a wrapped key does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrapFault {
    /// The bytes are not in a form that this release writes.
    Malformed,
    /// Another root secret wrapped it, or the row was altered.
    WrongRoot,
}

const VERSION: u8 = 1;
const NONCE: usize = 12;
const KEY: usize = 32;
const TAG: usize = 16;
const WRAPPED: usize = 1 + NONCE + KEY + TAG;

fn aad(purpose: Purpose, id: RingKeyId) -> Aad<Vec<u8>> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(purpose.as_str().as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(id.as_uuid().as_bytes());
    Aad::from(bytes)
}

/// Wraps `key` for the store: one version byte, the nonce, the ciphertext and its tag.
///
/// `nonce` must be fresh random bytes. `None` only if the cipher itself fails.
pub fn wrap(root: &RootSecret, purpose: Purpose, key: &KeyMaterial, nonce: [u8; NONCE]) -> Option<Vec<u8>> {
    let mut sealed = key.expose().to_vec();
    let nonce_value = Nonce::assume_unique_for_key(nonce);
    let done = root.wrapping_key(purpose)?.seal_in_place_append_tag(nonce_value, aad(purpose, key.id), &mut sealed);
    if done.is_err() {
        sealed.zeroize();
        return None;
    }
    let mut wrapped = Vec::with_capacity(WRAPPED);
    wrapped.push(VERSION);
    wrapped.extend_from_slice(&nonce);
    wrapped.extend_from_slice(&sealed);
    Some(wrapped)
}

/// Opens a wrapped key.
///
/// # Errors
/// [`WrapFault`].
pub fn unwrap(root: &RootSecret, row: &RingKey) -> Result<KeyMaterial, WrapFault> {
    if row.wrapped.len() != WRAPPED || row.wrapped[0] != VERSION {
        return Err(WrapFault::Malformed);
    }
    let nonce = Nonce::try_assume_unique_for_key(&row.wrapped[1..=NONCE]).map_err(|_| WrapFault::Malformed)?;
    let mut buffer = Zeroizing::new(row.wrapped[1 + NONCE..].to_vec());
    let key = root.wrapping_key(row.purpose).ok_or(WrapFault::Malformed)?;
    let opened = key.open_in_place(nonce, aad(row.purpose, row.id), &mut buffer).map_err(|_| WrapFault::WrongRoot)?;
    let mut bytes = [0; KEY];
    bytes.copy_from_slice(opened);
    Ok(KeyMaterial::mint(row.id, bytes))
}

/// The keys of one purpose that are in use.
#[derive(Clone, Debug)]
pub struct KeySet {
    current: KeyMaterial,
    previous: Vec<KeyMaterial>,
}

impl KeySet {
    /// Opens the rows of one ring; `None` while it has no current key.
    ///
    /// # Errors
    /// The first key in use that does not open.
    pub fn open(root: &RootSecret, rows: &[RingKey]) -> Result<Option<Self>, WrapFault> {
        let mut current = None;
        let mut previous = Vec::new();
        for row in rows {
            match row.state {
                KeyState::Current => current = Some(unwrap(root, row)?),
                KeyState::Previous => previous.push(unwrap(root, row)?),
                KeyState::Retired => {}
            }
        }
        Ok(current.map(|current| Self { current, previous }))
    }

    /// The key that mints.
    pub fn current(&self) -> &KeyMaterial {
        &self.current
    }

    /// The keys that verify, the current one first.
    pub fn accepted(&self) -> impl Iterator<Item = &KeyMaterial> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(byte: u8) -> RootSecret {
        RootSecret::parse(&[byte; 32]).unwrap()
    }

    fn id(byte: u8) -> RingKeyId {
        RingKeyId::mint(Timestamp::from_secs(1_800_000_000), [byte; 10])
    }

    fn row(purpose: Purpose, state: KeyState, byte: u8) -> RingKey {
        let key = KeyMaterial::mint(id(byte), [byte; 32]);
        let wrapped = wrap(&root(7), purpose, &key, [byte; 12]).unwrap();
        RingKey { id: key.id, purpose, wrapped, created_at: Timestamp::EPOCH, state }
    }

    #[test]
    fn a_wrapped_key_opens_with_its_root_and_shows_nothing_of_itself() {
        let row = row(Purpose::Link, KeyState::Current, 9);
        assert_eq!(unwrap(&root(7), &row).unwrap().expose(), &[9; 32]);
        assert!(!row.wrapped[13..].windows(4).any(|w| w == [9; 4]));
        assert_eq!(format!("{:?}", unwrap(&root(7), &row).unwrap().secret), "Secret(…)");
    }

    #[test]
    fn a_key_does_not_open_under_another_root_purpose_or_id() {
        let good = row(Purpose::Link, KeyState::Current, 9);
        assert_eq!(unwrap(&root(8), &good).unwrap_err(), WrapFault::WrongRoot);
        let moved = RingKey { purpose: Purpose::Session, ..good.clone() };
        assert_eq!(unwrap(&root(7), &moved).unwrap_err(), WrapFault::WrongRoot);
        let renamed = RingKey { id: id(1), ..good.clone() };
        assert_eq!(unwrap(&root(7), &renamed).unwrap_err(), WrapFault::WrongRoot);
        for at in 0..good.wrapped.len() {
            let mut altered = good.clone();
            altered.wrapped[at] ^= 1;
            assert!(unwrap(&root(7), &altered).is_err(), "byte {at}");
        }
        for len in 0..good.wrapped.len() {
            let cut = RingKey { wrapped: good.wrapped[..len].to_vec(), ..good.clone() };
            assert_eq!(unwrap(&root(7), &cut).unwrap_err(), WrapFault::Malformed, "{len} bytes");
        }
    }

    #[test]
    fn current_comes_first_and_retired_keys_are_not_even_opened() {
        let mut retired = row(Purpose::Link, KeyState::Retired, 1);
        retired.wrapped.clear();
        let rows = [retired, row(Purpose::Link, KeyState::Previous, 2), row(Purpose::Link, KeyState::Current, 3)];
        let set = KeySet::open(&root(7), &rows).unwrap().unwrap();
        assert_eq!(set.current().id, id(3));
        assert_eq!(set.accepted().map(|key| key.expose()[0]).collect::<Vec<_>>(), [3, 2]);
        assert!(KeySet::open(&root(7), &rows[..2]).unwrap().is_none());
    }

    #[test]
    fn a_root_file_of_blanks_is_too_short() {
        assert_eq!(RootSecret::parse(&[b' '; 64]).unwrap_err(), RootTooShort { found: 0 });
        assert_eq!(RootSecret::parse(b"0123456789abcdef0123456789abcde\n").unwrap_err(), RootTooShort { found: 31 });
        assert!(RootSecret::parse(b"0123456789abcdef0123456789abcdef\r\n").is_ok());
    }

    #[test]
    fn a_root_secret_is_the_same_however_its_file_ends() {
        let with = |end: &str| RootSecret::parse(format!("0123456789abcdef0123456789abcdef{end}").as_bytes()).unwrap();
        assert!(with("").is_same(&with("\r\n")));
        assert!(!with("").is_same(&with("0")) && !root(7).is_same(&root(8)));
    }

    #[test]
    fn purposes_and_states_read_back() {
        for purpose in Purpose::ALL {
            assert_eq!(Purpose::parse(purpose.as_str()), Some(purpose));
        }
        assert_eq!(Purpose::parse("LINK"), None);
        assert_eq!(KeyState::parse("previous"), Some(KeyState::Previous));
    }
}
