//! Magic links: a record, and the plan that consumes it.
//!
//! The mail carries a short-lived HS256 JWT (B29); the record keeps its `jti`, the browser that asked and
//! where to go, never the token.

pub mod browser;
mod code;
pub mod re_auth;
mod token;

use std::{net::IpAddr, time::Duration};

use crate::{
    audit::{AuditDetail, AuditEvent, EventKind},
    decision::Denial,
    effects::Effects,
    id::{LinkId, SessionId, UserId},
    license::Holder,
    reason::Reason,
    revocation::{NewRevocation, Scope},
    session::{Session, SignInMethod, TokenHash},
    time::Timestamp,
    user::{Email, LinkStatus, User},
};

pub use code::Code;
pub use token::{LinkClaims, MAX_BYTES, TYPE, mint_token, parse_token};

/// What a link is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkPurpose {
    /// Begins a session.
    SignIn,
    /// Proves again who sits at a session.
    ReAuth {
        /// The session; it must still be there.
        session: SessionId,
    },
    /// Confirms a new mail address; the link goes to that address.
    EmailChange {
        /// The new address.
        to: Email,
    },
}

impl LinkPurpose {
    /// The word in the store and in logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::SignIn => "sign_in",
            Self::ReAuth { .. } => "re_auth",
            Self::EmailChange { .. } => "email_change",
        }
    }
}

/// The code from a mail as the store keeps it: typed by hand where the link cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypedCode {
    /// HMAC under the link keys over link id and code; never the code.
    pub hash: [u8; 32],
    /// When it ends; not after the link.
    pub expires_at: Timestamp,
    /// How often a code was tried, right or wrong.
    pub tries: u32,
}

impl TypedCode {
    /// How often a code may be tried.
    pub const TRIES: u32 = 5;
}

/// A link as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// `jti` of the token.
    pub id: LinkId,
    /// What it is for.
    pub purpose: LinkPurpose,
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
    /// When a newer link of the same user, purpose and browser took its place.
    pub voided_at: Option<Timestamp>,
    /// The code that stands for it.
    pub code: Option<TypedCode>,
}

/// What was presented for a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The token of the link.
    Link,
    /// The code.
    Code,
}

impl Proof {
    /// How a session says that it began.
    pub const fn method(self) -> SignInMethod {
        match self {
            Self::Link => SignInMethod::MagicLink,
            Self::Code => SignInMethod::Code,
        }
    }
}

/// What becomes of a pending user's candidate subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// It matches: it becomes the user's external subject.
    Promote {
        /// The candidate that was compared.
        subject: String,
    },
    /// It does not: the user is marked, nothing is consumed and no session begins.
    Mismatch,
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
    /// What was presented.
    pub by: Proof,
    /// What becomes of a pending user.
    pub promote: Option<Promotion>,
    /// When.
    pub at: Timestamp,
    /// The session that must still be there; it ends (re-authentication).
    pub requires: Option<SessionId>,
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
/// `link_reused`, `link_expired`, `link_wrong_browser`, `user_banned`, `link_invalid` (a newer link, or the user
/// changed); in this order, so the answer to a used link does not depend on who asks, and only the browser that
/// asked hears anything about the user.
pub fn check(link: &Link, user: &User, browser: Option<&TokenHash>, now: Timestamp) -> Result<(), Denial> {
    if link.used_at.is_some() {
        return Err(Reason::LinkReused.into());
    }
    if now >= link.expires_at {
        return Err(Reason::LinkExpired.into());
    }
    if browser != Some(&link.browser) {
        return Err(Reason::LinkWrongBrowser.into());
    }
    // A ban also changes the version; it is the better answer.
    if link.user_id == user.id && user.banned_at.is_some() {
        return Err(Reason::UserBanned.into());
    }
    if link.voided_at.is_some() {
        return Err(voided());
    }
    if link.user_id != user.id || link.user_version != user.version || link.email != user.email {
        return Err(Denial::from(Reason::LinkInvalid).with_note("the user changed after the link was made"));
    }
    Ok(())
}

/// The refusal of a link after which this browser has asked for another one.
pub fn voided() -> Denial {
    Denial::from(Reason::LinkInvalid)
        .with_note("a newer link was sent")
        .with_explanation("A newer link was sent after it: use the one in the latest mail.")
}

