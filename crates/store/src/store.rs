//! The handle: which backend runs, and how an operation gets there.

use std::{fmt, sync::Arc, time::Duration};

use doorward_core::effects::Effects;
use tokio::{sync::watch, time::timeout};
use tracing::Instrument as _;

use crate::{
    Changes, Readiness, StoreConfigError, StoreError, StoreOptions,
    memory::Memory,
    op::{Read, Write},
    sql::DbError,
};

/// Most rows of a page.
const PAGE: u32 = 1000;

/// A page size within bounds, as a parameter.
pub(crate) fn page(limit: u32) -> i64 {
    i64::from(limit.clamp(1, PAGE))
}

/// The store: atomic operations with named outcomes over memory, SQLite or PostgreSQL. Cheap to clone.
///
/// Every operation is one transaction; its [`Effects`] commit with it, and only if its outcome is a change. A future
/// that is dropped never leaves half an operation behind: it is not begun, or runs to its end unheard.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    backend: Backend,
    ready: watch::Sender<Readiness>,
    changes: watch::Sender<Changes>,
    deadline: Duration,
}

enum Backend {
    Memory(Box<Memory>),
    #[cfg(feature = "sqlite")]
    Sqlite(crate::sqlite::Sqlite),
    #[cfg(feature = "postgres")]
    Postgres(crate::postgres::Postgres),
}

impl Store {
    /// A store in memory. It is ready at once and forgets everything with its last handle; so nothing depends on the
    /// salts of its audit rows, which are predictable.
    pub fn memory() -> Self {
        let deadline = StoreOptions::new("", [0; 32]).deadline;
        Self::with(Backend::Memory(Box::new(Memory::new(&[0; 32]))), watch::Sender::new(Readiness::Ready), deadline)
    }

    /// Opens the store that `url` names: `sqlite:FILE` (relative to the data folder) or
    /// `postgres://user:password@host/database?sslmode=…`.
    ///
    /// Returns at once. Connecting and migrating go on in the background and are tried again until they succeed;
    /// until then every operation is [`StoreError::Unavailable`].
    ///
    /// # Panics
    /// With PostgreSQL, outside a tokio runtime.
    ///
    /// # Errors
    /// [`StoreConfigError`]: the URL cannot be used whatever the database does.
    #[allow(clippy::needless_pass_by_value, unused_variables, reason = "given away once; no driver, no use")]
    pub fn open(url: &str, options: StoreOptions) -> Result<Self, StoreConfigError> {
        if let Some(rest) = url.strip_prefix("sqlite:") {
            #[cfg(feature = "sqlite")]
            {
                let ready = connecting();
                let path = crate::sqlite::parse_path(rest, &options)?;
                let backend = crate::sqlite::Sqlite::open(path, &options, &ready);
                return Ok(Self::with(Backend::Sqlite(backend), ready, options.deadline));
            }
            #[cfg(not(feature = "sqlite"))]
            return Err(StoreConfigError::NotBuilt { engine: "sqlite" });
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            #[cfg(feature = "postgres")]
            {
                let ready = connecting();
                let backend = crate::postgres::Postgres::open(url, &options, ready.clone())?;
                return Ok(Self::with(Backend::Postgres(backend), ready, options.deadline));
            }
            #[cfg(not(feature = "postgres"))]
            return Err(StoreConfigError::NotBuilt { engine: "postgres" });
        }
        Err(StoreConfigError::UnknownScheme)
    }

    fn with(backend: Backend, ready: watch::Sender<Readiness>, deadline: Duration) -> Self {
        Self(Arc::new(Inner { backend, ready, changes: watch::Sender::new(Changes::default()), deadline }))
    }

