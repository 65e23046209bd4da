//! The gate's background work: follow the revocation log, write touches in batches.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use doorward_core::{
    principal::{Authenticated, Principal},
    reason::Reason,
    revocation::{Revocation, Scope},
    session::TokenHash,
    time::{Now, Timestamp},
};
use doorward_store::StoreError;
use tokio::{sync::broadcast::error::RecvError, time::MissedTickBehavior};

use crate::{
    external::ASK_AGAIN,
    gate::{Gate, GateTask, TOUCH_QUEUE},
    observe::Fault,
    revoked::Change,
    window::Window,
};

/// The log is read at least this often; a command in another process takes effect within it.
const POLL: Duration = Duration::from_millis(200);
/// Entries read at once.
const PAGE: u32 = 1000;
/// Pages read without a pause; a longer backlog goes on at the next poll.
const PAGES: usize = 64;
/// Touches are written this often.
const FLUSH: Duration = Duration::from_secs(5);
/// Pause after a reading that failed.
const PAUSE: Duration = Duration::from_millis(100);
/// Touches written at once.
const BATCH: usize = 2048;
/// Longest pause of whoever watches over something open.
const LONGEST: Duration = Duration::from_secs(60);
/// How often entries whose time is over are forgotten, and the highest time is written down.
const SWEEP: Duration = Duration::from_secs(60);

impl Gate {
    /// Follows the revocation log and writes touches until the future is dropped or `stop` completes;
    /// then writes what is still queued.
    pub async fn run(&self, mut task: GateTask, stop: impl Future<Output = ()>) {
        // Apart: while the store takes its time to write, the log goes on being read.
        tokio::select! {
            () = self.keep_books(&mut task, stop) => {}
            () = self.follow_for_ever() => {}
        }
    }

