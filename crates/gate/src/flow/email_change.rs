//! Changing one's mail address: asked for in a session, confirmed by a link to the new address.
//!
//! Whether an address belongs to somebody is never told: the answer to the request is the same, and whoever confirms
//! holds a mail that only the new address got.

use std::{fmt, sync::Arc, time::Duration};

use doorward_core::{
    decision::Denial,
    effects::NewMail,
    email_change::{self, ChangeRequest},
    id::{LinkId, MailId, UserId},
    link::{self, Asker, Link},
    reason::Reason,
    ring::Purpose,
    session::{OpaqueToken, Session, TokenHash},
    time::Now,
    user::{Email, User},
};
use doorward_store::{ConfirmEmail, EmailChange, Store};

use super::mail_people::{self, ConfirmMail};
use crate::{
    clock::Clock,
    rate::{Limit, Limits},
    ring::Ring,
};

/// How long the notice to the old address is worth sending.
const NOTICE_LIFE: Duration = Duration::from_secs(3 * 86_400);
/// How often a confirmation is planned again because sessions began or ended meanwhile.
const ROUNDS: usize = 4;
/// Pages of sessions, 1,000 each, that one change of address ends.
const SESSION_PAGES: usize = 100;

/// What a request for another address brings.
#[derive(Clone, Debug)]
pub struct EmailAsk {
    /// Whose session asks.
    pub user: UserId,
    /// The address as it was typed.
    pub to: String,
    /// The login cookie of this browser, if it has one.
    pub browser: Option<OpaqueToken>,
    /// The host that people know the product by; in the mail.
    pub site: String,
    /// The page behind the link, without the query; from the config, never from a request's `Host`.
    pub confirm_url: String,
    /// Where to go afterwards; a path of our own.
    pub return_to: String,
    /// How long the link works.
    pub ttl: Duration,
    /// Who asks.
    pub asker: Asker,
}

/// Who stands at the page behind the link.
#[derive(Clone, Debug)]
pub struct Confirmer {
    /// The login cookie of this browser.
    pub browser: Option<OpaqueToken>,
    /// The live session of this browser: its user and its token's hash.
    pub session: Option<(UserId, TokenHash)>,
    /// Who confirms.
    pub asker: Asker,
}

/// An address that was changed and stored.
#[derive(Clone, Debug)]
pub struct Confirmed {
    /// The user as it is now.
    pub user: User,
    /// Hashes of the sessions that ended.
    pub ended: Vec<TokenHash>,
    /// Where to go.
    pub return_to: String,
}

/// The flow, as a handle that is cheap to clone.
#[derive(Clone)]
pub struct EmailChanges(Arc<Inner>);

struct Inner {
    store: Store,
    ring: Ring,
    clock: Clock,
    limits: Arc<dyn Limits>,
}

impl fmt::Debug for EmailChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmailChanges").finish_non_exhaustive()
    }
}

impl EmailChanges {
    /// The flow on this store.
    pub fn new(store: Store, ring: Ring, clock: Clock, limits: Arc<dyn Limits>) -> Self {
        Self(Arc::new(Inner { store, ring, clock, limits }))
    }

    /// Asks for another address; the same whether or not the address belongs to somebody. Gives back the login cookie
    /// to set. The caller answers no sooner than its response floor.
    ///
    /// # Errors
    /// `request_malformed`, `rate_limited`, `user_banned`, `store_unavailable`.
    pub async fn request(&self, ask: EmailAsk, now: Now) -> Result<OpaqueToken, Denial> {
        let Inner { store, ring, clock, limits } = &*self.0;
        let malformed = |why| Denial::from(Reason::RequestMalformed).with_explanation(why);
        let to = Email::parse(&ask.to).ok_or_else(|| malformed("That is not a mail address."))?;
        limits.take(Limit::EmailChangePerUser, Limit::user(ask.user)).await.map_err(Denial::limited)?;
        let keys = ring.keys(Purpose::Link)?;
        let user = store.user(ask.user).await?.ok_or(Reason::SessionUnknown)?;
        if user.email == to {
            return Err(malformed("That is your address already."));
        }
        let browser = ask.browser.unwrap_or_else(|| OpaqueToken::mint(clock.random()));
        if store.user_by_email(to.clone()).await?.is_some() {
            store.append(email_change::plan_conflict(&user, &ask.asker, now.wall)).await?;
            return Ok(browser);
        }
        let request = ChangeRequest {
            id: LinkId::mint(now.wall, clock.random()),
            to,
            browser: browser.hash(),
            return_to: ask.return_to,
            ttl: ask.ttl,
            asker: ask.asker.clone(),
        };
        let (link, effects) = email_change::plan_request(&user, request, now.wall)?;
        let token = link::mint_token(&link, &keys)?;
        let text = mail_people::confirm(&ConfirmMail {
            site: &ask.site,
            url: &format!("{}?token={token}", ask.confirm_url),
            valid_for: ask.ttl,
            ip: ask.asker.ip,
            user_agent: ask.asker.user_agent(),
        });
        let mail = NewMail {
            id: MailId::mint(now.wall, clock.random()),
            to: link.email.clone(),
            kind: "email_change",
            subject: text.subject,
            text: text.text,
            html: text.html,
            created_at: now.wall,
            give_up_at: link.expires_at,
        };
        store.put_link(link, effects.with_mail(mail)).await?;
        Ok(browser)
    }

