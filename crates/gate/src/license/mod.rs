//! Licenses in the request path: what is known of them, in memory; who is asked, and how often.
//!
//! A request is decided by what is known ([`doorward_core::license::derive()`]). Knowledge comes from the store, into
//! which [`Licenses::observe`] writes what a provider said: after a question of ours ([`Licenses::refresh`]), or from
//! a webhook. A provider that fails changes nothing: what is known ages, and the policy says how long it carries.
//!
//! # How fresh
//! What is older than `cache_ttl` is asked for again, by the next request that needs it, which waits a second at most;
//! for holders in use it is asked for shortly before that, and nobody waits. A change that this process writes is in
//! force when [`Licenses::observe`] returns; other processes follow the revocation log and take it over within a
//! second.

mod apply;
mod ask;
mod breaker;
#[cfg(feature = "keygen")]
mod file;
mod held;
mod highest;
#[cfg(feature = "keygen")]
mod http;
#[cfg(feature = "keygen")]
pub mod jwt;
#[cfg(feature = "keygen")]
pub mod keygen;
mod look;
mod open;
#[cfg(feature = "keygen")]
mod paper;
mod provider;
#[cfg(feature = "keygen")]
mod relay;
mod status;
#[cfg(feature = "keygen")]
pub mod trouble;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use doorward_core::{
    license::{Holder, LicensePolicy, LicenseState, LicenseTime},
    principal::SubjectId,
    revocation::Scope,
    time::Timestamp,
};
use doorward_store::StoreError;
use tokio::sync::Semaphore;

use crate::{
    gate::Gate,
    rate::{Limiter, Quota},
};

#[cfg(feature = "keygen")]
pub use self::{
    file::{FileListener, FileNews, FileProvider, FileStatus, Place, read_place},
    http::{ConnectionError, Endpoint},
    paper::{Expected, Paper, Unusable},
    relay::{RelayOptions, RelayProvider},
};
pub use provider::{ASK_TIMEOUT, Answering, FaultKind, LicenseProvider, MAX_ANSWER, ProviderFault, Question};
pub use status::{BreakerState, LicenseStatus};

pub use highest::{ResetTime, highest_time, reset_highest_time};

pub(crate) use highest::Highest;
pub(crate) use look::{Asked, Course, Look};

/// Holders, and subjects of issuers, that are kept in memory, each.
const HELD: usize = 100_000;
/// Questions that are under way at once.
const QUESTIONS: usize = 16;
/// Questions that are under way or wait for their turn; more are not begun.
const FLIGHTS: usize = 1024;
/// How often requests of one holder may ask the provider.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// How often a refusal is confirmed by the store, for each holder and for each subject that is nobody's.
const CONFIRM_EVERY: Quota = Quota::per(1, Duration::from_secs(1));

/// What the host hands in.
#[derive(Clone, Debug)]
pub struct LicenseParts {
    /// Who is asked.
    pub provider: Arc<dyn LicenseProvider>,
    /// How long an answer carries.
    pub policy: LicensePolicy,
    /// How old an answer may be before it is asked for again.
    pub cache_ttl: Duration,
    /// Name of the issuer whose subjects are those of the provider, where there is one: blocklist entries about them
    /// count for the licenses of their users, and its tokens for the users with their subjects.
    pub issuer: Option<Arc<str>>,
}

/// What became of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is older than what is known: nothing changed.
    Older,
    /// It says what was known: only the confirmation is newer.
    Confirmed,
    /// It says something else, and that is known now.
    Changed {
        /// What was known.
        old: Option<LicenseState>,
        /// What is known now.
        new: LicenseState,
    },
    /// The event that brought it was taken before, or a newer one was: nothing changed.
    Repeated,
}

/// Why a question led to nothing. What is known stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The provider gave no answer.
    #[error("the license provider gave no answer: {0}")]
    Provider(ProviderFault),
    /// The provider failed lately and is left alone for so long.
    #[error("the license provider failed and is asked again in {} s", .0.as_secs().max(1))]
    Paused(Duration),
    /// Too many questions wait already.
    #[error("too many questions wait for the license provider")]
    Busy,
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The user is gone.
    #[error("its holder is gone")]
    HolderGone,
    /// The process ends.
    #[error("the question was given up")]
    GivenUp,
}

