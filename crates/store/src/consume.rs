//! How sessions begin: a link is consumed, or somebody signs in without one.

use doorward_core::{
    effects::Effects,
    id::{LinkId, UserId},
    link::{ConsumeLink, Promotion},
    session::{Session, TokenHash},
    user::{LinkStatus, User},
};

use crate::{
    Begin, BeginSession, Consume, Store, StoreError,
    accounts::{is_pending, link_in_memory},
    memory::Tables,
    op::Write,
    sessions::insert_session,
    sql::{DbError, Lock, Sql, one, statements, values},
};

statements! {
    // The row lock that this takes is what makes a second caller wait and then find `used_at` set.
    USE_LINK = "UPDATE links SET used_at = $2 WHERE id = $1 AND user_id = $3 AND used_at IS NULL AND voided_at IS NULL",
    UNUSE_LINK = "UPDATE links SET used_at = NULL WHERE id = $1",
    LINK_STATE = "SELECT user_id, used_at IS NOT NULL, voided_at IS NOT NULL, code_hash IS NOT NULL \
        FROM links WHERE id = $1",
    VERIFY_EMAIL = "UPDATE users SET email_verified = TRUE WHERE id = $1 AND version = $2 AND banned_at IS NULL",
    VERIFY_AND_PROMOTE = "UPDATE users SET email_verified = TRUE, external_subject = $3, link_status = 'linked', \
        candidate_subject = NULL WHERE id = $1 AND version = $2 AND banned_at IS NULL \
        AND link_status = 'pending_verify' AND candidate_subject = $3",
    MARK_MISMATCH = "UPDATE users SET link_status = 'mismatch' WHERE id = $1 AND version = $2 AND banned_at IS NULL \
        AND link_status IN ('pending_verify', 'mismatch')",
    CURRENT_USER = "SELECT id FROM users WHERE id = $1 AND version = $2 AND banned_at IS NULL {lock_row}",
    END_REQUIRED = "DELETE FROM sessions WHERE id = $1 AND user_id = $2",
    END_REPLACED = "DELETE FROM sessions WHERE hash = $1",
    STATE_VERSION = "SELECT version FROM runtime_state WHERE name = $1",
}

/// What an operation that met no row wants to know about a link.
pub(crate) struct LinkState {
    pub(crate) user_id: UserId,
    pub(crate) used: bool,
    pub(crate) voided: bool,
    pub(crate) has_code: bool,
}

/// The state of a link, inside a transaction.
pub(crate) async fn link_state(sql: &mut impl Sql, id: LinkId) -> Result<Option<LinkState>, DbError> {
    let Some(mut row) = one(sql, &LINK_STATE, values![id]).await? else { return Ok(None) };
    let (user_id, used, voided, has_code) = (row.column()?, row.column()?, row.column()?, row.column()?);
    Ok(Some(LinkState { user_id, used, voided, has_code }))
}

impl Store {
    /// Uses a link, by its token or its code: marks it, promotes a pending user, ends the sessions that it replaces,
    /// begins the new one and notes that the address is proven; all in one transaction.
    ///
    /// The caller has checked the link ([`doorward_core::link::check`]); what can change between check and commit is
    /// checked here again: that it is unused and not void, that its user has still the version and candidate of the
    /// plan and no ban, and that the session of a re-authentication is still there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn consume_link(&self, plan: ConsumeLink, effects: Effects) -> Result<Consume, StoreError> {
        self.write(Use { plan }, effects).await
    }

    /// Begins a session without a link: the caller has checked who it is.
    ///
    /// Where the plan rests on a shared value, no session begins once that was set anew ([`Store::set_state`]).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_session(&self, plan: BeginSession, effects: Effects) -> Result<Begin, StoreError> {
        self.write(BeginOne { plan }, effects).await
    }
}

struct Use {
    plan: ConsumeLink,
}

fn current(tables: &Tables, id: UserId, version: i64) -> Option<&User> {
    tables.users.get(&id).filter(|user| user.version == version && user.banned_at.is_none())
}

/// The same in memory; the caller has checked the session.
pub(crate) fn begin_in_memory(tables: &mut Tables, session: &Session, replaces: Option<&TokenHash>) {
    if let Some(hash) = replaces {
        tables.remove_session(hash);
    }
    tables.insert_session(session.clone());
}

impl Write for Use {
    type Out = Consume;
    const NAME: &'static str = "consume_link";

    fn commits(out: &Consume) -> bool {
        matches!(out, Consume::Consumed | Consume::Mismatch)
    }

