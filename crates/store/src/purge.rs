//! Removes what is over, in small transactions, so nobody waits long behind it.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use doorward_core::{
    audit::{AuditEvent, EventKind},
    effects::Effects,
    id::UserId,
    session::TokenHash,
    time::Timestamp,
    user::{Origin, User},
};

use crate::{
    Purged, Store, StoreError,
    memory::Tables,
    op::{Read, Write},
    sql::{DbError, Row, Sql, Value, all, statements, values},
};

/// Rows that one transaction of a batch touches; others get their turn in between.
const BATCH: usize = 500;

/// How long an ended link or one-time token is kept, so that its second use is still called by its name.
const AFTERLIFE: Duration = Duration::from_hours(24);

/// How long runs of jobs are kept.
const JOB_RUNS: Duration = Duration::from_hours(30 * 24);

/// How many days method counts are kept.
const COUNT_DAYS: i64 = 90;

/// How long a user who signed up has to prove the address.
const UNPROVEN: Duration = Duration::from_hours(24);

statements! {
    IDLE = "SELECT hash FROM sessions WHERE last_used_at <= $1 AND hash > $2 ORDER BY hash LIMIT $3",
    END_IDLE = "DELETE FROM sessions WHERE hash = $1 AND last_used_at <= $2",
    PURGE_SESSIONS = "DELETE FROM sessions WHERE hash IN \
        (SELECT hash FROM sessions WHERE expires_at <= $1 LIMIT $2)",
    PURGE_LINKS = "DELETE FROM links WHERE id IN (SELECT id FROM links WHERE expires_at <= $1 LIMIT $2)",
    PURGE_REVOCATIONS = "DELETE FROM revocations WHERE seq IN \
        (SELECT seq FROM revocations WHERE until_at <= $1 LIMIT $2)",
    PURGE_ONE_TIME = "DELETE FROM one_time_tokens WHERE hash IN \
        (SELECT hash FROM one_time_tokens WHERE expires_at <= $1 LIMIT $2)",
    // The newest run of each job stays: it says what was missed.
    PURGE_JOB_RUNS = "DELETE FROM job_runs WHERE id IN \
        (SELECT old.id FROM job_runs AS old WHERE old.started_at <= $1 AND EXISTS (SELECT 1 FROM job_runs AS newer \
        WHERE newer.job = old.job AND newer.scheduled_for > old.scheduled_for) LIMIT $2)",
    PURGE_COUNTS = "DELETE FROM method_counts WHERE day < $1",
    UNPROVEN_USERS = "SELECT id FROM users WHERE made_by = 'sign_up' AND NOT email_verified AND created_at <= $1 \
        AND NOT admin AND banned_at IS NULL AND id > $3 \
        AND NOT EXISTS (SELECT 1 FROM links WHERE links.user_id = users.id AND links.expires_at > $2 \
        AND links.used_at IS NULL AND links.voided_at IS NULL) \
        AND NOT EXISTS (SELECT 1 FROM identities WHERE identities.user_id = users.id) ORDER BY id LIMIT $4",
    // Changes nothing; the row is locked with its key, which an UPDATE by itself would not do.
    HOLD_USER = "UPDATE users SET version = version WHERE id IN (SELECT id FROM users WHERE id = $1 {lock_key})",
    REMOVE_UNPROVEN = "DELETE FROM users WHERE id = $1 AND made_by = 'sign_up' AND NOT email_verified \
        AND NOT admin AND banned_at IS NULL AND NOT EXISTS (SELECT 1 FROM links WHERE links.user_id = users.id \
        AND links.expires_at > $2 AND links.used_at IS NULL AND links.voided_at IS NULL) \
        AND NOT EXISTS (SELECT 1 FROM identities WHERE identities.user_id = users.id)",
}

