//! A PostgreSQL connection as the operations see it.

use std::{
    collections::HashMap,
    error::Error as StdError,
    ptr,
    sync::{Mutex, PoisonError},
};

use bytes::{BufMut as _, BytesMut};
use futures_util::future::{join, try_join_all};
use tokio_postgres::{
    Client, Error, Row as PgRow,
    error::SqlState,
    types::{FromSql, IsNull, ToSql, Type},
};
use uuid::Uuid;

use crate::{
    dialect::{self, Dialect},
    migrate::{self, Applied, MIGRATIONS, RELEASE},
    sql::{Cell, DbError, Lock, Row, Sql, Statement, Value},
};

/// Locks of ours on the server: a name space, and what is locked.
const LOCKS: i32 = 0x6472_7764; // "drwd"
const LOCK_MIGRATIONS: i32 = 1;
const LOCK_REVOCATIONS: i32 = 2;
const LOCK_FIRST_ADMIN: i32 = 3;
const LOCK_JOBS: i32 = 4;
const LOCK_STATE: i32 = 5;

/// A name space for the locks of single users.
const USER_LOCKS: i32 = 0x6472_7775; // "drwu"

/// A connection and what it has prepared.
pub(super) struct Connection {
    pub(super) client: Client,
    statements: Mutex<HashMap<usize, tokio_postgres::Statement>>,
}

impl Connection {
    pub(super) fn new(client: Client) -> Self {
        Self { client, statements: Mutex::new(HashMap::new()) }
    }

    async fn prepared(&self, statement: &'static Statement) -> Result<tokio_postgres::Statement, DbError> {
        let key = ptr::from_ref(statement).addr();
        let known = self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let made = self.client.prepare(statement.postgres()).await.map_err(|error| at(statement, &error))?;
        self.statements.lock().unwrap_or_else(PoisonError::into_inner).insert(key, made.clone());
        Ok(made)
    }
}

/// A connection, borrowed for one operation. Several may borrow one: their statements are pipelined.
pub(super) struct PgSql<'a>(pub(super) &'a Connection);

impl Sql for PgSql<'_> {
    async fn rows(&mut self, statement: &'static Statement, values: &[Value<'_>]) -> Result<Vec<Row>, DbError> {
        let prepared = self.0.prepared(statement).await?;
        let rows = self.0.client.query(&prepared, &parameters(values)).await.map_err(|error| at(statement, &error))?;
        rows.iter().map(|row| read(row).map_err(|error| at(statement, &error))).collect()
    }

    async fn each<const N: usize>(
        &mut self,
        statement: &'static Statement,
        lists: &[[Value<'_>; N]],
    ) -> Result<u64, DbError> {
        let prepared = self.0.prepared(statement).await?;
        let lists: Vec<_> = lists.iter().map(|values| parameters(values)).collect();
        let all = lists.iter().map(|values| self.0.client.execute(&prepared, values));
        Ok(try_join_all(all).await.map_err(|error| at(statement, &error))?.into_iter().sum())
    }

    async fn each_then<const N: usize>(
        &mut self,
        (statement, lists): (&'static Statement, &[[Value<'_>; N]]),
        (last, values): (&'static Statement, &[Value<'_>]),
    ) -> Result<(), DbError> {
        // Prepared first, so that neither waits and the server gets them in this order.
        self.0.prepared(statement).await?;
        self.0.prepared(last).await?;
        // A statement that fails ends the transaction: what is sent behind it does nothing.
        let (mut before, mut behind) = (PgSql(self.0), PgSql(self.0));
        let (each, last) = join(before.each(statement, lists), behind.execute(last, values)).await;
        each.and(last).map(|_| ())
    }

    async fn execute(&mut self, statement: &'static Statement, values: &[Value<'_>]) -> Result<u64, DbError> {
        let prepared = self.0.prepared(statement).await?;
        self.0.client.execute(&prepared, &parameters(values)).await.map_err(|error| at(statement, &error))
    }

    async fn execute_if_unique(
        &mut self,
        statement: &'static Statement,
        values: &[Value<'_>],
    ) -> Result<Option<u64>, DbError> {
        let prepared = self.0.prepared(statement).await?;
        let client = &self.0.client;
        // A broken index ends the whole transaction here; a savepoint keeps what came before.
        client.batch_execute("SAVEPOINT maybe").await.map_err(|error| failed(&error))?;
        match client.execute(&prepared, &parameters(values)).await {
            Ok(touched) => {
                client.batch_execute("RELEASE maybe").await.map_err(|error| failed(&error))?;
                Ok(Some(touched))
            }
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                client.batch_execute("ROLLBACK TO maybe").await.map_err(|error| failed(&error))?;
                Ok(None)
            }
            Err(error) => Err(at(statement, &error)),
        }
    }

    async fn lock(&mut self, lock: Lock) -> Result<(), DbError> {
        // Released after the commit has become visible, so what the next holder reads is complete.
        let (space, number) = match lock {
            Lock::Revocations => (LOCKS, LOCK_REVOCATIONS),
            Lock::FirstAdmin => (LOCKS, LOCK_FIRST_ADMIN),
            Lock::Jobs => (LOCKS, LOCK_JOBS),
            Lock::State => (LOCKS, LOCK_STATE),
            Lock::LinksOf(user) => {
                // The random end of the id. Two users with one number wait for each other, no more.
                let [.., a, b, c, d] = user.as_uuid().into_bytes();
                (USER_LOCKS, i32::from_be_bytes([a, b, c, d]))
            }
        };
        self.0.client.batch_execute(&advisory_lock(space, number)).await.map_err(|error| failed(&error))
    }
}

