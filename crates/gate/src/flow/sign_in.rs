//! Signing in by a link in a mail (journey C), and signing out.
//!
//! Asking for a link costs and answers the same whoever asks (B28, G20): the request only puts a job into
//! a bounded queue, which [`LinkWorker`] works off. A link is consumed by one transaction together with the
//! session that it begins (G17), only from the browser that asked (G16). Of several links that a browser
//! asked for, each works once until it ends; asking again does not void the older one, whose mail may
//! arrive last.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use doorward_core::{
    audit::EventKind,
    decision::Denial,
    effects::Effects,
    id::{LinkId, SessionId},
    link::{self, Asker, Link, NewSession, re_auth},
    reason::Reason,
    ring::Purpose,
    session::{OpaqueToken, Session, SessionLimits, SignInMethod, TokenHash},
    time::Now,
    user::{Email, User},
};
use doorward_store::{Consume, End, Store};

use super::link_queue::{Ask, LinkStats, LinkWorker, Queue};
use crate::{
    clock::Clock,
    rate::{Limiter, Quota},
    ring::Ring,
};

/// Settings of the sign-in; swapped whole when the policy changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInConfig {
    /// The host that people know the product by; in mails.
    pub site: String,
    /// Where a link leads, without the query: `https://app.example.com/auth/login/callback`. From the config,
    /// never from a request's `Host`.
    pub callback_url: String,
    /// How long a link works.
    pub link_ttl: Duration,
    /// How long the code beside it works; never longer than the link.
    pub code_ttl: Duration,
    /// How long sessions live.
    pub sessions: SessionLimits,
    /// Whether an unknown address becomes a user by asking for a link. The row is made with the link, so a
    /// stranger can make rows within the limits of a client; they can do nothing until the mail proves them.
    pub allow_sign_up: bool,
    /// Links that one client may ask for; read once, when the worker is made.
    pub links_per_client: Quota,
}

impl SignInConfig {
    /// Name and callback URL for links that were asked for on `host`. Scheme, port and path stay those of the
    /// configuration, so a request decides nothing but which of our own hosts is meant.
    pub(super) fn at(&self, host: Option<&str>) -> (String, String) {
        let moved = host.and_then(|host| {
            let mut url = url::Url::parse(&self.callback_url).ok()?;
            url.set_host(Some(host)).ok()?;
            Some((host.to_owned(), url.to_string()))
        });
        moved.unwrap_or_else(|| (self.site.clone(), self.callback_url.clone()))
    }

    /// What one client may ask for (B73).
    pub const LINKS_PER_CLIENT: Quota = Quota::per_minute(3);
}

/// What a request for a link brings.
#[derive(Clone, Debug)]
pub struct LinkInput {
    /// The address as it was typed.
    pub email: String,
    /// The host that was asked, where it is another than that of the callback URL: the link has to lead back to
    /// it, because the browser's cookies belong to one host. The caller has found it in the configuration.
    pub host: Option<String>,
    /// Where to go afterwards; already judged to be local or allowed.
    pub return_to: String,
    /// The login cookie of this browser, if it has one.
    pub browser: Option<OpaqueToken>,
    /// Who asks.
    pub asker: Asker,
}

/// The answer to a request for a link; the same whatever becomes of it.
#[derive(Clone, Debug)]
pub struct LinkAsked {
    /// The login cookie to set: the one that came, so that an older link still works here, or a new one.
    pub browser: OpaqueToken,
}

/// What the page behind a link may offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peek {
    /// This browser asked for the link: it may go on.
    Here {
        /// Whom it would sign in.
        email: Email,
    },
    /// Another browser asked for it: only there it works.
    Elsewhere,
}

/// What comes back from the page behind a link.
#[derive(Clone, Debug)]
pub struct Callback {
    /// The token of the link.
    pub token: String,
    /// The login cookie of this browser.
    pub browser: Option<OpaqueToken>,
    /// The session that this browser has; it ends with the sign-in.
    pub replaces: Option<TokenHash>,
    /// Who signs in.
    pub asker: Asker,
}

