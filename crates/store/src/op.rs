//! The shape of an operation: one value, two ways to run it.

use std::future::Future;

use crate::{
    memory::Tables,
    sql::{DbError, Sql},
};

/// A change, committed with its effects or not at all.
pub(crate) trait Write: Send + Sync + 'static {
    /// The named outcome.
    type Out: Send + 'static;

    /// Its name in errors: that of the method on `Store`.
    const NAME: &'static str;

    /// Whether this outcome is a change. If not, everything that ran is rolled back and no effect is written.
    fn commits(_out: &Self::Out) -> bool {
        true
    }

    /// Runs on the tables in memory. Looks first and changes afterwards: an outcome that does not commit, or an
    /// error, leaves them as they were.
    fn memory(&self, tables: &mut Tables) -> Result<Self::Out, DbError>;

    /// Runs inside a transaction.
    fn sql(&self, sql: &mut impl Sql) -> impl Future<Output = Result<Self::Out, DbError>> + Send;
}

/// A look at the data. On SQL, one statement: it needs no transaction.
pub(crate) trait Read: Send + Sync + 'static {
    /// What was found.
    type Out: Send + 'static;

    /// Its name in errors: that of the method on `Store`.
    const NAME: &'static str;

    /// Looks at the tables in memory.
    fn memory(&self, tables: &Tables) -> Result<Self::Out, DbError>;

    /// Runs outside a transaction.
    fn sql(&self, sql: &mut impl Sql) -> impl Future<Output = Result<Self::Out, DbError>> + Send;
}
