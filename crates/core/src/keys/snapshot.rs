//! An immutable picture of the keys, for readers that never wait.

use std::{sync::Arc, time::Duration};

use crate::{
    jose::{Algorithm, JwkSet, PublicKey, Selection},
    time::{Now, Timestamp},
};

/// A set in use, and until when it is.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) set: Arc<JwkSet>,
    /// Monotonic.
    pub(super) stale_at: Option<Duration>,
    pub(super) asked_wall: Timestamp,
    /// Monotonic; `None` for a set that this process did not fetch.
    pub(super) asked_mono: Option<Duration>,
    pub(super) is_failing: bool,
}

impl Snapshot {
    /// The key that a token means, if the set has it and is fresh enough; everything else is the cache's to say.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm, now: Now) -> Option<&Arc<PublicKey>> {
        if self.is_stale(now) {
            return None;
        }
        match self.set.select(id, algorithm) {
            Selection::Key(key) => Some(key),
            Selection::Mismatch | Selection::Unknown => None,
        }
    }

    /// Whether the set is too old to be used.
    pub fn is_stale(&self, now: Now) -> bool {
        self.stale_at.is_some_and(|stale_at| now.mono >= stale_at)
    }

    /// How long ago the set was asked for.
    pub fn age(&self, now: Now) -> Duration {
        match self.asked_mono {
            Some(asked) => now.mono.saturating_sub(asked),
            None => now.wall.since(self.asked_wall),
        }
    }

    /// The age of the keys, if they are served only because nothing newer can be had.
    pub fn outage(&self, now: Now) -> Option<Duration> {
        self.is_failing.then(|| self.age(now))
    }

    /// The set.
    pub fn set(&self) -> &Arc<JwkSet> {
        &self.set
    }
}
