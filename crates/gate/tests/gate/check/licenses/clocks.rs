//! Clocks that are set back, leap ahead, or were ahead for a while; over restarts and two servers.

use doorward_core::reason::Reason;
use doorward_gate::{
    clock::Clock,
    license::{Applied, FileListener, FileProvider, RefreshError, ResetTime, highest_time, reset_highest_time},
};
use doorward_store::LicenseEventMark;
use doorward_testkit::paper::{Account, Paper};

use super::*;
use crate::local_license::expected;

const MINUTE: Duration = Duration::from_secs(60);
const YEAR: Duration = Duration::from_hours(365 * 24);

fn rules() -> Vec<Rule> {
    vec![licensed(LicenseMode::ActiveOrGraceRead)]
}

/// Another server over the store of `world`, with a clock of its own that says the same.
async fn second(world: &World) -> House {
    let house = House::on(world.house.store.clone(), Clock::manual(world.house.clock.now().wall), rules());
    house.gate.use_licenses(Some(parts(&world.vendor)));
    house.gate.follow().await;
    house
}

/// Ends the process in order, so that it writes its time down, and begins another one at `wall`.
async fn restart(world: &mut World, wall: Timestamp) {
    let task = world.house.task.take().unwrap();
    world.house.gate.run(task, async {}).await;
    world.house = House::on(world.house.store.clone(), Clock::manual(wall), rules());
    world.house.gate.use_licenses(Some(parts(&world.vendor)));
    world.house.gate.follow().await;
}

/// As the background task does, without ending the process.
async fn write_down(house: &mut House) {
    let task = house.task.take().unwrap();
    house.gate.run(task, async {}).await;
}

#[tokio::test]
async fn whoever_sets_the_clock_back_and_cuts_the_provider_off_gains_no_time() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    world.vendor.fail(FaultKind::Unavailable);
    world.house.clock.set_wall(START.minus(YEAR));
    let unknown = Err(Reason::LicenseUnknown);
    for (hours, verdicts) in [(23, (Ok(()), Ok(()))), (24, (Ok(()), unknown)), (8 * 24, (unknown, unknown))] {
        let passed = world.house.clock.now().mono;
        world.advance(Duration::from_hours(hours).saturating_sub(passed)).await;
        let found = (world.house.ask(&ada.get()).await, world.house.ask(&ada.post()).await);
        assert_eq!(found, verdicts, "after {hours} hours");
        settle(&world.house.gate).await;
    }
}

#[tokio::test]
async fn a_license_ends_also_while_the_clock_is_set_back_again_and_again() {
    let mut world = World::new().await;
    let ada = world.person("ada@example.com").await;
    world.vendor.book(ada.holder, Book::of(LicenseState::Active).until(START.plus(DAY)));
    for hours in 0..24 {
        assert_eq!(world.house.ask(&ada.post()).await, Ok(()), "after {hours} hours");
        world.advance(Duration::from_hours(1)).await;
        world.house.clock.set_wall(START.minus(YEAR));
        if hours % 5 == 0 {
            restart(&mut world, START.minus(YEAR)).await;
        }
    }
    // It gives way to the clock by milliseconds.
    world.advance(Duration::from_secs(1)).await;
    assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseExpiredGrace));
    world.advance(POLICY.grace).await;
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseExpired));
}

#[tokio::test]
async fn a_restart_with_the_clock_set_back_makes_no_old_word_young() {
    let mut world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    world.vendor.fail(FaultKind::Unavailable);
    world.advance(DAY - MINUTE).await;
    restart(&mut world, START.minus(YEAR)).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    world.advance(MINUTE + Duration::from_secs(1)).await;
    assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseUnknown));
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
}

