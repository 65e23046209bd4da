//! Decisions: a grant or a denial, with what the surfaces need to render either.

mod authorize;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use crate::{id::DecisionId, license::Licensed, principal::Principal, reason::Reason, time::Timestamp};

pub use authorize::{Action, Freshness, Snapshot, admit_public, authorize};

/// A refusal: the reason and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    detail: Option<Box<DenialDetail>>,
}

/// What some reasons carry besides their row in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenialDetail {
    /// Seconds after which a retry makes sense.
    pub retry_after: Option<u32>,
    /// `re_auth_required`: how old a sign-in may be, in seconds.
    pub max_age_seconds: Option<u32>,
    /// What was asked for and not there: a capability, scope, claim, entitlement, method.
    pub required: Option<String>,
    /// What this case has to say besides the text of its reason; shown to callers (`detail` of RFC 9457).
    pub explanation: Option<&'static str>,
    /// The rate limit that was met, or that this counted against.
    pub budget: Option<RateBudget>,
    /// For the operator only: logs, audit and `explain` show it, callers never see it.
    pub note: Option<String>,
}

/// What is left of a rate limit, in the words of draft-ietf-httpapi-ratelimit-headers-10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateBudget {
    /// Name of the limit.
    pub policy: &'static str,
    /// How many a period has.
    pub quota: u32,
    /// The period, in seconds.
    pub window: u32,
    /// How many are left now.
    pub remaining: u32,
    /// Seconds until there is one more.
    pub reset: u32,
}

impl Denial {
    /// The refusal because of a rate limit that has nothing left.
    pub fn limited(budget: RateBudget) -> Self {
        let denial = Self::from(Reason::RateLimited).with_retry_after(budget.reset.max(1));
        denial.edit(|detail| detail.budget = Some(budget))
    }

    /// The refusal's extras.
    pub fn detail(&self) -> Option<&DenialDetail> {
        self.detail.as_deref()
    }

    /// Seconds after which a retry makes sense; every 429 and 503 has it, 1 if nothing better is known.
    pub fn retry_after(&self) -> Option<u32> {
        let given = self.detail().and_then(|detail| detail.retry_after);
        given.or_else(|| matches!(self.reason.status(), 429 | 503).then_some(1))
    }

    fn edit(mut self, edit: impl FnOnce(&mut DenialDetail)) -> Self {
        edit(self.detail.get_or_insert_with(Box::default));
        self
    }

    /// The same with seconds after which a retry makes sense.
    #[must_use]
    pub fn with_retry_after(self, seconds: u32) -> Self {
        self.edit(|detail| detail.retry_after = Some(seconds))
    }

    /// The same with the age a sign-in may have.
    #[must_use]
    pub fn with_max_age(self, seconds: u32) -> Self {
        self.edit(|detail| detail.max_age_seconds = Some(seconds))
    }

    /// The same with what was asked for.
    #[must_use]
    pub fn with_required(self, required: impl Into<String>) -> Self {
        self.edit(|detail| detail.required = Some(required.into()))
    }

    /// The same with what is left of the limit that this refusal counted against.
    #[must_use]
    pub fn with_budget(self, budget: RateBudget) -> Self {
        self.edit(|detail| detail.budget = Some(budget))
    }

    /// The same with a sentence for the caller.
    #[must_use]
    pub fn with_explanation(self, sentence: &'static str) -> Self {
        self.edit(|detail| detail.explanation = Some(sentence))
    }

    /// The same with a note for the operator.
    #[must_use]
    pub fn with_note(self, note: impl Into<String>) -> Self {
        self.edit(|detail| detail.note = Some(note.into()))
    }
}

impl From<Reason> for Denial {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.code())?;
        if let Some(note) = self.detail().and_then(|detail| detail.note.as_deref()) {
            write!(f, ": {note}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Denial {}

/// Proof that `T` passed [`authorize`]. Only the check makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permitted<T>(T);

impl<T> Permitted<T> {
    /// What was permitted.
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who was let in; `None` on a public rule.
    pub principal: Option<Permitted<Arc<Principal>>>,
    /// Whether the revocation state was too old and the rule let it pass.
    pub is_stale: bool,
    /// The license that counted, where the rule asks for one.
    pub license: Option<Licensed>,
}

/// The verdict on one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Its name; in every log line, audit row and denial body about it.
    pub id: DecisionId,
    /// When it was taken.
    pub at: Timestamp,
    /// Version of the policy that it was taken under.
    pub policy: u64,
    /// Index of the rule that matched.
    pub rule: Option<usize>,
    /// Who was calling, as far as it was found out, also on a denial.
    pub caller: Option<Arc<Principal>>,
    /// The age of the issuer's keys, where a token was judged by keys that serve only because their last fetch failed.
    pub keys_age: Option<Duration>,
    /// The verdict.
    pub outcome: Result<Grant, Denial>,
}
