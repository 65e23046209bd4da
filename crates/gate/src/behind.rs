//! What a request does that meets a revocation state too old to rely on: it waits a little for the log to be read.
//!
//! The state gets old when the log cannot be read, and also when this process got no time to read it: the machine was
//! suspended, the process stopped, or there were no processors to be had. Then requests that queued up meanwhile are
//! served before the tail has had its turn, and nothing is wrong with the log. To refuse them would be a no from a cache
//! (rule 8 of the house).

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{Notify, watch};

use crate::{gate::Gate, own_time::for_a_second};

/// Readings that failed one after the other, from which on nobody waits any more. A single one may be the pause itself:
/// its deadline passed while the process stood still.
const HOPELESS: u32 = 2;

/// How the tail and those who wait for it hear of each other.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    /// Somebody waits: the log should be read now, not at the next poll.
    wanted: Notify,
    /// Told after each reading.
    readings: watch::Sender<()>,
    /// Readings that failed since the last one that reached the end.
    failures: AtomicU32,
}

impl Behind {
    /// Completes when somebody waits for the log to be read.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Notes that the end of the log was reached.
    pub(crate) fn caught_up(&self) {
        self.failures.store(0, Ordering::Release);
        self.readings.send_replace(());
    }

    /// Notes that much was read, and more is to come.
    pub(crate) fn went_on(&self) {
        self.readings.send_replace(());
    }

    /// Notes that the log could not be read.
    pub(crate) fn failed(&self) {
        let more = |failures: u32| Some(failures.saturating_add(1));
        let _ = self.failures.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        self.readings.send_replace(());
    }

    /// Whether the last reading failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failures.load(Ordering::Acquire) > 0
    }

    /// Whether to wait would be in vain.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.failures.load(Ordering::Acquire) >= HOPELESS
    }
}

impl Gate {
    /// Waits until the revocation state is fresh, for a second of this process's own time at most. Once somebody has waited
    /// in vain, or the log could not be read twice, nobody waits until it was read again.
    pub(crate) async fn catch_up(&self) {
        let behind = &self.inner().behind;
        let mut readings = behind.readings.subscribe();
        let caught_up = for_a_second(async {
            while !behind.is_hopeless() && !self.is_fresh(self.clock().now()) {
                behind.wanted.notify_one();
                // The sender lives as long as this gate.
                let _ = readings.changed().await;
            }
        });
        if caught_up.await.is_some() {
            return;
        }
        behind.failures.fetch_max(HOPELESS, Ordering::AcqRel);
        if self.is_fresh(self.clock().now()) {
            // It was read in this very moment: that is no word against it.
            behind.failures.store(0, Ordering::Release);
        } else {
            // Those who came later need not find out by themselves.
            behind.readings.send_replace(());
        }
    }
}
