//! Users and their identities at issuers.

use doorward_core::{
    effects::Effects,
    id::UserId,
    time::Timestamp,
    user::{Email, LinkStatus, User},
};

use crate::{
    Changed, CreateUser, LinkIdentity, Store, StoreError,
    memory::Tables,
    op::{Read, Write},
    sql::{Cell, DbError, FromCell, Row, Sql, all, one, statements, values},
    store::page,
};

/// The columns of a user, in the order of [`read_user`].
macro_rules! user_columns {
    () => {
        "users.id, users.email, users.email_verified, users.admin, users.version, users.banned_at, \
         users.link_status, users.candidate_subject, users.created_at"
    };
}
pub(crate) use user_columns;

statements! {
    INSERT_USER = "INSERT INTO users (id, email, email_verified, admin, version, banned_at, link_status, \
        candidate_subject, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (email) DO NOTHING",
    USER_BY_ID = concat!("SELECT ", user_columns!(), " FROM users WHERE id = $1"),
    USER_BY_EMAIL = concat!("SELECT ", user_columns!(), " FROM users WHERE email = $1"),
    USERS_FIRST = concat!("SELECT ", user_columns!(), " FROM users ORDER BY id LIMIT $1"),
    USERS_AFTER = concat!("SELECT ", user_columns!(), " FROM users WHERE id > $1 ORDER BY id LIMIT $2"),
    SET_BANNED = concat!(
        "UPDATE users SET banned_at = $2, version = version + 1 WHERE id = $1 RETURNING ", user_columns!()),
    USER_BY_IDENTITY = concat!("SELECT ", user_columns!(), " FROM identities JOIN users ON users.id = identities.user_id \
        WHERE identities.issuer = $1 AND identities.subject = $2"),
    INSERT_IDENTITY = "INSERT INTO identities (issuer, subject, user_id) VALUES ($1, $2, $3) \
        ON CONFLICT (issuer, subject) DO NOTHING",
    IDENTITY_OWNER = "SELECT user_id FROM identities WHERE issuer = $1 AND subject = $2",
}

/// Reads the columns of [`user_columns`].
pub(crate) fn read_user(row: &mut Row) -> Result<User, DbError> {
    Ok(User {
        id: row.column()?,
        email: row.column()?,
        email_verified: row.column()?,
        admin: row.column()?,
        version: row.column()?,
        banned_at: row.optional()?,
        link_status: row.optional()?,
        candidate_subject: row.optional()?,
        created_at: row.column()?,
    })
}

const fn link_status_word(status: LinkStatus) -> &'static str {
    match status {
        LinkStatus::Linked => "linked",
        LinkStatus::PendingVerify => "pending_verify",
        LinkStatus::Mismatch => "mismatch",
    }
}

impl FromCell for LinkStatus {
    fn from_cell(cell: Cell) -> Option<Self> {
        let word = String::from_cell(cell)?;
        [Self::Linked, Self::PendingVerify, Self::Mismatch].into_iter().find(|&status| link_status_word(status) == word)
    }
}

impl Store {
    /// Makes a user. Addresses are unique: of two callers with the same one, exactly one gets `Created`.
    ///
    /// # Errors
    /// [`StoreError`]; a second use of the user's id is a fault.
    pub async fn create_user(&self, user: User, effects: Effects) -> Result<CreateUser, StoreError> {
        self.write(Create { user }, effects).await
    }

    /// The user with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.read(ById { id }).await
    }

    /// The user with this address.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user_by_email(&self, email: Email) -> Result<Option<User>, StoreError> {
        self.read(ByEmail { email }).await
    }

    /// Users in the order of their ids, the page after `after`; 1,000 at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn users(&self, after: Option<UserId>, limit: u32) -> Result<Vec<User>, StoreError> {
        self.read(List { after, limit: page(limit) }).await
    }

    /// Bans a user or lifts the ban, and counts the version up: links and plans made before are void.
    ///
    /// Sessions stay; end them with [`Store::end_sessions`] and revoke with the effects.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_banned(
        &self,
        id: UserId,
        banned_at: Option<Timestamp>,
        effects: Effects,
    ) -> Result<Changed, StoreError> {
        self.write(SetBanned { id, banned_at }, effects).await
    }

    /// The user whom a subject of an issuer belongs to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user_by_identity(&self, issuer: String, subject: String) -> Result<Option<User>, StoreError> {
        self.read(ByIdentity { issuer, subject }).await
    }

    /// Links a subject of an issuer to a user. A subject belongs to one user at most.
    ///
    /// # Errors
    /// [`StoreError`]; a user that does not exist is a fault.
    pub async fn link_identity(
        &self,
        issuer: String,
        subject: String,
        user: UserId,
        effects: Effects,
    ) -> Result<LinkIdentity, StoreError> {
        self.write(Link { issuer, subject, user }, effects).await
    }
}

struct Create {
    user: User,
}

impl Write for Create {
    type Out = CreateUser;
    const NAME: &'static str = "create_user";

    fn commits(out: &CreateUser) -> bool {
        *out == CreateUser::Created
    }

