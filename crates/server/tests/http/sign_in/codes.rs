//! Codes from mails: who may type them, how often and how long; and a sign-in whose handler panics.

use std::{sync::Arc, time::Duration};

use doorward_core::{effects::Effects, user::Email};
use doorward_gate::flow::{SubjectAnswer, SubjectDirectory};
use serde_json::json;

use super::{
    LOGIN, RULES, SID, confirm, link,
    magic::{ADA, MINUTE, ask, audited, closed, code, type_code, worked_off},
    set,
};
use crate::world::{Setup, json as body, outcome};

#[tokio::test]
async fn the_code_from_the_mail_signs_in_the_browser_that_asked_and_no_other() {
    let world = closed().await;
    world.user(ADA).await;
    let mut browser = world.visitor();
    let token = browser.ask_for_link(&world.mailbox, ADA, "/reports?x=1").await;
    let code = code(&world, ADA);
    let elsewhere = world.visitor().get(&format!("/auth/login/callback?token={token}")).await;
    assert!(elsewhere.text().contains("Type the code"), "{}", elsewhere.text());

    let mut other = world.visitor();
    assert_eq!(outcome(&type_code(&mut other, &code).await), (401, Some("code_invalid")), "no login cookie");
    ask(&mut other, "mallory@example.com").await;
    assert_eq!(outcome(&type_code(&mut other, &code).await), (401, Some("code_invalid")), "another browser's");

    let typed = format!(" {}", code.to_lowercase().replace('-', " "));
    let form = format!("code={}", url::form_urlencoded::byte_serialize(typed.as_bytes()).collect::<String>());
    let done = browser.post_form("/auth/login/code", &form).await;
    assert_eq!((outcome(&done), done.header("location")), ((303, None), Some("/reports?x=1")));
    assert_eq!(body(&browser.get("/auth/session").await)["method"], "code");
    assert_eq!(set(&done, LOGIN).map(|(has_value, _)| has_value), Some(false));
    let mut again = browser.clone();
    assert_eq!(outcome(&confirm(&mut again, &token).await), (409, Some("link_reused")), "code and link are one");
    assert_eq!(outcome(&type_code(&mut again, &code).await), (401, Some("code_invalid")));
}

#[tokio::test]
async fn a_code_ends_after_ten_minutes_and_its_link_later() {
    let world = closed().await;
    world.user(ADA).await;
    let mut browser = world.visitor();
    let token = browser.ask_for_link(&world.mailbox, ADA, "/").await;
    let code = code(&world, ADA);
    world.advance(10 * MINUTE).await;
    assert_eq!(outcome(&type_code(&mut browser, &code).await), (401, Some("code_invalid")));
    assert_eq!(confirm(&mut browser, &token).await.status, 200);
}

#[tokio::test]
async fn five_wrong_codes_are_the_end_whether_or_not_there_is_such_a_user() {
    let world = closed().await;
    world.user(ADA).await;
    let mut answers = Vec::new();
    for (n, email) in [ADA, "nobody@example.com"].into_iter().enumerate() {
        let mut browser = world.visitor().with("X-Forwarded-For", &format!("203.0.113.{n}"));
        ask(&mut browser, email).await;
        worked_off(&world, n as u64 + 1).await;
        let mut seen = Vec::new();
        for _ in 0..6 {
            let answer = type_code(&mut browser, "0000-0000").await;
            let limit = answer.header("ratelimit").map(str::to_owned);
            let retry = answer.header("retry-after").map(str::to_owned);
            seen.push((answer.status, answer.header("x-doorward-reason").map(str::to_owned), limit, retry));
        }
        answers.push((browser, seen));
    }
    assert_eq!(answers[0].1, answers[1].1);
    let statuses: Vec<u16> = answers[0].1.iter().map(|answer| answer.0).collect();
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429]);
    assert_eq!(answers[0].1[5].2.as_deref(), Some("\"code-browser\";r=0;t=120"));
    assert_eq!(answers[0].1[5].3.as_deref(), Some("120"));
    let (browser, _) = &mut answers[0];
    let right = code(&world, ADA);
    assert_eq!(outcome(&type_code(browser, &right).await), (429, Some("rate_limited")), "the right one too");
    world.advance(2 * MINUTE).await;
    assert_eq!(outcome(&type_code(browser, &right).await), (401, Some("code_invalid")), "the store has counted");
    // Another mail, another code.
    browser.ask_for_link(&world.mailbox, ADA, "/").await;
    let right = code(&world, ADA);
    assert_eq!(type_code(browser, &right).await.status, 200);
    let limited = audited(&world, "rate.limited").await;
    assert_eq!(limited.iter().filter(|row| row["limit"] == "code-browser").count(), 2, "{limited:?}");
}

