//! What all processes share while they run: named values, and counts of sign-in methods.

use doorward_core::{effects::Effects, time::Timestamp};

use crate::{
    Store, StoreError,
    memory::Tables,
    op::{Read, Write},
    sql::{Cell, DbError, FromCell, Lock, Row, Sql, Value, all, one, statements, values},
};

/// Most counts that are read at once: 90 days of far more methods than there are.
const COUNTS: usize = 10_000;

/// A value that all processes share; the file with the settings is its ceiling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The value; its form is its owner's.
    pub value: String,
    /// Counts up with every change, from 1.
    pub version: i64,
    /// When it was set.
    pub at: Timestamp,
}

/// Outcome of `set_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetState {
    /// The value is set.
    Set,
    /// Somebody else set it meanwhile; nothing was changed. Read it again.
    Changed,
}

/// What a method count counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CountKind {
    /// Sessions that began.
    SignIn,
    /// Requests that were let in.
    Request,
}

/// How often a method of authentication was used on a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodCount {
    /// Days since the Unix epoch, UTC.
    pub day: i64,
    /// What is counted.
    pub kind: CountKind,
    /// Name of the method.
    pub method: String,
    /// How often.
    pub count: u64,
}

statements! {
    STATE = "SELECT value, version, at FROM runtime_state WHERE name = $1",
    INSERT_STATE = "INSERT INTO runtime_state (name, value, version, at) VALUES ($1, $2, 1, $3) ON CONFLICT DO NOTHING",
    UPDATE_STATE = "UPDATE runtime_state SET value = $2, at = $3, version = version + 1 \
        WHERE name = $1 AND version = $4",
    ADD_COUNT = "INSERT INTO method_counts (day, kind, method, uses) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (day, kind, method) DO UPDATE SET uses = method_counts.uses + excluded.uses",
    COUNTS_FROM = "SELECT day, kind, method, uses FROM method_counts WHERE day >= $1 ORDER BY day, kind, method \
        LIMIT $2",
}

const fn kind_word(kind: CountKind) -> &'static str {
    match kind {
        CountKind::SignIn => "sign_in",
        CountKind::Request => "request",
    }
}

impl FromCell for CountKind {
    fn from_cell(cell: Cell) -> Option<Self> {
        let word = String::from_cell(cell)?;
        [Self::SignIn, Self::Request].into_iter().find(|&kind| kind_word(kind) == word)
    }
}

impl Store {
    /// The shared value of this name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn state(&self, name: String) -> Result<Option<State>, StoreError> {
        self.read(Look { name }).await
    }

    /// Sets a shared value if it still has `expected_version`; 0 means that there is none yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_state(
        &self,
        name: String,
        expected_version: i64,
        value: String,
        at: Timestamp,
        effects: Effects,
    ) -> Result<SetState, StoreError> {
        self.write(Set { name, expected_version, value, at }, effects).await
    }

    /// Adds to the method counts; hand in what was collected over a while, not every use.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_counts(&self, mut counts: Vec<MethodCount>) -> Result<(), StoreError> {
        // One order for everybody: no two batches wait for each other.
        counts.sort_unstable_by(|a, b| (a.day, a.kind, &a.method).cmp(&(b.day, b.kind, &b.method)));
        self.write(AddCounts { counts }, Effects::default()).await
    }

    /// The method counts from `from_day` (days since the Unix epoch) on, in the order of day, kind and method; 10,000
    /// at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn counts(&self, from_day: i64) -> Result<Vec<MethodCount>, StoreError> {
        let mut counts = self.read(Counts { from_day }).await?;
        counts.sort_unstable_by(|a, b| (a.day, a.kind, &a.method).cmp(&(b.day, b.kind, &b.method)));
        Ok(counts)
    }
}

struct Look {
    name: String,
}

impl Read for Look {
    type Out = Option<State>;
    const NAME: &'static str = "state";

    fn memory(&self, tables: &Tables) -> Result<Option<State>, DbError> {
        Ok(tables.state.get(&self.name).cloned())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Option<State>, DbError> {
        let row = one(sql, &STATE, values![self.name.as_str()]).await?;
        row.map(|mut row| Ok(State { value: row.column()?, version: row.column()?, at: row.column()? })).transpose()
    }
}

struct Set {
    name: String,
    expected_version: i64,
    value: String,
    at: Timestamp,
}

impl Write for Set {
    type Out = SetState;
    const NAME: &'static str = "set_state";

    fn commits(out: &SetState) -> bool {
        *out == SetState::Set
    }

    fn memory(&self, tables: &mut Tables) -> Result<SetState, DbError> {
        let version = tables.state.get(&self.name).map_or(0, |state| state.version);
        if version != self.expected_version {
            return Ok(SetState::Changed);
        }
        let state = State { value: self.value.clone(), version: version + 1, at: self.at };
        tables.state.insert(self.name.clone(), state);
        Ok(SetState::Set)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<SetState, DbError> {
        let (name, value) = (self.name.as_str(), self.value.as_str());
        sql.lock(Lock::State).await?;
        let touched = if self.expected_version == 0 {
            sql.execute(&INSERT_STATE, values![name, value, self.at]).await?
        } else {
            sql.execute(&UPDATE_STATE, values![name, value, self.at, self.expected_version]).await?
        };
        Ok(if touched == 1 { SetState::Set } else { SetState::Changed })
    }
}

struct AddCounts {
    counts: Vec<MethodCount>,
}

impl Write for AddCounts {
    type Out = ();
    const NAME: &'static str = "add_counts";

    fn memory(&self, tables: &mut Tables) -> Result<(), DbError> {
        for MethodCount { day, kind, method, count } in &self.counts {
            let uses = tables.counts.entry((*day, *kind, method.clone())).or_default();
            *uses = uses.saturating_add(*count);
        }
        Ok(())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<(), DbError> {
        let row = |one: &'_ MethodCount| i64::try_from(one.count).unwrap_or(i64::MAX);
        let lists: Vec<[Value<'_>; 4]> = self
            .counts
            .iter()
            .map(|one| [one.day.into(), kind_word(one.kind).into(), one.method.as_str().into(), row(one).into()])
            .collect();
        sql.each(&ADD_COUNT, &lists).await?;
        Ok(())
    }
}

struct Counts {
    from_day: i64,
}

impl Read for Counts {
    type Out = Vec<MethodCount>;
    const NAME: &'static str = "counts";

    fn memory(&self, tables: &Tables) -> Result<Vec<MethodCount>, DbError> {
        let counts = tables.counts.iter().filter(|((day, ..), _)| *day >= self.from_day);
        let count = |((day, kind, method), count): (&(i64, CountKind, String), &u64)| MethodCount {
            day: *day,
            kind: *kind,
            method: method.clone(),
            count: *count,
        };
        Ok(counts.take(COUNTS).map(count).collect())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<MethodCount>, DbError> {
        let read = |row: &mut Row| {
            Ok(MethodCount { day: row.column()?, kind: row.column()?, method: row.column()?, count: row.column()? })
        };
        all(sql.rows(&COUNTS_FROM, values![self.from_day, COUNTS as i64]).await?, read)
    }
}
