//! `/sessions`: people see where they are signed in, and end what they do not know.

use std::{fs, time::Duration};

use doorward_core::{
    effects::Effects,
    id::SessionId,
    session::{OpaqueToken, Session, TokenHash},
    user::Email,
};
use doorward_store::{Begin, BeginSession, JobOutcome};
use doorward_testkit::wire::Answer;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::{
    process::until,
    world::{Caller, Request, Setup, World, json as body, outcome, set_cookies},
};

const RULES: &str = "[[rules]]\npath = \"/*\"\nallow = [\"session\"]\napp = \"web\"\n";
const ADA: &str = "ada@example.com";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const MINUTE: Duration = Duration::from_secs(60);

async fn list(browser: &mut Caller) -> Vec<Value> {
    let answer = browser.get("/auth/sessions").await;
    assert_eq!(outcome(&answer), (200, None), "{answer:?}");
    body(&answer)["sessions"].as_array().unwrap().clone()
}

fn id(session: &Value) -> String {
    session["id"].as_str().unwrap().to_owned()
}

/// The name of the browser's own session.
async fn own(browser: &mut Caller) -> String {
    let listed = list(browser).await;
    id(listed.iter().find(|session| session["current"] == true).unwrap())
}

/// A changing request with the session's token in the header.
async fn change(browser: &mut Caller, method: &str, path: &str) -> Answer {
    let token = browser.cookie("__Host-doorward_csrf").unwrap_or_default().to_owned();
    browser.ask(Request::new(method, path).with("X-CSRF-Token", token)).await
}

/// The same as the form of the page sends it.
async fn submit(browser: &mut Caller, path: &str) -> Answer {
    let token = browser.cookie("__Host-doorward_csrf").unwrap_or_default().to_owned();
    let kind = "application/x-www-form-urlencoded";
    let form = Request::new("POST", path).with("Sec-Fetch-Mode", "navigate").with("Content-Type", kind);
    browser.ask(form.body(format!("csrf_token={token}"))).await
}

#[tokio::test]
async fn people_see_their_own_sessions_with_device_address_and_last_use() {
    let world = World::start(RULES).await;
    let mut phone = world.visitor().with("User-Agent", FIREFOX);
    phone.sign_in(&world.mailbox, ADA).await;
    world.browser("eve@example.com").await;
    world.advance(2 * MINUTE).await;
    let mut desk = world.browser(ADA).await;
    world.advance(MINUTE).await;
    assert_eq!(phone.get("/x").await.status, 200);

    let listed = list(&mut desk).await;
    assert_eq!(listed.len(), 2, "nobody else's: {listed:?}");
    // Both are in use at this moment; the younger one stands first.
    let [by_desk, by_phone] = &listed[..] else { panic!() };
    assert_eq!((&by_phone["current"], &by_desk["current"]), (&json!(false), &json!(true)));
    assert_eq!((&by_phone["user_agent"], &by_phone["ip"]), (&json!(FIREFOX), &json!("127.0.0.1")));
    assert_eq!(by_phone["created_at"], "2027-01-15T08:00:00Z");
    assert_eq!(by_phone["last_used_at"], "2027-01-15T08:03:00Z", "the use that just was");
    assert_eq!((&by_desk["created_at"], &by_desk["user_agent"]), (&json!("2027-01-15T08:02:00Z"), &Value::Null));
    let members: Vec<_> = by_phone.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["created_at", "current", "id", "ip", "last_used_at", "user_agent"]);

    let page = desk.ask(Request::get("/auth/sessions").with("Sec-Fetch-Mode", "navigate")).await;
    let text = page.text();
    assert_eq!(outcome(&page), (200, None));
    assert!(text.contains("Firefox on Linux") && text.contains("(this device)"), "{text}");
    assert!(text.contains("15 January 2027, 08:03 UTC") && text.contains("127.0.0.1"), "{text}");

    world.advance(58 * MINUTE).await;
    assert_eq!(desk.get("/x").await.status, 200);
    world.advance(2 * MINUTE).await;
    assert_eq!(list(&mut desk).await.len(), 1, "one that is over is not shown, whether swept or not");
}

