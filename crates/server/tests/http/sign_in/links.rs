//! Links: who can use one, how often, and what asking for one gives away.

use std::time::{Duration, Instant};

use doorward_core::effects::Effects;
use doorward_testkit::{postgres, wire::Answer};
use serde_json::json;

use super::{LOGIN, RULES, SID, confirm, link, set};
use crate::world::{Request, Setup, World, json as body, outcome};

const FLOOR: Duration = Duration::from_millis(250);

#[allow(clippy::disallowed_methods, reason = "measures, does not decide")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// An answer without what differs from request to request by design.
fn shape(answer: &Answer, email: &str) -> (u16, Vec<String>, String) {
    let names = answer.head.lines().skip(1).map(|line| {
        let name = line.split(':').next().unwrap().to_ascii_lowercase();
        if name == "date" || name == "set-cookie" || name == "content-length" { name } else { line.to_owned() }
    });
    (
        answer.status,
        names.collect(),
        if email.is_empty() { answer.text() } else { answer.text().replace(email, "(email)") },
    )
}

#[tokio::test]
async fn known_unknown_banned_and_unreadable_addresses_get_the_same_answer_and_no_sooner_than_the_floor() {
    let world = Setup::of(RULES).login("response_floor = \"250ms\"").start().await;
    world.user("known@example.com").await;
    let banned = world.user("banned@example.com").await;
    world.store().set_banned(banned.id, Some(world.clock.now().wall), Effects::default()).await.unwrap();
    let emails = ["known@example.com", "unknown@example.com", "banned@example.com", "no address", ""];
    let mut shapes = Vec::new();
    for email in emails {
        let form = format!("email={}", url::form_urlencoded::byte_serialize(email.as_bytes()).collect::<String>());
        world.advance(Duration::from_secs(60)).await;
        let started = now();
        let answer = world.visitor().post("/auth/login/request-link", &json!({ "email": email })).await;
        assert!(started.elapsed() >= FLOOR, "{email}: {:?}", started.elapsed());
        let cookie = set(&answer, LOGIN);
        let started = now();
        let page = world.visitor().post_form("/auth/login/request-link", &form).await;
        assert!(started.elapsed() >= FLOOR, "{email}: {:?}", started.elapsed());
        // An empty address cannot be replaced in the page.
        let page = (!email.is_empty()).then(|| shape(&page, email));
        shapes.push((shape(&answer, email), cookie, page));
    }
    assert_eq!(shapes[0].0.2, r#"{"ok":true}"#);
    for (i, shape) in shapes.iter().enumerate().skip(1) {
        assert_eq!((&shape.0, &shape.1), (&shapes[0].0, &shapes[0].1), "{}", emails[i]);
        assert!(shape.2.is_none() || shape.2 == shapes[0].2, "{}:\n{:?}\n{:?}", emails[i], shape.2, shapes[0].2);
    }
    crate::door::until("the mails arrive", || world.mailbox.mails().len() >= 2).await;
    let mailed: Vec<_> = world.mailbox.mails().iter().map(|mail| mail.to.as_str().to_owned()).collect();
    assert_eq!(mailed, ["known@example.com", "known@example.com"]);
    world.stop().await;
}

#[tokio::test]
async fn mail_scanners_that_follow_links_twenty_times_consume_nothing() {
    let world = World::start(RULES).await;
    let (mut browser, token) = link(&world, "ada@example.com").await;
    let target = format!("/auth/login/callback?token={token}");
    for method in ["GET", "HEAD"] {
        for _ in 0..20 {
            for scanner in [&mut world.anonymous(), &mut browser.clone()] {
                let answer = scanner.ask(Request::new(method, &target)).await;
                assert_eq!(outcome(&answer), (200, None), "{method}");
                assert_eq!(set(&answer, SID), None);
            }
        }
    }
    let refused = confirm(&mut world.anonymous(), &token).await;
    assert_eq!(outcome(&refused), (403, Some("link_wrong_browser")), "a scanner that presses buttons");
    assert_eq!(confirm(&mut browser, &token).await.status, 200);
}

#[tokio::test]
async fn another_browser_never_gets_a_session_and_is_told_where_to_go_on() {
    let world = World::start(RULES).await;
    let (mut browser, token) = link(&world, "ada@example.com").await;
    let mut other = world.visitor();
    let page = other.get(&format!("/auth/login/callback?token={token}")).await;
    assert_eq!(outcome(&page), (200, None));
    assert!(!page.text().contains(&token) && !page.text().contains("ada"), "{}", page.text());
    // A browser that asked for a link of its own has a login cookie, but not the right one.
    other.ask_for_link(&world.mailbox, "mallory@example.com", "/").await;
    let refused = confirm(&mut other, &token).await;
    assert_eq!(outcome(&refused), (403, Some("link_wrong_browser")));
    assert_eq!(body(&refused)["remedy"], "use_same_browser");
    assert_eq!(set(&refused, SID), None);
    assert_eq!(confirm(&mut browser, &token).await.status, 200, "the refusals did not burn the link");
}

#[tokio::test]
async fn a_link_works_once_and_in_its_time() {
    let world = World::start(RULES).await;
    let (mut browser, token) = link(&world, "ada@example.com").await;
    let racers = (0..8).map(|_| {
        let (mut browser, token) = (browser.clone(), token.clone());
        async move { confirm(&mut browser, &token).await }
    });
    let answers = futures_util::future::join_all(racers).await;
    let mut outcomes: Vec<_> = answers.iter().map(outcome).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes[0], (200, None));
    assert_eq!(outcomes[1..], [(409, Some("link_reused")); 7]);
    assert_eq!(outcome(&confirm(&mut browser, &token).await), (409, Some("link_reused")));
    let page = browser.get(&format!("/auth/login/callback?token={token}")).await;
    assert_eq!(outcome(&page), (409, Some("link_reused")));

    let (mut browser, token) = link(&world, "bob@example.com").await;
    world.advance(Duration::from_secs(15 * 60)).await;
    let late = confirm(&mut browser, &token).await;
    assert_eq!(outcome(&late), (401, Some("link_expired")));
    assert_eq!(body(&late)["remedy"], "request_link");

    // In the middle of the signature: a changed last character can stand for the same bytes, or be the same.
    let middle = token.len() - 20;
    let other = if &token[middle..=middle] == "A" { "B" } else { "A" };
    let tampered = format!("{}{other}{}", &token[..middle], &token[middle + 1..]);
    for (sent, expected) in [
        (json!({}), (400, Some("missing_token"))),
        (json!({ "token": "" }), (400, Some("missing_token"))),
        (json!({ "token": "a.b.c" }), (401, Some("link_invalid"))),
        (json!({ "token": tampered }), (401, Some("link_invalid"))),
        (json!({ "token": 7 }), (400, Some("request_malformed"))),
        (json!({ "token": token, "return_to": "/x" }), (400, Some("request_malformed"))),
    ] {
        let answer = browser.post("/auth/login/callback", &sent).await;
        assert_eq!(outcome(&answer), expected, "{sent}");
    }
    assert_eq!(outcome(&browser.get("/auth/login/callback").await), (400, Some("missing_token")));
}

