use std::time::Duration;

use doorward_core::{effects::Effects, reason::Reason, revocation::Scope};
use doorward_store::Store;

use super::house::{Asked, House, SESSION, rule};

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
