//! Sessions: looked up by the hash of their token.

use std::net::IpAddr;

use doorward_core::{
    effects::Effects,
    id::{SessionId, UserId},
    revocation::Scope,
    session::{Session, SignInMethod, TokenHash},
    time::Timestamp,
    user::User,
};

use crate::{
    End, Store, StoreError, Which,
    memory::Tables,
    op::{Read, Write},
    sql::{Cell, DbError, FromCell, Row, Sql, Value, all, one, statements, values},
    users::{read_user, user_columns},
};

/// Rows that one transaction of a batch touches; others get their turn in between.
const BATCH: usize = 500;

/// Most sessions that are listed at once.
pub const LISTED_SESSIONS: usize = 1000;

/// The columns of a session, in the order of [`read_session`].
macro_rules! session_columns {
    () => {
        "sessions.id, sessions.hash, sessions.user_id, sessions.org_id, sessions.method, sessions.created_at, \
         sessions.authenticated_at, sessions.last_used_at, sessions.expires_at, sessions.ip, sessions.user_agent"
    };
}

statements! {
    INSERT_SESSION = "INSERT INTO sessions (id, hash, user_id, org_id, method, created_at, authenticated_at, \
        last_used_at, expires_at, ip, user_agent) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    SESSION = concat!("SELECT ", session_columns!(), ", ", user_columns!(),
        " FROM sessions JOIN users ON users.id = sessions.user_id WHERE sessions.hash = $1"),
    END_SESSION = concat!("DELETE FROM sessions WHERE hash = $1 RETURNING ", session_columns!()),
    END_OF_USER = "DELETE FROM sessions WHERE user_id = $1",
    END_ALL = "DELETE FROM sessions",
    END_ONE = "DELETE FROM sessions WHERE id = $1",
    BEGUN = "SELECT hash FROM sessions WHERE hash > $1 AND created_at <= $2 ORDER BY hash LIMIT $3",
    END_LISTED = "DELETE FROM sessions WHERE hash = $1",
    SESSIONS_OF = concat!("SELECT ", session_columns!(), " FROM sessions WHERE user_id = $1 ORDER BY id DESC LIMIT 1000"),
    SESSION_OF = concat!("SELECT ", session_columns!(), " FROM sessions WHERE user_id = $1 AND id = $2"),
    SESSIONS_OF_AFTER = concat!("SELECT ", session_columns!(),
        " FROM sessions WHERE user_id = $1 AND id > $2 ORDER BY id LIMIT 1000"),
    TOUCH = "UPDATE sessions SET last_used_at = $2 WHERE hash = $1 AND last_used_at < $2",
}

fn read_session(row: &mut Row) -> Result<Session, DbError> {
    Ok(Session {
        id: row.column()?,
        hash: row.column()?,
        user_id: row.column()?,
        org_id: row.optional()?,
        method: row.column()?,
        created_at: row.column()?,
        authenticated_at: row.column()?,
        last_used_at: row.column()?,
        expires_at: row.column()?,
        ip: row.optional()?,
        user_agent: row.optional()?,
    })
}

impl FromCell for SignInMethod {
    fn from_cell(cell: Cell) -> Option<Self> {
        let word = String::from_cell(cell)?;
        Self::ALL.into_iter().find(|method| method.as_str() == word)
    }
}

impl FromCell for IpAddr {
    fn from_cell(cell: Cell) -> Option<Self> {
        String::from_cell(cell)?.parse().ok()
    }
}

/// Inserts a session inside a transaction.
pub(crate) async fn insert_session(sql: &mut impl Sql, session: &Session) -> Result<(), DbError> {
    let ip = session.ip.map(|ip| ip.to_string());
    sql.execute(
        &INSERT_SESSION,
        values![
            session.id,
            &session.hash,
            session.user_id,
            session.org_id,
            session.method.as_str(),
            session.created_at,
            session.authenticated_at,
            session.last_used_at,
            session.expires_at,
            ip.as_deref(),
            session.user_agent.as_deref()
        ],
    )
    .await?;
    Ok(())
}

