use std::{sync::Arc, time::Duration};

use doorward_core::{effects::Effects, reason::Reason, revocation::Scope};
use doorward_store::{Store, StoreOptions};
use doorward_testkit::{
    postgres::{self, Fsync},
    switch::Switch,
};

use super::house::{Asked, House, SESSION, rule};

const WITHIN: Duration = Duration::from_secs(60);

fn token(number: usize) -> Scope {
    Scope::Token { issuer: "main".to_owned(), jti: number.to_string() }
}

/// Appends `count` entries in few transactions.
async fn fill(house: &House, count: usize) {
    for start in (0..count).step_by(500) {
        let numbers = start..count.min(start + 500);
        let effects =
            numbers.fold(Effects::default(), |effects, n| effects.with_revocation(house.revocation(token(n))));
        house.store.append(effects).await.unwrap();
    }
}

#[tokio::test]
async fn nobody_is_admitted_before_the_log_was_read() {
    let house = House::unread(Store::memory(), vec![rule("/*", SESSION)]);
    let ada = house.user("ada@example.com").await;
    let (cookie, _) = house.signed_in(&ada).await;
    let request = Asked::get("/x").session(&cookie);
    assert_eq!(house.ask(&request).await, Err(Reason::SharedUnavailable));
    house.gate.follow().await;
    assert_eq!(house.ask(&request).await, Ok(()));
}

#[tokio::test]
async fn a_backlog_longer_than_one_reading_does_not_count_as_fresh_until_its_end() {
    let house = House::unread(Store::memory(), vec![rule("/*", SESSION)]);
    fill(&house, 64_500).await;
    house.gate.follow().await;
    assert!(!house.gate.is_fresh(house.clock.now()), "500 entries are still to come");
    house.gate.follow().await;
    assert!(house.gate.is_fresh(house.clock.now()));
    assert_eq!(house.gate.revocation_seq(), house.store.last_revocation().await.unwrap());
}

#[tokio::test]
async fn a_log_that_cannot_be_read_ages_and_says_so() {
    let house = House::of(vec![rule("/*", SESSION)]).await;
    house.store.close().await;
    house.advance(Duration::from_secs(2)).await;
    assert!(house.gate.is_fresh(house.clock.now()));
    house.advance(Duration::from_millis(1)).await;
    assert!(!house.gate.is_fresh(house.clock.now()));
    assert_eq!(house.seen.lock().unwrap().faults.len(), 2);
}

/// Longer than the state may be old.
const PAUSE: Duration = Duration::from_secs(3600);
/// How long somebody waits for the log, and a little more.
const WAITED: Duration = Duration::from_millis(1100);

