//! A SQLite connection as the operations see it.

use std::{
    future::{Future, ready},
    path::Path,
    time::Duration,
};

use rusqlite::{
    Connection, Error, ErrorCode, OpenFlags, ToSql,
    config::DbConfig,
    ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE},
    params_from_iter,
    types::{ToSqlOutput, ValueRef},
};

use crate::{
    dialect::{self, Dialect},
    migrate::{self, Applied, MIGRATIONS, RELEASE},
    sql::{Cell, DbError, Lock, Row, Sql, Statement, Value},
};

/// How long a connection waits for another process that writes.
const BUSY: Duration = Duration::from_secs(4);

/// Prepared statements that a connection keeps; more than there are.
const STATEMENTS: usize = 256;

/// Opens the file, made if missing, and brings it to the settings that durability rests on.
pub(super) fn open_writer(path: &Path) -> Result<Connection, DbError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| unusable(path, &error))?;
    }
    create_private(path)?;
    let connection = open(path)?;
    // Setting WAL needs the file alone for a moment and does not always wait for it; the caller tries again.
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(|e| failed(&e))?;
    if mode != "wal" {
        return Err(DbError::Unavailable(format!("{} cannot use a write-ahead log here", path.display())));
    }
    // FULL: a commit that was answered survives a power cut. Group commit pays for it once for everybody.
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;").map_err(|e| failed(&e))?;
    Ok(connection)
}

/// Opens the file for reading only; it exists.
pub(super) fn open_reader(path: &Path) -> Result<Connection, DbError> {
    let connection = open(path)?;
    connection.execute_batch("PRAGMA query_only = ON;").map_err(|error| failed(&error))?;
    Ok(connection)
}

fn open(path: &Path) -> Result<Connection, DbError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| failed(&error))?;
    connection.busy_timeout(BUSY).map_err(|error| failed(&error))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Plans do not depend on the values bound: otherwise each binding prepares a kept statement anew, which costs
    // several times the look-up itself.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(|error| failed(&error))?;
    connection.execute_batch("PRAGMA cache_size = -8000; PRAGMA trusted_schema = OFF;").map_err(|e| failed(&e))?;
    Ok(connection)
}

/// Makes the file so that only its owner reads it; SQLite gives its log the same rights.
fn create_private(path: &Path) -> Result<(), DbError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(unusable(path, &error)),
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> DbError {
    DbError::Unavailable(format!("{} cannot be used: {error}", path.display()))
}

/// Runs the migrations that the file needs. Looks without a lock first, so a start beside a busy server waits for nobody.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), DbError> {
    let applied = applied(connection).map_err(|error| failed(&error))?;
    if let Some(rows) = applied
        && migrate::plan(MIGRATIONS, &rows).map_err(DbError::Fault)?.is_empty()
    {
        return Ok(());
    }
    // Two processes that start at once: the second waits here and then finds nothing to do.
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(|e| failed(&e))?;
    transaction.execute_batch(&dialect::migration(Dialect::Sqlite, migrate::TABLE)).map_err(|e| failed(&e))?;
    let rows = self::applied(&transaction).map_err(|error| failed(&error))?.unwrap_or_default();
    for migration in migrate::plan(MIGRATIONS, &rows).map_err(DbError::Fault)? {
        transaction
            .execute_batch(&dialect::migration(Dialect::Sqlite, migration.text))
            .and_then(|()| {
                transaction.execute(
                    "INSERT INTO doorward_migrations (version, name, checksum, release) VALUES (?1, ?2, ?3, ?4)",
                    (migration.version, migration.name, migration.checksum(), RELEASE),
                )
            })
            .map_err(|error| in_migration(migration.version, &error))?;
    }
    transaction.commit().map_err(|error| failed(&error))
}

fn in_migration(version: i64, error: &Error) -> DbError {
    match failed(error) {
        DbError::Fault(note) => DbError::Fault(format!("migration {version}: {note}")),
        other @ (DbError::Unavailable(_) | DbError::Conflict(_) | DbError::CommitLost(_)) => other,
    }
}

/// The rows of `doorward_migrations`; `None` if there is no such table.
fn applied(connection: &Connection) -> Result<Option<Vec<Applied>>, Error> {
    if !connection.table_exists(None, "doorward_migrations")? {
        return Ok(None);
    }
    let mut statement = connection.prepare("SELECT version, checksum FROM doorward_migrations ORDER BY version")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect::<Result<_, _>>().map(Some)
}

