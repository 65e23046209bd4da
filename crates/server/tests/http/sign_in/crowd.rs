//! Many people at once.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tokio::sync::Semaphore;

use super::RULES;
use crate::world::{Seen, World, json as body, outcome};

/// How many sign in at once.
const PEOPLE: usize = 300;
/// Requests that are under way at any moment: more than are written together, and no more than a machine that stands still
/// for seconds gets through within the time of one operation of the store.
const UNDER_WAY: usize = 64;

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_people_who_sign_in_at_once_each_get_their_own_session() {
    let world = World::start(RULES).await;
    let email = |i: usize| format!("person{i}@example.com");
    // Each from an address of their own, as they would come.
    let mut browsers: Vec<_> = (0..PEOPLE)
        .map(|i| world.visitor().with("X-Forwarded-For", &format!("198.51.{}.{}", 100 + i / 200, 1 + i % 200)))
        .collect();
    let asked = browsers.iter_mut().enumerate().map(|(i, browser)| {
        let (mailbox, email) = (&world.mailbox, email(i));
        async move { browser.ask_for_link(mailbox, &email, "/").await }
    });
    let asked: Vec<_> = asked.collect();
    let tokens: Vec<_> = stream::iter(asked).buffered(UNDER_WAY).collect().await;
    let places = Arc::new(Semaphore::new(UNDER_WAY));
    let pressed: Vec<_> = browsers
        .into_iter()
        .zip(tokens)
        .enumerate()
        .map(|(i, (mut browser, token))| {
            let (email, places) = (email(i), Arc::clone(&places));
            tokio::spawn(async move {
                let _place = places.acquire().await.unwrap();
                let answer = browser.post("/auth/login/callback", &json!({ "token": token })).await;
                assert_eq!(outcome(&answer), (200, None), "{email}: {answer:?}");
                // By our own word and by what the app is told, while others are still signing in.
                for _ in 0..2 {
                    let session = browser.get("/auth/session").await;
                    assert_eq!(body(&session)["user"]["email"], email.as_str(), "{session:?}");
                    let seen = Seen::of(&browser.get("/x").await);
                    assert_eq!(seen.header("remote-email"), Some(email.as_str()));
                }
                browser.cookie("__Host-doorward_sid").unwrap().to_owned()
            })
        })
        .collect();
    let mut sessions = Vec::new();
    for one in pressed {
        sessions.push(one.await.unwrap());
    }
    sessions.sort_unstable();
    sessions.dedup();
    assert_eq!(sessions.len(), PEOPLE);
    world.stop().await;
}