#[tokio::test]
async fn of_very_many_sessions_the_newest_and_the_own_are_shown_and_every_one_can_be_ended() {
    let world = World::start(RULES).await;
    let mut desk = world.browser(ADA).await;
    assert_eq!(body(&desk.get("/auth/sessions").await)["more"], false);
    let user = world.store().user_by_email(Email::parse(ADA).unwrap()).await.unwrap().unwrap();
    let own = world.store().sessions_of(user.id).await.unwrap().remove(0);
    let begin = (1..=1_100_u64).map(|number| {
        let at = own.created_at.plus(Duration::from_millis(number));
        let (id, hash) = (SessionId::mint(at, world.clock.random()), TokenHash::of(&world.clock.random::<32>()));
        let session = Session { id, hash, created_at: at, last_used_at: at, ..own.clone() };
        let plan = BeginSession { session, user_version: user.version, replaces: None, rests_on: None };
        let store = world.store();
        async move {
            assert_eq!(store.begin_session(plan.clone(), Effects::default()).await, Ok(Begin::Began));
            plan.session.id.to_string()
        }
    });
    let begun: Vec<String> = stream::iter(begin).buffered(64).collect().await;
    world.advance(MINUTE).await;
    let answer = body(&desk.get("/auth/sessions").await);
    assert_eq!(answer["more"], true);
    let listed: Vec<String> = answer["sessions"].as_array().unwrap().iter().map(id).collect();
    assert_eq!(listed.len(), 1_001);
    assert!(begun[100..].iter().all(|newer| listed.contains(newer)), "the newest are there");
    assert!(listed.contains(&own.id.to_string()), "and the one that asks, which is the oldest");
    let page = desk.ask(Request::get("/auth/sessions").with("Sec-Fetch-Mode", "navigate")).await;
    assert!(page.text().contains("older sessions that are not shown"));
    let unlisted = change(&mut desk, "DELETE", &format!("/auth/sessions/{}", begun[0])).await;
    assert_eq!(outcome(&unlisted), (200, None), "{unlisted:?}");
    let others = change(&mut desk, "POST", "/auth/sessions/revoke-others").await;
    assert_eq!(body(&others)["ended"], 1_099);
    assert_eq!(list(&mut desk).await.len(), 1);
}

#[tokio::test]
async fn nobody_signed_in_sees_no_list_and_a_browser_is_led_to_sign_in() {
    let world = World::start(RULES).await;
    assert_eq!(outcome(&world.anonymous().get("/auth/sessions").await), (401, Some("no_credential")));
    let token = world.issuer.mint(&world.claims());
    assert_eq!(outcome(&world.bearer(&token).get("/auth/sessions").await), (401, Some("no_credential")));
    let page = world.visitor().ask(Request::get("/auth/sessions").with("Sec-Fetch-Mode", "navigate")).await;
    assert_eq!((page.status, page.header("location")), (302, Some("/auth/login?return_to=%2Fauth%2Fsessions")));
}

#[tokio::test]
async fn a_person_ends_one_of_their_sessions_and_nobody_elses() {
    let world = World::start(RULES).await;
    let (mut phone, mut desk) = (world.browser(ADA).await, world.browser(ADA).await);
    let mut eve = world.browser("eve@example.com").await;
    let (phones, eves) = (own(&mut phone).await, own(&mut eve).await);

    let unknown = "01a06f3c-2c00-7000-8000-000000000000";
    let mut refusals = Vec::new();
    for name in [eves.as_str(), unknown, "none", "revoke-others"] {
        let refused = change(&mut desk, "DELETE", &format!("/auth/sessions/{name}")).await;
        assert_eq!(outcome(&refused), (404, Some("not_found")), "{name}");
        let mut told = body(&refused);
        told.as_object_mut().unwrap().remove("decision_id");
        refusals.push(told);
    }
    assert!(refusals.windows(2).all(|pair| pair[0] == pair[1]), "whether it exists is not told: {refusals:?}");
    assert_eq!(eve.get("/x").await.status, 200);

    let ended = change(&mut desk, "DELETE", &format!("/auth/sessions/{phones}")).await;
    assert_eq!((outcome(&ended), body(&ended)), ((200, None), json!({ "ok": true })));
    assert_eq!(phone.get("/x").await.status, 401);
    assert_eq!(desk.get("/x").await.status, 200);
    let again = change(&mut desk, "DELETE", &format!("/auth/sessions/{phones}")).await;
    assert_eq!(outcome(&again), (404, Some("not_found")));
}

