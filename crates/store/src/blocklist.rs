//! The blocklist: those entries of the revocation log that name a token or a subject, are in force and were not lifted.
//!
//! Entries for the same name add up: it is blocked as long as one of them is in force. Lifting takes back all that
//! came before it, and stays in the log, so that whoever reads the log from its start comes to the same result.

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
    sql::{DbError, Sql, all, one, statements, values},
    store::page,
};

/// In force at `$1` and not lifted since. A scope's text is its JSON, always written the same way.
macro_rules! in_force {
    () => {
        "(until_at IS NULL OR until_at > $1) AND NOT EXISTS (SELECT 1 FROM revocations AS lifted \
         WHERE lifted.seq > revocations.seq \
         AND lifted.scope = '{\"kind\":\"lifted\",\"scope\":' || revocations.scope || '}')"
    };
}

statements! {
    BLOCKLIST = concat!("SELECT seq, scope, at, until_at, why FROM revocations WHERE seq > $2 \
        AND (scope LIKE '{\"kind\":\"token\",%' OR scope LIKE '{\"kind\":\"subject\",%') AND ", in_force!(),
        " ORDER BY seq LIMIT $3"),
    BLOCKED = concat!("SELECT seq, scope, at, until_at, why FROM revocations WHERE scope = $2 AND ", in_force!(),
        " ORDER BY seq DESC LIMIT 1"),
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

    /// Takes back what blocks `scope`. The effects, which must hold the [`Scope::Lifted`] entry, are committed only
    /// if there is something to take back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unblock(&self, scope: Scope, now: Timestamp, effects: Effects) -> Result<Unblock, StoreError> {
        self.write(Lift(Find { scope, now }), effects).await
    }
}

/// The entries in force, oldest first, as they would be read from the log.
fn in_force(tables: &Tables, now: Timestamp) -> impl Iterator<Item = Revocation> {
    let lifted = |seq: i64, scope: &Scope| {
        tables.revocations.range(seq + 1..).any(|(_, entry)| match &entry.scope {
            Scope::Lifted { scope: lifted } => **lifted == *scope,
            _ => false,
        })
    };
    let entries = tables.revocations.iter().filter(move |(seq, entry)| {
        entry.scope.is_blocklist() && entry.until.is_none_or(|until| until > now) && !lifted(**seq, &entry.scope)
    });
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
        Ok(self.0.memory(tables)?.map_or(Unblock::NotListed, |_| Unblock::Lifted))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Unblock, DbError> {
        Ok(self.0.sql(sql).await?.map_or(Unblock::NotListed, |_| Unblock::Lifted))
    }
}
