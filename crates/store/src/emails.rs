//! Another mail address for a user.

use doorward_core::{effects::Effects, id::UserId, link::LinkPurpose, session::Session, user::Email};

use crate::{
    ConfirmEmail, EmailChange, Store, StoreError,
    accounts::user_now,
    consume::link_state,
    memory::Tables,
    op::Write,
    sql::{DbError, Sql, statements, values},
};

statements! {
    SET_EMAIL = "UPDATE users SET email = $3, email_verified = TRUE, version = version + 1 \
        WHERE id = $1 AND version = $2 AND banned_at IS NULL",
    USE_EMAIL_LINK = "UPDATE links SET used_at = $2 WHERE id = $1 AND user_id = $3 AND purpose = 'email_change' \
        AND new_email = $4 AND used_at IS NULL AND voided_at IS NULL",
    END_OTHERS = "DELETE FROM sessions WHERE user_id = $1 AND hash <> $2",
}

impl Store {
    /// Gives a user another address, proven, if the user still has `version`; counts the version up. Sessions stay.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn update_email(
        &self,
        id: UserId,
        version: i64,
        to: Email,
        effects: Effects,
    ) -> Result<EmailChange, StoreError> {
        self.write(UpdateEmail { id, version, to }, effects).await
    }

    /// Uses the link that confirms a new address: marks it, changes the address, counts the version up (older links
    /// are void) and ends every session of the user but one; all in one transaction.
    ///
    /// The caller has checked the link and puts the revocation of the ended sessions into the effects.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn confirm_email(&self, plan: ConfirmEmail, effects: Effects) -> Result<EmailChange, StoreError> {
        self.write(Confirm { plan }, effects).await
    }
}

struct UpdateEmail {
    id: UserId,
    version: i64,
    to: Email,
}

fn email_in_memory(tables: &mut Tables, id: UserId, version: i64, to: &Email) -> EmailChange {
    let Some(user) = tables.users.get_mut(&id) else { return EmailChange::Unknown };
    if user.version != version || user.banned_at.is_some() {
        return EmailChange::UserChanged;
    }
    if tables.users_by_email.get(to).is_some_and(|owner| *owner != id) {
        return EmailChange::Taken;
    }
    let old = std::mem::replace(&mut user.email, to.clone());
    user.email_verified = true;
    user.version += 1;
    let now = user.clone();
    tables.users_by_email.remove(&old);
    tables.users_by_email.insert(to.clone(), id);
    EmailChange::Changed(now)
}

async fn email_in_sql(sql: &mut impl Sql, id: UserId, version: i64, to: &Email) -> Result<EmailChange, DbError> {
    let touched = sql.execute_if_unique(&SET_EMAIL, values![id, version, to]).await?;
    Ok(match (touched, user_now(sql, id).await?) {
        (None, _) => EmailChange::Taken,
        (Some(_), None) => EmailChange::Unknown,
        (Some(0), Some(_)) => EmailChange::UserChanged,
        (Some(_), Some(user)) => EmailChange::Changed(user),
    })
}

impl Write for UpdateEmail {
    type Out = EmailChange;
    const NAME: &'static str = "update_email";

    fn commits(out: &EmailChange) -> bool {
        matches!(out, EmailChange::Changed(_))
    }

    fn memory(&self, tables: &mut Tables) -> Result<EmailChange, DbError> {
        Ok(email_in_memory(tables, self.id, self.version, &self.to))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<EmailChange, DbError> {
        email_in_sql(sql, self.id, self.version, &self.to).await
    }
}

struct Confirm {
    plan: ConfirmEmail,
}

impl Write for Confirm {
    type Out = EmailChange;
    const NAME: &'static str = "confirm_email";

    fn commits(out: &EmailChange) -> bool {
        matches!(out, EmailChange::Changed(_))
    }

    fn memory(&self, tables: &mut Tables) -> Result<EmailChange, DbError> {
        let ConfirmEmail { link, user_id, user_version, to, at, keep, ends } = &self.plan;
        let Some(row) = tables.links.get(link).filter(|row| row.user_id == *user_id) else {
            return Ok(EmailChange::Unknown);
        };
        if row.used_at.is_some() {
            return Ok(EmailChange::AlreadyUsed);
        }
        if row.voided_at.is_some() {
            return Ok(EmailChange::Voided);
        }
        if !matches!(&row.purpose, LinkPurpose::EmailChange { to: asked } if asked == to) {
            return Ok(EmailChange::Unknown);
        }
        let others = |session: &Session| session.user_id == *user_id && Some(&session.hash) != keep.as_ref();
        if tables.sessions.values().filter(|session| others(session)).count() as u64 != *ends {
            return Ok(EmailChange::SessionsChanged);
        }
        let out = email_in_memory(tables, *user_id, *user_version, to);
        if Self::commits(&out) {
            if let Some(row) = tables.links.get_mut(link) {
                row.used_at = Some(*at);
            }
            tables.sessions.retain(|_, session| !others(session));
        }
        Ok(out)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<EmailChange, DbError> {
        let ConfirmEmail { link, user_id, user_version, to, at, keep, ends } = &self.plan;
        if sql.execute(&USE_EMAIL_LINK, values![*link, *at, *user_id, to]).await? == 0 {
            return Ok(match link_state(sql, *link).await? {
                Some(state) if state.user_id == *user_id && state.used => EmailChange::AlreadyUsed,
                Some(state) if state.user_id == *user_id && state.voided => EmailChange::Voided,
                Some(_) | None => EmailChange::Unknown,
            });
        }
        let out = email_in_sql(sql, *user_id, *user_version, to).await?;
        if Self::commits(&out) {
            let keep: &[u8] = keep.as_ref().map_or(&[], |hash| hash.as_bytes());
            if sql.execute(&END_OTHERS, values![*user_id, keep]).await? != *ends {
                return Ok(EmailChange::SessionsChanged);
            }
        }
        Ok(out)
    }
}
