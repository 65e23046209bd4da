//! Users and mail addresses.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{id::UserId, time::Timestamp};

/// A mail address in the form in which it is stored and compared: trimmed, lower case, one `@`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Email(String);

impl Email {
    /// Longest accepted address in bytes (RFC 5321 §4.5.3.1.3, without the angle brackets).
    pub const MAX: usize = 254;

    /// Reads a mail address as a person types it.
    ///
    /// Deliberately narrower than RFC 5322: ASCII, exactly one `@`, no quoting, comments, lists or
    /// display names, because each of those has let one address pass for another (CVE-2022-35924,
    /// CVE-2026-40574). Returns `None` for everything else.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches([' ', '\t']);
        if text.len() > Self::MAX || !text.is_ascii() {
            return None;
        }
        let (local, domain) = text.split_once('@')?;
        let local_ok = (1..=64).contains(&local.len())
            && local.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b))
            && !local.starts_with('.')
            && !local.ends_with('.')
            && !local.contains("..");
        let label_ok = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        (local_ok && domain.split('.').all(label_ok)).then(|| Self(text.to_ascii_lowercase()))
    }

    /// Takes an address back from a store, where only parsed ones are written.
    pub fn from_store(text: String) -> Self {
        Self(text)
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a user is linked to a subject of the license provider (B3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkStatus {
    /// The subject is confirmed.
    Linked,
    /// A candidate subject waits for the first sign-in.
    PendingVerify,
    /// The candidate did not match.
    Mismatch,
}

/// Who made a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The operator: command line, import, the one-time URL.
    Operator,
    /// The person: sign-up. Removed after a day unless the address is proven.
    SignUp,
}

/// A user as the store keeps it. The password hash of the soak window is not part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Local id; the subject of sessions.
    pub id: UserId,
    /// Address that signs in; unique.
    pub email: Email,
    /// Whether a sign-in by mail has ever proven the address.
    pub email_verified: bool,
    /// Whether the user administers this installation.
    pub admin: bool,
    /// Counts up with every change that must void older links: address, ban, role, candidate.
    pub version: i64,
    /// Since when the user is banned.
    pub banned_at: Option<Timestamp>,
    /// Subject at the license provider, confirmed; unique where set.
    pub external_subject: Option<String>,
    /// Link to the license provider's subject.
    pub link_status: Option<LinkStatus>,
    /// Subject that waits for promotion.
    pub candidate_subject: Option<String>,
    /// Who made the user.
    pub origin: Origin,
    /// When the user was made.
    pub created_at: Timestamp,
}

impl User {
    /// A user made by the operator at `at`, with nothing proven and no rights. Change fields for anything else.
    pub const fn new(id: UserId, email: Email, at: Timestamp) -> Self {
        Self {
            id,
            email,
            email_verified: false,
            admin: false,
            version: 1,
            banned_at: None,
            external_subject: None,
            link_status: None,
            candidate_subject: None,
            origin: Origin::Operator,
            created_at: at,
        }
    }
}
