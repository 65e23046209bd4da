//! Typed identifiers: UUIDv7 made from a time and random bytes that the caller hands in.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

/// Makes a UUIDv7 (RFC 9562 §5.7) from a time and ten random bytes.
fn v7(at: Timestamp, random: [u8; 10]) -> Uuid {
    let millis = u64::try_from(at.as_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id; sorts by `at`.
            pub fn mint(at: Timestamp, random: [u8; 10]) -> Self {
                Self(v7(at, random))
            }

            /// Wraps an id read back from a store.
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            /// The id as a UUID, for a store.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text).map(Self)
            }
        }
    };
}

id!(
    /// A user of this installation.
    UserId
);
id!(
    /// A session's public name: safe to list and to log. It is not the session token.
    SessionId
);
id!(
    /// An API key's public name: safe to list and to log.
    ApiKeyId
);
id!(
    /// A magic link's `jti`.
    LinkId
);
id!(
    /// An organisation: a row, not a separate user pool.
    OrgId
);
id!(
    /// A mail in the outbox.
    MailId
);
id!(
    /// One decision; joins the answer that a caller saw with the log and audit rows about it.
    DecisionId
);
id!(
    /// A process that appends to the audit log; one hash chain each.
    WriterId
);
id!(
    /// A key of our own in the key ring.
    RingKeyId
);
id!(
    /// One run of a job.
    JobRunId
);