/// Puts an engine's error into one of our kinds.
pub(super) fn failed(error: &Error) -> DbError {
    let Error::SqliteFailure(code, _) = error else { return DbError::Fault(error.to_string()) };
    match code.code {
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::DiskFull
        | ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::ReadOnly
        | ErrorCode::PermissionDenied
        | ErrorCode::OutOfMemory
        | ErrorCode::OperationInterrupted => DbError::Unavailable(error.to_string()),
        _ => DbError::Fault(error.to_string()), // the enum is non-exhaustive
    }
}

/// A connection, borrowed for one operation. Every answer is ready at once.
pub(super) struct SqliteSql<'a>(pub(super) &'a mut Connection);

impl SqliteSql<'_> {
    fn query(&mut self, statement: &'static Statement, values: &[Value<'_>]) -> Result<Vec<Row>, DbError> {
        self.try_query(statement, values).map_err(|error| at(statement, &error))
    }

    fn try_query(&mut self, statement: &'static Statement, values: &[Value<'_>]) -> Result<Vec<Row>, Error> {
        let mut prepared = self.0.prepare_cached(statement.sqlite())?;
        let columns = prepared.column_count();
        let mut rows = prepared.query(params_from_iter(values))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let mut cells = Vec::with_capacity(columns);
            for column in 0..columns {
                cells.push(match row.get_ref(column)? {
                    ValueRef::Null => Cell::Null,
                    ValueRef::Integer(value) => Cell::Int(value),
                    ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
                    ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_vec()),
                    ValueRef::Real(_) => {
                        let name = prepared_column(row, column);
                        return Err(Error::InvalidColumnType(column, name, rusqlite::types::Type::Real));
                    }
                });
            }
            found.push(Row::new(cells));
        }
        Ok(found)
    }

    fn run(&mut self, statement: &'static Statement, values: &[Value<'_>]) -> Result<u64, DbError> {
        self.try_run(statement, values).map_err(|error| at(statement, &error))
    }

    fn run_if_unique(&mut self, statement: &'static Statement, values: &[Value<'_>]) -> Result<Option<u64>, DbError> {
        match self.try_run(statement, values) {
            Ok(touched) => Ok(Some(touched)),
            // SQLite takes back the statement alone.
            Err(Error::SqliteFailure(code, _))
                if matches!(code.extended_code, SQLITE_CONSTRAINT_UNIQUE | SQLITE_CONSTRAINT_PRIMARYKEY) =>
            {
                Ok(None)
            }
            Err(error) => Err(at(statement, &error)),
        }
    }

    fn try_run(&mut self, statement: &'static Statement, values: &[Value<'_>]) -> Result<u64, Error> {
        let touched = self.0.prepare_cached(statement.sqlite())?.execute(params_from_iter(values))?;
        Ok(touched as u64)
    }
}

fn prepared_column(row: &rusqlite::Row<'_>, column: usize) -> String {
    row.as_ref().column_name(column).unwrap_or("?").to_owned()
}

/// Says which statement failed.
fn at(statement: &Statement, error: &Error) -> DbError {
    match failed(error) {
        DbError::Fault(note) => DbError::Fault(format!("{}: {note}", statement.name)),
        other @ (DbError::Unavailable(_) | DbError::Conflict(_) | DbError::CommitLost(_)) => other,
    }
}

impl Sql for SqliteSql<'_> {
    fn rows(
        &mut self,
        statement: &'static Statement,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<Row>, DbError>> + Send {
        ready(self.query(statement, values))
    }

    fn each<const N: usize>(
        &mut self,
        statement: &'static Statement,
        lists: &[[Value<'_>; N]],
    ) -> impl Future<Output = Result<u64, DbError>> + Send {
        ready(lists.iter().try_fold(0, |sum, values| Ok(sum + self.run(statement, values)?)))
    }

    fn execute(
        &mut self,
        statement: &'static Statement,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, DbError>> + Send {
        ready(self.run(statement, values))
    }

    fn execute_if_unique(
        &mut self,
        statement: &'static Statement,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Option<u64>, DbError>> + Send {
        ready(self.run_if_unique(statement, values))
    }

    fn lock(&mut self, _lock: Lock) -> impl Future<Output = Result<(), DbError>> + Send {
        ready(Ok(())) // one writer at a time, over all processes
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(value) => ValueRef::Integer(*value),
            Value::Bool(value) => ValueRef::Integer(i64::from(*value)),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
            Value::Id(id) => ValueRef::Blob(id.as_bytes()),
        }))
    }
}
