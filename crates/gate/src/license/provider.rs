//! Who is asked about licenses: one trait, and what its answers mean.

use std::{fmt, time::Duration};

use doorward_core::{
    license::{Holder, Observation},
    time::{Now, Timestamp},
    user::Email,
};
use futures_util::future::BoxFuture;

/// Longest that a provider may take for one answer, all its requests together.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes that a provider reads of one answer.
pub const MAX_ANSWER: usize = 512 * 1024;

/// What a provider is asked: everything that the store knows about the holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whose license.
    pub holder: Holder,
    /// The provider's name of the license, where one was seen before.
    pub license_id: Option<String>,
    /// The user's subject at the provider, where they are linked.
    pub subject: Option<String>,
    /// The user's mail address, only if it is verified.
    pub email: Option<Email>,
    /// The time by which licenses end: what a provider holds itself, and can end, has ended by it. A clock that is set back
    /// does not take it back.
    pub judged_at: Timestamp,
}

/// Why a provider gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// It is down, slow, or limits us. Nobody is asked for a while.
    Unavailable,
    /// It answered, and the answer cannot be believed: unsigned, another key, too old, not to this question.
    Untrusted,
    /// It refuses us: our credentials, account or product are wrong. Nobody is asked for a while.
    Misconfigured,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Unavailable, Self::Untrusted, Self::Misconfigured];

    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Untrusted => "untrusted",
            Self::Misconfigured => "misconfigured",
        }
    }
}

/// A question without an answer. It says nothing about any license and is never written down as a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderFault {
    /// What went wrong.
    pub kind: FaultKind,
    /// For the operator; holds no secret.
    pub note: String,
    /// How long the provider asked us to wait (`Retry-After`).
    pub retry_after: Option<Duration>,
}

impl ProviderFault {
    /// A fault of this kind.
    pub fn new(kind: FaultKind, note: impl Into<String>) -> Self {
        Self { kind, note: note.into(), retry_after: None }
    }
}

impl fmt::Display for ProviderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.note)
    }
}

impl std::error::Error for ProviderFault {}

/// The answer on its way.
pub type Answering = BoxFuture<'static, Result<Observation, ProviderFault>>;

/// Somebody who knows about licenses.
///
/// A provider only reads and verifies; what follows from an answer is decided elsewhere. "No license", from a provider
/// that could say so, is an observation with [`LicenseState::None`](doorward_core::license::LicenseState::None).
pub trait LicenseProvider: fmt::Debug + Send + Sync + 'static {
    /// Its name in logs and metrics: `keygen`, `jwt`, `file`, `relay`.
    fn name(&self) -> &'static str;

    /// Asks. The answer is bounded by [`ASK_TIMEOUT`] and [`MAX_ANSWER`]; whoever calls bounds it in time once more.
    /// The observation's `observed_at` is the provider's signed time where it has one, else `now`.
    fn ask(&self, question: Question, now: Now) -> Answering;

    /// Whether every user has a license of their own. If not, the license of [`Holder::Installation`] counts for
    /// everybody.
    fn is_per_user(&self) -> bool;
}