fn advisory_lock(space: i32, number: i32) -> String {
    format!("SELECT pg_advisory_xact_lock({space}, {number})")
}

fn parameters<'a>(values: &'a [Value<'_>]) -> Vec<&'a (dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

fn read(row: &PgRow) -> Result<Row, Error> {
    let cells: Result<Vec<Cell>, Error> = (0..row.len()).map(|column| row.try_get(column)).collect();
    cells.map(Row::new)
}

/// Runs the migrations that the database needs. Looks without a lock first, so a start beside busy servers waits for
/// nobody.
pub(super) async fn migrate(client: &mut Client) -> Result<(), DbError> {
    if let Some(rows) = applied(client).await.map_err(|error| failed(&error))?
        && migrate::plan(MIGRATIONS, &rows).map_err(DbError::Fault)?.is_empty()
    {
        return Ok(());
    }
    let transaction = client.build_transaction().read_only(false).start().await.map_err(|error| failed(&error))?;
    // Two processes that start at once: the second waits here and then finds nothing to do.
    let lock = format!("SET LOCAL statement_timeout = 0; {}", advisory_lock(LOCKS, LOCK_MIGRATIONS));
    transaction.batch_execute(&lock).await.map_err(|error| failed(&error))?;
    let table = dialect::migration(Dialect::Postgres, migrate::TABLE);
    transaction.batch_execute(&table).await.map_err(|error| failed(&error))?;
    let rows = applied(transaction.client()).await.map_err(|error| failed(&error))?.unwrap_or_default();
    for migration in migrate::plan(MIGRATIONS, &rows).map_err(DbError::Fault)? {
        let in_migration = |error: Error| match failed(&error) {
            DbError::Fault(note) => DbError::Fault(format!("migration {}: {note}", migration.version)),
            other @ (DbError::Unavailable(_) | DbError::Conflict(_) | DbError::CommitLost(_)) => other,
        };
        let text = dialect::migration(Dialect::Postgres, migration.text);
        transaction.batch_execute(&text).await.map_err(in_migration)?;
        let note = "INSERT INTO doorward_migrations (version, name, checksum, release) VALUES ($1, $2, $3, $4)";
        let checksum = migration.checksum();
        transaction
            .execute(note, &[&migration.version, &migration.name, &checksum.as_slice(), &RELEASE])
            .await
            .map_err(in_migration)?;
    }
    transaction.commit().await.map_err(|error| failed(&error))
}

/// The rows of `doorward_migrations`; `None` if there is no such table.
async fn applied(client: &Client) -> Result<Option<Vec<Applied>>, Error> {
    let there = client.query_one("SELECT to_regclass('doorward_migrations') IS NOT NULL", &[]).await?;
    if !there.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let rows = client.query("SELECT version, checksum FROM doorward_migrations ORDER BY version", &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, _>>().map(Some)
}

/// Says which statement failed.
fn at(statement: &Statement, error: &Error) -> DbError {
    match failed(error) {
        DbError::Fault(note) => DbError::Fault(format!("{}: {note}", statement.name)),
        other @ (DbError::Unavailable(_) | DbError::Conflict(_) | DbError::CommitLost(_)) => other,
    }
}

/// Whether the server says of a COMMIT that nothing was changed: by a deferred constraint (class 23) or a conflict
/// (class 40, but for 40003). Whatever else comes in place of an answer may come after the change was made: the end of the
/// connection by an administrator (57P01), or a pooler whose server went away (08P01).
pub(super) fn is_rolled_back(error: &Error) -> bool {
    error
        .as_db_error()
        .map(|db| db.code().code())
        .is_some_and(|code| code.starts_with("23") || code.starts_with("40") && code != "40003")
}

/// Puts an engine's error into one of our kinds. The server's detail stays out: it repeats values.
pub(super) fn failed(error: &Error) -> DbError {
    let Some(db) = error.as_db_error() else {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let note = format!("{error}{cause}");
        let ours = note.starts_with("error serializing") || note.starts_with("error deserializing");
        return if ours || note.starts_with("expected ") { DbError::Fault(note) } else { DbError::Unavailable(note) };
    };
    let (code, note) = (db.code().code(), format!("{} ({})", db.message(), db.code().code()));
    match code {
        // serialization failure, deadlock
        "40001" | "40P01" => DbError::Conflict(note),
        // statement timeout, lock timeout, read-only server, idle in transaction, no such database
        "57014" | "55P03" | "25006" | "25P03" | "3D000" => DbError::Unavailable(note),
        // connection, resources (disk full, too many connections), operator intervention, authentication
        _ if ["08", "53", "57", "58", "28"].iter().any(|class| code.starts_with(class)) => DbError::Unavailable(note),
        _ => DbError::Fault(note),
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match (self, ty) {
            (Value::Null, _) => return Ok(IsNull::Yes),
            (Value::Int(value), &Type::INT8) => out.put_i64(*value),
            (Value::Bool(value), &Type::BOOL) => out.put_u8(u8::from(*value)),
            (Value::Text(text), &Type::TEXT) => out.put_slice(text.as_bytes()),
            (Value::Bytes(bytes), &Type::BYTEA) => out.put_slice(bytes),
            (Value::Id(id), &Type::UUID) => out.put_slice(id.as_bytes()),
            (value, ty) => return Err(format!("the statement wants {ty}, not {}", kind(value)).into()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_ty: &Type) -> bool {
        true // decided value by value above
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        self.to_sql(ty, out)
    }
}

/// The kind of a parameter; its value stays out of errors.
const fn kind(value: &Value<'_>) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Int(_) => "an integer",
        Value::Bool(_) => "a boolean",
        Value::Text(_) => "a text",
        Value::Bytes(_) => "bytes",
        Value::Id(_) => "an id",
    }
}

impl<'a> FromSql<'a> for Cell {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(match *ty {
            Type::INT8 => Self::Int(i64::from_be_bytes(raw.try_into()?)),
            Type::BOOL => Self::Bool(raw == [1]),
            Type::TEXT => Self::Text(std::str::from_utf8(raw)?.to_owned()),
            Type::BYTEA => Self::Bytes(raw.to_vec()),
            Type::UUID => Self::Id(Uuid::from_slice(raw)?),
            _ => return Err(format!("a column of type {ty} is not read").into()),
        })
    }

    fn from_sql_null(_ty: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(_ty: &Type) -> bool {
        true // decided value by value above
    }
}
