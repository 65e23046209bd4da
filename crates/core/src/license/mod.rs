//! Licenses: what a provider said, and what follows from it now.
//!
//! A provider's answer is an [`Observation`]. Nothing acts on it directly: [`derive()`] turns it, the
//! policy and the time into one [`Standing`]. A provider that fails gives no observation, so a fault can never be
//! taken for a verdict; what it costs is freshness, and that has a verdict of its own.

mod holder;
mod licensed;
mod standing;
mod time;

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

pub use holder::{Holder, NoHolder};
pub use licensed::{Licensed, check, is_asked};
pub use standing::{Standing, Verdict, derive};
pub use time::LicenseTime;

/// How far the clock of a provider or of another server may be from ours.
pub const SKEW: Duration = Duration::from_secs(600);

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

impl Known {
    /// Whether the observation bears our own time, because its provider has no signed one: [`plan`] gives that one the
    /// time of the confirmation, and no other.
    pub fn is_by_own_clock(&self) -> bool {
        self.observation.observed_at == self.confirmed_at
    }
}

impl Known {
    /// Whether it says no more than that there was no license to ask about: of one that is told of since, however late that
    /// is delivered, it knows nothing.
    fn is_of_nobody_asked(&self) -> bool {
        let Observation { state, license_id, .. } = &self.observation;
        *state == LicenseState::None && license_id.is_none() && self.is_by_own_clock()
    }
}

/// Whose time an observation bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaidBy {
    /// The provider's, signed.
    Provider,
    /// Ours: the provider was asked then, and answered.
    OwnClock,
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

/// Weighs a new observation against what is known. `time` is when it was received, or when the question was asked that
/// it answers. An older observation never wins, however late it arrives; of two made at the same moment the one that
/// arrives later counts. An answer without a signed time must be to a question that was asked when `known` was known: so
/// it is the newer one, whatever the clocks say.
///
/// What is known from a time that is far from come was written by a clock that was ahead: it keeps nothing newer out.
/// While the clock is behind the steady time, one of them is wrong. A provider whose signed time agrees with the clock
/// says which: what we know by our own steady time is compared as the clock would have put it.
///
/// A license that is said to be over before its stated end was over when that was said first: from then on this is its
/// end, so its grace does not begin anew with every confirmation.
pub fn plan(known: Option<&Known>, mut observation: Observation, by: SaidBy, time: &LicenseTime) -> Plan {
    let newest = time.latest().plus(SKEW);
    let believed = known.filter(|known| known.observation.observed_at <= newest && known.confirmed_at <= newest);
    let mut confirmed_at = time.steady;
    match by {
        SaidBy::OwnClock => {
            // Later than that, also where it is ahead of us: two answers with one stamp could not be told apart.
            let before = believed.map(|known| known.observation.observed_at.max(known.confirmed_at));
            confirmed_at =
                before.map_or(confirmed_at, |before| before.plus(Duration::from_millis(1)).max(confirmed_at));
            observation.observed_at = confirmed_at;
        }
        // Told apart from our own time; see `Known::is_by_own_clock`.
        SaidBy::Provider if observation.observed_at == confirmed_at => {
            confirmed_at = confirmed_at.minus(Duration::from_millis(1));
        }
        SaidBy::Provider => {}
    }
    if observation.state == LicenseState::Expired {
        // Our own stamp is the steady time, which may be that of before a long while in which nothing ran: it says when
        // this is known since, and nothing of when the license ended.
        let said_at = match by {
            SaidBy::OwnClock => time.latest(),
            SaidBy::Provider => observation.observed_at,
        };
        let was_over = known.filter(|known| known.observation.state == LicenseState::Expired);
        let ended = was_over.and_then(|known| known.observation.expires_at).unwrap_or(said_at);
        observation.expires_at = observation.expires_at.map(|end| end.min(ended).min(said_at));
    }
    let Some(known) = known else {
        return Plan::Changed { old: None, new: Known { observation, confirmed_at } };
    };
    let mut known_at = known.observation.observed_at;
    let is_of_now = observation.observed_at.since(time.wall).max(time.wall.since(observation.observed_at)) <= SKEW;
    if known.is_by_own_clock() && is_of_now {
        known_at = known_at.minus(time.lead());
    }
    if known.is_of_nobody_asked() {
        known_at = observation.observed_at;
    }
    if by == SaidBy::Provider && observation.observed_at < known_at && known.observation.observed_at <= newest {
        return Plan::Older;
    }
    // A license is not forgotten because an event names only the subject, or because it is gone.
    observation.license_id = observation.license_id.or_else(|| known.observation.license_id.clone());
    let is_same =
        Observation { observed_at: known.observation.observed_at, ..observation.clone() } == known.observation;
    let new = Known { observation, confirmed_at };
    if is_same { Plan::Confirmed(new) } else { Plan::Changed { old: Some(known.observation.state), new } }
}

#[cfg(test)]
mod matrix;
#[cfg(test)]
mod tests;
