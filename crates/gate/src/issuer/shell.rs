//! One issuer: the key cache of the core, with a client, a clock and tasks around it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use doorward_core::{
    decision::Denial,
    jose::{JwkSet, PublicKey},
    keys::{Era, FetchProblem, Fetched, KeyCache, KeyEvent, KeyStatus, Lookup, Query, Settled, Snapshot, Ticket},
    reason::Reason,
    time::Now,
    token::{self, Claims, TokenPolicy, Unverified, Verified},
};
use doorward_store::Store;
use reqwest::Client;
use tokio::{runtime::Handle, sync::watch};

use super::{
    kept::Kept,
    source::{self, Document, KeySource},
};
use crate::clock::Clock;

/// How many requests may wait for one issuer's keys; more are told to come back.
const MAX_WAITERS: usize = 4096;
/// How often one request asks again. Each round ends with an answer, a change or a deadline.
const MAX_ROUNDS: usize = 8;
/// Longest sleep of the background task; it also looks after files and clocks that jump.
const TICK: Duration = Duration::from_millis(500);

/// An issuer with its keys.
pub(super) struct Shell {
    pub(super) name: Arc<str>,
    pub(super) policy: TokenPolicy,
    pub(super) source: KeySource,
    pub(super) fetch_timeout: Duration,
    pub(super) clock: Clock,
    pub(super) client: Client,
    pub(super) store: Option<Store>,
    pub(super) cache: Mutex<KeyCache>,
    /// Grants of tokens that may come again.
    pub(super) kept: Kept,
    /// What readers look at.
    pub(super) snapshot: ArcSwapOption<Snapshot>,
    /// Counts what was reported; waiters wake on it, and the background task ends with its sender.
    pub(super) changes: watch::Sender<u64>,
    pub(super) waiters: AtomicUsize,
}

/// Verified claims, and the set that held the key.
pub(super) type Grant = (Verified<Claims>, Arc<JwkSet>);

/// What can be said at once.
pub(super) enum Step {
    Done(Result<Verified<Claims>, Denial>),
    /// Ask again when something changed, or at that time (monotonic).
    Wait(Duration, Era),
}

impl Shell {
    fn lock(&self) -> MutexGuard<'_, KeyCache> {
        // The machine leaves no half-done state behind: a panic elsewhere is no reason to stop answering.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of the keys.
    pub(super) fn status(&self, now: Now) -> KeyStatus {
        self.lock().status(now)
    }

    /// Verifies with a known, fresh key, without locking anything. `Err`: the cache has to be asked, with the key
    /// under which the signature was wrong, if one was known.
    pub(super) fn verify_known(
        &self,
        token: Unverified<'_>,
        now: Now,
    ) -> Result<Result<Grant, Denial>, Option<Arc<PublicKey>>> {
        let snapshot = self.snapshot.load();
        let algorithm = match token.algorithm() {
            Ok(algorithm) => algorithm,
            Err(denial) => return Ok(Err(denial)),
        };
        let Some(snapshot) = snapshot.as_ref() else { return Err(None) };
        let Some(key) = snapshot.find(token.key_id(), algorithm, now) else { return Err(None) };
        match token::verify(token, key, &self.policy, now) {
            Err(denial) if denial.reason == Reason::TokenBadSignature => Err(Some(Arc::clone(key))),
            verdict => Ok(verdict.map(|claims| (claims, Arc::clone(snapshot.set())))),
        }
    }

