//! Sessions: opaque tokens, hashed at rest, with an idle and an absolute limit.

use std::{fmt, net::IpAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{
    decision::Denial,
    id::{OrgId, SessionId, UserId},
    reason::Reason,
    secret::Secret,
    time::Timestamp,
};

/// SHA-256 of a secret token; what stores and caches keep instead of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Hashes the bytes of a token.
    pub fn of(token: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token);
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        Self(hash)
    }

    /// Takes a hash back from a store.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash for a store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenHash {
    /// Eight hex digits: enough to find a row, useless to a reader of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..4] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("…")
    }
}

/// A 32-byte token that only its bearer knows: session, login cookie.
#[derive(Clone, Debug)]
pub struct OpaqueToken(Secret<[u8; 32]>);

impl OpaqueToken {
    /// Length of the text form: base64url of 32 bytes, no padding.
    pub const TEXT_LEN: usize = 43;

    /// Mints a token from 32 random bytes.
    pub fn mint(random: [u8; 32]) -> Self {
        Self(Secret::new(random))
    }

    /// Reads the text form; anything but 43 canonical base64url characters is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != Self::TEXT_LEN {
            return None;
        }
        let mut bytes = [0; 32];
        let n = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (n == 32).then(|| Self(Secret::new(bytes)))
    }

    /// The text form, for a cookie.
    pub fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.expose())
    }

    /// What is stored.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.0.expose())
    }
}

/// How a person proved who they are when the session began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignInMethod {
    /// The link from a mail.
    MagicLink,
    /// The code from a mail.
    Code,
    /// An OpenID provider.
    Oidc,
    /// A password, in the soak window.
    Password,
}

/// A session as the store keeps it. The token itself is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Public name.
    pub id: SessionId,
    /// Hash of the token; the key.
    pub hash: TokenHash,
    /// Whose session.
    pub user_id: UserId,
    /// Organisation it was opened for.
    pub org_id: Option<OrgId>,
    /// How it began.
    pub method: SignInMethod,
    /// When it began; the absolute limit counts from here, through re-authentications.
    pub created_at: Timestamp,
    /// When its person last proved who they are.
    pub authenticated_at: Timestamp,
    /// When it was last used, as far as written; the idle limit counts from here.
    pub last_used_at: Timestamp,
    /// Absolute end.
    pub expires_at: Timestamp,
    /// Client address at sign-in.
    pub ip: Option<IpAddr>,
    /// `User-Agent` at sign-in, cut to 256 bytes.
    pub user_agent: Option<String>,
}

/// How long sessions live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Ends this long after the last use.
    pub idle: Duration,
    /// Ends this long after the sign-in, whatever happens.
    pub absolute: Duration,
    /// How long a sign-in counts as recent.
    pub recent_auth: Duration,
}

impl Session {
    /// When the idle limit ends this session if it is not used again.
    pub fn idle_expires_at(&self, limits: &SessionLimits) -> Timestamp {
        self.last_used_at.plus(limits.idle)
    }
}

/// Checks the two limits of a session.
///
/// Both are read on the same wall clock; a session is over *at* its limit. The absolute end is the
/// earlier of the stored one and `created_at` plus today's limit, so shortening the limit in the
/// config takes effect at once. Not checked here: whether it was revoked, whether its user is banned.
///
/// # Errors
/// `session_expired_absolute`, `session_idle`.
pub fn check(session: &Session, last_used_at: Timestamp, limits: &SessionLimits, now: Timestamp) -> Result<(), Denial> {
    let end = session.expires_at.min(session.created_at.plus(limits.absolute));
    if now >= end {
        return Err(Reason::SessionExpiredAbsolute.into());
    }
    if now >= last_used_at.max(session.last_used_at).plus(limits.idle) {
        return Err(Reason::SessionIdle.into());
    }
    Ok(())
}
