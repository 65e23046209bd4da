//! The machine.

use std::{sync::Arc, time::Duration};

use super::{
    Era, FetchProblem, Fetched, KeyEvent, KeyPolicy, KeyStatus, Lookup, Query, Seed, SeedKind, Settled, Snapshot,
    Ticket, budget::Budget,
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
/// `Age` counts whole seconds (RFC 9111 §5.1): answers that differ by less show the same.
const AGE_STEP: Duration = Duration::from_secs(2);

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
    /// When the set was asked for, by the clock of then.
    asked_wall: Timestamp,
    /// The same, monotonic; `None` for a seed.
    asked_mono: Option<Duration>,
    /// How old the answer was when it came: a cache on the way had kept it so long.
    age: Duration,
}

impl Loaded {
    /// The time up to which everything that was published is in the set, by the clock of now: one that was set
    /// since does not make the set younger or older.
    fn shows_until(&self, now: Now) -> Timestamp {
        let asked = match self.asked_mono {
            Some(asked) => now.wall.minus(now.mono.saturating_sub(asked)),
            None => self.asked_wall.min(now.wall),
        };
        asked.minus(self.age)
    }
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

    /// Puts in a set that was not fetched by this process. Ignored where it is too old, has no usable key, or a
    /// fetched set or a newer seed is in use. The next fetch is due when it would be had this process fetched it.
    pub fn seed(&mut self, seed: Seed, now: Now) -> Settled {
        let Seed { set, made, kind, jitter } = seed;
        let made = made.min(now.wall);
        let is_newest = self.loaded.as_ref().is_none_or(|old| old.generation == 0 && old.asked_wall < made);
        let age = match kind {
            SeedKind::Given => Duration::ZERO,
            SeedKind::Kept => now.wall.since(made),
        };
        if !is_newest || set.is_empty() || self.policy.max_stale.is_some_and(|max_stale| age >= max_stale) {
            return Settled::default();
        }
        let stale_at = self.policy.max_stale.map(|max_stale| now.mono.saturating_add(max_stale.saturating_sub(age)));
        let events = events(self.loaded.as_ref().map(|old| &*old.snapshot.set), &set);
        let snapshot = Snapshot { set: Arc::new(set), stale_at, asked_wall: made, asked_mono: None, is_failing: false };
        self.loaded = Some(Loaded { snapshot, generation: 0, asked_wall: made, asked_mono: None, age: Duration::ZERO });
        if self.fetches == 0 {
            let due = now.mono.saturating_add(self.refresh_in(None, jitter).saturating_sub(age));
            self.due = self.due.map(|_| due);
        }
        Settled { is_in_use: true, events }
    }

    /// Puts the first fetch off while there are no keys, at most until `until` (monotonic): somebody else is
    /// asked for them first. [`KeyCache::hurry`] ends it.
    pub fn hold(&mut self, until: Duration) {
        if self.loaded.is_none() && self.fetches == 0 {
            self.due = self.due.map(|due| due.max(until));
        }
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
        if !self.policy.is_refreshable || self.was_asked_since(query) || !self.is_promising(query, now) {
            return refusal();
        }
        if let Some(flight) = self.flight {
            return self.wait(flight.deadline, query, now);
        }
        // What was asked for its sake brought no answer: whether the key was replaced cannot be told.
        if self.has_failed_since(query) {
            return self.unavailable(now);
        }
        let slot = self.budget.next_slot(true);
        match slot {
            _ if now.mono >= slot => Lookup::Fetch(self.begin(now, true)),
            _ if slot <= self.longest_wait(query) => Lookup::Wait { until: slot },
            _ => refusal(),
        }
    }

    /// The fetch that is due by itself, if one is: the first one, the next one ahead of time, or the repetition
    /// of one that failed.
    pub fn due_fetch(&mut self, now: Now) -> Option<Ticket> {
        self.forget_lost_flight(now);
        let is_due = self.due.is_some_and(|due| now.mono >= due) && self.flight.is_none();
        is_due.then(|| self.begin(now, false))
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
        let is_current = self.flight.take_if(|flight| flight.generation == ticket.generation).is_some();
        if self.loaded.as_ref().is_some_and(|loaded| loaded.generation >= ticket.generation) {
            return Settled::default();
        }
        let fetched = match result {
            Ok(fetched) => fetched,
            // A late failure says nothing that is still true.
            Err(problem) => return self.settle_failure(is_current.then_some(problem), ticket, None, now),
        };
        let pause = self.refresh_in(fetched.max_age, fetched.jitter);
        match self.accept(ticket, &fetched, now) {
            Ok(set) => self.load(ticket, set, &fetched),
            // It will be the same until the cache on the way lets go of it.
            Err(FetchProblem::Outdated) => {
                let pause = is_current.then(|| now.mono.saturating_add(pause));
                self.settle_failure(is_current.then_some(FetchProblem::Outdated), ticket, pause, now)
            }
            Err(problem) => {
                let events = fetched.set.as_ref().map(|set| events(None, set)).unwrap_or_default();
                let settled = self.settle_failure(is_current.then_some(problem), ticket, None, now);
                if is_current { Settled { events, ..settled } } else { settled }
            }
        }
    }

    /// The set that an answer stands for.
    fn accept(&self, ticket: &Ticket, fetched: &Fetched, now: Now) -> Result<Arc<JwkSet>, FetchProblem> {
        let set = match (&fetched.set, &self.loaded) {
            (Some(set), _) if set.is_empty() => return Err(FetchProblem::Empty),
            // What was found under the old set still holds under an equal one.
            (Some(set), Some(old)) if *old.snapshot.set == *set => Arc::clone(&old.snapshot.set),
            (Some(set), _) => Arc::new(set.clone()),
            (None, Some(old)) if ticket.base == Some(old.generation) => Arc::clone(&old.snapshot.set),
            (None, _) => return Err(FetchProblem::Unmatched),
        };
        let is_older = |loaded: &Loaded| {
            let shown = ticket.asked.mono.saturating_add(loaded.age).saturating_add(AGE_STEP);
            loaded.asked_mono.is_some_and(|asked| shown < asked.saturating_add(fetched.age))
        };
        if self.fresh(now).is_some_and(is_older) { Err(FetchProblem::Outdated) } else { Ok(set) }
    }