impl Store {
    /// The session with this token hash, and its user. Limits and bans are for the caller to check.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session(&self, hash: TokenHash) -> Result<Option<(Session, User)>, StoreError> {
        self.read(ByHash { hash }).await
    }

    /// Ends the session with this token hash.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_session(&self, hash: TokenHash, effects: Effects) -> Result<End, StoreError> {
        self.write(EndByHash { hash }, effects).await
    }

    /// Ends sessions and says how many there were. The effects are committed also when there were none: somebody
    /// asked for it, and caches may know a session that the store has forgotten.
    ///
    /// All sessions of an installation may be more than one transaction can end in time. Where they are many the effects are
    /// committed first, then the sessions that they mean go in batches, and the entries of the revocation log are made
    /// once more with the rest: those that began meanwhile.
    ///
    /// # Errors
    /// [`StoreError`]; batches that were ended before the error stay so, and so do the effects.
    pub async fn end_sessions(&self, which: Which, mut effects: Effects) -> Result<u64, StoreError> {
        let said = effects.revocations.iter().filter(|entry| entry.scope == Scope::AllSessions);
        let (Which::All, Some(until)) = (which, said.map(|entry| entry.at).max()) else {
            return self.write(EndMany { which }, effects).await;
        };
        let (mut ended, mut after, mut is_said) = (0, Vec::new(), false);
        // Hashes rise, so this ends with the table.
        loop {
            let hashes = self.read(Begun { after, until }).await?;
            let Some(last) = hashes.last().filter(|_| hashes.len() == BATCH) else { break };
            after = last.as_bytes().to_vec();
            if !std::mem::replace(&mut is_said, true) {
                let again = Effects { revocations: effects.revocations.clone(), ..Effects::default() };
                self.append(std::mem::replace(&mut effects, again)).await?;
            }
            ended += self.write(EndListed { hashes }, Effects::default()).await?;
        }
        Ok(ended + self.write(EndMany { which }, effects).await?)
    }

    /// The sessions of a user, those that began last first; [`LISTED_SESSIONS`] at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sessions_of(&self, user: UserId) -> Result<Vec<Session>, StoreError> {
        self.read(OfUser { user }).await
    }

    /// The session of this name, if it is that user's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_of(&self, user: UserId, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.read(OneOfUser { user, id }).await
    }

    /// All sessions of a user page by page, in the order in which they began: those behind `after`; [`LISTED_SESSIONS`] at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sessions_of_after(&self, user: UserId, after: Option<SessionId>) -> Result<Vec<Session>, StoreError> {
        let after = after.unwrap_or_else(|| SessionId::from_uuid(uuid::Uuid::nil()));
        self.read(OfUserAfter { user, after }).await
    }

    /// Notes when sessions were last used. Never moves a time back, never brings a session back.
    ///
    /// # Errors
    /// [`StoreError`]; batches written before the error stay written.
    pub async fn touch_sessions(&self, mut touches: Vec<(TokenHash, Timestamp)>) -> Result<(), StoreError> {
        touches.sort_unstable(); // one order for everybody: no two batches wait for each other
        for batch in touches.chunks(BATCH) {
            self.write(Touch { touches: batch.to_vec() }, Effects::default()).await?;
        }
        Ok(())
    }
}

struct ByHash {
    hash: TokenHash,
}

impl Read for ByHash {
    type Out = Option<(Session, User)>;
    const NAME: &'static str = "session";

    fn memory(&self, tables: &Tables) -> Result<Self::Out, DbError> {
        let session = tables.sessions.get(&self.hash);
        Ok(session.and_then(|s| tables.users.get(&s.user_id).map(|user| (s.clone(), user.clone()))))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Self::Out, DbError> {
        let Some(mut row) = one(sql, &SESSION, values![&self.hash]).await? else { return Ok(None) };
        Ok(Some((read_session(&mut row)?, read_user(&mut row)?)))
    }
}

struct EndByHash {
    hash: TokenHash,
}

impl Write for EndByHash {
    type Out = End;
    const NAME: &'static str = "end_session";

    fn commits(out: &End) -> bool {
        matches!(out, End::Ended(_))
    }

    fn memory(&self, tables: &mut Tables) -> Result<End, DbError> {
        Ok(tables.remove_session(&self.hash).map_or(End::Unknown, End::Ended))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<End, DbError> {
        match one(sql, &END_SESSION, values![&self.hash]).await? {
            None => Ok(End::Unknown),
            Some(mut row) => read_session(&mut row).map(End::Ended),
        }
    }
}

struct EndMany {
    which: Which,
}

impl Write for EndMany {
    type Out = u64;
    const NAME: &'static str = "end_sessions";

