//! From what is known to what may be done.

use std::time::Duration;

use super::{Known, LicensePolicy, LicenseState};
use crate::{reason::Reason, time::Timestamp};

const DAY: Duration = Duration::from_hours(24);
/// How long before its end a license counts as expiring.
const EXPIRING: Duration = Duration::from_hours(14 * 24);

/// What a license lets its holder do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything.
    Allow,
    /// GET, HEAD and OPTIONS, where the rule lets a grace count; everything else is refused with `reason`.
    ReadOnly {
        /// Why no more.
        reason: Reason,
    },
    /// Nothing.
    Deny {
        /// Why.
        reason: Reason,
    },
}

impl Verdict {
    /// How much it lets through: the more, the higher.
    pub const fn rank(self) -> u8 {
        match self {
            Self::Allow => 2,
            Self::ReadOnly { .. } => 1,
            Self::Deny { .. } => 0,
        }
    }
}

/// What follows for one holder, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What may be done.
    pub verdict: Verdict,
    /// When this gets less by itself, if it ever does.
    pub until: Option<Timestamp>,
    /// The word of `GET /profile/license`.
    pub status: &'static str,
}

impl Standing {
    /// Of somebody who can have no license.
    pub const NONE: Self = Self { verdict: Verdict::Deny { reason: Reason::LicenseNone }, until: None, status: "none" };

    /// Of somebody whose license nobody can tell.
    pub const UNKNOWN: Self =
        Self { verdict: Verdict::Deny { reason: Reason::LicenseUnknown }, until: None, status: "unknown" };

    /// Whole days of grace that are left, begun ones included; `X-License-Grace`. `None` outside a grace.
    pub fn grace_days(&self, now: Timestamp) -> Option<u64> {
        match (self.verdict, self.until) {
            (Verdict::ReadOnly { .. }, Some(until)) => {
                Some(until.since(now).as_millis().div_ceil(DAY.as_millis()) as u64)
            }
            _ => None,
        }
    }
}

/// What `known` lets its holder do at `now`, by which its stated end counts. `aged_at` is the time by which the
/// confirmation ages; it differs from `now` while a clock leaps. The later of the two is the time of the answer, so
/// a clock that was moved back brings no license back.
///
/// For the same `known` this only ever gets less as time goes on.
pub fn derive(known: Option<&Known>, policy: &LicensePolicy, now: Timestamp, aged_at: Timestamp) -> Standing {
    let now = now.max(aged_at);
    let Some(known) = known else { return Standing::UNKNOWN };
    let by_itself = by_itself(known, policy.grace, now);
    // In the time of the answer: there are as many hours until then as there are by the time that ages it.
    let trusted_until = known.confirmed_at.plus(policy.trust_for).plus(now.since(aged_at));
    let ends = trusted_until.plus(policy.grace);
    if now < trusted_until {
        let lapses = match by_itself.verdict {
            Verdict::Allow => Some(trusted_until),
            Verdict::ReadOnly { .. } => Some(ends),
            Verdict::Deny { .. } => None,
        };
        return Standing { until: earliest(by_itself.until, lapses), ..by_itself };
    }
    // Nobody confirms it any more. It may have been renewed or suspended meanwhile, so whatever is refused is
    // refused for not knowing, and nothing gets better by not knowing.
    if by_itself.verdict.rank() == 0 || now >= ends {
        return Standing::UNKNOWN;
    }
    let verdict = Verdict::ReadOnly { reason: Reason::LicenseUnknown };
    Standing {
        verdict,
        until: earliest(by_itself.until.filter(|_| by_itself.verdict.rank() == 1), Some(ends)),
        status: "unknown",
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// What the license says of itself, were it confirmed this moment.
fn by_itself(known: &Known, grace: Duration, now: Timestamp) -> Standing {
    let observation = &known.observation;
    let deny = |reason, status| Standing { verdict: Verdict::Deny { reason }, until: None, status };
    match observation.state {
        LicenseState::Active => match observation.expires_at {
            Some(end) if now >= end => expired(end, grace, now),
            end => {
                let is_expiring = end.is_some_and(|end| end.since(now) <= EXPIRING);
                let status = if is_expiring { "expiring" } else { "active" };
                Standing { verdict: Verdict::Allow, until: end, status }
            }
        },
        LicenseState::ActiveBeyondExpiry => Standing { verdict: Verdict::Allow, until: None, status: "active" },
        // Where it was said to be over before its stated end, `plan` has put that moment in the place of the end. Without a
        // stated end there is nothing that a grace could be measured from.
        LicenseState::Expired => match observation.expires_at {
            Some(end) => expired(end, grace, now),
            None => deny(Reason::LicenseExpired, "expired"),
        },
        LicenseState::Suspended => deny(Reason::LicenseSuspended, "suspended"),
        LicenseState::Banned => deny(Reason::LicenseBanned, "banned"),
        LicenseState::None => deny(Reason::LicenseNone, "none"),
        LicenseState::Invalid => deny(Reason::LicenseInvalid, "unknown"),
    }
}

fn expired(end: Timestamp, grace: Duration, now: Timestamp) -> Standing {
    let grace_until = end.plus(grace);
    let verdict = if now < grace_until {
        Verdict::ReadOnly { reason: Reason::LicenseExpiredGrace }
    } else {
        Verdict::Deny { reason: Reason::LicenseExpired }
    };
    let until = (now < grace_until).then_some(grace_until);
    Standing { verdict, until, status: "expired" }
}
