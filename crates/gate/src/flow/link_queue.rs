//! The queue between a request for a link and the mail: what happens in it, nobody outside can time.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use doorward_core::{
    audit::EventKind,
    decision::Denial,
    effects::{Effects, NewMail},
    id::{LinkId, MailId, UserId},
    link::{self, Asker, Code, Link, LinkRequest, TypedCode, browser},
    reason::Reason,
    ring::Purpose,
    session::TokenHash,
    time::Timestamp,
    user::{Email, Origin, User},
};
use doorward_store::{CreateUser, StoreError};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::{
    mail_text::{self, MagicLinkMail},
    notes,
    sign_in::Inner,
};
use crate::rate::{Limit, LimitKey};

/// Requests that may wait. More are dropped and counted: at a thousand waiting, most are not from people.
const CAPACITY: usize = 1024;
/// Requests worked on at once; the store sees no more of them.
const AT_ONCE: usize = 8;
/// Pauses between attempts while the store is down; then the request is dropped, the person asks again.
const PAUSES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)];

/// A request for a link on its way.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) email: Email,
    pub(super) browser: TokenHash,
    pub(super) return_to: String,
    pub(super) host: Option<String>,
    /// What the browser keeps of an earlier sign-in.
    pub(super) known: Option<String>,
    pub(super) asker: Asker,
}

/// What became of requests for links since the process started; for metrics. All of them were answered alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// A mail went into the outbox.
    pub mailed: u64,
    /// Not a mail address.
    pub malformed: u64,
    /// Nobody has that address.
    pub unknown: u64,
    /// The user is banned.
    pub banned: u64,
    /// Over the limit of the client or of the address.
    pub limited: u64,
    /// The queue was full.
    pub dropped: u64,
    /// The store or the key ring failed us.
    pub failed: u64,
}

#[derive(Clone, Copy)]
enum Fate {
    Mailed,
    Malformed,
    Unknown,
    Banned,
    Limited,
    Dropped,
    Failed,
}

/// The sending half: never waits.
pub(super) struct Queue {
    jobs: mpsc::Sender<Ask>,
    counters: [AtomicU64; 7],
}

impl Queue {
    pub(super) fn new() -> (Self, mpsc::Receiver<Ask>) {
        let (jobs, receiver) = mpsc::channel(CAPACITY);
        (Self { jobs, counters: Default::default() }, receiver)
    }

    /// Queues a request; `None` is one without a readable address.
    pub(super) fn push(&self, ask: Option<Ask>) {
        let Some(ask) = ask else { return self.count(Fate::Malformed) };
        if self.jobs.try_send(ask).is_err() {
            self.count(Fate::Dropped);
            tracing::warn!("a request for a sign-in link was dropped: too many are waiting");
        }
    }

    fn count(&self, fate: Fate) {
        self.counters[fate as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> LinkStats {
        let of = |fate: Fate| self.counters[fate as usize].load(Ordering::Relaxed);
        LinkStats {
            mailed: of(Fate::Mailed),
            malformed: of(Fate::Malformed),
            unknown: of(Fate::Unknown),
            banned: of(Fate::Banned),
            limited: of(Fate::Limited),
            dropped: of(Fate::Dropped),
            failed: of(Fate::Failed),
        }
    }
}

/// Works the queue off; one per [`SignIn`](super::sign_in::SignIn).
#[must_use = "without its worker no sign-in mail is ever written"]
pub struct LinkWorker {
    flow: Arc<Inner>,
    jobs: mpsc::Receiver<Ask>,
}

impl std::fmt::Debug for LinkWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkWorker").field("waiting", &self.jobs.len()).finish_non_exhaustive()
    }
}

impl LinkWorker {
    pub(super) fn new(flow: Arc<Inner>, jobs: mpsc::Receiver<Ask>) -> Self {
        Self { flow, jobs }
    }

    /// Works until `stop` is ready, then finishes what was queued before it: those people were told to look at
    /// their inbox.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { flow, mut jobs } = self;
        let flow = &*flow;
        let work = |ask: Ask| async move {
            let fate = work(flow, &ask).await;
            flow.queue().count(fate);
        };
        let mut stop = pin!(stop);
        let mut under_way = FuturesUnordered::new();
        let mut is_stopping = false;
        loop {
            tokio::select! {
                () = &mut stop, if !is_stopping => {
                    is_stopping = true;
                    jobs.close();
                }
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                ask = jobs.recv(), if under_way.len() < AT_ONCE => match ask {
                    Some(ask) => under_way.push(work(ask)),
                    None => break,
                },
            }
        }
        while under_way.next().await.is_some() {}
    }
}

/// One request, with patience for a store that is down for a moment.
async fn work(flow: &Inner, ask: &Ask) -> Fate {
    if let Err((limit, key)) = take(flow, ask).await {
        let address = notes::address_hash(&flow.ring, &ask.email).ok();
        flow.notes.limited(limit, key, &ask.asker, address, flow.clock.now()).await;
        return Fate::Limited;
    }
    let (mut pauses, mut written) = (PAUSES.iter(), None);
    loop {
        let denial = match write_mail(flow, ask, &mut written).await {
            Ok(fate) => return fate,
            Err(denial) => denial,
        };
        let pause = pauses.next().filter(|_| denial.reason == Reason::StoreUnavailable);
        let Some(&pause) = pause else {
            tracing::error!(%denial, "a sign-in link could not be made");
            return Fate::Failed;
        };
        tokio::time::sleep(pause).await;
    }
}

