//! Records and named outcomes of the operations.

use std::path::PathBuf;
use std::time::Duration;

use doorward_core::{
    api_key::ApiKey,
    id::{LinkId, MailId, SessionId, UserId},
    secret::Secret,
    session::{Session, TokenHash},
    time::Timestamp,
    user::{Email, User},
};

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Folder that relative SQLite paths start from; made if missing.
    pub data_dir: PathBuf,
    /// Fresh random bytes of this start: the id of the audit writer and the salts of audit details come from them.
    pub seed: [u8; 32],
    /// How long an operation may take, waiting included. Default 5 s.
    pub deadline: Duration,
    /// Connections or threads that read. Default 2.
    pub readers: usize,
    /// PostgreSQL connections that write, opened as they are needed. Default 16.
    pub writers: usize,
}

impl StoreOptions {
    /// The defaults, with what has none.
    pub fn new(data_dir: impl Into<PathBuf>, seed: [u8; 32]) -> Self {
        Self { data_dir: data_dir.into(), seed, deadline: Duration::from_secs(5), readers: 2, writers: 16 }
    }
}

/// Whether the store can be used, as [`Store::ready`](crate::Store::ready) reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Connecting or migrating; the note says what the last attempt met, if there was one.
    Connecting {
        /// For the operator.
        note: Option<String>,
    },
    /// Connected and migrated.
    Ready,
    /// Closed by [`Store::close`](crate::Store::close); for good.
    Closed,
}

/// What this process has written since it started; a wake-up, never the truth.
///
/// Other processes write too: whoever follows a log asks for it at intervals as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries of the revocation log.
    pub revocations: u64,
    /// Mails put into the outbox.
    pub mails: u64,
}

/// Outcome of `create_user`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateUser {
    /// The user was made.
    Created,
    /// The address belongs to somebody; nothing was changed.
    EmailTaken,
    /// The external subject belongs to somebody; nothing was changed.
    SubjectTaken,
}

/// A user of an import.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// The user.
    pub user: User,
    /// Hash of the password of the soak window, in bcrypt or PHC form; not checked here.
    pub password_hash: Option<Secret<String>>,
}

/// Outcome of a change to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The user as it is now.
    Changed(User),
    /// No such user; nothing was changed.
    Unknown,
}

/// Outcome of `link_identity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkIdentity {
    /// The identity belongs to this user now (or did already).
    Linked,
    /// It belongs to another user; nothing was changed.
    Taken,
}

/// Outcome of `link_subject` and `promote`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkSubject {
    /// The user as it is now.
    Linked(User),
    /// The subject belongs to another user; nothing was changed.
    Taken,
    /// No such user; nothing was changed.
    Unknown,
    /// The user does not wait for this subject; nothing was changed. Only `promote` says so.
    NotPending,
}

/// Outcome of `update_email` and `confirm_email`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmailChange {
    /// The user as it is now: the address is proven, the version counted up.
    Changed(User),
    /// The address belongs to somebody else; nothing was changed.
    Taken,
    /// No such user, or no such link; nothing was changed.
    Unknown,
    /// The user changed since the plan was made (version, ban); nothing was changed.
    UserChanged,
    /// The link was used before; nothing was changed.
    AlreadyUsed,
    /// A newer link took the place of this one; nothing was changed.
    Voided,
    /// The user has other sessions than the plan ends; nothing was changed. Plan again.
    SessionsChanged,
}

impl EmailChange {
    /// Whether the address changed.
    pub const fn is_changed(&self) -> bool {
        matches!(self, Self::Changed(_))
    }
}

/// What `confirm_email` commits in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmEmail {
    /// The link; consumed only if still unused.
    pub link: LinkId,
    /// The user and the version that was checked.
    pub user_id: UserId,
    /// See `user_id`.
    pub user_version: i64,
    /// The new address.
    pub to: Email,
    /// When.
    pub at: Timestamp,
    /// The only session of the user that stays.
    pub keep: Option<TokenHash>,
    /// How many others there are; their revocations are in the effects.
    pub ends: u64,
}

/// What `begin_session` commits in one transaction: a sign-in without a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginSession {
    /// The session that begins.
    pub session: Session,
    /// The version of the user that was checked.
    pub user_version: i64,
    /// The session that this browser had before; it ends.
    pub replaces: Option<TokenHash>,
    /// The shared value on which the sign-in rests, and the version of it that was looked at; 0 where there was none.
    pub rests_on: Option<(String, i64)>,
}

/// Outcome of `begin_session`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// The session is stored.
    Began,
    /// The user changed since the plan was made (version, ban) or is gone; nothing was changed.
    UserChanged,
    /// The shared value that the sign-in rests on was changed; nothing else was. Look at it again.
    StateChanged,
}

/// Outcome of `try_code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryCode {
    /// This try counts; the code may be compared.
    Counted {
        /// Tries so far, this one included.
        tries: u32,
    },
    /// All tries are used up; nothing was changed.
    Exhausted,
    /// No such link, or it has no code, was used or voided; nothing was changed.
    Unknown,
}

