//! What goes wrong in a store. None of it is a verdict about the caller (rule 10).

use doorward_core::{decision::Denial, reason::Reason};

/// An operation did not come to a named outcome. Nothing here says anything about a credential.
///
/// The texts name hosts, files and statements for the operator; they never hold a password, a token or
/// the text of a mail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be used now. The change was not made.
    #[error("the store is not available: {note}")]
    Unavailable {
        /// What is known about it.
        note: String,
    },
    /// No answer within the deadline, or the connection broke during the commit. Whether the change was made is unknown.
    #[error("{op} got no answer from the store in time")]
    Timeout {
        /// The operation.
        op: &'static str,
    },
    /// The store refused or broke the operation: a bug, a damaged row, a broken promise. The change was not made.
    #[error("{op} failed in the store: {note}")]
    Fault {
        /// The operation.
        op: &'static str,
        /// What is known about it.
        note: String,
    },
}

impl From<StoreError> for Denial {
    /// `store_unavailable` (503), or `internal` (500) for a fault; the text goes to the operator's note.
    fn from(error: StoreError) -> Self {
        let reason = match &error {
            StoreError::Unavailable { .. } | StoreError::Timeout { .. } => Reason::StoreUnavailable,
            StoreError::Fault { .. } => Reason::Internal,
        };
        Self::from(reason).with_note(error.to_string())
    }
}

/// The store's URL cannot be used at all: misconfiguration, found at start (exit code 2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreConfigError {
    /// Neither `sqlite:` nor `postgres://`.
    #[error(
        "the store URL starts with neither sqlite: nor postgres://; write sqlite:doorward.db or postgres://user:password@host/database"
    )]
    UnknownScheme,
    /// The scheme is known but this build has no driver for it.
    #[error("this build has no {engine} driver; build doorward-store with the feature `{engine}`")]
    NotBuilt {
        /// Name of the engine and of the feature.
        engine: &'static str,
    },
    /// `sqlite:` without a file.
    #[error("the store URL names no file; write sqlite:doorward.db")]
    NoFile,
    /// The PostgreSQL URL cannot be read. The URL itself is not repeated, it may hold a password.
    #[error(
        "the PostgreSQL URL cannot be read ({note}); the form is postgres://user:password@host:5432/database?sslmode=require"
    )]
    BadUrl {
        /// What is wrong with it.
        note: String,
    },
    /// The file with root certificates cannot be used.
    #[error(
        "sslrootcert of the store URL cannot be used ({note}); it must be a PEM file with the certificates of your authority"
    )]
    BadRootCertificates {
        /// What is wrong with it.
        note: String,
    },
    /// The Redis URL cannot be read. The URL itself is not repeated, it may hold a password.
    #[error("the Redis URL cannot be read ({note}); the form is redis://user:password@host:6379/0, rediss:// for TLS")]
    BadRedisUrl {
        /// What is wrong with it.
        note: String,
    },
}
