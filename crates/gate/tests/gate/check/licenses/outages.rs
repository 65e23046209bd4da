//! A provider that is slow, down, not to be believed, or back again.

use doorward_core::{effects::Effects, reason::Reason};
use doorward_gate::{
    external::{Asked as Answer, BlockedSubjects},
    gate::Checked,
    license::{BreakerState, RefreshError},
};
use tokio::sync::watch;

use super::*;

/// The time of tokio's clock, which stands still in these tests until nothing else is to be done.
#[allow(clippy::disallowed_methods, reason = "a test looks at how long something waited")]
fn virtual_time() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_a_second_for_a_slow_provider_and_goes_on_with_what_is_known() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    world.advance(TTL).await;
    world.vendor.take(Duration::from_secs(4));
    let began = virtual_time();
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    let waited = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_millis(1100)).contains(&waited), "{waited:?}");
    // The question goes on without the request, and its answer counts.
    world.vendor.book(ada.holder, Book::of(LicenseState::Suspended));
    tokio::time::sleep(Duration::from_secs(4)).await;
    settle(&world.house.gate).await;
    assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseSuspended));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_takes_no_refusal_of_before_for_the_answer_that_came_meanwhile() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Expired).await;
    assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseExpired));
    world.advance(Duration::from_secs(60)).await;
    world.vendor.book(ada.holder, Book::of(LicenseState::Active));
    world.vendor.take(Duration::from_secs(4));
    let request = ada.post();
    let standstill = async {
        settled(|| world.vendor.asked() == 2).await;
        tokio::time::advance(Duration::from_millis(4500)).await;
    };
    let (verdict, ()) = tokio::join!(world.house.ask(&request), standstill);
    assert_eq!(verdict, Ok(()), "the vendor answered, and nobody was there to hear it");
}

/// Waits for something that comes without any time passing.
async fn settled(condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it does not come to pass");
}

/// A set in which nobody is, that answers when it may.
#[derive(Debug)]
struct Slow {
    may_answer: watch::Receiver<bool>,
    asked: Arc<AtomicUsize>,
}

impl BlockedSubjects for Slow {
    fn contains(&self, _: Arc<str>) -> Answer {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut may_answer = self.may_answer.clone();
        Box::pin(async move {
            let answered = may_answer.wait_for(|may| *may).await;
            answered.map(|_| false).map_err(|error| error.to_string())
        })
    }
}

#[tokio::test]
async fn a_license_that_was_looked_up_before_a_suspension_admits_nobody_once_the_log_was_waited_for() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    world.house.store.link_subject(ada.user.id, "kg-ada".to_owned(), Effects::default()).await.unwrap();
    let ((answer, may_answer), asked) = (watch::channel(false), Arc::new(AtomicUsize::new(0)));
    let set = Slow { may_answer, asked: Arc::clone(&asked) };
    world.house.gate.use_blocked_subjects(Some(Box::new(set)));
    let request = ada.post();
    let meanwhile = async {
        // The license was looked up, and the set is asked about its subject.
        settled(|| asked.load(Ordering::SeqCst) == 1).await;
        assert_eq!(world.vendor.asked(), 1);
        world.vendor.book(ada.holder, Book::of(LicenseState::Suspended));
        let house = &world.house;
        let other = House::on(house.store.clone(), house.clock.clone(), vec![licensed(LicenseMode::Active)]);
        other.gate.use_licenses(Some(parts(&world.vendor)));
        let suspended =
            Book::of(LicenseState::Suspended).said_at(house.clock.now().wall.plus(Duration::from_millis(1)));
        other.gate.licenses().unwrap().observe(ada.holder, suspended, None).await.unwrap();
        // The machine sleeps, and what was under way goes on before the log is read.
        house.clock.advance(Duration::from_secs(3600));
        answer.send_replace(true);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        house.gate.follow().await;
    };
    let (verdict, ()) = tokio::join!(world.house.ask(&request), meanwhile);
    assert_eq!(verdict, Err(Reason::LicenseSuspended));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_answers_is_given_up_after_five_seconds() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    world.vendor.take(Duration::from_secs(3600));
    let began = virtual_time();
    let refused = world.licenses().refresh(ada.holder).await.unwrap_err();
    assert!(matches!(&refused, RefreshError::Provider(fault) if fault.kind == FaultKind::Unavailable), "{refused}");
    assert_eq!(began.elapsed().as_secs(), 5);
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseUnknown), "nothing was ever known");
}