/// What becomes of the candidate subject of `user`, whose mail address the provider knows as `found`.
///
/// `None` for a user who waits for nothing, and where the provider knows nobody: then the sign-in goes on and the
/// user stays pending. Not verified: who `found` is.
///
/// # Errors
/// `link_mismatch` for a user who was marked before: whoever runs the installation has to look.
pub fn judge_candidate(user: &User, found: Option<&str>) -> Result<Option<Promotion>, Denial> {
    match (user.link_status, &user.candidate_subject, found) {
        (Some(LinkStatus::Mismatch), ..) => Err(Reason::LinkMismatch.into()),
        (Some(LinkStatus::PendingVerify), Some(candidate), Some(found)) if candidate == found => {
            Ok(Some(Promotion::Promote { subject: candidate.clone() }))
        }
        (Some(LinkStatus::PendingVerify), Some(_), Some(_)) => Ok(Some(Promotion::Mismatch)),
        _ => Ok(None),
    }
}

/// The audit row of a candidate that did not match (B8).
pub fn mismatch_event(asker: &Asker, user: &User, link: &Link, attempted: &str, now: Timestamp) -> AuditEvent {
    let mut event = asker.event(EventKind::LinkMismatch, now).about(user.id);
    event.reason = Some(Reason::LinkMismatch);
    event.detail.more.insert("link".into(), link.id.to_string().into());
    event.detail.more.insert("candidate_subject".into(), user.candidate_subject.clone().into());
    event.detail.more.insert("attempted_subject".into(), attempted.into());
    event
}

/// Who stands at the other end, for the record and the mail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// Client address as derived from the trusted proxies.
    pub ip: Option<IpAddr>,
    user_agent: Option<String>,
}

impl Asker {
    /// Longest `User-Agent` kept, in bytes.
    pub const USER_AGENT_MAX: usize = 256;

    /// Takes the address and the `User-Agent`, cut to [`Asker::USER_AGENT_MAX`] bytes and without control characters.
    pub fn new(ip: Option<IpAddr>, user_agent: Option<&str>) -> Self {
        let user_agent = user_agent.map(|text| {
            let cut = &text[..text.floor_char_boundary(Self::USER_AGENT_MAX)];
            cut.chars().filter(|c| !c.is_control()).collect()
        });
        Self { ip, user_agent }
    }

    /// The `User-Agent`, cut.
    pub fn user_agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }

    /// An audit event about this asker.
    pub fn event(&self, kind: EventKind, at: Timestamp) -> AuditEvent {
        let detail = AuditDetail { ip: self.ip, user_agent: self.user_agent.clone(), ..AuditDetail::default() };
        AuditEvent { detail, ..AuditEvent::new(kind, at) }
    }
}

/// What a request for a link brings.
#[derive(Clone, Debug)]
pub struct LinkRequest {
    /// Id of the link to be; the token's `jti`.
    pub id: LinkId,
    /// Hash of the login cookie of the browser that asks.
    pub browser: TokenHash,
    /// Where to go afterwards; already judged to be local or allowed.
    pub return_to: String,
    /// How long the link works.
    pub ttl: Duration,
    /// Who asks.
    pub asker: Asker,
}

/// Plans a link for `user`: the record and its audit row. The mail is the caller's to add.
///
/// # Errors
/// `user_banned`. The caller must answer the same whatever comes out (B28).
pub fn plan_request(user: &User, request: LinkRequest, now: Timestamp) -> Result<(Link, Effects), Denial> {
    if user.banned_at.is_some() {
        return Err(Reason::UserBanned.into());
    }
    let mut event = request.asker.event(EventKind::LinkRequested, now).about(user.id);
    event.detail.more.insert("link".into(), request.id.to_string().into());
    // The token says whole seconds; both must end at the same moment.
    let expires_at = Timestamp::from_secs(now.plus(request.ttl).as_secs());
    let link = Link {
        id: request.id,
        purpose: LinkPurpose::SignIn,
        user_id: user.id,
        user_version: user.version,
        email: user.email.clone(),
        browser: request.browser,
        return_to: request.return_to,
        created_at: now,
        expires_at,
        used_at: None,
        voided_at: None,
        code: None,
    };
    Ok((link, Effects::audited(event)))
}

