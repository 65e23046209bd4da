//! One-time tokens, and the claim of the first administrator.

use doorward_core::{
    effects::Effects,
    one_time::{ClaimFirstAdmin, Claimant, OneTime, OneTimePurpose},
    session::TokenHash,
    time::Timestamp,
    user::User,
};

use crate::{
    ClaimAdmin, CreateUser, Store, StoreError,
    accounts::user_now,
    consume::{begin_in_memory, begin_in_sql},
    memory::Tables,
    op::{Read, Write},
    sql::{Cell, DbError, FromCell, Lock, Row, Sql, one, statements, values},
    users::insert_user,
};

statements! {
    INSERT_ONE_TIME = "INSERT INTO one_time_tokens (hash, purpose, created_at, expires_at, used_at) \
        VALUES ($1, $2, $3, $4, $5)",
    ONE_TIME = "SELECT hash, purpose, created_at, expires_at, used_at FROM one_time_tokens WHERE hash = $1",
    // Every token of the kind: once there is an administrator, none of the printed URLs is good for anything.
    USE_ONE_TIME = "UPDATE one_time_tokens SET used_at = $2 WHERE purpose = $1 AND used_at IS NULL",
    ANY_ADMIN = "SELECT id FROM users WHERE admin LIMIT 1",
    GRANT_ADMIN = "UPDATE users SET admin = TRUE, version = version + 1 \
        WHERE id = $1 AND version = $2 AND banned_at IS NULL",
}

impl FromCell for OneTimePurpose {
    fn from_cell(cell: Cell) -> Option<Self> {
        Self::parse(&String::from_cell(cell)?)
    }
}

fn read_one_time(row: &mut Row) -> Result<OneTime, DbError> {
    Ok(OneTime {
        hash: row.column()?,
        purpose: row.column()?,
        created_at: row.column()?,
        expires_at: row.column()?,
        used_at: row.optional()?,
    })
}

impl Store {
    /// Stores a one-time token.
    ///
    /// # Errors
    /// [`StoreError`]; a second use of its hash is a fault.
    pub async fn put_one_time(&self, token: OneTime, effects: Effects) -> Result<(), StoreError> {
        self.write(Put { token }, effects).await
    }

    /// The one-time token with this hash, used and expired ones included until they are purged.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn one_time(&self, hash: TokenHash) -> Result<Option<OneTime>, StoreError> {
        self.read(ByHash { hash }).await
    }

    /// Whether there is an administrator, banned ones included.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_admin(&self) -> Result<bool, StoreError> {
        self.read(HasAdmin).await
    }

    /// Makes the first administrator: uses up the token and all of its kind, makes or promotes the user and begins
    /// the session; all in one transaction, and only while there is no administrator. The address is not proven by it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim_first_admin(&self, plan: ClaimFirstAdmin, effects: Effects) -> Result<ClaimAdmin, StoreError> {
        self.write(Claim { plan }, effects).await
    }
}

struct Put {
    token: OneTime,
}

impl Write for Put {
    type Out = ();
    const NAME: &'static str = "put_one_time";

    fn memory(&self, tables: &mut Tables) -> Result<(), DbError> {
        if tables.one_time.contains_key(&self.token.hash) {
            return Err(DbError::Fault("one_time_tokens.hash is not unique".to_owned()));
        }
        tables.one_time.insert(self.token.hash, self.token);
        Ok(())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<(), DbError> {
        let OneTime { hash, purpose, created_at, expires_at, used_at } = &self.token;
        sql.execute(&INSERT_ONE_TIME, values![hash, purpose.as_str(), *created_at, *expires_at, *used_at]).await?;
        Ok(())
    }
}

struct ByHash {
    hash: TokenHash,
}

impl Read for ByHash {
    type Out = Option<OneTime>;
    const NAME: &'static str = "one_time";

    fn memory(&self, tables: &Tables) -> Result<Option<OneTime>, DbError> {
        Ok(tables.one_time.get(&self.hash).copied())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Option<OneTime>, DbError> {
        find(sql, &self.hash).await
    }
}

async fn find(sql: &mut impl Sql, hash: &TokenHash) -> Result<Option<OneTime>, DbError> {
    one(sql, &ONE_TIME, values![hash]).await?.map(|mut row| read_one_time(&mut row)).transpose()
}

struct HasAdmin;

impl Read for HasAdmin {
    type Out = bool;
    const NAME: &'static str = "has_admin";

