//! The machine.

use std::{sync::Arc, time::Duration};

use super::{
    Era, FetchProblem, Fetched, KeyEvent, KeyPolicy, KeyStatus, Lookup, Query, Settled, Snapshot, Ticket,
    budget::Budget,
};
use crate::{
    decision::Denial,
    jose::{JwkSet, PublicKey, Selection},
    reason::Reason,
    time::{Now, Timestamp},
};

/// First pause after a failure; doubles up to `min_interval`.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// A set is not fetched again earlier than this because its publisher says so, nor later than a day.
const REFRESH_RANGE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));

/// The keys of one issuer. See the [module](super) for what holds.
#[derive(Debug)]
pub struct KeyCache {
    policy: KeyPolicy,
    loaded: Option<Loaded>,
    flight: Option<Flight>,
    budget: Budget,
    /// When a fetch is due by itself (monotonic); `None` where there is nothing to fetch.
    due: Option<Duration>,
    next_generation: u64,
    fetches: u64,
    failures: u32,
    last_problem: Option<FetchProblem>,
    /// The last fetch, if it failed.
    failed_generation: Option<u64>,
}

#[derive(Clone, Debug)]
struct Loaded {
    snapshot: Snapshot,
    generation: u64,
    /// When the set was asked for: it shows at least everything that was published by then.
    asked_wall: Timestamp,
    /// The same, monotonic; `None` for a set of an earlier process.
    asked_mono: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    generation: u64,
    deadline: Duration,
}

impl KeyCache {
    /// A cache without keys. A fetch is due at once where there is anything to fetch.
    pub fn new(policy: KeyPolicy) -> Self {
        let budget = Budget::new(policy.min_interval, policy.burst);
        let due = policy.is_refreshable.then_some(Duration::ZERO);
        Self {
            policy,
            loaded: None,
            flight: None,
            budget,
            due,
            next_generation: 1,
            fetches: 0,
            failures: 0,
            last_problem: None,
            failed_generation: None,
        }
    }

    /// Puts in a set that was good at `asked`: of the config, or kept by an earlier process. Ignored where
    /// it is too old, has no usable key, or a fetched set is in use.
    pub fn seed(&mut self, set: JwkSet, asked: Timestamp, now: Now) -> Settled {
        let age = now.wall.since(asked);
        let is_fetched = self.loaded.as_ref().is_some_and(|loaded| loaded.generation > 0);
        if is_fetched || set.is_empty() || self.policy.max_stale.is_some_and(|max_stale| age >= max_stale) {
            return Settled::default();
        }
        let stale_at = self.policy.max_stale.map(|max_stale| now.mono.saturating_add(max_stale.saturating_sub(age)));
        let events = events(None, &set);
        let snapshot = Snapshot { set: Arc::new(set), stale_at };
        self.loaded = Some(Loaded { snapshot, generation: 0, asked_wall: asked.min(now.wall), asked_mono: None });
        Settled { is_in_use: true, events }
    }

    /// The present, to be put into the [`Query`] of a token at the first question about it.
    pub fn era(&self) -> Era {
        Era(self.next_generation)
    }

    /// What to do for a token.
    pub fn lookup(&mut self, query: Query<'_>, now: Now) -> Lookup {
        self.forget_lost_flight(now);
        let reason = match self.select(query, now) {
            Some(Selection::Key(key)) => {
                let key = Arc::clone(key);
                return match self.due_fetch(now) {
                    Some(ticket) => Lookup::UseAndFetch(key, ticket),
                    None => Lookup::Use(key),
                };
            }
            Some(Selection::Mismatch) => Reason::TokenKeyMismatch,
            Some(Selection::Unknown) => Reason::TokenUnknownKey,
            None => Reason::KeysUnavailable,
        };
        if reason != Reason::TokenKeyMismatch && !self.policy.algorithms.contains(query.algorithm) {
            return Lookup::Refuse(Reason::TokenAlgNotAllowed.into());
        }
        if reason == Reason::KeysUnavailable {
            return self.without_keys(query, now);
        }
        self.missing(reason, query, now)
    }

    /// What to do for a token whose signature does not verify with `used`: perhaps the key was replaced under
    /// the same id. To be asked until it answers with a verdict or another key, never for that other key.
    pub fn bad_signature(&mut self, query: Query<'_>, used: &PublicKey, now: Now) -> Lookup {
        self.forget_lost_flight(now);
        let refusal = || Lookup::Refuse(Reason::TokenBadSignature.into());
        if let Some(Selection::Key(key)) = self.select(query, now)
            && key.thumbprint() != used.thumbprint()
        {
            return Lookup::Use(Arc::clone(key));
        }
        if !self.policy.is_refreshable || self.was_asked_since(query) || !self.is_promising(query) {
            return refusal();
        }
        if let Some(flight) = self.flight {
            return Lookup::Wait { until: flight.deadline };
        }
        if now.mono >= self.budget.next_slot(true) { Lookup::Fetch(self.begin(now)) } else { refusal() }
    }