    /// One round of asking the cache. `failed` is the key under which the signature was wrong, if one was tried.
    pub(super) fn ask(
        self: &Arc<Self>,
        text: &str,
        arrived: Now,
        era: Option<Era>,
        failed: &mut Option<Arc<PublicKey>>,
    ) -> Step {
        let now = self.clock.now();
        let token = match token::parse(text) {
            Ok(token) => token,
            Err(denial) => return Step::Done(Err(denial)),
        };
        let algorithm = match token.algorithm() {
            Ok(algorithm) => algorithm,
            Err(denial) => return Step::Done(Err(denial)),
        };
        let (lookup, era) = {
            let mut cache = self.lock();
            let era = era.unwrap_or_else(|| cache.era());
            let issued_at = token.claimed_issued_at();
            let query = Query { key_id: token.key_id(), algorithm, issued_at, arrived, era };
            let lookup = match &failed {
                Some(used) => cache.bad_signature(query, used, now),
                None => cache.lookup(query, now),
            };
            (lookup, era)
        };
        let key = match lookup {
            Lookup::Use(key) => key,
            Lookup::UseAndFetch(key, ticket) => {
                self.spawn_fetch(ticket);
                key
            }
            Lookup::Fetch(ticket) => {
                let until = now.mono.saturating_add(ticket.remaining(now));
                self.spawn_fetch(ticket);
                return Step::Wait(until, era);
            }
            Lookup::Wait { until } => return Step::Wait(until, era),
            Lookup::Refuse(denial) => return Step::Done(Err(denial)),
        };
        match token::verify(token, &key, &self.policy, now) {
            // Once more, to hear whether the key was replaced; a key that came as a replacement is the last one.
            Err(denial) if denial.reason == Reason::TokenBadSignature && failed.is_none() => {
                *failed = Some(key);
                self.ask(text, arrived, Some(era), failed)
            }
            verdict => Step::Done(verdict),
        }
    }

    /// Waits for the verdict, bounded in rounds, time and waiters.
    pub(super) async fn wait(
        self: Arc<Self>,
        text: String,
        arrived: Now,
        mut until: Duration,
        era: Era,
        mut failed: Option<Arc<PublicKey>>,
        mut changes: watch::Receiver<u64>,
    ) -> Result<Verified<Claims>, Denial> {
        let Some(_waiter) = Waiter::enter(&self.waiters) else {
            return Err(Denial::from(Reason::KeysUnavailable).with_note("too many requests wait for this issuer"));
        };
        for _ in 0..MAX_ROUNDS {
            let pause = until.saturating_sub(self.clock.now().mono);
            // Either way the cache is asked again; it knows what came of it.
            let _ = tokio::time::timeout(pause, changes.changed()).await;
            match self.ask(&text, arrived, Some(era), &mut failed) {
                Step::Done(verdict) => return verdict,
                Step::Wait(next, _) => until = next,
            }
        }
        Err(Denial::from(Reason::KeysUnavailable).with_note("the keys did not come in time"))
    }

    /// Runs a fetch apart from the request that caused it, which may go away.
    fn spawn_fetch(self: &Arc<Self>, ticket: Ticket) {
        // Without a runtime the fetch is lost, and the cache forgets it at its deadline.
        if let Ok(runtime) = Handle::try_current() {
            let shell = Arc::clone(self);
            runtime.spawn(async move { shell.fetch(ticket).await });
        }
    }

    /// Fetches once and reports.
    pub(super) async fn fetch(&self, ticket: Ticket) {
        let asked = self.clock.now();
        let document = match &self.source {
            KeySource::Url(url) => source::get(&self.client, url, self.fetch_timeout).await,
            KeySource::File(path) => source::read(path).await,
            // Fixed sources hand out no tickets.
            KeySource::Inline(_) | KeySource::Single(_) => return,
        };
        let result = document.and_then(|document| {
            let set = JwkSet::parse(&document.bytes).map_err(FetchProblem::Set)?;
            Ok((document, set))
        });
        match result {
            Ok((document, set)) => {
                let [jitter] = self.clock.random();
                let is_clean = set.skipped().iter().all(|key| key.problem != doorward_core::jose::KeyProblem::Private);
                let fetched = Fetched { set, max_age: document.max_age, jitter };
                let is_in_use = self.report(&ticket, Ok(fetched));
                // A private key that somebody published by mistake is not written down here as well.
                if is_in_use && is_clean {
                    self.persist(&document, asked).await;
                }
            }
            Err(problem) => {
                self.report(&ticket, Err(problem));
            }
        }
    }

