//! Rate limits: how many events of one key a period has, counted with the generic cell rate algorithm
//! (ITU-T I.371) by the crate `governor`, over a bounded map.
//!
//! [`Limits`] is what flows ask: by name and key, with the answer that a caller is told. [`MemoryLimits`]
//! counts in this process; a backend that replicas share can take its place.

mod limits;
mod net;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    hash::Hash,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use doorward_core::decision::RateBudget;
use governor::{
    RateLimiter, clock,
    middleware::{StateInformationMiddleware, StateSnapshot},
    nanos::Nanos,
    state::StateStore,
};
use quick_cache::unsync::Cache;

pub use self::{
    limits::{Answer, Limit, LimitKey, Limits, MemoryLimits, Taken, UNKNOWN_CREDENTIALS},
    net::ClientNet,
};
use crate::clock::Clock;

/// So many events per period; as many at once, then evenly spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Events per period, and the largest burst.
    pub events: NonZeroU32,
    /// The period.
    pub period: Duration,
}

impl Quota {
    /// `events` per minute; zero counts as one.
    pub const fn per_minute(events: u32) -> Self {
        Self::per(events, Duration::from_secs(60))
    }

    /// `events` per hour; zero counts as one.
    pub const fn per_hour(events: u32) -> Self {
        Self::per(events, Duration::from_secs(3600))
    }

    /// `events` per `period`; zero counts as one.
    pub const fn per(events: u32, period: Duration) -> Self {
        let events = match NonZeroU32::new(events) {
            Some(events) => events,
            None => NonZeroU32::MIN,
        };
        Self { events, period }
    }

    fn interval(self) -> Duration {
        (self.period / self.events.get()).max(Duration::from_nanos(1))
    }

    /// In the words of the library; a period is never zero there.
    fn cells(self) -> governor::Quota {
        let quota = governor::Quota::with_period(self.interval());
        quota.unwrap_or_else(|| governor::Quota::per_second(self.events)).allow_burst(self.events)
    }

    /// What a caller is told: whole seconds, rounded up so that whoever waits them is let through.
    fn budget(self, policy: &'static str, remaining: u32, reset: Duration) -> RateBudget {
        let seconds = |span: Duration| u32::try_from(span.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX);
        let (window, reset) = (seconds(self.period), seconds(reset));
        RateBudget { policy, quota: self.events.get(), window, remaining, reset }
    }
}

/// Counts events by key.
///
/// Holds at most `capacity` keys; a key that is pushed out starts with a full budget again, so a flood
/// of distinct keys can loosen a limit but never lock anybody out, and never grows the process. Counts
/// are lost on restart and not shared between replicas.
pub struct Limiter<K: Hash + Eq + Clone> {
    quota: Quota,
    clock: Clock,
    arrivals: Arrivals<K>,
    counting: Gcra<K>,
    /// The same without counting.
    looking: Gcra<K>,
}

type Gcra<K> = RateLimiter<K, State<K>, Mono, StateInformationMiddleware>;

/// What came out for one event; the wait until one more fits is in the error.
pub type Fits = Result<u32, Duration>;

impl<K: Hash + Eq + Clone> Limiter<K> {
    /// An empty limiter on this clock's monotonic time.
    pub fn new(quota: Quota, capacity: usize, clock: Clock) -> Self {
        let arrivals = Arc::new(Mutex::new(Cache::new(capacity.max(1))));
        let gcra = |counts| {
            let state = State { arrivals: Arc::clone(&arrivals), counts };
            Gcra::new(quota.cells(), state, Mono(clock.clone()))
        };
        Self { quota, counting: gcra(true), looking: gcra(false), arrivals, clock }
    }

    /// Counts one event of `key`; gives back how many more fit now. An event that is refused is not counted.
    ///
    /// # Errors
    /// How long to wait until one more fits.
    pub fn check(&self, key: &K) -> Fits {
        self.fits(self.counting.check_key(key))
    }

    /// Whether one event of `key` would fit, without counting it.
    ///
    /// # Errors
    /// How long to wait until one fits.
    pub fn has_room(&self, key: &K) -> Fits {
        self.fits(self.looking.check_key(key))
    }

    /// Forgets what was counted for `key`.
    pub fn forget(&self, key: &K) {
        lock(&self.arrivals).remove(key);
    }

    /// Forgets everything that was counted.
    pub fn clear(&self) {
        lock(&self.arrivals).clear();
    }

    /// How many keys are held.
    pub fn len(&self) -> usize {
        lock(&self.arrivals).len()
    }

    /// Whether no key is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The answer for a caller about the limit called `policy`.
    pub fn told(&self, policy: &'static str, fits: Fits) -> Taken {
        let events = self.quota.events.get();
        match fits {
            Ok(left) => Ok(self.quota.budget(policy, left, self.quota.interval() * events.saturating_sub(left))),
            Err(wait) => Err(self.quota.budget(policy, 0, wait)),
        }
    }

    fn fits(&self, checked: Result<StateSnapshot, governor::NotUntil<Duration>>) -> Fits {
        match checked {
            Ok(snapshot) => Ok(snapshot.remaining_burst_capacity()),
            // Never zero: that would read as "now".
            Err(not_until) => Err(not_until.wait_time_from(self.clock.now().mono).max(Duration::from_nanos(1))),
        }
    }
}

impl<K: Hash + Eq + Clone> fmt::Debug for Limiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("quota", &self.quota).field("keys", &self.len()).finish_non_exhaustive()
    }
}

/// Our clock as the library reads it: monotonic time only.
#[derive(Clone)]
struct Mono(Clock);

impl clock::Clock for Mono {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.now().mono
    }
}

type Arrivals<K> = Arc<Mutex<Cache<K, Nanos>>>;

/// Per key the "theoretical arrival time"; the key used longest ago goes first.
struct State<K> {
    arrivals: Arrivals<K>,
    /// Off: measures and replaces nothing.
    counts: bool,
}

fn lock<K>(arrivals: &Arrivals<K>) -> MutexGuard<'_, Cache<K, Nanos>> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Hash + Eq + Clone> StateStore for State<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut arrivals = lock(&self.arrivals);
        let (out, next) = measure(arrivals.get(key).copied())?;
        if self.counts {
            arrivals.insert(key.clone(), next);
        }
        Ok(out)
    }
}
