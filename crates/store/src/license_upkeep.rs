//! Licenses that somebody has to ask about again, and those that are to be forgotten.

use doorward_core::{effects::Effects, license::Holder, time::Timestamp};

use crate::{
    LicenseRow, Store, StoreError,
    licenses::{license_columns, read_license},
    memory::Tables,
    op::{Read, Write},
    sql::{DbError, Sql, all, statements, values},
    store::page,
};

statements! {
    UNCONFIRMED = concat!("SELECT ", license_columns!(), " FROM licenses WHERE confirmed_at <= $1 OR confirmed_at > $2 \
        ORDER BY COALESCE(tried_at, confirmed_at), holder LIMIT $3"),
    LICENSE_TRIED = "UPDATE licenses SET tried_at = $2 WHERE holder = $1",
    FORGET_LICENSE = "DELETE FROM licenses WHERE holder = $1",
}

impl Store {
    /// Licenses that nobody has confirmed since `before`, the longest unconfirmed first, and behind them those that bear a
    /// confirmation from after `ahead`, a time that is still to come: nobody can tell when that was. One that was asked about in
    /// vain ([`Store::license_tried`]) stands where one does that was confirmed at that time, so it keeps nobody waiting.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unconfirmed_licenses(
        &self,
        before: Timestamp,
        ahead: Timestamp,
        limit: u32,
    ) -> Result<Vec<LicenseRow>, StoreError> {
        self.read(Unconfirmed { before, ahead, limit }).await
    }

    /// Notes that a provider was asked about this license at `at` and gave no answer; forgotten when one is written down.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn license_tried(&self, holder: Holder, at: Timestamp) -> Result<(), StoreError> {
        self.write(Tried { holder, at }, Effects::default()).await
    }

    /// Forgets what is known of a holder's license, so that whatever is said next counts, however old it is. Whether
    /// anything was known; `effects` only then.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_license(&self, holder: Holder, effects: Effects) -> Result<bool, StoreError> {
        self.write(Forget { holder }, effects).await
    }
}

struct Unconfirmed {
    before: Timestamp,
    ahead: Timestamp,
    limit: u32,
}

impl Read for Unconfirmed {
    type Out = Vec<LicenseRow>;
    const NAME: &'static str = "unconfirmed_licenses";

    fn memory(&self, tables: &Tables) -> Result<Self::Out, DbError> {
        let is_due = |row: &&LicenseRow| row.known.confirmed_at <= self.before || row.known.confirmed_at > self.ahead;
        let old = tables.licenses.values().filter(is_due);
        let mut old: Vec<LicenseRow> = old.cloned().collect();
        old.sort_by_cached_key(|row| {
            let tried = tables.license_tries.get(&row.holder).copied();
            (tried.unwrap_or(row.known.confirmed_at), row.holder.to_string())
        });
        old.truncate(usize::try_from(page(self.limit)).unwrap_or(0));
        Ok(old)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Self::Out, DbError> {
        all(sql.rows(&UNCONFIRMED, values![self.before, self.ahead, page(self.limit)]).await?, read_license)
    }
}

struct Tried {
    holder: Holder,
    at: Timestamp,
}

impl Write for Tried {
    type Out = ();
    const NAME: &'static str = "license_tried";

    fn memory(&self, tables: &mut Tables) -> Result<(), DbError> {
        if tables.licenses.contains_key(&self.holder) {
            tables.license_tries.insert(self.holder, self.at);
        }
        Ok(())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<(), DbError> {
        let holder = self.holder.to_string();
        sql.execute(&LICENSE_TRIED, values![holder.as_str(), self.at]).await.map(drop)
    }
}

struct Forget {
    holder: Holder,
}

impl Write for Forget {
    type Out = bool;
    const NAME: &'static str = "forget_license";

    fn commits(out: &bool) -> bool {
        *out
    }

    fn memory(&self, tables: &mut Tables) -> Result<bool, DbError> {
        tables.license_tries.remove(&self.holder);
        Ok(tables.licenses.remove(&self.holder).is_some())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<bool, DbError> {
        let holder = self.holder.to_string();
        Ok(sql.execute(&FORGET_LICENSE, values![holder.as_str()]).await? > 0)
    }
}
