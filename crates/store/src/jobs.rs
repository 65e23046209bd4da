//! Runs of jobs: one row each, begun by one process.

use doorward_core::{effects::Effects, id::JobRunId, time::Timestamp};

use crate::{
    Store, StoreError,
    memory::Tables,
    op::{Read, Write},
    sql::{Cell, DbError, FromCell, Lock, Row, Sql, all, one, statements, values},
    store::page,
};

/// Longest error text that is kept, in bytes.
const ERROR_MAX: usize = 500;

/// A run of a job that is about to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJobRun {
    /// Its id.
    pub id: JobRunId,
    /// Name of the job.
    pub job: String,
    /// The moment of the schedule that it is for; one run each.
    pub scheduled_for: Timestamp,
    /// When it begins.
    pub at: Timestamp,
    /// Until when it is this process's; an unfinished run may be begun again afterwards.
    pub lease_until: Timestamp,
}

/// Outcome of `begin_job`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeginJob {
    /// The run is this caller's until its lease ends.
    Began(JobRunId),
    /// Somebody else has it or had it, or another run of the job is under way; nothing was changed.
    Taken,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// It did what it is for.
    Done,
    /// It did not.
    Failed,
}

/// Outcome of `finish_job`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishJob {
    /// Written down.
    Finished,
    /// The run is no longer this caller's, or finished; nothing was changed.
    NotYours,
}

/// A run of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRun {
    /// Its id; another one when it was begun again.
    pub id: JobRunId,
    /// Name of the job.
    pub job: String,
    /// The moment of the schedule that it is for.
    pub scheduled_for: Timestamp,
    /// When it last began.
    pub started_at: Timestamp,
    /// Until when its holder has it.
    pub lease_until: Timestamp,
    /// How often it was begun.
    pub attempts: u32,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<JobOutcome>,
    /// What went wrong.
    pub error: Option<String>,
}

/// The columns of a run, in the order of [`read_run`].
macro_rules! run_columns {
    () => {
        "id, job, scheduled_for, started_at, lease_until, attempts, finished_at, outcome, error"
    };
}

statements! {
    // A run that nobody finished before its lease ended is begun again, under another id: its first holder cannot
    // finish it any more.
    BEGIN_JOB = "INSERT INTO job_runs (id, job, scheduled_for, started_at, lease_until, attempts) \
        VALUES ($1, $2, $3, $4, $5, 1) \
        ON CONFLICT (job, scheduled_for) DO UPDATE SET id = excluded.id, started_at = excluded.started_at, \
        lease_until = excluded.lease_until, attempts = job_runs.attempts + 1 \
        WHERE job_runs.finished_at IS NULL AND job_runs.lease_until <= excluded.started_at",
    OTHER_RUN = "SELECT id FROM job_runs WHERE job = $1 AND scheduled_for <> $2 AND finished_at IS NULL \
        AND lease_until > $3 LIMIT 1",
    FINISH_JOB = "UPDATE job_runs SET finished_at = $2, outcome = $3, error = $4 \
        WHERE id = $1 AND finished_at IS NULL",
    RUNS = concat!("SELECT ", run_columns!(), " FROM job_runs ORDER BY started_at DESC, id DESC LIMIT $1"),
    RUNS_OF = concat!("SELECT ", run_columns!(), " FROM job_runs WHERE job = $1 \
        ORDER BY scheduled_for DESC LIMIT $2"),
}

const fn outcome_word(outcome: JobOutcome) -> &'static str {
    match outcome {
        JobOutcome::Done => "done",
        JobOutcome::Failed => "failed",
    }
}

impl FromCell for JobOutcome {
    fn from_cell(cell: Cell) -> Option<Self> {
        let word = String::from_cell(cell)?;
        [Self::Done, Self::Failed].into_iter().find(|&outcome| outcome_word(outcome) == word)
    }
}

fn read_run(row: &mut Row) -> Result<JobRun, DbError> {
    Ok(JobRun {
        id: row.column()?,
        job: row.column()?,
        scheduled_for: row.column()?,
        started_at: row.column()?,
        lease_until: row.column()?,
        attempts: row.column()?,
        finished_at: row.optional()?,
        outcome: row.optional()?,
        error: row.optional()?,
    })
}

impl Store {
    /// Begins the run of a job that its schedule has at `scheduled_for`. Of any number of processes one gets `Began`;
    /// another one may begin it again once the lease has ended without an outcome. Never while another run of the job
    /// is under way, so a job that takes longer than its schedule has it is not doubled.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_job(&self, run: NewJobRun, effects: Effects) -> Result<BeginJob, StoreError> {
        self.write(Start { run }, effects).await
    }

    /// Writes down how a run ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn finish_job(
        &self,
        id: JobRunId,
        at: Timestamp,
        outcome: JobOutcome,
        error: Option<String>,
        effects: Effects,
    ) -> Result<FinishJob, StoreError> {
        let error = error.map(|mut text| {
            text.truncate(text.floor_char_boundary(ERROR_MAX));
            text.retain(|c| c != '\0'); // PostgreSQL's TEXT holds no NUL
            text
        });
        self.write(Finish { id, at, outcome, error }, effects).await
    }

    /// Runs of one job, in the order of its schedule, or of all jobs, as they began; newest first; 1,000 at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_runs(&self, job: Option<String>, limit: u32) -> Result<Vec<JobRun>, StoreError> {
        self.read(Runs { job, limit: page(limit) }).await
    }

    /// The run of this job that its schedule had last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn last_run(&self, job: String) -> Result<Option<JobRun>, StoreError> {
        Ok(self.job_runs(Some(job), 1).await?.pop())
    }
}

