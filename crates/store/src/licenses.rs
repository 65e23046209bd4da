//! Licenses: what is known of each, and which webhooks have been taken.

use std::collections::BTreeSet;

use doorward_core::{
    effects::Effects,
    license::{Holder, Known, LicenseState, Observation},
    time::Timestamp,
};

use crate::{
    Store, StoreError,
    memory::Tables,
    op::{Read, Write},
    sql::{Cell, DbError, FromCell, Row, Sql, all, one, statements, values},
    store::page,
};

/// A license as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LicenseRow {
    /// Whose it is.
    pub holder: Holder,
    /// What is known of it.
    pub known: Known,
    /// Number of the newest webhook that was taken.
    pub last_seq: Option<i64>,
}

/// What names a webhook, for telling repetitions and older ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LicenseEventMark {
    /// Its id; one that was taken before is a repetition.
    pub id: Option<String>,
    /// Its number among those of its holder; one that is not above the last is old.
    pub seq: Option<i64>,
}

/// A change to what is known of a license.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LicenseChange {
    /// Whose it is.
    pub holder: Holder,
    /// What the plan was made on; `None`: nothing was known.
    pub expected: Option<Known>,
    /// What is known now.
    pub known: Known,
    /// The webhook that brought it, where one did.
    pub event: Option<LicenseEventMark>,
    /// When.
    pub at: Timestamp,
}

/// Outcome of `apply_license`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyLicense {
    /// It is known now.
    Applied,
    /// The webhook was taken before, or a newer one was; nothing was changed.
    Repeated,
    /// Somebody else changed it since the plan was made; nothing was changed.
    Changed,
}

/// The columns of a license, in the order of [`read_license`].
macro_rules! license_columns {
    () => {
        "holder, state, license_id, expires_at, entitlements, observed_at, confirmed_at, last_seq"
    };
}
pub(crate) use license_columns;

statements! {
    LICENSE = concat!("SELECT ", license_columns!(), " FROM licenses WHERE holder = $1"),
    LICENSES_OF = concat!("SELECT ", license_columns!(), " FROM licenses WHERE license_id = $1 ORDER BY holder LIMIT 1000"),
    ENDING = concat!("SELECT ", license_columns!(), " FROM licenses WHERE expires_at > $1 AND expires_at <= $2 \
        AND state IN ('active', 'expired') AND holder > $3 ORDER BY holder LIMIT $4"),
    STATE_COUNTS = "SELECT state, COUNT(*) FROM licenses GROUP BY state",
    INSERT_LICENSE = "INSERT INTO licenses (holder, user_id, state, license_id, expires_at, entitlements, observed_at, \
        confirmed_at, last_seq) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (holder) DO NOTHING",
    UPDATE_LICENSE = "UPDATE licenses SET state = $2, license_id = $3, expires_at = $4, entitlements = $5, \
        observed_at = $6, confirmed_at = $7, last_seq = COALESCE($8, last_seq), tried_at = NULL \
        WHERE holder = $1 AND observed_at = $9 AND confirmed_at = $10 AND COALESCE(last_seq < $8, TRUE)",
    TAKE_EVENT = "INSERT INTO license_events (id, at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING",
    LAST_SEQ = "SELECT last_seq FROM licenses WHERE holder = $1",
    FORGET_EVENTS = "DELETE FROM license_events WHERE id IN (SELECT id FROM license_events WHERE at <= $1 LIMIT $2)",
}

impl FromCell for LicenseState {
    fn from_cell(cell: Cell) -> Option<Self> {
        Self::parse(&String::from_cell(cell)?)
    }
}

impl FromCell for Holder {
    fn from_cell(cell: Cell) -> Option<Self> {
        String::from_cell(cell)?.parse().ok()
    }
}

pub(crate) fn read_license(row: &mut Row) -> Result<LicenseRow, DbError> {
    let holder = row.column()?;
    let (state, license_id, expires_at) = (row.column()?, row.optional()?, row.optional()?);
    let entitlements: String = row.column()?;
    let entitlements: BTreeSet<String> = serde_json::from_str(&entitlements)
        .map_err(|_| DbError::Fault("licenses.entitlements is no list of texts".to_owned()))?;
    let observation = Observation { state, license_id, expires_at, entitlements, observed_at: row.column()? };
    let known = Known { observation, confirmed_at: row.column()? };
    Ok(LicenseRow { holder, known, last_seq: row.optional()? })
}

