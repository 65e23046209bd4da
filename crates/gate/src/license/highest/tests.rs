use doorward_store::Store;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_hours(24);

/// A process over `store`, and its clocks.
struct Process {
    highest: Highest,
    store: Store,
    now: Now,
}

impl Process {
    async fn start(store: &Store, wall: Timestamp) -> Self {
        let process = Self { highest: Highest::default(), store: store.clone(), now: Now { wall, mono: MINUTE } };
        process.highest.load(store, || process.now).await.unwrap();
        process
    }

    fn pass(&mut self, span: Duration) {
        self.now.wall = self.now.wall.plus(span);
        self.now.mono += span;
    }

    fn see(&self) -> LicenseTime {
        self.highest.see(self.now)
    }

    async fn keep(&self) {
        self.highest.keep(&self.store, || self.now, false).await.unwrap();
    }

    /// As the background task does it: a minute passes, and what is to be kept is.
    async fn minutes(&mut self, minutes: u32) {
        for _ in 0..minutes {
            self.pass(MINUTE);
            self.keep().await;
        }
    }
}

/// Whether `found` is `wanted`, but for what gave way to a clock that is behind.
fn is_about(found: Timestamp, wanted: Timestamp) -> bool {
    found <= wanted && wanted.since(found) < Duration::from_secs(2)
}

async fn stored(store: &Store) -> Timestamp {
    highest_time(store).await.unwrap().unwrap()
}

#[tokio::test]
async fn the_highest_time_outlives_the_process_and_runs_on_while_the_clock_is_set_back() {
    let store = Store::memory();
    let mut first = Process::start(&store, NOW).await;
    assert_eq!(first.see(), LicenseTime::at(NOW));
    first.now.wall = NOW.minus(DAY);
    assert_eq!(first.see(), LicenseTime { wall: NOW.minus(DAY), steady: NOW });
    first.minutes(30).await;
    assert!(is_about(first.see().steady, NOW.plus(MINUTE * 30)));
    assert_eq!(stored(&store).await, first.see().steady, "a restart would not forget more than a minute");
    let mut second = Process::start(&store, NOW.minus(DAY)).await;
    assert_eq!(second.see().steady, first.see().steady);
    second.minutes(10).await;
    // Whoever lags behind takes nothing back, and takes over what others know.
    first.keep().await;
    assert_eq!(first.see().steady, second.see().steady);
    assert!(is_about(stored(&store).await, NOW.plus(MINUTE * 40)));
}

#[tokio::test]
async fn a_clock_that_runs_fast_and_is_set_back_every_day_does_not_lead_further_ahead_every_day() {
    let store = Store::memory();
    let mut process = Process::start(&store, NOW).await;
    for _ in 0..30 {
        process.minutes(24 * 60).await;
        process.now.wall = process.now.wall.minus(Duration::from_secs(9));
    }
    assert!(process.see().lead() <= Duration::from_secs(9), "{:?}", process.see().lead());
}

#[tokio::test]
async fn small_steps_are_not_written_each() {
    let store = Store::memory();
    let version = async || store.state(NAME.to_owned()).await.unwrap().unwrap().version;
    let mut process = Process::start(&store, NOW).await;
    process.keep().await;
    process.pass(STEP - Duration::from_millis(1));
    process.keep().await;
    assert_eq!(version().await, 1);
    process.pass(Duration::from_millis(1));
    process.keep().await;
    assert_eq!(version().await, 2);
}

#[tokio::test]
async fn a_clock_that_leaps_for_a_moment_is_neither_believed_nor_shared() {
    let store = Store::memory();
    let mut process = Process::start(&store, NOW).await;
    for moment in [Duration::ZERO, MINUTE, MINUTE * 9] {
        let right = process.now;
        process.now.wall = right.wall.plus(DAY * 365);
        let time = process.see();
        assert_eq!((time.latest(), time.steady), (process.now.wall, right.wall), "licenses end by it at once");
        process.pass(moment);
        process.keep().await;
        process.now.wall = process.now.wall.minus(DAY * 365);
        assert_eq!(process.see(), LicenseTime::at(process.now.wall));
        process.keep().await;
        assert!(stored(&store).await <= process.now.wall);
        process.pass(MINUTE);
    }
}

