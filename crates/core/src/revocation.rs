//! The revocation log: append-only facts that caches, sockets and the blocklist follow.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    id::{ApiKeyId, SessionId, UserId},
    license::Holder,
    time::Timestamp,
};

/// What a revocation ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Scope {
    /// One session.
    Session {
        /// Its public name.
        id: SessionId,
    },
    /// Every session of a user that began before the entry.
    UserSessions {
        /// The user.
        id: UserId,
    },
    /// Every session of every user that began before the entry.
    AllSessions,
    /// A user changed (ban, unban, role, address): cached principals of theirs are void.
    User {
        /// The user.
        id: UserId,
    },
    /// One API key.
    ApiKey {
        /// Its public name.
        id: ApiKeyId,
    },
    /// A token by issuer name and `jti`.
    Token {
        /// Name of the `[[issuers]]` entry.
        issuer: String,
        /// The token's `jti`.
        jti: String,
    },
    /// A subject by issuer name and `sub`.
    Subject {
        /// Name of the `[[issuers]]` entry.
        issuer: String,
        /// The `sub`.
        subject: String,
    },
    /// A blocklist entry was taken back; the scope that it had.
    Lifted {
        /// What is allowed again.
        scope: Box<Scope>,
    },
    /// What is known of a license changed: caches read it again, and what is open looks whether it still may be.
    License {
        /// Whose it is.
        holder: Holder,
    },
    /// The highest time, by which licenses are judged, was begun anew (`license clock --reset`): readers load it again.
    LicenseTime,
    /// A key ring changed (`keys rotate`): readers load it again.
    KeyRing {
        /// Purpose of the ring.
        purpose: String,
    },
}

/// Longest `jti` or `sub` that a blocklist entry may name, in bytes.
pub const MAX_NAME: usize = 512;

impl Scope {
    /// A blocklist entry for the token `jti` of the issuer of this name; `None` if the `jti` is empty, too long
    /// ([`MAX_NAME`]) or holds control characters.
    pub fn token(issuer: &str, jti: &str) -> Option<Self> {
        is_name(jti).then(|| Self::Token { issuer: issuer.to_owned(), jti: jti.to_owned() })
    }

    /// A blocklist entry for the `sub` of the issuer of this name; `None` as for [`Scope::token`].
    pub fn subject(issuer: &str, subject: &str) -> Option<Self> {
        is_name(subject).then(|| Self::Subject { issuer: issuer.to_owned(), subject: subject.to_owned() })
    }

    /// Whether this is a blocklist entry: a token or a subject.
    pub const fn is_blocklist(&self) -> bool {
        matches!(self, Self::Token { .. } | Self::Subject { .. })
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && !text.contains(char::is_control)
}

/// An entry about to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRevocation {
    /// What it ends.
    pub scope: Scope,
    /// Sessions that began at or before this moment are meant.
    pub at: Timestamp,
    /// After this moment the entry says nothing any more; `None` for ever.
    pub until: Option<Timestamp>,
    /// Why, for the operator: a short word such as `sign_out`, `ban`.
    pub why: String,
}

/// How long an entry that takes others back stays in the log. They are gone from it at once, so it is there only for
/// those who have read them already: whoever has not read the log for that long begins it anew.
pub const LIFTED_FOR: Duration = Duration::from_hours(7 * 24);

impl NewRevocation {
    /// The entry that takes back all entries for `scope` before it; it ends [`LIFTED_FOR`] after `now`.
    pub fn lifting(scope: Scope, now: Timestamp, why: &str) -> Self {
        let scope = Scope::Lifted { scope: Box::new(scope) };
        Self { scope, at: now, until: Some(now.plus(LIFTED_FOR)), why: why.to_owned() }
    }

    /// [`NewRevocation::why`] of a change of a user that is a ban.
    pub const BAN: &'static str = "ban";
    /// [`NewRevocation::why`] of a change of a user that lifts one.
    pub const UNBAN: &'static str = "unban";
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Position; strictly rising in the order in which entries become visible.
    pub seq: i64,
    /// The entry.
    pub entry: NewRevocation,
}
