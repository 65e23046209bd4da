//! Records and named outcomes of the operations.

use std::path::PathBuf;
use std::time::Duration;

use doorward_core::{
    api_key::ApiKey,
    id::{MailId, RingKeyId, SessionId, UserId, WriterId},
    session::Session,
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

/// Outcome of `consume_link`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consume {
    /// The link is used and the session stored. At most one caller ever gets this for one link.
    Consumed,
    /// Somebody was faster; nothing was changed.
    AlreadyUsed,
    /// No such link; nothing was changed.
    Unknown,
    /// The user changed since the plan was made (version, ban); nothing was changed, the link stays unused.
    UserChanged,
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

/// The end of one audit chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterHead {
    /// Whose chain.
    pub writer: WriterId,
    /// Number of its last row.
    pub number: i64,
    /// Seal of its last row.
    pub hash: [u8; 32],
}

/// A signature over the heads of all chains at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// When.
    pub at: Timestamp,
    /// The heads, sorted by writer.
    pub heads: Vec<WriterHead>,
    /// Key of the ring that signed.
    pub key: RingKeyId,
    /// Signature over [`checkpoint_bytes`](crate::audit::checkpoint_bytes); the store does not verify it.
    pub signature: Vec<u8>,
}
