//! The license that counts for a caller, and whether it lets a request through.

use std::{collections::BTreeSet, sync::Arc};

use super::{Holder, Known, LicensePolicy, Standing, Verdict, derive};
use crate::{
    decision::Denial,
    reason::Reason,
    rule::{LicenseMode, Rule},
    time::Timestamp,
};

/// What there is to say about the license of one caller, now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Licensed {
    /// Whose license it is; `None` for a caller who can have none.
    pub holder: Option<Holder>,
    /// What was observed, if anything was.
    pub known: Option<Arc<Known>>,
    /// What follows from it.
    pub standing: Standing,
    /// Whether the license's subject at the provider is on the blocklist.
    pub is_blocked: bool,
    /// The time by which this was derived.
    pub at: Timestamp,
}

impl Licensed {
    /// What follows from `known` for `holder` at `now`, which must be the highest time ever seen.
    pub fn derive(holder: Holder, known: Option<Arc<Known>>, policy: &LicensePolicy, now: Timestamp) -> Self {
        Self::derive_aged(holder, known, policy, now, now)
    }

    /// The same, where the confirmation ages by another time; see [`derive()`].
    pub fn derive_aged(
        holder: Holder,
        known: Option<Arc<Known>>,
        policy: &LicensePolicy,
        now: Timestamp,
        aged_at: Timestamp,
    ) -> Self {
        let standing = derive(known.as_deref(), policy, now, aged_at);
        let now = now.max(aged_at);
        Self { holder: Some(holder), known, standing, is_blocked: false, at: now }
    }

    /// What follows for a caller who can have no license: a token that belongs to no user, a key of a service.
    pub const fn nobody(now: Timestamp) -> Self {
        Self { holder: None, known: None, standing: Standing::NONE, is_blocked: false, at: now }
    }

    /// The word for apps and for `GET /profile/license`.
    pub const fn status(&self) -> &'static str {
        self.standing.status
    }

    /// Codes of the entitlements that count now: those of a license that lets at least some requests through.
    pub fn entitlements(&self) -> Option<&BTreeSet<String>> {
        let counts = self.standing.verdict.rank() > 0 && !self.is_blocked;
        self.known.as_ref().filter(|_| counts).map(|known| &known.observation.entitlements)
    }

    /// Whole days of grace that are left; see [`Standing::grace_days`].
    pub fn grace_days(&self) -> Option<u64> {
        self.standing.grace_days(self.at)
    }
}

/// Whether `rule` asks anything of the license.
pub fn is_asked(rule: &Rule) -> bool {
    rule.license != LicenseMode::None || !rule.require.entitlements.is_empty()
}

/// Whether the license lets a request pass that meets `rule`. `reads` says whether the request only reads: `GET`,
/// `HEAD` or `OPTIONS`, and no upgrade, which opens a way for changes. Without a provider there is nothing to look at,
/// and whatever asks for a license stays closed.
///
/// # Errors
/// The `license_*` reasons. What nobody can tell is `license_unknown`; a missing entitlement is named in `required`.
pub fn check(licensed: Option<&Licensed>, rule: &Rule, reads: bool) -> Result<(), Denial> {
    if !is_asked(rule) {
        return Ok(());
    }
    let needed = &rule.require.entitlements;
    let missing = |code: &String| Denial::from(Reason::LicenseEntitlementMissing).with_required(code.as_str());
    let Some(licensed) = licensed else {
        return Err(needed.first().map_or_else(|| Reason::LicenseUnknown.into(), missing));
    };
    if licensed.is_blocked {
        return Err(Reason::LicenseBlocked.into());
    }
    match (rule.license, licensed.standing.verdict) {
        (LicenseMode::None, Verdict::Deny { reason: Reason::LicenseUnknown }) => {
            return Err(Reason::LicenseUnknown.into());
        }
        (LicenseMode::None, _) | (_, Verdict::Allow) => {}
        (LicenseMode::ActiveOrGraceRead, Verdict::ReadOnly { .. }) if reads => {}
        (_, Verdict::ReadOnly { reason } | Verdict::Deny { reason }) => return Err(reason.into()),
    }
    let held = licensed.entitlements();
    match needed.iter().find(|code| !held.is_some_and(|held| held.contains(*code))) {
        // What is known is too old to say that it was not bought since.
        Some(_) if matches!(licensed.standing.verdict, Verdict::ReadOnly { reason: Reason::LicenseUnknown }) => {
            Err(Reason::LicenseUnknown.into())
        }
        Some(code) => Err(missing(code)),
        None => Ok(()),
    }
}
