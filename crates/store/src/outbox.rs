//! The outbox: mails committed with the change that they report, sent afterwards by whoever holds the lease.

use std::time::Duration;

use doorward_core::{
    effects::{Effects, NewMail},
    id::MailId,
    time::Timestamp,
};

use crate::{
    ClaimedMail, DeadMail, Failure, Mail, MailDone, OutboxCounts, RetryMail, Store, StoreError,
    memory::{OutboxRow, Tables},
    op::{Read, Write},
    sql::{DbError, Row, Sql, all, one, statements, values},
    store::page,
};

/// Longest error text that is kept, in bytes.
const ERROR_MAX: usize = 500;
/// Rows that one transaction of a purge removes.
const BATCH: i64 = 500;

statements! {
    INSERT_MAIL = "INSERT INTO outbox (id, recipient, kind, subject, text_part, html_part, created_at, give_up_at, \
        due_at, attempts, dead) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $7, 0, FALSE)",
    // A claimed mail is due again when its lease ends, and has no error until its attempt fails. Two claims at a time skip
    // each other's rows.
    CLAIM = "UPDATE outbox SET due_at = $2, attempts = attempts + 1, last_error = NULL WHERE id IN \
        (SELECT id FROM outbox WHERE NOT dead AND due_at <= $1 ORDER BY due_at LIMIT $3 {skip_locked}) \
        RETURNING id, recipient, kind, subject, text_part, html_part, created_at, give_up_at, attempts",
    MAIL_SENT = "DELETE FROM outbox WHERE id = $1",
    MAIL_RETRY = "UPDATE outbox SET due_at = $3, last_error = $4 WHERE id = $1 AND attempts = $2 AND NOT dead",
    RETRY_NOW = "UPDATE outbox SET due_at = $1 WHERE due_at > $1 AND last_error IS NOT NULL AND NOT dead",
    MAIL_DEAD = "UPDATE outbox SET dead = TRUE, last_error = $3, text_part = '', html_part = '' \
        WHERE id = $1 AND attempts = $2 AND NOT dead",
    MAIL_PARKED = "UPDATE outbox SET dead = TRUE, last_error = $3 WHERE id = $1 AND attempts = $2 AND NOT dead",
    DEAD_MAILS = "SELECT id, recipient, kind, created_at, attempts, last_error, text_part <> '' FROM outbox \
        WHERE dead ORDER BY created_at DESC, id DESC LIMIT $1",
    RETRY_MAIL = "UPDATE outbox SET dead = FALSE, due_at = $2, give_up_at = $3 \
        WHERE id = $1 AND dead AND text_part <> ''",
    PURGE_DEAD = "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE dead AND created_at <= $1 LIMIT $2)",
    IS_DEAD = "SELECT id FROM outbox WHERE id = $1 AND dead",
    OUTBOX_COUNTS = "SELECT COUNT(CASE WHEN NOT dead THEN 1 END), COUNT(CASE WHEN dead THEN 1 END) FROM outbox",
}

/// Puts a mail into the outbox inside a transaction.
pub(crate) async fn enqueue_mail(sql: &mut impl Sql, mail: &NewMail) -> Result<(), DbError> {
    let NewMail { id, to, kind, subject, text, html, created_at, give_up_at } = mail;
    let (subject, text, html) = (subject.as_str(), text.as_str(), html.as_str());
    sql.execute(&INSERT_MAIL, values![*id, to, *kind, subject, text, html, *created_at, *give_up_at]).await?;
    Ok(())
}

fn read_claimed(row: &mut Row) -> Result<ClaimedMail, DbError> {
    let mail = Mail {
        id: row.column()?,
        to: row.column()?,
        kind: row.column()?,
        subject: row.column()?,
        text: row.column()?,
        html: row.column()?,
        created_at: row.column()?,
        give_up_at: row.column()?,
    };
    Ok(ClaimedMail { mail, attempts: row.column()? })
}

impl Store {
    /// Takes mails that are due and holds them for `lease`; 1,000 at most. No two callers hold one mail at a time.
    ///
    /// A mail whose holder dies is due again when the lease ends, so a mail can arrive twice but is never lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim_mail(
        &self,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<ClaimedMail>, StoreError> {
        let mut mails =
            self.write(Claim { now, until: now.plus(lease), limit: page(limit) }, Effects::default()).await?;
        mails.sort_by_key(|claimed| (claimed.mail.created_at, claimed.mail.id));
        Ok(mails)
    }

