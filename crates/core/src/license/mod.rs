//! Licenses: what a provider said, and what follows from it now.
//!
//! A provider's answer is an [`Observation`]. Nothing acts on it directly: [`derive()`] turns it, the
//! policy and the time into one [`Standing`]. A provider that fails gives no observation, so a fault can never be
//! taken for a verdict; what it costs is freshness, and that has a verdict of its own.

mod holder;
mod licensed;
mod standing;

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

pub use holder::{Holder, NoHolder};
pub use licensed::{Licensed, check, is_asked};
pub use standing::{Standing, Verdict, derive};

/// How far the clock of a provider or of another server may be ahead of ours.
const SKEW: Duration = Duration::from_secs(600);

/// What a provider says about a license, in one vocabulary for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LicenseState {
    /// Usable until its expiry.
    Active,
    /// Usable whatever its expiry says: the vendor chose to let expired licenses go on.
    ActiveBeyondExpiry,
    /// Over.
    Expired,
    /// Suspended.
    Suspended,
    /// The license or its owner is banned.
    Banned,
    /// There is no license.
    None,
    /// There is one, and it does not count here: another product, too many machines, a claim that does not fit.
    Invalid,
}

impl LicenseState {
    /// Every state.
    pub const ALL: &'static [Self] = &[
        Self::Active,
        Self::ActiveBeyondExpiry,
        Self::Expired,
        Self::Suspended,
        Self::Banned,
        Self::None,
        Self::Invalid,
    ];

    /// The word in the store, in audit rows and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::ActiveBeyondExpiry => "active_beyond_expiry",
            Self::Expired => "expired",
            Self::Suspended => "suspended",
            Self::Banned => "banned",
            Self::None => "none",
            Self::Invalid => "invalid",
        }
    }

    /// Reads a word back.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == word)
    }
}

/// One answer of a provider, believed: its signature, if it has one, was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// What it says.
    pub state: LicenseState,
    /// The provider's name of the license.
    pub license_id: Option<String>,
    /// When the license ends, as it states itself.
    pub expires_at: Option<Timestamp>,
    /// Codes of its entitlements.
    pub entitlements: BTreeSet<String>,
    /// When the provider said so, by the provider's signed clock where it has one.
    pub observed_at: Timestamp,
}

/// How long an observation carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LicensePolicy {
    /// How old it may be and still count in full.
    pub trust_for: Duration,
    /// How long reading goes on after the expiry of a license, and after `trust_for`.
    pub grace: Duration,
}

/// What is known of one license.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The newest observation.
    pub observation: Observation,
    /// When a provider last confirmed it, by our clock.
    pub confirmed_at: Timestamp,
}

/// Outcome of [`plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The observation is older than what is known: nothing changes.
    Older,
    /// It says what is known already: only the confirmation is newer.
    Confirmed(Known),
    /// It says something else.
    Changed {
        /// What was known.
        old: Option<LicenseState>,
        /// What is known now.
        new: Known,
    },
}

/// Weighs a new observation, received at `now`, against what is known. An older observation never wins, however late
/// it arrives; of two made at the same moment the one that arrives later counts.
///
/// What is known from a time that is far from come was written by a clock that was ahead: it keeps nothing newer out.
///
/// A license that is said to be over before its stated end was over when that was said first: from then on this is its
/// end, so its grace does not begin anew with every confirmation.
pub fn plan(known: Option<&Known>, mut observation: Observation, now: Timestamp) -> Plan {
    if observation.state == LicenseState::Expired {
        let was_over = known.filter(|known| known.observation.state == LicenseState::Expired);
        let ended = was_over.and_then(|known| known.observation.expires_at).unwrap_or(observation.observed_at);
        observation.expires_at = observation.expires_at.map(|end| end.min(ended).min(observation.observed_at));
    }
    let Some(known) = known else {
        return Plan::Changed { old: None, new: Known { observation, confirmed_at: now } };
    };
    if observation.observed_at < known.observation.observed_at && known.observation.observed_at <= now.plus(SKEW) {
        return Plan::Older;
    }
    // A license is not forgotten because an event names only the subject, or because it is gone.
    observation.license_id = observation.license_id.or_else(|| known.observation.license_id.clone());
    let is_same =
        Observation { observed_at: known.observation.observed_at, ..observation.clone() } == known.observation;
    let new = Known { observation, confirmed_at: now };
    if is_same { Plan::Confirmed(new) } else { Plan::Changed { old: Some(known.observation.state), new } }
}

#[cfg(test)]
mod matrix;
#[cfg(test)]
mod tests;