impl Store {
    /// What is known of a holder's license.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn license(&self, holder: Holder) -> Result<Option<LicenseRow>, StoreError> {
        self.read(OfHolder { holder }).await
    }

    /// Those who hold the license with this name of the provider; 1,000 at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn licenses_named(&self, license_id: String) -> Result<Vec<LicenseRow>, StoreError> {
        self.read(Named { license_id }).await
    }

    /// Licenses that end after `from` and not after `until`, as they say themselves, and are not ended for another
    /// reason; a page in the order of their holders' texts, behind `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ending_licenses(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: Option<Holder>,
        limit: u32,
    ) -> Result<Vec<LicenseRow>, StoreError> {
        self.read(Ending { from, until, after: after.map(|holder| holder.to_string()).unwrap_or_default(), limit })
            .await
    }

    /// How many licenses are known in each state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn license_counts(&self) -> Result<Vec<(LicenseState, u64)>, StoreError> {
        self.read(Counts).await
    }

    /// Applies what was planned ([`doorward_core::license::plan`]), if what it was planned on still holds and the
    /// webhook that brought it is new.
    ///
    /// # Errors
    /// [`StoreError`]; a user who does not exist is a fault.
    pub async fn apply_license(&self, change: LicenseChange, effects: Effects) -> Result<ApplyLicense, StoreError> {
        self.write(Apply { change }, effects).await
    }

    /// Forgets webhooks that were taken until `before`; a repetition of one is then only told by its number and time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_license_events(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        loop {
            let more = self.write(Forget { before }, Effects::default()).await?;
            forgotten += more;
            if more < BATCH {
                return Ok(forgotten);
            }
        }
    }
}

/// Rows that one transaction of a clean-up touches.
const BATCH: u64 = 500;

struct OfHolder {
    holder: Holder,
}

impl Read for OfHolder {
    type Out = Option<LicenseRow>;
    const NAME: &'static str = "license";

    fn memory(&self, tables: &Tables) -> Result<Self::Out, DbError> {
        Ok(tables.licenses.get(&self.holder).cloned())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Self::Out, DbError> {
        let holder = self.holder.to_string();
        one(sql, &LICENSE, values![holder.as_str()]).await?.map(|mut row| read_license(&mut row)).transpose()
    }
}

struct Named {
    license_id: String,
}

impl Read for Named {
    type Out = Vec<LicenseRow>;
    const NAME: &'static str = "licenses_named";

    fn memory(&self, tables: &Tables) -> Result<Self::Out, DbError> {
        let name = Some(&self.license_id);
        let found = tables.licenses.values().filter(|row| row.known.observation.license_id.as_ref() == name);
        let mut found: Vec<LicenseRow> = found.cloned().collect();
        found.sort_unstable_by_key(|row| row.holder.to_string());
        found.truncate(1000);
        Ok(found)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Self::Out, DbError> {
        all(sql.rows(&LICENSES_OF, values![self.license_id.as_str()]).await?, read_license)
    }
}

struct Ending {
    from: Timestamp,
    until: Timestamp,
    after: String,
    limit: u32,
}

impl Read for Ending {
    type Out = Vec<LicenseRow>;
    const NAME: &'static str = "ending_licenses";

    fn memory(&self, tables: &Tables) -> Result<Self::Out, DbError> {
        let ends = |row: &&LicenseRow| {
            let observation = &row.known.observation;
            let counts = matches!(observation.state, LicenseState::Active | LicenseState::Expired);
            counts && observation.expires_at.is_some_and(|end| end > self.from && end <= self.until)
        };
        let mut found: Vec<(String, LicenseRow)> =
            tables.licenses.values().filter(ends).map(|row| (row.holder.to_string(), row.clone())).collect();
        found.retain(|(holder, _)| *holder > self.after);
        found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        found.truncate(usize::try_from(page(self.limit)).unwrap_or(0));
        Ok(found.into_iter().map(|(_, row)| row).collect())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Self::Out, DbError> {
        let values = values![self.from, self.until, self.after.as_str(), page(self.limit)];
        all(sql.rows(&ENDING, values).await?, read_license)
    }
}

struct Counts;

impl Read for Counts {
    type Out = Vec<(LicenseState, u64)>;
    const NAME: &'static str = "license_counts";

    fn memory(&self, tables: &Tables) -> Result<Self::Out, DbError> {
        let count = |state| tables.licenses.values().filter(|row| row.known.observation.state == state).count() as u64;
        Ok(LicenseState::ALL.iter().map(|state| (*state, count(*state))).filter(|(_, count)| *count > 0).collect())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Self::Out, DbError> {
        let mut counts: Vec<(LicenseState, u64)> =
            all(sql.rows(&STATE_COUNTS, &[]).await?, |row| Ok((row.column()?, row.column()?)))?;
        counts.sort_unstable_by_key(|(state, _)| LicenseState::ALL.iter().position(|known| known == state));
        Ok(counts)
    }
}

struct Apply {
    change: LicenseChange,
}

impl Write for Apply {
    type Out = ApplyLicense;
    const NAME: &'static str = "apply_license";