impl Store {
    /// Removes what is over: sessions past their absolute end or unused for longer than `idle`; links, one-time tokens
    /// and entries of the revocation log that say nothing any more; old runs of jobs and method counts; and, each with
    /// an audit row, users who signed up and never proved their address.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed before the error stays removed.
    pub async fn purge(&self, now: Timestamp, idle: Duration) -> Result<Purged, StoreError> {
        let mut purged = Purged::default();
        loop {
            let more = self.write(PurgeEnded { now }, Effects::default()).await?;
            let Purged { sessions, links, revocations, one_time, job_runs, counts, users: _ } = more;
            purged.sessions += sessions;
            purged.links += links;
            purged.revocations += revocations;
            purged.one_time += one_time;
            purged.job_runs += job_runs;
            purged.counts += counts;
            if [sessions, links, revocations, one_time, job_runs].iter().all(|&rows| rows < BATCH as u64) {
                break;
            }
        }
        purged.sessions += self.purge_idle(now.minus(idle)).await?;
        purged.users = self.purge_unproven(now).await?;
        Ok(purged)
    }

    async fn purge_idle(&self, cutoff: Timestamp) -> Result<u64, StoreError> {
        let (mut ended, mut after) = (0, Vec::new());
        loop {
            let hashes = self.read(Idle { cutoff, after: std::mem::take(&mut after) }).await?;
            let Some(last) = hashes.last() else { return Ok(ended) };
            after = last.as_bytes().to_vec();
            ended += self.write(EndIdle { hashes, cutoff }, Effects::default()).await?;
        }
    }

    async fn purge_unproven(&self, now: Timestamp) -> Result<u64, StoreError> {
        let (mut removed, mut after) = (0, None);
        loop {
            let ids = self.read(Unproven { now, after }).await?;
            let Some(last) = ids.last() else { return Ok(removed) };
            after = Some(*last);
            // One that was saved by a sign-in meanwhile must not be on record as removed: then each goes by itself.
            if self.write(Remove { ids: ids.clone(), now }, removals(&ids, now)).await? {
                removed += ids.len() as u64;
                continue;
            }
            for id in ids {
                let one = vec![id];
                let effects = removals(&one, now);
                removed += u64::from(self.write(Remove { ids: one, now }, effects).await?);
            }
        }
    }
}

fn removals(ids: &[UserId], now: Timestamp) -> Effects {
    let event = |id: &UserId| {
        let mut event = AuditEvent::new(EventKind::UserRemoved, now).about(*id);
        event.detail.more.insert("why".into(), "never_proven".into());
        event
    };
    Effects { audit: ids.iter().map(event).collect(), ..Effects::default() }
}

struct PurgeEnded {
    now: Timestamp,
}

impl PurgeEnded {
    /// The first day whose counts stay.
    fn first_day(&self) -> i64 {
        self.now.as_secs().div_euclid(86_400) - COUNT_DAYS
    }
}

impl Write for PurgeEnded {
    type Out = Purged;
    const NAME: &'static str = "purge";

