//! The time by which licenses are judged: the highest that was ever believed, running on with the monotonic clock.
//!
//! A clock that is set back brings no license back and stops nothing from growing old. One that leaps ahead without so
//! much time having passed counts for the ends of licenses at once, in this process; it is believed, kept in the store
//! and so shared, once it has stood for [`STANDS`]. Neither a restart nor another machine over the same store forgets
//! what was kept; only an operator's [`reset_highest_time`] does.
//!
//! Where it is ahead of the clock, it gives way by [`GIVES_WAY`]: a machine whose clock runs fast and is set back every
//! day would else be ahead by more every day.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use doorward_core::{
    audit::{AuditEvent, EventKind},
    effects::Effects,
    license::LicenseTime,
    revocation::{NewRevocation, Scope},
    time::{Now, Timestamp},
};
use doorward_store::{SetState, State, Store, StoreError};

/// Name of the shared value.
const NAME: &str = "license.highest_time";
/// It is written once it is ahead of the stored one by so much; the most that a restart forgets.
const STEP: Duration = Duration::from_secs(300);
/// How often a write is tried that others outran.
const TRIES: usize = 4;
/// How long a clock must stand by a leap until it is believed.
const STANDS: Duration = Duration::from_secs(600);
/// By which part of the time that passes it comes nearer to a clock that is behind: more than clocks run wrong, and
/// nothing to whoever sets one back: 43 s a day.
const GIVES_WAY: u32 = 2000;
/// How much time that counts for, between two looks.
const LOOKS: Duration = Duration::from_secs(60);
/// How long a reset stays in the revocation log; a process that was cut off for longer reads the value anyway.
const SPREADS_FOR: Duration = Duration::from_hours(24);

/// See the module. What is read for every request takes no lock.
#[derive(Debug)]
pub(crate) struct Highest {
    /// The steady time minus the monotonic one, in milliseconds.
    offset: AtomicI64,
    is_loaded: AtomicBool,
    /// Whether `watch` has a leap to look at.
    leaps: AtomicBool,
    /// Whether somebody was told that the clock is behind.
    is_told: AtomicBool,
    watch: Mutex<Watch>,
}

#[derive(Debug, Default)]
struct Watch {
    leap: Option<Leap>,
    stored: Option<Stored>,
    /// When it last gave way, by the monotonic clock.
    gave_way: Option<Duration>,
}

/// A clock that is ahead of what time has passed.
#[derive(Clone, Copy, Debug)]
struct Leap {
    /// Since when, by the monotonic clock.
    since: Duration,
    /// The least that it was ahead since, as an offset.
    least: i64,
    /// Whether it was ahead when the process began: then that is how long nothing ran, as far as anybody knows.
    is_of_start: bool,
}

/// The shared value: `milliseconds`, and after a reset `milliseconds resets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stored {
    millis: i64,
    /// How often an operator has begun it anew: what was believed before that counts no more.
    resets: u64,
}

impl Stored {
    fn parse(state: &State) -> Result<Self, StoreError> {
        let mut words = state.value.split(' ');
        let millis = words.next().and_then(|word| word.parse().ok());
        let resets = words.next().map_or(Some(0), |word| word.parse().ok());
        match (millis, resets, words.next()) {
            (Some(millis), Some(resets), None) => Ok(Self { millis, resets }),
            _ => Err(StoreError::Fault { op: "state", note: format!("{NAME} is damaged: {:?}", state.value) }),
        }
    }

    fn text(self) -> String {
        match self.resets {
            0 => self.millis.to_string(),
            resets => format!("{} {resets}", self.millis),
        }
    }
}

impl Default for Highest {
    fn default() -> Self {
        Self {
            offset: AtomicI64::new(i64::MIN),
            is_loaded: AtomicBool::new(false),
            leaps: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
            watch: Mutex::default(),
        }
    }
}

impl Highest {
    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the time, and says by which licenses are judged. Before the stored one was read it is the clock's.
    pub(crate) fn see(&self, now: Now) -> LicenseTime {
        if !self.is_loaded() {
            return LicenseTime::at(now.wall);
        }
        let (mono, seen) = (millis(now.mono), offset(now));
        let known = self.offset.load(Ordering::Relaxed);
        let time =
            |offset: i64| LicenseTime { wall: now.wall, steady: Timestamp::from_millis(offset.saturating_add(mono)) };
        if time(known).leap().is_some() {
            return time(self.leap(now.mono, seen));
        }
        if self.leaps.load(Ordering::Relaxed) {
            self.leaps.store(false, Ordering::Relaxed);
            self.watch().leap = None;
        }
        if seen > known {
            self.offset.fetch_max(seen, Ordering::Relaxed);
        }
        time(known.max(seen))
    }