#[tokio::test]
async fn a_ban_between_mail_and_click_keeps_the_person_out() {
    let world = World::start(RULES).await;
    let user = world.user("ada@example.com").await;
    let (mut browser, token) = link(&world, "ada@example.com").await;
    world.store().set_banned(user.id, Some(world.clock.now().wall), Effects::default()).await.unwrap();
    let refused = confirm(&mut browser, &token).await;
    assert_eq!(outcome(&refused), (403, Some("user_banned")));
    assert_eq!(set(&refused, SID), None);
}

#[tokio::test]
async fn other_sites_can_neither_ask_for_links_nor_sign_people_in_or_out() {
    let world = World::start(RULES).await;
    let (browser, token) = link(&world, "ada@example.com").await;
    let mails = world.mailbox.mails().len();
    let foreign = [
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://app.example"),
    ];
    for (name, value) in foreign {
        for (path, form) in [
            ("/auth/login/request-link", "email=ada%40example.com".to_owned()),
            ("/auth/login/callback", format!("token={token}")),
            ("/auth/logout", String::new()),
        ] {
            let request = Request::new("POST", path)
                .with("Content-Type", "application/x-www-form-urlencoded")
                .with(name, value)
                .body(form);
            let answer = browser.clone().ask(request).await;
            assert_eq!(outcome(&answer), (403, Some("cross_site")), "{path} {name}: {value}");
            assert!(crate::world::set_cookies(&answer).is_empty(), "{answer:?}");
        }
    }
    assert_eq!(world.mailbox.mails().len(), mails, "no mail was sent for another site");
    assert_eq!(confirm(&mut browser.clone(), &token).await.status, 200, "the link was not consumed");
}

#[tokio::test]
async fn while_the_store_is_down_nobody_signs_in_and_no_link_is_burnt() {
    let Some(database) = postgres::own(postgres::Fsync::Off) else { return };
    let store =
        format!("url = \"{}\"\n[secrets]\nroot = \"only for this test, only for this test\"", database.database());
    let world = Setup::of(RULES).store(&store).start().await;
    let (mut browser, token) = link(&world, "ada@example.com").await;
    let mut ada = world.browser("eve@example.com").await;
    database.crash();
    let down = confirm(&mut browser, &token).await;
    assert_eq!(outcome(&down), (503, Some("store_unavailable")));
    assert!(down.header("retry-after").is_some() && body(&down)["retryable"] == true, "{down:?}");
    let page = browser.get("/auth/login").await;
    assert_eq!(outcome(&page), (200, None), "the login page needs no store");
    let asked = browser.post("/auth/login/request-link", &json!({ "email": "bob@example.com" })).await;
    assert_eq!((asked.status, asked.text().as_str()), (200, r#"{"ok":true}"#));
    let stays = ada.post("/auth/logout", &json!({})).await;
    assert_eq!(outcome(&stays), (503, Some("store_unavailable")), "nobody may say that the session ended");
    assert_eq!(set(&stays, SID), None);
    database.revive();
    crate::process::until("the link works again", Duration::from_secs(20), async || {
        let answer = confirm(&mut browser, &token).await;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(browser.get("/x").await.status, 200);
    assert_eq!(ada.post("/auth/logout", &json!({})).await.status, 200);
}
