//! Signing in by a link in a mail (journey C), and signing out.
//!
//! Asking for a link costs and answers the same whoever asks (B28, G20): the request only puts a job into
//! a bounded queue, which [`LinkWorker`] works off. A link is consumed by one transaction together with the
//! session that it begins (G17), only from the browser that asked (G16). Whoever asks again in the same browser
//! voids the older link; a stranger who asks elsewhere voids nothing.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use doorward_core::{
    decision::Denial,
    id::UserId,
    link::{self, Asker, Link, Proof},
    reason::Reason,
    ring::Purpose,
    session::{OpaqueToken, Session, SessionLimits, TokenHash},
    time::Now,
    user::{Email, User},
};
use doorward_store::{End, Store};

use super::{
    consume::Presented,
    directory::SubjectDirectory,
    link_queue::{Ask, LinkStats, LinkWorker, Queue},
    notes::Notes,
};
use crate::{
    clock::Clock,
    rate::{Limit, Limits},
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
    /// What this browser keeps of an earlier sign-in ([`SignedIn::known`]).
    pub known: Option<String>,
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
        /// The same, to compare with who is signed in already.
        user: UserId,
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
    /// What this browser keeps of an earlier sign-in ([`SignedIn::known`]).
    pub known: Option<String>,
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
    /// For a cookie of its own: lets this browser ask for links whoever else spends the limits of the address. It
    /// admits to nothing else.
    pub known: Option<String>,
}

/// What the flow works with.
#[derive(Clone, Debug)]
pub struct SignInParts {
    /// Links, users and sessions.
    pub store: Store,
    /// Our keys.
    pub ring: Ring,
    /// Time and randomness.
    pub clock: Clock,
    /// Where limits are counted.
    pub limits: Arc<dyn Limits>,
    /// Confirms the candidate subjects of pending users; without it they stay pending.
    pub directory: Option<Arc<dyn SubjectDirectory>>,
}

/// The flow, as a handle that is cheap to clone.
#[derive(Clone)]
pub struct SignIn(Arc<Inner>);

pub(super) struct Inner {
    pub(super) config: ArcSwap<SignInConfig>,
    pub(super) store: Store,
    pub(super) ring: Ring,
    pub(super) clock: Clock,
    pub(super) limits: Arc<dyn Limits>,
    pub(super) directory: ArcSwap<Option<Arc<dyn SubjectDirectory>>>,
    pub(super) notes: Notes,
    queue: Queue,
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl SignIn {
    /// The flow and its worker, which the host runs beside it; without it no mail is ever written.
    pub fn new(config: SignInConfig, parts: SignInParts) -> (Self, LinkWorker) {
        let SignInParts { store, ring, clock, limits, directory } = parts;
        let (queue, jobs) = Queue::new();
        let notes = Notes::new(store.clone(), &clock);
        let config = ArcSwap::from_pointee(config);
        let directory = ArcSwap::from_pointee(directory);
        let inner = Arc::new(Inner { config, store, ring, clock, limits, directory, notes, queue });
        (Self(Arc::clone(&inner)), LinkWorker::new(inner, jobs))
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Takes new settings; links that are out keep the end that they were made with.
    pub fn configure(&self, config: SignInConfig) {
        self.0.config.store(Arc::new(config));
    }

    /// Takes another directory, or none.
    pub fn use_directory(&self, directory: Option<Arc<dyn SubjectDirectory>>) {
        self.0.directory.store(Arc::new(directory));
    }

    /// What became of the requests for links.
    pub fn stats(&self) -> LinkStats {
        self.0.queue.stats()
    }

    /// Asks for a link. Never waits, never says whether there is such a user; the caller answers no sooner
    /// than its response floor.
    pub async fn request_link(&self, input: LinkInput) -> LinkAsked {
        let browser = match input.browser {
            Some(browser) => {
                // Another mail brings another code, whose tries begin anew; whether one comes makes no difference.
                self.0.limits.forget(Limit::CodePerBrowser, browser.hash()).await;
                browser
            }
            None => OpaqueToken::mint(self.0.clock.random()),
        };
        let ask = Email::parse(&input.email).map(|email| Ask {
            email,
            browser: browser.hash(),
            return_to: input.return_to,
            host: input.host,
            known: input.known,
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
            Ok(()) => Ok(Peek::Here { email: user.email, user: user.id }),
            Err(denial) if denial.reason == Reason::LinkWrongBrowser => Ok(Peek::Elsewhere),
            Err(denial) => Err(denial),
        }
    }

    /// Uses a link: at most one caller ever gets a session for it.
    ///
    /// Refusals that need no link of ours count against the client; over [`Limit::CallbackPerClient`] they are
    /// `rate_limited`. Whoever holds a link is never held back by them.
    ///
    /// # Errors
    /// `missing_token`, `link_invalid`, `link_expired`, `link_wrong_browser`, `link_reused`, `link_mismatch`,
    /// `user_banned`, `rate_limited`; `store_unavailable`, after which the link still works unless the store took the
    /// change and could not say so.
    pub async fn callback(&self, input: Callback, now: Now) -> Result<SignedIn, Denial> {
        let asker = &input.asker;
        let outcome = match self.0.find(&input.token, now).await {
            Ok((link, user)) => {
                let (browser, known, replaces) = (input.browser.as_ref(), input.known.as_deref(), input.replaces);
                let presented = Presented { by: Proof::Link, browser, known, replaces, asker };
                self.0.finish(&link, &user, presented, now).await
            }
            Err(denial) => Err(denial),
        };
        match outcome {
            Err(denial) if is_anybodys(denial.reason) => {
                let client = Limit::client_of(asker);
                Err(match self.0.limits.take(Limit::CallbackPerClient, client).await {
                    Ok(budget) => denial.with_budget(budget),
                    Err(_) => self.0.take(Limit::CallbackPerClient, client, asker, now).await.err().unwrap_or(denial),
                })
            }
            outcome => outcome,
        }
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
}

/// Whether somebody who has no link of ours, or not in its browser, can be told this as often as they like.
fn is_anybodys(reason: Reason) -> bool {
    matches!(reason, Reason::MissingToken | Reason::LinkInvalid | Reason::LinkExpired | Reason::LinkWrongBrowser)
}
