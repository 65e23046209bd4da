//! What is open and lives by a license.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::Poll,
};

use doorward_core::reason::Reason;

use super::*;

type Lost = Pin<Box<dyn Future<Output = Reason> + Send>>;

async fn held(world: &World, person: &Person, reads: bool) -> Lost {
    let decision = world.house.decide(&person.get()).await;
    let principal = Arc::clone(decision.outcome.unwrap().principal.unwrap().get());
    Box::pin(world.house.gate.license_lost(principal, world.house.gate.policy(), decision.rule.unwrap(), reads))
}

/// What it has come to by now.
async fn so_far(lost: &mut Lost) -> Option<Reason> {
    let mut lost = pin!(lost);
    for _ in 0..100 {
        let found = std::future::poll_fn(|cx| Poll::Ready(lost.as_mut().poll(cx))).await;
        if let Poll::Ready(reason) = found {
            return Some(reason);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test(start_paused = true)]
async fn a_socket_ends_when_a_webhook_takes_its_license_away() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    let (mut socket, mut answer) = (held(&world, &ada, false).await, held(&world, &ada, true).await);
    assert_eq!((so_far(&mut socket).await, so_far(&mut answer).await), (None, None));
    world.vendor.book(ada.holder, Book::of(LicenseState::Suspended));
    let at = world.house.clock.now().wall.plus(Duration::from_millis(1));
    world.licenses().observe(ada.holder, Book::of(LicenseState::Suspended).said_at(at), None).await.unwrap();
    assert_eq!(so_far(&mut socket).await, Some(Reason::LicenseSuspended));
    assert_eq!(so_far(&mut answer).await, Some(Reason::LicenseSuspended));
}

#[tokio::test(start_paused = true)]
async fn a_license_that_ends_ends_sockets_and_lets_answers_go_on_through_the_grace() {
    let world = World::new().await;
    let ada = world.person("ada@example.com").await;
    world.vendor.book(ada.holder, Book::of(LicenseState::Active).until(START.plus(Duration::from_secs(30))));
    let (mut socket, mut answer) = (held(&world, &ada, false).await, held(&world, &ada, true).await);
    assert_eq!((so_far(&mut socket).await, so_far(&mut answer).await), (None, None));
    world.advance(Duration::from_secs(30)).await;
    // Nobody calls: it looks by itself when the license ends.
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(so_far(&mut socket).await, Some(Reason::LicenseExpiredGrace));
    assert_eq!(so_far(&mut answer).await, None);
    world.advance(POLICY.grace).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(so_far(&mut answer).await, Some(Reason::LicenseExpired));
}

#[tokio::test(start_paused = true)]
async fn what_changed_upstream_ends_a_socket_within_the_time_of_an_answer() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    let mut socket = held(&world, &ada, false).await;
    assert_eq!(so_far(&mut socket).await, None);
    world.vendor.book(ada.holder, Book::of(LicenseState::None));
    world.advance(TTL).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(so_far(&mut socket).await, Some(Reason::LicenseNone));
}

#[tokio::test(start_paused = true)]
async fn not_knowing_ends_nothing_that_was_admitted() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    let mut socket = held(&world, &ada, false).await;
    world.vendor.fail(FaultKind::Unavailable);
    for _ in 0..20 {
        world.advance(DAY).await;
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(so_far(&mut socket).await, None);
        settle(&world.house.gate).await;
    }
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseUnknown), "nobody new comes in");
}

#[tokio::test(start_paused = true)]
async fn a_blocked_subject_loses_what_is_open() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    let effects = doorward_core::effects::Effects::default();
    world.house.store.link_subject(ada.user.id, "kg-ada".to_owned(), effects).await.unwrap();
    let mut socket = held(&world, &ada, false).await;
    assert_eq!(so_far(&mut socket).await, None);
    let scope = doorward_core::revocation::Scope::Subject { issuer: "main".to_owned(), subject: "kg-ada".to_owned() };
    world.house.revoke(scope).await;
    world.house.gate.follow().await;
    assert_eq!(so_far(&mut socket).await, Some(Reason::LicenseBlocked));
}

#[tokio::test(start_paused = true)]
async fn the_end_that_a_license_states_ends_a_socket_also_where_nobody_confirms_it_any_more() {
    let world = World::new().await;
    let ada = world.person("ada@example.com").await;
    world.vendor.book(ada.holder, Book::of(LicenseState::Active).until(START.plus(DAY * 3)));
    let (mut socket, mut answer) = (held(&world, &ada, false).await, held(&world, &ada, true).await);
    world.vendor.fail(FaultKind::Unavailable);
    for (days, expected) in [(2, (None, None)), (3, (Some(Reason::LicenseExpired), None))] {
        let passed = world.house.clock.now().mono;
        world.advance((DAY * days).saturating_sub(passed)).await;
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!((so_far(&mut socket).await, so_far(&mut answer).await), expected, "day {days}");
        settle(&world.house.gate).await;
    }
    world.advance(POLICY.grace).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(so_far(&mut answer).await, Some(Reason::LicenseExpired));
}