    fn memory(&self, tables: &Tables) -> Result<bool, DbError> {
        Ok(tables.users.values().any(|user| user.admin))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<bool, DbError> {
        Ok(one(sql, &ANY_ADMIN, &[]).await?.is_some())
    }
}

struct Claim {
    plan: ClaimFirstAdmin,
}

/// What keeps a token from being used; `None` if nothing does.
fn refusal(token: Option<&OneTime>, now: Timestamp) -> Option<ClaimAdmin> {
    match token {
        Some(token) if token.purpose == OneTimePurpose::FirstAdmin => {
            if token.used_at.is_some() {
                return Some(ClaimAdmin::AlreadyUsed);
            }
            (now >= token.expires_at).then_some(ClaimAdmin::Expired)
        }
        Some(_) | None => Some(ClaimAdmin::Unknown),
    }
}

fn as_admin(user: &User) -> User {
    User { admin: true, ..user.clone() }
}

impl Write for Claim {
    type Out = ClaimAdmin;
    const NAME: &'static str = "claim_first_admin";

    fn commits(out: &ClaimAdmin) -> bool {
        matches!(out, ClaimAdmin::Claimed(_))
    }

    fn memory(&self, tables: &mut Tables) -> Result<ClaimAdmin, DbError> {
        let ClaimFirstAdmin { token, claimant, at, session, replaces } = &self.plan;
        if tables.users.values().any(|user| user.admin) {
            return Ok(ClaimAdmin::AdminExists);
        }
        if let Some(refusal) = refusal(tables.one_time.get(token), *at) {
            return Ok(refusal);
        }
        let admin = match claimant {
            Claimant::New(user) => {
                if tables.user_conflict(user)?.is_some() {
                    return Ok(ClaimAdmin::UserChanged);
                }
                as_admin(user)
            }
            Claimant::Known { id, version } => match tables.users.get(id) {
                Some(user) if user.version == *version && user.banned_at.is_none() => {
                    User { version: version + 1, ..as_admin(user) }
                }
                Some(_) | None => return Ok(ClaimAdmin::UserChanged),
            },
        };
        if session.user_id != admin.id || tables.sessions.contains_key(&session.hash) {
            return Err(DbError::Fault("the session of the claim is not the administrator's".to_owned()));
        }
        tables.insert_user(admin.clone());
        begin_in_memory(tables, session, replaces.as_ref());
        for token in tables.one_time.values_mut().filter(|one| one.purpose == OneTimePurpose::FirstAdmin) {
            token.used_at.get_or_insert(*at);
        }
        Ok(ClaimAdmin::Claimed(admin))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<ClaimAdmin, DbError> {
        let ClaimFirstAdmin { token, claimant, at, session, replaces } = &self.plan;
        sql.lock(Lock::FirstAdmin).await?;
        if one(sql, &ANY_ADMIN, &[]).await?.is_some() {
            return Ok(ClaimAdmin::AdminExists);
        }
        if let Some(refusal) = refusal(find(sql, token).await?.as_ref(), *at) {
            return Ok(refusal);
        }
        let admin = match claimant {
            Claimant::New(user) => {
                let admin = as_admin(user);
                match insert_user(sql, &admin).await? {
                    CreateUser::Created => admin,
                    CreateUser::EmailTaken | CreateUser::SubjectTaken => return Ok(ClaimAdmin::UserChanged),
                }
            }
            Claimant::Known { id, version } => {
                if sql.execute(&GRANT_ADMIN, values![*id, *version]).await? == 0 {
                    return Ok(ClaimAdmin::UserChanged);
                }
                let Some(user) = user_now(sql, *id).await? else { return Ok(ClaimAdmin::UserChanged) };
                user
            }
        };
        if session.user_id != admin.id {
            return Err(DbError::Fault("the session of the claim is not the administrator's".to_owned()));
        }
        sql.execute(&USE_ONE_TIME, values![OneTimePurpose::FirstAdmin.as_str(), *at]).await?;
        begin_in_sql(sql, session, replaces.as_ref()).await?;
        Ok(ClaimAdmin::Claimed(admin))
    }
}