#[tokio::test]
async fn a_clock_that_stands_where_it_leapt_to_is_believed_by_the_least_of_it() {
    let store = Store::memory();
    let mut process = Process::start(&store, NOW).await;
    process.now.wall = NOW.plus(DAY);
    process.see();
    process.pass(MINUTE * 5);
    // Further still: that part has not stood for long enough.
    process.now.wall = process.now.wall.plus(DAY);
    process.minutes(4).await;
    assert_eq!(process.see().steady, NOW.plus(MINUTE * 9));
    process.minutes(1).await;
    assert_eq!(process.see().steady, NOW.plus(DAY + MINUTE * 10));
    process.minutes(10).await;
    assert_eq!(process.see(), LicenseTime::at(process.now.wall));
    assert_eq!(stored(&store).await, process.now.wall);
}

#[tokio::test]
async fn after_a_while_in_which_nothing_ran_the_clock_counts_at_once_and_is_kept_after_ten_minutes() {
    let store = Store::memory();
    Process::start(&store, NOW).await.keep().await;
    let mut next = Process::start(&store, NOW.plus(DAY * 3)).await;
    assert_eq!((next.see().latest(), next.see().steady), (NOW.plus(DAY * 3), NOW));
    next.minutes(9).await;
    assert_eq!(stored(&store).await, NOW.plus(MINUTE * 5));
    next.minutes(1).await;
    assert_eq!(stored(&store).await, next.now.wall);
}

#[tokio::test]
async fn a_restart_believes_its_clock_at_once_where_it_is_hardly_ahead_of_what_was_written_down() {
    let store = Store::memory();
    Process::start(&store, NOW).await.keep().await;
    for (after, is_believed) in [(MINUTE * 10, true), (MINUTE * 10 + Duration::from_millis(1), false)] {
        let next = Process::start(&store, NOW.plus(after)).await;
        let expected = if is_believed { next.now.wall } else { NOW };
        assert_eq!(next.see().steady, expected, "{after:?}");
    }
}

#[tokio::test]
async fn a_reset_reaches_whoever_believed_in_another_time_and_is_not_overwritten() {
    let store = Store::memory();
    let (mut ahead, mut other) = (Process::start(&store, NOW).await, Process::start(&store, NOW).await);
    ahead.now.wall = NOW.plus(DAY);
    for _ in 0..15 {
        ahead.minutes(1).await;
        other.minutes(1).await;
    }
    assert!(is_about(other.see().steady, other.now.wall.plus(DAY)), "one server with a wrong clock takes all with it");
    ahead.now.wall = other.now.wall;
    let was = stored(&store).await;
    assert_eq!(reset_highest_time(&store, other.now.wall).await.unwrap(), ResetTime::Reset(was));
    for _ in 0..10 {
        for process in [&mut ahead, &mut other] {
            process.minutes(1).await;
            assert_eq!(process.see(), LicenseTime::at(process.now.wall));
        }
    }
    assert!(stored(&store).await <= other.now.wall);
    assert_eq!(reset_highest_time(&store, other.now.wall).await.unwrap(), ResetTime::NotAhead);
    let third = Process::start(&store, other.now.wall).await;
    assert!(!third.see().is_behind());
    let rows = store.audit_tail(0, 10).await.unwrap();
    let kinds: Vec<&str> = rows.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(kinds, ["license.clock_reset"]);
    let log = store.revocations_after(0, 10).await.unwrap();
    assert_eq!(log.into_iter().map(|entry| entry.entry.scope).collect::<Vec<_>>(), [Scope::LicenseTime]);
}

#[tokio::test]
async fn a_damaged_value_is_a_fault() {
    for value in ["soon", "1 2 3", "", "12 x"] {
        let store = Store::memory();
        store.set_state(NAME.to_owned(), 0, value.to_owned(), NOW, Effects::default()).await.unwrap();
        let highest = Highest::default();
        let loaded = highest.load(&store, || Now { wall: NOW, mono: MINUTE }).await;
        assert!(matches!(loaded, Err(StoreError::Fault { .. })), "{value:?}");
        assert!(!highest.is_loaded());
        assert!(reset_highest_time(&store, NOW).await.is_err(), "{value:?}");
    }
}

#[tokio::test]
async fn the_clock_is_asked_only_when_the_store_has_answered() {
    // A process may be frozen while it waits for the store: what it would have asked before is of another time.
    let store = Store::memory();
    store.set_state(NAME.to_owned(), 0, "soon".to_owned(), NOW, Effects::default()).await.unwrap();
    let clock = || -> Now { panic!("there is no answer that it could be the time of") };
    let highest = Highest::default();
    assert!(highest.load(&store, clock).await.is_err());
    assert!(highest.read(&store, clock).await.is_err());
    assert!(highest.keep(&store, clock, true).await.is_err());
}