    /// The fetch that is due by itself, if one is: the first one, the next one ahead of time, or the repetition
    /// of one that failed.
    pub fn due_fetch(&mut self, now: Now) -> Option<Ticket> {
        self.forget_lost_flight(now);
        let is_due = self.due.is_some_and(|due| now.mono >= due) && self.flight.is_none();
        is_due.then(|| self.begin(now))
    }

    /// When to ask [`KeyCache::due_fetch`] next (monotonic); `None` where nothing is ever fetched.
    pub fn next_due(&self) -> Option<Duration> {
        match (&self.flight, self.due) {
            (Some(flight), Some(due)) => Some(flight.deadline.max(due)),
            (None, due) => due,
            (Some(_), None) => None,
        }
    }

    /// Makes a fetch due now, because the source is known to have changed.
    pub fn hurry(&mut self, now: Now) {
        self.due = self.due.map(|_| now.mono);
    }

    /// Reports how a fetch ended.
    pub fn fetched(&mut self, ticket: &Ticket, result: Result<Fetched, FetchProblem>, now: Now) -> Settled {
        let is_current = self.flight.is_some_and(|flight| flight.generation == ticket.generation);
        if is_current {
            self.flight = None;
        }
        let is_newer = self.loaded.as_ref().is_none_or(|loaded| ticket.generation > loaded.generation);
        match result {
            Ok(fetched) if !fetched.set.is_empty() => {
                if is_newer {
                    self.load(ticket, fetched)
                } else {
                    Settled::default()
                }
            }
            // A late failure says nothing that is still true.
            _ if !is_current => Settled::default(),
            Ok(fetched) => {
                self.fail(FetchProblem::Empty, ticket.generation, now);
                Settled { is_in_use: false, events: events(None, &fetched.set) }
            }
            Err(problem) => {
                self.fail(problem, ticket.generation, now);
                Settled::default()
            }
        }
    }

