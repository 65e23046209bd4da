//! Batched audit rows: refusals and process events, written by a job, never waited for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use doorward_core::{
    audit::AuditEvent,
    effects::Effects,
    reason::Reason,
    time::{Now, Timestamp},
};
use doorward_store::Store;
use tokio::sync::mpsc;

use super::metrics::Metrics;

/// Rows waiting; more are dropped and counted.
const QUEUE: usize = 4096;
/// Rows written in one transaction.
const BATCH: usize = 256;
/// Rows are written this often.
const EVERY: Duration = Duration::from_secs(1);
/// One row per reason and caller in this time.
const THROTTLE: Duration = Duration::from_secs(60);
/// Callers remembered; past this the oldest half is forgotten.
const REMEMBERED: usize = 10_000;

/// The sending half.
#[derive(Debug)]
pub struct AuditQueue {
    rows: mpsc::Sender<AuditEvent>,
    recent: Mutex<HashMap<(Reason, u64), Duration>>,
    metrics: Arc<Metrics>,
}

impl AuditQueue {
    /// A queue and the job that empties it.
    pub fn new(metrics: Arc<Metrics>) -> (Self, AuditJob) {
        let (rows, waiting) = mpsc::channel(QUEUE);
        (Self { rows, recent: Mutex::default(), metrics }, AuditJob { waiting, kept: Vec::new() })
    }

    /// Whether a refusal of this caller for this reason should be written again. The reason is part of
    /// the key, so `token_revoked` after `token_expired` is not lost (G33).
    pub fn is_due(&self, reason: Reason, caller: u64, now: Now) -> bool {
        let mut recent = self.recent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if recent.len() >= REMEMBERED {
            let mut times: Vec<Duration> = recent.values().copied().collect();
            times.sort_unstable();
            let median = times[times.len() / 2];
            recent.retain(|_, at| *at > median);
        }
        match recent.get(&(reason, caller)) {
            Some(at) if now.mono.saturating_sub(*at) < THROTTLE => false,
            _ => {
                recent.insert((reason, caller), now.mono);
                true
            }
        }
    }

    /// Queues a row; a full queue drops it and counts that.
    pub fn push(&self, event: AuditEvent) {
        if self.rows.try_send(event).is_err() {
            self.metrics.fault("audit_dropped");
        }
    }
}

/// The writing half.
#[derive(Debug)]
pub struct AuditJob {
    waiting: mpsc::Receiver<AuditEvent>,
    /// Taken off the queue, not written yet: kept while the store is down.
    kept: Vec<AuditEvent>,
}

impl AuditJob {
    /// Writes until `stop` completes, then once more.
    pub async fn run(mut self, store: Store, metrics: Arc<Metrics>, stop: impl Future<Output = ()>) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = every.tick() => self.flush(&store, &metrics).await,
            }
        }
        self.flush(&store, &metrics).await;
    }

    async fn flush(&mut self, store: &Store, metrics: &Metrics) {
        // Bounded by the queue's length.
        for _ in 0..=QUEUE / BATCH {
            while self.kept.len() < BATCH {
                match self.waiting.try_recv() {
                    Ok(event) => self.kept.push(event),
                    Err(_) => break,
                }
            }
            if self.kept.is_empty() {
                return;
            }
            let effects = Effects { audit: self.kept.clone(), ..Effects::default() };
            if let Err(error) = store.append(effects).await {
                metrics.fault("audit_failed");
                tracing::debug!(%error, "audit rows wait for the store");
                return;
            }
            self.kept.clear();
        }
    }
}

/// The detail of an event as JSON values.
pub fn more<const N: usize>(pairs: [(&str, serde_json::Value); N]) -> serde_json::Map<String, serde_json::Value> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// When an event without a request happened.
pub fn at(now: Now) -> Timestamp {
    now.wall
}
