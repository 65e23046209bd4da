use std::{sync::Arc, time::Duration};

use doorward_core::{effects::Effects, id::JobRunId, time::Timestamp};
use doorward_gate::clock::Clock;
use doorward_store::{BeginJob, CountKind, JobOutcome, JobRun, MethodCount, NewJobRun, Store, StoreOptions};
use doorward_testkit::{
    folder,
    postgres::{self, Fsync},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    parts::Parts,
    run::{LOST, Ran, execute},
    schedule::Scheduler,
    table::{Job, Outcome},
};
use crate::{config::Config, telemetry::Metrics};

/// 2027-01-15 08:00:00 UTC.
const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const NAME: &str = "purge";

fn config(schedule: &str) -> Config {
    let text = format!(
        "public_url = \"http://127.0.0.1\"\n[secrets]\nroot = \"only for this test, only for this test\"\n\
         [jobs]\npurge = \"{schedule}\"\n"
    );
    Config::parse(&text, std::path::Path::new("doorward.toml"), &Default::default()).unwrap()
}

/// One job that does this.
fn table(run: fn(Parts) -> futures_util::future::BoxFuture<'static, Outcome>) -> &'static [Job] {
    vec![Job { name: NAME, when: |jobs| &jobs.purge, limit: MINUTE, run }].leak()
}

/// Does its work where it shows, in the store.
async fn work(parts: Parts) -> Outcome {
    let count = MethodCount { day: 0, kind: CountKind::Request, method: "work".to_owned(), count: 1 };
    parts.gate.store().add_counts(vec![count]).await.map_err(|error| error.to_string())?;
    Ok("worked".to_owned())
}

async fn worked(store: &Store) -> u64 {
    store.counts(0).await.unwrap().iter().map(|count| count.count).sum()
}

/// A process with a schedule.
struct Process {
    config: Config,
    parts: Parts,
    metrics: Arc<Metrics>,
    scheduler: Scheduler,
    stop: CancellationToken,
}

impl Process {
    fn new(jobs: &'static [Job], schedule: &str, store: &Store, clock: &Clock) -> Self {
        let config = config(schedule);
        let parts = Parts::without_server(store, &config, clock).unwrap();
        let metrics = Arc::new(Metrics::new());
        let scheduler = Scheduler::new(jobs, Arc::clone(&metrics));
        Self { config, parts, metrics, scheduler, stop: CancellationToken::new() }
    }

    fn look(&mut self) {
        self.scheduler.look(&self.config.jobs, &self.parts, &self.stop);
    }

    /// Looks until it has tried whatever is due, and waits for what it began.
    async fn settle(&mut self) {
        for _ in 0..6 {
            self.look();
            while !self.scheduler.is_idle() {
                self.scheduler.ended().await;
            }
        }
    }

    fn counted(&self, outcome: &str) -> u64 {
        let line = format!("doorward_job_runs_total{{name=\"{NAME}\",outcome=\"{outcome}\"}} ");
        let text = self.metrics.render();
        text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
    }
}

/// The runs in the order of the schedule, newest first.
async fn runs(store: &Store) -> Vec<JobRun> {
    store.job_runs(Some(NAME.to_owned()), 1000).await.unwrap()
}

/// The errors in the audit rows of runs that failed.
async fn audited(store: &Store) -> Vec<String> {
    let rows = store.audit_tail(0, 1000).await.unwrap();
    let failed = rows.iter().filter(|row| row.kind == "job.failed").map(|row| row.detail.as_deref().unwrap());
    failed
        .map(|detail| serde_json::from_str::<serde_json::Value>(detail).unwrap()["error"].as_str().unwrap().to_owned())
        .collect()
}

async fn sqlite(folder: &std::path::Path) -> Store {
    let store = Store::open("sqlite:test.db", StoreOptions::new(folder, Clock::system().random())).unwrap();
    store.wait_ready(MINUTE).await.unwrap();
    store
}

async fn postgresql(url: &str) -> Store {
    let store = Store::open(url, StoreOptions::new("", Clock::system().random())).unwrap();
    store.wait_ready(MINUTE).await.unwrap();
    store
}

/// Two processes on one database look at the same time, minute by minute.
async fn race(a: &Store, b: &Store) {
    const SLOTS: u64 = 30;
    let clock = Clock::manual(START);
    let jobs = table(|parts| Box::pin(work(parts)));
    let mut processes = [a, b].map(|store| Process::new(jobs, "* * * * *", store, &clock));
    for slot in 1..=SLOTS {
        let [one, other] = &mut processes;
        tokio::join!(one.settle(), other.settle());
        assert_eq!(worked(a).await, slot, "a slot is worked once");
        clock.advance(MINUTE);
    }
    let runs = runs(b).await;
    assert_eq!(runs.len() as u64, SLOTS);
    for (number, run) in (1..=SLOTS).rev().zip(&runs) {
        assert_eq!(run.scheduled_for, START.plus(MINUTE * u32::try_from(number - 1).unwrap()));
        assert_eq!((run.attempts, run.outcome, &run.error), (1, Some(JobOutcome::Done), &None));
        assert!(run.started_at >= run.scheduled_for && run.finished_at >= Some(run.started_at), "{run:?}");
    }
    let shares = processes.each_ref().map(|process| process.counted("done"));
    assert_eq!(shares.iter().sum::<u64>(), SLOTS, "{shares:?}");
}

#[tokio::test]
async fn two_replicas_run_each_slot_once_on_sqlite() {
    let folder = folder::quick();
    let (a, b) = (sqlite(folder.path()).await, sqlite(folder.path()).await);
    race(&a, &b).await;
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn two_replicas_run_each_slot_once_on_postgresql() {
    let Some(server) = postgres::shared() else { return };
    let url = server.database();
    let (a, b) = (postgresql(&url).await, postgresql(&url).await);
    race(&a, &b).await;
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn slots_that_were_missed_are_caught_up_once() {
    let (store, clock) = (Store::memory(), Clock::manual(START));
    let jobs = table(|parts| Box::pin(work(parts)));
    let mut first = Process::new(jobs, "*/10 * * * *", &store, &clock);
    first.settle().await;
    drop(first);
    clock.advance(3 * 24 * 60 * MINUTE + 5 * MINUTE);
    let mut second = Process::new(jobs, "*/10 * * * *", &store, &clock);
    second.settle().await;
    assert_eq!(worked(&store).await, 2, "three days were missed, and one run makes up for them");
    let last = runs(&store).await.remove(0);
    assert_eq!(last.scheduled_for, START.plus(3 * 24 * 60 * MINUTE), "for the newest slot");
    assert_eq!(last.started_at, clock.now().wall);
    clock.advance(4 * MINUTE);
    second.settle().await;
    assert_eq!(worked(&store).await, 2, "not before the next slot");
    clock.advance(MINUTE);
    second.settle().await;
    assert_eq!(worked(&store).await, 3);
}

#[tokio::test]
async fn a_job_that_is_off_is_not_run() {
    let (store, clock) = (Store::memory(), Clock::manual(START));
    let mut process = Process::new(table(|parts| Box::pin(work(parts))), "off", &store, &clock);
    for _ in 0..3 {
        process.settle().await;
        clock.advance(60 * MINUTE);
    }
    assert_eq!(runs(&store).await, []);
}

/// A run that a process began and never finished.
async fn crashed(store: &Store, slot: Timestamp) -> NewJobRun {
    let random = Clock::system().random();
    let run = NewJobRun {
        id: JobRunId::mint(slot, random),
        job: NAME.to_owned(),
        scheduled_for: slot,
        at: slot,
        lease_until: slot.plus(2 * MINUTE),
    };
    assert_eq!(store.begin_job(run.clone(), Effects::default()).await, Ok(BeginJob::Began(run.id)));
    run
}

#[tokio::test]
async fn a_run_whose_process_died_is_seen_and_its_slot_is_run_again_while_it_is_the_newest() {
    let (store, clock) = (Store::memory(), Clock::manual(START));
    crashed(&store, START).await;
    let mut process = Process::new(table(|parts| Box::pin(work(parts))), "0 * * * *", &store, &clock);
    clock.advance(2 * MINUTE - Duration::from_millis(1));
    process.settle().await;
    assert_eq!(worked(&store).await, 0, "it may still be at work");
    clock.advance(Duration::from_millis(1));
    process.settle().await;
    let [run] = &runs(&store).await[..] else { panic!("one slot") };
    assert_eq!((run.attempts, run.outcome, run.scheduled_for), (2, Some(JobOutcome::Done), START));
    assert_eq!((worked(&store).await, audited(&store).await), (1, vec![LOST.to_owned()]));
    assert_eq!((process.counted("lost"), process.counted("done")), (1, 1));
}

#[tokio::test]
async fn a_run_that_was_lost_in_an_older_slot_is_written_down_as_failed_once() {
    let folder = folder::quick();
    let (a, b) = (sqlite(folder.path()).await, sqlite(folder.path()).await);
    let clock = Clock::manual(START);
    crashed(&a, START).await;
    clock.advance(60 * MINUTE);
    let jobs = table(|parts| Box::pin(work(parts)));
    let mut processes = [&a, &b].map(|store| Process::new(jobs, "0 * * * *", store, &clock));
    let [one, other] = &mut processes;
    tokio::join!(one.settle(), other.settle());
    let [new, old] = &runs(&a).await[..] else { panic!("two slots") };
    assert_eq!((new.outcome, new.attempts), (Some(JobOutcome::Done), 1));
    assert_eq!((old.outcome, old.error.as_deref(), old.attempts), (Some(JobOutcome::Failed), Some(LOST), 1));
    assert_eq!(old.finished_at, Some(clock.now().wall));
    assert_eq!(audited(&b).await, [LOST], "both saw it, one said so");
    assert_eq!(processes.iter().map(|process| process.counted("lost")).sum::<u64>(), 1);
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn an_error_and_a_panic_are_written_down_audited_and_counted_and_the_schedule_goes_on() {
    let (store, clock) = (Store::memory(), Clock::manual(START));
    let huge = |_| -> futures_util::future::BoxFuture<'static, Outcome> {
        Box::pin(async { Err(format!("a neighbour said: {}", "\u{fc}\0".repeat(1_000_000))) })
    };
    let mut process = Process::new(table(huge), "* * * * *", &store, &clock);
    process.settle().await;
    let run = runs(&store).await.remove(0);
    assert_eq!((run.outcome, run.attempts), (Some(JobOutcome::Failed), 1));
    let error = run.error.unwrap();
    assert!(error.starts_with("a neighbour said: \u{fc}") && error.len() <= 500, "{} bytes", error.len());
    assert!(audited(&store).await[0].len() <= 500);
    process.settle().await;
    assert_eq!(process.counted("failed"), 1, "a failed slot is over; the next one tries again");

    clock.advance(MINUTE);
    let panics = |_| -> futures_util::future::BoxFuture<'static, Outcome> { panic!("before its future was made") };
    Process::new(table(panics), "* * * * *", &store, &clock).settle().await;
    clock.advance(MINUTE);
    let mut later =
        Process::new(table(|_| Box::pin(async { panic!("in the middle {}", 7) })), "* * * * *", &store, &clock);
    later.settle().await;
    let errors: Vec<_> = runs(&store).await.into_iter().filter_map(|run| run.error).take(2).collect();
    assert_eq!(errors, ["panicked: in the middle 7", "panicked: before its future was made"]);
    assert_eq!(audited(&store).await.len(), 3);
    clock.advance(MINUTE);
    later.settle().await;
    assert_eq!((later.counted("failed"), runs(&store).await.len()), (2, 4));
    assert!(!later.metrics.render().contains("doorward_job_last_success_timestamp_seconds{"));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_hangs_is_cut_off_at_its_limit_and_soon_after_its_process_was_told_to_stop() {
    let (store, clock) = (Store::memory(), Clock::manual(START));
    let jobs = table(|_| Box::pin(std::future::pending()));
    let mut process = Process::new(jobs, "* * * * *", &store, &clock);
    process.settle().await; // the timer of the limit is tokio's, whose time passes by itself here
    assert_eq!(runs(&store).await[0].error.as_deref(), Some("did not end within 60 s"));
    clock.advance(MINUTE);
    process.look();
    process.stop.cancel();
    process.scheduler.ended().await;
    assert_eq!(runs(&store).await[0].error.as_deref(), Some("cut off: its process was told to stop"));
}

static GO_ON: Notify = Notify::const_new();

#[tokio::test]
async fn a_run_longer_than_its_interval_is_not_doubled_and_slots_meanwhile_are_caught_up_once() {
    let folder = folder::quick();
    let (a, b) = (sqlite(folder.path()).await, sqlite(folder.path()).await);
    let clock = Clock::manual(START);
    let slow = table(|parts| {
        Box::pin(async {
            GO_ON.notified().await;
            work(parts).await
        })
    });
    let mut one = Process::new(slow, "* * * * *", &a, &clock);
    let mut other = Process::new(table(|parts| Box::pin(work(parts))), "* * * * *", &b, &clock);
    one.look();
    while runs(&b).await.is_empty() {
        tokio::task::yield_now().await;
    }
    // The lease is the limit and a minute more: two.
    clock.advance(MINUTE);
    one.look();
    other.settle().await;
    assert_eq!(runs(&b).await.len(), 1, "neither process begins a second one");
    clock.advance(Duration::from_secs(59));
    other.settle().await;
    assert_eq!((runs(&b).await.len(), worked(&b).await), (1, 0));
    GO_ON.notify_one();
    one.scheduler.ended().await;
    other.settle().await;
    assert_eq!((runs(&b).await.len(), worked(&b).await), (2, 2));
    clock.advance(MINUTE);
    other.settle().await;
    assert_eq!((runs(&b).await.len(), worked(&b).await), (3, 3), "and so on, minute by minute");
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn a_clock_that_jumps_runs_no_slot_twice_and_stops_no_schedule() {
    let (store, clock) = (Store::memory(), Clock::manual(START));
    let mut process = Process::new(table(|parts| Box::pin(work(parts))), "* * * * *", &store, &clock);
    let day = 24 * 60 * MINUTE;
    for (jump_to, expected) in [
        (START, 1),
        (START.plus(day), 2),
        (START, 2),
        (START.plus(MINUTE), 3),
        (START.minus(day), 4),
        (START.plus(MINUTE), 4),
        (START.plus(day), 4),
        (START.plus(day).plus(MINUTE), 5),
        (Timestamp::EPOCH, 6),
    ] {
        clock.set_wall(jump_to);
        process.settle().await;
        assert_eq!(worked(&store).await, expected, "at {jump_to:?}");
    }
    let runs = runs(&store).await;
    assert!(runs.iter().all(|run| run.attempts == 1 && run.outcome == Some(JobOutcome::Done)));
    assert_eq!(runs.len(), 6);
}

static DATABASE_DIED: Notify = Notify::const_new();

#[tokio::test]
async fn a_database_that_dies_in_the_middle_of_a_run_hears_of_its_end_when_it_is_back() {
    let Some(database) = postgres::own(Fsync::Off) else { return };
    let store = postgresql(&database.database()).await;
    let clock = Clock::manual(START);
    let jobs = table(|_| {
        Box::pin(async {
            DATABASE_DIED.notified().await;
            Ok("worked".to_owned())
        })
    });
    let parts = Parts::without_server(&store, &config("* * * * *"), &clock).unwrap();
    let running = tokio::spawn(execute(&jobs[0], parts, START, Effects::default(), std::future::pending()));
    while runs(&store).await.is_empty() {
        tokio::task::yield_now().await;
    }
    database.crash();
    DATABASE_DIED.notify_one();
    while store.ping().await.is_ok() {
        tokio::task::yield_now().await;
    }
    database.revive();
    let ran = tokio::time::timeout(MINUTE, running).await.unwrap().unwrap().unwrap();
    assert!(matches!(ran, Ran::Ended { outcome: Ok(_), .. }), "{ran:?}");
    let [run] = &runs(&store).await[..] else { panic!("one run") };
    assert_eq!((run.outcome, run.attempts), (Some(JobOutcome::Done), 1));
    store.close().await;
}

#[tokio::test]
async fn a_run_that_outlived_its_lease_cannot_write_over_the_one_that_took_its_place() {
    let (store, clock) = (Store::memory(), Clock::manual(START));
    static GO_ON: Notify = Notify::const_new();
    let jobs = table(|_| {
        Box::pin(async {
            GO_ON.notified().await;
            Err("late".to_owned())
        })
    });
    let parts = Parts::without_server(&store, &config("* * * * *"), &clock).unwrap();
    let running = tokio::spawn(execute(&jobs[0], parts, START, Effects::default(), std::future::pending()));
    while runs(&store).await.is_empty() {
        tokio::task::yield_now().await;
    }
    // A machine that was suspended: the wall clock went on, the run did not.
    clock.set_wall(START.plus(2 * MINUTE));
    let mut other = Process::new(table(|parts| Box::pin(work(parts))), "0 * * * *", &store, &clock);
    other.settle().await;
    GO_ON.notify_one();
    assert_eq!(running.await.unwrap(), Ok(Ran::Late(Err("late".to_owned()))));
    let [run] = &runs(&store).await[..] else { panic!("one slot") };
    assert_eq!((run.outcome, run.attempts), (Some(JobOutcome::Done), 2));
}
