//! Step-up: what needs a recent sign-in asks for one, and the way there and back.

use std::time::Duration;

use doorward_core::{api_key::KeyOwner, effects::Effects, session::TokenHash, user::Email};
use doorward_testkit::wire::Answer;
use serde_json::{Value, json};

use crate::world::{Caller, Request, Seen, Setup, World, json as body, mail_to, outcome};

const RULES: &str = r#"
    [[rules]]
    path = "/careful/*"
    allow = ["session", "bearer", "api_key"]
    require = { recent_auth = true }
    app = "web"

    [[rules]]
    path = "/*"
    allow = ["session"]
    app = "web"
"#;
const ADA: &str = "ada@example.com";
const SID: &str = "__Host-doorward_sid";
const CSRF: &str = "__Host-doorward_csrf";
const MINUTE: Duration = Duration::from_secs(60);

/// Somebody whose sign-in is not recent any more.
async fn long_signed_in(world: &World) -> Caller {
    let browser = world.browser(ADA).await;
    world.advance(5 * MINUTE).await;
    browser
}

/// Asks for the mail; returns the token of its link.
async fn ask(world: &World, browser: &mut Caller, return_to: &str) -> String {
    let known = world.mailbox.mails().iter().filter(|mail| mail.to.as_str() == ADA).count();
    let csrf = browser.cookie(CSRF).unwrap().to_owned();
    let wish = Request::new("POST", "/auth/reauth").with("Content-Type", "application/json");
    let wish = wish.with("X-CSRF-Token", csrf).body(json!({ "return_to": return_to }).to_string());
    let answer = browser.ask(wish).await;
    assert_eq!((outcome(&answer), answer.text().as_str()), ((200, None), r#"{"ok":true}"#), "{answer:?}");
    let text = mail_to(&world.mailbox, ADA, known).await;
    let (_, token) = text.split_once("/auth/login/callback?token=").unwrap_or_else(|| panic!("no link: {text}"));
    token.split_whitespace().next().unwrap().to_owned()
}

async fn confirm(browser: &mut Caller, token: &str) -> Answer {
    browser.post("/auth/login/callback", &json!({ "token": token })).await
}

async fn session(browser: &mut Caller) -> Value {
    body(&browser.get("/auth/session").await)
}

async fn session_id(browser: &mut Caller) -> Value {
    let listed = body(&browser.get("/auth/sessions").await);
    let listed = listed["sessions"].as_array().unwrap().clone();
    listed.into_iter().find(|session| session["current"] == true).unwrap()["id"].clone()
}

#[tokio::test]
async fn a_fresh_proof_gives_a_new_session_with_the_same_end_and_ends_the_old_one() {
    let world = World::start(RULES).await;
    let mut ada = long_signed_in(&world).await;
    let refused = ada.get("/careful/x").await;
    assert_eq!(outcome(&refused), (401, Some("re_auth_required")));
    assert_eq!(
        (&body(&refused)["max_age_seconds"], &body(&refused)["remedy"]),
        (&json!(300), &json!("re_authenticate"))
    );
    let (before, id, copy) = (session(&mut ada).await, session_id(&mut ada).await, ada.clone());

    let token = ask(&world, &mut ada, "/careful/x?y=1").await;
    assert_eq!(outcome(&ada.get("/careful/x").await), (401, Some("re_auth_required")), "asking proves nothing");
    world.advance(MINUTE).await;
    let done = ada.ask(
        Request::new("POST", "/auth/login/callback")
            .with("Content-Type", "application/x-www-form-urlencoded")
            .body(format!("token={token}")),
    );
    let done = done.await;
    assert_eq!((done.status, done.header("location")), (303, Some("/careful/x?y=1")), "{done:?}");

    let after = session(&mut ada).await;
    assert_eq!((&after["created_at"], &after["expires_at"]), (&before["created_at"], &before["expires_at"]));
    assert_eq!(
        (&before["authenticated_at"], &after["authenticated_at"]),
        (&json!("2027-01-15T08:00:00Z"), &json!("2027-01-15T08:06:00Z"))
    );
    assert_ne!(session_id(&mut ada).await, id);
    assert_ne!(ada.cookie(SID), copy.cookie(SID));
    assert_ne!(after["csrf_token"], before["csrf_token"], "the token belongs to the session");
    assert_eq!(Seen::of(&ada.get("/careful/x?y=1").await).header("x-doorward-email"), Some(ADA));
    assert_eq!(copy.clone().get("/x").await.status, 401, "the old one is over");
    assert_eq!(outcome(&confirm(&mut copy.clone(), &token).await), (409, Some("link_reused")));

    // The absolute end is where it was, however often somebody proves who they are.
    for _ in 0..3 {
        world.advance(59 * MINUTE).await;
        let token = ask(&world, &mut ada, "/").await;
        assert_eq!(confirm(&mut ada, &token).await.status, 200);
    }
    assert_eq!(session(&mut ada).await["expires_at"], before["expires_at"]);
    let rows = body(&ada.get("/auth/sessions").await)["sessions"].as_array().unwrap().len();
    assert_eq!(rows, 1, "one goes on, none is left behind");
}

#[tokio::test]
async fn a_browser_is_led_to_the_page_and_back_to_where_it_was() {
    let world = World::start(RULES).await;
    let mut ada = long_signed_in(&world).await;
    let led = ada.ask(Request::get("/careful/x?y=1&z=2").with("Sec-Fetch-Mode", "navigate")).await;
    assert_eq!(
        (led.status, led.header("location")),
        (302, Some("/auth/reauth?return_to=%2Fcareful%2Fx%3Fy%3D1%26z%3D2"))
    );
    assert_eq!(led.header("x-doorward-reason"), Some("re_auth_required"));
    let page =
        ada.ask(Request::get("/auth/reauth?return_to=%2Fcareful%2Fx%3Fy%3D1").with("Sec-Fetch-Mode", "navigate"));
    let page = page.await.text();
    assert!(page.contains(ADA) && page.contains("value=\"/careful/x?y=1\""), "{page}");
    // A form posted to one of our own routes comes back to its page, because the form cannot be posted again.
    let csrf = ada.cookie(CSRF).unwrap().to_owned();
    let form = |path: &str| {
        let form = Request::new("POST", path).with("Sec-Fetch-Mode", "navigate");
        form.with("Content-Type", "application/x-www-form-urlencoded").body(format!("csrf_token={csrf}"))
    };
    let led = ada.ask(form("/auth/sessions/revoke-others")).await;
    assert_eq!((led.status, led.header("location")), (302, Some("/auth/reauth?return_to=%2Fauth%2Fsessions")));
    // Forward-auth says the same in its dialect.
    let asked = Request::get("/auth/check/nginx").with("X-Original-Method", "GET").with("X-Original-URL", "/careful/x");
    let asked = asked.with("X-Forwarded-Host", crate::world::HOST).with("Sec-Fetch-Mode", "navigate");
    let asked = ada.ask(asked).await;
    assert_eq!(
        (asked.status, asked.header("x-doorward-redirect")),
        (401, Some("/auth/reauth?return_to=%2Fcareful%2Fx"))
    );
    let sent = ada.ask(form("/auth/reauth")).await;
    assert!(sent.status == 200 && sent.text().contains(ADA), "{sent:?}");
    let nobody = world.visitor().ask(Request::get("/auth/reauth").with("Sec-Fetch-Mode", "navigate")).await;
    assert_eq!(nobody.header("location"), Some("/auth/login?return_to=%2Fauth%2Freauth"), "{nobody:?}");
}

#[tokio::test]
async fn no_bearer_and_no_api_key_is_ever_recent() {
    let world = World::start(RULES).await;
    let token = world.issuer.mint(&world.claims());
    let key = world.api_key(KeyOwner::User(world.user("k@example.com").await.id), &[], |_| {}).await;
    for credential in [&token, &key] {
        let answer = world.bearer(credential).get("/careful/x").await;
        assert_eq!(outcome(&answer), (401, Some("re_auth_required")));
        let answer = world.bearer(credential).post("/auth/reauth", &json!({})).await;
        assert_eq!(outcome(&answer), (401, Some("no_credential")));
    }
}

#[tokio::test]
async fn the_mail_goes_to_the_sessions_own_address_and_works_in_its_browser_alone() {
    let world = World::start(RULES).await;
    let mut ada = long_signed_in(&world).await;
    let csrf = ada.cookie(CSRF).unwrap().to_owned();
    let wish = Request::new("POST", "/auth/reauth").with("Content-Type", "application/json").with("X-CSRF-Token", csrf);
    let elsewhere = ada.ask(wish.body(r#"{"email":"eve@example.com","return_to":"https://evil.example/"}"#)).await;
    assert_eq!(elsewhere.status, 200, "{elsewhere:?}");
    crate::door::until("the mail arrives", || world.mailbox.mails().len() == 2).await;
    let mail = world.mailbox.mails()[1].clone();
    assert_eq!(mail.to.as_str(), ADA, "whatever the request says");
    assert!(mail.text.contains("needs a fresh proof") && mail.html.contains("needs a fresh proof"), "{}", mail.text);
    let token = mail.text.split_once("?token=").unwrap().1.split_whitespace().next().unwrap().to_owned();

    let stranger = confirm(&mut world.visitor(), &token).await;
    assert_eq!(outcome(&stranger), (403, Some("link_wrong_browser")));
    // The same browser, but the session is another one, or none.
    let login = ada.cookie("__Host-doorward_login").unwrap().to_owned();
    let alone = world.anonymous().with("Cookie", &format!("__Host-doorward_login={login}"));
    assert_eq!(outcome(&confirm(&mut alone.clone(), &token).await), (401, Some("session_unknown")));
    let eve = world.browser("eve@example.com").await;
    let mixed = format!("__Host-doorward_login={login}; {SID}={}", eve.cookie(SID).unwrap());
    let mixed = confirm(&mut world.anonymous().with("Cookie", &mixed), &token).await;
    assert_eq!(outcome(&mixed), (401, Some("session_unknown")));
    assert_eq!(confirm(&mut ada, &token).await.status, 200, "none of it burnt the link");
    assert_eq!(ada.get("/careful/x").await.status, 200);
}

#[tokio::test]
async fn a_session_that_is_over_does_not_come_back_by_a_fresh_proof() {
    let world =
        Setup::of(RULES).login("allow_sign_up = true\nresponse_floor = \"0s\"\nlink_ttl = \"2h\"").start().await;
    let mut idle = long_signed_in(&world).await;
    let token = ask(&world, &mut idle, "/").await;
    world.advance(61 * MINUTE).await;
    let refused = confirm(&mut idle, &token).await;
    assert_eq!(outcome(&refused), (401, Some("session_idle")));

    let mut revoked = long_signed_in(&world).await;
    let token = ask(&world, &mut revoked, "/").await;
    let cookies = revoked.cookies();
    assert_eq!(revoked.post("/auth/logout", &json!({})).await.status, 200);
    let refused = confirm(&mut world.anonymous().with("Cookie", &cookies), &token).await;
    assert_eq!(outcome(&refused), (401, Some("session_unknown")));
    let sid = TokenHash::of(b"none");
    assert!(world.store().session(sid).await.unwrap().is_none());
}

#[tokio::test]
async fn asking_again_and_again_is_refused_with_when_to_come_back() {
    let world = World::start(RULES).await;
    let mut ada = long_signed_in(&world).await;
    let csrf = ada.cookie(CSRF).unwrap().to_owned();
    let mut last = None;
    for _ in 0..6 {
        last = Some(ada.ask(Request::new("POST", "/auth/reauth").with("X-CSRF-Token", &csrf)).await);
    }
    let refused = last.unwrap();
    assert_eq!(outcome(&refused), (429, Some("rate_limited")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    world.advance(Duration::from_secs(wait)).await;
    let again = ada.ask(Request::new("POST", "/auth/reauth").with("X-CSRF-Token", &csrf)).await;
    assert_eq!(again.status, 200, "{again:?}");
}

#[tokio::test]
async fn a_fresh_proof_of_one_person_is_worth_nothing_in_the_session_of_another() {
    let world = World::start(RULES).await;
    let mut shared = long_signed_in(&world).await;
    let token = ask(&world, &mut shared, "/careful/x").await;
    let text = mail_to(&world.mailbox, ADA, 1).await;
    let code = text.lines().find(|line| line.len() == 9 && line.as_bytes()[4] == b'-').unwrap().to_owned();
    // The browser that asked, with its login cookie, and another person in it by now.
    let login = shared.cookie("__Host-doorward_login").unwrap().to_owned();
    let eve = world.browser("eve@example.com").await;
    world.advance(5 * MINUTE).await;
    let sid = eve.cookie(SID).unwrap();
    let mixed = || world.anonymous().with("Cookie", &format!("__Host-doorward_login={login}; {SID}={sid}"));
    assert_eq!(outcome(&confirm(&mut mixed(), &token).await), (401, Some("session_unknown")));
    let typed = mixed().post("/auth/login/code", &json!({ "code": code })).await;
    assert!(typed.status == 401 && typed.header("set-cookie").is_none(), "{typed:?}");
    assert_eq!(outcome(&mixed().get("/careful/x").await), (401, Some("re_auth_required")), "nobody became recent");
    assert_eq!(outcome(&shared.get("/careful/x").await), (401, Some("re_auth_required")));
    // Her own link from the same inbox, for a sign-in: it does not step up the session that asked either.
    assert_eq!(confirm(&mut shared, &token).await.status, 200, "and in hers it works");
}

#[tokio::test]
async fn a_ban_an_unban_or_another_address_voids_a_proof_that_was_asked_for() {
    let world = World::start(RULES).await;
    for change in ["ban", "unban", "address", "role"] {
        let mut ada = world.visitor().with("X-Forwarded-For", "203.0.113.7");
        ada.sign_in(&world.mailbox, ADA).await;
        world.advance(5 * MINUTE).await;
        let token = ask(&world, &mut ada, "/").await;
        let store = world.store();
        let user = store.user_by_email(Email::parse(ADA).unwrap()).await.unwrap().unwrap();
        let now = world.clock.now().wall;
        match change {
            "ban" => {
                store.set_banned(user.id, Some(now), Effects::default()).await.unwrap();
            }
            "unban" => {
                store.set_banned(user.id, Some(now), Effects::default()).await.unwrap();
                store.set_banned(user.id, None, Effects::default()).await.unwrap();
            }
            "role" => {
                store.set_admin(user.id, true, Effects::default()).await.unwrap();
            }
            _ => {
                let other = Email::parse("other@example.com").unwrap();
                store.update_email(user.id, user.version, other, Effects::default()).await.unwrap();
            }
        }
        let refused = confirm(&mut ada, &token).await;
        let expected = if change == "ban" { (403, Some("user_banned")) } else { (401, Some("link_invalid")) };
        assert_eq!(outcome(&refused), expected, "{change}");
        let sessions = store.sessions_of(user.id).await.unwrap();
        assert!(sessions.iter().all(|session| session.authenticated_at == session.created_at), "{change}");
        // As it was, for the next round.
        let user = store.user(user.id).await.unwrap().unwrap();
        if change == "ban" {
            store.set_banned(user.id, None, Effects::default()).await.unwrap();
        } else if change == "address" {
            let back = Email::parse(ADA).unwrap();
            store.update_email(user.id, user.version, back, Effects::default()).await.unwrap();
        }
        world.advance(15 * MINUTE).await;
    }
}

#[tokio::test]
async fn of_many_who_use_one_proof_at_once_one_session_goes_on() {
    let world = World::start(RULES).await;
    let mut ada = long_signed_in(&world).await;
    let token = ask(&world, &mut ada, "/").await;
    let all = (0..30).map(|_| {
        let (mut browser, token) = (ada.clone(), token.clone());
        async move { confirm(&mut browser, &token).await }
    });
    let answers = futures_util::future::join_all(all).await;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 401, 409, 429].contains(status)), "{statuses:?}");
    let user = world.store().user_by_email(Email::parse(ADA).unwrap()).await.unwrap().unwrap();
    assert_eq!(world.store().sessions_of(user.id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn where_nothing_takes_mails_what_needs_one_says_so_and_promises_none() {
    let world = Setup::of(RULES).without_mail().start().await;
    let mut ada = world.first_admin(ADA).await;
    let unavailable = (503, Some("mail_unavailable"));
    let page = ada.get("/auth/reauth").await;
    assert_eq!(outcome(&page), unavailable);
    assert!(page.header("retry-after").is_some(), "{page:?}");
    let csrf = ada.cookie(CSRF).unwrap().to_owned();
    let wishes = [("/auth/reauth", json!({})), ("/auth/profile/email", json!({ "email": "new@example.com" }))];
    for (path, wish) in wishes {
        let request = Request::new("POST", path).with("Content-Type", "application/json").with("X-CSRF-Token", &*csrf);
        assert_eq!(outcome(&ada.ask(request.body(wish.to_string())).await), unavailable, "{path}");
    }
    assert_eq!(outcome(&ada.get("/auth/profile/email").await), unavailable);
    // Who asks for a sign-in is told nothing about this installation.
    let asked = world.visitor().post("/auth/login/request-link", &json!({ "email": ADA })).await;
    assert_eq!(outcome(&asked), (200, None));
    assert!(world.store().outbox_counts().await.unwrap().pending <= 1, "no mail for the wishes");
}
