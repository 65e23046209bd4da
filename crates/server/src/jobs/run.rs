//! One run of a job: begun in the store, done within its limit, written down however it ends.

use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

use doorward_core::{
    audit::{AuditEvent, EventKind},
    effects::Effects,
    id::JobRunId,
    time::Timestamp,
};
use doorward_store::{BeginJob, FinishJob, JobOutcome, JobRun, NewJobRun, Store, StoreError};
use futures_util::FutureExt as _;

use super::{
    parts::Parts,
    table::{Job, Outcome},
};

/// By how much a lease is longer than the limit of its job: for beginning, writing down, and clocks that differ.
const LEASE_MARGIN: Duration = Duration::from_secs(60);
/// Longest error text in the audit log, in bytes; the row of the run keeps as much.
const ERROR_MAX: usize = 500;
/// Attempts to write down how a run ended, while the store is away.
const FINISH_TRIES: u32 = 60;
/// Between two of them.
const FINISH_PAUSE: Duration = Duration::from_secs(1);

/// What became of an attempt to run a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// It ran, and this is written down.
    Ended {
        /// How it went.
        outcome: Outcome,
        /// When it ended.
        at: Timestamp,
        /// How long it took.
        took: Duration,
    },
    /// It ran, and somebody else had declared it dead meanwhile.
    Late(Outcome),
    /// Somebody else has this run or had it, or another run is under way.
    Taken,
}

/// Runs `job` for `scheduled_for`, unless somebody else does. `effects` are committed with the beginning.
///
/// `cut_off` ends the run early, with the words that say why.
///
/// # Errors
/// [`StoreError`] where the run could not be begun; or it ended and that could not be written down: it counts as lost
/// once its lease has ended.
pub(crate) async fn execute(
    job: &'static Job,
    parts: Parts,
    scheduled_for: Timestamp,
    effects: Effects,
    cut_off: impl Future<Output = &'static str>,
) -> Result<Ran, StoreError> {
    let (store, clock) = (parts.gate.store().clone(), parts.gate.clock().clone());
    let begin = clock.now();
    let run = NewJobRun {
        id: JobRunId::mint(begin.wall, clock.random()),
        job: job.name.to_owned(),
        scheduled_for,
        at: begin.wall,
        lease_until: begin.wall.plus(job.limit + LEASE_MARGIN),
    };
    let id = run.id;
    if store.begin_job(run, effects).await? == BeginJob::Taken {
        return Ok(Ran::Taken);
    }
    tracing::debug!(job = job.name, "job begins");
    let outcome = within_limits(job, parts, cut_off).await.map_err(shortened);
    let end = clock.now();
    match finish(&store, job.name, id, end.wall, &outcome).await? {
        FinishJob::Finished => {
            let took = end.mono.saturating_sub(begin.mono);
            match &outcome {
                Ok(done) => tracing::debug!(job = job.name, ?took, "{done}"),
                Err(error) => tracing::warn!(job = job.name, ?took, error, "a job failed"),
            }
            Ok(Ran::Ended { outcome, at: end.wall, took })
        }
        FinishJob::NotYours => {
            tracing::warn!(job = job.name, "a run outlived its lease, and somebody else took its place");
            Ok(Ran::Late(outcome))
        }
    }
}

async fn within_limits(job: &Job, parts: Parts, cut_off: impl Future<Output = &'static str>) -> Outcome {
    let work = AssertUnwindSafe(async { (job.run)(parts).await }).catch_unwind();
    tokio::select! {
        done = tokio::time::timeout(job.limit, work) => match done {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Err(format!("panicked: {}", words(&*panic))),
            Err(_) => Err(format!("did not end within {} s", job.limit.as_secs())),
        },
        why = cut_off => Err(why.to_owned()),
    }
}

/// Writes down how a run ended. A store that is away is waited for, at most a minute: less than the lease has left.
async fn finish(
    store: &Store,
    job: &'static str,
    id: JobRunId,
    at: Timestamp,
    outcome: &Outcome,
) -> Result<FinishJob, StoreError> {
    let mut left = FINISH_TRIES;
    loop {
        let (word, error, effects) = match outcome {
            Ok(_) => (JobOutcome::Done, None, Effects::default()),
            Err(error) => (JobOutcome::Failed, Some(error.clone()), failed(job, error, at)),
        };
        match store.finish_job(id, at, word, error, effects).await {
            Err(error) if left > 0 => {
                tracing::debug!(job, %error, "a run that ended is written down later");
                left -= 1;
                tokio::time::sleep(FINISH_PAUSE).await;
            }
            finished => return finished,
        }
    }
}

/// Declares a run dead whose holder did not say how it went before its lease ended. `NotYours`: it did after all, or
/// somebody else was faster.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn give_up(store: &Store, run: &JobRun, at: Timestamp) -> Result<FinishJob, StoreError> {
    let effects = failed(&run.job, LOST, at);
    store.finish_job(run.id, at, JobOutcome::Failed, Some(LOST.to_owned()), effects).await
}

/// What is written down for a run whose process ended, or lost the store, in the middle of it.
pub(crate) const LOST: &str = "lost: nobody said how it ended before its lease did";

/// What goes into the audit log for a run that failed.
pub(crate) fn failed(job: &str, error: &str, at: Timestamp) -> Effects {
    let mut event = AuditEvent::new(EventKind::JobFailed, at);
    event.detail.more.insert("job".into(), job.into());
    event.detail.more.insert("error".into(), error.into());
    Effects::audited(event)
}

fn shortened(mut error: String) -> String {
    error.truncate(error.floor_char_boundary(ERROR_MAX));
    error
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words")
}