    fn memory(&self, tables: &mut Tables) -> Result<CreateUser, DbError> {
        if tables.users_by_email.contains_key(&self.user.email) {
            return Ok(CreateUser::EmailTaken);
        }
        if tables.users.contains_key(&self.user.id) {
            return Err(DbError::Fault("users.id is not unique".to_owned()));
        }
        tables.users_by_email.insert(self.user.email.clone(), self.user.id);
        tables.users.insert(self.user.id, self.user.clone());
        Ok(CreateUser::Created)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<CreateUser, DbError> {
        let User { id, email, email_verified, admin, version, banned_at, link_status, candidate_subject, created_at } =
            &self.user;
        let inserted = sql
            .execute(
                &INSERT_USER,
                values![
                    *id,
                    email,
                    *email_verified,
                    *admin,
                    *version,
                    *banned_at,
                    link_status.map(link_status_word),
                    candidate_subject.as_deref(),
                    *created_at
                ],
            )
            .await?;
        Ok(if inserted == 1 { CreateUser::Created } else { CreateUser::EmailTaken })
    }
}

struct ById {
    id: UserId,
}

impl Read for ById {
    type Out = Option<User>;
    const NAME: &'static str = "user";

    fn memory(&self, tables: &Tables) -> Result<Option<User>, DbError> {
        Ok(tables.users.get(&self.id).cloned())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Option<User>, DbError> {
        one(sql, &USER_BY_ID, values![self.id]).await?.map(|mut row| read_user(&mut row)).transpose()
    }
}

struct ByEmail {
    email: Email,
}

impl Read for ByEmail {
    type Out = Option<User>;
    const NAME: &'static str = "user_by_email";

    fn memory(&self, tables: &Tables) -> Result<Option<User>, DbError> {
        Ok(tables.users_by_email.get(&self.email).and_then(|id| tables.users.get(id)).cloned())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Option<User>, DbError> {
        one(sql, &USER_BY_EMAIL, values![&self.email]).await?.map(|mut row| read_user(&mut row)).transpose()
    }
}

struct List {
    after: Option<UserId>,
    limit: i64,
}

impl Read for List {
    type Out = Vec<User>;
    const NAME: &'static str = "users";

    fn memory(&self, tables: &Tables) -> Result<Vec<User>, DbError> {
        let limit = usize::try_from(self.limit).unwrap_or(0);
        let after = |user: &&User| self.after.is_none_or(|after| user.id > after);
        Ok(tables.users.values().filter(after).take(limit).cloned().collect())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<User>, DbError> {
        let rows = match self.after {
            None => sql.rows(&USERS_FIRST, values![self.limit]).await?,
            Some(after) => sql.rows(&USERS_AFTER, values![after, self.limit]).await?,
        };
        all(rows, read_user)
    }
}

struct SetBanned {
    id: UserId,
    banned_at: Option<Timestamp>,
}

impl Write for SetBanned {
    type Out = Changed;
    const NAME: &'static str = "set_banned";

    fn commits(out: &Changed) -> bool {
        matches!(out, Changed::Changed(_))
    }

    fn memory(&self, tables: &mut Tables) -> Result<Changed, DbError> {
        let Some(user) = tables.users.get_mut(&self.id) else { return Ok(Changed::Unknown) };
        user.banned_at = self.banned_at;
        user.version += 1;
        Ok(Changed::Changed(user.clone()))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Changed, DbError> {
        match one(sql, &SET_BANNED, values![self.id, self.banned_at]).await? {
            None => Ok(Changed::Unknown),
            Some(mut row) => read_user(&mut row).map(Changed::Changed),
        }
    }
}

struct ByIdentity {
    issuer: String,
    subject: String,
}

impl Read for ByIdentity {
    type Out = Option<User>;
    const NAME: &'static str = "user_by_identity";

    fn memory(&self, tables: &Tables) -> Result<Option<User>, DbError> {
        let key = (self.issuer.clone(), self.subject.clone());
        Ok(tables.identities.get(&key).and_then(|id| tables.users.get(id)).cloned())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Option<User>, DbError> {
        let row = one(sql, &USER_BY_IDENTITY, values![self.issuer.as_str(), self.subject.as_str()]).await?;
        row.map(|mut row| read_user(&mut row)).transpose()
    }
}

struct Link {
    issuer: String,
    subject: String,
    user: UserId,
}

impl Write for Link {
    type Out = LinkIdentity;
    const NAME: &'static str = "link_identity";

    fn commits(out: &LinkIdentity) -> bool {
        *out == LinkIdentity::Linked
    }

    fn memory(&self, tables: &mut Tables) -> Result<LinkIdentity, DbError> {
        let key = (self.issuer.clone(), self.subject.clone());
        if let Some(owner) = tables.identities.get(&key) {
            return Ok(if *owner == self.user { LinkIdentity::Linked } else { LinkIdentity::Taken });
        }
        tables.require_user(self.user)?;
        tables.identities.insert(key, self.user);
        Ok(LinkIdentity::Linked)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<LinkIdentity, DbError> {
        let (issuer, subject) = (self.issuer.as_str(), self.subject.as_str());
        if sql.execute(&INSERT_IDENTITY, values![issuer, subject, self.user]).await? == 1 {
            return Ok(LinkIdentity::Linked);
        }
        let owner = one(sql, &IDENTITY_OWNER, values![issuer, subject]).await?;
        let owner: Option<UserId> = owner.map(|mut row| row.column()).transpose()?;
        Ok(if owner == Some(self.user) { LinkIdentity::Linked } else { LinkIdentity::Taken })
    }
}
