//! The times by which licenses are judged.

use std::time::Duration;

use crate::time::Timestamp;

/// How far a clock may be from the time that is believed before the two are told apart.
const TOLERANCE: Duration = Duration::from_secs(60);

/// What the clock says, and what time it must be at least.
///
/// A clock can be set back, and it can leap ahead for a moment. What a license states itself, its end above all, counts
/// by the later of the two; stamps that are kept and shared bear the steady one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LicenseTime {
    /// What the clock says.
    pub wall: Timestamp,
    /// The highest time that was ever believed, running on with the monotonic clock: no clock that is set back takes it
    /// back, and none that leaps ahead for a moment moves it.
    pub steady: Timestamp,
}

impl LicenseTime {
    /// Where the clock was never wrong.
    pub const fn at(now: Timestamp) -> Self {
        Self { wall: now, steady: now }
    }

    /// The later of the two: by which a license ends.
    pub fn latest(&self) -> Timestamp {
        self.wall.max(self.steady)
    }

    /// By how much the clock is behind the steady time.
    pub fn lead(&self) -> Duration {
        self.steady.since(self.wall)
    }

    /// Whether the clock is behind by more than clocks are set by the way.
    pub fn is_behind(&self) -> bool {
        self.lead() > TOLERANCE
    }

    /// By how much a clock has leapt ahead that is not believed yet, beyond what clocks are set by the way.
    pub fn leap(&self) -> Option<Duration> {
        Some(self.wall.since(self.steady)).filter(|leap| *leap > TOLERANCE)
    }
}
