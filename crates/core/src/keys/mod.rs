//! The keys of one issuer, as a state machine in virtual time.
//!
//! [`KeyCache`] never fetches. It says what to do next and hands out one [`Ticket`] per fetch; whoever gets
//! the ticket fetches and reports back with [`KeyCache::fetched`]. The ticket carries a deadline, after which
//! a lost job frees itself, and a generation, by which a late answer cannot overwrite a newer one.
//!
//! What holds whatever happens:
//! - a token whose key is known and fresh never waits and is never refused for lack of a key;
//! - a failed, empty or half-broken answer never discards keys that were good;
//! - there is one fetch at a time, and tokens with unknown keys or wrong signatures, however many, cost
//!   at most [`KeyPolicy::burst`] fetches in `burst × min_interval`;
//! - a token is only refused for an unknown key on a set that was asked for after the token was issued, and that
//!   no cache on the way had kept from before;
//! - neither a wall clock that is set nor an answer kept by a cache (`Age`, RFC 9111 §5.1) makes an older picture
//!   replace a newer one.
//!
//! A wrong signature under a known id is different: where the next slot of the budget is further away than a token may
//! wait, it is refused at once, since mostly it is what it looks like. Who replaces key material without a new id can be
//! refused that long.

mod budget;
mod cache;
pub mod metadata;
mod snapshot;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

pub use cache::KeyCache;
pub use snapshot::Snapshot;

use crate::{
    decision::Denial,
    jose::{Algorithm, AlgorithmSet, JwkSet, PublicKey, SetProblem, Skipped},
    time::{Now, Timestamp},
};

/// How the keys of one issuer are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPolicy {
    /// Algorithms that the issuer's tokens may use; a token of another one never causes a fetch.
    pub algorithms: AlgorithmSet,
    /// Pause after any attempt before a token may cause the next one.
    pub min_interval: Duration,
    /// How many attempts may fall into `burst × min_interval`. With 2, a key that appears right after a fetch
    /// is found at once, and a flood still costs no more than one fetch per `min_interval` on average.
    pub burst: u8,
    /// How long a set serves after it was asked for; `None` for sets that do not age, such as a file.
    pub max_stale: Option<Duration>,
    /// How long one fetch may take before its ticket is void.
    pub fetch_deadline: Duration,
    /// When a set is fetched again if its publisher says nothing.
    pub refresh_after: Duration,
    /// How long a token may be made to wait, from its arrival: for the next slot of the budget, and for a fetch, which
    /// goes on for those who come later.
    pub max_wait: Duration,
    /// How much later than its `iat` a token may really have been issued, when `iat` is compared with our
    /// fetches: a second, because NumericDate mostly has whole ones; more for an issuer whose clock lags.
    pub clock_tolerance: Duration,
    /// Whether there is anything to fetch. Without, an unknown key is refused at once.
    pub is_refreshable: bool,
}

impl KeyPolicy {
    /// The defaults for keys that are fetched.
    pub fn fetched(algorithms: AlgorithmSet) -> Self {
        Self {
            algorithms,
            min_interval: Duration::from_secs(30),
            burst: 2,
            max_stale: Some(Duration::from_secs(24 * 3600)),
            fetch_deadline: Duration::from_secs(6),
            refresh_after: Duration::from_secs(600),
            max_wait: Duration::from_secs(3),
            clock_tolerance: Duration::from_secs(1),
            is_refreshable: true,
        }
    }

    /// The policy for keys that were given once and for all.
    pub fn fixed(algorithms: AlgorithmSet) -> Self {
        Self { max_stale: None, is_refreshable: false, ..Self::fetched(algorithms) }
    }
}

/// What a token says that matters for finding its key. None of it is proven.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// `kid`.
    pub key_id: Option<&'a str>,
    /// `alg`.
    pub algorithm: Algorithm,
    /// `iat`.
    pub issued_at: Option<Timestamp>,
    /// When the token arrived here; the same value for every question about it.
    pub arrived: Now,
    /// From [`KeyCache::era`] at the first question about the token, kept for the others: only a fetch begun
    /// after it can say that the token's key does not exist.
    pub era: Era,
}

/// A point in the sequence of fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Era(u64);

/// What to do for a token.
#[derive(Debug)]
#[must_use]
pub enum Lookup {
    /// Verify with this key.
    Use(Arc<PublicKey>),
    /// Verify with this key, and fetch for those who come later.
    UseAndFetch(Arc<PublicKey>, Ticket),
    /// Fetch, then ask again.
    Fetch(Ticket),
    /// Wait until a fetch was reported, at most until `until` (monotonic), then ask again. Never later than
    /// [`KeyPolicy::max_wait`] after the token arrived.
    Wait {
        /// When to ask again even if nothing happened.
        until: Duration,
    },
    /// The verdict.
    Refuse(Denial),
}

