//! What becomes of people's accounts: another mail address, and the first administrator.

use std::time::Duration;

use doorward_core::{
    effects::Effects,
    id::SessionId,
    session::{OpaqueToken, Session, TokenHash},
    user::Email,
};
use doorward_gate::flow::first_admin;
use doorward_store::{Begin, BeginSession};
use doorward_testkit::wire::Answer;
use futures_util::StreamExt as _;
use serde_json::json;

use crate::world::{Caller, Request, World, json as body, outcome};

const RULES: &str = "[[rules]]\npath = \"/*\"\nallow = [\"session\"]\napp = \"web\"\n";
const ADA: &str = "ada@example.com";
const NEW: &str = "lovelace@example.com";
const CONFIRM: &str = "/auth/profile/email/confirm";
const SID: &str = "__Host-doorward_sid";

/// Asks for another address as a program of our own pages does.
async fn ask(browser: &mut Caller, email: &str) -> Answer {
    let token = browser.cookie("__Host-doorward_csrf").unwrap_or_default().to_owned();
    let request = Request::new("POST", "/auth/profile/email").with("X-CSRF-Token", token);
    browser.ask(request.with("Content-Type", "application/json").body(json!({ "email": email }).to_string())).await
}

/// The token in the mail that confirms `email`, once it is there.
async fn token(world: &World, email: &str) -> String {
    for _ in 0..2000 {
        let mails = world.mailbox.mails();
        let link = mails.iter().rev().filter(|mail| mail.to.as_str() == email);
        let found = link.clone().find_map(|mail| mail.text.split_once("/profile/email/confirm?token="));
        if let Some((_, token)) = found {
            return token.split_whitespace().next().unwrap().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no mail to {email}");
}

async fn confirm(browser: &mut Caller, token: &str) -> Answer {
    browser.post(CONFIRM, &json!({ "token": token })).await
}

async fn events(world: &World) -> Vec<String> {
    world.store().audit_tail(0, 1000).await.unwrap().into_iter().map(|row| row.kind).collect()
}

fn count(events: &[String], kind: &str) -> usize {
    events.iter().filter(|event| *event == kind).count()
}

#[tokio::test]
async fn an_address_changes_by_the_link_in_the_new_inbox_and_by_nothing_else() {
    let world = World::start(RULES).await;
    let mut phone = world.browser(ADA).await;
    let mut desk = world.browser(ADA).await;
    let mut eve = world.browser("eve@example.com").await;
    world.advance(Duration::from_secs(60)).await;
    let mut elsewhere = world.visitor();
    let old_link = elsewhere.ask_for_link(&world.mailbox, ADA, "/").await;
    let asked = ask(&mut desk, NEW).await;
    assert_eq!((outcome(&asked), body(&asked)), ((200, None), json!({ "ok": true })));
    let token = token(&world, NEW).await;
    let page = format!("{CONFIRM}?token={token}");

    // Whoever looks, and however often: nothing is consumed, and a stranger gets nothing to press.
    for _ in 0..3 {
        let shown = desk.get(&page).await;
        assert_eq!(outcome(&shown), (200, None));
        assert!(shown.text().contains(NEW) && shown.text().contains("Use this address"), "{}", shown.text());
        assert!(!shown.text().contains("<script"), "it works without a script");
        assert_eq!(outcome(&desk.ask(Request::new("HEAD", &page)).await), (200, None));
        let mut scanner = world.visitor();
        assert_eq!(outcome(&scanner.get(&page).await), (403, Some("link_wrong_browser")));
        assert_eq!(outcome(&confirm(&mut scanner, &token).await), (403, Some("link_wrong_browser")));
        assert_eq!(outcome(&confirm(&mut eve, &token).await), (403, Some("link_wrong_browser")));
    }
    assert_eq!(body(&desk.get("/auth/whoami").await)["email"], ADA);

    let sign_in = desk.post("/auth/login/callback", &json!({ "token": token })).await;
    assert_eq!(outcome(&sign_in), (401, Some("link_invalid")), "it signs nobody in");
    let done = confirm(&mut desk, &token).await;
    assert_eq!((outcome(&done), body(&done)), ((200, None), json!({ "ok": true })));
    assert_eq!(body(&desk.get("/auth/whoami").await)["email"], NEW, "the next page shows it, log read or not");
    world.gate().follow().await;
    assert_eq!(body(&desk.get("/auth/whoami").await)["email"], NEW, "no cache remembers the old one");
    // What began before the change was applied is cut off, and this clock stands still unless it is moved.
    let mut seen = desk.get("/x").await;
    for _ in 0..20 {
        if seen.text().contains(NEW) {
            break;
        }
        world.advance(Duration::from_millis(10)).await;
        seen = desk.get("/x").await;
    }
    assert!(seen.status == 200 && seen.text().contains(NEW), "{seen:?}");
    assert_eq!(outcome(&phone.get("/x").await).0, 401, "every other session has ended");
    let void = elsewhere.post("/auth/login/callback", &json!({ "token": old_link })).await;
    assert_eq!(void.status, 401, "an older link is void: {void:?}");
    assert_eq!(outcome(&confirm(&mut desk, &token).await), (409, Some("link_reused")));
    for _ in 0..2000 {
        if world.mailbox.mails().iter().any(|mail| mail.subject.contains("was changed")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mails = world.mailbox.mails();
    let notice = mails.iter().find(|mail| mail.subject.contains("was changed")).unwrap();
    assert!(notice.to.as_str() == ADA && notice.text.contains("l***@example.com"), "{}", notice.text);
    assert!(!notice.text.contains(NEW) && !notice.text.contains("token="), "{}", notice.text);
    assert_eq!(count(&events(&world).await, "user.email_changed"), 1);
    let mut again = world.visitor();
    again.sign_in(&world.mailbox, NEW).await;
    assert_eq!(body(&again.get("/auth/whoami").await)["subject"], body(&desk.get("/auth/whoami").await)["subject"]);
}

#[tokio::test]
async fn a_form_without_script_asks_and_confirms() {
    let world = World::start(RULES).await;
    let mut desk = world.browser(ADA).await;
    let page = desk.ask(Request::get("/auth/profile/email").with("Sec-Fetch-Mode", "navigate")).await;
    assert_eq!(outcome(&page), (200, None));
    let csrf = desk.cookie("__Host-doorward_csrf").unwrap().to_owned();
    assert!(page.text().contains(&format!("name=\"csrf_token\" value=\"{csrf}\"")), "{}", page.text());
    assert!(!page.text().contains("<script"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(!policy.contains("unsafe"), "{policy}");

    let forged = desk.post_form("/auth/profile/email", "email=lovelace%40example.com").await;
    assert_eq!(outcome(&forged), (403, Some("csrf_missing")));
    let form = format!("email=lovelace%40example.com&csrf_token={csrf}");
    let asked = desk.post_form("/auth/profile/email", &form).await;
    assert_eq!(outcome(&asked), (200, None));
    assert!(asked.text().contains("Check the new inbox") && asked.text().contains(NEW), "{}", asked.text());
    let token = token(&world, NEW).await;
    let done = desk.post_form(CONFIRM, &format!("token={token}")).await;
    assert_eq!((done.status, done.header("location")), (303, Some("/auth/whoami")));
}

#[tokio::test]
async fn whether_an_address_belongs_to_somebody_is_not_told() {
    let world = World::start(RULES).await;
    let mut desk = world.browser(ADA).await;
    world.browser("eve@example.com").await;
    let mails = world.mailbox.mails().len();
    let (taken, free) = (ask(&mut desk, "Eve@example.com").await, ask(&mut desk, NEW).await);
    let shape = |answer: &Answer| {
        let lines = answer.head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:"));
        (lines.map(str::to_owned).collect::<Vec<_>>(), answer.text())
    };
    assert_eq!(shape(&taken), shape(&free));
    let token = token(&world, NEW).await;
    assert_eq!(world.mailbox.mails().len(), mails + 1, "no mail to whoever has the address");
    assert_eq!(count(&events(&world).await, "user.email_conflict"), 1);

    // Somebody gets the address between the request and its confirmation.
    world.user(NEW).await;
    assert_eq!(outcome(&confirm(&mut desk, &token).await), (401, Some("link_invalid")));
    assert_eq!(body(&desk.get("/auth/whoami").await)["email"], ADA);
    assert_eq!(desk.get("/x").await.status, 200, "a conflict ends no session");
    let events = events(&world).await;
    assert_eq!((count(&events, "user.email_conflict"), count(&events, "user.email_changed")), (2, 0));
}

#[tokio::test]
async fn asking_for_an_address_needs_a_session_a_token_and_a_recent_sign_in_and_is_limited() {
    let world = World::start(RULES).await;
    let mut desk = world.browser(ADA).await;
    let bare = world.visitor().post("/auth/profile/email", &json!({ "email": NEW })).await;
    assert_eq!(outcome(&bare), (401, Some("no_credential")));
    let forged = desk.post("/auth/profile/email", &json!({ "email": NEW })).await;
    assert_eq!(outcome(&forged), (403, Some("csrf_missing")));
    for wrong in ["nobody", "", ADA] {
        assert_eq!(outcome(&ask(&mut desk, wrong).await), (400, Some("request_malformed")), "{wrong}");
    }
    let mut limited = None;
    for _ in 0..10 {
        let answer = ask(&mut desk, NEW).await;
        if answer.status != 200 {
            limited = Some(answer);
            break;
        }
    }
    let limited = limited.unwrap();
    assert_eq!(outcome(&limited), (429, Some("rate_limited")));
    assert!(limited.header("retry-after").is_some());
    assert_eq!(outcome(&ask(&mut world.browser("bert@example.com").await, NEW).await), (200, None), "by person");
    world.advance(Duration::from_secs(3500)).await;
    assert_eq!(outcome(&ask(&mut desk, NEW).await), (401, Some("re_auth_required")));
}

#[tokio::test]
async fn the_browser_that_asked_confirms_also_after_its_session_ended() {
    let world = World::start(RULES).await;
    let (mut desk, mut phone) = (world.browser(ADA).await, world.browser(ADA).await);
    ask(&mut desk, NEW).await;
    let token = token(&world, NEW).await;
    assert_eq!(desk.post("/auth/logout", &json!({})).await.status, 200);
    assert_eq!(outcome(&confirm(&mut desk, &token).await), (200, None));
    assert_eq!(phone.get("/x").await.status, 401, "no session stays");
    let user = world.store().user_by_email(Email::parse(NEW).unwrap()).await.unwrap();
    assert!(user.is_some());
}

#[tokio::test]
async fn of_many_who_confirm_at_once_one_does() {
    let world = World::start(RULES).await;
    let mut desk = world.browser(ADA).await;
    ask(&mut desk, NEW).await;
    let token = token(&world, NEW).await;
    let all = (0..20).map(|_| {
        let (mut desk, token) = (desk.clone(), token.clone());
        async move { confirm(&mut desk, &token).await }
    });
    let answers = futures_util::future::join_all(all).await;
    let of = |wanted: (u16, Option<&str>)| answers.iter().filter(|answer| outcome(answer) == wanted).count();
    let all: Vec<_> = answers.iter().map(outcome).collect();
    assert_eq!((of((200, None)), of((409, Some("link_reused")))), (1, 19), "{all:?}");
    assert_eq!(count(&events(&world).await, "user.email_changed"), 1);
}

#[tokio::test]
async fn somebody_with_more_sessions_than_a_page_holds_changes_the_address() {
    let world = World::start(RULES).await;
    let mut desk = world.browser(ADA).await;
    let user = world.store().user_by_email(Email::parse(ADA).unwrap()).await.unwrap().unwrap();
    let own = world.store().sessions_of(user.id).await.unwrap().remove(0);
    let more = (0..2_100).map(|_| {
        let id = SessionId::mint(own.created_at, world.clock.random());
        let session = Session { id, hash: TokenHash::of(&world.clock.random::<32>()), ..own.clone() };
        let begin = BeginSession { session, user_version: user.version, replaces: None, rests_on: None };
        world.store().begin_session(begin, Effects::default())
    });
    let begun = futures_util::stream::iter(more).buffer_unordered(64).collect::<Vec<_>>().await;
    assert!(begun.iter().all(|outcome| *outcome == Ok(Begin::Began)));
    ask(&mut desk, NEW).await;
    let token = token(&world, NEW).await;
    let done = confirm(&mut desk, &token).await;
    assert_eq!(outcome(&done), (200, None), "{done:?}");
    assert_eq!(world.store().sessions_of(user.id).await.unwrap().len(), 1);
    let rows = world.store().audit_tail(0, 1000).await.unwrap();
    let changed = rows.iter().find(|row| row.kind == "user.email_changed").unwrap();
    assert!(changed.detail.as_ref().unwrap().contains("\"sessions_ended\":2100"), "{changed:?}");
}

#[tokio::test]
async fn a_clock_that_jumps_makes_no_link_for_an_address_live_longer_than_it_says() {
    let world = World::start(RULES).await;
    let mut desk = world.browser(ADA).await;
    ask(&mut desk, NEW).await;
    let link = token(&world, NEW).await;
    let asked_at = world.clock.now().wall;
    // Ahead: over. Back to before it was made: a token from the future is none. In its time it works, once.
    world.clock.set_wall(asked_at.plus(Duration::from_secs(15 * 60)));
    assert_eq!(outcome(&confirm(&mut desk, &link).await), (401, Some("link_expired")));
    world.clock.set_wall(asked_at.minus(Duration::from_secs(600)));
    assert_eq!(outcome(&confirm(&mut desk, &link).await), (401, Some("link_invalid")));
    assert_eq!(body(&desk.get("/auth/whoami").await)["email"], ADA);
    world.clock.set_wall(asked_at.plus(Duration::from_secs(15 * 60 - 1)));
    world.gate().follow().await;
    let done = confirm(&mut desk, &link).await;
    assert_eq!(outcome(&done), (200, None), "{done:?}");
    assert_eq!(outcome(&confirm(&mut desk, &link).await), (409, Some("link_reused")));
    assert_eq!(body(&desk.get("/auth/whoami").await)["email"], NEW);
}

#[tokio::test]
async fn a_clock_that_jumps_ends_an_invitation_early_or_in_its_time_and_makes_one_administrator() {
    let world = World::start(RULES).await;
    let token = invitation(&world).await;
    let made_at = world.clock.now().wall;
    let claim = async |email: &str| {
        let mut visitor = world.visitor();
        visitor.post("/auth/first-admin", &json!({ "token": token, "email": email })).await
    };
    world.clock.set_wall(made_at.plus(first_admin::LIFE));
    assert_eq!(outcome(&claim(ADA).await), (401, Some("link_expired")));
    assert!(!world.store().has_admin().await.unwrap());
    world.clock.set_wall(made_at.minus(Duration::from_secs(3600)));
    world.gate().follow().await;
    assert_eq!(outcome(&claim(ADA).await), (200, None));
    for jump in [0, 3600, 86_400 * 3] {
        world.clock.set_wall(made_at.minus(Duration::from_secs(jump)));
        assert_eq!(outcome(&claim("eve@example.com").await), (409, Some("link_reused")), "{jump}");
    }
    let admins = world.store().users(None, 100).await.unwrap().into_iter().filter(|user| user.admin);
    assert_eq!(admins.map(|user| user.email.to_string()).collect::<Vec<_>>(), [ADA]);
}

async fn invitation(world: &World) -> String {
    let token: Option<OpaqueToken> = first_admin::invite(world.store(), &world.clock).await.unwrap();
    token.unwrap().expose()
}

#[tokio::test]
async fn whoever_has_the_printed_address_becomes_the_first_administrator_once() {
    let world = World::start(RULES).await;
    let token = invitation(&world).await;
    let page = format!("/auth/first-admin?token={token}");
    for _ in 0..3 {
        let shown = world.visitor().get(&page).await;
        assert_eq!(outcome(&shown), (200, None));
        assert!(shown.text().contains("name=\"email\"") && !shown.text().contains("<script"), "{}", shown.text());
        assert!(!shown.header("content-security-policy").unwrap().contains("unsafe"));
        assert_eq!(shown.header("referrer-policy"), Some("strict-origin"), "no address of ours is told with its query");
    }
    let mut operator = world.visitor();
    let wrong = operator.post_form("/auth/first-admin", &format!("token={token}&email=nobody")).await;
    assert_eq!(outcome(&wrong), (400, Some("request_malformed")));
    let foreign = Request::new("POST", "/auth/first-admin")
        .with("Sec-Fetch-Site", "cross-site")
        .with("Content-Type", "application/json")
        .body(json!({ "token": token, "email": ADA }).to_string());
    assert_eq!(outcome(&operator.ask(foreign).await), (403, Some("cross_site")));
    let done = operator.post_form("/auth/first-admin", &format!("token={token}&email=Ada%40example.com")).await;
    assert_eq!((done.status, done.header("location")), (303, Some("/auth/whoami")));
    assert!(operator.cookie(SID).is_some());
    let whoami = body(&operator.get("/auth/whoami").await);
    assert_eq!((&whoami["authenticated"], &whoami["email"]), (&json!(true), &json!(null)), "apps get proven addresses");
    let ada = world.store().user_by_email(Email::parse(ADA).unwrap()).await.unwrap().unwrap();
    assert!(ada.admin && !ada.email_verified, "the address is not proven by it");

    let mut late = world.visitor();
    assert_eq!(outcome(&late.get(&page).await), (409, Some("link_reused")));
    let again = late.post("/auth/first-admin", &json!({ "token": token, "email": "eve@example.com" })).await;
    assert_eq!(outcome(&again), (409, Some("link_reused")));
    assert_eq!(late.cookie(SID), None);
    assert!(first_admin::invite(world.store(), &world.clock).await.unwrap().is_none(), "nobody is invited any more");
    let events = events(&world).await;
    assert_eq!((count(&events, "admin.claimed"), count(&events, "session.created")), (1, 1));
}

#[tokio::test]
async fn an_address_for_the_first_administrator_ends_after_a_day_and_cannot_be_guessed() {
    let world = World::start(RULES).await;
    let token = invitation(&world).await;
    let made_up = OpaqueToken::mint([7; 32]).expose();
    for (token, expected) in
        [("", (400, "missing_token")), ("x", (401, "link_invalid")), (made_up.as_str(), (401, "link_invalid"))]
    {
        let (code, reason) = expected;
        let mut visitor = world.visitor();
        assert_eq!(outcome(&visitor.get(&format!("/auth/first-admin?token={token}")).await), (code, Some(reason)));
        let posted = visitor.post("/auth/first-admin", &json!({ "token": token, "email": ADA })).await;
        assert_eq!(outcome(&posted), (code, Some(reason)));
    }
    world.advance(first_admin::LIFE).await;
    let mut visitor = world.visitor();
    let late = visitor.post("/auth/first-admin", &json!({ "token": token, "email": ADA })).await;
    assert_eq!(outcome(&late), (401, Some("link_expired")));
    assert!(!world.store().has_admin().await.unwrap());
}

#[tokio::test]
async fn of_many_who_claim_at_once_one_becomes_administrator() {
    let world = World::start(RULES).await;
    world.user("user3@example.com").await;
    let tokens = [invitation(&world).await, invitation(&world).await];
    let all = (0..20).map(|number: usize| {
        let (mut visitor, token) = (world.visitor(), tokens[number % 2].clone());
        let wish = json!({ "token": token, "email": format!("user{number}@example.com") });
        async move { visitor.post("/auth/first-admin", &wish).await }
    });
    let answers = futures_util::future::join_all(all).await;
    let of = |wanted: (u16, Option<&str>)| answers.iter().filter(|answer| outcome(answer) == wanted).count();
    assert_eq!((of((200, None)), of((409, Some("link_reused")))), (1, 19));
    let admins = world.store().users(None, 100).await.unwrap().into_iter().filter(|user| user.admin);
    assert_eq!(admins.count(), 1);
    assert_eq!(count(&events(&world).await, "session.created"), 1);
}