    fn report(&self, ticket: &Ticket, result: Result<Fetched, FetchProblem>) -> bool {
        let now = self.clock.now();
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
        self.log(&settled, &status);
        settled.is_in_use
    }

    fn log(&self, settled: &Settled, status: &KeyStatus) {
        let issuer = &*self.name;
        for event in &settled.events {
            match event {
                KeyEvent::Replaced(id) => tracing::warn!(issuer, kid = ?id, "a key was replaced under its old kid"),
                KeyEvent::Skipped(key) => tracing::warn!(issuer, "a published key is not used: {key}"),
            }
        }
        match &status.last_problem {
            None => tracing::debug!(issuer, keys = status.keys, "keys fetched"),
            Some(problem) => {
                let (failures, keys) = (status.failures, status.keys);
                tracing::warn!(issuer, failures, keys, "the issuer's keys: {problem}; known keys stay in use");
            }
        }
    }

    /// The name under which the last good set is kept: keys of another address are none of this issuer's.
    fn record(&self) -> Option<String> {
        match &self.source {
            KeySource::Url(url) => Some(format!("{} {url}", self.policy.issuer)),
            KeySource::File(_) | KeySource::Inline(_) | KeySource::Single(_) => None,
        }
    }

    async fn persist(&self, document: &Document, asked: Now) {
        let (Some(store), Some(record)) = (&self.store, self.record()) else { return };
        let Ok(text) = String::from_utf8(document.bytes.clone()) else { return };
        if let Err(error) = store.put_issuer_keys(record, text, asked.wall).await {
            tracing::debug!(issuer = &*self.name, "the keys were not kept for the next start: {error}");
        }
    }

    /// Takes up what an earlier process kept. False: the store could not say.
    async fn recall(&self) -> bool {
        let (Some(store), Some(record)) = (&self.store, self.record()) else { return true };
        match store.issuer_keys(record).await {
            Ok(Some((text, asked))) => {
                if let Ok(set) = JwkSet::parse(text.as_bytes()) {
                    let mut cache = self.lock();
                    if cache.seed(set, asked, self.clock.now()).is_in_use {
                        self.snapshot.store(cache.snapshot().map(Arc::new));
                        drop(cache);
                        self.changes.send_modify(|count| *count += 1);
                    }
                }
                true
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }
}

/// Keeps one issuer's keys fresh until the issuer is dropped.
pub(super) async fn keep(shell: std::sync::Weak<Shell>, mut changes: watch::Receiver<u64>) {
    let mut is_recalled = false;
    let mut file_version = None;
    loop {
        let Some(shell) = shell.upgrade() else { return };
        if let KeySource::File(path) = &shell.source {
            let version = source::version(path).await;
            if version.is_some() && file_version.is_some() && version != file_version {
                shell.lock().hurry(shell.clock.now());
            }
            file_version = version.or(file_version);
        }
        let now = shell.clock.now();
        let ticket = shell.lock().due_fetch(now);
        let fetch = async {
            if let Some(ticket) = ticket {
                shell.fetch(ticket).await;
            }
        };
        // Side by side: neither a slow store nor a slow issuer keeps the other's keys away.
        let recall = async {
            if !is_recalled && shell.status(shell.clock.now()).keys == 0 {
                is_recalled = shell.recall().await;
            }
        };
        tokio::join!(fetch, recall);
        let pause = shell.lock().next_due().map_or(TICK, |due| due.saturating_sub(shell.clock.now().mono).min(TICK));
        drop(shell);
        if let Ok(Err(_)) = tokio::time::timeout(pause.max(Duration::from_millis(1)), changes.changed()).await {
            return;
        }
    }
}

/// A place among those who wait; freed when the waiting ends, also by going away.
struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn enter(waiters: &'a AtomicUsize) -> Option<Self> {
        let before = waiters.fetch_add(1, Ordering::Relaxed);
        let waiter = Self(waiters);
        (before < MAX_WAITERS).then_some(waiter)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
