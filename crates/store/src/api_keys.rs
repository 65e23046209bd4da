//! API keys: looked up by the hash of the key.

use std::collections::BTreeSet;

use doorward_core::{
    api_key::{ApiKey, KeyOwner},
    effects::Effects,
    id::{ApiKeyId, OrgId, UserId},
    session::TokenHash,
    time::Timestamp,
    user::User,
};

use crate::{
    RevokeApiKey, Store, StoreError,
    memory::Tables,
    op::{Read, Write},
    sql::{DbError, Row, Sql, Value, all, one, statements, values},
    users::{read_user, user_columns},
};

const BATCH: usize = 500;

/// The columns of a key, in the order of [`read_key`].
macro_rules! key_columns {
    () => {
        "api_keys.id, api_keys.hash, api_keys.owner_user_id, api_keys.owner_org_id, api_keys.owner_service, \
         api_keys.org_id, api_keys.name, api_keys.prefix, api_keys.capabilities, api_keys.created_at, \
         api_keys.expires_at, api_keys.revoked_at, api_keys.deleted_at, api_keys.last_used_at"
    };
}

statements! {
    INSERT_KEY = "INSERT INTO api_keys (id, hash, owner_user_id, owner_org_id, owner_service, org_id, name, prefix, \
        capabilities, created_at, expires_at, revoked_at, deleted_at, last_used_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    KEY = concat!("SELECT ", key_columns!(), ", ", user_columns!(),
        " FROM api_keys LEFT JOIN users ON users.id = api_keys.owner_user_id WHERE api_keys.hash = $1"),
    KEYS_OF = concat!("SELECT ", key_columns!(), " FROM api_keys WHERE owner_user_id = $1 ORDER BY id LIMIT 1000"),
    REVOKE_KEY = concat!("UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL RETURNING ",
        key_columns!()),
    KEY_EXISTS = "SELECT id FROM api_keys WHERE id = $1",
    TOUCH_KEY = "UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
}

fn read_key(row: &mut Row) -> Result<ApiKey, DbError> {
    let (id, hash) = (row.column()?, row.column()?);
    let owner: (Option<UserId>, Option<OrgId>, Option<String>) = (row.optional()?, row.optional()?, row.optional()?);
    let owner = match owner {
        (Some(user), None, None) => KeyOwner::User(user),
        (None, Some(org), None) => KeyOwner::Org(org),
        (None, None, Some(service)) => KeyOwner::Service(service),
        (Some(_) | None, Some(_) | None, Some(_) | None) => {
            return Err(DbError::Fault("an API key has not exactly one owner".to_owned()));
        }
    };
    Ok(ApiKey {
        id,
        hash,
        owner,
        org_id: row.optional()?,
        name: row.column()?,
        prefix: row.column()?,
        capabilities: capabilities_from(&row.column::<String>()?)?,
        created_at: row.column()?,
        expires_at: row.optional()?,
        revoked_at: row.optional()?,
        deleted_at: row.optional()?,
        last_used_at: row.optional()?,
    })
}

fn capabilities_from(json: &str) -> Result<BTreeSet<String>, DbError> {
    serde_json::from_str(json).map_err(|error| DbError::Fault(format!("api_keys.capabilities is no list: {error}")))
}

fn capabilities_json(capabilities: &BTreeSet<String>) -> Result<String, DbError> {
    serde_json::to_string(capabilities).map_err(|error| DbError::Fault(format!("capabilities are no list: {error}")))
}

impl Store {
    /// Stores a new API key.
    ///
    /// # Errors
    /// [`StoreError`]; a second use of its id or hash, or an owner that does not exist, is a fault.
    pub async fn put_api_key(&self, key: ApiKey, effects: Effects) -> Result<(), StoreError> {
        self.write(Put { key }, effects).await
    }

    /// The API key with this hash, and the user who owns it where a user does. Revoked and ended keys are found too;
    /// [`doorward_core::api_key::check`] names them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn api_key(&self, hash: TokenHash) -> Result<Option<(ApiKey, Option<User>)>, StoreError> {
        self.read(ByHash { hash }).await
    }

    /// The keys that a user owns, oldest first; 1,000 at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn api_keys(&self, owner: UserId) -> Result<Vec<ApiKey>, StoreError> {
        self.read(OfUser { owner }).await
    }

    /// Takes a key back, for good.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_api_key(
        &self,
        id: ApiKeyId,
        at: Timestamp,
        effects: Effects,
    ) -> Result<RevokeApiKey, StoreError> {
        self.write(Revoke { id, at }, effects).await
    }

    /// Notes when keys were last used. Never moves a time back.
    ///
    /// # Errors
    /// [`StoreError`]; batches written before the error stay written.
    pub async fn touch_api_keys(&self, mut touches: Vec<(ApiKeyId, Timestamp)>) -> Result<(), StoreError> {
        touches.sort_unstable(); // one order for everybody: no two batches wait for each other
        for batch in touches.chunks(BATCH) {
            self.write(Touch { touches: batch.to_vec() }, Effects::default()).await?;
        }
        Ok(())
    }
}

