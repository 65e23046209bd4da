//! The database of an installation, reached past the server as somebody who has the disk or the password.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use doorward_testkit::postgres::Postgres;

static COPIES: AtomicU64 = AtomicU64::new(0);

/// A database that no server holds at the moment, or none that minds.
pub(super) enum Database {
    /// A file.
    Sqlite(PathBuf),
    /// A database by its name.
    Postgres(&'static Postgres, String),
}

impl Database {
    /// The one at `url` on `server`.
    pub(super) fn of(server: &'static Postgres, url: &str) -> Self {
        Self::Postgres(server, url.rsplit('/').next().unwrap().to_owned())
    }

    /// As `store.url` names it.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Sqlite(file) => format!("sqlite:{}", file.display()),
            Self::Postgres(server, name) => {
                let any = server.sql("postgres", "SHOW port");
                format!("postgres://app@127.0.0.1:{any}/{name}")
            }
        }
    }

    /// Runs statements.
    pub(super) fn run(&self, sql: &str) {
        match self {
            Self::Sqlite(file) => rusqlite::Connection::open(file).unwrap().execute_batch(sql).unwrap(),
            Self::Postgres(server, name) => {
                server.sql(name, sql);
            }
        }
    }

    /// The number that a query gives.
    pub(super) fn number(&self, sql: &str) -> i64 {
        match self {
            Self::Sqlite(file) => {
                let file = rusqlite::Connection::open(file).unwrap();
                file.query_row(sql, [], |row| row.get(0)).unwrap()
            }
            Self::Postgres(server, name) => server.sql(name, sql).parse().unwrap(),
        }
    }

    /// Waits until nobody else is connected: what a killed process had sent is then done or never will be.
    pub(super) async fn settled(&self) {
        let Self::Postgres(..) = self else { return };
        const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
            AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        super::until("its connections are gone", super::PATIENCE, async || (self.number(OTHERS) == 0).then_some(()))
            .await;
    }

    /// A copy of it as it is now.
    pub(super) fn copy(&self) -> Self {
        let number = COPIES.fetch_add(1, Ordering::Relaxed);
        match self {
            Self::Sqlite(file) => {
                let copy = file.with_file_name(format!("copy{number}.db"));
                self.run(&format!("VACUUM INTO '{}'", copy.display()));
                Self::Sqlite(copy)
            }
            Self::Postgres(server, name) => {
                let copy = format!("copy_{number}");
                server.sql("postgres", &format!("CREATE DATABASE {copy} TEMPLATE {name}"));
                Self::Postgres(server, copy)
            }
        }
    }
}