/// Counts a request. A browser that has signed in with this address before has a budget of its own, so nobody who
/// spends that of the address, or of a network that many share, keeps it out.
async fn take(flow: &Inner, ask: &Ask) -> Result<(), (Limit, LimitKey)> {
    let known = ask.known.as_deref().and_then(|text| {
        let keys = flow.ring.keys(Purpose::Login).ok()?;
        browser::check(text, &ask.email, &keys)
    });
    let asked: &[(Limit, LimitKey)] = match known {
        Some(browser) => &[(Limit::LinkPerBrowser, Limit::address_in(&ask.email, &browser))],
        None => {
            &[(Limit::LinkPerClient, Limit::client_of(&ask.asker)), (Limit::LinkPerAddress, Limit::address(&ask.email))]
        }
    };
    for &(limit, key) in asked {
        flow.limits.take(limit, key).await.map_err(|_| (limit, key))?;
    }
    Ok(())
}

/// A link and what is committed with it.
#[derive(Clone)]
struct Written {
    link: Link,
    effects: Effects,
}

/// Commits a link with its mail. What is committed stays the same from attempt to attempt: the store may have taken it and
/// not been able to say so, and a second link would void the one that is on its way.
async fn write_mail(flow: &Inner, ask: &Ask, written: &mut Option<Written>) -> Result<Fate, Denial> {
    let is_first = written.is_none();
    let Written { link, effects } = match written {
        Some(written) => written.clone(),
        None => match write(flow, ask).await? {
            Ok(new) => written.insert(new).clone(),
            Err(fate) => return Ok(fate),
        },
    };
    let id = link.id;
    match flow.store.put_link(link, effects).await {
        Ok(()) => Ok(Fate::Mailed),
        // Its place is taken: by itself.
        Err(_) if !is_first && flow.store.link(id).await?.is_some() => Ok(Fate::Mailed),
        Err(error) => {
            // Nothing was made, so nothing has to stay as it is: the user may change before the next attempt.
            if is_first && !matches!(error, StoreError::Timeout { .. }) {
                *written = None;
            }
            Err(error.into())
        }
    }
}

/// Finds the user, mints the link and writes its mail; or what becomes of a request that gets none.
async fn write(flow: &Inner, ask: &Ask) -> Result<Result<Written, Fate>, Denial> {
    let keys = flow.ring.keys(Purpose::Link)?;
    let now = flow.clock.now().wall;
    let config = flow.config.load_full();
    let user = match flow.store.user_by_email(ask.email.clone()).await? {
        Some(user) => user,
        None if config.allow_sign_up => sign_up(flow, ask, now).await?,
        None => return turn_away(flow, ask, Fate::Unknown).await.map(Err),
    };
    let id = LinkId::mint(now, flow.clock.random());
    let code = Code::mint(flow.clock.random());
    let request = LinkRequest {
        id,
        browser: ask.browser,
        return_to: ask.return_to.clone(),
        ttl: config.link_ttl,
        asker: ask.asker.clone(),
    };
    let (mut link, effects) = match link::plan_request(&user, request, now) {
        Ok(plan) => plan,
        Err(denial) if denial.reason == Reason::UserBanned => return turn_away(flow, ask, Fate::Banned).await.map(Err),
        Err(denial) => return Err(denial),
    };
    let code_ends = link.expires_at.min(now.plus(config.code_ttl));
    let hash = code.hash(flow.ring.keys(Purpose::Login)?.current(), id);
    link.code = Some(TypedCode { hash, expires_at: code_ends, tries: 0 });
    let token = link::mint_token(&link, &keys)?;
    let (site, callback_url) = config.at(ask.host.as_deref());
    let text = mail_text::magic_link(&MagicLinkMail {
        site: &site,
        url: &format!("{callback_url}?token={token}"),
        valid_for: config.link_ttl,
        code: &code.expose(),
        code_valid_for: config.code_ttl.min(config.link_ttl),
        ip: ask.asker.ip,
        user_agent: ask.asker.user_agent(),
    });
    let mail = NewMail {
        id: MailId::mint(now, flow.clock.random()),
        to: link.email.clone(),
        kind: "magic_link",
        subject: text.subject,
        text: text.text,
        html: text.html,
        created_at: now,
        give_up_at: link.expires_at,
    };
    Ok(Ok(Written { link, effects: effects.with_mail(mail) }))
}

/// Makes the user of an unknown address, or finds the one that another request has made meanwhile.
async fn sign_up(flow: &Inner, ask: &Ask, now: Timestamp) -> Result<User, Denial> {
    let user =
        User { origin: Origin::SignUp, ..User::new(UserId::mint(now, flow.clock.random()), ask.email.clone(), now) };
    let mut event = ask.asker.event(EventKind::UserCreated, now).about(user.id);
    event.detail.more.insert("why".into(), "sign_up".into());
    match flow.store.create_user(user.clone(), Effects::audited(event)).await? {
        CreateUser::Created => Ok(user),
        CreateUser::EmailTaken | CreateUser::SubjectTaken => {
            flow.store.user_by_email(ask.email.clone()).await?.ok_or_else(|| {
                Denial::from(Reason::StoreUnavailable).with_note("a user came and went while signing up")
            })
        }
    }
}

/// Notes a request that gets no mail. The address goes into the log only as a keyed hash: it may be a
/// stranger's, or a password typed into the wrong field.
async fn turn_away(flow: &Inner, ask: &Ask, fate: Fate) -> Result<Fate, Denial> {
    let hash = notes::address_hash(&flow.ring, &ask.email)?;
    let mut event = ask.asker.event(EventKind::LinkRequested, flow.clock.now().wall);
    event.reason = matches!(fate, Fate::Banned).then_some(Reason::UserBanned);
    event.detail.more.insert("address_hash".into(), hash.into());
    event.detail.more.insert("mailed".into(), false.into());
    flow.store.append(Effects::audited(event)).await?;
    Ok(fate)
}
