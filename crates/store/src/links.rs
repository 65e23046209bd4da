//! Magic links: stored when the mail is written, consumed once.

use doorward_core::{
    effects::Effects,
    id::{LinkId, UserId},
    link::{ConsumeLink, Link},
    time::Timestamp,
};

use crate::{
    Consume, Store, StoreError,
    memory::Tables,
    op::{Read, Write},
    sessions::insert_session,
    sql::{DbError, Row, Sql, one, statements, values},
};

statements! {
    INSERT_LINK = "INSERT INTO links (id, user_id, user_version, email, browser, return_to, created_at, expires_at, \
        used_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    LINK = "SELECT id, user_id, user_version, email, browser, return_to, created_at, expires_at, used_at \
        FROM links WHERE id = $1",
    // The row lock that this takes is what makes a second caller wait and then find `used_at` set.
    USE_LINK = "UPDATE links SET used_at = $2 WHERE id = $1 AND user_id = $3 AND used_at IS NULL",
    LINK_STATE = "SELECT user_id, used_at FROM links WHERE id = $1",
    VERIFY_EMAIL = "UPDATE users SET email_verified = TRUE WHERE id = $1 AND version = $2 AND banned_at IS NULL",
    END_REPLACED = "DELETE FROM sessions WHERE hash = $1",
}

fn read_link(row: &mut Row) -> Result<Link, DbError> {
    Ok(Link {
        id: row.column()?,
        user_id: row.column()?,
        user_version: row.column()?,
        email: row.column()?,
        browser: row.column()?,
        return_to: row.column()?,
        created_at: row.column()?,
        expires_at: row.column()?,
        used_at: row.optional()?,
    })
}

impl Store {
    /// Stores a link, with the mail that carries its token among the effects.
    ///
    /// # Errors
    /// [`StoreError`]; a second use of its id, or a user that does not exist, is a fault.
    pub async fn put_link(&self, link: Link, effects: Effects) -> Result<(), StoreError> {
        self.write(Put { link }, effects).await
    }

    /// The link with this `jti`, used and expired ones included until they are purged.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn link(&self, id: LinkId) -> Result<Option<Link>, StoreError> {
        self.read(ById { id }).await
    }

    /// Uses a link: marks it, ends the session that it replaces, begins the new one and notes that the address is
    /// proven; all in one transaction.
    ///
    /// The caller has checked the link ([`doorward_core::link::check`]); what can change between check and commit is
    /// checked here again: that it is unused, and that its user has still the version of the plan and no ban.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn consume_link(&self, plan: ConsumeLink, effects: Effects) -> Result<Consume, StoreError> {
        self.write(Use { plan }, effects).await
    }
}

struct Put {
    link: Link,
}

impl Write for Put {
    type Out = ();
    const NAME: &'static str = "put_link";

    fn memory(&self, tables: &mut Tables) -> Result<(), DbError> {
        tables.require_user(self.link.user_id)?;
        if tables.links.contains_key(&self.link.id) {
            return Err(DbError::Fault("links.id is not unique".to_owned()));
        }
        tables.links.insert(self.link.id, self.link.clone());
        Ok(())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<(), DbError> {
        let Link { id, user_id, user_version, email, browser, return_to, created_at, expires_at, used_at } = &self.link;
        sql.execute(
            &INSERT_LINK,
            values![
                *id,
                *user_id,
                *user_version,
                email,
                browser,
                return_to.as_str(),
                *created_at,
                *expires_at,
                *used_at
            ],
        )
        .await?;
        Ok(())
    }
}

struct ById {
    id: LinkId,
}

impl Read for ById {
    type Out = Option<Link>;
    const NAME: &'static str = "link";

    fn memory(&self, tables: &Tables) -> Result<Option<Link>, DbError> {
        Ok(tables.links.get(&self.id).cloned())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Option<Link>, DbError> {
        one(sql, &LINK, values![self.id]).await?.map(|mut row| read_link(&mut row)).transpose()
    }
}

struct Use {
    plan: ConsumeLink,
}

impl Write for Use {
    type Out = Consume;
    const NAME: &'static str = "consume_link";

    fn commits(out: &Consume) -> bool {
        *out == Consume::Consumed
    }

    fn memory(&self, tables: &mut Tables) -> Result<Consume, DbError> {
        let ConsumeLink { link, user_id, user_version, at, session, replaces } = &self.plan;
        let Some(row) = tables.links.get(link) else { return Ok(Consume::Unknown) };
        if row.used_at.is_some() {
            return Ok(Consume::AlreadyUsed);
        }
        let current = tables.users.get(user_id).is_some_and(|u| u.version == *user_version && u.banned_at.is_none());
        if row.user_id != *user_id || !current {
            return Ok(Consume::UserChanged);
        }
        tables.check_session(session, replaces.as_ref())?;
        if let Some(hash) = replaces {
            tables.remove_session(hash);
        }
        tables.insert_session(session.clone());
        if let Some(row) = tables.links.get_mut(link) {
            row.used_at = Some(*at);
        }
        if let Some(user) = tables.users.get_mut(user_id) {
            user.email_verified = true;
        }
        Ok(Consume::Consumed)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Consume, DbError> {
        let ConsumeLink { link, user_id, user_version, at, session, replaces } = &self.plan;
        if sql.execute(&USE_LINK, values![*link, *at, *user_id]).await? == 0 {
            let Some(mut row) = one(sql, &LINK_STATE, values![*link]).await? else { return Ok(Consume::Unknown) };
            let (_owner, used_at): (UserId, Option<Timestamp>) = (row.column()?, row.optional()?);
            return Ok(if used_at.is_some() { Consume::AlreadyUsed } else { Consume::UserChanged });
        }
        if sql.execute(&VERIFY_EMAIL, values![*user_id, *user_version]).await? == 0 {
            return Ok(Consume::UserChanged);
        }
        if let Some(hash) = replaces {
            sql.execute(&END_REPLACED, values![hash]).await?;
        }
        insert_session(sql, session).await?;
        Ok(Consume::Consumed)
    }
}