    fn memory(&self, tables: &mut Tables) -> Result<u64, DbError> {
        let before = tables.sessions.len();
        tables.sessions.retain(|_, session| match self.which {
            Which::User(user) => session.user_id != user,
            Which::All => false,
            Which::One(id) => session.id != id,
        });
        Ok((before - tables.sessions.len()) as u64)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<u64, DbError> {
        match self.which {
            Which::User(user) => sql.execute(&END_OF_USER, values![user]).await,
            Which::All => sql.execute(&END_ALL, &[]).await,
            Which::One(id) => sql.execute(&END_ONE, values![id]).await,
        }
    }
}

/// A page of the sessions that began by then, in the order of their hashes.
struct Begun {
    after: Vec<u8>,
    until: Timestamp,
}

impl Read for Begun {
    type Out = Vec<TokenHash>;
    const NAME: &'static str = "begun_sessions";

    fn memory(&self, tables: &Tables) -> Result<Vec<TokenHash>, DbError> {
        let begun = tables.sessions.values().filter(|session| session.created_at <= self.until);
        let mut begun: Vec<TokenHash> =
            begun.map(|session| session.hash).filter(|hash| hash.as_bytes().as_slice() > &*self.after).collect();
        begun.sort_unstable();
        begun.truncate(BATCH);
        Ok(begun)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<TokenHash>, DbError> {
        all(sql.rows(&BEGUN, values![self.after.as_slice(), self.until, BATCH as i64]).await?, Row::column)
    }
}

struct EndListed {
    hashes: Vec<TokenHash>,
}

impl Write for EndListed {
    type Out = u64;
    const NAME: &'static str = "end_listed_sessions";

    fn memory(&self, tables: &mut Tables) -> Result<u64, DbError> {
        Ok(self.hashes.iter().filter(|hash| tables.remove_session(hash).is_some()).count() as u64)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<u64, DbError> {
        let lists: Vec<[Value<'_>; 1]> = self.hashes.iter().map(|hash| [hash.into()]).collect();
        sql.each(&END_LISTED, &lists).await
    }
}

struct OfUser {
    user: UserId,
}

impl Read for OfUser {
    type Out = Vec<Session>;
    const NAME: &'static str = "sessions_of";

    fn memory(&self, tables: &Tables) -> Result<Vec<Session>, DbError> {
        let mut found = in_memory(tables, |session| session.user_id == self.user);
        found.reverse();
        found.truncate(LISTED_SESSIONS);
        Ok(found)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<Session>, DbError> {
        all(sql.rows(&SESSIONS_OF, values![self.user]).await?, read_session)
    }
}

struct OneOfUser {
    user: UserId,
    id: SessionId,
}

impl Read for OneOfUser {
    type Out = Option<Session>;
    const NAME: &'static str = "session_of";

    fn memory(&self, tables: &Tables) -> Result<Option<Session>, DbError> {
        let is_wanted = |session: &&Session| session.user_id == self.user && session.id == self.id;
        Ok(tables.sessions.values().find(is_wanted).cloned())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Option<Session>, DbError> {
        one(sql, &SESSION_OF, values![self.user, self.id]).await?.map(|mut row| read_session(&mut row)).transpose()
    }
}

struct OfUserAfter {
    user: UserId,
    after: SessionId,
}

impl Read for OfUserAfter {
    type Out = Vec<Session>;
    const NAME: &'static str = "sessions_of";

    fn memory(&self, tables: &Tables) -> Result<Vec<Session>, DbError> {
        let mut found = in_memory(tables, |session| session.user_id == self.user && session.id > self.after);
        found.truncate(LISTED_SESSIONS);
        Ok(found)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<Session>, DbError> {
        all(sql.rows(&SESSIONS_OF_AFTER, values![self.user, self.after]).await?, read_session)
    }
}

/// In the order of their names, which is that in which they began.
fn in_memory(tables: &Tables, is_wanted: impl Fn(&Session) -> bool) -> Vec<Session> {
    let mut found: Vec<Session> = tables.sessions.values().filter(|session| is_wanted(session)).cloned().collect();
    found.sort_unstable_by_key(|session| session.id);
    found
}

struct Touch {
    touches: Vec<(TokenHash, Timestamp)>,
}

impl Write for Touch {
    type Out = ();
    const NAME: &'static str = "touch_sessions";

    fn memory(&self, tables: &mut Tables) -> Result<(), DbError> {
        for (hash, at) in &self.touches {
            if let Some(session) = tables.sessions.get_mut(hash) {
                session.last_used_at = session.last_used_at.max(*at);
            }
        }
        Ok(())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<(), DbError> {
        let lists: Vec<[Value<'_>; 2]> = self.touches.iter().map(|(hash, at)| [hash.into(), (*at).into()]).collect();
        sql.each(&TOUCH, &lists).await?;
        Ok(())
    }
}
