//! The revocation log. Its numbers rise strictly in the order in which entries become visible: whoever has read up to
//! `n` and asks for more than `n` misses nothing.

use doorward_core::{
    effects::Effects,
    revocation::{NewRevocation, Revocation, Scope},
};

use crate::{
    Store, StoreError,
    memory::Tables,
    op::{Read, Write},
    sql::{DbError, Row, Sql, all, one, statements, values},
    store::page,
};

statements! {
    INSERT_REVOCATION = "INSERT INTO revocations (scope, at, until_at, why) VALUES ($1, $2, $3, $4)",
    REVOCATIONS_AFTER = "SELECT seq, scope, at, until_at, why FROM revocations WHERE seq > $1 ORDER BY seq LIMIT $2",
    LAST_REVOCATION = "SELECT COALESCE(MAX(seq), 0) FROM revocations",
}

pub(crate) fn read_revocation(row: &mut Row) -> Result<Revocation, DbError> {
    let seq = row.column()?;
    let scope: String = row.column()?;
    let scope = serde_json::from_str(&scope)
        .map_err(|error| DbError::Fault(format!("revocations.scope of entry {seq} is unknown: {error}")))?;
    Ok(Revocation {
        seq,
        entry: NewRevocation { scope, at: row.column()?, until: row.optional()?, why: row.column()? },
    })
}

/// A scope as the log holds it: the same text for the same scope.
pub(crate) fn scope_text(scope: &Scope) -> Result<String, DbError> {
    serde_json::to_string(scope).map_err(|error| DbError::Fault(format!("a revocation's scope is no JSON: {error}")))
}

/// Appends an entry inside a transaction that holds the log's lock.
pub(crate) async fn append_revocation(sql: &mut impl Sql, entry: &NewRevocation) -> Result<(), DbError> {
    let scope = scope_text(&entry.scope)?;
    sql.execute(&INSERT_REVOCATION, values![scope.as_str(), entry.at, entry.until, entry.why.as_str()]).await?;
    Ok(())
}

impl Store {
    /// Entries of the log with a number above `seq`, in order; 1,000 at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revocations_after(&self, seq: i64, limit: u32) -> Result<Vec<Revocation>, StoreError> {
        self.read(After { seq, limit: page(limit) }).await
    }

    /// Number of the last entry; 0 in an empty log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn last_revocation(&self) -> Result<i64, StoreError> {
        self.read(Last).await
    }

    /// Commits effects that come with no change of their own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn append(&self, effects: Effects) -> Result<(), StoreError> {
        self.write(Nothing, effects).await
    }
}

struct After {
    seq: i64,
    limit: i64,
}

impl Read for After {
    type Out = Vec<Revocation>;
    const NAME: &'static str = "revocations_after";

    fn memory(&self, tables: &Tables) -> Result<Vec<Revocation>, DbError> {
        let entries = tables.revocations.range(self.seq.saturating_add(1)..);
        let entries = entries.map(|(seq, entry)| Revocation { seq: *seq, entry: entry.clone() });
        Ok(entries.take(usize::try_from(self.limit).unwrap_or(0)).collect())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<Revocation>, DbError> {
        all(sql.rows(&REVOCATIONS_AFTER, values![self.seq, self.limit]).await?, read_revocation)
    }
}

struct Last;

impl Read for Last {
    type Out = i64;
    const NAME: &'static str = "last_revocation";

    fn memory(&self, tables: &Tables) -> Result<i64, DbError> {
        Ok(tables.revocations.last_key_value().map_or(0, |(seq, _)| *seq))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<i64, DbError> {
        one(sql, &LAST_REVOCATION, &[]).await?.map_or(Ok(0), |mut row| row.column())
    }
}

struct Nothing;

impl Write for Nothing {
    type Out = ();
    const NAME: &'static str = "append";

    fn memory(&self, _tables: &mut Tables) -> Result<(), DbError> {
        Ok(())
    }

    async fn sql(&self, _sql: &mut impl Sql) -> Result<(), DbError> {
        Ok(())
    }
}