#[tokio::test]
async fn a_server_that_did_not_run_for_days_knows_that_it_did_not() {
    let mut world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    world.vendor.fail(FaultKind::Unavailable);
    let started = START.plus(DAY * 3);
    restart(&mut world, started).await;
    assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseUnknown));
    // Killed and started over and over, so that it never believes its clock: that makes nothing younger.
    for _ in 0..3 {
        world.house = second(&world).await;
        world.house.clock.set_wall(started);
        assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseUnknown));
    }
    // An answer of its own counts at once, and goes on to when the clock is believed and the provider away again.
    world.vendor.work();
    world.advance(MINUTE * 2).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    let asked = world.vendor.asked();
    for _ in 0..4 {
        world.advance(MINUTE).await;
        assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    }
    settle(&world.house.gate).await;
    assert!(world.vendor.asked() <= asked + 1, "it is asked no more often than ever");
    world.vendor.fail(FaultKind::Unavailable);
    for _ in 0..30 {
        world.advance(MINUTE).await;
        assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
        settle(&world.house.gate).await;
    }
    let time = world.licenses().time();
    assert_eq!(time.steady, time.wall, "and believed");
}

#[tokio::test]
async fn a_clock_that_is_wrong_for_a_moment_costs_that_moment_and_no_other_server() {
    let mut world = World::new().await;
    let (ada, bob) = (world.person("ada@example.com").await, world.person("bob@example.com").await);
    world.vendor.book(ada.holder, Book::of(LicenseState::Active).until(START.plus(DAY * 30)));
    world.vendor.book(bob.holder, Book::of(LicenseState::Active));
    let mut other = second(&world).await;
    for house in [&world.house, &other] {
        assert_eq!((house.ask(&ada.post()).await, house.ask(&bob.post()).await), (Ok(()), Ok(())));
    }
    // Nobody can be asked, so whatever gets old stays old.
    world.vendor.fail(FaultKind::Unavailable);
    world.house.clock.set_wall(START.plus(YEAR));
    assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseExpired), "it ends by the clock at once");
    assert_eq!(world.house.ask(&bob.post()).await, Ok(()), "it was confirmed a moment ago, whatever the clock says");
    assert!(world.licenses().status().time.leap().is_some_and(|leap| leap == YEAR));
    settle(&world.house.gate).await;
    write_down(&mut world.house).await;
    world.house.clock.set_wall(START);
    write_down(&mut other).await;
    for house in [&world.house, &other] {
        assert_eq!((house.ask(&ada.post()).await, house.ask(&bob.post()).await), (Ok(()), Ok(())));
    }
    assert_eq!(highest_time(&world.house.store).await.unwrap(), Some(START));
}

#[tokio::test]
async fn what_was_said_while_a_clock_leapt_is_trusted_no_longer_for_it() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    world.house.clock.set_wall(START.plus(YEAR));
    world.advance(TTL).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    settle(&world.house.gate).await;
    world.house.clock.set_wall(START.plus(TTL));
    let replica = second(&world).await;
    world.vendor.fail(FaultKind::Unavailable);
    for house in [&world.house, &replica] {
        house.clock.advance(DAY);
        house.gate.follow().await;
        assert_eq!(house.ask(&ada.post()).await, Err(Reason::LicenseUnknown));
    }
}

#[tokio::test]
async fn a_license_that_ended_while_nothing_ran_is_read_for_its_whole_grace() {
    let mut world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    restart(&mut world, START.plus(DAY * 10)).await;
    // The provider knows no time of its own, and answers by the clock.
    world.vendor.book(ada.holder, Book::of(LicenseState::Expired).until(START.plus(DAY * 9)));
    for days in [10, 11, 15] {
        let passed = DAY * days - DAY * 10;
        let mono = world.house.clock.now().mono;
        world.advance(passed.saturating_sub(mono)).await;
        let found = (world.house.ask(&ada.get()).await, world.house.ask(&ada.post()).await);
        assert_eq!(found, (Ok(()), Err(Reason::LicenseExpiredGrace)), "day {days}");
        settle(&world.house.gate).await;
    }
    world.advance(DAY).await;
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseExpired));
}

