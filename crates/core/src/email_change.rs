//! Another mail address for a person: asked for in a session, confirmed by a link to the new address.

use std::time::Duration;

use crate::{
    audit::EventKind,
    decision::Denial,
    effects::Effects,
    id::{LinkId, UserId},
    link::{Asker, Link, LinkPurpose, session_ended},
    reason::Reason,
    revocation::{NewRevocation, Scope},
    session::{Session, TokenHash},
    time::Timestamp,
    user::{Email, User},
};

/// Why sessions end and cached principals are void.
const EMAIL_CHANGED: &str = "email_changed";

/// What a request for another address brings.
#[derive(Clone, Debug)]
pub struct ChangeRequest {
    /// Id of the link to be; the token's `jti`.
    pub id: LinkId,
    /// The new address.
    pub to: Email,
    /// Hash of the login cookie of the browser that asks.
    pub browser: TokenHash,
    /// Where to go afterwards; a path of our own.
    pub return_to: String,
    /// How long the link works.
    pub ttl: Duration,
    /// Who asks.
    pub asker: Asker,
}

/// Plans the link that confirms a new address: the record and its audit row. The mail is the caller's to add.
///
/// Not checked here: whether the address belongs to somebody. The caller must answer the same in both cases.
///
/// # Errors
/// `user_banned`.
pub fn plan_request(user: &User, request: ChangeRequest, now: Timestamp) -> Result<(Link, Effects), Denial> {
    if user.banned_at.is_some() {
        return Err(Reason::UserBanned.into());
    }
    let ChangeRequest { id, to, browser, return_to, ttl, asker } = request;
    let purpose = LinkPurpose::EmailChange { to: to.clone() };
    let mut event = asker.event(EventKind::LinkRequested, now).about(user.id);
    event.detail.more.insert("link".into(), id.to_string().into());
    event.detail.more.insert("purpose".into(), purpose.as_str().into());
    let link = Link {
        id,
        purpose,
        user_id: user.id,
        user_version: user.version,
        email: to,
        browser,
        return_to,
        created_at: now,
        // The token says whole seconds; both must end at the same moment.
        expires_at: Timestamp::from_secs(now.plus(ttl).as_secs()),
        used_at: None,
        voided_at: None,
        code: None,
    };
    Ok((link, Effects::audited(event)))
}

/// Checks that `link` may give `user` the address that it names, from the browser with the login cookie hashed as
/// `browser` or from a session of `signed_in`.
///
/// Not checked here: the signature of the token that named the link; whether the address is free.
///
/// # Errors
/// `link_invalid` (another purpose, or the user changed), `link_reused`, `link_expired`, `link_wrong_browser`,
/// `user_banned`.
pub fn check<'l>(
    link: &'l Link,
    user: &User,
    browser: Option<&TokenHash>,
    signed_in: Option<UserId>,
    now: Timestamp,
) -> Result<&'l Email, Denial> {
    let LinkPurpose::EmailChange { to } = &link.purpose else {
        return Err(Denial::from(Reason::LinkInvalid).with_note("the link is for something else"));
    };
    if link.used_at.is_some() {
        return Err(Reason::LinkReused.into());
    }
    if now >= link.expires_at || link.voided_at.is_some() {
        return Err(Reason::LinkExpired.into());
    }
    if browser != Some(&link.browser) && signed_in != Some(link.user_id) {
        return Err(Reason::LinkWrongBrowser.into());
    }
    if link.user_id == user.id && user.banned_at.is_some() {
        return Err(Reason::UserBanned.into());
    }
    if link.user_id != user.id || link.user_version != user.version {
        return Err(Denial::from(Reason::LinkInvalid).with_note("the user changed after the link was made"));
    }
    Ok(to)
}

/// What a change of address brings with it: the audit row, the end of `ended`, and that cached principals of the
/// user are void. The notice to the old address is the caller's to add.
pub fn plan_confirm(user: &User, link: &Link, ended: &[Session], asker: &Asker, now: Timestamp) -> Effects {
    let mut event = asker.event(EventKind::UserEmailChanged, now).about(user.id);
    event.detail.more.insert("link".into(), link.id.to_string().into());
    event.detail.more.insert("from".into(), user.email.as_str().into());
    event.detail.more.insert("to".into(), link.email.as_str().into());
    event.detail.more.insert("sessions_ended".into(), ended.len().into());
    let mut effects = Effects::audited(event).with_revocation(NewRevocation {
        scope: Scope::User { id: user.id },
        at: now,
        until: ended.iter().map(|session| session.expires_at).chain([now]).max(),
        why: EMAIL_CHANGED.to_owned(),
    });
    effects.revocations.extend(ended.iter().map(|session| session_ended(session, now, EMAIL_CHANGED)));
    effects
}

/// What is on record when the address belongs to somebody else.
pub fn plan_conflict(user: &User, asker: &Asker, now: Timestamp) -> Effects {
    Effects::audited(asker.event(EventKind::UserEmailConflict, now).about(user.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn user(byte: u8) -> User {
        User::new(UserId::mint(NOW, [byte; 10]), Email::parse("a@example.com").unwrap(), NOW)
    }

    fn link() -> Link {
        let request = ChangeRequest {
            id: LinkId::mint(NOW, [1; 10]),
            to: Email::parse("b@example.com").unwrap(),
            browser: TokenHash::of(b"here"),
            return_to: "/".to_owned(),
            ttl: Duration::from_secs(900),
            asker: Asker::default(),
        };
        plan_request(&user(2), request, NOW).unwrap().0
    }

    #[test]
    fn the_browser_that_asked_or_a_session_of_the_user_may_confirm_and_nobody_else() {
        let verdict = |browser: &[u8], signed_in: Option<UserId>| {
            let browser = TokenHash::of(browser);
            check(&link(), &user(2), Some(&browser), signed_in, NOW)
                .map(Email::to_string)
                .map_err(|denial| denial.reason)
        };
        assert_eq!(verdict(b"here", None), Ok("b@example.com".to_owned()));
        assert_eq!(verdict(b"else", Some(user(2).id)), Ok("b@example.com".to_owned()));
        assert_eq!(verdict(b"else", Some(user(3).id)), Err(Reason::LinkWrongBrowser));
        assert_eq!(verdict(b"else", None), Err(Reason::LinkWrongBrowser));
    }

    #[test]
    fn a_link_that_is_over_or_for_something_else_or_of_a_user_who_changed_confirms_nothing() {
        let verdict = |change: &dyn Fn(&mut Link, &mut User), now| {
            let (mut link, mut user) = (link(), user(2));
            change(&mut link, &mut user);
            let browser = link.browser;
            check(&link, &user, Some(&browser), None, now).map(drop).map_err(|denial| denial.reason)
        };
        assert_eq!(verdict(&|_, _| (), NOW), Ok(()));
        assert_eq!(verdict(&|link, _| link.purpose = LinkPurpose::SignIn, NOW), Err(Reason::LinkInvalid));
        assert_eq!(verdict(&|link, _| link.used_at = Some(NOW), NOW), Err(Reason::LinkReused));
        assert_eq!(verdict(&|link, _| link.voided_at = Some(NOW), NOW), Err(Reason::LinkExpired));
        assert_eq!(verdict(&|_, _| (), NOW.plus(Duration::from_secs(900))), Err(Reason::LinkExpired));
        assert_eq!(verdict(&|_, user| user.banned_at = Some(NOW), NOW), Err(Reason::UserBanned));
        assert_eq!(verdict(&|_, user| user.version += 1, NOW), Err(Reason::LinkInvalid));
    }
}
