//! The blocklist: those entries of the revocation log that name a token or a subject and are in force.
//!
//! Entries for the same name add up: it is blocked as long as one of them is in force. Lifting takes all of them out of
//! the log, so that whoever reads it from its start finds none, and tells those who have read them by an entry of its
//! own, which ends ([`NewRevocation::lifting`](doorward_core::revocation::NewRevocation::lifting)).

use doorward_core::{
    effects::Effects,
    revocation::{Revocation, Scope},
    time::Timestamp,
};

use crate::{
    Store, StoreError, Unblock,
    memory::Tables,
    op::{Read, Write},
    revocations::{read_revocation, scope_text},
    sql::{DbError, Lock, Sql, all, one, statements, values},
    store::page,
};

// A scope's text is its JSON, always written the same way.
statements! {
    BLOCKLIST = "SELECT seq, scope, at, until_at, why FROM revocations WHERE seq > $2 \
        AND (scope LIKE '{\"kind\":\"token\",%' OR scope LIKE '{\"kind\":\"subject\",%') \
        AND (until_at IS NULL OR until_at > $1) ORDER BY seq LIMIT $3",
    BLOCKED = "SELECT seq, scope, at, until_at, why FROM revocations WHERE scope = $2 \
        AND (until_at IS NULL OR until_at > $1) ORDER BY seq DESC LIMIT 1",
    TAKE_BACK = "DELETE FROM revocations WHERE scope = $1",
}

impl Store {
    /// Blocklist entries in force at `now` with a number above `after`, in order; 1,000 at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn blocklist(&self, now: Timestamp, after: i64, limit: u32) -> Result<Vec<Revocation>, StoreError> {
        self.read(List { now, after, limit: page(limit) }).await
    }

    /// The newest blocklist entry for `scope` in force at `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn blocked(&self, scope: Scope, now: Timestamp) -> Result<Option<Revocation>, StoreError> {
        self.read(Find { scope, now }).await
    }

    /// Takes back what blocks `scope`. The effects, which must hold the [`Scope::Lifted`] entry for those who have read
    /// what is taken back, are committed only if there is something.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unblock(&self, scope: Scope, now: Timestamp, effects: Effects) -> Result<Unblock, StoreError> {
        self.write(Lift(Find { scope, now }), effects).await
    }
}

/// The entries in force, oldest first, as they would be read from the log.
fn in_force(tables: &Tables, now: Timestamp) -> impl Iterator<Item = Revocation> {
    let entries = tables
        .revocations
        .iter()
        .filter(move |(_, entry)| entry.scope.is_blocklist() && entry.until.is_none_or(|until| until > now));
    entries.map(|(seq, entry)| Revocation { seq: *seq, entry: entry.clone() })
}

struct List {
    now: Timestamp,
    after: i64,
    limit: i64,
}

impl Read for List {
    type Out = Vec<Revocation>;
    const NAME: &'static str = "blocklist";

    fn memory(&self, tables: &Tables) -> Result<Vec<Revocation>, DbError> {
        let entries = in_force(tables, self.now).filter(|entry| entry.seq > self.after);
        Ok(entries.take(usize::try_from(self.limit).unwrap_or(0)).collect())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<Revocation>, DbError> {
        all(sql.rows(&BLOCKLIST, values![self.now, self.after, self.limit]).await?, read_revocation)
    }
}

struct Find {
    scope: Scope,
    now: Timestamp,
}

impl Read for Find {
    type Out = Option<Revocation>;
    const NAME: &'static str = "blocked";

    fn memory(&self, tables: &Tables) -> Result<Option<Revocation>, DbError> {
        Ok(in_force(tables, self.now).filter(|entry| entry.entry.scope == self.scope).last())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Option<Revocation>, DbError> {
        let scope = scope_text(&self.scope)?;
        one(sql, &BLOCKED, values![self.now, scope.as_str()])
            .await?
            .map(|mut row| read_revocation(&mut row))
            .transpose()
    }
}

struct Lift(Find);

impl Write for Lift {
    type Out = Unblock;
    const NAME: &'static str = "unblock";

    fn commits(out: &Unblock) -> bool {
        matches!(out, Unblock::Lifted)
    }

    fn memory(&self, tables: &mut Tables) -> Result<Unblock, DbError> {
        if self.0.memory(tables)?.is_none() {
            return Ok(Unblock::NotListed);
        }
        tables.revocations.retain(|_, entry| entry.scope != self.0.scope);
        Ok(Unblock::Lifted)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Unblock, DbError> {
        // An entry that became visible in between would be in the log for good, and lifted for all who have read it.
        sql.lock(Lock::Revocations).await?;
        if self.0.sql(sql).await?.is_none() {
            return Ok(Unblock::NotListed);
        }
        let scope = scope_text(&self.0.scope)?;
        sql.execute(&TAKE_BACK, values![scope.as_str()]).await?;
        Ok(Unblock::Lifted)
    }
}
