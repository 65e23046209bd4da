//! The soak window closes while passwords are being checked: no session comes out of it afterwards.

use doorward_core::cutover::By;
use futures_util::future::join_all;

use super::*;

/// bcrypt of [`PASSWORD`] with 2^11 rounds: checks that take a while.
const SLOW: &str = "$2b$11$V4vBBZ6hxGgWIpDOwQu9CO3b46B8pHFauH5jWWO0ah0/fkkd0a6.a";
const PEOPLE: u8 = 12;

/// Has many sign in at once, and closes the window while their passwords are checked.
async fn close_meanwhile(world: &World, close: impl AsyncFnOnce()) {
    let mut users = Vec::new();
    for number in 0..PEOPLE {
        users.push(with_password(world, &format!("u{number}@example.com"), SLOW).await.id);
    }
    let count = async || {
        let of = users.iter().map(async |user| world.store().sessions_of(*user).await.unwrap().len());
        join_all(of).await.into_iter().sum::<usize>()
    };
    let tries: Vec<_> = (0..PEOPLE)
        .map(|number| {
            let mut visitor = world.visitor();
            let email = format!("u{number}@example.com");
            tokio::spawn(async move { sign_in_from(&mut visitor, number, &email, PASSWORD).await })
        })
        .collect();
    until("somebody got in, others are still being checked", || {
        let inside = world.server().passwords.inside();
        inside > 0 && tries.iter().any(tokio::task::JoinHandle::is_finished)
    })
    .await;
    close().await;
    // Each of these hears of it, however far it has come.
    let under_way = world.server().passwords.inside();
    let mut outcomes = Vec::new();
    for one in tries {
        let answer = one.await.unwrap();
        let has_session = answer.header("set-cookie").is_some();
        assert_eq!(has_session, answer.status == 200, "{answer:?}");
        outcomes.push(outcome(&answer).0);
    }
    let with = |status: u16| outcomes.iter().filter(|one| **one == status).count();
    assert_eq!(with(200) + with(410) + with(429), outcomes.len(), "{outcomes:?}");
    assert!(with(200) > 0 && with(410) + with(429) >= under_way && with(410) > 0, "{under_way} of {outcomes:?}");
    assert_eq!(count().await, with(200), "no session without an answer, and none was kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_password_that_is_being_checked_begins_a_session_once_another_process_closed_the_window() {
    let world = world().await;
    close_meanwhile(&world, async || {
        let ceiling = world.server().site().legacy.unwrap();
        let now = world.clock.now().wall;
        let open = State::in_force(None, &ceiling);
        let closed = State { open: false, by: By::Operator, decided_at: Some(now), ..open };
        let text = closed.to_text().unwrap();
        let set = world.store().set_state(STATE.to_owned(), 0, text, now, Effects::default()).await;
        assert_eq!(set, Ok(SetState::Set));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_password_that_is_being_checked_begins_a_session_once_the_file_forbids_it() {
    let world = world().await;
    close_meanwhile(&world, async || world.reload(|text| text.replace("allow = true", "allow = false"))).await;
}