    /// Name of the backend, for logs and metrics: `memory`, `sqlite`, `postgres`.
    pub fn backend(&self) -> &'static str {
        match &self.0.backend {
            Backend::Memory(_) => "memory",
            #[cfg(feature = "sqlite")]
            Backend::Sqlite(_) => "sqlite",
            #[cfg(feature = "postgres")]
            Backend::Postgres(_) => "postgres",
        }
    }

    /// Whether the store can be used, now and as it changes.
    pub fn ready(&self) -> watch::Receiver<Readiness> {
        self.0.ready.subscribe()
    }

    /// Waits until the store can be used.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after `within`, with what the last attempt met.
    pub async fn wait_ready(&self, within: Duration) -> Result<(), StoreError> {
        let mut ready = self.ready();
        let done = ready.wait_for(|state| !matches!(state, Readiness::Connecting { .. }));
        timeout(within, done).await.ok();
        self.check_ready()
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.last_revocation().await.map(drop)
    }

    /// What this process has written; wakes whoever follows the revocation log or sends mail.
    pub fn changed(&self) -> watch::Receiver<Changes> {
        self.0.changes.subscribe()
    }

    /// Closes the store for all its handles: operations that were accepted are finished, new ones are
    /// [`StoreError::Unavailable`]. Waits until the database is let go.
    pub async fn close(&self) {
        self.0.ready.send_replace(Readiness::Closed);
        match &self.0.backend {
            Backend::Memory(_) => {}
            #[cfg(feature = "sqlite")]
            Backend::Sqlite(sqlite) => sqlite.close().await,
            #[cfg(feature = "postgres")]
            Backend::Postgres(postgres) => postgres.close().await,
        }
    }

    fn check_ready(&self) -> Result<(), StoreError> {
        let note = match &*self.0.ready.borrow() {
            Readiness::Ready => return Ok(()),
            Readiness::Connecting { note } => note.clone().unwrap_or_else(|| "still connecting".to_owned()),
            Readiness::Closed => "closed".to_owned(),
        };
        Err(StoreError::Unavailable { note })
    }

    pub(crate) async fn read<O: Read>(&self, op: O) -> Result<O::Out, StoreError> {
        self.check_ready()?;
        let run = async {
            match &self.0.backend {
                Backend::Memory(memory) => memory.read(&op),
                #[cfg(feature = "sqlite")]
                Backend::Sqlite(sqlite) => sqlite.read(op).await,
                #[cfg(feature = "postgres")]
                Backend::Postgres(postgres) => postgres.read(op).await,
            }
        };
        let out = timeout(self.0.deadline, run).await.map_err(|_| StoreError::Timeout { op: O::NAME })?;
        out.map_err(|error| named(O::NAME, error))
    }

    pub(crate) async fn write<O: Write>(&self, op: O, effects: Effects) -> Result<O::Out, StoreError> {
        self.check_ready()?;
        let (revocations, mails) = (effects.revocations.len() as u64, effects.outbox.len() as u64);
        let run = async {
            match &self.0.backend {
                Backend::Memory(memory) => memory.write(&op, &effects),
                #[cfg(feature = "sqlite")]
                Backend::Sqlite(sqlite) => sqlite.write(op, effects).await,
                #[cfg(feature = "postgres")]
                Backend::Postgres(postgres) => postgres.write(op, effects).await,
            }
        };
        let run = timeout(self.0.deadline, run).instrument(tracing::debug_span!("store", op = O::NAME));
        let out = run.await.map_err(|_| StoreError::Timeout { op: O::NAME })?;
        let out = out.map_err(|error| named(O::NAME, error))?;
        if revocations + mails > 0 && O::commits(&out) {
            self.0.changes.send_modify(|changes| {
                changes.revocations += revocations;
                changes.mails += mails;
            });
        }
        Ok(out)
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn connecting() -> watch::Sender<Readiness> {
    watch::Sender::new(Readiness::Connecting { note: None })
}

/// Puts the operation's name to an engine's error.
fn named(op: &'static str, error: DbError) -> StoreError {
    match error {
        DbError::Unavailable(note) | DbError::Conflict(note) => StoreError::Unavailable { note },
        DbError::CommitLost(note) => {
            tracing::warn!(op, note, "the connection broke while a commit was on its way");
            StoreError::Timeout { op }
        }
        DbError::Fault(note) => StoreError::Fault { op, note },
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({}, {:?})", self.backend(), *self.0.ready.borrow())
    }
}
