//! The only door to the system's clock and randomness (rule 9).

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use doorward_core::time::{Now, Timestamp};

use self::system::{Running, wall};

/// Where time comes from: the system, or a test.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System { start: Running },
    Manual(Arc<ManualTime>),
}

struct ManualTime {
    wall_millis: AtomicI64,
    mono_nanos: AtomicU64,
}

impl Clock {
    /// The system's clock.
    #[allow(clippy::disallowed_methods, reason = "this is the one door")]
    pub fn system() -> Self {
        Self(Source::System { start: Running::now() })
    }

    /// A clock that stands still until [`Clock::advance`] moves it; for tests.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(ManualTime {
            wall_millis: AtomicI64::new(start.as_millis()),
            mono_nanos: AtomicU64::new(0),
        })))
    }

    /// The time, read once; hand it on as a value.
    pub fn now(&self) -> Now {
        match &self.0 {
            Source::System { start } => Now { wall: wall(), mono: start.elapsed() },
            Source::Manual(time) => Now {
                wall: Timestamp::from_millis(time.wall_millis.load(Ordering::SeqCst)),
                mono: Duration::from_nanos(time.mono_nanos.load(Ordering::SeqCst)),
            },
        }
    }

    /// Moves a manual clock forward, wall and monotonic alike. Does nothing to the system's clock.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(time) = &self.0 {
            time.wall_millis.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
            time.mono_nanos.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }

    /// Sets the wall time of a manual clock, as an operator or NTP would: monotonic time is untouched.
    pub fn set_wall(&self, to: Timestamp) {
        if let Source::Manual(time) = &self.0 {
            time.wall_millis.store(to.as_millis(), Ordering::SeqCst);
        }
    }

    /// `N` bytes from the system's cryptographic generator, also on a manual clock.
    ///
    /// # Panics
    /// If the operating system has no randomness to give; going on would make guessable secrets.
    #[allow(clippy::disallowed_methods, clippy::panic, reason = "this is the one door")]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        if aws_lc_rs::rand::fill(&mut bytes).is_err() {
            panic!("the operating system gives no randomness");
        }
        bytes
    }
}

/// Linux stops the clock of `std::time::Instant` while the machine is suspended. What is decided by the time that has
/// passed (how old keys may be, how fresh the blocklist is) needs the one that goes on.
///
/// Both clocks are read as the kernel writes them: at every request, two conversions by `std::time` are a tenth of what
/// a decision from memory costs.
#[cfg(target_os = "linux")]
mod system {
    use std::time::Duration;

    use doorward_core::time::Timestamp;
    use rustix::time::{ClockId, clock_gettime};

    pub(super) fn wall() -> Timestamp {
        let time = clock_gettime(ClockId::Realtime);
        Timestamp::from_millis(time.tv_sec.max(0).saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000))
    }

    /// A moment since the machine was started.
    #[derive(Clone, Copy)]
    pub(super) struct Running(Duration);

    impl Running {
        pub(super) fn now() -> Self {
            let time = clock_gettime(ClockId::Boottime);
            let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
            Self(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default()))
        }

        pub(super) fn elapsed(self) -> Duration {
            Self::now().0.saturating_sub(self.0)
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) use std::time::Instant as Running;
    use std::time::SystemTime;

    use doorward_core::time::Timestamp;

    #[allow(clippy::disallowed_methods, reason = "this is the one door")]
    pub(super) fn wall() -> Timestamp {
        Timestamp::from_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System { .. } => "Clock(system)",
            Source::Manual(_) => "Clock(manual)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "it is held against what everybody else reads")]
    fn the_systems_clock_says_the_time_and_runs_on() {
        let clock = Clock::system();
        let epoch = || std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let (before, now, after) = (epoch(), clock.now(), epoch());
        assert!((Timestamp::from_epoch(before)..=Timestamp::from_epoch(after)).contains(&now.wall), "{now:?}");
        assert!(clock.now().mono >= now.mono && now.mono < Duration::from_secs(600), "{now:?}");
    }

    #[test]
    fn a_manual_clock_set_back_keeps_its_monotonic_time() {
        let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
        clock.advance(Duration::from_secs(5));
        clock.set_wall(Timestamp::from_secs(1_000));
        assert_eq!(clock.now(), Now { wall: Timestamp::from_secs(1_000), mono: Duration::from_secs(5) });
    }
}