    /// The set in use, for readers; it may be stale.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.loaded.as_ref().map(|loaded| loaded.snapshot.clone())
    }

    /// The state, for people and metrics.
    pub fn status(&self, now: Now) -> KeyStatus {
        let fresh = self.fresh(now);
        let set = self.loaded.as_ref().map(|loaded| loaded.snapshot.set());
        KeyStatus {
            keys: fresh.map_or(0, |loaded| loaded.snapshot.set().len()),
            age: self.loaded.as_ref().map(|loaded| match loaded.asked_mono {
                Some(asked) => now.mono.saturating_sub(asked),
                None => now.wall.since(loaded.asked_wall),
            }),
            next_fetch_in: self.next_due().map(|due| due.saturating_sub(now.mono)),
            fetches: self.fetches,
            failures: self.failures,
            last_problem: self.last_problem.clone(),
            skipped: set.map(|set| set.skipped().to_vec()).unwrap_or_default(),
        }
    }

    fn fresh(&self, now: Now) -> Option<&Loaded> {
        self.loaded.as_ref().filter(|loaded| !loaded.snapshot.is_stale(now))
    }

    fn select(&self, query: Query<'_>, now: Now) -> Option<Selection<'_>> {
        self.fresh(now).map(|loaded| loaded.snapshot.set.select(query.key_id, query.algorithm))
    }

    /// There is no set to look into.
    fn without_keys(&mut self, query: Query<'_>, now: Now) -> Lookup {
        // The fetch that this token waited for has failed: that is its answer.
        if self.has_failed_since(query) {
            return self.unavailable(now);
        }
        if let Some(flight) = self.flight {
            return Lookup::Wait { until: flight.deadline };
        }
        self.due_fetch(now).map_or_else(|| self.unavailable(now), Lookup::Fetch)
    }

    /// There is a set, and the key is not in it.
    fn missing(&mut self, reason: Reason, query: Query<'_>, now: Now) -> Lookup {
        if !self.policy.is_refreshable || self.was_asked_since(query) {
            return Lookup::Refuse(reason.into());
        }
        if let Some(flight) = self.flight {
            return Lookup::Wait { until: flight.deadline };
        }
        if self.has_failed_since(query) {
            return self.unavailable(now);
        }
        if let Some(ticket) = self.due_fetch(now) {
            return Lookup::Fetch(ticket);
        }
        let is_promising = self.is_promising(query);
        let slot = self.budget.next_slot(is_promising);
        if now.mono >= slot {
            return Lookup::Fetch(self.begin(now));
        }
        if !is_promising {
            return Lookup::Refuse(reason.into());
        }
        let slot = self.due.map_or(slot, |due| due.min(slot));
        if slot <= query.arrived.mono.saturating_add(self.policy.max_wait) {
            return Lookup::Wait { until: slot };
        }
        Lookup::Refuse(unavailable_until(slot, now))
    }

    /// Whether the set in use was asked for after the token arrived: then it would show the token's key.
    fn was_asked_since(&self, query: Query<'_>) -> bool {
        self.loaded.as_ref().is_some_and(|loaded| loaded.generation >= query.era.0)
    }

    /// Whether a fetch begun after the token arrived was the last one, and failed.
    fn has_failed_since(&self, query: Query<'_>) -> bool {
        self.failed_generation.is_some_and(|generation| generation >= query.era.0)
    }

    /// Whether the token claims to be younger than the set in use.
    fn is_promising(&self, query: Query<'_>) -> bool {
        let Some(loaded) = &self.loaded else { return true };
        query.issued_at.is_some_and(|issued| issued.plus(self.policy.clock_tolerance) > loaded.asked_wall)
    }

    fn unavailable(&self, now: Now) -> Lookup {
        Lookup::Refuse(unavailable_until(self.next_due().unwrap_or(now.mono), now))
    }

    fn begin(&mut self, now: Now) -> Ticket {
        let generation = self.next_generation;
        self.next_generation += 1;
        self.fetches += 1;
        self.budget.spend(now.mono);
        let deadline = now.mono.saturating_add(self.policy.fetch_deadline);
        self.flight = Some(Flight { generation, deadline });
        Ticket { generation, asked: now, deadline }
    }

    fn load(&mut self, ticket: &Ticket, fetched: Fetched) -> Settled {
        let events = events(self.loaded.as_ref().map(|loaded| &*loaded.snapshot.set), &fetched.set);
        let stale_at = self.policy.max_stale.map(|max_stale| ticket.asked.mono.saturating_add(max_stale));
        self.loaded = Some(Loaded {
            snapshot: Snapshot { set: Arc::new(fetched.set), stale_at },
            generation: ticket.generation,
            asked_wall: ticket.asked.wall,
            asked_mono: Some(ticket.asked.mono),
        });
        self.failures = 0;
        self.last_problem = None;
        self.failed_generation = None;
        // Counted from the question: an answer that comes very late is due again at once.
        let due = ticket.asked.mono.saturating_add(self.refresh_in(fetched.max_age, fetched.jitter));
        self.due = self.due.map(|_| due);
        Settled { is_in_use: true, events }
    }

    /// Ahead of the publisher's limit by up to a fifth, and well before the set goes stale.
    fn refresh_in(&self, max_age: Option<Duration>, jitter: u8) -> Duration {
        let (least, most) = REFRESH_RANGE;
        let most = self.policy.max_stale.map_or(most, |max_stale| most.min(max_stale / 2));
        let wanted = max_age.unwrap_or(self.policy.refresh_after).max(least.max(self.policy.min_interval)).min(most);
        wanted - wanted / 5 * u32::from(jitter) / 255
    }

    fn fail(&mut self, problem: FetchProblem, generation: u64, now: Now) {
        self.failures = self.failures.saturating_add(1);
        self.last_problem = Some(problem);
        self.failed_generation = Some(generation);
        let pause = FIRST_RETRY.saturating_mul(1 << (self.failures - 1).min(16)).min(self.policy.min_interval);
        self.due = self.due.map(|_| now.mono.saturating_add(pause));
    }

    /// A flight past its deadline was lost: its task died with a panic, or hangs.
    fn forget_lost_flight(&mut self, now: Now) {
        if let Some(flight) = self.flight.take_if(|flight| now.mono >= flight.deadline) {
            self.fail(FetchProblem::TimedOut, flight.generation, now);
        }
    }
}

fn unavailable_until(at: Duration, now: Now) -> Denial {
    let secs = at.saturating_sub(now.mono).as_secs().saturating_add(1);
    Denial::from(Reason::KeysUnavailable).with_retry_after(u32::try_from(secs).unwrap_or(u32::MAX))
}

fn events(old: Option<&JwkSet>, new: &JwkSet) -> Vec<KeyEvent> {
    let replaced = old.into_iter().flat_map(|old| old.changed_under_same_id(new));
    let replaced = replaced.map(|id| KeyEvent::Replaced(id.into()));
    replaced.chain(new.skipped().iter().cloned().map(KeyEvent::Skipped)).collect()
}