#[tokio::test]
async fn a_license_that_is_over_only_by_a_clock_that_leaps_is_written_down_for_nobody() {
    let world = World::new().await;
    let ada = world.person("ada@example.com").await;
    let end = START.plus(DAY * 10);
    world.vendor.book(ada.holder, Book::of(LicenseState::Active).until(end));
    let replica = second(&world).await;
    for house in [&world.house, &replica] {
        assert_eq!(house.ask(&ada.post()).await, Ok(()));
    }
    // Told by its own clock, as where a token has ended.
    world.house.clock.set_wall(START.plus(DAY * 30));
    world.vendor.book(ada.holder, Book::of(LicenseState::Expired).until(end));
    let failed = world.licenses().refresh(ada.holder).await;
    assert!(
        matches!(failed, Err(RefreshError::Provider(ref fault)) if fault.kind == FaultKind::Untrusted),
        "{failed:?}"
    );
    world.house.clock.set_wall(START);
    for house in [&world.house, &replica] {
        house.gate.follow().await;
        assert_eq!(house.ask(&ada.post()).await, Ok(()));
    }
    // Once the clock is believed, so is what follows from it.
    world.house.clock.set_wall(START.plus(DAY * 30));
    for _ in 0..11 {
        assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseExpired));
        world.advance(MINUTE).await;
    }
    world.licenses().refresh(ada.holder).await.unwrap();
    let row = world.house.store.license(ada.holder).await.unwrap().unwrap();
    assert_eq!(row.known.observation.state, LicenseState::Expired);
}

#[tokio::test]
async fn a_process_that_begins_while_the_clock_is_behind_asks_at_once() {
    let mut world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    for _ in 0..3 {
        restart(&mut world, START.minus(YEAR)).await;
        let asked = world.vendor.asked();
        for _ in 0..5 {
            assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
        }
        assert_eq!(world.vendor.asked(), asked + 1, "and once");
    }
}

#[tokio::test(start_paused = true)]
async fn news_that_the_older_answer_of_another_server_outruns_is_asked_for_once_more() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    let other = second(&world).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    world.vendor.take(Duration::from_secs(1));
    let (licenses, holder) = (world.licenses(), ada.holder);
    let news = tokio::spawn(async move { licenses.refresh(holder).await });
    while world.vendor.0.under_way.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    world.vendor.take(Duration::ZERO);
    other.gate.licenses().unwrap().refresh(holder).await.unwrap();
    world.vendor.book(ada.holder, Book::of(LicenseState::Suspended));
    let applied = news.await.unwrap().unwrap();
    assert!(matches!(applied, Applied::Changed { new: LicenseState::Suspended, .. }), "{applied:?}");
    assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseSuspended));
}

/// A world whose clock was an hour ahead for long enough to be believed, and was set right; the person has no license,
/// as was said meanwhile.
async fn misled() -> (World, Person) {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::None).await;
    assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseNone));
    let hour = Duration::from_secs(3600);
    world.house.clock.set_wall(START.plus(hour));
    for _ in 0..30 {
        world.advance(MINUTE).await;
        assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseNone));
    }
    world.house.clock.set_wall(world.house.clock.now().wall.minus(hour));
    assert_eq!(world.licenses().time().lead(), hour);
    (world, ada)
}

#[tokio::test]
async fn webhooks_count_while_the_highest_time_is_ahead_also_where_nobody_can_be_asked() {
    let (world, ada) = misled().await;
    world.vendor.fail(FaultKind::Unavailable);
    let tell = async |state, id: &str| {
        let said = Book::of(state).said_at(world.house.clock.now().wall);
        let mark = LicenseEventMark { id: Some(id.to_owned()), seq: None };
        world.licenses().observe(ada.holder, said, Some(mark)).await.unwrap()
    };
    world.advance(MINUTE).await;
    assert!(matches!(tell(LicenseState::Active, "1").await, Applied::Changed { .. }));
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    // An answer is as much ahead as our time is; the next webhook counts all the same.
    world.vendor.work();
    world.vendor.book(ada.holder, Book::of(LicenseState::Active));
    world.licenses().refresh(ada.holder).await.unwrap();
    world.advance(MINUTE).await;
    world.vendor.book(ada.holder, Book::of(LicenseState::Suspended));
    assert!(matches!(tell(LicenseState::Suspended, "2").await, Applied::Changed { .. }));
    assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseSuspended));
    let late = Book::of(LicenseState::Active).said_at(world.house.clock.now().wall.minus(MINUTE));
    assert_eq!(world.licenses().observe(ada.holder, late, None).await.unwrap(), Applied::Older);
}