/// Outcome of `claim_first_admin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimAdmin {
    /// The administrator. At most one caller ever gets this while there is none.
    Claimed(User),
    /// There is an administrator; nothing was changed.
    AdminExists,
    /// No such token; nothing was changed.
    Unknown,
    /// The token was used before; nothing was changed.
    AlreadyUsed,
    /// The token has ended; nothing was changed.
    Expired,
    /// The user is not as planned (address taken, version, ban); nothing was changed. Plan again.
    UserChanged,
}

/// Outcome of `consume_link`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consume {
    /// The link is used and the session stored. At most one caller ever gets this for one link.
    Consumed,
    /// Somebody was faster; nothing was changed.
    AlreadyUsed,
    /// No such link; nothing was changed.
    Unknown,
    /// A newer link took the place of this one; nothing was changed.
    Voided,
    /// The user changed since the plan was made (version, ban, candidate); nothing was changed, the link stays unused.
    UserChanged,
    /// The session that the plan requires is gone; nothing was changed, the link stays unused.
    SessionGone,
    /// The candidate belongs to another user; nothing was changed, the link stays unused.
    SubjectTaken,
    /// The plan said that the candidate does not match: the user is marked and the effects are committed; the link
    /// stays unused and no session began.
    Mismatch,
}

/// Outcome of `end_session`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The session that ended.
    Ended(Session),
    /// No such session; nothing was changed.
    Unknown,
}

/// Which sessions to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of a user.
    User(UserId),
    /// All of everybody.
    All,
    /// One, by its public name.
    One(SessionId),
}

/// What `purge` removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Sessions over their idle or absolute limit.
    pub sessions: u64,
    /// Links that ended more than a day ago.
    pub links: u64,
    /// Entries of the revocation log that say nothing any more.
    pub revocations: u64,
    /// One-time tokens that ended more than a day ago.
    pub one_time: u64,
    /// Runs of jobs that began more than 30 days ago; the newest of each job stays.
    pub job_runs: u64,
    /// Method counts of days more than 90 days ago.
    pub counts: u64,
    /// Users who signed up more than a day ago, never proved their address and have no live link.
    pub users: u64,
}

/// Outcome of `revoke_api_key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeApiKey {
    /// The key as it is now.
    Revoked(Box<ApiKey>),
    /// It was revoked before; nothing was changed.
    AlreadyRevoked,
    /// No such key; nothing was changed.
    Unknown,
}

/// A mail of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Its id; also the `Message-ID`.
    pub id: MailId,
    /// Recipient.
    pub to: Email,
    /// Which text it is.
    pub kind: String,
    /// Subject line.
    pub subject: String,
    /// Plain text part.
    pub text: String,
    /// HTML part.
    pub html: String,
    /// When it was written.
    pub created_at: Timestamp,
    /// After this moment it is not worth sending. It is handed out all the same, so that somebody gives it up with an
    /// audit row.
    pub give_up_at: Timestamp,
}

/// A mail that this caller may send until its lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedMail {
    /// The mail.
    pub mail: Mail,
    /// How often it was claimed, this time included. It goes back with `mail_failed`: a caller whose lease has passed
    /// to another cannot spoil the other's attempt.
    pub attempts: i64,
}

/// What becomes of a mail that could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Another attempt, not before this moment.
    Retry {
        /// Earliest time.
        at: Timestamp,
    },
    /// Never again: it becomes a dead letter, without its texts (they may hold a live link).
    GiveUp,
    /// Not by itself: it becomes a dead letter with its texts, for the operator to try again. For mails without secrets.
    Park,
}

/// A mail that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadMail {
    /// Its id.
    pub id: MailId,
    /// Recipient.
    pub to: Email,
    /// Which text it is.
    pub kind: String,
    /// When it was written.
    pub created_at: Timestamp,
    /// How often it was tried.
    pub attempts: i64,
    /// What the last attempt met.
    pub error: Option<String>,
    /// Whether its texts are still there, so that it can be tried again.
    pub whole: bool,
}

/// Outcome of `retry_mail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryMail {
    /// It is due again.
    Queued,
    /// Its texts were removed when it was given up; nothing was changed.
    Empty,
    /// No such dead letter; nothing was changed.
    Unknown,
}

/// Outcome of `mail_sent` and `mail_failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailDone {
    /// Written down.
    Done,
    /// The mail is no longer this caller's, or gone; nothing was changed.
    NotYours,
}

/// How full the outbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// Mails that wait or are being sent.
    pub pending: u64,
    /// Mails given up.
    pub dead: u64,
}

/// Outcome of `add_ring_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddKey {
    /// The key is current now.
    Added,
    /// The ring is not as expected: another process was faster. Read it again; nothing was changed.
    Lost,
}

/// What became of taking a blocklist entry back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblock {
    /// It was in force and is no more.
    Lifted,
    /// Nothing that is in force blocks it.
    NotListed,
}
