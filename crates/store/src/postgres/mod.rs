//! PostgreSQL: a few pipelined connections that read, a pool of others that write.
//!
//! Each writing connection is an audit writer with a chain of its own, so transactions do not queue behind one head,
//! and a chain whose last commit is in doubt ends with its connection.

mod connect;
mod connection;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use doorward_core::effects::Effects;
use futures_util::future::{join, select_all, try_join_all};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::timeout,
};

use self::{
    connect::Target,
    connection::{Connection, PgSql, failed, is_rolled_back},
};
use crate::{
    Readiness, StoreConfigError, StoreOptions,
    chain::{Chain, write_effects},
    op::{Read, Write},
    sql::DbError,
};

/// First and longest pause between attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How often an operation is tried again when it got in the way of another one.
const TRIES: u32 = 5;

/// The backend.
pub(crate) struct Postgres {
    shared: Arc<Shared>,
    supervisor: JoinHandle<()>,
}

struct Shared {
    target: Target,
    seed: [u8; 32],
    deadline: Duration,
    readers: Mutex<Arc<[Arc<Connection>]>>,
    next_reader: AtomicUsize,
    lanes: Mutex<Vec<Lane>>,
    next_lane: AtomicU64,
    permits: Semaphore,
    writers: usize,
}

/// A connection that writes, and its audit chain.
struct Lane {
    connection: Connection,
    chain: Chain,
}

impl Postgres {
    /// Starts the task that connects, migrates and watches the connections.
    pub(crate) fn open(
        url: &str,
        options: &StoreOptions,
        ready: watch::Sender<Readiness>,
    ) -> Result<Self, StoreConfigError> {
        let writers = options.writers.clamp(1, 256);
        let shared = Arc::new(Shared {
            target: connect::parse_url(url)?,
            seed: options.seed,
            deadline: options.deadline,
            readers: Mutex::new(Arc::new([])),
            next_reader: AtomicUsize::new(0),
            lanes: Mutex::new(Vec::new()),
            next_lane: AtomicU64::new(0),
            permits: Semaphore::new(writers),
            writers,
        });
        let supervisor = tokio::spawn(supervise(Arc::clone(&shared), options.readers.clamp(1, 64), ready));
        Ok(Self { shared, supervisor })
    }

    pub(crate) async fn read<O: Read>(&self, op: O) -> Result<O::Out, DbError> {
        let readers = Arc::clone(&self.shared.readers.lock().unwrap_or_else(PoisonError::into_inner));
        let turn = self.shared.next_reader.fetch_add(1, Ordering::Relaxed);
        let Some(reader) = readers.get(turn % readers.len().max(1)) else {
            return Err(DbError::Unavailable("not connected".to_owned()));
        };
        op.sql(&mut PgSql(reader)).await
    }

    /// Runs in a task of its own: a caller that goes away leaves no half-used connection behind.
    pub(crate) async fn write<O: Write>(&self, op: O, effects: Effects) -> Result<O::Out, DbError> {
        let shared = Arc::clone(&self.shared);
        let run = tokio::spawn(async move {
            let deadline = shared.deadline;
            timeout(deadline, shared.write(op, effects)).await
        });
        match run.await {
            Ok(Ok(out)) => out,
            Ok(Err(_)) => Err(DbError::CommitLost("no answer in time".to_owned())),
            Err(error) => Err(DbError::Fault(format!("the task of an operation ended: {error}"))),
        }
    }