#[tokio::test]
async fn guessing_at_once_gains_nothing() {
    let world = closed().await;
    world.user(ADA).await;
    let mut browser = world.visitor();
    browser.ask_for_link(&world.mailbox, ADA, "/").await;
    let right = code(&world, ADA);
    let guesses = (0..40).map(|n| {
        let mut browser = browser.clone().with("X-Forwarded-For", &format!("203.0.113.{n}"));
        async move { outcome(&type_code(&mut browser, "0000-0000").await).0 }
    });
    let answers = futures_util::future::join_all(guesses).await;
    assert_eq!(answers.iter().filter(|status| **status == 401).count(), 5);
    assert_eq!(answers.iter().filter(|status| **status == 429).count(), 35);
    world.advance(2 * MINUTE).await;
    assert_eq!(outcome(&type_code(&mut browser, &right).await), (401, Some("code_invalid")));
}

#[tokio::test]
async fn with_the_cap_of_ten_minutes_link_and_code_are_over_a_second_later() {
    // ASVS 6.5.5 caps at ten minutes; the default of fifteen is the old system's.
    let world = Setup::of(RULES).login("response_floor = \"0s\"\nlink_ttl = \"10m\"").start().await;
    world.user(ADA).await;
    let (second, step) = (Duration::from_secs(1), 10 * MINUTE - Duration::from_secs(1));
    let mut browser = world.visitor();
    for (wait, expected) in [(step, (200, None)), (10 * MINUTE + second, (401, Some("link_expired")))] {
        let token = browser.ask_for_link(&world.mailbox, ADA, "/").await;
        assert!(world.mailbox.mails().last().unwrap().text.contains("10 minutes"));
        let code = code(&world, ADA);
        world.advance(wait).await;
        let page = browser.get(&format!("/auth/login/callback?token={token}")).await;
        assert_eq!(outcome(&page), expected, "{wait:?}: the page");
        assert_eq!(outcome(&confirm(&mut browser, &token).await), expected, "{wait:?}");
        let typed = type_code(&mut browser, &code).await;
        assert_eq!(outcome(&typed), (401, Some("code_invalid")), "{wait:?}: used with its link, or over with it");
        world.advance(2 * MINUTE).await;
    }
    assert_eq!(audited(&world, "session.created").await.len(), 1);
}

#[tokio::test]
async fn twenty_wrong_codes_an_hour_close_a_user_to_strangers_and_not_to_a_browser_that_knows_it() {
    let world = closed().await;
    world.user(ADA).await;
    let mut ada = world.visitor();
    let token = ada.ask_for_link(&world.mailbox, ADA, "/").await;
    assert_eq!(confirm(&mut ada, &token).await.status, 200);
    ada.post("/auth/logout", &json!({})).await;
    world.advance(60 * MINUTE).await;
    let stranger = |n: usize| world.visitor().with("X-Forwarded-For", &format!("203.0.113.{n}"));
    for n in 0..4 {
        let mut stranger = stranger(n);
        stranger.ask_for_link(&world.mailbox, ADA, "/").await;
        for _ in 0..5 {
            assert_eq!(outcome(&type_code(&mut stranger, "0000-0000").await), (401, Some("code_invalid")));
        }
    }
    let mut last = stranger(4);
    last.ask_for_link(&world.mailbox, ADA, "/").await;
    let right = code(&world, ADA);
    let refused = type_code(&mut last, &right).await;
    assert_eq!(outcome(&refused), (401, Some("code_invalid")), "the right one, and no word of a limit");
    assert_eq!(refused.header("retry-after"), None);
    ada.ask_for_link(&world.mailbox, ADA, "/").await;
    let hers = code(&world, ADA);
    assert_eq!(type_code(&mut ada, &hers).await.status, 200, "whoever guesses shuts nobody out");
    // One try comes back every three minutes.
    world.advance(3 * MINUTE).await;
    assert_eq!(type_code(&mut last, &right).await.status, 200);
}

/// A license provider of the host's that panics.
#[derive(Debug)]
struct Panics;

impl SubjectDirectory for Panics {
    fn subject_of<'a>(&'a self, _: &'a Email) -> SubjectAnswer<'a> {
        Box::pin(async { panic!("the directory of this test panics") })
    }
}

#[tokio::test]
async fn a_handler_that_panics_is_a_500_that_lets_nobody_in_and_burns_nothing() {
    let world = Setup::of(RULES).login("response_floor = \"0s\"").directory(Arc::new(Panics)).start().await;
    let user = world.user(ADA).await;
    world.store().set_pending(user.id, "subject".to_owned(), Effects::default()).await.unwrap();
    world.user("bob@example.com").await;
    let (mut browser, token) = link(&world, ADA).await;
    for _ in 0..2 {
        let answer = confirm(&mut browser, &token).await;
        assert_eq!(outcome(&answer), (500, Some("internal")), "{answer:?}");
        assert!(set(&answer, SID).is_none() && !answer.text().contains("panics"), "{answer:?}");
        assert!(answer.header("content-security-policy").is_some(), "an answer like any other: {answer:?}");
    }
    assert!(world.store().sessions_of(user.id).await.unwrap().is_empty());
    assert!(audited(&world, "session.created").await.is_empty());
    // The process lives, and whoever does not meet the fault is served.
    let (mut bob, token) = link(&world, "bob@example.com").await;
    assert_eq!(confirm(&mut bob, &token).await.status, 200);
    assert_eq!(bob.get("/x").await.status, 200);
}
