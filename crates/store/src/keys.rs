//! Keys: our own ring, and the last good key set of each issuer.

use doorward_core::{
    effects::Effects,
    id::RingKeyId,
    ring::{KeyState, Purpose, RingKey},
    time::Timestamp,
};

use crate::{
    AddKey, Store, StoreError,
    memory::Tables,
    op::{Read, Write},
    sql::{Cell, DbError, FromCell, Row, Sql, all, one, statements, values},
};

statements! {
    RING = "SELECT id, purpose, wrapped, created_at, state FROM key_ring WHERE purpose = $1 \
        ORDER BY created_at DESC, id DESC LIMIT 1000",
    RETIRE_PREVIOUS = "UPDATE key_ring SET state = 'retired' WHERE purpose = $1 AND state = 'previous'",
    // The lock on the row of the expected key makes a second rotation wait, and then find it demoted.
    DEMOTE_CURRENT = "UPDATE key_ring SET state = 'previous' WHERE purpose = $1 AND id = $2 AND state = 'current'",
    // Any conflict is a loss: the id, or the unique index that allows one current key for each purpose.
    INSERT_CURRENT = "INSERT INTO key_ring (id, purpose, wrapped, created_at, state) \
        VALUES ($1, $2, $3, $4, 'current') ON CONFLICT DO NOTHING",
    PUT_ISSUER_KEYS = "INSERT INTO issuer_keys (name, key_set, fetched_at) VALUES ($1, $2, $3) \
        ON CONFLICT (name) DO UPDATE SET key_set = excluded.key_set, fetched_at = excluded.fetched_at \
        WHERE issuer_keys.fetched_at <= excluded.fetched_at",
    ISSUER_KEYS = "SELECT key_set, fetched_at FROM issuer_keys WHERE name = $1",
}

impl FromCell for Purpose {
    fn from_cell(cell: Cell) -> Option<Self> {
        Self::parse(&String::from_cell(cell)?)
    }
}

impl FromCell for KeyState {
    fn from_cell(cell: Cell) -> Option<Self> {
        Self::parse(&String::from_cell(cell)?)
    }
}

fn read_ring_key(row: &mut Row) -> Result<RingKey, DbError> {
    Ok(RingKey {
        id: row.column()?,
        purpose: row.column()?,
        wrapped: row.column()?,
        created_at: row.column()?,
        state: row.column()?,
    })
}

impl Store {
    /// The keys of a purpose, newest first; 1,000 at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ring(&self, purpose: Purpose) -> Result<Vec<RingKey>, StoreError> {
        self.read(Ring { purpose }).await
    }

    /// Makes `key` the current one of its purpose if `expected_current` still is (`None`: there is none yet).
    ///
    /// The key that was current becomes previous, the previous one retired; `key.state` is not looked at. Of two
    /// processes that rotate at once one gets `Added`; the other reads the ring again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_ring_key(
        &self,
        key: RingKey,
        expected_current: Option<RingKeyId>,
        effects: Effects,
    ) -> Result<AddKey, StoreError> {
        self.write(Add { key, expected_current }, effects).await
    }

    /// Keeps the last good key set of an issuer. An older set never replaces a newer one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_issuer_keys(&self, name: String, json: String, at: Timestamp) -> Result<(), StoreError> {
        self.write(PutIssuerKeys { name, json, at }, Effects::default()).await
    }

    /// The last good key set of an issuer, and when it was fetched. The text is not checked here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn issuer_keys(&self, name: String) -> Result<Option<(String, Timestamp)>, StoreError> {
        self.read(IssuerKeys { name }).await
    }
}

struct Ring {
    purpose: Purpose,
}

impl Read for Ring {
    type Out = Vec<RingKey>;
    const NAME: &'static str = "ring";

    fn memory(&self, tables: &Tables) -> Result<Vec<RingKey>, DbError> {
        let mut keys: Vec<RingKey> = tables.ring.iter().filter(|key| key.purpose == self.purpose).cloned().collect();
        keys.sort_by_key(|key| std::cmp::Reverse((key.created_at, key.id)));
        Ok(keys)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<RingKey>, DbError> {
        all(sql.rows(&RING, values![self.purpose.as_str()]).await?, read_ring_key)
    }
}

struct Add {
    key: RingKey,
    expected_current: Option<RingKeyId>,
}

impl Write for Add {
    type Out = AddKey;
    const NAME: &'static str = "add_ring_key";

    fn commits(out: &AddKey) -> bool {
        *out == AddKey::Added
    }

    fn memory(&self, tables: &mut Tables) -> Result<AddKey, DbError> {
        let purpose = self.key.purpose;
        let current = tables.ring.iter().find(|key| key.purpose == purpose && key.state == KeyState::Current);
        if current.map(|key| key.id) != self.expected_current || tables.ring.iter().any(|key| key.id == self.key.id) {
            return Ok(AddKey::Lost);
        }
        for key in tables.ring.iter_mut().filter(|key| key.purpose == purpose) {
            key.state = match key.state {
                KeyState::Current => KeyState::Previous,
                KeyState::Previous | KeyState::Retired => KeyState::Retired,
            };
        }
        tables.ring.push(RingKey { state: KeyState::Current, ..self.key.clone() });
        Ok(AddKey::Added)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<AddKey, DbError> {
        let RingKey { id, purpose, wrapped, created_at, state: _ } = &self.key;
        let purpose = purpose.as_str();
        if let Some(expected) = self.expected_current {
            sql.execute(&RETIRE_PREVIOUS, values![purpose]).await?;
            if sql.execute(&DEMOTE_CURRENT, values![purpose, expected]).await? == 0 {
                return Ok(AddKey::Lost);
            }
        }
        let inserted = sql.execute(&INSERT_CURRENT, values![*id, purpose, wrapped.as_slice(), *created_at]).await?;
        Ok(if inserted == 1 { AddKey::Added } else { AddKey::Lost })
    }
}

struct PutIssuerKeys {
    name: String,
    json: String,
    at: Timestamp,
}

impl Write for PutIssuerKeys {
    type Out = ();
    const NAME: &'static str = "put_issuer_keys";

    fn memory(&self, tables: &mut Tables) -> Result<(), DbError> {
        if tables.issuer_keys.get(&self.name).is_none_or(|(_, at)| *at <= self.at) {
            tables.issuer_keys.insert(self.name.clone(), (self.json.clone(), self.at));
        }
        Ok(())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<(), DbError> {
        sql.execute(&PUT_ISSUER_KEYS, values![self.name.as_str(), self.json.as_str(), self.at]).await?;
        Ok(())
    }
}

struct IssuerKeys {
    name: String,
}

impl Read for IssuerKeys {
    type Out = Option<(String, Timestamp)>;
    const NAME: &'static str = "issuer_keys";

    fn memory(&self, tables: &Tables) -> Result<Self::Out, DbError> {
        Ok(tables.issuer_keys.get(&self.name).cloned())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Self::Out, DbError> {
        let row = one(sql, &ISSUER_KEYS, values![self.name.as_str()]).await?;
        row.map(|mut row| Ok((row.column()?, row.column()?))).transpose()
    }
}