/// What the session that begins is made of.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its public name.
    pub id: SessionId,
    /// Hash of its token.
    pub hash: TokenHash,
    /// How the person proved who they are.
    pub method: SignInMethod,
    /// Its absolute limit.
    pub absolute: Duration,
    /// Who signs in.
    pub asker: Asker,
    /// The session that this browser had until now; it ends (B46).
    pub replaces: Option<Session>,
}

/// Plans a session of `user`, with its audit rows and the revocation of the session that it replaces. The first
/// audit row is the one about the new session.
pub fn plan_session(user: UserId, new: NewSession, now: Timestamp) -> (Session, Effects) {
    let mut event = new.asker.event(EventKind::SessionCreated, now).about(user);
    event.detail.more.insert("session".into(), new.id.to_string().into());
    event.detail.more.insert("method".into(), new.method.as_str().into());
    let mut effects = Effects::audited(event);
    if let Some(old) = &new.replaces {
        let mut ended = new.asker.event(EventKind::SessionEnded, now).about(old.user_id);
        ended.detail.more.insert("session".into(), old.id.to_string().into());
        ended.detail.more.insert("why".into(), "replaced".into());
        effects.audit.push(ended);
        effects.revocations.push(session_ended(old, now, "replaced"));
    }
    let session = Session {
        id: new.id,
        hash: new.hash,
        user_id: user,
        org_id: None,
        method: new.method,
        created_at: now,
        authenticated_at: now,
        last_used_at: now,
        expires_at: now.plus(new.absolute),
        ip: new.asker.ip,
        user_agent: new.asker.user_agent,
    };
    (session, effects)
}

/// Plans the use of `link`: what the store commits in one transaction, with the audit rows and the
/// revocation of the session that is replaced.
///
/// Call [`check`] first; nothing is checked here. The store applies the plan only if the link is still
/// unused and the user still has the version in the link.
pub fn plan_consume(link: &Link, new: NewSession, now: Timestamp) -> (ConsumeLink, Effects) {
    let replaces = new.replaces.as_ref().map(|old| old.hash);
    let (session, mut effects) = plan_session(link.user_id, new, now);
    if let Some(created) = effects.audit.first_mut() {
        created.detail.more.insert("link".into(), link.id.to_string().into());
    }
    let plan = ConsumeLink {
        link: link.id,
        user_id: link.user_id,
        user_version: link.user_version,
        by: Proof::Link,
        promote: None,
        at: now,
        requires: None,
        session,
        replaces,
    };
    (plan, effects)
}

/// How long it stays in the revocation log that a user has a subject now.
const LINK_SPREADS_FOR: Duration = Duration::from_hours(24);

/// Puts the promotion of a pending user into a sign-in that is planned. Whoever remembers the license of this user without
/// a subject asks no blocklist about it, so that memory is void; the session that begins is not.
pub fn promote(plan: &mut ConsumeLink, effects: &mut Effects, promotion: Promotion) {
    if let Promotion::Promote { subject } = &promotion {
        for event in effects.audit.iter_mut().filter(|event| event.kind == EventKind::SessionCreated) {
            event.detail.more.insert("linked_subject".into(), subject.as_str().into());
        }
        effects.revocations.push(NewRevocation {
            scope: Scope::License { holder: Holder::User(plan.user_id) },
            at: plan.at,
            until: Some(plan.at.plus(LINK_SPREADS_FOR)),
            why: "subject_linked".to_owned(),
        });
    }
    plan.promote = Some(promotion);
}

/// Plans the end of `session` by its own person.
pub fn plan_sign_out(session: &Session, asker: &Asker, now: Timestamp) -> Effects {
    let mut event = asker.event(EventKind::SessionEnded, now).about(session.user_id);
    event.detail.more.insert("session".into(), session.id.to_string().into());
    event.detail.more.insert("why".into(), "sign_out".into());
    Effects::audited(event).with_revocation(session_ended(session, now, "sign_out"))
}

pub(crate) fn session_ended(session: &Session, now: Timestamp, why: &str) -> NewRevocation {
    // The entry says nothing new once the session would be over anyway.
    let until = Some(session.expires_at.max(now));
    NewRevocation { scope: Scope::Session { id: session.id }, at: now, until, why: why.to_owned() }
}

#[cfg(test)]
mod tests;
