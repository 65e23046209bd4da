//! Users: made and found.

use std::collections::HashSet;

use doorward_core::{
    effects::Effects,
    id::UserId,
    user::{Email, LinkStatus, Origin, User},
};

use crate::{
    CreateUser, NewUser, Store, StoreError,
    memory::Tables,
    op::{Read, Write},
    sql::{Cell, DbError, FromCell, Row, Sql, Value, all, one, statements, values},
    store::page,
};

/// The columns of a user, in the order of [`read_user`].
macro_rules! user_columns {
    () => {
        "users.id, users.email, users.email_verified, users.admin, users.version, users.banned_at, \
         users.external_subject, users.link_status, users.candidate_subject, users.made_by, users.created_at"
    };
}
pub(crate) use user_columns;

statements! {
    // Any conflict is looked into: the address, the external subject, or the id.
    INSERT_USER = "INSERT INTO users (id, email, email_verified, admin, version, banned_at, external_subject, \
        link_status, candidate_subject, made_by, created_at, password_hash) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING",
    USER_CONFLICT = "SELECT id, email = $2 FROM users WHERE id = $1 OR email = $2 OR external_subject = $3 \
        ORDER BY CASE WHEN id = $1 THEN 0 WHEN email = $2 THEN 1 ELSE 2 END LIMIT 1",
    USER_BY_ID = concat!("SELECT ", user_columns!(), " FROM users WHERE id = $1"),
    USER_BY_EMAIL = concat!("SELECT ", user_columns!(), " FROM users WHERE email = $1"),
    USER_BY_SUBJECT = concat!("SELECT ", user_columns!(), " FROM users WHERE external_subject = $1"),
    USERS_FIRST = concat!("SELECT ", user_columns!(), " FROM users ORDER BY id LIMIT $1"),
    USERS_AFTER = concat!("SELECT ", user_columns!(), " FROM users WHERE id > $1 ORDER BY id LIMIT $2"),
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
        external_subject: row.optional()?,
        link_status: row.optional()?,
        candidate_subject: row.optional()?,
        origin: row.column()?,
        created_at: row.column()?,
    })
}

pub(crate) const fn link_status_word(status: LinkStatus) -> &'static str {
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

const fn origin_word(origin: Origin) -> &'static str {
    match origin {
        Origin::Operator => "operator",
        Origin::SignUp => "sign_up",
    }
}

impl FromCell for Origin {
    fn from_cell(cell: Cell) -> Option<Self> {
        let word = String::from_cell(cell)?;
        [Self::Operator, Self::SignUp].into_iter().find(|&origin| origin_word(origin) == word)
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

    /// Makes the users of an import, all of them or none: if one of the outcomes, which come in the order of `users`,
    /// is not `Created`, nothing was changed. 500 at most are one transaction; hand in no more.
    ///
    /// # Errors
    /// [`StoreError`]; a second use of an id is a fault.
    pub async fn create_users(&self, users: Vec<NewUser>, effects: Effects) -> Result<Vec<CreateUser>, StoreError> {
        self.write(CreateMany { users }, effects).await
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

    /// The user who is linked to this subject of the license provider.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user_by_subject(&self, subject: String) -> Result<Option<User>, StoreError> {
        self.read(BySubject { subject }).await
    }

    /// Users in the order of their ids, the page after `after`; 1,000 at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn users(&self, after: Option<UserId>, limit: u32) -> Result<Vec<User>, StoreError> {
        self.read(List { after, limit: page(limit) }).await
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
        if let Some(conflict) = tables.user_conflict(&self.user)? {
            return Ok(conflict);
        }
        tables.insert_user(self.user.clone());
        Ok(CreateUser::Created)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<CreateUser, DbError> {
        insert_user(sql, &self.user).await
    }
}

/// Inserts a user inside a transaction; nothing is inserted unless `Created` comes back.
pub(crate) async fn insert_user(sql: &mut impl Sql, user: &User) -> Result<CreateUser, DbError> {
    if sql.execute(&INSERT_USER, &row(user, None)).await? == 1 {
        return Ok(CreateUser::Created);
    }
    match conflict(sql, user).await? {
        CreateUser::Created => Err(DbError::Fault("users.id is not unique".to_owned())),
        taken @ (CreateUser::EmailTaken | CreateUser::SubjectTaken) => Ok(taken),
    }
}

fn password(new: &NewUser) -> Option<&str> {
    new.password_hash.as_ref().map(|hash| hash.expose().as_str())
}

fn row<'a>(user: &'a User, password_hash: Option<&'a str>) -> [Value<'a>; 12] {
    [
        user.id.into(),
        (&user.email).into(),
        user.email_verified.into(),
        user.admin.into(),
        user.version.into(),
        user.banned_at.into(),
        user.external_subject.as_deref().into(),
        user.link_status.map(link_status_word).into(),
        user.candidate_subject.as_deref().into(),
        origin_word(user.origin).into(),
        user.created_at.into(),
        password_hash.into(),
    ]
}