#[tokio::test]
async fn a_day_without_the_provider_costs_writing_a_week_more_costs_reading_and_never_402() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    world.vendor.fail(FaultKind::Unavailable);
    let step = Duration::from_secs(600);
    let (mut minutes, mut asked) = (0, world.vendor.asked());
    loop {
        world.advance(step).await;
        minutes += 10;
        let (read, write) = (world.house.ask(&ada.get()).await, world.house.ask(&ada.post()).await);
        settle(&world.house.gate).await;
        let days = minutes / (24 * 60);
        let unknown = Err(Reason::LicenseUnknown);
        let expected = match days {
            0 => (Ok(()), Ok(())),
            1..8 => (Ok(()), unknown),
            8 => (unknown, unknown),
            _ => break,
        };
        assert_eq!((read, write), expected, "after {minutes} minutes");
        // In ten minutes it is asked a handful of times, whatever comes.
        assert!(world.vendor.asked() - asked <= 2, "{}", world.vendor.asked() - asked);
        asked = world.vendor.asked();
    }
    let known = world.house.store.license(ada.holder).await.unwrap().unwrap().known;
    assert_eq!(
        (known.observation.state, known.confirmed_at),
        (LicenseState::Active, START),
        "no fault was written down"
    );
    // Back again: whoever is refused brings the news within the breaker's pause.
    world.vendor.work();
    world.advance(Duration::from_secs(75)).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    assert_eq!(world.licenses().status().breaker, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_provider_that_failed() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    world.advance(TTL).await;
    world.vendor.fail(FaultKind::Unavailable);
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    assert!(matches!(world.licenses().status().breaker, BreakerState::Open(_)));
    world.vendor.take(Duration::from_secs(4));
    let asked = world.vendor.asked();
    for _ in 0..100 {
        assert!(matches!(world.house.check(&ada.get()), Checked::Ready(_)));
    }
    assert_eq!(world.vendor.asked(), asked, "the breaker is open");
    world.advance(Duration::from_secs(30)).await;
    assert_eq!(world.licenses().status().breaker, BreakerState::Trial);
    for _ in 0..100 {
        assert!(matches!(world.house.check(&ada.get()), Checked::Ready(_)));
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.vendor.asked(), asked + 1, "one question tries");
}

#[tokio::test]
async fn an_answer_that_is_not_believed_changes_nothing_and_keeps_nobody_else_from_asking() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    let bob = world.person("bob@example.com").await;
    world.vendor.book(bob.holder, Book::of(LicenseState::Active));
    world.vendor.fail(FaultKind::Untrusted);
    world.advance(TTL).await;
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    let status = world.licenses().status();
    assert_eq!((status.breaker, status.faults), (BreakerState::Closed, [0, 1, 0]));
    assert_eq!(status.last_fault.unwrap().1.kind, FaultKind::Untrusted);
    assert_eq!(world.house.ask(&bob.get()).await, Err(Reason::LicenseUnknown));
    assert_eq!(world.house.store.license(bob.holder).await, Ok(None));
    world.vendor.work();
    world.advance(Duration::from_secs(30)).await;
    assert_eq!(world.house.ask(&bob.get()).await, Ok(()));
}

#[tokio::test]
async fn a_provider_that_limits_us_is_left_alone_for_as_long_as_it_asks() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    world.vendor.limit(Duration::from_secs(120));
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseUnknown));
    world.vendor.work();
    world.advance(Duration::from_secs(119)).await;
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseUnknown));
    assert!(matches!(world.licenses().refresh(ada.holder).await, Err(RefreshError::Paused(_))));
    assert_eq!(world.vendor.asked(), 1);
    world.advance(Duration::from_secs(1)).await;
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
}

#[tokio::test]
async fn a_question_that_is_to_bring_news_begins_after_the_news() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    let licenses = world.licenses();
    let (first, second) = tokio::join!(licenses.refresh(ada.holder), licenses.refresh(ada.holder));
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(world.vendor.asked(), 2);
}

#[tokio::test]
async fn without_a_provider_whatever_asks_for_a_license_is_closed_again() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    world.house.gate.use_licenses(None);
    assert!(world.house.gate.licenses().is_none());
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseUnknown));
}