    fn settle_failure(
        &mut self,
        problem: Option<FetchProblem>,
        ticket: &Ticket,
        due: Option<Duration>,
        now: Now,
    ) -> Settled {
        if let Some(problem) = problem {
            self.fail(problem, ticket.generation, now);
            if due.is_some() {
                self.due = self.due.and(due);
            }
        }
        Settled::default()
    }

    /// The set in use, for readers; it may be stale.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let loaded = self.loaded.as_ref()?;
        Some(Snapshot { is_failing: self.failures > 0, ..loaded.snapshot.clone() })
    }

    /// The state, for people and metrics.
    pub fn status(&self, now: Now) -> KeyStatus {
        let fresh = self.fresh(now);
        let set = self.loaded.as_ref().map(|loaded| loaded.snapshot.set());
        KeyStatus {
            keys: fresh.map_or(0, |loaded| loaded.snapshot.set().len()),
            age: self.loaded.as_ref().map(|loaded| loaded.snapshot.age(now)),
            serves_for: fresh
                .and_then(|loaded| loaded.snapshot.stale_at)
                .map(|stale_at| stale_at.saturating_sub(now.mono)),
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
            return self.wait(flight.deadline, query, now);
        }
        if let Some(ticket) = self.due_fetch(now) {
            return Lookup::Fetch(ticket);
        }
        match self.due {
            Some(until) if self.fetches == 0 => self.wait(until, query, now),
            _ => self.unavailable(now),
        }
    }

    /// There is a set, and the key is not in it.
    fn missing(&mut self, reason: Reason, query: Query<'_>, now: Now) -> Lookup {
        if !self.policy.is_refreshable {
            return Lookup::Refuse(reason.into());
        }
        if self.was_asked_since(query) {
            // A cache on the way gave an answer from before the token: that the key is not in it says nothing.
            let is_aged = self.loaded.as_ref().is_some_and(|loaded| !loaded.age.is_zero());
            return match is_aged && self.is_promising(query, now) {
                true => self.unavailable(now),
                false => Lookup::Refuse(reason.into()),
            };
        }
        if let Some(flight) = self.flight {
            return self.wait(flight.deadline, query, now);
        }
        if self.has_failed_since(query) {
            return self.unavailable(now);
        }
        if let Some(ticket) = self.due_fetch(now) {
            return Lookup::Fetch(ticket);
        }
        let is_promising = self.is_promising(query, now);
        let slot = self.budget.next_slot(is_promising);
        if now.mono >= slot {
            return Lookup::Fetch(self.begin(now, true));
        }
        if !is_promising {
            return Lookup::Refuse(reason.into());
        }
        let slot = self.due.map_or(slot, |due| due.min(slot));
        if slot <= self.longest_wait(query) {
            return Lookup::Wait { until: slot };
        }
        Lookup::Refuse(unavailable_until(slot, now))
    }

    /// A token waits until then, or for as long as one may.
    fn wait(&self, until: Duration, query: Query<'_>, now: Now) -> Lookup {
        let longest = self.longest_wait(query);
        if now.mono >= longest { self.unavailable(now) } else { Lookup::Wait { until: until.min(longest) } }
    }

    /// Until when a token may be made to wait (monotonic).
    fn longest_wait(&self, query: Query<'_>) -> Duration {
        query.arrived.mono.saturating_add(self.policy.max_wait)
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
    fn is_promising(&self, query: Query<'_>, now: Now) -> bool {
        let Some(loaded) = &self.loaded else { return true };
        query.issued_at.is_some_and(|issued| issued.plus(self.policy.clock_tolerance) > loaded.shows_until(now))
    }

    fn unavailable(&self, now: Now) -> Lookup {
        Lookup::Refuse(unavailable_until(self.next_due().unwrap_or(now.mono), now))
    }

    fn begin(&mut self, now: Now, is_for_token: bool) -> Ticket {
        let generation = self.next_generation;
        self.next_generation += 1;
        self.fetches += 1;
        self.budget.spend(now.mono);
        let deadline = now.mono.saturating_add(self.policy.fetch_deadline);
        self.flight = Some(Flight { generation, deadline });
        let base = self.fresh(now).map(|loaded| loaded.generation).filter(|generation| *generation > 0);
        Ticket { generation, base, is_for_token, asked: now, deadline }
    }

    fn load(&mut self, ticket: &Ticket, set: Arc<JwkSet>, fetched: &Fetched) -> Settled {
        let events = events(self.loaded.as_ref().map(|loaded| &*loaded.snapshot.set), &set);
        let Now { wall: asked_wall, mono: asked } = ticket.asked;
        let stale_at = self.policy.max_stale.map(|max_stale| asked.saturating_add(max_stale));
        let asked_mono = Some(asked);
        let snapshot = Snapshot { set, stale_at, asked_wall, asked_mono, is_failing: false };
        self.loaded =
            Some(Loaded { snapshot, generation: ticket.generation, asked_wall, asked_mono, age: fetched.age });
        self.failures = 0;
        self.last_problem = None;
        self.failed_generation = None;
        // Counted from the question: an answer that comes very late is due again at once.
        let due = asked.saturating_add(self.refresh_in(fetched.max_age, fetched.jitter));
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