    /// Removes a mail that was handed over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mail_sent(&self, id: MailId, effects: Effects) -> Result<MailDone, StoreError> {
        self.write(Sent { id }, effects).await
    }

    /// Notes that an attempt failed: `attempt` is `attempts` of the claim, `error` what the mail server said.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mail_failed(
        &self,
        id: MailId,
        attempt: i64,
        failure: Failure,
        mut error: String,
        effects: Effects,
    ) -> Result<MailDone, StoreError> {
        while error.len() > ERROR_MAX {
            error.pop();
        }
        error.retain(|c| c != '\0'); // PostgreSQL's TEXT holds no NUL, and a mail server may send one
        self.write(Failed { id, attempt, failure, error }, effects).await
    }

    /// Makes the mails due that wait after an attempt that failed, because what they failed at may be mended; gives back
    /// how many. Those that somebody holds stay with their holder.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn retry_mails_now(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write(RetryNow { now }, Effects::default()).await
    }

    /// The dead letters, newest first; 1,000 at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn dead_mails(&self, limit: u32) -> Result<Vec<DeadMail>, StoreError> {
        self.read(Dead { limit: page(limit) }).await
    }

    /// Makes a dead letter due again at `now`, until `give_up_at`. Only one that still has its texts
    /// ([`Failure::Park`]); a link is asked for again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn retry_mail(
        &self,
        id: MailId,
        now: Timestamp,
        give_up_at: Timestamp,
        effects: Effects,
    ) -> Result<RetryMail, StoreError> {
        self.write(Retry { id, now, give_up_at }, effects).await
    }

    /// Removes dead letters that were written at `before` or earlier; gives back how many.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed before the error stays removed.
    pub async fn purge_dead_mails(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let batch = self.write(PurgeDead { before }, Effects::default()).await?;
            removed += batch;
            if batch < BATCH.unsigned_abs() {
                return Ok(removed);
            }
        }
    }

    /// How full the outbox is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn outbox_counts(&self) -> Result<OutboxCounts, StoreError> {
        self.read(Counts).await
    }
}

struct Claim {
    now: Timestamp,
    until: Timestamp,
    limit: i64,
}

impl Write for Claim {
    type Out = Vec<ClaimedMail>;
    const NAME: &'static str = "claim_mail";

    fn commits(out: &Vec<ClaimedMail>) -> bool {
        !out.is_empty()
    }

    fn memory(&self, tables: &mut Tables) -> Result<Vec<ClaimedMail>, DbError> {
        let mut due: Vec<&mut OutboxRow> =
            tables.outbox.values_mut().filter(|row| !row.dead && row.due_at <= self.now).collect();
        due.sort_by_key(|row| row.due_at);
        let claim = |row: &mut OutboxRow| {
            row.due_at = self.until;
            row.attempts += 1;
            row.error = None;
            ClaimedMail { mail: row.mail.clone(), attempts: row.attempts }
        };
        Ok(due.into_iter().take(usize::try_from(self.limit).unwrap_or(0)).map(claim).collect())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<ClaimedMail>, DbError> {
        all(sql.rows(&CLAIM, values![self.now, self.until, self.limit]).await?, read_claimed)
    }
}

const fn done(touched: bool) -> MailDone {
    if touched { MailDone::Done } else { MailDone::NotYours }
}

struct Sent {
    id: MailId,
}

impl Write for Sent {
    type Out = MailDone;
    const NAME: &'static str = "mail_sent";

    fn commits(out: &MailDone) -> bool {
        *out == MailDone::Done
    }

    fn memory(&self, tables: &mut Tables) -> Result<MailDone, DbError> {
        Ok(done(tables.outbox.remove(&self.id).is_some()))
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<MailDone, DbError> {
        Ok(done(sql.execute(&MAIL_SENT, values![self.id]).await? == 1))
    }
}

struct Failed {
    id: MailId,
    attempt: i64,
    failure: Failure,
    error: String,
}

impl Write for Failed {
    type Out = MailDone;
    const NAME: &'static str = "mail_failed";

    fn commits(out: &MailDone) -> bool {
        *out == MailDone::Done
    }

    fn memory(&self, tables: &mut Tables) -> Result<MailDone, DbError> {
        let Some(row) = tables.outbox.get_mut(&self.id).filter(|row| row.attempts == self.attempt && !row.dead) else {
            return Ok(MailDone::NotYours);
        };
        match self.failure {
            Failure::Retry { at } => row.due_at = at,
            Failure::GiveUp => {
                row.dead = true;
                row.mail.text.clear();
                row.mail.html.clear();
            }
            Failure::Park => row.dead = true,
        }
        row.error = Some(self.error.clone());
        Ok(MailDone::Done)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<MailDone, DbError> {
        let (id, attempt, error) = (self.id, self.attempt, self.error.as_str());
        let touched = match self.failure {
            Failure::Retry { at } => sql.execute(&MAIL_RETRY, values![id, attempt, at, error]).await?,
            Failure::GiveUp => sql.execute(&MAIL_DEAD, values![id, attempt, error]).await?,
            Failure::Park => sql.execute(&MAIL_PARKED, values![id, attempt, error]).await?,
        };
        Ok(done(touched == 1))
    }
}

struct RetryNow {
    now: Timestamp,
}

impl Write for RetryNow {
    type Out = u64;
    const NAME: &'static str = "retry_mails_now";

