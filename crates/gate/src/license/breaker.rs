//! When a provider that failed is asked again: after a pause that grows with every failure, by one question first.

use std::time::Duration;

use super::provider::{FaultKind, ProviderFault};

/// First pause; doubled with every further failure.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause of our own: so long after it is back a provider may wait for the next question.
const LONGEST: Duration = Duration::from_secs(60);
/// Longest pause that a provider can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(15 * 60);
/// How long one trial question may be under way before another one is let through.
const TRIAL: Duration = Duration::from_secs(30);

/// The breaker. Times are monotonic.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// In a row.
    failures: u32,
    /// Nobody is asked before.
    pause_until: Duration,
    /// When the last failure was counted.
    failed_at: Duration,
    /// A trial question is under way, at most until then.
    trial_until: Duration,
}

impl Breaker {
    /// Whether the provider answered last time, so waiting for it makes sense.
    pub(super) const fn is_closed(&self) -> bool {
        self.failures == 0
    }

    /// How long nobody is asked yet.
    pub(super) fn pause(&self, now: Duration) -> Duration {
        if self.failures == 0 { Duration::ZERO } else { self.pause_until.max(self.trial_until).saturating_sub(now) }
    }

    /// Whether a question may be asked now. After a failure it is one at a time.
    pub(super) fn admits(&mut self, now: Duration) -> bool {
        if self.failures == 0 {
            return true;
        }
        if now < self.pause_until || now < self.trial_until {
            return false;
        }
        self.trial_until = now.saturating_add(TRIAL);
        true
    }

    /// The provider answered. Says whether it did last time, too.
    pub(super) fn succeeded(&mut self) -> bool {
        std::mem::take(self).is_closed()
    }

    /// A question that was asked at `asked` failed. Of many that were under way together one counts.
    pub(super) fn failed(&mut self, fault: &ProviderFault, asked: Duration, now: Duration, jitter: u8) {
        // One that began before the trial settles nothing.
        if self.trial_until.saturating_sub(TRIAL) <= asked {
            self.trial_until = Duration::ZERO;
        }
        match fault.kind {
            // It is there. What it says about one license tells nothing about the others.
            FaultKind::Untrusted if self.failures == 0 => return,
            FaultKind::Untrusted => {
                let asked_for = fault.retry_after.unwrap_or_default().min(LONGEST_ASKED);
                self.pause_until = self.pause_until.max(now.saturating_add(FIRST.max(asked_for)));
                return;
            }
            FaultKind::Unavailable | FaultKind::Misconfigured if self.failures > 0 && asked < self.failed_at => {}
            FaultKind::Unavailable | FaultKind::Misconfigured => {
                self.failures = self.failures.saturating_add(1);
                self.failed_at = now;
            }
        }
        let own = FIRST.saturating_mul(1 << (self.failures - 1).min(10)).min(LONGEST);
        // Up to a quarter longer, so that replicas do not come back together.
        let own = own + own.mul_f64(f64::from(jitter) / 1024.0);
        let asked_for = fault.retry_after.unwrap_or_default().min(LONGEST_ASKED);
        self.pause_until = self.pause_until.max(now.saturating_add(own.max(asked_for)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn down() -> ProviderFault {
        ProviderFault::new(FaultKind::Unavailable, "connection refused")
    }

    #[test]
    fn pauses_grow_to_a_minute_and_an_answer_ends_them() {
        let mut breaker = Breaker::default();
        let mut now = Duration::from_secs(100);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert!(breaker.admits(now));
            breaker.failed(&down(), now, now, 0);
            assert!(!breaker.admits(now));
            pauses.push(breaker.pause(now).as_secs());
            now += breaker.pause(now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(!breaker.is_closed());
        assert!(!breaker.succeeded());
        assert!(breaker.succeeded());
        assert!(breaker.is_closed() && breaker.admits(now));
        assert_eq!(breaker.pause(now), Duration::ZERO);
    }

    #[test]
    fn after_a_pause_one_question_goes_through_until_it_is_settled() {
        let mut breaker = Breaker::default();
        breaker.failed(&down(), Duration::ZERO, Duration::ZERO, 0);
        assert!(breaker.admits(SECOND));
        assert!(!breaker.admits(SECOND));
        // One that never comes back does not block for ever.
        assert!(breaker.admits(SECOND + TRIAL));
    }

    #[test]
    fn questions_that_fail_together_count_once() {
        let mut breaker = Breaker::default();
        for late in 0..16 {
            breaker.failed(&down(), Duration::ZERO, SECOND * 5 + Duration::from_millis(late), 0);
        }
        assert!(breaker.pause(SECOND * 5) < SECOND * 2);
    }

    #[test]
    fn a_provider_that_limits_us_is_heard_within_bounds() {
        let mut breaker = Breaker::default();
        let limited = |after| ProviderFault { retry_after: Some(after), ..down() };
        breaker.failed(&limited(SECOND * 90), Duration::ZERO, Duration::ZERO, 255);
        assert_eq!(breaker.pause(Duration::ZERO), SECOND * 90);
        breaker.failed(&limited(SECOND * 1_000_000), SECOND * 90, SECOND * 90, 0);
        assert_eq!(breaker.pause(SECOND * 90), LONGEST_ASKED);
    }

    #[test]
    fn an_answer_that_is_not_believed_keeps_nobody_else_from_asking() {
        let mut breaker = Breaker::default();
        breaker.failed(&ProviderFault::new(FaultKind::Untrusted, "no signature"), SECOND, SECOND, 9);
        assert!(breaker.is_closed() && breaker.admits(SECOND));
    }

    #[test]
    fn an_answer_that_is_not_believed_keeps_others_waiting_for_a_second_only() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            let now = breaker.pause(Duration::ZERO);
            breaker.failed(&down(), now, now, 0);
        }
        let back = breaker.pause(Duration::ZERO);
        assert!(breaker.admits(back));
        breaker.failed(&ProviderFault::new(FaultKind::Untrusted, "no signature"), back, back, 255);
        assert_eq!(breaker.pause(back), FIRST);
    }

    #[test]
    fn a_question_from_before_the_trial_does_not_end_it() {
        let mut breaker = Breaker::default();
        breaker.failed(&down(), Duration::ZERO, Duration::ZERO, 0);
        assert!(breaker.admits(SECOND * 5));
        breaker.failed(&down(), Duration::ZERO, SECOND * 6, 0);
        assert!(!breaker.admits(SECOND * 10));
    }

    #[test]
    fn pauses_differ_between_replicas_by_a_quarter_at_most() {
        let pause = |jitter| {
            let mut breaker = Breaker::default();
            breaker.failed(&down(), Duration::ZERO, Duration::ZERO, jitter);
            breaker.pause(Duration::ZERO)
        };
        assert_eq!(pause(0), SECOND);
        assert!(pause(255) > SECOND && pause(255) < SECOND * 5 / 4);
    }
}
