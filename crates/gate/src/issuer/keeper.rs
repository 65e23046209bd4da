//! The keys of one issuer: the cache of the core, with a client, a clock and a background task around it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use doorward_core::{
    jose::{JwkSet, KeyProblem},
    keys::{
        FetchProblem, Fetched, KeyCache, KeyEvent, KeyPolicy, KeyStatus, Seed, SeedKind, Settled, Snapshot, Ticket,
    },
    time::{Now, Timestamp},
};
use doorward_store::Store;
use http::HeaderValue;
use tokio::{runtime::Handle, sync::watch};
use url::Url;

use super::{
    client::Clients,
    discovery,
    event::{IssuerChange, IssuerEvent, Listener},
    refresh::Refreshed,
    source::{self, Ask, Document, KeySource},
};
use crate::clock::Clock;

/// Longest sleep of the background task; it also looks after files and clocks that jump.
const TICK: Duration = Duration::from_millis(500);
/// How long the first fetch waits for what an earlier process kept in the store.
const RECALL: Duration = Duration::from_millis(500);

/// What the keys depend on. While it stays the same, a new configuration goes on with the keys of the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) name: String,
    pub(super) issuer: String,
    pub(super) source: KeySource,
    pub(super) first: Option<(JwkSet, Option<Timestamp>)>,
    pub(super) policy: KeyPolicy,
    pub(super) fetch_timeout: Duration,
}

impl Definition {
    /// The name under which the last good set is kept: keys of another address are none of this issuer's.
    pub(super) fn record(&self) -> Option<String> {
        match &self.source {
            KeySource::Url(url) => Some(format!("{} {url}", self.issuer)),
            KeySource::Discovery { .. } => Some(format!("{} discovery", self.issuer)),
            KeySource::File(_) | KeySource::Inline(_) | KeySource::Single(_) => None,
        }
    }
}

/// What the keeper of each issuer shares with the others.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) clock: Clock,
    pub(super) clients: Clients,
    pub(super) store: Option<Store>,
    pub(super) listener: Listener,
}

/// The keys of one issuer.
pub(super) struct Keeper {
    pub(super) name: Arc<str>,
    pub(super) definition: Definition,
    pub(super) around: Surroundings,
    cache: Mutex<KeyCache>,
    /// What readers look at.
    pub(super) snapshot: ArcSwapOption<Snapshot>,
    /// Counts what was reported; waiters wake on it, and the background task ends with its sender.
    pub(super) changes: watch::Sender<u64>,
    pub(super) waiters: AtomicUsize,
    /// Waiters that woke and have not gone on yet.
    pub(super) waking: AtomicUsize,
    last: Mutex<Option<Arc<Last>>>,
    place: Mutex<Option<discovery::Known>>,
    is_started: AtomicBool,
}

/// The answer that gave the set in use.
struct Last {
    generation: u64,
    url: Option<Url>,
    tag: Option<HeaderValue>,
    /// `None` where it must not be written down.
    text: Option<String>,
}

/// An answer, and where it came from.
struct Answer {
    document: Document,
    url: Option<Url>,
}

