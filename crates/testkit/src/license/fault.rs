//! What can be wrong with the license server's answers.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// What is wrong with its answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// An unsigned page for people with this status, as a proxy in front makes one.
    Page(u16),
    /// An unsigned 429 of the throttle, with `Retry-After` in seconds.
    TooMany(u64),
    /// A signed answer with this status and error code, whatever was asked.
    Refuse(u16, String),
    /// The right answer, that much later; milliseconds in JSON.
    #[serde(deserialize_with = "milliseconds")]
    Slow(Duration),
    /// A connection that is accepted and never answered.
    Hang,
    /// The right answer without a signature.
    Unsigned,
    /// `signature=""`, as when the server cannot use its keys.
    EmptySignature,
    /// Signed with a key of somebody else.
    WrongKey,
    /// Signed with the right key, in the name of another account.
    OtherAccount,
    /// Another body than the one that was signed.
    Tampered,
    /// The last good answer to the same question once more, byte for byte, however old it is.
    Replay,
    /// `Date` written anew by a proxy on the way; `Keygen-Date` is what was signed. Good for whoever knows.
    RewrittenDate,
    /// Another nonce than the one that was asked with.
    WrongNonce,
    /// Signed, and not what was asked for: a document of another shape.
    OtherShape,
    /// A body without end.
    Endless,
    /// A redirect to this address.
    Redirect(String),
}

fn milliseconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    u64::deserialize(from).map(Duration::from_millis)
}

impl Fault {
    /// Reads one as orders and command lines have it: JSON, or one word.
    ///
    /// # Errors
    /// What is none.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text).or_else(|_| serde_json::from_value(serde_json::Value::from(text)))
    }

    /// Statuses that HTTP has: others cannot be answered.
    ///
    /// # Errors
    /// A sentence that names the status.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Page(status) | Self::Refuse(status, _) if !(200..=599).contains(status) => {
                Err(format!("{status} is no final status of HTTP"))
            }
            Self::Redirect(to) if http::HeaderValue::try_from(to).is_err() => {
                Err("a Location that no header holds".to_owned())
            }
            _ => Ok(()),
        }
    }
}
