//! Magic links: stored when the mail is written; their codes.

use doorward_core::{
    effects::Effects,
    id::{LinkId, SessionId},
    link::{Link, LinkPurpose, TypedCode},
    session::TokenHash,
    time::Timestamp,
    user::Email,
};

use crate::{
    Store, StoreError, TryCode,
    consume::link_state,
    memory::Tables,
    op::{Read, Write},
    sql::{DbError, Lock, Row, Sql, all, one, statements, values},
};

/// Most links of one browser whose codes are compared.
const CODES: usize = 8;

/// The columns of a link, in the order of [`read_link`].
macro_rules! link_columns {
    () => {
        "id, user_id, user_version, email, browser, return_to, created_at, expires_at, used_at, purpose, session_id, \
         new_email, code_hash, code_expires_at, code_tries, voided_at"
    };
}

statements! {
    INSERT_LINK = concat!("INSERT INTO links (", link_columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"),
    LINK = concat!("SELECT ", link_columns!(), " FROM links WHERE id = $1"),
    VOID_LINKS = "UPDATE links SET voided_at = $4 WHERE user_id = $1 AND browser = $2 AND purpose = $3 \
        AND used_at IS NULL AND voided_at IS NULL",
    CODE_LINKS = concat!("SELECT ", link_columns!(), " FROM links WHERE browser = $1 AND code_expires_at > $2 \
        AND expires_at > $2 AND used_at IS NULL AND voided_at IS NULL ORDER BY created_at DESC, id DESC LIMIT 8"),
    TRY_CODE = "UPDATE links SET code_tries = code_tries + 1 WHERE id = $1 AND code_hash IS NOT NULL \
        AND code_tries < $2 AND used_at IS NULL AND voided_at IS NULL RETURNING code_tries",
}

fn read_link(row: &mut Row) -> Result<Link, DbError> {
    let (id, user_id, user_version, email) = (row.column()?, row.column()?, row.column()?, row.column()?);
    let (browser, return_to) = (row.column()?, row.column()?);
    let (created_at, expires_at, used_at) = (row.column()?, row.column()?, row.optional()?);
    let purpose: String = row.column()?;
    let (session, to): (Option<SessionId>, Option<Email>) = (row.optional()?, row.optional()?);
    let purpose = match (purpose.as_str(), session, to) {
        ("sign_in", None, None) => LinkPurpose::SignIn,
        ("re_auth", Some(session), None) => LinkPurpose::ReAuth { session },
        ("email_change", None, Some(to)) => LinkPurpose::EmailChange { to },
        _ => return Err(DbError::Fault("links.purpose is unknown, or lacks its column".to_owned())),
    };
    let (hash, ends, tries) = (row.optional()?, row.optional()?, row.column()?);
    let code = hash.zip(ends).map(|(hash, expires_at)| TypedCode { hash, expires_at, tries });
    let voided_at = row.optional()?;
    Ok(Link {
        id,
        purpose,
        user_id,
        user_version,
        email,
        browser,
        return_to,
        created_at,
        expires_at,
        used_at,
        voided_at,
        code,
    })
}

impl Store {
    /// Stores a link, with the mail that carries its token among the effects. Older unused links of the same user,
    /// purpose and browser are void from now on; those of other browsers stay, so nobody voids a stranger's link.
    ///
    /// # Errors
    /// [`StoreError`]; a second use of its id, or a user that does not exist, is a fault.
    pub async fn put_link(&self, link: Link, effects: Effects) -> Result<(), StoreError> {
        self.write(Put { link }, effects).await
    }

    /// The link with this `jti`, used, void and expired ones included until they are purged.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn link(&self, id: LinkId) -> Result<Option<Link>, StoreError> {
        self.read(ById { id }).await
    }

    /// The links that this browser asked for and whose code can still be typed, newest first; 8 at most. Those whose
    /// tries are used up are among them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn code_links(&self, browser: TokenHash, now: Timestamp) -> Result<Vec<Link>, StoreError> {
        self.read(WithCode { browser, now }).await
    }

    /// Counts a try of a link's code, before it is compared: however many try at once, no more than
    /// [`TypedCode::TRIES`] are counted. Whether code and link have ended is for the caller to check.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn try_code(&self, id: LinkId) -> Result<TryCode, StoreError> {
        self.write(Try { id }, Effects::default()).await
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
        let same = |old: &&mut Link| {
            old.user_id == self.link.user_id
                && old.browser == self.link.browser
                && old.purpose.as_str() == self.link.purpose.as_str()
                && old.used_at.is_none()
                && old.voided_at.is_none()
        };
        for old in tables.links.values_mut().filter(same) {
            old.voided_at = Some(self.link.created_at);
        }
        tables.links.insert(self.link.id, self.link.clone());
        Ok(())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<(), DbError> {
        let link = &self.link;
        let (session, to) = match &link.purpose {
            LinkPurpose::SignIn => (None, None),
            LinkPurpose::ReAuth { session } => (Some(*session), None),
            LinkPurpose::EmailChange { to } => (None, Some(to)),
        };
        let purpose = link.purpose.as_str();
        // Two new links at once: without the lock neither would see the other.
        sql.lock(Lock::LinksOf(link.user_id)).await?;
        sql.execute(&VOID_LINKS, values![link.user_id, &link.browser, purpose, link.created_at]).await?;
        sql.execute(
            &INSERT_LINK,
            values![
                link.id,
                link.user_id,
                link.user_version,
                &link.email,
                &link.browser,
                link.return_to.as_str(),
                link.created_at,
                link.expires_at,
                link.used_at,
                purpose,
                session,
                to,
                link.code.as_ref().map(|code| &code.hash),
                link.code.map(|code| code.expires_at),
                link.code.map_or(0, |code| i64::from(code.tries)),
                link.voided_at
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

struct WithCode {
    browser: TokenHash,
    now: Timestamp,
}

impl Read for WithCode {
    type Out = Vec<Link>;
    const NAME: &'static str = "code_links";

    fn memory(&self, tables: &Tables) -> Result<Vec<Link>, DbError> {
        let typed = |link: &&Link| {
            link.browser == self.browser
                && link.code.is_some_and(|code| code.expires_at > self.now)
                && link.expires_at > self.now
                && link.used_at.is_none()
                && link.voided_at.is_none()
        };
        let mut links: Vec<Link> = tables.links.values().filter(typed).cloned().collect();
        links.sort_by_key(|link| std::cmp::Reverse((link.created_at, link.id)));
        links.truncate(CODES);
        Ok(links)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<Link>, DbError> {
        all(sql.rows(&CODE_LINKS, values![&self.browser, self.now]).await?, read_link)
    }
}

struct Try {
    id: LinkId,
}

impl Write for Try {
    type Out = TryCode;
    const NAME: &'static str = "try_code";

    fn commits(out: &TryCode) -> bool {
        matches!(out, TryCode::Counted { .. })
    }

    fn memory(&self, tables: &mut Tables) -> Result<TryCode, DbError> {
        let open = |link: &&mut Link| link.used_at.is_none() && link.voided_at.is_none();
        let link = tables.links.get_mut(&self.id).filter(open);
        let Some(code) = link.and_then(|link| link.code.as_mut()) else { return Ok(TryCode::Unknown) };
        if code.tries >= TypedCode::TRIES {
            return Ok(TryCode::Exhausted);
        }
        code.tries += 1;
        Ok(TryCode::Counted { tries: code.tries })
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<TryCode, DbError> {
        if let Some(mut row) = one(sql, &TRY_CODE, values![self.id, i64::from(TypedCode::TRIES)]).await? {
            return Ok(TryCode::Counted { tries: row.column()? });
        }
        Ok(match link_state(sql, self.id).await? {
            Some(state) if state.has_code && !state.used && !state.voided => TryCode::Exhausted,
            Some(_) | None => TryCode::Unknown,
        })
    }
}