/// Who is in the way of `user`; `Created` if it is a row with the very id.
async fn conflict(sql: &mut impl Sql, user: &User) -> Result<CreateUser, DbError> {
    let subject = user.external_subject.as_deref();
    let Some(mut row) = one(sql, &USER_CONFLICT, values![user.id, &user.email, subject]).await? else {
        return Err(DbError::Conflict("a user in the way came and went".to_owned()));
    };
    let (id, same_email): (UserId, bool) = (row.column()?, row.column()?);
    Ok(match (id == user.id, same_email) {
        (true, true) => CreateUser::Created,
        (true, false) => return Err(DbError::Fault("users.id is not unique".to_owned())),
        (false, true) => CreateUser::EmailTaken,
        (false, false) => CreateUser::SubjectTaken,
    })
}

struct CreateMany {
    users: Vec<NewUser>,
}

impl Write for CreateMany {
    type Out = Vec<CreateUser>;
    const NAME: &'static str = "create_users";

    fn commits(out: &Vec<CreateUser>) -> bool {
        out.iter().all(|one| *one == CreateUser::Created)
    }

    fn memory(&self, tables: &mut Tables) -> Result<Vec<CreateUser>, DbError> {
        // Conflicts within the batch count too, as they do on SQL.
        let (mut emails, mut subjects, mut ids) = (HashSet::new(), HashSet::new(), HashSet::new());
        let mut out = Vec::with_capacity(self.users.len());
        for NewUser { user, .. } in &self.users {
            out.push(match tables.user_conflict(user)? {
                Some(conflict) => conflict,
                None if emails.contains(&user.email) => CreateUser::EmailTaken,
                None if user.external_subject.as_ref().is_some_and(|subject| subjects.contains(subject)) => {
                    CreateUser::SubjectTaken
                }
                None if !ids.insert(user.id) => return Err(DbError::Fault("users.id is not unique".to_owned())),
                None => {
                    emails.insert(&user.email);
                    subjects.extend(&user.external_subject);
                    CreateUser::Created
                }
            });
        }
        if Self::commits(&out) {
            for NewUser { user, password_hash } in &self.users {
                tables.insert_user(user.clone());
                if let Some(hash) = password_hash {
                    tables.passwords.insert(user.id, hash.clone());
                }
            }
        }
        Ok(out)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<CreateUser>, DbError> {
        let rows: Vec<_> = self.users.iter().map(|new| row(&new.user, password(new))).collect();
        if sql.each(&INSERT_USER, &rows).await? == self.users.len() as u64 {
            return Ok(vec![CreateUser::Created; self.users.len()]);
        }
        let mut out = Vec::with_capacity(self.users.len());
        for NewUser { user, .. } in &self.users {
            out.push(conflict(sql, user).await?);
        }
        Ok(out)
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

struct BySubject {
    subject: String,
}

impl Read for BySubject {
    type Out = Option<User>;
    const NAME: &'static str = "user_by_subject";

    fn memory(&self, tables: &Tables) -> Result<Option<User>, DbError> {
        Ok(tables.users_by_subject.get(&self.subject).and_then(|id| tables.users.get(id)).cloned())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Option<User>, DbError> {
        one(sql, &USER_BY_SUBJECT, values![self.subject.as_str()]).await?.map(|mut row| read_user(&mut row)).transpose()
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
