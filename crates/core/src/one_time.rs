//! One-time tokens that the operator is shown: known by their hash, used once.

use crate::{
    audit::EventKind,
    decision::Denial,
    effects::Effects,
    id::UserId,
    link::{NewSession, plan_session},
    reason::Reason,
    revocation::{NewRevocation, Scope},
    session::{Session, TokenHash},
    time::Timestamp,
    user::User,
};

/// What a one-time token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OneTimePurpose {
    /// Makes the first administrator of an installation that has none.
    FirstAdmin,
}

impl OneTimePurpose {
    /// The word in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstAdmin => "first_admin",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        (word == Self::FirstAdmin.as_str()).then_some(Self::FirstAdmin)
    }
}

/// A one-time token as the store keeps it. The token itself is nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneTime {
    /// Hash of the token; the key.
    pub hash: TokenHash,
    /// What it is for.
    pub purpose: OneTimePurpose,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was used.
    pub used_at: Option<Timestamp>,
}

/// Checks that `token` can be used for `purpose`. Not checked here: whether there is an administrator by now.
///
/// # Errors
/// `link_invalid` (another purpose), `link_reused`, `link_expired`.
pub fn check(token: &OneTime, purpose: OneTimePurpose, now: Timestamp) -> Result<(), Denial> {
    if token.purpose != purpose {
        return Err(Reason::LinkInvalid.into());
    }
    if token.used_at.is_some() {
        return Err(Reason::LinkReused.into());
    }
    if now >= token.expires_at {
        return Err(Reason::LinkExpired.into());
    }
    Ok(())
}

/// Who becomes the first administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimant {
    /// Nobody has the address yet: this user is made, as administrator.
    New(User),
    /// A user who exists, at the version that was looked at.
    Known {
        /// The user.
        id: UserId,
        /// The version; a user changed meanwhile voids the plan.
        version: i64,
    },
}

/// What `claim_first_admin` commits in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimFirstAdmin {
    /// The token; used up, and every other of its kind with it.
    pub token: TokenHash,
    /// Who claims.
    pub claimant: Claimant,
    /// When.
    pub at: Timestamp,
    /// The session that begins.
    pub session: Session,
    /// The session that this browser had before; it ends.
    pub replaces: Option<TokenHash>,
}

/// Plans the claim of the first administrator: what the store commits in one transaction, and its effects.
///
/// Call [`check`] first. The address is not proven by it: whoever holds the token has seen the server's own output.
///
/// # Errors
/// `user_banned`.
pub fn plan_claim(
    token: TokenHash,
    claimant: &Claiming,
    new: NewSession,
    now: Timestamp,
) -> Result<(ClaimFirstAdmin, Effects), Denial> {
    let (user, planned) = match claimant {
        Claiming::New(user) => (user, Claimant::New(user.clone())),
        Claiming::Known(user) if user.banned_at.is_some() => return Err(Reason::UserBanned.into()),
        Claiming::Known(user) => (user, Claimant::Known { id: user.id, version: user.version }),
    };
    let asker = new.asker.clone();
    let replaces = new.replaces.as_ref().map(|old| old.hash);
    let (session, mut effects) = plan_session(user.id, new, now);
    if matches!(claimant, Claiming::New(_)) {
        effects.audit.push(asker.event(EventKind::UserCreated, now).about(user.id));
    } else {
        let scope = Scope::User { id: user.id };
        let until = Some(session.expires_at);
        effects.revocations.push(NewRevocation { scope, at: now, until, why: "role".to_owned() });
    }
    effects.audit.push(asker.event(EventKind::AdminClaimed, now).about(user.id));
    Ok((ClaimFirstAdmin { token, claimant: planned, at: now, session, replaces }, effects))
}

/// Who claims, as far as the caller knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claiming {
    /// Nobody has the address: this user is to be made.
    New(User),
    /// Somebody has it already.
    Known(User),
}