    fn commits(out: &ApplyLicense) -> bool {
        *out == ApplyLicense::Applied
    }

    fn memory(&self, tables: &mut Tables) -> Result<ApplyLicense, DbError> {
        let LicenseChange { holder, expected, known, event, at } = &self.change;
        if let Some(user) = holder.user() {
            tables.require_user(user)?;
        }
        let row = tables.licenses.get(holder);
        let last_seq = row.and_then(|row| row.last_seq);
        let (id, seq) = event.as_ref().map_or((None, None), |event| (event.id.as_ref(), event.seq));
        if id.is_some_and(|id| tables.license_events.contains_key(id)) || is_old(seq, last_seq) {
            return Ok(ApplyLicense::Repeated);
        }
        let stamps = |known: &Known| (known.observation.observed_at, known.confirmed_at);
        if row.map(|row| stamps(&row.known)) != expected.as_ref().map(stamps) {
            return Ok(ApplyLicense::Changed);
        }
        let row = LicenseRow { holder: *holder, known: known.clone(), last_seq: seq.or(last_seq) };
        if let Some(id) = id {
            tables.license_events.insert(id.clone(), *at);
        }
        tables.licenses.insert(*holder, row);
        tables.license_tries.remove(holder);
        Ok(ApplyLicense::Applied)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<ApplyLicense, DbError> {
        let LicenseChange { holder, expected, known, event, at } = &self.change;
        let text = holder.to_string();
        let (id, seq) = event.as_ref().map_or((None, None), |event| (event.id.as_deref(), event.seq));
        if let Some(id) = id
            && !take_event(sql, id, *at).await?
        {
            return Ok(ApplyLicense::Repeated);
        }
        if seq.is_some()
            && let Some(mut row) = one(sql, &LAST_SEQ, values![text.as_str()]).await?
            && is_old(seq, row.optional()?)
        {
            return Ok(ApplyLicense::Repeated);
        }
        let Observation { state, license_id, expires_at, entitlements, observed_at } = &known.observation;
        let list = serde_json::to_string(entitlements).unwrap_or_else(|_| "[]".to_owned());
        let (state, license_id) = (state.as_str(), license_id.as_deref());
        let touched = match expected {
            None => {
                let values = values![
                    text.as_str(),
                    holder.user(),
                    state,
                    license_id,
                    *expires_at,
                    list.as_str(),
                    *observed_at,
                    known.confirmed_at,
                    seq
                ];
                sql.execute(&INSERT_LICENSE, values).await?
            }
            Some(expected) => {
                let values = values![
                    text.as_str(),
                    state,
                    license_id,
                    *expires_at,
                    list.as_str(),
                    *observed_at,
                    known.confirmed_at,
                    seq,
                    expected.observation.observed_at,
                    expected.confirmed_at
                ];
                sql.execute(&UPDATE_LICENSE, values).await?
            }
        };
        Ok(if touched == 1 { ApplyLicense::Applied } else { ApplyLicense::Changed })
    }
}

/// Remembers that the webhook `id` was taken, inside a transaction; `false`: it was before.
pub(crate) async fn take_event(sql: &mut impl Sql, id: &str, at: Timestamp) -> Result<bool, DbError> {
    Ok(sql.execute(&TAKE_EVENT, values![id, at]).await? == 1)
}

/// Whether a webhook with number `seq` is no newer than the last one taken.
fn is_old(seq: Option<i64>, last: Option<i64>) -> bool {
    seq.zip(last).is_some_and(|(seq, last)| seq <= last)
}

struct Forget {
    before: Timestamp,
}

impl Write for Forget {
    type Out = u64;
    const NAME: &'static str = "forget_license_events";

    fn memory(&self, tables: &mut Tables) -> Result<u64, DbError> {
        let old: Vec<String> = tables
            .license_events
            .iter()
            .filter(|(_, at)| **at <= self.before)
            .map(|(id, _)| id.clone())
            .take(BATCH as usize)
            .collect();
        for id in &old {
            tables.license_events.remove(id);
        }
        Ok(old.len() as u64)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<u64, DbError> {
        sql.execute(&FORGET_EVENTS, values![self.before, BATCH as i64]).await
    }
}