/// A sign-in that is done and stored.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The session's token, for the cookie; nobody else has it.
    pub token: OpaqueToken,
    /// The session.
    pub session: Session,
    /// Where to go.
    pub return_to: String,
}

/// The flow, as a handle that is cheap to clone.
#[derive(Clone)]
pub struct SignIn(Arc<Inner>);

pub(super) struct Inner {
    pub(super) config: ArcSwap<SignInConfig>,
    pub(super) store: Store,
    pub(super) ring: Ring,
    pub(super) clock: Clock,
    queue: Queue,
    /// How often the refusals of one link are written down.
    refusals: Limiter<LinkId>,
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl SignIn {
    /// The flow and its worker, which the host runs beside it; without it no mail is ever written.
    pub fn new(config: SignInConfig, store: Store, ring: Ring, clock: Clock) -> (Self, LinkWorker) {
        let (queue, jobs) = Queue::new();
        let inner = Arc::new(Inner {
            config: ArcSwap::from_pointee(config),
            store,
            ring,
            queue,
            refusals: Limiter::new(Quota::per_hour(3), 4096, clock.clone()),
            clock,
        });
        (Self(Arc::clone(&inner)), LinkWorker::new(inner, jobs))
    }

    /// Takes new settings; links that are out keep the end that they were made with.
    pub fn configure(&self, config: SignInConfig) {
        self.0.config.store(Arc::new(config));
    }

    /// What became of the requests for links.
    pub fn stats(&self) -> LinkStats {
        self.0.queue.stats()
    }

    /// Asks for a link. Never waits, never says whether there is such a user; the caller answers no sooner
    /// than its response floor.
    pub fn request_link(&self, input: LinkInput) -> LinkAsked {
        let browser = input.browser.unwrap_or_else(|| OpaqueToken::mint(self.0.clock.random()));
        let ask = Email::parse(&input.email).map(|email| Ask {
            email,
            browser: browser.hash(),
            return_to: input.return_to,
            host: input.host,
            asker: input.asker,
        });
        self.0.queue.push(ask);
        LinkAsked { browser }
    }

    /// Looks at a link for the page behind it; consumes and writes nothing, however often it is called.
    ///
    /// # Errors
    /// `missing_token`, `link_invalid`, `link_expired`, `link_reused`, `user_banned`, `store_unavailable`.
    pub async fn peek(&self, token: &str, browser: Option<&OpaqueToken>, now: Now) -> Result<Peek, Denial> {
        let (link, user) = self.0.find(token, now).await?;
        let hash = browser.map(OpaqueToken::hash);
        match link::check(&link, &user, hash.as_ref(), now.wall) {
            Ok(()) => Ok(Peek::Here { email: user.email }),
            Err(denial) if denial.reason == Reason::LinkWrongBrowser => Ok(Peek::Elsewhere),
            Err(denial) => Err(denial),
        }
    }

    /// Uses a link: at most one caller ever gets a session for it.
    ///
    /// # Errors
    /// `missing_token`, `link_invalid`, `link_expired`, `link_wrong_browser`, `link_reused`, `user_banned`;
    /// `store_unavailable`, after which the link still works unless the store took the change and could not say so.
    pub async fn callback(&self, input: Callback, now: Now) -> Result<SignedIn, Denial> {
        let (link, user) = self.0.find(&input.token, now).await?;
        let outcome = self.0.sign_in(&link, &user, &input, now).await;
        if let Err(denial) = &outcome
            && !denial.reason.is_fault()
        {
            self.0.note_refusal(&link, &input.asker, denial, now).await;
        }
        outcome
    }

    /// Ends a session by its own person's wish, and with it the caches and sockets that follow the log.
    /// Gives back the session, or `None` if there was none any more.
    ///
    /// # Errors
    /// `store_unavailable`: the session may live on, so nobody may say that it ended.
    pub async fn sign_out(&self, session: TokenHash, asker: Asker, now: Now) -> Result<Option<Session>, Denial> {
        let Some((found, _)) = self.0.store.session(session).await? else { return Ok(None) };
        let effects = link::plan_sign_out(&found, &asker, now.wall);
        match self.0.store.end_session(session, effects).await? {
            End::Ended(session) => {
                tracing::info!(user = %session.user_id, session = %session.id, "signed out");
                Ok(Some(session))
            }
            End::Unknown => Ok(None),
        }
    }
}

impl Inner {
    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The link that a token names, and its user.
    async fn find(&self, token: &str, now: Now) -> Result<(Link, User), Denial> {
        if token.is_empty() {
            return Err(Reason::MissingToken.into());
        }
        let keys = self.ring.keys(Purpose::Link)?;
        let claims = link::parse_token(token, &keys, now)?;
        let invalid = |note: &str| Denial::from(Reason::LinkInvalid).with_note(note);
        let link = self.store.link(claims.link).await?.ok_or_else(|| invalid("no such link"))?;
        if link.user_id != claims.user || link.email != claims.email {
            return Err(invalid("the token and the record of the link differ"));
        }
        let user = self.store.user(link.user_id).await?.ok_or_else(|| invalid("the user is gone"))?;
        Ok((link, user))
    }

