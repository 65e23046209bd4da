//! Changes to a user: ban, role, license subject, password of the soak window.

use doorward_core::{
    effects::Effects,
    id::UserId,
    secret::Secret,
    time::Timestamp,
    user::{Email, LinkStatus, User},
};

use crate::{
    Changed, LinkSubject, Store, StoreError,
    memory::Tables,
    op::{Read, Write},
    sql::{DbError, Sql, all, one, statements, values},
    store::page,
    users::{read_user, user_columns},
};

statements! {
    SET_BANNED = concat!(
        "UPDATE users SET banned_at = $2, version = version + 1 WHERE id = $1 RETURNING ", user_columns!()),
    SET_ADMIN = concat!(
        "UPDATE users SET admin = $2, version = version + 1 WHERE id = $1 RETURNING ", user_columns!()),
    SET_PENDING = concat!("UPDATE users SET link_status = 'pending_verify', candidate_subject = $2, \
        version = version + 1 WHERE id = $1 RETURNING ", user_columns!()),
    LINK_SUBJECT = "UPDATE users SET external_subject = $2, link_status = 'linked', candidate_subject = NULL WHERE id = $1",
    PROMOTE = "UPDATE users SET external_subject = $2, link_status = 'linked', candidate_subject = NULL \
        WHERE id = $1 AND link_status = 'pending_verify' AND candidate_subject = $2",
    USER_NOW = concat!("SELECT ", user_columns!(), " FROM users WHERE id = $1"),
    PASSWORD = concat!("SELECT ", user_columns!(), ", users.password_hash FROM users \
        WHERE email = $1 AND password_hash IS NOT NULL"),
    PASSWORDS = "SELECT password_hash FROM users WHERE password_hash IS NOT NULL ORDER BY id DESC LIMIT $1",
    SET_PASSWORD = concat!("UPDATE users SET password_hash = $2 WHERE id = $1 RETURNING ", user_columns!()),
}

impl Store {
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

    /// Makes a user an administrator or takes the role away, and counts the version up.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_admin(&self, id: UserId, admin: bool, effects: Effects) -> Result<Changed, StoreError> {
        self.write(SetAdmin { id, admin }, effects).await
    }

    /// Lets `subject` of the license provider wait for the user's next sign-in, and counts the version up. A subject
    /// that is confirmed already stays.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_pending(&self, id: UserId, subject: String, effects: Effects) -> Result<Changed, StoreError> {
        self.write(SetPending { id, subject }, effects).await
    }

    /// Confirms `subject` of the license provider for a user, whatever waited before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn link_subject(&self, id: UserId, subject: String, effects: Effects) -> Result<LinkSubject, StoreError> {
        self.write(SetSubject { id, subject, pending: false }, effects).await
    }

    /// Confirms `subject` for a user for whom exactly it waits.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn promote(&self, id: UserId, subject: String, effects: Effects) -> Result<LinkSubject, StoreError> {
        self.write(SetSubject { id, subject, pending: true }, effects).await
    }

    /// The user with this address and a password hash, in bcrypt or PHC form.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn password(&self, email: Email) -> Result<Option<(User, Secret<String>)>, StoreError> {
        self.read(Password { email }).await
    }

    /// Password hashes of the users who were made last, `limit` at most: what they cost is to be learnt from them,
    /// not whose they are.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn password_hashes(&self, limit: u32) -> Result<Vec<Secret<String>>, StoreError> {
        self.read(Passwords { limit }).await
    }

    /// Sets or removes a user's password hash; its form is not checked here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_password(
        &self,
        id: UserId,
        hash: Option<Secret<String>>,
        effects: Effects,
    ) -> Result<Changed, StoreError> {
        self.write(SetPassword { id, hash }, effects).await
    }
}

/// Changes a user in memory.
fn change(tables: &mut Tables, id: UserId, change: impl FnOnce(&mut User)) -> Changed {
    let Some(user) = tables.users.get_mut(&id) else { return Changed::Unknown };
    change(user);
    Changed::Changed(user.clone())
}

const fn is_change(out: &Changed) -> bool {
    matches!(out, Changed::Changed(_))
}

/// Reads what `UPDATE … RETURNING` gave back.
fn changed(row: Option<crate::sql::Row>) -> Result<Changed, DbError> {
    row.map_or(Ok(Changed::Unknown), |mut row| read_user(&mut row).map(Changed::Changed))
}

/// The user as it is now, inside a transaction.
pub(crate) async fn user_now(sql: &mut impl Sql, id: UserId) -> Result<Option<User>, DbError> {
    one(sql, &USER_NOW, values![id]).await?.map(|mut row| read_user(&mut row)).transpose()
}

struct SetBanned {
    id: UserId,
    banned_at: Option<Timestamp>,
}

impl Write for SetBanned {
    type Out = Changed;
    const NAME: &'static str = "set_banned";

    fn commits(out: &Changed) -> bool {
        is_change(out)
    }

    fn memory(&self, tables: &mut Tables) -> Result<Changed, DbError> {
        Ok(change(tables, self.id, |user| {
            user.banned_at = self.banned_at;
            user.version += 1;
        }))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Changed, DbError> {
        changed(one(sql, &SET_BANNED, values![self.id, self.banned_at]).await?)
    }
}

struct SetAdmin {
    id: UserId,
    admin: bool,
}

impl Write for SetAdmin {
    type Out = Changed;
    const NAME: &'static str = "set_admin";

    fn commits(out: &Changed) -> bool {
        is_change(out)
    }

