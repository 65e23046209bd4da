//! Hints that a license changed: noted before the provider is told that we heard, kept until it was asked again.

use doorward_core::{effects::Effects, license::Holder, time::Timestamp};

use crate::{
    Store, StoreError,
    licenses::take_event,
    memory::Tables,
    op::{Read, Write},
    sql::{DbError, Sql, Value, all, statements, values},
    store::page,
};

/// Outcome of `note_license_hint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteHint {
    /// It is noted.
    Noted,
    /// The webhook that brought it was taken before; nothing was changed.
    Repeated,
}

statements! {
    NOTE_HINT = "INSERT INTO license_hints (holder, user_id, at) VALUES ($1, $2, $3) \
        ON CONFLICT (holder) DO UPDATE SET at = excluded.at WHERE license_hints.at < excluded.at",
    HINTS = "SELECT holder, at FROM license_hints WHERE at <= $1 ORDER BY at, holder LIMIT $2",
    SETTLE_HINT = "DELETE FROM license_hints WHERE holder = $1 AND at <= $2",
}

impl Store {
    /// Notes that the license of each of `holders` is to be asked for again, and that the webhook `event` was taken.
    /// One that was taken before changes nothing.
    ///
    /// # Errors
    /// [`StoreError`]; a user who does not exist is a fault.
    pub async fn note_license_hint(
        &self,
        event: String,
        mut holders: Vec<Holder>,
        at: Timestamp,
    ) -> Result<NoteHint, StoreError> {
        // One order for everybody: no two webhooks wait for each other.
        holders.sort_unstable();
        holders.dedup();
        self.write(Note { event, holders, at }, Effects::default()).await
    }

    /// Holders with a hint noted at or before `until`, the oldest first; 1,000 at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn license_hints(&self, until: Timestamp, limit: u32) -> Result<Vec<(Holder, Timestamp)>, StoreError> {
        self.read(Hints { until, limit: page(limit) }).await
    }

    /// Forgets the hint about `holder`, unless a newer one than that of `at` came meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn settle_license_hint(&self, holder: Holder, at: Timestamp) -> Result<(), StoreError> {
        self.write(Settle { holder, at }, Effects::default()).await
    }
}

struct Note {
    event: String,
    holders: Vec<Holder>,
    at: Timestamp,
}

impl Write for Note {
    type Out = NoteHint;
    const NAME: &'static str = "note_license_hint";

    fn commits(out: &NoteHint) -> bool {
        *out == NoteHint::Noted
    }

    fn memory(&self, tables: &mut Tables) -> Result<NoteHint, DbError> {
        for user in self.holders.iter().filter_map(|holder| holder.user()) {
            tables.require_user(user)?;
        }
        if tables.license_events.contains_key(&self.event) {
            return Ok(NoteHint::Repeated);
        }
        tables.license_events.insert(self.event.clone(), self.at);
        for holder in &self.holders {
            let at = tables.license_hints.entry(*holder).or_insert(self.at);
            *at = self.at.max(*at);
        }
        Ok(NoteHint::Noted)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<NoteHint, DbError> {
        if !take_event(sql, &self.event, self.at).await? {
            return Ok(NoteHint::Repeated);
        }
        for holder in &self.holders {
            let text = holder.to_string();
            sql.execute(&NOTE_HINT, values![text.as_str(), holder.user(), self.at]).await?;
        }
        Ok(NoteHint::Noted)
    }
}

struct Hints {
    until: Timestamp,
    limit: i64,
}

impl Read for Hints {
    type Out = Vec<(Holder, Timestamp)>;
    const NAME: &'static str = "license_hints";

    fn memory(&self, tables: &Tables) -> Result<Self::Out, DbError> {
        let due = tables.license_hints.iter().filter(|(_, at)| **at <= self.until);
        let mut due: Vec<(Holder, Timestamp)> = due.map(|(holder, at)| (*holder, *at)).collect();
        due.sort_unstable_by_key(|(holder, at)| (*at, holder.to_string()));
        due.truncate(usize::try_from(self.limit).unwrap_or(0));
        Ok(due)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Self::Out, DbError> {
        all(sql.rows(&HINTS, values![self.until, self.limit]).await?, |row| Ok((row.column()?, row.column()?)))
    }
}

struct Settle {
    holder: Holder,
    at: Timestamp,
}

impl Write for Settle {
    type Out = ();
    const NAME: &'static str = "settle_license_hint";

    fn memory(&self, tables: &mut Tables) -> Result<(), DbError> {
        if tables.license_hints.get(&self.holder).is_some_and(|at| *at <= self.at) {
            tables.license_hints.remove(&self.holder);
        }
        Ok(())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<(), DbError> {
        let holder = self.holder.to_string();
        let values: [Value<'_>; 2] = [holder.as_str().into(), self.at.into()];
        sql.execute(&SETTLE_HINT, &values).await.map(drop)
    }
}