/// Licenses, as long as there is a provider. A cheap handle.
#[derive(Clone)]
pub struct Licenses {
    gate: Gate,
    desk: Arc<Desk>,
}

impl fmt::Debug for Licenses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Licenses").field("provider", &self.desk.parts.provider.name()).finish_non_exhaustive()
    }
}

/// What all handles share.
#[derive(Debug)]
pub(crate) struct Desk {
    parts: LicenseParts,
    held: held::Held,
    flights: ask::Flights,
    seats: Semaphore,
    breaker: Mutex<breaker::Breaker>,
    tally: Mutex<status::Tally>,
    /// Questions that requests cause, by holder.
    asked: Limiter<Holder>,
    /// Refusals that were confirmed by the store, by holder.
    confirmed: Limiter<Holder>,
    /// Subjects of issuers that the store knows no user for.
    strangers: Limiter<SubjectId>,
}

impl Desk {
    fn new(gate: &Gate, parts: LicenseParts) -> Self {
        let clock = gate.clock();
        let every = ASK_EVERY.min(parts.cache_ttl);
        Self {
            parts,
            held: held::Held::new(HELD),
            flights: ask::Flights::default(),
            seats: Semaphore::new(QUESTIONS),
            breaker: Mutex::default(),
            tally: Mutex::default(),
            asked: Limiter::new(Quota::per(1, every), HELD, clock.clone()),
            confirmed: Limiter::new(CONFIRM_EVERY, HELD, clock.clone()),
            strangers: Limiter::new(CONFIRM_EVERY, HELD, clock.clone()),
        }
    }

    fn breaker(&self) -> MutexGuard<'_, breaker::Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, status::Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Name of the issuer whose subjects are those of the provider.
    pub(crate) fn issuer(&self) -> Option<&str> {
        self.parts.issuer.as_deref()
    }

    /// Drops what `scope` voids.
    pub(crate) fn void(&self, scope: &Scope) {
        self.held.void(scope);
        // Whoever asked a moment ago did so by a time that no longer counts.
        if *scope == Scope::LicenseTime {
            self.asked.clear();
        }
    }
}

impl Gate {
    /// Asks about licenses from now on, or about none. What the store knows stays known; requests under way finish
    /// as they began.
    pub fn use_licenses(&self, parts: Option<LicenseParts>) {
        let desk = parts.map(|parts| Arc::new(Desk::new(self, parts)));
        self.inner().licenses.store(desk);
    }

    /// Licenses, where there is a provider.
    pub fn licenses(&self) -> Option<Licenses> {
        let desk = self.inner().licenses.load_full()?;
        Some(Licenses::at(self, &desk))
    }
}

impl Licenses {
    pub(crate) fn at(gate: &Gate, desk: &Arc<Desk>) -> Self {
        Self { gate: gate.clone(), desk: Arc::clone(desk) }
    }

    /// Name of the provider.
    pub fn provider(&self) -> &'static str {
        self.desk.parts.provider.name()
    }

    /// Whether every user has a license of their own; else that of [`Holder::Installation`] counts for everybody.
    pub fn is_per_user(&self) -> bool {
        self.desk.parts.provider.is_per_user()
    }

    /// How long an observation carries.
    pub fn policy(&self) -> LicensePolicy {
        self.desk.parts.policy
    }

    /// How old an answer may be before it is asked for again.
    pub fn cache_ttl(&self) -> Duration {
        self.desk.parts.cache_ttl
    }

    /// Name of the issuer whose subjects are those of the provider.
    pub fn issuer(&self) -> Option<&str> {
        self.desk.issuer()
    }

    /// The time by which licenses end: the clock's, or the highest time ever believed where that is later.
    pub fn now(&self) -> Timestamp {
        self.time().latest()
    }

    /// The times by which licenses are judged.
    pub fn time(&self) -> LicenseTime {
        self.gate.license_time(self.gate.clock().now())
    }

    /// The same, after the highest time was read from the store: before that it is no more than the clock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn judged_at(&self) -> Result<Timestamp, StoreError> {
        self.load_time().await?;
        Ok(self.now())
    }

    /// Reads the highest time from the store, unless it was read.
    async fn load_time(&self) -> Result<(), StoreError> {
        self.gate.inner().highest.load(self.gate.store(), || self.gate.clock().now()).await
    }
}