    /// Looks at a clock that has leapt to the offset `seen`; gives back the offset that is believed.
    fn leap(&self, mono: Duration, seen: i64) -> i64 {
        let mut watch = self.watch();
        let known = self.offset.load(Ordering::Relaxed);
        let Some(leap) = &mut watch.leap else {
            watch.leap = Some(Leap { since: mono, least: seen, is_of_start: false });
            self.leaps.store(true, Ordering::Relaxed);
            let seconds = seen.saturating_sub(known) / 1000;
            tracing::warn!(
                seconds,
                "the clock has leapt ahead; ends of licenses count by it at once, and for good if it stays"
            );
            return known;
        };
        leap.least = leap.least.min(seen);
        if mono.saturating_sub(leap.since) < STANDS {
            return known;
        }
        let believed = leap.least.max(known);
        watch.leap = None;
        self.leaps.store(false, Ordering::Relaxed);
        self.offset.fetch_max(believed, Ordering::Relaxed);
        let seconds = believed.saturating_sub(known) / 1000;
        tracing::info!(seconds, "the clock has stood where it leapt to; licenses are judged by it from now on");
        believed
    }

    /// Whether the clock is ahead since it leapt, not since the process began.
    pub(crate) fn leaps(&self) -> bool {
        self.watch().leap.is_some_and(|leap| !leap.is_of_start)
    }

