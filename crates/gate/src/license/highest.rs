//! The highest time ever seen: a clock that is moved back brings no license back.
//!
//! It is kept in the store, so neither a restart nor another machine over the same store forgets it.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::Duration,
};

use doorward_core::{effects::Effects, time::Timestamp};
use doorward_store::{SetState, Store, StoreError};

/// Name of the shared value.
const NAME: &str = "license.highest_time";
/// It is written once it is ahead of the stored one by so much; the most that a restart forgets.
const STEP: Duration = Duration::from_secs(300);
/// How often a write is tried that others outran.
const TRIES: usize = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct Highest {
    seen: AtomicI64,
    stored: AtomicI64,
    is_loaded: AtomicBool,
}

impl Default for Highest {
    fn default() -> Self {
        Self { seen: AtomicI64::new(i64::MIN), stored: AtomicI64::new(i64::MIN), is_loaded: AtomicBool::new(false) }
    }
}

impl Highest {
    /// Notes `now`; the highest time seen so far.
    pub(crate) fn see(&self, now: Timestamp) -> Timestamp {
        let seen = self.seen.load(Ordering::Relaxed);
        if now.as_millis() <= seen {
            return Timestamp::from_millis(seen);
        }
        self.seen.fetch_max(now.as_millis(), Ordering::Relaxed);
        now
    }

    /// Whether the stored one was read.
    pub(crate) fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Acquire)
    }

    /// Reads the stored one, once.
    pub(crate) async fn load(&self, store: &Store) -> Result<(), StoreError> {
        if self.is_loaded() {
            return Ok(());
        }
        let stored = store.state(NAME.to_owned()).await?;
        self.take(stored.map(|state| state.value).as_deref())?;
        self.is_loaded.store(true, Ordering::Release);
        Ok(())
    }

    /// Writes it down if it is time. `always`: however little it moved, for the end of the process.
    pub(crate) async fn keep(&self, store: &Store, always: bool) -> Result<(), StoreError> {
        self.load(store).await?;
        for _ in 0..TRIES {
            let (seen, stored) = (self.seen.load(Ordering::Relaxed), self.stored.load(Ordering::Relaxed));
            let step = if always { 1 } else { i64::try_from(STEP.as_millis()).unwrap_or(i64::MAX) };
            if seen < stored.saturating_add(step) {
                return Ok(());
            }
            let now = Timestamp::from_millis(seen);
            let found = store.state(NAME.to_owned()).await?;
            let version = found.as_ref().map_or(0, |state| state.version);
            self.take(found.map(|state| state.value).as_deref())?;
            if seen <= self.stored.load(Ordering::Relaxed) {
                continue;
            }
            match store.set_state(NAME.to_owned(), version, seen.to_string(), now, Effects::default()).await? {
                SetState::Set => {
                    self.stored.fetch_max(seen, Ordering::Relaxed);
                    return Ok(());
                }
                SetState::Changed => {}
            }
        }
        Ok(())
    }

    /// A value that cannot be read is a damaged row, not "nothing seen yet".
    fn take(&self, stored: Option<&str>) -> Result<(), StoreError> {
        let Some(text) = stored else { return Ok(()) };
        let millis: i64 = text.parse().map_err(|_| StoreError::Fault {
            op: "state",
            note: format!("{NAME} is no number of milliseconds; remove the row to begin anew"),
        })?;
        self.seen.fetch_max(millis, Ordering::Relaxed);
        self.stored.fetch_max(millis, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const DAY: Duration = Duration::from_hours(24);

    #[tokio::test]
    async fn the_highest_time_outlives_the_process_and_a_clock_that_is_moved_back() {
        let store = Store::memory();
        let first = Highest::default();
        assert_eq!(first.see(NOW), NOW);
        assert_eq!(first.see(NOW.minus(DAY)), NOW);
        first.keep(&store, false).await.unwrap();
        let second = Highest::default();
        second.load(&store).await.unwrap();
        assert_eq!(second.see(NOW.minus(DAY)), NOW);
        assert_eq!(second.see(NOW.plus(DAY)), NOW.plus(DAY));
        // Whoever lags behind takes nothing back.
        second.keep(&store, true).await.unwrap();
        first.see(NOW.plus(STEP));
        first.keep(&store, false).await.unwrap();
        let third = Highest::default();
        third.load(&store).await.unwrap();
        assert_eq!(third.see(NOW), NOW.plus(DAY));
    }

    #[tokio::test]
    async fn small_steps_are_not_written_each() {
        let store = Store::memory();
        let highest = Highest::default();
        highest.see(NOW);
        highest.keep(&store, false).await.unwrap();
        highest.see(NOW.plus(STEP - Duration::from_millis(1)));
        highest.keep(&store, false).await.unwrap();
        assert_eq!(store.state(NAME.to_owned()).await.unwrap().unwrap().version, 1);
        highest.see(NOW.plus(STEP));
        highest.keep(&store, false).await.unwrap();
        assert_eq!(store.state(NAME.to_owned()).await.unwrap().unwrap().version, 2);
    }

    #[tokio::test]
    async fn a_damaged_value_is_a_fault() {
        let store = Store::memory();
        store.set_state(NAME.to_owned(), 0, "soon".to_owned(), NOW, Effects::default()).await.unwrap();
        let highest = Highest::default();
        assert!(matches!(highest.load(&store).await, Err(StoreError::Fault { .. })));
        assert!(!highest.is_loaded());
    }
}