#[tokio::test]
async fn a_person_ends_all_other_sessions_and_keeps_the_one_at_hand() {
    let world = World::start(RULES).await;
    let mut others = [world.browser(ADA).await, world.browser(ADA).await];
    world.advance(MINUTE).await;
    let mut desk = world.browser(ADA).await;
    let mut eve = world.browser("eve@example.com").await;
    let ended = change(&mut desk, "POST", "/auth/sessions/revoke-others").await;
    assert_eq!((outcome(&ended), body(&ended)), ((200, None), json!({ "ok": true, "ended": 2 })));
    for other in &mut others {
        assert_eq!(other.get("/x").await.status, 401);
    }
    assert_eq!((desk.get("/x").await.status, eve.get("/x").await.status), (200, 200));
    assert_eq!(list(&mut desk).await.len(), 1);
    let again = change(&mut desk, "POST", "/auth/sessions/revoke-others").await;
    assert_eq!(body(&again)["ended"], 0);
}

#[tokio::test]
async fn ending_the_session_at_hand_is_signing_out() {
    let world = World::start(RULES).await;
    for method in ["DELETE", "POST"] {
        world.advance(MINUTE).await;
        let mut desk = world.browser(ADA).await;
        let copy = desk.clone();
        let name = own(&mut desk).await;
        let out = match method {
            "DELETE" => change(&mut desk, "DELETE", &format!("/auth/sessions/{name}")).await,
            _ => submit(&mut desk, &format!("/auth/sessions/{name}/revoke")).await,
        };
        let to = (method == "POST").then_some("/auth/login?signed_out");
        assert_eq!((out.status, out.header("location")), (if to.is_some() { 303 } else { 200 }, to), "{out:?}");
        assert_eq!(desk.cookie("__Host-doorward_sid"), None, "{:?}", set_cookies(&out));
        assert_eq!(copy.clone().get("/x").await.status, 401);
    }
}

#[tokio::test]
async fn the_buttons_of_the_page_work_without_a_script() {
    let world = World::start(RULES).await;
    let (mut phone, mut desk) = (world.browser(ADA).await, world.browser(ADA).await);
    world.advance(MINUTE).await;
    let mut third = world.browser(ADA).await;
    let phones = own(&mut phone).await;
    let page = desk.ask(Request::get("/auth/sessions").with("Sec-Fetch-Mode", "navigate")).await.text();
    let action = format!("action=\"/auth/sessions/{phones}/revoke\"");
    let token = format!("name=\"csrf_token\" value=\"{}\"", desk.cookie("__Host-doorward_csrf").unwrap());
    assert!(page.contains(&action) && page.contains(&token), "{page}");

    let ended = submit(&mut desk, &format!("/auth/sessions/{phones}/revoke")).await;
    assert_eq!((ended.status, ended.header("location")), (303, Some("/auth/sessions")));
    assert_eq!((phone.get("/x").await.status, third.get("/x").await.status), (401, 200));
    let ended = submit(&mut desk, "/auth/sessions/revoke-others").await;
    assert_eq!((ended.status, ended.header("location")), (303, Some("/auth/sessions")));
    assert_eq!((third.get("/x").await.status, desk.get("/x").await.status), (401, 200));
}

#[tokio::test]
async fn whoever_holds_a_stolen_cookie_long_after_the_sign_in_cannot_shut_its_owner_out() {
    let world = World::start(RULES).await;
    let mut owner = world.browser(ADA).await;
    let mut stolen = world.browser(ADA).await;
    let name = own(&mut owner).await;
    world.advance(5 * MINUTE).await;
    for (method, path) in [
        ("DELETE", format!("/auth/sessions/{name}")),
        ("POST", format!("/auth/sessions/{name}/revoke")),
        ("POST", "/auth/sessions/revoke-others".to_owned()),
    ] {
        let refused = change(&mut stolen, method, &path).await;
        assert_eq!(outcome(&refused), (401, Some("re_auth_required")), "{path}");
        assert_eq!(body(&refused)["max_age_seconds"], 300);
    }
    assert_eq!(owner.get("/x").await.status, 200);
}

