//! The narrow view of a SQL engine that the operations are written against.
//!
//! An operation is written once, `async`, over [`Sql`]. On PostgreSQL it awaits the network; on SQLite
//! every call is ready at once, so the writer thread runs the same code without a runtime.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use std::sync::OnceLock;
use std::{fmt, future::Future};

use doorward_core::{
    id::{ApiKeyId, DecisionId, JobRunId, LinkId, MailId, OrgId, RingKeyId, SessionId, UserId, WriterId},
    session::TokenHash,
    time::Timestamp,
    user::Email,
};
use uuid::Uuid;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::dialect::{self, Dialect};

/// One statement, written once; what differs between the engines is in `dialect`.
pub(crate) struct Statement {
    /// Its name in errors and tests.
    pub(crate) name: &'static str,
    text: &'static str,
    #[cfg(feature = "sqlite")]
    sqlite: OnceLock<String>,
    #[cfg(feature = "postgres")]
    postgres: OnceLock<String>,
}

impl Statement {
    pub(crate) const fn new(name: &'static str, text: &'static str) -> Self {
        Self {
            name,
            text,
            #[cfg(feature = "sqlite")]
            sqlite: OnceLock::new(),
            #[cfg(feature = "postgres")]
            postgres: OnceLock::new(),
        }
    }

    /// The text for SQLite.
    #[cfg(feature = "sqlite")]
    pub(crate) fn sqlite(&self) -> &str {
        self.sqlite.get_or_init(|| dialect::statement(Dialect::Sqlite, self.text))
    }

    /// The text for PostgreSQL.
    #[cfg(feature = "postgres")]
    pub(crate) fn postgres(&self) -> &str {
        self.postgres.get_or_init(|| dialect::statement(Dialect::Postgres, self.text))
    }
}

/// Declares statements as statics and lists them in `ALL`, for the test that prepares every one on both engines.
macro_rules! statements {
    ($($name:ident = $text:expr,)+) => {
        $(static $name: $crate::sql::Statement = $crate::sql::Statement::new(stringify!($name), $text);)+
        /// Every statement of this module.
        #[allow(dead_code, reason = "read by tests")]
        pub(crate) static ALL: &[&$crate::sql::Statement] = &[$(&$name),+];
    };
}
pub(crate) use statements;

/// Builds a parameter list.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::sql::Value::from($value)),*] };
}
pub(crate) use values;

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Int(i64),
    Bool(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
    Id(Uuid),
}

macro_rules! from_ids {
    ($($id:ty),+) => { $(impl From<$id> for Value<'_> {
        fn from(id: $id) -> Self { Self::Id(id.as_uuid()) }
    })+ };
}
from_ids!(ApiKeyId, DecisionId, JobRunId, LinkId, MailId, OrgId, RingKeyId, SessionId, UserId, WriterId);

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(value: Timestamp) -> Self {
        Self::Int(value.as_millis())
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a Email> for Value<'a> {
    fn from(value: &'a Email) -> Self {
        Self::Text(value.as_str())
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(value)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Value<'a> {
    fn from(value: &'a [u8; N]) -> Self {
        Self::Bytes(value)
    }
}

impl<'a> From<&'a TokenHash> for Value<'a> {
    fn from(value: &'a TokenHash) -> Self {
        Self::Bytes(value.as_bytes())
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// One column of a row that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "only PostgreSQL makes some of them"))]
pub(crate) enum Cell {
    Null,
    Int(i64),
    Bool(bool),
    Text(String),
    Bytes(Vec<u8>),
    Id(Uuid),
}

/// A row, read column by column in the order of the statement.
#[derive(Debug)]
pub(crate) struct Row(std::vec::IntoIter<Cell>);

impl Row {
    pub(crate) fn new(cells: Vec<Cell>) -> Self {
        Self(cells.into_iter())
    }

    fn next(&mut self) -> Result<Cell, DbError> {
        self.0.next().ok_or_else(|| DbError::Fault("a row has fewer columns than expected".to_owned()))
    }

    /// The next column, or `None` if it is NULL.
    pub(crate) fn optional<T: FromCell>(&mut self) -> Result<Option<T>, DbError> {
        match self.next()? {
            Cell::Null => Ok(None),
            cell => T::from_cell(cell).map(Some).ok_or_else(|| damaged::<T>()),
        }
    }

    /// The next column, which is never NULL.
    pub(crate) fn column<T: FromCell>(&mut self) -> Result<T, DbError> {
        T::from_cell(self.next()?).ok_or_else(|| damaged::<T>())
    }

    /// Whether the next column is NULL; consumes nothing.
    pub(crate) fn next_is_null(&self) -> bool {
        matches!(self.0.as_slice().first(), Some(Cell::Null))
    }
}

fn damaged<T>() -> DbError {
    DbError::Fault(format!("a column does not hold a {}", std::any::type_name::<T>()))
}

/// Types that columns hold.
pub(crate) trait FromCell: Sized {
    fn from_cell(cell: Cell) -> Option<Self>;
}

impl FromCell for i64 {
    fn from_cell(cell: Cell) -> Option<Self> {
        if let Cell::Int(value) = cell { Some(value) } else { None }
    }
}

impl FromCell for u64 {
    fn from_cell(cell: Cell) -> Option<Self> {
        i64::from_cell(cell).and_then(|value| Self::try_from(value).ok())
    }
}

impl FromCell for u32 {
    fn from_cell(cell: Cell) -> Option<Self> {
        i64::from_cell(cell).and_then(|value| Self::try_from(value).ok())
    }
}

impl FromCell for bool {
    fn from_cell(cell: Cell) -> Option<Self> {
        match cell {
            Cell::Bool(value) => Some(value),
            Cell::Int(0) => Some(false), // SQLite has no booleans
            Cell::Int(1) => Some(true),
            Cell::Null | Cell::Int(_) | Cell::Text(_) | Cell::Bytes(_) | Cell::Id(_) => None,
        }
    }
}

impl FromCell for Timestamp {
    fn from_cell(cell: Cell) -> Option<Self> {
        i64::from_cell(cell).map(Self::from_millis)
    }
}

impl FromCell for String {
    fn from_cell(cell: Cell) -> Option<Self> {
        if let Cell::Text(value) = cell { Some(value) } else { None }
    }
}

impl FromCell for Email {
    fn from_cell(cell: Cell) -> Option<Self> {
        String::from_cell(cell).map(Self::from_store)
    }
}

impl FromCell for Vec<u8> {
    fn from_cell(cell: Cell) -> Option<Self> {
        if let Cell::Bytes(value) = cell { Some(value) } else { None }
    }
}

impl<const N: usize> FromCell for [u8; N] {
    fn from_cell(cell: Cell) -> Option<Self> {
        Vec::from_cell(cell)?.try_into().ok()
    }
}

impl FromCell for TokenHash {
    fn from_cell(cell: Cell) -> Option<Self> {
        FromCell::from_cell(cell).map(Self::from_bytes)
    }
}

impl FromCell for Uuid {
    fn from_cell(cell: Cell) -> Option<Self> {
        match cell {
            Cell::Id(id) => Some(id),
            Cell::Bytes(bytes) => Self::from_slice(&bytes).ok(), // SQLite has no UUIDs
            Cell::Null | Cell::Int(_) | Cell::Bool(_) | Cell::Text(_) => None,
        }
    }
}

macro_rules! ids_from_cells {
    ($($id:ty),+) => { $(impl FromCell for $id {
        fn from_cell(cell: Cell) -> Option<Self> { Uuid::from_cell(cell).map(Self::from_uuid) }
    })+ };
}
ids_from_cells!(ApiKeyId, DecisionId, JobRunId, LinkId, MailId, OrgId, RingKeyId, SessionId, UserId, WriterId);

/// What an engine says when it cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "only PostgreSQL makes some of them"))]
pub(crate) enum DbError {
    /// Not now: connection lost, file locked, disk full, server shutting down.
    Unavailable(String),
    /// Two transactions got in each other's way; the same operation may be tried again at once.
    Conflict(String),
    /// The connection broke while the commit was on its way: made or not, nobody knows.
    CommitLost(String),
    /// Never: constraint, syntax, damaged row.
    Fault(String),
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(note) | Self::Conflict(note) | Self::CommitLost(note) | Self::Fault(note) => {
                f.write_str(note)
            }
        }
    }
}

