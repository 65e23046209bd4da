//! Identities: which subject of which issuer is which user.

use doorward_core::{effects::Effects, id::UserId, user::User};

use crate::{
    LinkIdentity, Store, StoreError,
    memory::Tables,
    op::{Read, Write},
    sql::{DbError, Sql, one, statements, values},
    users::{read_user, user_columns},
};

statements! {
    USER_BY_IDENTITY = concat!("SELECT ", user_columns!(), " FROM identities JOIN users ON users.id = identities.user_id \
        WHERE identities.issuer = $1 AND identities.subject = $2"),
    INSERT_IDENTITY = "INSERT INTO identities (issuer, subject, user_id) VALUES ($1, $2, $3) \
        ON CONFLICT (issuer, subject) DO NOTHING",
    IDENTITY_OWNER = "SELECT user_id FROM identities WHERE issuer = $1 AND subject = $2",
}

impl Store {
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
