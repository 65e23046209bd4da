//! The schedule of one process: looks at the clock, and runs what is due and nobody else runs.
//!
//! A slot that passed while no process was up is run when one is up again, once for all that were missed. The store
//! decides who runs a slot; a process remembers only which slot it knows to be over.

use std::{sync::Arc, time::Duration};

use doorward_core::{effects::Effects, time::Timestamp};
use doorward_gate::{mail::outbox::Outbox, ring::Ring};
use doorward_store::{FinishJob, JobOutcome, JobRun, StoreError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    every,
    parts::Parts,
    run::{self, Ran},
    table::{JOBS, Job},
};
use crate::{
    config::Jobs,
    http::Server,
    telemetry::{
        Metrics,
        metrics::{JobLabels, NameLabel},
    },
};

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Looks that are skipped after one that settled nothing: somebody else runs the job, or the store is away.
const SKIPPED: u32 = 4;
/// How long a run that is under way may go on once the process is told to stop.
const GRACE: Duration = Duration::from_secs(3);
/// Runs of a job that are looked at for lost ones and for the last success.
const LOOKED_AT: u32 = 50;

/// The schedule of one process.
pub(crate) struct Scheduler {
    jobs: &'static [Job],
    metrics: Arc<Metrics>,
    /// The slot of each job that is known to be over.
    over: Vec<Option<Timestamp>>,
    /// Looks that each job still skips.
    skips: Vec<u32>,
    running: JoinSet<(usize, Timestamp, Result<Settled, StoreError>)>,
    busy: Vec<bool>,
}

/// What is known of a slot after it was attended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// It was run, by somebody.
    Over,
    /// Somebody else runs the job now.
    Elsewhere,
}

impl Scheduler {
    pub(crate) fn new(jobs: &'static [Job], metrics: Arc<Metrics>) -> Self {
        let count = jobs.len();
        Self {
            jobs,
            metrics,
            over: vec![None; count],
            skips: vec![0; count],
            running: JoinSet::new(),
            busy: vec![false; count],
        }
    }

    /// Begins what is due; `config` says when that is.
    pub(crate) fn look(&mut self, config: &Jobs, parts: &Parts, stop: &CancellationToken) {
        let now = parts.gate.clock().now().wall;
        for (index, job) in self.jobs.iter().enumerate() {
            let slot = (job.when)(config).0.as_ref().and_then(|schedule| schedule.last(now));
            let Some(slot) = slot.filter(|slot| self.over[index] != Some(*slot) && !self.busy[index]) else { continue };
            if self.skips[index] > 0 {
                self.skips[index] -= 1;
                continue;
            }
            self.busy[index] = true;
            let (metrics, parts, stop) = (Arc::clone(&self.metrics), parts.clone(), stop.clone());
            self.running.spawn(async move { (index, slot, attend(job, slot, parts, &metrics, stop).await) });
        }
    }

    /// Waits for a run that was begun and remembers how it went; for ever if there is none.
    pub(crate) async fn ended(&mut self) {
        let Some(ended) = self.running.join_next().await else { return std::future::pending().await };
        // A task that panicked outside its job cannot be told apart from others; nothing in it does.
        let Ok((index, slot, settled)) = ended else { return };
        self.busy[index] = false;
        match settled {
            Ok(Settled::Over) => self.over[index] = Some(slot),
            Ok(Settled::Elsewhere) => self.skips[index] = SKIPPED,
            Err(error) => {
                tracing::debug!(job = self.jobs[index].name, %error, "a job waits for the store");
                self.skips[index] = SKIPPED;
            }
        }
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }
}

/// Keeps the schedule until `stop`; then lets what is under way end.
pub(crate) async fn keep(server: Arc<Server>, ring: Ring, outbox: Option<Outbox>, stop: CancellationToken) {
    let mut scheduler = Scheduler::new(JOBS, Arc::clone(&server.metrics));
    let mut tick = every(LOOK);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = scheduler.ended() => {}
            _ = tick.tick() => {
                scheduler.look(&server.site().jobs, &Parts::of(&server, &ring, outbox.as_ref()), &stop);
            }
        }
    }
    while !scheduler.is_idle() {
        scheduler.ended().await;
    }
}

/// Finds out whether `slot` still has to be run, and runs it.
async fn attend(
    job: &'static Job,
    slot: Timestamp,
    parts: Parts,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<Settled, StoreError> {
    let store = parts.gate.store().clone();
    let now = parts.gate.clock().now().wall;
    let runs = store.job_runs(Some(job.name.to_owned()), LOOKED_AT).await?;
    if let Some(at) = last_success(&runs) {
        metrics.job_last_success.get_or_create(&label(job)).set(at.as_secs());
    }
    let is_lost = |run: &JobRun| run.finished_at.is_none() && run.lease_until <= now;
    for run in runs.iter().filter(|run| is_lost(run) && run.scheduled_for != slot) {
        if run::give_up(&store, run, now).await? == FinishJob::Finished {
            tracing::warn!(job = job.name, run = %run.id, "a run was lost");
            count(metrics, job, "lost");
        }
    }
    let this = runs.iter().find(|run| run.scheduled_for == slot);
    let effects = match this {
        Some(run) if run.finished_at.is_some() => return Ok(Settled::Over),
        Some(run) if is_lost(run) => run::failed(job.name, run::LOST, now),
        Some(_) => return Ok(Settled::Elsewhere),
        None => Effects::default(),
    };
    let cut_off = async move {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
        "cut off: its process was told to stop"
    };
    match run::execute(job, parts, slot, effects, cut_off).await? {
        Ran::Taken => return Ok(Settled::Elsewhere),
        Ran::Late(_) => {}
        Ran::Ended { outcome, at, took } => {
            metrics.job_duration.get_or_create(&label(job)).observe(took.as_secs_f64());
            if outcome.is_ok() {
                metrics.job_last_success.get_or_create(&label(job)).set(at.as_secs());
            }
            count(metrics, job, if outcome.is_ok() { "done" } else { "failed" });
        }
    }
    if this.is_some() {
        count(metrics, job, "lost");
    }
    Ok(Settled::Over)
}

/// When the newest of these runs ended that did what it is for.
pub(crate) fn last_success(runs: &[JobRun]) -> Option<Timestamp> {
    runs.iter().filter(|run| run.outcome == Some(JobOutcome::Done)).filter_map(|run| run.finished_at).max()
}

fn label(job: &Job) -> NameLabel {
    NameLabel { name: job.name.to_owned() }
}

fn count(metrics: &Metrics, job: &Job, outcome: &'static str) {
    metrics.job_runs.get_or_create(&JobLabels { name: job.name, outcome }).inc();
}