/// A connection, inside a transaction or not.
pub(crate) trait Sql: Send {
    /// Runs a statement and gives back all its rows; statements bound their own number.
    fn rows(
        &mut self,
        statement: &'static Statement,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<Row>, DbError>> + Send;

    /// Runs a statement once for each list of values, in this order, and adds up the rows it touched.
    fn each<const N: usize>(
        &mut self,
        statement: &'static Statement,
        lists: &[[Value<'_>; N]],
    ) -> impl Future<Output = Result<u64, DbError>> + Send;

    /// The same, and then another statement, of which nobody asks how many rows they touched.
    fn each_then<const N: usize>(
        &mut self,
        (statement, lists): (&'static Statement, &[[Value<'_>; N]]),
        (last, values): (&'static Statement, &[Value<'_>]),
    ) -> impl Future<Output = Result<(), DbError>> + Send {
        async move {
            self.each(statement, lists).await?;
            self.execute(last, values).await?;
            Ok(())
        }
    }

    /// Runs a statement and counts the rows it touched.
    fn execute(
        &mut self,
        statement: &'static Statement,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, DbError>> + Send;

    /// The same where a row may break a unique index: `None` then, and the transaction goes on as if the statement
    /// had not run.
    fn execute_if_unique(
        &mut self,
        statement: &'static Statement,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Option<u64>, DbError>> + Send;

    /// Makes this transaction the only one with `lock` until it ends. Does nothing where writers queue anyway.
    fn lock(&mut self, lock: Lock) -> impl Future<Output = Result<(), DbError>> + Send;
}

/// What is done by one transaction at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lock {
    /// Appending to the revocation log, so that entries become visible in the order of their numbers.
    Revocations,
    /// Claiming the place of the first administrator.
    FirstAdmin,
    /// Making links for one user, so that the newer voids the older.
    LinksOf(UserId),
    /// Beginning a run of a job, so that no two runs of one job are under way at a time.
    Jobs,
    /// Setting a shared value, and doing what rests on one.
    State,
}

/// The first row, if there is one.
pub(crate) async fn one(
    sql: &mut impl Sql,
    statement: &'static Statement,
    values: &[Value<'_>],
) -> Result<Option<Row>, DbError> {
    Ok(sql.rows(statement, values).await?.into_iter().next())
}

/// Reads every row.
pub(crate) fn all<T>(rows: Vec<Row>, read: impl Fn(&mut Row) -> Result<T, DbError>) -> Result<Vec<T>, DbError> {
    rows.into_iter().map(|mut row| read(&mut row)).collect()
}