struct Put {
    key: ApiKey,
}

impl Write for Put {
    type Out = ();
    const NAME: &'static str = "put_api_key";

    fn memory(&self, tables: &mut Tables) -> Result<(), DbError> {
        if let KeyOwner::User(user) = self.key.owner {
            tables.require_user(user)?;
        }
        if tables.api_keys.contains_key(&self.key.hash) || tables.api_keys.values().any(|key| key.id == self.key.id) {
            return Err(DbError::Fault("api_keys.id or api_keys.hash is not unique".to_owned()));
        }
        tables.api_keys.insert(self.key.hash, self.key.clone());
        Ok(())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<(), DbError> {
        let key = &self.key;
        let (user, org, service) = match &key.owner {
            KeyOwner::User(user) => (Some(*user), None, None),
            KeyOwner::Org(org) => (None, Some(*org), None),
            KeyOwner::Service(service) => (None, None, Some(service.as_str())),
        };
        let capabilities = capabilities_json(&key.capabilities)?;
        sql.execute(
            &INSERT_KEY,
            values![
                key.id,
                &key.hash,
                user,
                org,
                service,
                key.org_id,
                key.name.as_str(),
                key.prefix.as_str(),
                capabilities.as_str(),
                key.created_at,
                key.expires_at,
                key.revoked_at,
                key.deleted_at,
                key.last_used_at
            ],
        )
        .await?;
        Ok(())
    }
}

struct ByHash {
    hash: TokenHash,
}

impl Read for ByHash {
    type Out = Option<(ApiKey, Option<User>)>;
    const NAME: &'static str = "api_key";

    fn memory(&self, tables: &Tables) -> Result<Self::Out, DbError> {
        let Some(key) = tables.api_keys.get(&self.hash) else { return Ok(None) };
        let user = match key.owner {
            KeyOwner::User(user) => tables.users.get(&user).cloned(),
            KeyOwner::Org(_) | KeyOwner::Service(_) => None,
        };
        Ok(Some((key.clone(), user)))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Self::Out, DbError> {
        let Some(mut row) = one(sql, &KEY, values![&self.hash]).await? else { return Ok(None) };
        let key = read_key(&mut row)?;
        let user = if row.next_is_null() { None } else { Some(read_user(&mut row)?) };
        Ok(Some((key, user)))
    }
}

struct OfUser {
    owner: UserId,
}

impl Read for OfUser {
    type Out = Vec<ApiKey>;
    const NAME: &'static str = "api_keys";

    fn memory(&self, tables: &Tables) -> Result<Vec<ApiKey>, DbError> {
        let owned = |key: &&ApiKey| key.owner == KeyOwner::User(self.owner);
        let mut found: Vec<ApiKey> = tables.api_keys.values().filter(owned).cloned().collect();
        found.sort_unstable_by_key(|key| key.id);
        found.truncate(1000);
        Ok(found)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<ApiKey>, DbError> {
        all(sql.rows(&KEYS_OF, values![self.owner]).await?, read_key)
    }
}

struct Revoke {
    id: ApiKeyId,
    at: Timestamp,
}

impl Write for Revoke {
    type Out = RevokeApiKey;
    const NAME: &'static str = "revoke_api_key";

    fn commits(out: &RevokeApiKey) -> bool {
        matches!(out, RevokeApiKey::Revoked(_))
    }

    fn memory(&self, tables: &mut Tables) -> Result<RevokeApiKey, DbError> {
        let Some(key) = tables.api_keys.values_mut().find(|key| key.id == self.id) else {
            return Ok(RevokeApiKey::Unknown);
        };
        if key.revoked_at.is_some() {
            return Ok(RevokeApiKey::AlreadyRevoked);
        }
        key.revoked_at = Some(self.at);
        Ok(RevokeApiKey::Revoked(Box::new(key.clone())))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<RevokeApiKey, DbError> {
        if let Some(mut row) = one(sql, &REVOKE_KEY, values![self.id, self.at]).await? {
            return Ok(RevokeApiKey::Revoked(Box::new(read_key(&mut row)?)));
        }
        let exists = one(sql, &KEY_EXISTS, values![self.id]).await?.is_some();
        Ok(if exists { RevokeApiKey::AlreadyRevoked } else { RevokeApiKey::Unknown })
    }
}

struct Touch {
    touches: Vec<(ApiKeyId, Timestamp)>,
}

impl Write for Touch {
    type Out = ();
    const NAME: &'static str = "touch_api_keys";

    fn memory(&self, tables: &mut Tables) -> Result<(), DbError> {
        for (id, at) in &self.touches {
            if let Some(key) = tables.api_keys.values_mut().find(|key| key.id == *id) {
                key.last_used_at = key.last_used_at.max(Some(*at));
            }
        }
        Ok(())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<(), DbError> {
        let lists: Vec<[Value<'_>; 2]> = self.touches.iter().map(|(id, at)| [(*id).into(), (*at).into()]).collect();
        sql.each(&TOUCH_KEY, &lists).await?;
        Ok(())
    }
}
