//! What goes wrong between us and a license server, and what helps.

use std::{fmt, time::Duration};

use doorward_core::keygen::{ApiError, Problem};

use super::provider::{FaultKind, ProviderFault};

/// Why a license server gave no usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// There was no connection; says why.
    Unreachable(String),
    /// There was no whole answer in time.
    TimedOut,
    /// The answer is longer than anything that is expected.
    TooLarge,
    /// It limits us (429).
    Limited {
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// It, or something before it, failed (5xx).
    Down {
        /// The status.
        status: u16,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// It sends us elsewhere; nobody is followed with our token.
    Redirected {
        /// Origin of `Location`.
        to: String,
    },
    /// A refusal without a signature: from something before the server, or before it knew the account.
    RefusedUnsigned {
        /// The status.
        status: u16,
        /// What it says.
        error: ApiError,
    },
    /// It refuses us.
    Refused {
        /// The status.
        status: u16,
        /// What it says.
        error: ApiError,
    },
    /// The answer is not believed.
    NotBelieved {
        /// Why.
        problem: Problem,
        /// How far its clock is from ours in seconds, where that is the reason; ahead is positive.
        skew: Option<i64>,
    },
    /// It is the answer to another question: the nonce is not ours.
    OtherNonce,
    /// It is believed, and not of the form that was asked for; says what.
    Shape(&'static str),
    /// What was asked for cannot be put into a URL.
    Unaskable,
}

impl Trouble {
    /// A believed answer of another form than asked for.
    #[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
    pub(super) fn shape(problem: Problem) -> Self {
        Self::Shape(match problem {
            Problem::Malformed(what) => what,
            _ => "the document",
        })
    }

    /// What it means for requests.
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::Unreachable(_) | Self::TimedOut | Self::TooLarge | Self::Limited { .. } | Self::Down { .. } => {
                FaultKind::Unavailable
            }
            // The daily limit of a free plan: tomorrow it answers again.
            Self::Refused { status: 402, .. } => FaultKind::Unavailable,
            Self::Redirected { .. } | Self::Refused { .. } => FaultKind::Misconfigured,
            Self::NotBelieved { problem: Problem::NoKey(_) | Problem::EmptySignature, .. } => FaultKind::Misconfigured,
            // A filter in front may refuse one address alone: that must keep nobody else from asking.
            Self::RefusedUnsigned { .. } | Self::Unaskable => FaultKind::Untrusted,
            Self::NotBelieved { .. } | Self::OtherNonce | Self::Shape(_) => FaultKind::Untrusted,
        }
    }

    /// How long it asked us to wait.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limited { retry_after } | Self::Down { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What an operator can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::TimedOut | Self::TooLarge | Self::Down { .. } => {
                "start the license server, or correct `license.api_url`; known licenses go on for `license.trust_for`"
            }
            Self::Limited { .. } => {
                "raise the limit of the license server (RACK_ATTACK_MAX_RPS, RACK_ATTACK_MAX_RPM), or `license.cache_ttl`"
            }
            Self::Redirected { .. } => {
                "the license server wants TLS: use its https URL or, inside its own network, set `license.host` to its \
                 KEYGEN_HOST"
            }
            Self::RefusedUnsigned { status: 404, .. } => {
                "correct `license.account`; or the server does not answer for this host: set `license.host` to its \
                 KEYGEN_HOST"
            }
            Self::RefusedUnsigned { status: 403, .. } => {
                "the server does not answer for this host: set `license.host` to its KEYGEN_HOST"
            }
            Self::RefusedUnsigned { .. } | Self::Refused { status: 400, .. } => {
                "see that the license server is no older than Keygen-Version 1.7, and what stands before it"
            }
            Self::Refused { status: 401, .. } => "make a new product token and put it into `license.token`",
            Self::Refused { status: 402, .. } => "the plan's limit is used up: raise it at the license server",
            Self::Refused { .. } => {
                "use a token of the product (`prod-…`) in `license.token`, with the rights to read users, licenses and \
                 entitlements and to validate"
            }
            Self::NotBelieved { problem, .. } => match problem {
                Problem::Unsigned => "something before the license server answers in its place, or is not Keygen",
                Problem::EmptySignature => "restore the ENCRYPTION_* secrets that the server was set up with",
                Problem::OtherAccount => "put the account's id into `license.account`",
                Problem::Stale => "set both clocks, for example with NTP",
                _ => "pin the account's keys in `license.public_keys`: its dashboard shows them",
            },
            Self::OtherNonce => "something before the license server keeps answers to other questions",
            Self::Shape(_) => "see that `license.api_url` is that of a Keygen server",
            Self::Unaskable => "see the names of users and licenses at the provider",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "not reachable: {why}"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::TooLarge => f.write_str("the answer is too long"),
            Self::Limited { .. } => f.write_str("429: it limits us"),
            Self::Down { status, .. } => write!(f, "it answers {status}"),
            Self::Redirected { to } => write!(f, "it sends us to {to}, where nobody follows with a token"),
            Self::RefusedUnsigned { status, error } => refusal(f, "an unsigned ", *status, error),
            Self::Refused { status, error } => refusal(f, "", *status, error),
            Self::NotBelieved { problem, skew: None } => write!(f, "the answer is not believed: {problem}"),
            Self::NotBelieved { problem, skew: Some(skew) } => {
                let side = if *skew > 0 { "ahead of" } else { "behind" };
                write!(f, "the answer is not believed: {problem}; its clock is {} s {side} ours", skew.unsigned_abs())
            }
            Self::OtherNonce => f.write_str("the answer is not believed: it is the answer to another question"),
            Self::Shape(what) => write!(f, "the answer has another form than asked for: {what}"),
            Self::Unaskable => f.write_str("a name of a user or license that no URL can carry"),
        }
    }
}

fn refusal(f: &mut fmt::Formatter<'_>, how: &str, status: u16, error: &ApiError) -> fmt::Result {
    write!(f, "{how}{status}")?;
    for text in [&error.code, &error.detail].into_iter().flatten() {
        write!(f, ", {text}")?;
    }
    Ok(())
}

impl std::error::Error for Trouble {}

impl From<Trouble> for ProviderFault {
    fn from(trouble: Trouble) -> Self {
        Self { kind: trouble.kind(), note: trouble.to_string(), retry_after: trouble.retry_after() }
    }
}
