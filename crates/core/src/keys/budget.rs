//! How many fetches strangers can cause.

use std::{collections::VecDeque, time::Duration};

/// Remembers the last attempts, whatever caused them and however they ended.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    min_interval: Duration,
    burst: usize,
    /// Monotonic times, oldest first; never more than `burst`.
    attempts: VecDeque<Duration>,
}

impl Budget {
    pub(super) fn new(min_interval: Duration, burst: u8) -> Self {
        let burst = usize::from(burst.max(1));
        Self { min_interval, burst, attempts: VecDeque::with_capacity(burst) }
    }

    /// An attempt begins.
    pub(super) fn spend(&mut self, at: Duration) {
        if self.attempts.len() == self.burst {
            self.attempts.pop_front();
        }
        self.attempts.push_back(at);
    }

    /// When the next attempt may begin. `is_promising`: there is reason to believe that it finds something,
    /// so it need not keep the pause after the last attempt, only the average.
    pub(super) fn next_slot(&self, is_promising: bool) -> Duration {
        let window = self.min_interval.saturating_mul(u32::try_from(self.burst).unwrap_or(u32::MAX));
        let by_average = match self.attempts.front() {
            Some(oldest) if self.attempts.len() == self.burst => oldest.saturating_add(window),
            _ => Duration::ZERO,
        };
        let by_pause = self.attempts.back().map_or(Duration::ZERO, |last| last.saturating_add(self.min_interval));
        if is_promising { by_average } else { by_average.max(by_pause) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn no_window_ever_holds_more_than_the_burst() {
        let mut budget = Budget::new(secs(30), 2);
        let mut begun = Vec::new();
        for now in 0..600 {
            if secs(now) >= budget.next_slot(now % 2 == 0) {
                budget.spend(secs(now));
                begun.push(now);
            }
        }
        assert_eq!(&begun[..4], [0, 2, 60, 62]);
        assert!(begun.windows(3).all(|three| three[2] - three[0] >= 60), "{begun:?}");
    }

    #[test]
    fn an_attempt_without_promise_keeps_the_pause() {
        let mut budget = Budget::new(secs(30), 2);
        budget.spend(secs(100));
        assert_eq!(budget.next_slot(false), secs(130));
        assert_eq!(budget.next_slot(true), Duration::ZERO);
        budget.spend(secs(101));
        assert_eq!((budget.next_slot(true), budget.next_slot(false)), (secs(160), secs(160)));
    }
}
