//! `jobs`: what Doorward does by itself, when, and how it went.

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use doorward_core::{effects::Effects, time::Timestamp};
use doorward_gate::clock::Clock;
use doorward_store::{JobOutcome, JobRun, Store};
use serde_json::{Value, json};

use super::{Failure, Out, output::time};
use crate::{
    config::Config,
    http::session::rfc3339,
    jobs::{
        parts::Parts,
        run::{Ran, execute},
        schedule::last_success,
        table::{JOBS, Job, find},
    },
    lifecycle,
};

/// What Doorward does by itself.
#[derive(Debug, Subcommand)]
pub enum Jobs {
    /// List the jobs with their schedule and last run; with a name, the runs of one job, the newest first.
    List(List),
    /// Run a job now, beside a running server or without one.
    ///
    /// The run is written down like any other. Exit code 1 if it fails, or if the job is being run by somebody else.
    Run(Run),
}

/// List jobs or runs.
#[derive(Debug, Args)]
pub struct List {
    /// Only this job, with its runs.
    #[arg(value_name = "NAME", value_parser = names())]
    name: Option<String>,
    /// How many runs.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
}

/// Run a job now.
#[derive(Debug, Args)]
pub struct Run {
    /// Which one.
    #[arg(value_name = "NAME", value_parser = names())]
    name: String,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(JOBS.iter().map(|job| job.name))
}

impl Jobs {
    pub(super) async fn run(
        &self,
        store: &Store,
        config: &Config,
        clock: &Clock,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        match self {
            Self::List(List { name: None, .. }) => list(store, config, clock.now().wall, out).await,
            Self::List(List { name: Some(name), count }) => runs(store, name, *count, clock.now().wall, out).await,
            Self::Run(run) => {
                // The parser lets no other name through.
                let job = find(&run.name).ok_or_else(|| Failure::Wrong(format!("there is no job `{}`", run.name)))?;
                lifecycle::check_root(config, store).await?;
                run_now(job, Parts::without_server(store, config, clock)?, out).await
            }
        }
    }
}

/// How many runs are looked at for the last good one.
const LOOKED_AT: u32 = 50;

async fn list(store: &Store, config: &Config, now: Timestamp, out: &mut Out<'_>) -> Result<(), Failure> {
    let (mut rows, mut shown) = (Vec::new(), Vec::new());
    let jobs = config.effective_jobs(false, false);
    for job in JOBS {
        let when = (job.when)(&jobs);
        let next = when.0.as_ref().and_then(|schedule| schedule.next(now));
        let runs = store.job_runs(Some(job.name.to_owned()), LOOKED_AT).await?;
        // By its beginning: the run of a command stands between two slots, and a clock may have been set back.
        let last = runs.iter().max_by_key(|run| run.started_at);
        let success = last_success(&runs);
        rows.push(vec![
            job.name.to_owned(),
            when.to_string(),
            next.map_or_else(|| "never".to_owned(), time),
            last.map_or_else(|| "never".to_owned(), |run| time(run.started_at)),
            last.map_or("-", |run| state(run, now)).to_owned(),
            success.map_or_else(|| "never".to_owned(), time),
            last.and_then(|run| run.error.clone()).unwrap_or_default(),
        ]);
        shown.push(json!({
            "name": job.name,
            "schedule": when.to_string(),
            "next": next.map(rfc3339),
            "last_run": last.map(|run| shown_run(run, now)),
            "last_success": success.map(rfc3339),
        }));
    }
    if out.json {
        return out.json(&shown);
    }
    out.table(&["NAME", "SCHEDULE (UTC)", "NEXT", "LAST RUN", "OUTCOME", "LAST SUCCESS", "ERROR"], &rows)
}

async fn runs(store: &Store, name: &str, count: u16, now: Timestamp, out: &mut Out<'_>) -> Result<(), Failure> {
    let runs = store.job_runs(Some(name.to_owned()), u32::from(count)).await?;
    if out.json {
        return out.json(&runs.iter().map(|run| shown_run(run, now)).collect::<Vec<_>>());
    }
    if runs.is_empty() {
        return out.line(format!("`{name}` was never run"));
    }
    let rows = runs.iter().map(|run| {
        vec![
            time(run.scheduled_for),
            time(run.started_at),
            run.finished_at.map_or_else(|| "-".to_owned(), time),
            run.attempts.to_string(),
            state(run, now).to_owned(),
            run.error.clone().unwrap_or_default(),
        ]
    });
    out.table(&["FOR", "STARTED", "FINISHED", "ATTEMPTS", "OUTCOME", "ERROR"], &rows.collect::<Vec<_>>())
}

/// `done`, `failed`, `running`; `lost`: its process ended without a word.
fn state(run: &JobRun, now: Timestamp) -> &'static str {
    match run.outcome {
        Some(JobOutcome::Done) => "done",
        Some(JobOutcome::Failed) => "failed",
        None if run.lease_until > now => "running",
        None => "lost",
    }
}

fn shown_run(run: &JobRun, now: Timestamp) -> Value {
    json!({
        "id": run.id,
        "job": run.job,
        "scheduled_for": rfc3339(run.scheduled_for),
        "started_at": rfc3339(run.started_at),
        "finished_at": run.finished_at.map(rfc3339),
        "attempts": run.attempts,
        "outcome": state(run, now),
        "error": run.error,
    })
}

async fn run_now(job: &'static Job, parts: Parts, out: &mut Out<'_>) -> Result<(), Failure> {
    let now = parts.gate.clock().now().wall;
    // Between two slots of the schedule, which it neither takes nor holds up.
    let ran = execute(job, parts, now, Effects::default(), std::future::pending()).await?;
    let shown = |outcome: &str, text: &str| json!({ "job": job.name, "outcome": outcome, "text": text });
    match ran {
        Ran::Taken => Err(Failure::Failed(format!("`{}` is being run by somebody else; see `jobs list`", job.name))),
        Ran::Ended { outcome: Ok(done), .. } | Ran::Late(Ok(done)) => {
            out.say(&shown("done", &done), &format!("{}: {done}", job.name))
        }
        Ran::Ended { outcome: Err(error), .. } | Ran::Late(Err(error)) if out.json => {
            out.json(&shown("failed", &error))?;
            Err(Failure::Said(1))
        }
        Ran::Ended { outcome: Err(error), .. } | Ran::Late(Err(error)) => {
            Err(Failure::Failed(format!("{} failed: {error}", job.name)))
        }
    }
}
