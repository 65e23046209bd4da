//! API keys: the record and its check.

use std::collections::BTreeSet;

use crate::{
    decision::Denial,
    id::{ApiKeyId, OrgId, UserId},
    reason::Reason,
    session::TokenHash,
    time::Timestamp,
};

/// Who owns an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOwner {
    /// A user.
    User(UserId),
    /// An organisation.
    Org(OrgId),
    /// A named program.
    Service(String),
}

/// An API key as the store keeps it. The key itself is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Public name.
    pub id: ApiKeyId,
    /// SHA-256 of the key.
    pub hash: TokenHash,
    /// Owner.
    pub owner: KeyOwner,
    /// Organisation it is bound to.
    pub org_id: Option<OrgId>,
    /// What a person calls it, 64 bytes at most.
    pub name: String,
    /// First characters, to recognise it in a list: 8 at most.
    pub prefix: String,
    /// What it may do; empty means nothing.
    pub capabilities: BTreeSet<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
    /// When it was removed from lists.
    pub deleted_at: Option<Timestamp>,
    /// When it was last used, as far as written.
    pub last_used_at: Option<Timestamp>,
}

/// Checks that a key is alive. Capabilities are the rule's business.
///
/// # Errors
/// `api_key_deleted`, `api_key_revoked`, `api_key_expired`, in this order.
pub fn check(key: &ApiKey, now: Timestamp) -> Result<(), Denial> {
    if key.deleted_at.is_some() {
        return Err(Reason::ApiKeyDeleted.into());
    }
    if key.revoked_at.is_some() {
        return Err(Reason::ApiKeyRevoked.into());
    }
    if key.expires_at.is_some_and(|end| now >= end) {
        return Err(Reason::ApiKeyExpired.into());
    }
    Ok(())
}