/// The right and duty to fetch once. Dropping it loses the fetch until its deadline.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    generation: u64,
    base: Option<u64>,
    is_for_token: bool,
    asked: Now,
    deadline: Duration,
}

impl Ticket {
    /// Which fetch this is; counts up.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The fetch that gave the set in use: only with its validators may the question be a conditional one
    /// (RFC 9110 §13.1). `None` where the set in use was not fetched, or is too old.
    pub const fn base(&self) -> Option<u64> {
        self.base
    }

    /// Whether a token caused it that this set does not explain: caches on the way should not answer for the
    /// issuer then.
    pub const fn is_for_token(&self) -> bool {
        self.is_for_token
    }

    /// How long the fetch may take from `now` on.
    pub fn remaining(&self, now: Now) -> Duration {
        self.deadline.saturating_sub(now.mono)
    }
}

/// A good answer.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The set; `None`: it is the one that the ticket was based on (304, RFC 9110 §15.4.5).
    pub set: Option<JwkSet>,
    /// How long it may be kept, from `Cache-Control: max-age` (RFC 9111 §5.2.2.1).
    pub max_age: Option<Duration>,
    /// How long caches on the way had kept it, from `Age` (RFC 9111 §5.1).
    pub age: Duration,
    /// A random number, so that replicas do not fetch in step.
    pub jitter: u8,
}

/// A set that this process did not fetch.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The set.
    pub set: JwkSet,
    /// When it was fetched or written; counts as now where it lies ahead.
    pub made: Timestamp,
    /// Where it is from.
    pub kind: SeedKind,
    /// A random number, so that replicas do not fetch in step.
    pub jitter: u8,
}

/// Where a seed is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedKind {
    /// The operator gave it: it is good from now on, however long ago it was made.
    Given,
    /// An earlier process kept it: it serves for what is left of `max_stale`.
    Kept,
}

/// Why a fetch gave no keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchProblem {
    /// No answer: name, connection, TLS, or the file cannot be read.
    Unreachable(String),
    /// An answer other than 200.
    Status(u16),
    /// The issuer's metadata cannot be used; with what is wrong.
    Discovery(String),
    /// "Not changed", but not about the set in use.
    Unmatched,
    /// A cache on the way answered with an older set than the one in use.
    Outdated,
    /// No complete answer in time.
    TimedOut,
    /// More bytes than a set may have.
    TooLarge,
    /// A redirect that leaves the origin, or too many.
    Redirected,
    /// The answer is not a set.
    Set(SetProblem),
    /// A set without any usable key.
    Empty,
}

impl fmt::Display for FetchProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "cannot be reached: {why}"),
            Self::Status(status) => write!(f, "answered with status {status}"),
            Self::Discovery(why) => write!(f, "metadata: {why}"),
            Self::Unmatched => f.write_str("said \"not changed\" of another set than the one in use"),
            Self::Outdated => f.write_str("was answered for by a cache with an older set than the one in use"),
            Self::TimedOut => f.write_str("did not answer in time"),
            Self::TooLarge => write!(f, "{}", SetProblem::TooLarge),
            Self::Redirected => f.write_str("redirected to another origin"),
            Self::Set(problem) => problem.fmt(f),
            Self::Empty => f.write_str("published no usable key"),
        }
    }
}

impl std::error::Error for FetchProblem {}

/// Something about the keys that an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyEvent {
    /// The id now stands for other key material.
    Replaced(Box<str>),
    /// A key of the set is not used.
    Skipped(Skipped),
}

/// What became of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Whether the set is now the one in use. False for failures and for answers that came after a newer one.
    pub is_in_use: bool,
    /// What to report.
    pub events: Vec<KeyEvent>,
}

/// The state of an issuer's keys, for people and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    /// Usable keys, 0 while there are none or they are too old.
    pub keys: usize,
    /// Age of the set in use.
    pub age: Option<Duration>,
    /// How much longer the set in use would serve without a good fetch; `None` while there is none, and where sets
    /// do not age.
    pub serves_for: Option<Duration>,
    /// When the next fetch is due by itself.
    pub next_fetch_in: Option<Duration>,
    /// Fetches begun.
    pub fetches: u64,
    /// Fetches that failed since the last good one.
    pub failures: u32,
    /// What the last failure was; cleared by a good fetch.
    pub last_problem: Option<FetchProblem>,
    /// Keys of the set that are not used.
    pub skipped: Vec<Skipped>,
}