    fn memory(&self, tables: &mut Tables) -> Result<Changed, DbError> {
        Ok(change(tables, self.id, |user| {
            user.admin = self.admin;
            user.version += 1;
        }))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Changed, DbError> {
        changed(one(sql, &SET_ADMIN, values![self.id, self.admin]).await?)
    }
}

struct SetPending {
    id: UserId,
    subject: String,
}

impl Write for SetPending {
    type Out = Changed;
    const NAME: &'static str = "set_pending";

    fn commits(out: &Changed) -> bool {
        is_change(out)
    }

    fn memory(&self, tables: &mut Tables) -> Result<Changed, DbError> {
        Ok(change(tables, self.id, |user| {
            user.link_status = Some(LinkStatus::PendingVerify);
            user.candidate_subject = Some(self.subject.clone());
            user.version += 1;
        }))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Changed, DbError> {
        changed(one(sql, &SET_PENDING, values![self.id, self.subject.as_str()]).await?)
    }
}

struct SetSubject {
    id: UserId,
    subject: String,
    pending: bool,
}

/// Makes `subject` the user's in memory; the caller has looked that it is nobody else's.
pub(crate) fn link_in_memory(tables: &mut Tables, id: UserId, subject: &str) {
    let Some(user) = tables.users.get_mut(&id) else { return };
    if let Some(old) = user.external_subject.replace(subject.to_owned()) {
        tables.users_by_subject.remove(&old);
    }
    user.link_status = Some(LinkStatus::Linked);
    user.candidate_subject = None;
    tables.users_by_subject.insert(subject.to_owned(), id);
}

/// Whether `subject` waits for this user.
pub(crate) fn is_pending(user: &User, subject: &str) -> bool {
    user.link_status == Some(LinkStatus::PendingVerify) && user.candidate_subject.as_deref() == Some(subject)
}

impl Write for SetSubject {
    type Out = LinkSubject;
    const NAME: &'static str = "link_subject";

    fn commits(out: &LinkSubject) -> bool {
        matches!(out, LinkSubject::Linked(_))
    }

    fn memory(&self, tables: &mut Tables) -> Result<LinkSubject, DbError> {
        let Some(user) = tables.users.get(&self.id) else { return Ok(LinkSubject::Unknown) };
        if self.pending && !is_pending(user, &self.subject) {
            return Ok(LinkSubject::NotPending);
        }
        if tables.users_by_subject.get(&self.subject).is_some_and(|owner| *owner != self.id) {
            return Ok(LinkSubject::Taken);
        }
        link_in_memory(tables, self.id, &self.subject);
        Ok(tables.users.get(&self.id).cloned().map_or(LinkSubject::Unknown, LinkSubject::Linked))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<LinkSubject, DbError> {
        let statement = if self.pending { &PROMOTE } else { &LINK_SUBJECT };
        let touched = sql.execute_if_unique(statement, values![self.id, self.subject.as_str()]).await?;
        Ok(match (touched, user_now(sql, self.id).await?) {
            (None, _) => LinkSubject::Taken,
            (Some(_), None) => LinkSubject::Unknown,
            (Some(0), Some(_)) => LinkSubject::NotPending,
            (Some(_), Some(user)) => LinkSubject::Linked(user),
        })
    }
}

struct Password {
    email: Email,
}

impl Read for Password {
    type Out = Option<(User, Secret<String>)>;
    const NAME: &'static str = "password";

    fn memory(&self, tables: &Tables) -> Result<Self::Out, DbError> {
        let user = tables.users_by_email.get(&self.email).and_then(|id| tables.users.get(id));
        Ok(user.and_then(|user| tables.passwords.get(&user.id).map(|hash| (user.clone(), hash.clone()))))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Self::Out, DbError> {
        let Some(mut row) = one(sql, &PASSWORD, values![&self.email]).await? else { return Ok(None) };
        Ok(Some((read_user(&mut row)?, Secret::new(row.column()?))))
    }
}

struct Passwords {
    limit: u32,
}

impl Read for Passwords {
    type Out = Vec<Secret<String>>;
    const NAME: &'static str = "password_hashes";

    fn memory(&self, tables: &Tables) -> Result<Self::Out, DbError> {
        let mut found: Vec<_> = tables.passwords.iter().collect();
        found.sort_unstable_by_key(|(id, _)| std::cmp::Reverse(**id));
        found.truncate(usize::try_from(page(self.limit)).unwrap_or(0));
        Ok(found.into_iter().map(|(_, hash)| hash.clone()).collect())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Self::Out, DbError> {
        all(sql.rows(&PASSWORDS, values![page(self.limit)]).await?, |row| row.column().map(Secret::new))
    }
}

struct SetPassword {
    id: UserId,
    hash: Option<Secret<String>>,
}

impl Write for SetPassword {
    type Out = Changed;
    const NAME: &'static str = "set_password";

    fn commits(out: &Changed) -> bool {
        is_change(out)
    }

    fn memory(&self, tables: &mut Tables) -> Result<Changed, DbError> {
        let out = change(tables, self.id, |_| {});
        if is_change(&out) {
            match &self.hash {
                Some(hash) => tables.passwords.insert(self.id, hash.clone()),
                None => tables.passwords.remove(&self.id),
            };
        }
        Ok(out)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Changed, DbError> {
        let hash = self.hash.as_ref().map(|hash| hash.expose().as_str());
        changed(one(sql, &SET_PASSWORD, values![self.id, hash]).await?)
    }
}
