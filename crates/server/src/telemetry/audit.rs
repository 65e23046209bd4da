//! Batched audit rows: refusals and process events, written by a job, never waited for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use doorward_core::{
    audit::{AuditEvent, EventKind},
    effects::Effects,
    id::UserId,
    reason::Reason,
    time::Now,
};
use doorward_gate::clock::Clock;
use doorward_store::Store;
use tokio::sync::mpsc;

use super::metrics::{Metrics, NameLabel};

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
/// Name in a row's detail of how many refusals got none.
const LEFT_OUT: &str = "left_out";

/// When a refusal of one caller for one reason was last written, and how many were not since.
#[derive(Clone, Copy, Debug)]
struct Recent {
    at: Duration,
    user: Option<UserId>,
    left_out: u64,
}

/// The sending half.
#[derive(Debug)]
pub struct AuditQueue {
    rows: mpsc::Sender<AuditEvent>,
    recent: Mutex<HashMap<(Reason, u64), Recent>>,
    /// Rows that found no room, and no row has said so yet.
    dropped: AtomicU64,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl AuditQueue {
    /// A queue and the job that empties it.
    pub fn new(metrics: Arc<Metrics>, clock: Clock) -> (Arc<Self>, AuditJob) {
        let (rows, waiting) = mpsc::channel(QUEUE);
        let queue = Arc::new(Self { rows, recent: Mutex::default(), dropped: AtomicU64::new(0), metrics, clock });
        (Arc::clone(&queue), AuditJob { queue, waiting, kept: Vec::new() })
    }

    /// Queues the row of a refusal, unless one of the same caller and reason was written less than a minute before;
    /// then it is counted, and the next row says how many those were. The reason is part of the key, so
    /// `token_revoked` after `token_expired` is not lost (G33).
    pub fn refused(
        &self,
        reason: Reason,
        caller: u64,
        user: Option<UserId>,
        now: Now,
        row: impl FnOnce() -> AuditEvent,
    ) {
        let mut forgotten = Vec::new();
        let left_out = {
            let mut recent = self.recent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let is_known = recent.contains_key(&(reason, caller));
            if recent.len() >= REMEMBERED && !is_known {
                let mut times: Vec<Duration> = recent.values().map(|one| one.at).collect();
                times.sort_unstable();
                let median = times[times.len() / 2];
                forgotten = recent.extract_if(|_, one| one.at <= median).collect();
            }
            let one = recent.entry((reason, caller)).or_insert(Recent { at: now.mono, user, left_out: 0 });
            if is_known && now.mono.saturating_sub(one.at) < THROTTLE {
                one.left_out += 1;
                None
            } else {
                one.at = now.mono;
                Some(std::mem::take(&mut one.left_out))
            }
        };
        self.sum_up(forgotten, now);
        let Some(left_out) = left_out else {
            self.metrics.audit_left_out.get_or_create(&NameLabel { name: reason.code().to_owned() }).inc();
            return;
        };
        let mut row = row();
        if left_out > 0 {
            row.detail.more.insert(LEFT_OUT.to_owned(), left_out.into());
        }
        self.push(row);
    }

    /// Says of callers that did not come again how many of their refusals got no row: one row for each user, and one
    /// for everybody without a name together.
    fn sweep(&self, now: Now, is_end: bool) {
        let over = {
            let mut recent = self.recent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            recent.extract_if(|_, one| is_end || now.mono.saturating_sub(one.at) >= THROTTLE).collect()
        };
        self.sum_up(over, now);
    }

    fn sum_up(&self, over: Vec<((Reason, u64), Recent)>, now: Now) {
        let mut sums: BTreeMap<(&'static str, Option<UserId>), (Reason, u64)> = BTreeMap::new();
        for ((reason, _), one) in over.into_iter().filter(|(_, one)| one.left_out > 0) {
            sums.entry((reason.code(), one.user)).or_insert((reason, 0)).1 += one.left_out;
        }
        for ((_, user), (reason, left_out)) in sums {
            let mut row = AuditEvent::new(EventKind::RequestRefused, now.wall);
            (row.user_id, row.reason) = (user, Some(reason));
            row.detail.more = more([(LEFT_OUT, left_out.into())]);
            self.push(row);
        }
    }

    /// Queues a row; a full queue drops it and counts that.
    pub fn push(&self, event: AuditEvent) {
        if self.rows.try_send(event).is_err() {
            self.metrics.fault("audit_dropped");
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The writing half.
#[derive(Debug)]
pub struct AuditJob {
    queue: Arc<AuditQueue>,
    waiting: mpsc::Receiver<AuditEvent>,
    /// Taken off the queue, not written yet: kept while the store is down.
    kept: Vec<AuditEvent>,
}

impl AuditJob {
    /// Writes until `stop` completes, then once more.
    pub async fn run(mut self, store: Store, stop: impl Future<Output = ()>) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = every.tick() => self.write(&store, false).await,
            }
        }
        self.write(&store, true).await;
    }

    async fn write(&mut self, store: &Store, is_end: bool) {
        let now = self.queue.clock.now();
        self.queue.sweep(now, is_end);
        // While the store is down nothing is said, and what is lost is said afterwards.
        if self.kept.is_empty() {
            let dropped = self.queue.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                let mut row = AuditEvent::new(EventKind::AuditDropped, now.wall);
                row.detail.more = more([("count", dropped.into())]);
                self.kept.push(row);
            }
        }
        self.flush(store).await;
    }

    async fn flush(&mut self, store: &Store) {
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
                self.queue.metrics.fault("audit_failed");
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

#[cfg(test)]
mod tests {
    use doorward_core::time::Timestamp;

    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn queue() -> (Arc<AuditQueue>, AuditJob, Clock) {
        let clock = Clock::manual(START);
        let (queue, job) = AuditQueue::new(Arc::new(Metrics::new()), clock.clone());
        (queue, job, clock)
    }

    fn refuse(queue: &AuditQueue, reason: Reason, caller: u64, user: Option<UserId>) {
        let now = queue.clock.now();
        queue.refused(reason, caller, user, now, || {
            let mut row = AuditEvent::new(EventKind::RequestRefused, now.wall);
            (row.user_id, row.reason) = (user, Some(reason));
            row
        });
    }

    /// What is written now: reason, user, and how many the row says were left out.
    async fn written(job: &mut AuditJob, is_end: bool) -> Vec<(String, Option<UserId>, u64)> {
        let store = Store::memory();
        job.write(&store, is_end).await;
        let rows = store.audit_tail(0, 1000).await.unwrap();
        let count = |detail: Option<String>| {
            let detail: serde_json::Value = serde_json::from_str(&detail.unwrap()).unwrap();
            detail[LEFT_OUT].as_u64().or(detail["count"].as_u64()).unwrap_or(0)
        };
        rows.into_iter().map(|row| (row.reason.unwrap_or(row.kind), row.user_id, count(row.detail))).collect()
    }

    #[tokio::test]
    async fn of_one_reason_and_caller_a_row_is_written_each_minute_and_says_how_many_were_not() {
        let (queue, mut job, clock) = queue();
        let ada = Some(UserId::mint(START, [1; 10]));
        for _ in 0..5 {
            refuse(&queue, Reason::TokenExpired, 1, ada);
        }
        refuse(&queue, Reason::TokenRevoked, 1, ada);
        refuse(&queue, Reason::TokenExpired, 2, None);
        let (expired, revoked) = (|user, n| ("token_expired".to_owned(), user, n), "token_revoked".to_owned());
        assert_eq!(written(&mut job, false).await, [expired(ada, 0), (revoked, ada, 0), expired(None, 0)]);
        clock.advance(THROTTLE);
        refuse(&queue, Reason::TokenExpired, 1, ada);
        assert_eq!(written(&mut job, false).await, [expired(ada, 4)]);
        assert!(queue.metrics.render().contains(r#"doorward_audit_left_out_total{name="token_expired"} 4"#));
    }

    #[tokio::test]
    async fn who_does_not_come_again_is_summed_up_and_forgotten() {
        let (queue, mut job, clock) = queue();
        let [ada, bob] = [1, 2].map(|n| Some(UserId::mint(START, [n; 10])));
        for (caller, user, times) in [(1, ada, 3), (2, bob, 2), (3, None, 4), (4, None, 5), (5, None, 1)] {
            for _ in 0..times {
                refuse(&queue, Reason::NoRule, caller, user);
            }
        }
        assert_eq!(written(&mut job, false).await.len(), 5);
        clock.advance(THROTTLE);
        let row = |user, n| ("no_rule".to_owned(), user, n);
        let mut sums = written(&mut job, false).await;
        sums.sort();
        let mut expected = [row(None, 7), row(ada, 2), row(bob, 1)];
        expected.sort();
        assert_eq!(sums, expected);
        assert!(queue.recent.lock().unwrap().is_empty());
        clock.advance(THROTTLE);
        assert_eq!(written(&mut job, false).await, [], "said once");
        for _ in 0..3 {
            refuse(&queue, Reason::NoRule, 1, ada);
        }
        assert_eq!(written(&mut job, true).await, [row(ada, 0), row(ada, 2)], "the end waits for no minute");
    }

    #[tokio::test]
    async fn a_crowd_of_callers_is_bounded_and_none_of_their_refusals_is_forgotten() {
        let (queue, mut job, clock) = queue();
        let mut said = 0;
        for round in 0..4 {
            for caller in 0..4_000 {
                refuse(&queue, Reason::NoRule, round * 4_000 + caller, None);
                refuse(&queue, Reason::NoRule, round * 4_000 + caller, None);
            }
            clock.advance(Duration::from_millis(1));
            assert!(queue.recent.lock().unwrap().len() <= REMEMBERED);
            let mut rows = Vec::new();
            while let Ok(row) = job.waiting.try_recv() {
                rows.push(row);
            }
            let left_out = |row: &AuditEvent| row.detail.more.get(LEFT_OUT).and_then(serde_json::Value::as_u64);
            said += rows.iter().filter_map(left_out).sum::<u64>();
        }
        said += written(&mut job, true).await.iter().map(|row| row.2).sum::<u64>();
        assert_eq!(said, 16_000);
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn rows_that_found_no_room_are_counted_and_a_row_says_so() {
        let (queue, mut job, _) = queue();
        for _ in 0..QUEUE + 3 {
            queue.push(AuditEvent::new(EventKind::RequestRefused, START));
        }
        assert_eq!(written(&mut job, false).await[0], ("audit.dropped".to_owned(), None, 3));
        assert!(queue.metrics.render().contains(r#"doorward_faults_total{name="audit_dropped"} 3"#));
        assert_eq!(written(&mut job, false).await, [], "said once");
    }
}