    fn memory(&self, tables: &mut Tables) -> Result<Purged, DbError> {
        // All of them at once; the caller's loop ends with a round that finds nothing.
        let ended = self.now.minus(AFTERLIFE);
        let old = self.now.minus(JOB_RUNS);
        let newest = tables.job_runs.clone();
        let replaced = |job: &str, at: Timestamp| newest.iter().any(|run| run.job == job && run.scheduled_for > at);
        let first_day = self.first_day();
        Ok(Purged {
            sessions: shrink(&mut tables.sessions, HashMap::len, |all| {
                all.retain(|_, session| session.expires_at > self.now);
            }),
            links: shrink(&mut tables.links, HashMap::len, |all| all.retain(|_, link| link.expires_at > ended)),
            revocations: shrink(&mut tables.revocations, BTreeMap::len, |all| {
                all.retain(|_, entry| entry.until.is_none_or(|until| until > self.now));
            }),
            one_time: shrink(&mut tables.one_time, HashMap::len, |all| all.retain(|_, one| one.expires_at > ended)),
            job_runs: shrink(&mut tables.job_runs, Vec::len, |all| {
                all.retain(|run| run.started_at > old || !replaced(&run.job, run.scheduled_for));
            }),
            counts: shrink(&mut tables.counts, BTreeMap::len, |all| all.retain(|(day, ..), _| *day >= first_day)),
            users: 0,
        })
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Purged, DbError> {
        let batch = BATCH as i64;
        let ended = self.now.minus(AFTERLIFE);
        Ok(Purged {
            sessions: sql.execute(&PURGE_SESSIONS, values![self.now, batch]).await?,
            links: sql.execute(&PURGE_LINKS, values![ended, batch]).await?,
            revocations: sql.execute(&PURGE_REVOCATIONS, values![self.now, batch]).await?,
            one_time: sql.execute(&PURGE_ONE_TIME, values![ended, batch]).await?,
            job_runs: sql.execute(&PURGE_JOB_RUNS, values![self.now.minus(JOB_RUNS), batch]).await?,
            counts: sql.execute(&PURGE_COUNTS, values![self.first_day()]).await?,
            users: 0,
        })
    }
}

/// By how much `work` shrinks a table.
fn shrink<T>(table: &mut T, len: impl Fn(&T) -> usize, work: impl FnOnce(&mut T)) -> u64 {
    let before = len(table);
    work(table);
    (before - len(table)) as u64
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

/// Whether the purge may take this user.
fn is_unproven(tables: &Tables, user: &User, now: Timestamp) -> bool {
    user.origin == Origin::SignUp
        && !user.email_verified
        && !user.admin
        && user.banned_at.is_none()
        && !tables.links.values().any(|link| {
            link.user_id == user.id && link.expires_at > now && link.used_at.is_none() && link.voided_at.is_none()
        })
        && !tables.identities.values().any(|owner| *owner == user.id)
}

pub(crate) struct Unproven {
    pub(crate) now: Timestamp,
    pub(crate) after: Option<UserId>,
}

impl Read for Unproven {
    type Out = Vec<UserId>;
    const NAME: &'static str = "purge";

    fn memory(&self, tables: &Tables) -> Result<Vec<UserId>, DbError> {
        let cutoff = self.now.minus(UNPROVEN);
        let old = tables.users.values().filter(|user| user.created_at <= cutoff);
        let found = old
            .filter(|user| self.after.is_none_or(|after| user.id > after))
            .filter(|user| is_unproven(tables, user, self.now));
        Ok(found.map(|user| user.id).take(BATCH).collect())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<UserId>, DbError> {
        let after = self.after.unwrap_or_else(|| UserId::from_uuid(uuid::Uuid::nil()));
        let values = values![self.now.minus(UNPROVEN), self.now, after, BATCH as i64];
        all(sql.rows(&UNPROVEN_USERS, values).await?, Row::column)
    }
}

/// Removes them all, or none where one of them may no longer be removed.
pub(crate) struct Remove {
    pub(crate) ids: Vec<UserId>,
    pub(crate) now: Timestamp,
}

impl Write for Remove {
    type Out = bool;
    const NAME: &'static str = "purge";

    fn commits(all: &bool) -> bool {
        *all
    }

    fn memory(&self, tables: &mut Tables) -> Result<bool, DbError> {
        let unproven = |id: &UserId| tables.users.get(id).is_some_and(|user| is_unproven(tables, user, self.now));
        if !self.ids.iter().all(unproven) {
            return Ok(false);
        }
        for id in &self.ids {
            tables.remove_user(*id);
        }
        Ok(true)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<bool, DbError> {
        // A link or an identity that is being written for one of them is waited for, and then seen.
        let users: Vec<[Value<'_>; 1]> = self.ids.iter().map(|id| [(*id).into()]).collect();
        sql.each(&HOLD_USER, &users).await?;
        let lists: Vec<[Value<'_>; 2]> = self.ids.iter().map(|id| [(*id).into(), self.now.into()]).collect();
        Ok(sql.each(&REMOVE_UNPROVEN, &lists).await? == self.ids.len() as u64)
    }
}