    /// Reads the log at each poll, and whenever there is reason to.
    async fn follow_for_ever(&self) {
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changed = self.store().changed();
        loop {
            tokio::select! {
                _ = poll.tick() => {}
                Ok(()) = changed.changed() => {}
                () = self.inner().behind.wanted() => {}
            }
            self.follow().await;
            if self.inner().behind.has_failed() {
                // Time for the store to connect again, before the next failure takes everybody's hope.
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Writes touches and forgets what is over until `stop` completes; then writes what is still queued.
    async fn keep_books(&self, task: &mut GateTask, stop: impl Future<Output = ()>) {
        let mut flush = tokio::time::interval(FLUSH);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = flush.tick() => self.write_touches(task).await,
                _ = sweep.tick() => {
                    self.inner().revoked.sweep(self.clock().now());
                    self.keep_highest_time(false).await;
                }
            }
        }
        self.write_touches(task).await;
        self.keep_highest_time(true).await;
    }

    async fn keep_highest_time(&self, always: bool) {
        let inner = self.inner();
        if inner.licenses.load().is_none() {
            return;
        }
        if let Err(error) = inner.highest.keep(self.store(), || self.clock().now(), always).await {
            inner.observer.fault(Fault::HighestTime(&error.to_string()));
        }
    }

    /// An operator began the highest time anew. Where it cannot be read now, it is by the next sweep.
    async fn take_highest_time(&self) {
        let inner = self.inner();
        if let Err(error) = inner.highest.read(self.store(), || self.clock().now()).await {
            inner.observer.fault(Fault::HighestTime(&error.to_string()));
        }
    }

    /// Reads the log up to its end and applies it. A failure leaves the state as it is, and it ages.
    ///
    /// Several may read at once; each page is applied by the first that has it, and the others read on from there.
    pub async fn follow(&self) {
        let inner = self.inner();
        inner.revoked.begin_anew_if_cut_off(self.clock().now());
        for _ in 0..PAGES {
            // The state is as fresh as the moment the question was asked, not the answer's.
            let now = self.clock().now();
            let (after, entries, connects) = match self.read_page().await {
                Ok(page) => page,
                Err(error) => {
                    inner.observer.fault(Fault::RevocationTail(&error.to_string()));
                    inner.behind.failed();
                    return;
                }
            };
            // Connected again meanwhile: it may be a page of another log.
            if self.connects() != connects {
                continue;
            }
            let is_last = entries.len() < PAGE as usize;
            // Before what was read by the old one is void: whatever is read from then on is judged by the new one.
            if entries.iter().any(|entry| entry.entry.scope == Scope::LicenseTime) {
                self.take_highest_time().await;
            }
            if self.apply(after, entries, is_last.then_some(now)) && is_last {
                inner.behind.caught_up();
                return;
            }
        }
        inner.behind.went_on();
    }

    /// The entries after the last one that was applied, its number, and by which connections they were read.
    async fn read_page(&self) -> Result<(i64, Vec<Revocation>, u64), StoreError> {
        let connects = self.connects();
        self.recognize_log(connects).await?;
        let after = self.inner().revoked.seq();
        Ok((after, self.store().revocations_after(after, PAGE).await?, connects))
    }

    /// How often the store was connected again.
    fn connects(&self) -> u64 {
        let inner = self.inner();
        let mut state = inner.store_state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.has_changed().unwrap_or(false) {
            state.mark_unchanged();
            inner.connects.fetch_add(1, Ordering::AcqRel);
        }
        inner.connects.load(Ordering::Acquire)
    }

    /// Looks after the store connected again whether the log goes on where it was: behind its name may be a standby by now
    /// that never heard of the last entries, and gives their numbers to others.
    async fn recognize_log(&self, connects: u64) -> Result<(), StoreError> {
        let inner = self.inner();
        if inner.recognized.load(Ordering::Acquire) >= connects {
            return Ok(());
        }
        if let Some(last) = inner.revoked.last() {
            let found = self.store().revocations_after(last.seq - 1, 1).await?;
            if found.first() != Some(&last) {
                inner.revoked.begin_without(&last, self.clock().now().wall);
                inner.records.clear();
            }
        }
        inner.recognized.fetch_max(connects, Ordering::AcqRel);
        Ok(())
    }

    /// Applies a page of the log, and voids what it makes out of date. The page is the last one where the time is given
    /// at which it was asked for. False: somebody else has read on from `after`, and all that came of that is done.
    fn apply(&self, after: i64, entries: Vec<Revocation>, asked: Option<Now>) -> bool {
        let inner = self.inner();
        // Whoever finds the log read also finds the caches voided.
        let _one_at_a_time = inner.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(heard) = inner.revoked.apply(after, &entries, self.clock().now()) else { return false };
        let end = entries.last().map_or(after, |last| last.seq);
        for entry in entries {
            inner.records.void(&entry.entry.scope);
            if let Some(desk) = &*inner.licenses.load() {
                desk.void(&entry.entry.scope);
            }
            if let Scope::User { id } = entry.entry.scope
                && entry.seq > heard
            {
                inner.revoked.changed(id, &entry.entry.why, self.clock().now());
            }
            inner.observer.revoked(&entry);
            // Nobody may be listening; that is fine.
            let _ = inner.revocations.send(Arc::new(entry));
        }
        // Behind is behind: until the end is reached the state counts as the age that it has.
        asked.is_none_or(|asked| inner.revoked.caught_up(end, asked))
    }

    /// Writes what is queued, in batches; bounded by the queue's length.
    async fn write_touches(&self, task: &mut GateTask) {
        for _ in 0..TOUCH_QUEUE.div_ceil(BATCH) {
            let mut batch: Vec<(TokenHash, Timestamp)> = Vec::new();
            while batch.len() < BATCH {
                match task.touched.try_recv() {
                    Ok(touch) => batch.push(touch),
                    Err(_) => break,
                }
            }
            if batch.is_empty() {
                return;
            }
            if let Err(error) = self.store().touch_sessions(batch).await {
                // The sessions go on in memory; at worst an idle limit counts from an older use elsewhere.
                self.inner().observer.fault(Fault::TouchFailed(&error.to_string()));
                return;
            }
        }
    }

    /// Entries of the revocation log as they are applied, from now on.
    pub fn revocations(&self) -> tokio::sync::broadcast::Receiver<Arc<Revocation>> {
        self.inner().revocations.subscribe()
    }

    /// Completes with the reason when `principal` may no longer hold a socket or stream open: its
    /// credential was revoked, its user changed, or it ended by itself.
    ///
    /// `since` is the time before the decision that admitted it: what happened after that is not missed,
    /// however late this is first polled and however many entries come at once.
    pub fn ended(&self, principal: Arc<Principal>, since: Now) -> impl Future<Output = Reason> + Send + use<> {
        let gate = self.clone();
        let mut entries = self.revocations();
        let is_session = matches!(principal.authenticated, Authenticated::Session { .. });
        let is_legacy = matches!(principal.authenticated, Authenticated::Legacy { .. });
        let mut window = self.inner().window.changes();
        async move {
            // The decision that admitted it asked the external set.
            let mut asked = gate.clock().now().mono;
            loop {
                let mono = gate.clock().now().mono;
                if mono.saturating_sub(asked) >= ASK_AGAIN {
                    asked = mono;
                    // "Cannot tell" ends nothing that was admitted.
                    if let Some(answer) = gate.ask_external(&principal)
                        && answer.await == Ok(true)
                    {
                        return Reason::TokenRevoked;
                    }
                }
                let revoked = &gate.inner().revoked;
                let now = gate.clock().now().wall;
                let change = principal.user_id.and_then(|user| revoked.change(user, since.mono));
                // A ban ends the sessions of its user besides; what they are told is the ban.
                if change == Some(Change::Banned) {
                    return Reason::UserBanned;
                }
                if let Some(reason) = revoked.reason(&principal, now) {
                    return reason;
                }
                if is_session && revoked.has_ended(principal.user_id, since.mono) {
                    return Reason::SessionRevoked;
                }
                if change.is_some() {
                    return if is_legacy { Reason::TokenRevoked } else { Reason::SessionRevoked };
                }
                // `Unknown` ends nothing: "cannot tell" is not "closed".
                if is_legacy && gate.window() == Window::Closed {
                    return Reason::LegacyLoginDisabled;
                }
                if principal.expires_at.is_some_and(|end| now >= end) {
                    return expired(&principal);
                }
                // Not longer at once: a wall clock that is set moves the end, and nobody calls.
                let wait = principal.expires_at.map_or(LONGEST, |end| end.since(now).min(LONGEST));
                let wait = if gate.inner().external.load().is_some() { wait.min(ASK_AGAIN) } else { wait };
                // Whatever comes, also too much at once to tell it apart: the state is asked at the top.
                let news = async {
                    tokio::select! {
                        entry = entries.recv() => matches!(entry, Ok(_) | Err(RecvError::Lagged(_))),
                        changed = window.changed(), if is_legacy => changed.is_ok(),
                    }
                };
                match tokio::time::timeout(wait, news).await {
                    Ok(true) | Err(_) => {}
                    // The gate is gone, and this with it.
                    Ok(false) => return Reason::SessionRevoked,
                }
            }
        }
    }
}

fn expired(principal: &Principal) -> Reason {
    match principal.authenticated {
        Authenticated::Session { .. } => Reason::SessionExpiredAbsolute,
        Authenticated::Bearer { .. } | Authenticated::Legacy { .. } => Reason::TokenExpired,
        Authenticated::ApiKey { .. } => Reason::ApiKeyExpired,
    }
}
