//! Sessions: opaque tokens, hashed at rest, with an idle and an absolute limit.

use std::{fmt, net::IpAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{
    audit::EventKind,
    decision::Denial,
    effects::Effects,
    id::{OrgId, SessionId, UserId},
    link::{Asker, session_ended},
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

impl SignInMethod {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::MagicLink, Self::Code, Self::Oidc, Self::Password];

    /// The word in the store, in answers, metrics and audit rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MagicLink => "magic_link",
            Self::Code => "code",
            Self::Oidc => "oidc",
            Self::Password => "password",
        }
    }
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

/// Plans the end of `session` by its own person from another one of theirs; `by` is that session's name.
pub fn plan_revoke(session: &Session, by: SessionId, asker: &Asker, now: Timestamp) -> Effects {
    let mut event = asker.event(EventKind::SessionRevoked, now).about(session.user_id);
    event.detail.more.insert("session".into(), session.id.to_string().into());
    event.detail.more.insert("by_session".into(), by.to_string().into());
    Effects::audited(event).with_revocation(session_ended(session, now, "revoked_by_its_person"))
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

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);
    const LIMITS: SessionLimits = SessionLimits {
        idle: Duration::from_secs(3600),
        absolute: Duration::from_secs(86_400),
        recent_auth: Duration::from_secs(300),
    };

    fn session() -> Session {
        Session {
            id: SessionId::mint(START, [1; 10]),
            hash: TokenHash::of(b"t"),
            user_id: UserId::mint(START, [2; 10]),
            org_id: None,
            method: SignInMethod::Password,
            created_at: START,
            authenticated_at: START,
            last_used_at: START,
            expires_at: START.plus(LIMITS.absolute),
            ip: None,
            user_agent: None,
        }
    }

    fn verdict(change: impl FnOnce(&mut Session), used: u64, now: u64) -> Result<(), Reason> {
        let mut session = session();
        change(&mut session);
        let at = |seconds| START.plus(Duration::from_secs(seconds));
        check(&session, at(used), &LIMITS, at(now)).map_err(|denial| denial.reason)
    }

    #[test]
    fn a_session_is_over_at_its_limits_whatever_has_been_swept() {
        assert_eq!(verdict(|_| (), 0, 3599), Ok(()));
        assert_eq!(verdict(|_| (), 0, 3600), Err(Reason::SessionIdle));
        assert_eq!(verdict(|_| (), 3600, 7199), Ok(()));
        assert_eq!(verdict(|_| (), 86_000, 86_399), Ok(()));
        assert_eq!(verdict(|_| (), 86_399, 86_400), Err(Reason::SessionExpiredAbsolute));
    }

    #[test]
    fn the_earlier_of_the_stored_end_and_todays_limit_counts() {
        let stored =
            |seconds| move |session: &mut Session| session.expires_at = START.plus(Duration::from_secs(seconds));
        assert_eq!(verdict(stored(100), 99, 100), Err(Reason::SessionExpiredAbsolute));
        assert_eq!(verdict(stored(1_000_000), 86_000, 86_400), Err(Reason::SessionExpiredAbsolute));
    }

    #[test]
    fn a_use_that_was_written_counts_also_where_the_caller_knows_an_older_one() {
        let used = |session: &mut Session| session.last_used_at = START.plus(Duration::from_secs(3000));
        assert_eq!(verdict(used, 0, 6599), Ok(()));
    }
}
