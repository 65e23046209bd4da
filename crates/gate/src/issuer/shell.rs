//! The tokens of one issuer: its keys, its rules, and requests that wait for a key.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use doorward_core::{
    decision::Denial,
    jose::{JwkSet, PublicKey},
    keys::{Era, Lookup, Query},
    reason::Reason,
    time::Now,
    token::{self, Claims, TokenPolicy, Unverified, Verified},
};
use tokio::sync::watch;

use super::{IssuerConfig, keeper::Keeper, kept::Kept};

/// How many requests may wait for one issuer's keys; more are told to come back.
pub(super) const MAX_WAITERS: usize = 4096;
/// Of so many who wait, one goes on in each millisecond, and all within about a second. One answer wakes them all, and a
/// token whose key is known must not stand behind hundreds that were not.
const WAKING: usize = 1024;
/// How often one request asks again. Each round ends with an answer, a change or a deadline.
const MAX_ROUNDS: usize = 8;

/// An issuer whose tokens are judged.
pub(super) struct Shell {
    /// What it was made from.
    pub(super) config: IssuerConfig,
    pub(super) keys: Arc<Keeper>,
    /// Grants of tokens that may come again.
    pub(super) kept: Kept,
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
    pub(super) fn policy(&self) -> &TokenPolicy {
        &self.config.policy
    }

    /// Verifies with a known, fresh key, without locking anything. `Err`: the cache has to be asked, with the key
    /// under which the signature was wrong, if one was known.
    pub(super) fn verify_known(
        &self,
        token: Unverified<'_>,
        now: Now,
    ) -> Result<Result<Grant, Denial>, Option<Arc<PublicKey>>> {
        let snapshot = self.keys.snapshot.load();
        let algorithm = match token.algorithm() {
            Ok(algorithm) => algorithm,
            Err(denial) => return Ok(Err(denial)),
        };
        let Some(snapshot) = snapshot.as_ref() else { return Err(None) };
        let Some(key) = snapshot.find(token.key_id(), algorithm, now) else { return Err(None) };
        match token::verify(token, key, self.policy(), now) {
            Err(denial) if denial.reason == Reason::TokenBadSignature => Err(Some(Arc::clone(key))),
            verdict => Ok(verdict.map(|claims| (claims, Arc::clone(snapshot.set())))),
        }
    }

    /// One round of asking the cache. `failed` is the key under which the signature was wrong, if one was tried.
    pub(super) fn ask(&self, text: &str, arrived: Now, era: Option<Era>, failed: &mut Option<Arc<PublicKey>>) -> Step {
        let now = self.keys.now();
        let token = match token::parse(text) {
            Ok(token) => token,
            Err(denial) => return Step::Done(Err(denial)),
        };
        let algorithm = match token.algorithm() {
            Ok(algorithm) => algorithm,
            Err(denial) => return Step::Done(Err(denial)),
        };
        let (lookup, era) = {
            let mut cache = self.keys.lock();
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
                self.keys.spawn_fetch(ticket);
                key
            }
            Lookup::Fetch(ticket) => {
                // The fetch may take longer; it is not only for this token.
                let longest = arrived.mono.saturating_add(self.keys.definition.policy.max_wait);
                let until = now.mono.saturating_add(ticket.remaining(now)).min(longest);
                self.keys.spawn_fetch(ticket);
                return Step::Wait(until, era);
            }
            Lookup::Wait { until } => return Step::Wait(until, era),
            Lookup::Refuse(denial) => return Step::Done(Err(denial)),
        };
        match token::verify(token, &key, self.policy(), now) {
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
        let waiter = Place::take(&self.keys.waiters);
        if waiter.before >= MAX_WAITERS {
            return Err(Denial::from(Reason::KeysUnavailable).with_note("too many requests wait for this issuer"));
        }
        for _ in 0..MAX_ROUNDS {
            let pause = until.saturating_sub(self.keys.now().mono);
            // Either way the cache is asked again; it knows what came of it.
            let _ = tokio::time::timeout(pause, changes.changed()).await;
            let waking = Place::take(&self.keys.waking);
            let at_once = self.keys.waiters.load(Ordering::Relaxed).div_ceil(WAKING).max(1);
            let turn = u64::try_from(waking.before / at_once).unwrap_or(u64::MAX);
            if turn > 0 {
                tokio::time::sleep(Duration::from_millis(turn)).await;
            }
            match self.ask(&text, arrived, Some(era), &mut failed) {
                Step::Done(verdict) => return verdict,
                Step::Wait(next, _) => until = next,
            }
        }
        Err(Denial::from(Reason::KeysUnavailable).with_note("the keys did not come in time"))
    }
}

/// A place in a crowd; freed when whoever has it is through, also by going away.
struct Place<'a> {
    crowd: &'a AtomicUsize,
    /// How many were there before.
    before: usize,
}

impl<'a> Place<'a> {
    fn take(crowd: &'a AtomicUsize) -> Self {
        Self { crowd, before: crowd.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.crowd.fetch_sub(1, Ordering::Relaxed);
    }
}
