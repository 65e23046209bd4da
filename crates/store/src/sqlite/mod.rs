//! SQLite on threads of its own: one that writes with group commit, a few that read.

mod connection;
mod queue;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use doorward_core::effects::Effects;
use futures_util::FutureExt as _;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use self::{
    connection::SqliteSql,
    queue::Queue,
    writer::{Message, WriteJob},
};
use crate::{
    Readiness, StoreConfigError, StoreOptions,
    chain::Chain,
    op::{Read, Write},
    sql::DbError,
};

/// Writes that wait for the writer; more callers wait to get in.
const WRITES: usize = 4096;

/// First and longest pause between attempts to open the file.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

type ReadJob = Box<dyn FnOnce(&mut Connection) + Send>;

/// The backend.
pub(crate) struct Sqlite {
    writes: mpsc::Sender<Message>,
    reads: Arc<Queue<ReadJob>>,
}

/// The file that `sqlite:FILE` names.
pub(crate) fn parse_path(rest: &str, options: &StoreOptions) -> Result<PathBuf, StoreConfigError> {
    let file = rest.strip_prefix("//").unwrap_or(rest);
    if file.is_empty() || file == ":memory:" || file.contains('\0') {
        return Err(StoreConfigError::NoFile);
    }
    Ok(options.data_dir.join(file))
}

impl Sqlite {
    /// Starts the threads; they open the file and say so through `ready`.
    pub(crate) fn open(path: PathBuf, options: &StoreOptions, ready: &watch::Sender<Readiness>) -> Self {
        let (writes, messages) = mpsc::channel(WRITES);
        let reads = Arc::new(Queue::new());
        let chain = Chain::new(&options.seed, 0);
        let count = options.readers.clamp(1, 64);
        let (queue, states) = (Arc::clone(&reads), ready.clone());
        let spawned = thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || serve(&path, count, messages, &queue, &states, chain));
        if let Err(error) = spawned {
            ready.send_replace(Readiness::Connecting { note: Some(format!("no thread for SQLite: {error}")) });
        }
        Self { writes, reads }
    }

    pub(crate) async fn read<O: Read>(&self, op: O) -> Result<O::Out, DbError> {
        let (reply, answer) = oneshot::channel();
        let job: ReadJob = Box::new(move |connection| {
            if reply.is_closed() {
                return;
            }
            let out = op.sql(&mut SqliteSql(connection)).now_or_never();
            reply.send(out.unwrap_or_else(|| Err(DbError::Fault("an operation waited".to_owned())))).ok();
        });
        self.reads.push(job).map_err(|_| DbError::Unavailable("too many reads wait".to_owned()))?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    pub(crate) async fn write<O: Write>(&self, op: O, effects: Effects) -> Result<O::Out, DbError> {
        let (reply, answer) = oneshot::channel();
        let job = Message::Run(Box::new(WriteJob { op, effects, reply, out: None }));
        self.writes.send(job).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Waits until the writer has answered everything before this and let the file go.
    pub(crate) async fn close(&self) {
        self.reads.close();
        let (done, waits) = oneshot::channel();
        if self.writes.send(Message::Close(done)).await.is_ok() {
            waits.await.ok(); // an error is the answer: the writer drops its end when the file is let go
        }
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.reads.close();
    }
}

fn closed() -> DbError {
    DbError::Unavailable("closed".to_owned())
}

/// The writer thread: opens, migrates, starts the readers, writes.
fn serve(
    path: &Path,
    readers: usize,
    messages: mpsc::Receiver<Message>,
    reads: &Arc<Queue<ReadJob>>,
    ready: &watch::Sender<Readiness>,
    chain: Chain,
) {
    let mut pause = PAUSE.0;
    let (mut connection, connections) = loop {
        if messages.is_closed() || *ready.borrow() == Readiness::Closed {
            return;
        }
        match open_all(path, readers) {
            Ok(opened) => break opened,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "the store cannot be opened; trying again");
                become_state(ready, Readiness::Connecting { note: Some(error.to_string()) });
            }
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE.1);
    };
    let readers: Vec<JoinHandle<()>> = connections.into_iter().filter_map(|one| reader(one, reads)).collect();
    become_state(ready, Readiness::Ready);
    let close = writer::run(&mut connection, messages, chain);
    reads.close();
    for reader in readers {
        reader.join().ok();
    }
    drop(connection); // the last one: writes the log back into the file
    drop(close);
}

fn reader(mut connection: Connection, reads: &Arc<Queue<ReadJob>>) -> Option<JoinHandle<()>> {
    let reads = Arc::clone(reads);
    let run = move || {
        while let Some(job) = reads.pop() {
            job(&mut connection);
        }
    };
    let spawned = thread::Builder::new().name("sqlite-reader".to_owned()).spawn(run);
    spawned.inspect_err(|error| tracing::warn!(%error, "no thread for a reader; the others do its work")).ok()
}

/// Moves on unless the store was closed meanwhile.
fn become_state(ready: &watch::Sender<Readiness>, state: Readiness) {
    ready.send_if_modified(|now| {
        let moves = *now != Readiness::Closed;
        if moves {
            *now = state;
        }
        moves
    });
}

fn open_all(path: &Path, readers: usize) -> Result<(Connection, Vec<Connection>), DbError> {
    let mut writer = connection::open_writer(path)?;
    connection::migrate(&mut writer)?;
    let readers = (0..readers).map(|_| connection::open_reader(path)).collect::<Result<_, _>>()?;
    Ok((writer, readers))
}