#[tokio::test]
async fn while_the_clock_is_set_back_the_provider_is_asked_all_the_same() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    world.house.clock.set_wall(START.minus(DAY * 365));
    world.vendor.book(ada.holder, Book::of(LicenseState::Suspended));
    world.advance(TTL).await;
    assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseSuspended));
}

#[tokio::test]
async fn after_a_clock_that_was_ahead_whoever_buys_gets_in_at_once() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::None).await;
    world.house.clock.set_wall(START.plus(Duration::from_secs(3600)));
    assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseNone));
    world.house.clock.set_wall(START);
    world.vendor.book(ada.holder, Book::of(LicenseState::Active));
    world.advance(Duration::from_secs(30)).await;
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
}

#[tokio::test]
async fn whoever_is_refused_for_not_knowing_is_told_when_somebody_asks_again() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    world.vendor.limit(Duration::from_secs(120));
    let denial = world.house.decide(&ada.get()).await.outcome.unwrap_err();
    assert_eq!((denial.reason, denial.retry_after()), (Reason::LicenseUnknown, Some(120)));
}

#[tokio::test]
async fn a_refusal_is_confirmed_anew_after_a_store_that_did_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let vendor = Vendor::new(true);
    let house = House::unread(crate::sqlite(folder.path()), vec![licensed(LicenseMode::ActiveOrGraceRead)]);
    house.gate.use_licenses(Some(parts(&vendor)));
    house.gate.follow().await;
    let world = World { house, vendor };
    let ada = world.licensee(LicenseState::Suspended).await;
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseSuspended));
    world.advance(Duration::from_secs(1)).await;
    world.house.store.close().await;
    for _ in 0..3 {
        assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::StoreUnavailable), "nobody has confirmed it");
    }
}

#[test]
fn a_question_that_begins_as_the_runtime_ends_holds_nobody_up() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime();
    let (world, ada) = ended.block_on(async {
        let world = World::new().await;
        let ada = world.licensee(LicenseState::Active).await;
        assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
        world.advance(TTL - Duration::from_millis(1)).await;
        (world, ada)
    });
    let handle = ended.handle().clone();
    drop(ended);
    let (done, outcome) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _inside = handle.enter();
        let first = matches!(world.house.check(&ada.get()), Checked::Ready(_));
        let _ = done.send((first, world.licenses().status().under_way));
    });
    let outcome = outcome.recv_timeout(Duration::from_secs(20));
    assert_eq!(outcome, Ok((true, 0)), "it was dropped at once, and its place is free");
}

#[tokio::test]
async fn whoever_waits_for_news_joins_no_question_that_ends_by_what_the_store_knows() {
    let world = World::new().await;
    let ada = world.person("ada@example.com").await;
    world.vendor.book(ada.holder, Book::of(LicenseState::Active).until(START.minus(DAY)));
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    // Shortly before its time another process has asked.
    let rules = vec![licensed(LicenseMode::ActiveOrGraceRead)];
    let replica = House::on(world.house.store.clone(), world.house.clock.clone(), rules);
    replica.gate.use_licenses(Some(parts(&world.vendor)));
    world.advance(TTL - Duration::from_millis(1)).await;
    replica.gate.licenses().unwrap().refresh(ada.holder).await.unwrap();
    let asked = world.vendor.asked();
    // A request that passes begins a question for which nobody waits; before it gets anywhere, somebody who has just
    // paid is refused.
    assert!(matches!(world.house.check(&ada.get()), Checked::Ready(_)));
    assert_eq!(world.licenses().status().under_way, 1);
    world.vendor.book(ada.holder, Book::of(LicenseState::Active).until(START.plus(DAY)));
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    assert_eq!(world.vendor.asked(), asked + 1);
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_ends_by_what_another_process_has_just_asked() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    let rules = vec![licensed(LicenseMode::ActiveOrGraceRead)];
    let replica = House::on(world.house.store.clone(), world.house.clock.clone(), rules);
    replica.gate.use_licenses(Some(parts(&world.vendor)));
    world.advance(TTL - Duration::from_millis(1)).await;
    replica.gate.licenses().unwrap().refresh(ada.holder).await.unwrap();
    let asked = world.vendor.asked();
    assert!(matches!(world.house.check(&ada.get()), Checked::Ready(_)));
    settle(&world.house.gate).await;
    assert!(matches!(world.house.check(&ada.get()), Checked::Ready(_)));
    assert_eq!((world.vendor.asked(), world.licenses().status().under_way), (asked, 0));
}
