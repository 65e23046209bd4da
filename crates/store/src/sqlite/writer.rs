//! The writer thread: group commit.
//!
//! One transaction holds every operation that is waiting, each in a savepoint of its own, and ends in one fsync;
//! nobody is answered before it. So a durable commit costs an operation its share of an fsync, and a failing
//! operation takes nobody else with it.

use doorward_core::effects::Effects;
use futures_util::FutureExt as _;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::connection::{SqliteSql, failed};
use crate::{
    chain::{Chain, write_effects},
    op::Write,
    sql::DbError,
};

/// Most operations in one transaction.
const BATCH: usize = 256;

/// What the writer thread is told.
pub(super) enum Message {
    /// Run an operation.
    Run(Box<dyn Job>),
    /// Finish: what was sent before is done, what comes later is refused.
    Close(oneshot::Sender<()>),
}

/// An operation on its way through a batch.
pub(super) trait Job: Send {
    /// Whether somebody still waits for it.
    fn is_wanted(&self) -> bool;
    /// Runs it, with its effects, inside its savepoint. Whether to keep what it did.
    fn run(&mut self, connection: &mut Connection, chain: &mut Chain) -> bool;
    /// Answers, after the commit; with `failure` if the batch was not committed.
    fn answer(self: Box<Self>, failure: Option<&DbError>);
}

/// [`Job`] of one kind of operation.
pub(super) struct WriteJob<O: Write> {
    pub(super) op: O,
    pub(super) effects: Effects,
    pub(super) reply: oneshot::Sender<Result<O::Out, DbError>>,
    pub(super) out: Option<Result<O::Out, DbError>>,
}

impl<O: Write> Job for WriteJob<O> {
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run(&mut self, connection: &mut Connection, chain: &mut Chain) -> bool {
        let run = async {
            let mut sql = SqliteSql(connection);
            let out = self.op.sql(&mut sql).await?;
            let commits = O::commits(&out);
            if commits {
                write_effects(&mut sql, chain, &self.effects).await?;
            }
            Ok((out, commits))
        };
        // Every answer of SqliteSql is ready at once, so the future never waits.
        let done = run.now_or_never().unwrap_or_else(|| Err(DbError::Fault("an operation waited".to_owned())));
        let keep = matches!(done, Ok((_, true)));
        self.out = Some(done.map(|(out, _)| out));
        keep
    }

    fn answer(self: Box<Self>, failure: Option<&DbError>) {
        let nothing = || Err(DbError::Fault("an operation did not run".to_owned()));
        let out = match failure {
            Some(error) => Err(error.clone()),
            None => self.out.unwrap_or_else(nothing),
        };
        self.reply.send(out).ok(); // nobody waits any more
    }
}

/// Runs until it is told to close, or every handle is gone. Gives back whom to tell that the file is let go.
pub(super) fn run(
    connection: &mut Connection,
    mut messages: mpsc::Receiver<Message>,
    mut chain: Chain,
) -> Option<oneshot::Sender<()>> {
    loop {
        let close = match messages.blocking_recv()? {
            Message::Close(done) => Some(done),
            Message::Run(job) => batch(connection, &mut messages, &mut chain, job),
        };
        if close.is_some() {
            return close; // whoever is still in the queue hears "closed"
        }
    }
}

/// Runs one batch, beginning with `first`. A request to close ends it and is given back.
fn batch(
    connection: &mut Connection,
    messages: &mut mpsc::Receiver<Message>,
    chain: &mut Chain,
    first: Box<dyn Job>,
) -> Option<oneshot::Sender<()>> {
    let mut close = None;
    let mut jobs = Vec::new();
    let before = chain.clone();
    let mut failure = begin(connection).err();
    let mut next = Some(first);
    while let Some(mut job) = next.take() {
        if job.is_wanted() {
            if failure.is_none() {
                failure = in_savepoint(connection, chain, job.as_mut()).err();
            }
            jobs.push(job);
        }
        if jobs.len() < BATCH {
            match messages.try_recv() {
                Ok(Message::Run(job)) => next = Some(job),
                Ok(Message::Close(done)) => close = Some(done),
                Err(_) => {} // nobody waits
            }
        }
    }
    if failure.is_none() {
        failure = connection.execute_batch("COMMIT").map_err(|error| failed(&error)).err();
    }
    if let Some(error) = &failure {
        tracing::warn!(operations = jobs.len(), %error, "a batch was not committed");
        if !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK").ok(); // on an error SQLite may have done it already
        }
        *chain = before;
    }
    for job in jobs {
        job.answer(failure.as_ref());
    }
    close
}

fn begin(connection: &Connection) -> Result<(), DbError> {
    // IMMEDIATE: waits for another process that writes, before anything was read.
    connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| failed(&error))
}

/// Runs a job in a savepoint. An error is the batch's: SQLite has given the whole transaction up.
fn in_savepoint(connection: &mut Connection, chain: &mut Chain, job: &mut dyn Job) -> Result<(), DbError> {
    let lost = |connection: &Connection| {
        if connection.is_autocommit() {
            return Err(DbError::Unavailable("SQLite gave up the transaction; the disk may be full".to_owned()));
        }
        Ok(())
    };
    step(connection, "SAVEPOINT op")?;
    let before = chain.clone();
    if job.run(connection, chain) {
        return step(connection, "RELEASE op");
    }
    *chain = before;
    lost(connection)?;
    step(connection, "ROLLBACK TO op")?;
    step(connection, "RELEASE op")
}

fn step(connection: &Connection, text: &str) -> Result<(), DbError> {
    connection.prepare_cached(text).and_then(|mut step| step.execute([])).map(drop).map_err(|error| failed(&error))
}
