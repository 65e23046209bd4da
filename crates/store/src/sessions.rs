//! Sessions: looked up by the hash of their token.

use std::{net::IpAddr, time::Duration};

use doorward_core::{
    effects::Effects,
    id::UserId,
    session::{Session, SignInMethod, TokenHash},
    time::Timestamp,
    user::User,
};

use crate::{
    End, Purged, Store, StoreError, Which,
    memory::Tables,
    op::{Read, Write},
    sql::{Cell, DbError, FromCell, Row, Sql, Value, all, one, statements, values},
    users::{read_user, user_columns},
};

/// Rows that one transaction of a batch touches; others get their turn in between.
const BATCH: usize = 500;

/// How long an ended link is kept, so that its second use is still called by its name.
const LINK_AFTERLIFE: Duration = Duration::from_hours(24);

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
    SESSIONS_OF = concat!("SELECT ", session_columns!(), " FROM sessions WHERE user_id = $1 ORDER BY id LIMIT 1000"),
    TOUCH = "UPDATE sessions SET last_used_at = $2 WHERE hash = $1 AND last_used_at < $2",
    IDLE = "SELECT hash FROM sessions WHERE last_used_at <= $1 AND hash > $2 ORDER BY hash LIMIT $3",
    END_IDLE = "DELETE FROM sessions WHERE hash = $1 AND last_used_at <= $2",
    PURGE_SESSIONS = "DELETE FROM sessions WHERE hash IN \
        (SELECT hash FROM sessions WHERE expires_at <= $1 LIMIT $2)",
    PURGE_LINKS = "DELETE FROM links WHERE id IN (SELECT id FROM links WHERE expires_at <= $1 LIMIT $2)",
    PURGE_REVOCATIONS = "DELETE FROM revocations WHERE seq IN \
        (SELECT seq FROM revocations WHERE until_at <= $1 LIMIT $2)",
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

const fn method_word(method: SignInMethod) -> &'static str {
    match method {
        SignInMethod::MagicLink => "magic_link",
        SignInMethod::Code => "code",
        SignInMethod::Oidc => "oidc",
        SignInMethod::Password => "password",
    }
}

impl FromCell for SignInMethod {
    fn from_cell(cell: Cell) -> Option<Self> {
        let word = String::from_cell(cell)?;
        let all = [Self::MagicLink, Self::Code, Self::Oidc, Self::Password];
        all.into_iter().find(|&method| method_word(method) == word)
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
            method_word(session.method),
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
    /// # Errors
    /// [`StoreError`].
    pub async fn end_sessions(&self, which: Which, effects: Effects) -> Result<u64, StoreError> {
        self.write(EndMany { which }, effects).await
    }

    /// The sessions of a user in the order in which they began; 1,000 at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sessions_of(&self, user: UserId) -> Result<Vec<Session>, StoreError> {
        self.read(OfUser { user }).await
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

    /// Removes what is over: sessions past their absolute end or unused for longer than `idle`, links and entries of
    /// the revocation log that say nothing any more. In small transactions, so nobody waits long behind it.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed before the error stays removed.
    pub async fn purge(&self, now: Timestamp, idle: Duration) -> Result<Purged, StoreError> {
        let mut purged = Purged::default();
        loop {
            let more = self.write(PurgeEnded { now }, Effects::default()).await?;
            purged.sessions += more.sessions;
            purged.links += more.links;
            purged.revocations += more.revocations;
            if [more.sessions, more.links, more.revocations].iter().all(|&rows| rows < BATCH as u64) {
                break;
            }
        }
        let cutoff = now.minus(idle);
        let mut after = Vec::new();
        loop {
            let hashes = self.read(Idle { cutoff, after: std::mem::take(&mut after) }).await?;
            let Some(last) = hashes.last() else { return Ok(purged) };
            after = last.as_bytes().to_vec();
            purged.sessions += self.write(EndIdle { hashes, cutoff }, Effects::default()).await?;
        }
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

struct OfUser {
    user: UserId,
}

impl Read for OfUser {
    type Out = Vec<Session>;
    const NAME: &'static str = "sessions_of";

    fn memory(&self, tables: &Tables) -> Result<Vec<Session>, DbError> {
        let mut found: Vec<Session> = tables.sessions.values().filter(|s| s.user_id == self.user).cloned().collect();
        found.sort_unstable_by_key(|session| session.id);
        found.truncate(1000);
        Ok(found)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<Session>, DbError> {
        all(sql.rows(&SESSIONS_OF, values![self.user]).await?, read_session)
    }
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

struct PurgeEnded {
    now: Timestamp,
}

impl Write for PurgeEnded {
    type Out = Purged;
    const NAME: &'static str = "purge";

    fn memory(&self, tables: &mut Tables) -> Result<Purged, DbError> {
        let counts = |tables: &Tables| (tables.sessions.len(), tables.links.len(), tables.revocations.len());
        let before = counts(tables);
        let ended = self.now.minus(LINK_AFTERLIFE);
        tables.sessions.retain(|_, session| session.expires_at > self.now);
        tables.links.retain(|_, link| link.expires_at > ended);
        tables.revocations.retain(|_, entry| entry.until.is_none_or(|until| until > self.now));
        let after = counts(tables);
        // All of them at once; the caller's loop ends with a round that finds nothing.
        Ok(Purged {
            sessions: (before.0 - after.0) as u64,
            links: (before.1 - after.1) as u64,
            revocations: (before.2 - after.2) as u64,
        })
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Purged, DbError> {
        let batch = BATCH as i64;
        Ok(Purged {
            sessions: sql.execute(&PURGE_SESSIONS, values![self.now, batch]).await?,
            links: sql.execute(&PURGE_LINKS, values![self.now.minus(LINK_AFTERLIFE), batch]).await?,
            revocations: sql.execute(&PURGE_REVOCATIONS, values![self.now, batch]).await?,
        })
    }
}

struct Idle {
    cutoff: Timestamp,
    after: Vec<u8>,
}

impl Read for Idle {
    type Out = Vec<TokenHash>;
    const NAME: &'static str = "purge";

    fn memory(&self, tables: &Tables) -> Result<Vec<TokenHash>, DbError> {
        let idle = tables.sessions.values().filter(|session| session.last_used_at <= self.cutoff);
        Ok(idle.map(|session| session.hash).filter(|hash| hash.as_bytes().as_slice() > self.after.as_slice()).collect())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<TokenHash>, DbError> {
        all(sql.rows(&IDLE, values![self.cutoff, self.after.as_slice(), BATCH as i64]).await?, Row::column)
    }
}

struct EndIdle {
    hashes: Vec<TokenHash>,
    cutoff: Timestamp,
}

impl Write for EndIdle {
    type Out = u64;
    const NAME: &'static str = "purge";

    fn memory(&self, tables: &mut Tables) -> Result<u64, DbError> {
        let idle = |tables: &Tables, hash: &TokenHash| {
            tables.sessions.get(hash).is_some_and(|session| session.last_used_at <= self.cutoff)
        };
        let mut ended = 0;
        for hash in &self.hashes {
            if idle(tables, hash) && tables.remove_session(hash).is_some() {
                ended += 1;
            }
        }
        Ok(ended)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<u64, DbError> {
        let lists: Vec<[Value<'_>; 2]> = self.hashes.iter().map(|hash| [hash.into(), self.cutoff.into()]).collect();
        sql.each(&END_IDLE, &lists).await
    }
}