impl Keeper {
    pub(super) fn new(definition: Definition, around: Surroundings) -> Self {
        let now = around.clock.now();
        let [jitter] = around.clock.random();
        let mut cache = KeyCache::new(definition.policy.clone());
        let given = match &definition.source {
            KeySource::Url(_) | KeySource::Discovery { .. } => definition.first.clone(),
            KeySource::File(_) => None,
            KeySource::Inline(set) => Some((set.clone(), None)),
            KeySource::Single(key) => Some((JwkSet::single(key.clone()), None)),
        };
        if let Some((set, made)) = given {
            cache.seed(Seed { set, made: made.unwrap_or(now.wall), kind: SeedKind::Given, jitter }, now);
        }
        Self {
            name: definition.name.as_str().into(),
            definition,
            around,
            snapshot: ArcSwapOption::new(cache.snapshot().map(Arc::new)),
            cache: Mutex::new(cache),
            changes: watch::Sender::new(0),
            waiters: AtomicUsize::new(0),
            waking: AtomicUsize::new(0),
            last: Mutex::default(),
            place: Mutex::default(),
            is_started: AtomicBool::new(false),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, KeyCache> {
        // The machine leaves no half-done state behind: a panic elsewhere is no reason to stop answering.
        lock(&self.cache)
    }

    pub(super) fn now(&self) -> Now {
        self.around.clock.now()
    }

    /// The state of the keys.
    pub(super) fn status(&self, now: Now) -> KeyStatus {
        self.lock().status(now)
    }

    /// Where the keys come from, as far as it is an address.
    pub(super) fn address(&self) -> Option<String> {
        match &self.definition.source {
            KeySource::Url(url) => Some(url.to_string()),
            KeySource::Discovery { .. } => lock(&self.place).as_ref().map(|known| known.key_set().to_string()),
            KeySource::File(path) => Some(path.display().to_string()),
            KeySource::Inline(_) | KeySource::Single(_) => None,
        }
    }

    /// Begins to look after the keys, once.
    pub(super) fn start(self: &Arc<Self>) {
        let is_fetched = self.definition.source.is_remote() || matches!(self.definition.source, KeySource::File(_));
        if !is_fetched || self.is_started.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.definition.record().is_some() && self.around.store.is_some() {
            let now = self.now();
            self.lock().hold(now.mono.saturating_add(RECALL));
        }
        tokio::spawn(keep(Arc::downgrade(self), self.changes.subscribe()));
    }

    /// Runs a fetch apart from the request that caused it, which may go away.
    pub(super) fn spawn_fetch(self: &Arc<Self>, ticket: Ticket) {
        // Without a runtime the fetch is lost, and the cache forgets it at its deadline.
        if let Ok(runtime) = Handle::try_current() {
            let keeper = Arc::clone(self);
            runtime.spawn(async move { keeper.fetch(ticket).await });
        }
    }

    /// Fetches once unless the keys, here or those kept in the store, are younger than `young`. A fetch that is under
    /// way is waited for.
    pub(super) async fn refresh(&self, young: Duration) -> Refreshed {
        let mut changes = self.changes.subscribe();
        let is_kept = self.is_younger(young) || self.is_kept_younger(young).await;
        let now = self.now();
        // The store took its time, and somebody else may have asked the issuer meanwhile.
        let (is_asked, ticket) = {
            let mut cache = self.lock();
            let is_asked = !is_kept && !is_younger(&cache, young, now);
            if is_asked {
                cache.hurry(now);
            }
            (is_asked, is_asked.then(|| cache.due_fetch(now)).flatten())
        };
        match ticket {
            Some(ticket) => self.fetch(ticket).await,
            // Nothing is lost if it reports later: the next run says how it went.
            None if is_asked => drop(tokio::time::timeout(self.definition.fetch_timeout, changes.changed()).await),
            None => {}
        }
        let problem = self.status(self.now()).last_problem.map(|problem| problem.to_string());
        Refreshed { name: Arc::clone(&self.name), is_asked, problem }
    }

    fn is_younger(&self, young: Duration) -> bool {
        is_younger(&self.lock(), young, self.now())
    }

    async fn is_kept_younger(&self, young: Duration) -> bool {
        let (Some(store), Some(record)) = (&self.around.store, self.definition.record()) else { return false };
        let kept = store.issuer_keys(record).await.ok().flatten();
        kept.is_some_and(|(_, made)| self.now().wall.since(made) < young)
    }

    /// Fetches once and reports.
    async fn fetch(&self, ticket: Ticket) {
        let asked = self.now();
        let base = lock(&self.last).clone().filter(|last| Some(last.generation) == ticket.base());
        // An issuer that says "not changed" of what has changed is believed until a token says otherwise.
        let base = base.filter(|_| !ticket.is_for_token());
        let limit = self.definition.fetch_timeout;
        let answer = tokio::time::timeout(limit, self.ask(&ticket, base.as_deref())).await;
        let answer = answer.unwrap_or(Err(FetchProblem::TimedOut)).and_then(|answer| {
            let set = answer.document.bytes.as_deref().map(JwkSet::parse).transpose();
            Ok((set.map_err(FetchProblem::Set)?, answer))
        });
        let (set, Answer { document, url }) = match answer {
            Ok(answer) => answer,
            Err(problem) => {
                self.report(&ticket, Err(problem));
                return;
            }
        };
        // A private key that somebody published by mistake is not written down here as well.
        let is_clean = |set: &JwkSet| set.skipped().iter().all(|key| key.problem != KeyProblem::Private);
        let text = match (&set, &document.bytes, &base) {
            (Some(set), Some(bytes), _) if is_clean(set) => String::from_utf8(bytes.clone()).ok(),
            (None, _, Some(base)) => base.text.clone(),
            _ => None,
        };
        let [jitter] = self.around.clock.random();
        let fetched = Fetched { set, max_age: document.max_age, age: document.age, jitter };
        if !self.report(&ticket, Ok(fetched)) {
            return;
        }
        let tag = document.tag.or_else(|| base.and_then(|base| base.tag.clone()));
        *lock(&self.last) = Some(Arc::new(Last { generation: ticket.generation(), url, tag, text: text.clone() }));
        if let Some(text) = text {
            self.persist(text, asked).await;
        }
    }

    async fn ask(&self, ticket: &Ticket, base: Option<&Last>) -> Result<Answer, FetchProblem> {
        let url = match &self.definition.source {
            KeySource::Url(url) => url.clone(),
            KeySource::Discovery { origins } => self.discover(origins).await?,
            KeySource::File(path) => return Ok(Answer { document: source::read(path).await?, url: None }),
            // Fixed sources hand out no tickets.
            KeySource::Inline(_) | KeySource::Single(_) => return Err(FetchProblem::Empty),
        };
        let unless = base.filter(|base| base.url.as_ref() == Some(&url)).and_then(|base| base.tag.as_ref());
        let ask = Ask { unless, is_fresh: ticket.is_for_token() };
        let document = source::get(&self.around.clients, &url, ask).await?;
        Ok(Answer { document, url: Some(url) })
    }

    async fn discover(&self, origins: &[url::Origin]) -> Result<Url, FetchProblem> {
        let known = lock(&self.place).clone();
        let now = self.now();
        let is_suspect = self.status(now).failures > 0;
        let issuer = &self.definition.issuer;
        let found = discovery::find(&self.around.clients, issuer, origins, known.as_ref(), is_suspect, now).await?;
        let url = found.key_set().clone();
        if known.is_some_and(|known| *known.key_set() != url) {
            tracing::info!(issuer = &*self.name, %url, "the issuer moved its key set");
        }
        *lock(&self.place) = Some(found);
        Ok(url)
    }

    fn report(&self, ticket: &Ticket, result: Result<Fetched, FetchProblem>) -> bool {
        let now = self.now();
        let (settled, status) = {
            let mut cache = self.lock();
            let before = cache.status(now).skipped;
            let mut settled = cache.fetched(ticket, result, now);
            // A key that was skipped before is no news.
            settled.events.retain(|event| !matches!(event, KeyEvent::Skipped(key) if before.contains(key)));
            self.snapshot.store(cache.snapshot().map(Arc::new));
            (settled, cache.status(now))
        };
        self.changes.send_modify(|count| *count += 1);
        self.tell(ticket, &settled, &status, now);
        settled.is_in_use
    }

    fn tell(&self, ticket: &Ticket, settled: &Settled, status: &KeyStatus, at: Now) {
        let issuer = &*self.name;
        let hear = |what| self.around.listener.hear(IssuerEvent { issuer: Arc::clone(&self.name), at, what });
        for event in &settled.events {
            match event {
                KeyEvent::Replaced(kid) => {
                    tracing::warn!(issuer, ?kid, "a key was replaced under its old kid");
                    hear(IssuerChange::KeyChanged { kid: kid.clone() });
                }
                KeyEvent::Skipped(key) => tracing::warn!(issuer, "a published key is not used: {key}"),
            }
        }
        // Reading a file again is no event; it happens as often as strangers like, once a second.
        if ticket.is_for_token() && self.definition.source.is_remote() {
            hear(IssuerChange::FetchedForToken { is_in_use: settled.is_in_use });
        }
        match &status.last_problem {
            None => tracing::debug!(issuer, keys = status.keys, "keys fetched"),
            Some(problem) => {
                let (failures, keys) = (status.failures, status.keys);
                tracing::warn!(issuer, failures, keys, "the issuer's keys: {problem}; known keys stay in use");
            }
        }
    }

    async fn persist(&self, text: String, asked: Now) {
        let (Some(store), Some(record)) = (&self.around.store, self.definition.record()) else { return };
        if let Err(error) = store.put_issuer_keys(record, text, asked.wall).await {
            tracing::debug!(issuer = &*self.name, "the keys were not kept for the next start: {error}");
        }
    }

    /// Takes up what an earlier process kept, from a store that can be used `within` this time: at the start it is still
    /// being opened. False: the store could not say.
    async fn recall(&self, within: Duration) -> bool {
        let (Some(store), Some(record)) = (&self.around.store, self.definition.record()) else { return true };
        if store.wait_ready(within).await.is_err() {
            return false;
        }
        let Ok(kept) = store.issuer_keys(record).await else { return false };
        let kept = kept.and_then(|(text, made)| Some((JwkSet::parse(text.as_bytes()).ok()?, made)));
        let [jitter] = self.around.clock.random();
        let now = self.now();
        let mut cache = self.lock();
        if let Some((set, made)) = kept
            && cache.seed(Seed { set, made, kind: SeedKind::Kept, jitter }, now).is_in_use
        {
            self.snapshot.store(cache.snapshot().map(Arc::new));
            tracing::info!(issuer = &*self.name, "serving the keys that an earlier process kept");
        }
        true
    }

    /// Ends the wait for the store: whoever waits asks again.
    fn release(&self) {
        let now = self.now();
        let mut cache = self.lock();
        if cache.snapshot().is_none() {
            cache.hurry(now);
        }
        drop(cache);
        self.changes.send_modify(|count| *count += 1);
    }
}

fn is_younger(cache: &KeyCache, young: Duration, now: Now) -> bool {
    cache.snapshot().is_some_and(|keys| keys.age(now) < young)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps one issuer's keys fresh until its keeper is dropped.
async fn keep(keeper: std::sync::Weak<Keeper>, mut changes: watch::Receiver<u64>) {
    let mut is_recalled = match keeper.upgrade() {
        Some(keeper) => {
            let is_recalled = tokio::time::timeout(RECALL, keeper.recall(RECALL)).await.unwrap_or(false);
            keeper.release();
            is_recalled
        }
        None => return,
    };
    let mut file_version = None;
    loop {
        let Some(keeper) = keeper.upgrade() else { return };
        if let KeySource::File(path) = &keeper.definition.source {
            let version = source::version(path).await;
            if version.is_some() && file_version.is_some() && version != file_version {
                let now = keeper.now();
                keeper.lock().hurry(now);
            }
            file_version = version.or(file_version);
        }
        let now = keeper.now();
        let ticket = keeper.lock().due_fetch(now);
        let fetch = async {
            if let Some(ticket) = ticket {
                keeper.fetch(ticket).await;
            }
        };
        // Side by side: neither a slow store nor a slow issuer keeps the other's keys away.
        let recall = async {
            if !is_recalled && keeper.status(keeper.now()).keys == 0 {
                is_recalled = keeper.recall(Duration::ZERO).await;
                keeper.changes.send_modify(|count| *count += 1);
            }
        };
        tokio::join!(fetch, recall);
        let pause = keeper.lock().next_due().map_or(TICK, |due| due.saturating_sub(keeper.now().mono).min(TICK));
        drop(keeper);
        if let Ok(Err(_)) = tokio::time::timeout(pause.max(Duration::from_millis(1)), changes.changed()).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
