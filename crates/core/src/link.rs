//! Magic links: a record, and the plan that consumes it.
//!
//! The mail carries a short-lived HS256 JWT (B29); the record keeps its `jti`, the browser that asked and
//! where to go, never the token.

use crate::{
    decision::Denial,
    id::{LinkId, UserId},
    reason::Reason,
    session::{Session, TokenHash},
    time::Timestamp,
    user::{Email, User},
};

/// A link as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// `jti` of the token.
    pub id: LinkId,
    /// Whom it signs in.
    pub user_id: UserId,
    /// The user's version when it was made; a changed user voids it (G19).
    pub user_version: i64,
    /// Address it was sent to.
    pub email: Email,
    /// Hash of the login cookie of the browser that asked.
    pub browser: TokenHash,
    /// Local path to go to afterwards, validated when it was stored.
    pub return_to: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was used.
    pub used_at: Option<Timestamp>,
}

/// What `consume_link` commits in one transaction: the link is used, the session begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumeLink {
    /// The link; consumed only if still unused.
    pub link: LinkId,
    /// The user and the version that was checked; a user changed meanwhile voids the plan.
    pub user_id: UserId,
    /// See `user_id`.
    pub user_version: i64,
    /// When.
    pub at: Timestamp,
    /// The session that begins.
    pub session: Session,
    /// The session that this browser had before; it ends (B46).
    pub replaces: Option<TokenHash>,
}

/// Checks that `link` may sign `user` in, from the browser with the login cookie hashed as `browser`.
///
/// Not checked here: the signature of the token that named the link.
///
/// # Errors
/// `link_reused`, `link_expired`, `link_invalid` (the user changed), `link_wrong_browser`, `user_banned`;
/// in this order, so the answer to a used link does not depend on who asks.
pub fn check(link: &Link, user: &User, browser: Option<&TokenHash>, now: Timestamp) -> Result<(), Denial> {
    if link.used_at.is_some() {
        return Err(Reason::LinkReused.into());
    }
    if now >= link.expires_at {
        return Err(Reason::LinkExpired.into());
    }
    if link.user_id != user.id || link.user_version != user.version || link.email != user.email {
        return Err(Denial::from(Reason::LinkInvalid).with_note("the user changed after the link was made"));
    }
    if browser != Some(&link.browser) {
        return Err(Reason::LinkWrongBrowser.into());
    }
    if user.banned_at.is_some() {
        return Err(Reason::UserBanned.into());
    }
    Ok(())
}