    fn memory(&self, tables: &mut Tables) -> Result<Consume, DbError> {
        let ConsumeLink { link, user_id, user_version, by: _, promote, at, requires, session, replaces } = &self.plan;
        let Some(row) = tables.links.get(link) else { return Ok(Consume::Unknown) };
        if row.used_at.is_some() {
            return Ok(Consume::AlreadyUsed);
        }
        if row.voided_at.is_some() {
            return Ok(Consume::Voided);
        }
        let Some(user) = current(tables, *user_id, *user_version).filter(|_| row.user_id == *user_id) else {
            return Ok(Consume::UserChanged);
        };
        match promote {
            Some(Promotion::Mismatch) => {
                if !matches!(user.link_status, Some(LinkStatus::PendingVerify | LinkStatus::Mismatch)) {
                    return Ok(Consume::UserChanged);
                }
                if let Some(user) = tables.users.get_mut(user_id) {
                    user.link_status = Some(LinkStatus::Mismatch);
                }
                return Ok(Consume::Mismatch);
            }
            Some(Promotion::Promote { subject }) => {
                if !is_pending(user, subject) {
                    return Ok(Consume::UserChanged);
                }
                if tables.users_by_subject.get(subject).is_some_and(|owner| owner != user_id) {
                    return Ok(Consume::SubjectTaken);
                }
            }
            None => {}
        }
        let required = |one: &Session| Some(one.id) == *requires && one.user_id == *user_id;
        let required = requires.and_then(|_| tables.sessions.values().find(|one| required(one)).map(|one| one.hash));
        if requires.is_some() && required.is_none() {
            return Ok(Consume::SessionGone);
        }
        tables.check_session(session, replaces.as_ref())?;
        if let Some(hash) = required {
            tables.remove_session(&hash);
        }
        begin_in_memory(tables, session, replaces.as_ref());
        if let Some(row) = tables.links.get_mut(link) {
            row.used_at = Some(*at);
        }
        if let Some(user) = tables.users.get_mut(user_id) {
            user.email_verified = true;
        }
        if let Some(Promotion::Promote { subject }) = promote {
            link_in_memory(tables, *user_id, subject);
        }
        Ok(Consume::Consumed)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Consume, DbError> {
        let ConsumeLink { link, user_id, user_version, by: _, promote, at, requires, session, replaces } = &self.plan;
        if sql.execute(&USE_LINK, values![*link, *at, *user_id]).await? == 0 {
            return Ok(match link_state(sql, *link).await? {
                None => Consume::Unknown,
                Some(state) if state.used => Consume::AlreadyUsed,
                Some(state) if state.voided => Consume::Voided,
                Some(_) => Consume::UserChanged,
            });
        }
        let touched = match promote {
            None => sql.execute(&VERIFY_EMAIL, values![*user_id, *user_version]).await?,
            Some(Promotion::Promote { subject }) => {
                let values = values![*user_id, *user_version, subject.as_str()];
                match sql.execute_if_unique(&VERIFY_AND_PROMOTE, values).await? {
                    Some(touched) => touched,
                    None => return Ok(Consume::SubjectTaken),
                }
            }
            Some(Promotion::Mismatch) => sql.execute(&MARK_MISMATCH, values![*user_id, *user_version]).await?,
        };
        if touched == 0 {
            return Ok(Consume::UserChanged);
        }
        if *promote == Some(Promotion::Mismatch) {
            // The lock on the link was all that its use was for.
            sql.execute(&UNUSE_LINK, values![*link]).await?;
            return Ok(Consume::Mismatch);
        }
        if let Some(id) = requires
            && sql.execute(&END_REQUIRED, values![*id, *user_id]).await? == 0
        {
            return Ok(Consume::SessionGone);
        }
        begin_in_sql(sql, session, replaces.as_ref()).await?;
        Ok(Consume::Consumed)
    }
}

/// Begins a session inside a transaction and ends the one that it replaces.
pub(crate) async fn begin_in_sql(
    sql: &mut impl Sql,
    session: &Session,
    replaces: Option<&TokenHash>,
) -> Result<(), DbError> {
    if let Some(hash) = replaces {
        sql.execute(&END_REPLACED, values![hash]).await?;
    }
    insert_session(sql, session).await
}

struct BeginOne {
    plan: BeginSession,
}

impl Write for BeginOne {
    type Out = Begin;
    const NAME: &'static str = "begin_session";

    fn commits(out: &Begin) -> bool {
        *out == Begin::Began
    }

    fn memory(&self, tables: &mut Tables) -> Result<Begin, DbError> {
        let BeginSession { session, user_version, replaces, rests_on } = &self.plan;
        if let Some((name, version)) = rests_on
            && tables.state.get(name).map_or(0, |state| state.version) != *version
        {
            return Ok(Begin::StateChanged);
        }
        if current(tables, session.user_id, *user_version).is_none() {
            return Ok(Begin::UserChanged);
        }
        tables.check_session(session, replaces.as_ref())?;
        begin_in_memory(tables, session, replaces.as_ref());
        Ok(Begin::Began)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Begin, DbError> {
        let BeginSession { session, user_version, replaces, rests_on } = &self.plan;
        if let Some((name, version)) = rests_on {
            // Also where there is no row yet that could be locked.
            sql.lock(Lock::State).await?;
            let now = one(sql, &STATE_VERSION, values![name.as_str()]).await?;
            if now.map_or(Ok(0), |mut row| row.column())? != *version {
                return Ok(Begin::StateChanged);
            }
        }
        if one(sql, &CURRENT_USER, values![session.user_id, *user_version]).await?.is_none() {
            return Ok(Begin::UserChanged);
        }
        begin_in_sql(sql, session, replaces.as_ref()).await?;
        Ok(Begin::Began)
    }
}