    /// Whether the stored one was read.
    pub(crate) fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Acquire)
    }

    /// Reads the stored one, once.
    pub(crate) async fn load(&self, store: &Store, clock: impl Fn() -> Now + Send + Sync) -> Result<(), StoreError> {
        if self.is_loaded() {
            return Ok(());
        }
        self.read(store, clock).await.map(drop)
    }

    /// Reads the stored one. `clock` is asked when the answer is there: were the process frozen while it waits, a time from
    /// before would be taken for that of the answer, and the highest time be ahead by the whole while.
    ///
    /// # Errors
    /// [`StoreError`]; a value that cannot be read is a damaged row, not "nothing seen yet".
    pub(crate) async fn read(
        &self,
        store: &Store,
        clock: impl Fn() -> Now + Send + Sync,
    ) -> Result<Option<State>, StoreError> {
        let found = store.state(NAME.to_owned()).await?;
        let stored = found.as_ref().map(Stored::parse).transpose()?;
        self.take(stored, clock());
        Ok(found)
    }

    fn take(&self, stored: Option<Stored>, now: Now) {
        let mut watch = self.watch();
        let resets = watch.stored.map_or(0, |known| known.resets);
        if let Some(new) = stored {
            let offset = new.millis.saturating_sub(millis(now.mono));
            if new.resets > resets && self.is_loaded() {
                // What was believed until now is no longer.
                self.offset.store(offset, Ordering::Relaxed);
                watch.leap = None;
                self.leaps.store(false, Ordering::Relaxed);
            } else if new.resets >= resets {
                self.offset.fetch_max(offset, Ordering::Relaxed);
            }
        }
        let is_older = stored.zip(watch.stored).is_some_and(|(new, known)| new.resets < known.resets);
        if !is_older {
            watch.stored = stored;
        }
        if self.is_loaded() {
            return;
        }
        match stored {
            // The first look ever.
            None => {
                self.offset.fetch_max(offset(now), Ordering::Relaxed);
            }
            // Hardly more than what is written down lags behind: a restart.
            Some(_) if offset(now).saturating_sub(self.offset.load(Ordering::Relaxed)) <= millis(STANDS) => {
                self.offset.fetch_max(offset(now), Ordering::Relaxed);
            }
            // However long nothing ran: that is no clock that leaps, and nothing to be told.
            Some(_) => {
                watch.leap = Some(Leap { since: now.mono, least: offset(now), is_of_start: true });
                self.leaps.store(true, Ordering::Relaxed);
            }
        }
        self.is_loaded.store(true, Ordering::Release);
    }

    /// Takes over what others kept, and writes its own down if it is time. `always`: however little it moved, for the
    /// end of the process.
    pub(crate) async fn keep(
        &self,
        store: &Store,
        clock: impl Fn() -> Now + Send + Sync,
        always: bool,
    ) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let found = self.read(store, &clock).await?;
            let now = clock();
            self.give_way(now);
            let time = self.see(now);
            self.tell(&time);
            // While the clock is behind, nothing else tells a restart what time it is.
            let step = if always || time.is_behind() { Duration::from_millis(1) } else { STEP };
            let stored = self.watch().stored;
            let (millis, resets) = stored.map_or((i64::MIN, 0), |stored| (stored.millis, stored.resets));
            if time.steady < Timestamp::from_millis(millis).plus(step) {
                return Ok(());
            }
            let new = Stored { millis: time.steady.as_millis(), resets };
            let version = found.map_or(0, |state| state.version);
            match store.set_state(NAME.to_owned(), version, new.text(), time.steady, Effects::default()).await? {
                SetState::Set => {
                    self.watch().stored = Some(new);
                    return Ok(());
                }
                SetState::Changed => {}
            }
        }
        Ok(())
    }

    /// Comes a little nearer to a clock that is behind.
    fn give_way(&self, now: Now) {
        let lead = self.see(now).lead();
        let mut watch = self.watch();
        let since = watch.gave_way.replace(now.mono).unwrap_or(now.mono);
        let passed = now.mono.saturating_sub(since).min(LOOKS);
        self.offset.fetch_sub(millis(lead.min(passed / GIVES_WAY)), Ordering::Relaxed);
    }

    /// Says once that the clock is behind, and once that it no longer is.
    fn tell(&self, time: &LicenseTime) {
        if self.is_told.swap(time.is_behind(), Ordering::Relaxed) == time.is_behind() {
            return;
        }
        let seconds = time.lead().as_secs();
        if time.is_behind() {
            tracing::warn!(
                seconds,
                "the clock is behind the highest time ever seen, by which licenses are judged; set the clock, or see \
                 `doorward license clock`"
            );
        } else {
            tracing::info!("the clock is no longer behind the time by which licenses are judged");
        }
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn offset(now: Now) -> i64 {
    now.wall.as_millis().saturating_sub(millis(now.mono))
}

/// The highest time that was kept in `store`; `None` where no server has judged licenses over it.
///
/// # Errors
/// [`StoreError`].
pub async fn highest_time(store: &Store) -> Result<Option<Timestamp>, StoreError> {
    let found = store.state(NAME.to_owned()).await?;
    Ok(found.as_ref().map(Stored::parse).transpose()?.map(|stored| Timestamp::from_millis(stored.millis)))
}

/// Outcome of [`reset_highest_time`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetTime {
    /// It is `now`; it was this.
    Reset(Timestamp),
    /// It is not ahead of `now`, so there is nothing to reset.
    NotAhead,
    /// Others wrote it all the while; nothing was changed.
    Busy,
}

/// Begins the highest time anew at `now`, with an audit row; running servers follow the revocation log and take it
/// over within a second. One whose clock is still ahead will lead it astray again.
///
/// # Errors
/// [`StoreError`].
pub async fn reset_highest_time(store: &Store, now: Timestamp) -> Result<ResetTime, StoreError> {
    for _ in 0..TRIES {
        let Some(found) = store.state(NAME.to_owned()).await? else { return Ok(ResetTime::NotAhead) };
        let stored = Stored::parse(&found)?;
        let was = Timestamp::from_millis(stored.millis);
        if was <= now {
            return Ok(ResetTime::NotAhead);
        }
        let new = Stored { millis: now.as_millis(), resets: stored.resets.saturating_add(1) };
        let mut event = AuditEvent::new(EventKind::LicenseClockReset, now);
        event.detail.more.insert("from".to_owned(), was.as_secs().into());
        event.detail.more.insert("to".to_owned(), now.as_secs().into());
        let entry = NewRevocation {
            scope: Scope::LicenseTime,
            at: now,
            until: Some(now.plus(SPREADS_FOR)),
            why: "license_clock".to_owned(),
        };
        let effects = Effects::audited(event).with_revocation(entry);
        if store.set_state(NAME.to_owned(), found.version, new.text(), now, effects).await? == SetState::Set {
            return Ok(ResetTime::Reset(was));
        }
    }
    Ok(ResetTime::Busy)
}

#[cfg(test)]
mod tests;