#[tokio::test]
async fn answers_count_while_the_clock_is_behind_and_while_the_highest_time_is_ahead() {
    let (world, ada) = misled().await;
    for lag in [Duration::ZERO, DAY, YEAR] {
        world.house.clock.set_wall(world.house.clock.now().wall.minus(lag));
        for (state, verdict) in [
            (LicenseState::Active, Ok(())),
            (LicenseState::Suspended, Err(Reason::LicenseSuspended)),
            (LicenseState::None, Err(Reason::LicenseNone)),
        ] {
            world.vendor.book(ada.holder, Book::of(state));
            world.advance(TTL).await;
            assert_eq!(world.house.ask(&ada.post()).await, verdict, "{lag:?}");
        }
    }
}

#[tokio::test]
async fn an_operator_begins_the_highest_time_anew_in_every_server() {
    let (mut world, ada) = misled().await;
    write_down(&mut world.house).await;
    let hour = Duration::from_secs(3600);
    let now = world.house.clock.now().wall;
    world.vendor.book(ada.holder, Book::of(LicenseState::Active).until(now.plus(MINUTE * 30)));
    let other = second(&world).await;
    for house in [&world.house, &other] {
        house.clock.advance(MINUTE);
        house.gate.follow().await;
        assert_eq!(house.ask(&ada.post()).await, Err(Reason::LicenseExpiredGrace), "by the hour too much");
    }
    let now = now.plus(MINUTE);
    let was = highest_time(&world.house.store).await.unwrap().unwrap();
    assert!(was > now.plus(hour - MINUTE * 10));
    assert_eq!(reset_highest_time(&world.house.store, now).await.unwrap(), ResetTime::Reset(was));
    for house in [&world.house, &other] {
        // What was confirmed in a time that is far from come was so nobody knows when: the vendor is asked, at once.
        house.gate.follow().await;
        assert_eq!(house.ask(&ada.post()).await, Ok(()));
        assert!(!house.gate.licenses().unwrap().time().is_behind());
    }
    // Webhooks signed by the right time count again.
    let at = other.clock.now().wall.plus(MINUTE);
    let suspended = Book::of(LicenseState::Suspended).said_at(at);
    let applied = world.licenses().observe(ada.holder, suspended, None).await.unwrap();
    assert!(matches!(applied, Applied::Changed { .. }), "{applied:?}");
}

#[tokio::test]
async fn after_a_reset_a_word_from_a_time_that_is_far_from_come_is_no_word_while_nobody_can_be_asked() {
    let (mut world, ada) = misled().await;
    world.vendor.book(ada.holder, Book::of(LicenseState::Active));
    world.advance(TTL).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    write_down(&mut world.house).await;
    world.vendor.fail(FaultKind::Unavailable);
    let now = world.house.clock.now().wall;
    reset_highest_time(&world.house.store, now).await.unwrap();
    world.house.gate.follow().await;
    assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseUnknown));
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseUnknown));
}

#[tokio::test]
async fn a_license_file_ends_also_while_the_clock_is_set_back_every_day() {
    let (account, folder) = (Account::generate(), tempfile::tempdir().unwrap());
    let path = folder.path().join("license.lic");
    let (issued, ends) = (START.minus(DAY), START.plus(DAY * 2));
    let paper = Paper { file_ends: Some(ends.as_millis()), ..Paper::new("l1", issued.as_millis()) };
    std::fs::write(&path, account.file(&paper)).unwrap();
    let file = FileProvider::new(path, expected(&account), FileListener::new(drop));
    let world = World::new().await;
    let ada = world.person("ada@example.com").await;
    world.house.gate.use_licenses(Some(LicenseParts { provider: Arc::new(file), ..parts(&world.vendor) }));
    let unknown = Err(Reason::LicenseUnknown);
    // The file says so for two days; what it said last is trusted for a day, and reads for a week.
    for (day, verdicts) in
        [(1, (Ok(()), Ok(()))), (2, (Ok(()), Ok(()))), (4, (Ok(()), unknown)), (11, (unknown, unknown))]
    {
        while world.house.clock.now().mono < DAY * day - MINUTE {
            let mono = world.house.clock.now().mono;
            world.advance((DAY * day - MINUTE - mono).min(Duration::from_hours(1))).await;
            world.house.clock.set_wall(START.plus(MINUTE));
            let _ = world.house.ask(&ada.post()).await;
            settle(&world.house.gate).await;
        }
        let found = (world.house.ask(&ada.get()).await, world.house.ask(&ada.post()).await);
        assert_eq!(found, verdicts, "day {day}");
    }
}