    fn commits(touched: &u64) -> bool {
        *touched > 0
    }

    fn memory(&self, tables: &mut Tables) -> Result<u64, DbError> {
        let mut touched = 0;
        for row in tables.outbox.values_mut() {
            if !row.dead && row.error.is_some() && row.due_at > self.now {
                row.due_at = self.now;
                touched += 1;
            }
        }
        Ok(touched)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<u64, DbError> {
        sql.execute(&RETRY_NOW, values![self.now]).await
    }
}

struct Dead {
    limit: i64,
}

impl Read for Dead {
    type Out = Vec<DeadMail>;
    const NAME: &'static str = "dead_mails";

    fn memory(&self, tables: &Tables) -> Result<Vec<DeadMail>, DbError> {
        let mut dead: Vec<&OutboxRow> = tables.outbox.values().filter(|row| row.dead).collect();
        dead.sort_by_key(|row| std::cmp::Reverse((row.mail.created_at, row.mail.id)));
        let letter = |row: &OutboxRow| DeadMail {
            id: row.mail.id,
            to: row.mail.to.clone(),
            kind: row.mail.kind.clone(),
            created_at: row.mail.created_at,
            attempts: row.attempts,
            error: row.error.clone(),
            whole: !row.mail.text.is_empty(),
        };
        Ok(dead.into_iter().take(usize::try_from(self.limit).unwrap_or(0)).map(letter).collect())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<DeadMail>, DbError> {
        let read = |row: &mut Row| {
            Ok(DeadMail {
                id: row.column()?,
                to: row.column()?,
                kind: row.column()?,
                created_at: row.column()?,
                attempts: row.column()?,
                error: row.optional()?,
                whole: row.column()?,
            })
        };
        all(sql.rows(&DEAD_MAILS, values![self.limit]).await?, read)
    }
}

struct Retry {
    id: MailId,
    now: Timestamp,
    give_up_at: Timestamp,
}

impl Write for Retry {
    type Out = RetryMail;
    const NAME: &'static str = "retry_mail";

    fn commits(out: &RetryMail) -> bool {
        *out == RetryMail::Queued
    }

    fn memory(&self, tables: &mut Tables) -> Result<RetryMail, DbError> {
        let Some(row) = tables.outbox.get_mut(&self.id).filter(|row| row.dead) else { return Ok(RetryMail::Unknown) };
        if row.mail.text.is_empty() {
            return Ok(RetryMail::Empty);
        }
        row.dead = false;
        row.due_at = self.now;
        row.mail.give_up_at = self.give_up_at;
        Ok(RetryMail::Queued)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<RetryMail, DbError> {
        if sql.execute(&RETRY_MAIL, values![self.id, self.now, self.give_up_at]).await? == 1 {
            return Ok(RetryMail::Queued);
        }
        let dead = one(sql, &IS_DEAD, values![self.id]).await?.is_some();
        Ok(if dead { RetryMail::Empty } else { RetryMail::Unknown })
    }
}

struct PurgeDead {
    before: Timestamp,
}

impl Write for PurgeDead {
    type Out = u64;
    const NAME: &'static str = "purge_dead_mails";

    fn commits(removed: &u64) -> bool {
        *removed > 0
    }

    fn memory(&self, tables: &mut Tables) -> Result<u64, DbError> {
        let is_old = |row: &OutboxRow| row.dead && row.mail.created_at <= self.before;
        let old: Vec<MailId> = tables.outbox.iter().filter(|(_, row)| is_old(row)).map(|(id, _)| *id).collect();
        let batch = old.iter().take(usize::try_from(BATCH).unwrap_or(0));
        Ok(batch.filter_map(|id| tables.outbox.remove(id)).count() as u64)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<u64, DbError> {
        sql.execute(&PURGE_DEAD, values![self.before, BATCH]).await
    }
}

struct Counts;

impl Read for Counts {
    type Out = OutboxCounts;
    const NAME: &'static str = "outbox_counts";

    fn memory(&self, tables: &Tables) -> Result<OutboxCounts, DbError> {
        let dead = tables.outbox.values().filter(|row| row.dead).count() as u64;
        Ok(OutboxCounts { pending: tables.outbox.len() as u64 - dead, dead })
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<OutboxCounts, DbError> {
        let Some(mut row) = one(sql, &OUTBOX_COUNTS, &[]).await? else { return Ok(OutboxCounts::default()) };
        Ok(OutboxCounts { pending: row.column()?, dead: row.column()? })
    }
}
