//! Audit: a closed list of events and the hash chain that seals them.
//!
//! Each writing process has a chain of its own, so replicas do not queue behind one head; a signed
//! checkpoint over all heads ties the chains together. Personal data sits in `detail`, which enters the
//! chain only as a salted hash: erasing it leaves the chain verifiable.

mod chain;
mod checkpoint;
mod log;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::{
    chain::{ChainFault, ChainVerifier, GENESIS, detail_hash, seal},
    checkpoint::{Checkpoint, WriterHead, checkpoint_bytes, decode_heads, encode_heads},
    log::{AuditFault, AuditReport, ERASED_ROWS, LogVerifier, erased_rows},
};

use crate::{
    id::{DecisionId, OrgId, UserId, WriterId},
    reason::Reason,
    time::Timestamp,
};

macro_rules! events {
    ($($(#[$doc:meta])* $variant:ident = $name:literal $mode:ident,)+) => {
        /// What happened. Names are part of the contract and append-only.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EventKind { $($(#[$doc])* $variant,)+ }

        impl EventKind {
            /// All events, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in the log, `noun.verb`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Whether the row commits with the change or is batched.
            pub const fn durability(self) -> Durability {
                match self { $(Self::$variant => Durability::$mode,)+ }
            }

            /// Reads a name back.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

/// When an audit row becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// In the transaction of the change that it reports.
    WithChange,
    /// Collected and written in batches; loss is counted, never silent.
    Batched,
}

events! {
    /// A sign-in link was asked for.
    LinkRequested = "link.requested" WithChange,
    /// A link or code was refused.
    LinkRefused = "link.refused" Batched,
    /// A session began.
    SessionCreated = "session.created" WithChange,
    /// A session ended by sign-out.
    SessionEnded = "session.ended" WithChange,
    /// Sessions were revoked by somebody else or by a command.
    SessionRevoked = "session.revoked" WithChange,
    /// A user was made.
    UserCreated = "user.created" WithChange,
    /// A user was banned.
    UserBanned = "user.banned" WithChange,
    /// A ban was lifted.
    UserUnbanned = "user.unbanned" WithChange,
    /// A request was refused; at most one row per reason, principal and minute.
    RequestRefused = "request.refused" Batched,
    /// An API key was made.
    ApiKeyCreated = "api_key.created" WithChange,
    /// An API key was revoked.
    ApiKeyRevoked = "api_key.revoked" WithChange,
    /// An issuer published other material under a known key id.
    IssuerKeyChanged = "issuer.key_changed" Batched,
    /// Key sets were fetched again because a token needed it.
    IssuerKeysFetched = "issuer.keys_fetched" Batched,
    /// A blocklist entry was made.
    BlocklistAdded = "blocklist.added" WithChange,
    /// A blocklist entry was taken back.
    BlocklistRemoved = "blocklist.removed" WithChange,
    /// A key of our own was rotated.
    KeyRotated = "key.rotated" WithChange,
    /// A mail could not be delivered and will not be tried again.
    MailGivenUp = "mail.given_up" WithChange,
    /// The server took a new policy.
    PolicyChanged = "policy.changed" Batched,
    /// A server process started.
    ServerStarted = "server.started" Batched,
    /// A server process stopped.
    ServerStopped = "server.stopped" Batched,
    /// Chain heads were signed.
    AuditCheckpoint = "audit.checkpoint" WithChange,
    /// A subject of the license provider did not match the candidate of a pending user.
    LinkMismatch = "link.mismatch" WithChange,
    /// A user was made by an import.
    UserImported = "user.imported" WithChange,
    /// A user's mail address changed.
    UserEmailChanged = "user.email_changed" WithChange,
    /// A mail address was asked for that belongs to somebody else.
    UserEmailConflict = "user.email_conflict" WithChange,
    /// A user was made an administrator, or is one no more.
    UserAdminGranted = "user.admin_granted" WithChange,
    /// A person proved again who they are.
    SessionReauthenticated = "session.reauthenticated" WithChange,
    /// A typed code was refused.
    CodeRefused = "code.refused" Batched,
    /// A sign-in with a password of the soak window.
    LegacySignIn = "legacy.sign_in" WithChange,
    /// A credential of the soak window was refused.
    LegacyRefused = "legacy.refused" Batched,
    /// The soak window was closed.
    CutoverClosed = "cutover.closed" WithChange,
    /// The soak window was extended.
    CutoverExtended = "cutover.extended" WithChange,
    /// The soak window was opened again by the operator.
    CutoverRolledBack = "cutover.rolled_back" WithChange,
    /// A job failed.
    JobFailed = "job.failed" WithChange,
    /// A rate limit was met; at most one row per limit, principal and minute.
    RateLimited = "rate.limited" Batched,
    /// The first administrator claimed the installation with the one-time URL.
    AdminClaimed = "admin.claimed" WithChange,
    /// A user who signed up and never proved the address was removed.
    UserRemoved = "user.removed" WithChange,
    /// A provider said something else of a license than was known.
    LicenseChanged = "license.changed" WithChange,
    /// Details of rows about a person were erased; the detail names the rows.
    AuditErased = "audit.erased" WithChange,
    /// Batched rows were lost because more came than are kept; the detail says how many.
    AuditDropped = "audit.dropped" Batched,
    /// The license file of the installation, or another one in its place, is in use from now on.
    LicenseFileTaken = "license.file_taken" Batched,
    /// What lies in the place of the license file is not taken.
    LicenseFileRefused = "license.file_refused" Batched,
    /// Somebody was told by mail that a license ends.
    LicenseNoticeSent = "license.notice_sent" WithChange,
    /// A mail that was given up was put back into the outbox.
    MailRetried = "mail.retried" WithChange,
    /// An operator began the highest time, by which licenses are judged, anew; the detail says from when to when.
    LicenseClockReset = "license.clock_reset" WithChange,
    /// Requests with a token of the soak window were let in; at most one row per user and hour.
    LegacyUsed = "legacy.used" Batched,
}

/// An event about to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// What happened.
    pub kind: EventKind,
    /// When.
    pub at: Timestamp,
    /// Whose account it is about.
    pub user_id: Option<UserId>,
    /// Organisation it is about.
    pub org_id: Option<OrgId>,
    /// The decision behind it.
    pub decision: Option<DecisionId>,
    /// Why, where something was refused.
    pub reason: Option<Reason>,
    /// Personal and variable parts; erasable.
    pub detail: AuditDetail,
}

impl AuditEvent {
    /// An event without details.
    pub fn new(kind: EventKind, at: Timestamp) -> Self {
        Self { kind, at, user_id: None, org_id: None, decision: None, reason: None, detail: AuditDetail::default() }
    }

    /// The same, about `user`.
    #[must_use]
    pub fn about(mut self, user: UserId) -> Self {
        self.user_id = Some(user);
        self
    }
}

/// The erasable part of an event. Never holds a secret; addresses of strangers are hashed by the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditDetail {
    /// Client address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Client software, cut to 256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Everything else: names from the code, values short.
    #[serde(default, flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

/// A row of the log as a reader gets it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Position in the whole log; for paging.
    pub seq: i64,
    /// Whose chain.
    pub writer: WriterId,
    /// Position in that chain, from 1.
    pub number: i64,
    /// Name of the event (kept as text: a newer release may know more).
    pub kind: String,
    /// When.
    pub at: Timestamp,
    /// Whose account.
    pub user_id: Option<UserId>,
    /// Organisation.
    pub org_id: Option<OrgId>,
    /// Decision.
    pub decision: Option<DecisionId>,
    /// Reason code.
    pub reason: Option<String>,
    /// Detail as JSON; `None` once erased.
    pub detail: Option<String>,
    /// Salt of the detail's hash.
    pub salt: [u8; 16],
    /// Salted hash of the detail.
    pub detail_hash: [u8; 32],
    /// Seal of this row.
    pub hash: [u8; 32],
}
