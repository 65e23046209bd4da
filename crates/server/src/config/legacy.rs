//! `[legacy]`: the soak window of a migration.

use std::time::Duration;

use doorward_core::{
    cutover::{Ceiling, Day},
    jose::hs256::MacKey,
};
use doorward_gate::policy::LegacyPolicy;
use jiff::{civil::Date, tz::TimeZone};

use super::{key::settings, read::Reader, scalar::SecretText};

settings! {
    /// The soak window, in which passwords and tokens of the system that Doorward replaces still work.
    /// The file is the ceiling; the state itself is in the store.
    pub struct Legacy check Legacy::check {
        /// Whether there is a soak window at all. `false` closes it at once, whatever was decided.
        allow: bool = default false;
        /// The old system's HS256 secret. Without it only its passwords are accepted, none of its tokens.
        hs256_secret: SecretText<32> = optional "a secret of 32 characters or more", or_file;
        /// The day on which it is decided whether the window closes, at 00:00 UTC. Another date than the one that an
        /// extension was decided under takes its place.
        cutover_on: Date = optional "2026-12-31";
        /// The window closes if the legacy share of successful sign-ins and bearer requests over the seven days
        /// before is below this, or zero.
        threshold: f64 = default 0.05;
        /// By how much the day moves if the window does not close; in whole days, rounded up. Also what
        /// `doorward cutover extend` and `rollback` give.
        extend_by: Duration = default "7d";
    }
}

impl Legacy {
    /// What the file says about the window, for decisions on it.
    pub fn ceiling(&self) -> Ceiling {
        let day = |date: Date| {
            let midnight = date.to_zoned(TimeZone::UTC).map_or(0, |midnight| midnight.timestamp().as_second());
            Day(midnight.div_euclid(86_400))
        };
        Ceiling {
            allow: self.allow,
            // Without a date there is no window; reading made sure of that.
            cutover_on: self.cutover_on.map_or(Day(0), day),
            threshold: self.threshold,
            extend_by: self.extend_by,
        }
    }

    /// What the gate has to know.
    pub fn policy(&self) -> LegacyPolicy {
        // Reading made sure that the secret is long enough.
        let key = self.hs256_secret.as_ref().and_then(|secret| MacKey::new(secret.0.expose().as_bytes()).ok());
        LegacyPolicy { allow: self.allow, key }
    }

    fn check(&self, cx: &mut Reader<'_>) {
        cx.check_range("threshold", self.threshold, (0.0, "0"), (1.0, "1"));
        if !self.threshold.is_finite() {
            cx.problem_in("threshold", "not a share", "choose a value from 0 to 1");
        }
        if self.hs256_secret.as_ref().is_some_and(|secret| secret.0.expose().contains("-----BEGIN")) {
            cx.problem_in(
                "hs256_secret",
                "a key in PEM form, which may be public",
                "give the secret that the old system signed its HS256 tokens with",
            );
        }
        if self.allow && self.cutover_on.is_none() {
            cx.problem_in("cutover_on", "a soak window must have an end", "add `cutover_on = \"2026-12-31\"`");
        }
    }
}
