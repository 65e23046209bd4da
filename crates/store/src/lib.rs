//! Remembers: a sealed store of atomic operations over memory, SQLite or PostgreSQL.
//!
//! [`Store`] is the whole interface. Each of its methods is one transaction that takes owned values and comes to a
//! named outcome; no transaction crosses the interface, and nothing outside this crate knows which database runs.
//! With a change are committed its [`Effects`](doorward_core::effects::Effects): audit rows (sealed into this
//! process's hash chain), mails and entries of the revocation log. An outcome that is no change writes nothing.
//!
//! Backends: memory always, `sqlite` and `postgres` as features. Every operation is written once over a narrow view
//! of SQL and runs on both engines; the few places where they differ are in one module. `conformance` is the suite
//! that all three pass.

#![cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    allow(dead_code, reason = "the SQL half of operations")
)]

mod accounts;
mod api_keys;
pub mod audit;
mod blocklist;
mod chain;
#[cfg(feature = "conformance")]
pub mod conformance;
mod consume;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod dialect;
mod emails;
mod error;
mod identities;
mod jobs;
mod keys;
mod license_hints;
mod license_upkeep;
mod licenses;
mod links;
mod memory;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod migrate;
mod model;
mod one_time;
mod op;
mod outbox;
#[cfg(feature = "postgres")]
mod postgres;
mod purge;
mod revocations;
mod runtime;
mod sessions;
#[cfg(feature = "redis")]
pub mod shared;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod users;

pub use doorward_core::audit::{AuditReport, Checkpoint, WriterHead};
pub use error::{StoreConfigError, StoreError};
pub use jobs::{BeginJob, FinishJob, JobOutcome, JobRun, NewJobRun};
pub use license_hints::NoteHint;
pub use licenses::{ApplyLicense, LicenseChange, LicenseEventMark, LicenseRow};
pub use model::{
    AddKey, Begin, BeginSession, Changed, Changes, ClaimAdmin, ClaimedMail, ConfirmEmail, Consume, CreateUser,
    DeadMail, EmailChange, End, Failure, LinkIdentity, LinkSubject, Mail, MailDone, NewUser, OutboxCounts, Purged,
    Readiness, RetryMail, RevokeApiKey, StoreOptions, TryCode, Unblock, Which,
};
pub use runtime::{CountKind, MethodCount, SetState, State};
pub use sessions::LISTED_SESSIONS;
pub use store::Store;

#[cfg(all(test, feature = "sqlite", feature = "postgres"))]
mod tests;