    async fn sign_in(&self, link: &Link, user: &User, input: &Callback, now: Now) -> Result<SignedIn, Denial> {
        let browser = input.browser.as_ref().map(OpaqueToken::hash);
        link::check(link, user, browser.as_ref(), now.wall)?;
        let replaces = match input.replaces {
            Some(hash) => self.store.session(hash).await?.map(|(session, _)| session),
            None => None,
        };
        let again = re_auth::session_of(link, replaces.as_ref(), &self.config.load().sessions, now.wall)?.cloned();
        let replaced = replaces.is_some();
        let token = OpaqueToken::mint(self.clock.random());
        let new = NewSession {
            id: SessionId::mint(now.wall, self.clock.random()),
            hash: token.hash(),
            method: SignInMethod::MagicLink,
            absolute: self.config.load().sessions.absolute,
            asker: input.asker.clone(),
            replaces,
        };
        let (mut plan, mut effects) = link::plan_consume(link, new, now.wall);
        if let Some(old) = &again {
            re_auth::continue_session(&mut plan, &mut effects, old);
        }
        let session = plan.session.clone();
        match self.store.consume_link(plan, effects).await? {
            Consume::Consumed => {
                tracing::info!(user = %user.id, session = %session.id, replaced, "signed in by a link");
                Ok(SignedIn { token, session, return_to: link.return_to.clone() })
            }
            Consume::AlreadyUsed => Err(Reason::LinkReused.into()),
            Consume::Voided => Err(Reason::LinkExpired.into()),
            Consume::SessionGone => Err(Reason::SessionUnknown.into()),
            Consume::Mismatch | Consume::SubjectTaken => Err(Reason::LinkInvalid.into()),
            Consume::Unknown => Err(Denial::from(Reason::LinkInvalid).with_note("the link is gone")),
            // Between our look and the transaction: say what is so now, a ban above all.
            Consume::UserChanged => Err(match self.store.user(user.id).await? {
                Some(User { banned_at: Some(_), .. }) => Reason::UserBanned.into(),
                _ => Denial::from(Reason::LinkInvalid).with_note("the user changed while signing in"),
            }),
        }
    }

    /// Writes a refusal down, at most a few per link: whoever holds a token may present it without end.
    async fn note_refusal(&self, link: &Link, asker: &Asker, denial: &Denial, now: Now) {
        tracing::info!(link = %link.id, user = %link.user_id, reason = denial.reason.code(), "sign-in link refused");
        if self.refusals.check(&link.id).is_err() {
            return;
        }
        let mut event = asker.event(EventKind::LinkRefused, now.wall).about(link.user_id);
        event.reason = Some(denial.reason);
        event.detail.more.insert("link".into(), link.id.to_string().into());
        if let Err(error) = self.store.append(Effects::audited(event)).await {
            tracing::warn!(%error, "the refusal of a sign-in link is not in the audit log");
        }
    }
}
