//! Audit: a closed list of events and the hash chain that seals them.
//!
//! Each writing process has a chain of its own, so replicas do not queue behind one head; a signed
//! checkpoint over all heads ties the chains together. Personal data sits in `detail`, which enters the
//! chain only as a salted hash: erasing it leaves the chain verifiable.

use std::net::IpAddr;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

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
    /// A sign-in or request with a credential of the soak window.
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

/// Hash that a chain starts from.
pub const GENESIS: [u8; 32] = [0; 32];

/// The salted hash under which `detail` enters the chain.
pub fn detail_hash(salt: &[u8; 16], detail: &str) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(b"doorward audit detail v1\0");
    context.update(salt);
    context.update(detail.as_bytes());
    finish(context)
}

/// The seal of `row`, given the seal of the row before it in the same chain.
///
/// Fields are length-prefixed, so no two rows share an encoding.
pub fn seal(previous: &[u8; 32], row: &AuditRow) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(b"doorward audit row v1\0");
    context.update(previous);
    context.update(row.writer.as_uuid().as_bytes());
    context.update(&row.number.to_be_bytes());
    context.update(&row.at.as_millis().to_be_bytes());
    text(&mut context, Some(&row.kind));
    id(&mut context, row.user_id.map(|id| id.as_uuid().into_bytes()));
    id(&mut context, row.org_id.map(|id| id.as_uuid().into_bytes()));
    id(&mut context, row.decision.map(|id| id.as_uuid().into_bytes()));
    text(&mut context, row.reason.as_deref());
    context.update(&row.detail_hash);
    finish(context)
}

fn text(context: &mut Context, value: Option<&str>) {
    match value {
        None => context.update(&[0]),
        Some(value) => {
            context.update(&[1]);
            context.update(&(value.len() as u64).to_be_bytes());
            context.update(value.as_bytes());
        }
    }
}

fn id(context: &mut Context, value: Option<[u8; 16]>) {
    match value {
        None => context.update(&[0]),
        Some(bytes) => {
            context.update(&[1]);
            context.update(&bytes);
        }
    }
}

fn finish(context: Context) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// What is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainFault {
    /// A row's number does not follow the one before it: rows are missing.
    Gap {
        /// The number that was expected.
        expected: i64,
        /// The number found.
        found: i64,
    },
    /// A row's seal does not match its content.
    Altered {
        /// The row's number.
        number: i64,
    },
    /// A row's detail does not match its hash.
    DetailAltered {
        /// The row's number.
        number: i64,
    },
}

/// Verifies one chain row by row; feed rows in order of `number`.
#[derive(Clone, Debug)]
pub struct ChainVerifier {
    next: i64,
    head: [u8; 32],
}

impl Default for ChainVerifier {
    fn default() -> Self {
        Self { next: 1, head: GENESIS }
    }
}

impl ChainVerifier {
    /// Checks the next row.
    ///
    /// # Errors
    /// The first [`ChainFault`] of the row. An erased detail is no fault.
    pub fn check(&mut self, row: &AuditRow) -> Result<(), ChainFault> {
        if row.number != self.next {
            return Err(ChainFault::Gap { expected: self.next, found: row.number });
        }
        if seal(&self.head, row) != row.hash {
            return Err(ChainFault::Altered { number: row.number });
        }
        if let Some(detail) = &row.detail
            && detail_hash(&row.salt, detail) != row.detail_hash
        {
            return Err(ChainFault::DetailAltered { number: row.number });
        }
        self.next += 1;
        self.head = row.hash;
        Ok(())
    }

    /// Number and seal of the last row seen; `(0, GENESIS)` before the first.
    pub fn head(&self) -> (i64, [u8; 32]) {
        (self.next - 1, self.head)
    }
}