    /// Looks at a link for the page behind it; consumes and writes nothing. Gives back the new address.
    ///
    /// # Errors
    /// `missing_token`, `link_invalid`, `link_expired`, `link_reused`, `link_wrong_browser`, `user_banned`,
    /// `store_unavailable`.
    pub async fn peek(&self, token: &str, who: &Confirmer, now: Now) -> Result<Email, Denial> {
        let (link, user) = self.find(token, now).await?;
        check(&link, &user, who, now).cloned()
    }

    /// Uses a link: the user has the new address, and every session of theirs but this one has ended.
    ///
    /// # Errors
    /// Those of [`EmailChanges::peek`]; an address that somebody else got meanwhile is `link_invalid` and on record.
    pub async fn confirm(&self, token: &str, site: &str, who: &Confirmer, now: Now) -> Result<Confirmed, Denial> {
        let store = &self.0.store;
        for _ in 0..ROUNDS {
            let (link, user) = self.find(token, now).await?;
            let to = check(&link, &user, who, now)?.clone();
            let keep = who.session.filter(|(owner, _)| *owner == user.id).map(|(_, hash)| hash);
            let mut ended = self.all_sessions(user.id).await?;
            ended.retain(|session| Some(session.hash) != keep);
            let notice = self.notice(&user, &to, site, &who.asker, now);
            let effects = email_change::plan_confirm(&user, &link, &ended, &who.asker, now.wall).with_mail(notice);
            let plan = ConfirmEmail {
                link: link.id,
                user_id: user.id,
                user_version: user.version,
                to,
                at: now.wall,
                keep,
                ends: ended.len() as u64,
            };
            let invalid = |note| Err(Denial::from(Reason::LinkInvalid).with_note(note));
            match store.confirm_email(plan, effects).await? {
                EmailChange::Changed(user) => {
                    tracing::info!(user = %user.id, ended = ended.len(), "changed the mail address");
                    let ended = ended.iter().map(|session: &Session| session.hash).collect();
                    return Ok(Confirmed { user, ended, return_to: link.return_to });
                }
                EmailChange::Taken => {
                    store.append(email_change::plan_conflict(&user, &who.asker, now.wall)).await?;
                    return invalid("the address belongs to somebody else by now");
                }
                EmailChange::Unknown => return invalid("the link or its user is gone"),
                EmailChange::AlreadyUsed => return Err(Reason::LinkReused.into()),
                EmailChange::Voided => return Err(Reason::LinkExpired.into()),
                // Look again: the check says what it is now.
                EmailChange::UserChanged | EmailChange::SessionsChanged => {}
            }
        }
        Err(Denial::from(Reason::StoreUnavailable).with_note("the sessions of the user changed all the time"))
    }

    /// Every session of a user, page by page.
    async fn all_sessions(&self, user: UserId) -> Result<Vec<Session>, Denial> {
        let mut all: Vec<Session> = Vec::new();
        for _ in 0..SESSION_PAGES {
            let page = self.0.store.sessions_of_after(user, all.last().map(|session| session.id)).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
        Err(Denial::from(Reason::StoreUnavailable).with_note("the user has more sessions than are ended at once"))
    }

    async fn find(&self, token: &str, now: Now) -> Result<(Link, User), Denial> {
        if token.is_empty() {
            return Err(Reason::MissingToken.into());
        }
        let keys = self.0.ring.keys(Purpose::Link)?;
        let claims = link::parse_token(token, &keys, now)?;
        let invalid = |note: &str| Denial::from(Reason::LinkInvalid).with_note(note);
        // The user first: one who has changed already is then met with the link that was used for it.
        let user = self.0.store.user(claims.user).await?.ok_or_else(|| invalid("the user is gone"))?;
        let link = self.0.store.link(claims.link).await?.ok_or_else(|| invalid("no such link"))?;
        if link.user_id != claims.user || link.email != claims.email {
            return Err(invalid("the token and the record of the link differ"));
        }
        Ok((link, user))
    }

    fn notice(&self, user: &User, to: &Email, site: &str, asker: &Asker, now: Now) -> NewMail {
        let text = mail_people::changed(site, &mail_people::half_hidden(to), asker.ip, asker.user_agent());
        NewMail {
            id: MailId::mint(now.wall, self.0.clock.random()),
            to: user.email.clone(),
            kind: "email_changed",
            subject: text.subject,
            text: text.text,
            html: text.html,
            created_at: now.wall,
            give_up_at: now.wall.plus(NOTICE_LIFE),
        }
    }
}

fn check<'l>(link: &'l Link, user: &User, who: &Confirmer, now: Now) -> Result<&'l Email, Denial> {
    let browser = who.browser.as_ref().map(OpaqueToken::hash);
    email_change::check(link, user, browser.as_ref(), who.session.map(|(owner, _)| owner), now.wall)
}
