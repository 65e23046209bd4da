//! `[legacy]`: the soak window of a migration.

use std::time::Duration;

use jiff::civil::Date;

use super::{key::settings, read::Reader, scalar::SecretText};

settings! {
    /// The soak window, in which passwords and tokens of the system that Doorward replaces still work.
    /// The file is the ceiling; the state itself is in the store.
    pub struct Legacy check Legacy::check {
        /// Whether there is a soak window at all.
        allow: bool = default false;
        /// The old system's HS256 secret.
        hs256_secret: SecretText<32> = optional "a secret of 32 characters or more", or_file;
        /// The day on which the window closes.
        cutover_on: Date = optional "2026-12-31";
        /// Share of successful sign-ins and bearer requests over seven days that may still be legacy.
        threshold: f64 = default 0.05;
        /// By how much `doorward cutover extend` moves the day.
        extend_by: Duration = default "7d";
    }
}

impl Legacy {
    fn check(&self, cx: &mut Reader<'_>) {
        cx.check_range("threshold", self.threshold, (0.0, "0"), (1.0, "1"));
        if !self.threshold.is_finite() {
            cx.problem_in("threshold", "not a share", "choose a value from 0 to 1");
        }
        if self.allow && self.cutover_on.is_none() {
            cx.problem_in("cutover_on", "a soak window must have an end", "add `cutover_on = \"2026-12-31\"`");
        }
    }
}