#[tokio::test]
async fn after_a_pause_of_the_machine_requests_wait_for_the_log_and_hear_what_it_says() {
    let mut house = House::of(vec![rule("/*", SESSION)]).await;
    let (ada, bob) = (house.user("ada@example.com").await, house.user("bob@example.com").await);
    let ((adas, _), (bobs, ended)) = (house.signed_in(&ada).await, house.signed_in(&bob).await);
    let [adas, bobs] = [adas, bobs].map(|token| Asked::get("/x").session(&token));
    for request in [&adas, &bobs] {
        assert_eq!(house.ask(request).await, Ok(()));
    }
    let (gate, task) = (house.gate.clone(), house.task.take().unwrap());
    let running = tokio::spawn(async move { gate.run(task, std::future::pending()).await });
    for _ in 0..20 {
        // Nobody has run meanwhile, and requests come before the tail.
        house.clock.advance(PAUSE / 100);
        let (one, two) = tokio::join!(house.ask(&adas), house.ask(&adas));
        assert_eq!((one, two), (Ok(()), Ok(())));
    }
    house.revoke(Scope::Session { id: ended.id }).await;
    house.clock.advance(PAUSE / 100);
    let (one, two) = tokio::join!(house.ask(&bobs), house.ask(&adas));
    assert_eq!((one, two), (Err(Reason::SessionRevoked), Ok(())));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn once_somebody_has_waited_for_the_log_in_vain_nobody_waits_until_it_is_read_again() {
    let house = House::of(vec![rule("/*", SESSION)]).await;
    let ada = house.user("ada@example.com").await;
    let (token, _) = house.signed_in(&ada).await;
    let request = Asked::get("/x").session(&token);
    assert_eq!(house.ask(&request).await, Ok(()));
    #[allow(clippy::disallowed_methods, reason = "measures, does not decide")]
    let timed = async || {
        let began = tokio::time::Instant::now();
        (house.ask(&request).await, began.elapsed())
    };
    // Nobody reads it: the gate does not run.
    house.clock.advance(Duration::from_secs(3));
    let (verdict, took) = timed().await;
    assert_eq!(verdict, Err(Reason::SharedUnavailable));
    assert!((Duration::from_secs(1)..WAITED).contains(&took), "{took:?}");
    for _ in 0..10 {
        assert_eq!(timed().await, (Err(Reason::SharedUnavailable), Duration::ZERO));
    }
    house.gate.follow().await;
    assert_eq!(timed().await, (Ok(()), Duration::ZERO));
    house.clock.advance(Duration::from_secs(3));
    let (verdict, took) = timed().await;
    assert_eq!(verdict, Err(Reason::SharedUnavailable));
    assert!((Duration::from_secs(1)..WAITED).contains(&took), "there is hope again: {took:?}");
}

/// Lets everybody who can go on do so, while the clock stands still.
async fn turn() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_in_a_row_cost_nobody_who_waits_a_refusal_before_the_log_could_be_read() {
    let house = Arc::new(House::of(vec![rule("/*", SESSION)]).await);
    let ada = house.user("ada@example.com").await;
    let (token, _) = house.signed_in(&ada).await;
    let request = Asked::get("/x").session(&token);
    assert_eq!(house.ask(&request).await, Ok(()));
    house.clock.advance(PAUSE / 100);
    let theirs = Arc::clone(&house);
    let waiting = tokio::spawn(async move { theirs.ask(&request).await });
    turn().await;
    for _ in 0..3 {
        // What was due meanwhile is served first when the process goes on, and then it stands still again.
        tokio::time::advance(PAUSE).await;
        turn().await;
        assert!(!waiting.is_finished(), "nobody has read the log");
    }
    house.gate.follow().await;
    assert_eq!(waiting.await.unwrap(), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_waits_for_somebody_else_does_not_hold_up_the_reading_of_the_log() {
    // A machine that stands still holds up the reading as well, but not each time.
    for _ in 0..4 {
        if is_read_beside_a_write().await {
            return;
        }
    }
    panic!("the log was not read in time, each time");
}

/// Whether the log is read again and again within three seconds, while a write waits for four.
async fn is_read_beside_a_write() -> bool {
    let folder = doorward_testkit::folder::quick();
    let store = Store::open("sqlite:doorward.db", StoreOptions::new(folder.path(), [7; 32])).unwrap();
    store.wait_ready(Duration::from_mins(1)).await.unwrap();
    let mut house = House::unread(store, vec![rule("/*", SESSION)]);
    house.gate.follow().await;
    let ada = house.user("ada@example.com").await;
    let (token, session) = house.signed_in(&ada).await;
    // Used a good while after the sign-in, so the gate has a touch to write as soon as it runs.
    house.advance(Duration::from_secs(120)).await;
    assert_eq!(house.ask(&Asked::get("/x").session(&token)).await, Ok(()));
    let other = rusqlite::Connection::open(folder.path().join("doorward.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (gate, task) = (house.gate.clone(), house.task.take().unwrap());
    let running = tokio::spawn(async move { gate.run(task, std::future::pending()).await });
    // The write waits four seconds for the other one before it gives up.
    let mut is_in_time = true;
    for _ in 0..5 {
        house.clock.advance(Duration::from_secs(3));
        let fresh = async || house.gate.is_fresh(house.clock.now());
        let within = tokio::time::timeout(Duration::from_secs(3), async {
            while !fresh().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        is_in_time &= within.await.is_ok();
    }
    let (known, _) = house.store.session(token.hash()).await.unwrap().unwrap();
    assert_eq!(known.last_used_at, session.last_used_at, "nothing could be written meanwhile");
    other.execute_batch("COMMIT").unwrap();
    running.abort();
    is_in_time
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_whose_log_is_another_one_is_read_from_its_start() {
    let (Some(old), Some(new)) = (postgres::own(Fsync::Off), postgres::own(Fsync::Off)) else { return };
    let name = old.database().rsplit('/').next().unwrap().to_owned();
    assert_eq!(new.database().rsplit('/').next(), Some(&*name));
    let open = |port: u16| {
        let url = format!("postgres://app@127.0.0.1:{port}/{name}");
        Store::open(&url, StoreOptions::new("", [7; 32])).unwrap()
    };
    let switch = Switch::to(old.port()).await;
    let house = House::unread(open(switch.port()), vec![rule("/*", SESSION)]);
    house.store.wait_ready(WITHIN).await.unwrap();
    // A standby took over that had not heard of the last three entries, and the first of its own has the number of one.
    let ada = house.user("ada@example.com").await;
    for jti in ["a", "b", "c"] {
        house.revoke(Scope::Token { issuer: "main".to_owned(), jti: jti.to_owned() }).await;
    }
    house.gate.follow().await;
    let (_, session) = house.signed_in(&ada).await;
    let there = open(new.port());
    there.wait_ready(WITHIN).await.unwrap();
    let entry = house.revocation(Scope::Session { id: session.id });
    there.append(Effects::default().with_revocation(entry)).await.unwrap();
    switch.lead_to(new.port());
    old.crash();
    let heard = async {
        let mut heard = house.gate.revocations();
        loop {
            house.gate.follow().await;
            if let Ok(entry) = heard.try_recv()
                && entry.entry.scope == (Scope::Session { id: session.id })
            {
                return entry.seq;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(tokio::time::timeout(WITHIN, heard).await, Ok(1));
    house.store.close().await;
}