    /// Waits until every operation that was accepted is done, then lets the connections go.
    pub(crate) async fn close(&self) {
        self.supervisor.abort();
        let all = u32::try_from(self.shared.writers).unwrap_or(u32::MAX);
        let _done = timeout(self.shared.deadline, self.shared.permits.acquire_many(all)).await;
        self.shared.permits.close();
        self.shared.lanes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.shared.readers.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new([]);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Shared {
    async fn write<O: Write>(&self, op: O, effects: Effects) -> Result<O::Out, DbError> {
        let closed = |_| DbError::Unavailable("closed".to_owned());
        let _permit = self.permits.acquire().await.map_err(closed)?;
        let mut tries = 0;
        loop {
            tries += 1;
            // A lane that is dropped on the way, by an error or a deadline, closes its connection; the server rolls back.
            let mut lane = self.take_lane().await?;
            match lane.transaction(&op, &effects).await {
                Ok(out) => {
                    self.give_lane(lane);
                    return Ok(out);
                }
                Err(DbError::Conflict(note)) => {
                    self.give_lane(lane);
                    if tries >= TRIES {
                        return Err(DbError::Conflict(note));
                    }
                }
                Err(DbError::Fault(note)) => {
                    self.give_lane(lane);
                    return Err(DbError::Fault(note));
                }
                Err(error @ (DbError::Unavailable(_) | DbError::CommitLost(_))) => return Err(error),
            }
        }
    }

    async fn take_lane(&self) -> Result<Lane, DbError> {
        loop {
            let idle = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(lane) if lane.connection.client.is_closed() => {} // the server went away meanwhile
                Some(lane) => return Ok(lane),
                None => break,
            }
        }
        let client = self.target.connect(self.deadline).await?;
        connect::check_writable(&client).await?;
        let number = self.next_lane.fetch_add(1, Ordering::Relaxed);
        Ok(Lane { connection: Connection::new(client), chain: Chain::new(&self.seed, number) })
    }

    fn give_lane(&self, lane: Lane) {
        if !lane.connection.client.is_closed() {
            self.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
        }
    }
}

impl Lane {
    /// One transaction. After `Conflict` and `Fault` it is rolled back and the lane can be used again.
    async fn transaction<O: Write>(&mut self, op: &O, effects: &Effects) -> Result<O::Out, DbError> {
        let client = &self.connection.client;
        let before = self.chain.clone();
        let mut sql = PgSql(&self.connection);
        let done = async {
            let out = op.sql(&mut sql).await?;
            let commits = O::commits(&out);
            if commits {
                write_effects(&mut sql, &mut self.chain, effects).await?;
            }
            Ok((out, commits))
        };
        // Sent together; without the first, nothing of the second can write (see `connect::session`).
        let (begun, done) = join(client.batch_execute("BEGIN READ WRITE"), done).await;
        if let Err(error) = begun {
            self.chain = before;
            // Such as a standby, which begins nothing that writes. The lane is not used again: the next may lead elsewhere.
            return Err(DbError::Unavailable(failed(&error).to_string()));
        }
        match done {
            Ok((out, true)) => match client.batch_execute("COMMIT").await {
                Ok(()) => Ok(out),
                Err(error) if is_rolled_back(&error) => {
                    self.chain = before;
                    Err(failed(&error))
                }
                Err(error) => Err(DbError::CommitLost(failed(&error).to_string())),
            },
            Ok((out, false)) => {
                client.batch_execute("ROLLBACK").await.map_err(|error| failed(&error))?;
                Ok(out)
            }
            Err(error) => {
                self.chain = before;
                client.batch_execute("ROLLBACK").await.map_err(|error| failed(&error))?;
                Err(error)
            }
        }
    }
}

/// Connects, migrates, and does it again whenever a reading connection ends.
async fn supervise(shared: Arc<Shared>, readers: usize, ready: watch::Sender<Readiness>) {
    let mut pause = PAUSE.0;
    loop {
        match connect_all(&shared, readers).await {
            Ok((connections, gone)) => {
                *shared.readers.lock().unwrap_or_else(PoisonError::into_inner) = connections;
                if !become_state(&ready, Readiness::Ready) {
                    return;
                }
                pause = PAUSE.0;
                let ends =
                    gone.into_iter().map(|mut gone| Box::pin(async move { gone.wait_for(|gone| *gone).await.is_ok() }));
                select_all(ends).await;
                tracing::warn!(database = shared.target.name, "the database went away; connecting again");
                let note = Some(format!("{} went away", shared.target.name));
                become_state(&ready, Readiness::Connecting { note });
            }
            Err(error) => {
                tracing::warn!(database = shared.target.name, %error, "the store cannot be opened; trying again");
                let note = Some(format!("{}: {error}", shared.target.name));
                become_state(&ready, Readiness::Connecting { note });
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

/// Moves on unless the store was closed meanwhile.
fn become_state(ready: &watch::Sender<Readiness>, state: Readiness) -> bool {
    ready.send_if_modified(|now| {
        let moves = *now != Readiness::Closed;
        if moves {
            *now = state;
        }
        moves
    })
}

type Connected = (Arc<[Arc<Connection>]>, Vec<watch::Receiver<bool>>);

/// Opens the connections that read. They are looked at before anything is set on them, two at least.
async fn connect_all(shared: &Shared, count: usize) -> Result<Connected, DbError> {
    let target = &shared.target;
    let opened = try_join_all((0..count.max(2)).map(|_| target.open())).await?;
    target.check_direct(&opened).await?;
    let (mut connections, mut ends) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for (number, (mut client, gone)) in opened.into_iter().take(count).enumerate() {
        target.settle(&client, shared.deadline).await?;
        if number == 0 {
            connection::migrate(&mut client).await?;
        }
        connections.push(Arc::new(Connection::new(client)));
        ends.push(gone);
    }
    Ok((connections.into(), ends))
}