#[tokio::test]
async fn a_session_cookie_that_a_client_chose_is_never_taken_over() {
    let world = World::start(RULES).await;
    let chosen = "A".repeat(43);
    let mut browser = world.visitor();
    let token = browser.ask_for_link(&world.mailbox, ADA, "/").await;
    // As planted by somebody who knows it: before the sign-in, and with it.
    let planted = format!("{}; __Host-doorward_sid={chosen}", browser.cookies());
    let request = Request::new("POST", "/auth/login/callback").with("Cookie", planted);
    let request = request.with("Content-Type", "application/json").body(json!({ "token": token }).to_string());
    let answer = browser.ask(request).await;
    assert_eq!(outcome(&answer), (200, None));
    assert_ne!(browser.cookie("__Host-doorward_sid"), Some(chosen.as_str()));
    let known = world.anonymous().with("Cookie", &format!("__Host-doorward_sid={chosen}")).get("/x").await;
    assert_eq!(outcome(&known), (401, Some("session_unknown")));
    assert_eq!(browser.get("/x").await.status, 200);
}

#[tokio::test]
async fn a_list_that_cannot_be_read_or_changed_says_so_and_ends_nothing() {
    let world = World::start(RULES).await;
    let mut desk = world.browser(ADA).await;
    let phone = world.browser(ADA).await;
    let phones = own(&mut phone.clone()).await;
    assert_eq!(desk.get("/x").await.status, 200);
    world.store().close().await;
    assert_eq!(outcome(&desk.get("/auth/sessions").await), (503, Some("store_unavailable")));
    let refused = change(&mut desk, "DELETE", &format!("/auth/sessions/{phones}")).await;
    assert_eq!(outcome(&refused), (503, Some("store_unavailable")));
    let refused = change(&mut desk, "POST", "/auth/sessions/revoke-others").await;
    assert_eq!(outcome(&refused), (503, Some("store_unavailable")));
}

#[tokio::test]
async fn a_session_token_is_in_the_database_as_its_sha_256_and_nothing_else() {
    let world = World::start(RULES).await;
    let desk = world.browser(ADA).await;
    let text = desk.cookie("__Host-doorward_sid").unwrap().to_owned();
    let hash = *OpaqueToken::parse(&text).expect("32 bytes as base64url").hash().as_bytes();
    let token = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &text).unwrap();
    let mut has_hash = false;
    for entry in fs::read_dir(world.folder()).unwrap() {
        let path = entry.unwrap().path();
        let Ok(bytes) = fs::read(&path) else { continue };
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(!holds(text.as_bytes()) && !holds(&token), "{}", path.display());
        has_hash |= holds(&hash);
    }
    assert!(has_hash, "looked in the wrong place");
}

/// Waits until a purge has run at the time that the clock shows.
async fn purged(world: &World) {
    let now = world.clock.now().wall;
    until("the purge has run", Duration::from_secs(30), async || {
        let runs = world.store().job_runs(Some("purge".to_owned()), 10).await.unwrap();
        runs.iter().any(|run| run.started_at == now && run.outcome == Some(JobOutcome::Done)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_purge_spares_for_two_minutes_what_may_have_been_used_since_it_was_written() {
    let world = Setup::of(RULES).jobs("purge = \"* * * * *\"").start().await;
    let (mut ada, _bob) = (world.browser(ADA).await, world.browser("bob@example.com").await);
    let left = async |email: &str| {
        let user = world.store().user_by_email(Email::parse(email).unwrap()).await.unwrap().unwrap();
        world.store().sessions_of(user.id).await.unwrap().len()
    };
    // Uses are written once a minute: the store knows nothing of this one.
    world.advance(MINUTE - Duration::from_secs(1)).await;
    assert_eq!(ada.get("/x").await.status, 200);
    // An hour and 50 seconds after the use that is written, which is past the idle limit of an hour.
    world.advance(59 * MINUTE + Duration::from_secs(51)).await;
    purged(&world).await;
    assert_eq!((left(ADA).await, left("bob@example.com").await), (1, 1));
    assert_eq!(ada.get("/x").await.status, 200, "and hers is not over");
    let user = world.store().user_by_email(Email::parse(ADA).unwrap()).await.unwrap().unwrap();
    let now = world.clock.now().wall;
    until("this use is written", Duration::from_secs(30), async || {
        let sessions = world.store().sessions_of(user.id).await.unwrap();
        (sessions[0].last_used_at == now).then_some(())
    })
    .await;
    // Two minutes past the limit nobody can have used it any more.
    world.advance(Duration::from_secs(69)).await;
    purged(&world).await;
    assert_eq!(left("bob@example.com").await, 1, "a second is left");
    world.advance(MINUTE).await;
    purged(&world).await;
    assert_eq!(left("bob@example.com").await, 0);
    assert_eq!(ada.get("/x").await.status, 200);
}
