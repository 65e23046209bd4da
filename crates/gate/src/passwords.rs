//! Passwords of the soak window, checked off the async threads.
//!
//! A check costs tens of milliseconds of a core by design, so only a few run at once and only some may wait;
//! more are turned away with a time to come back. Whoever has no password is checked against a stand-in that
//! costs the same, so the time that an answer takes tells nothing about an address.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{constant_time, hmac};
use doorward_core::{
    decision::Denial,
    password::{Argon2Kind, Cost, PasswordHash, USUAL},
    reason::Reason,
    secret::Secret,
};
use tokio::sync::Semaphore;

use crate::clock::Clock;

/// Checks that run at once: half of the cores, so that the rest goes on; at most 4, which bounds the memory that
/// Argon2 takes to 1 GiB.
const MOST_AT_ONCE: usize = 4;
/// Checks that may wait.
const MOST_WAITING: usize = 32;
/// How long one may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// What somebody who is turned away is told, in seconds.
const COME_BACK: u32 = 2;

/// Checks passwords. Cheap to clone.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    permits: Arc<Semaphore>,
    /// Those that hold a permit and those that wait for one.
    inside: AtomicUsize,
    at_once: usize,
    /// What stand-ins cost: as many of each as there were among the hashes that were looked at.
    costs: ArcSwap<Vec<Cost>>,
    /// Chooses a stand-in for an address, always the same one.
    key: hmac::Key,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords")
            .field("at_once", &self.0.at_once)
            .field("inside", &self.inside())
            .finish_non_exhaustive()
    }
}

/// Leaves the count when it is dropped, also where a caller stopped waiting.
struct Inside(Passwords);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Passwords {
    /// Checks by the cores of this machine.
    pub fn new(clock: &Clock) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self::at_once(clock, (cores / 2).clamp(1, MOST_AT_ONCE))
    }

    /// At most `at_once` checks at once.
    pub fn at_once(clock: &Clock, at_once: usize) -> Self {
        Self(Arc::new(Inner {
            permits: Arc::new(Semaphore::new(at_once)),
            inside: AtomicUsize::new(0),
            at_once,
            costs: ArcSwap::from_pointee(vec![USUAL]),
            key: hmac::Key::new(hmac::HMAC_SHA256, &clock.random::<32>()),
        }))
    }

    /// How many checks run or wait.
    pub fn inside(&self) -> usize {
        self.0.inside.load(Ordering::Relaxed)
    }

    /// Says what the hashes of this installation cost: stand-ins are shared out among them in the same proportion.
    /// Without any, they cost what the old system's usual hash does.
    pub fn use_costs(&self, costs: Vec<Cost>) {
        self.0.costs.store(Arc::new(if costs.is_empty() { vec![USUAL] } else { costs }));
    }

    /// What stands in for the password of `address`.
    fn stand_in(&self, address: &str) -> PasswordHash {
        let costs = self.0.costs.load();
        let tag = hmac::sign(&self.0.key, address.as_bytes());
        let number = tag.as_ref().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let at = usize::try_from(number % costs.len() as u64).unwrap_or(0);
        PasswordHash::dummy(costs.get(at).copied().unwrap_or(USUAL))
    }

    /// Whether `password` is the one that `hash` was made of. `None` is somebody without one: the answer is no, after
    /// the same work. `address` is as it was typed; it only chooses the stand-in.
    ///
    /// The work is done to its end also when nobody waits for it any more, and counts as long.
    ///
    /// # Errors
    /// `rate_limited` when too many checks run and wait, `internal` if the work could not be done.
    pub async fn check(
        &self,
        hash: Option<PasswordHash>,
        address: &str,
        password: Secret<Vec<u8>>,
    ) -> Result<bool, Denial> {
        let busy = || {
            let denial = Denial::from(Reason::RateLimited).with_retry_after(COME_BACK);
            Err(denial.with_note("too many password checks at once"))
        };
        let inside = Inside(self.clone());
        if self.0.inside.fetch_add(1, Ordering::Relaxed) >= self.0.at_once + MOST_WAITING {
            return busy();
        }
        let is_somebody = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.stand_in(address));
        let permit = tokio::time::timeout(LONGEST_WAIT, Arc::clone(&self.0.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return busy() };
        let work = tokio::task::spawn_blocking(move || {
            let outcome = is_password(&hash, password.expose());
            drop((permit, inside));
            outcome
        });
        match work.await {
            Ok(is_right) => Ok(is_right && is_somebody),
            Err(_) => Err(Denial::from(Reason::Internal).with_note("a password check did not end")),
        }
    }
}

/// Computes and compares. What the hash cannot have been made of costs the same and is wrong.
fn is_password(hash: &PasswordHash, password: &[u8]) -> bool {
    let admits = hash.admits(password);
    let password = if admits { password } else { b"-" };
    let computed = match hash.cost {
        Cost::Bcrypt { cost } => bcrypt_of(cost, &hash.salt, password),
        Cost::Argon2 { kind, version, memory_kib, passes, lanes } => {
            argon2_of(kind, version, Params::new(memory_kib, passes, lanes, Some(hash.output.len())), hash, password)
        }
    };
    let is_equal = computed
        .as_ref()
        .is_some_and(|computed| constant_time::verify_slices_are_equal(computed.expose(), &hash.output).is_ok());
    is_equal && admits
}

/// The 23 bytes that are kept of the 24 which the algorithm computes; `password` has at most 72 bytes.
fn bcrypt_of(cost: u32, salt: &[u8], password: &[u8]) -> Option<Secret<Vec<u8>>> {
    let salt: [u8; 16] = salt.try_into().ok()?;
    // A NUL ends the password, where there is room for it.
    let mut ended = password.to_vec();
    ended.push(0);
    ended.truncate(doorward_core::password::BCRYPT_MAX);
    let ended = Secret::new(ended);
    let output = bcrypt::bcrypt(cost, salt, ended.expose());
    Some(Secret::new(output[..23].to_vec()))
}

fn argon2_of(
    kind: Argon2Kind,
    version: u32,
    params: argon2::Result<Params>,
    hash: &PasswordHash,
    password: &[u8],
) -> Option<Secret<Vec<u8>>> {
    let algorithm = match kind {
        Argon2Kind::Id => Algorithm::Argon2id,
        Argon2Kind::I => Algorithm::Argon2i,
        Argon2Kind::D => Algorithm::Argon2d,
    };
    let version = if version == 0x10 { Version::V0x10 } else { Version::V0x13 };
    let mut output = vec![0; hash.output.len()];
    Argon2::new(algorithm, version, params.ok()?).hash_password_into(password, &hash.salt, &mut output).ok()?;
    Some(Secret::new(output))
}

#[cfg(test)]
mod tests;
