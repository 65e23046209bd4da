//! Proving again who sits at a session: a link that is bound to the session, and what using it makes of it.

use super::{ConsumeLink, Link, LinkPurpose};
use crate::{
    audit::EventKind,
    decision::Denial,
    effects::Effects,
    id::SessionId,
    reason::Reason,
    session::{self, Session, SessionLimits},
    time::Timestamp,
};

/// The same link, to prove again who sits at `session` instead of signing in.
pub fn bind(mut link: Link, mut effects: Effects, session: SessionId) -> (Link, Effects) {
    link.purpose = LinkPurpose::ReAuth { session };
    for event in &mut effects.audit {
        event.detail.more.insert("purpose".into(), link.purpose.as_str().into());
        event.detail.more.insert("session".into(), session.to_string().into());
    }
    (link, effects)
}

/// The session that `link` proves again; `None` for a link that signs in. `here` is the session of the browser that
/// presents it.
///
/// # Errors
/// `session_unknown`, `session_idle`, `session_expired_absolute`: a session that is over does not come back by
/// this. `link_invalid` for a link of another purpose.
pub fn session_of<'s>(
    link: &Link,
    here: Option<&'s Session>,
    limits: &SessionLimits,
    now: Timestamp,
) -> Result<Option<&'s Session>, Denial> {
    match &link.purpose {
        LinkPurpose::SignIn => Ok(None),
        LinkPurpose::ReAuth { session } => {
            let found = here.filter(|here| here.id == *session && here.user_id == link.user_id);
            let found = found.ok_or(Reason::SessionUnknown)?;
            session::check(found, found.last_used_at, limits, now)?;
            Ok(Some(found))
        }
        LinkPurpose::EmailChange { .. } => {
            Err(Denial::from(Reason::LinkInvalid).with_note("a link for another purpose"))
        }
    }
}

/// Makes of a sign-in that is planned the continuation of `old`: a new name, token and moment of proof, the same
/// beginning and the same absolute end (NIST SP 800-63B-4 §5.2). The store applies it only while `old` is there.
pub fn continue_session(plan: &mut ConsumeLink, effects: &mut Effects, old: &Session) {
    plan.requires = Some(old.id);
    plan.replaces = None;
    plan.session.created_at = old.created_at;
    plan.session.expires_at = old.expires_at;
    plan.session.org_id = old.org_id;
    for event in effects.audit.iter_mut().filter(|event| event.kind == EventKind::SessionCreated) {
        event.kind = EventKind::SessionReauthenticated;
        event.detail.more.insert("continues".into(), old.id.to_string().into());
    }
}