struct Start {
    run: NewJobRun,
}

impl Write for Start {
    type Out = BeginJob;
    const NAME: &'static str = "begin_job";

    fn commits(out: &BeginJob) -> bool {
        matches!(out, BeginJob::Began(_))
    }

    fn memory(&self, tables: &mut Tables) -> Result<BeginJob, DbError> {
        let NewJobRun { id, job, scheduled_for, at, lease_until } = &self.run;
        let same = |run: &&mut JobRun| run.job == *job && run.scheduled_for == *scheduled_for;
        if tables.job_runs.iter().any(|run| run.id == *id) {
            return Err(DbError::Fault("job_runs.id is not unique".to_owned()));
        }
        let is_under_way = |run: &JobRun| run.finished_at.is_none() && run.lease_until > *at;
        if tables.job_runs.iter().any(|run| run.job == *job && run.scheduled_for != *scheduled_for && is_under_way(run))
        {
            return Ok(BeginJob::Taken);
        }
        match tables.job_runs.iter_mut().find(same) {
            Some(run) if run.finished_at.is_some() || run.lease_until > *at => return Ok(BeginJob::Taken),
            Some(run) => {
                (run.id, run.started_at, run.lease_until) = (*id, *at, *lease_until);
                run.attempts += 1;
            }
            None => tables.job_runs.push(JobRun {
                id: *id,
                job: job.clone(),
                scheduled_for: *scheduled_for,
                started_at: *at,
                lease_until: *lease_until,
                attempts: 1,
                finished_at: None,
                outcome: None,
                error: None,
            }),
        }
        Ok(BeginJob::Began(*id))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<BeginJob, DbError> {
        let NewJobRun { id, job, scheduled_for, at, lease_until } = &self.run;
        sql.lock(Lock::Jobs).await?;
        if one(sql, &OTHER_RUN, values![job.as_str(), *scheduled_for, *at]).await?.is_some() {
            return Ok(BeginJob::Taken);
        }
        let touched = sql.execute(&BEGIN_JOB, values![*id, job.as_str(), *scheduled_for, *at, *lease_until]).await?;
        Ok(if touched == 1 { BeginJob::Began(*id) } else { BeginJob::Taken })
    }
}

struct Finish {
    id: JobRunId,
    at: Timestamp,
    outcome: JobOutcome,
    error: Option<String>,
}

impl Write for Finish {
    type Out = FinishJob;
    const NAME: &'static str = "finish_job";

    fn commits(out: &FinishJob) -> bool {
        *out == FinishJob::Finished
    }

    fn memory(&self, tables: &mut Tables) -> Result<FinishJob, DbError> {
        let mine = |run: &&mut JobRun| run.id == self.id && run.finished_at.is_none();
        let Some(run) = tables.job_runs.iter_mut().find(mine) else { return Ok(FinishJob::NotYours) };
        run.finished_at = Some(self.at);
        run.outcome = Some(self.outcome);
        run.error.clone_from(&self.error);
        Ok(FinishJob::Finished)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<FinishJob, DbError> {
        let values = values![self.id, self.at, outcome_word(self.outcome), self.error.as_deref()];
        let touched = sql.execute(&FINISH_JOB, values).await?;
        Ok(if touched == 1 { FinishJob::Finished } else { FinishJob::NotYours })
    }
}

struct Runs {
    job: Option<String>,
    limit: i64,
}

impl Read for Runs {
    type Out = Vec<JobRun>;
    const NAME: &'static str = "job_runs";

    fn memory(&self, tables: &Tables) -> Result<Vec<JobRun>, DbError> {
        let wanted = |run: &&JobRun| self.job.as_ref().is_none_or(|job| run.job == *job);
        let mut runs: Vec<JobRun> = tables.job_runs.iter().filter(wanted).cloned().collect();
        match self.job {
            None => runs.sort_by_key(|run| std::cmp::Reverse((run.started_at, run.id))),
            Some(_) => runs.sort_by_key(|run| std::cmp::Reverse(run.scheduled_for)),
        }
        runs.truncate(usize::try_from(self.limit).unwrap_or(0));
        Ok(runs)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<JobRun>, DbError> {
        let rows = match &self.job {
            None => sql.rows(&RUNS, values![self.limit]).await?,
            Some(job) => sql.rows(&RUNS_OF, values![job.as_str(), self.limit]).await?,
        };
        all(rows, read_run)
    }
}
