//! Journey C over real sockets: a person signs in by mail, and what must not work.

mod codes;
mod crowd;
mod limits;
mod links;
pub(crate) mod magic;
mod return_to;
mod sessions;
mod statistics;
mod timing;

use std::time::Duration;

use doorward_testkit::wire::Answer;
use serde_json::json;

use crate::world::{Caller, World, outcome, set_cookies};

const RULES: &str = r#"
    [[rules]]
    path = "/public/*"
    allow = ["public"]
    app = "web"

    [[rules]]
    path = "/token/*"
    allow = ["session"]
    csrf = "token"
    app = "web"

    [[rules]]
    path = "/*"
    allow = ["session"]
    app = "web"
"#;

const SID: &str = "__Host-doorward_sid";
const CSRF: &str = "__Host-doorward_csrf";
const LOGIN: &str = "__Host-doorward_login";

/// Uses a link.
async fn confirm(browser: &mut Caller, token: &str) -> Answer {
    browser.post("/auth/login/callback", &json!({ "token": token })).await
}

/// A link for `email`, in a browser of its own; the limit of three a minute does not count it.
async fn link(world: &World, email: &str) -> (Caller, String) {
    world.advance(Duration::from_secs(20)).await;
    let mut browser = world.visitor();
    let token = browser.ask_for_link(&world.mailbox, email, "/reports?x=1").await;
    (browser, token)
}

/// The attributes of a cookie that an answer sets, and whether it has a value.
fn set(answer: &Answer, name: &str) -> Option<(bool, String)> {
    let cookies = set_cookies(answer);
    let mut found = cookies.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let (value, attributes) = found.next()?.split_once("; ").unwrap();
    assert!(found.next().is_none(), "{name} is set twice: {answer:?}");
    Some((!value.is_empty(), attributes.to_owned()))
}

#[tokio::test]
async fn a_person_signs_in_by_form_lands_where_they_wanted_and_the_app_knows_them() {
    let world = World::start(RULES).await;
    let mut browser = world.visitor();
    let page = browser.get("/auth/login?return_to=%2Freports%3Fx%3D1").await;
    assert_eq!(outcome(&page), (200, None));
    assert!(page.text().contains("/reports?x=1"), "{}", page.text());

    let asked =
        browser.post_form("/auth/login/request-link", "email=Ada%40Example.com&return_to=%2Freports%3Fx%3D1").await;
    assert_eq!(outcome(&asked), (200, None));
    assert!(asked.header("content-type").unwrap().starts_with("text/html"), "{asked:?}");
    let login = (true, "Path=/; Max-Age=86400; HttpOnly; Secure; SameSite=Lax".to_owned());
    assert_eq!(set(&asked, LOGIN), Some(login));
    assert_eq!(browser.cookie(SID), None);
    crate::door::until("the mail arrives", || !world.mailbox.mails().is_empty()).await;
    let text = world.mailbox.mails()[0].text.clone();
    let token = text.split_once("?token=").unwrap().1.split_whitespace().next().unwrap();

    let page = browser.get(&format!("/auth/login/callback?token={token}")).await;
    assert_eq!(outcome(&page), (200, None));
    assert!(page.text().contains(token) && page.text().contains("<form"), "{}", page.text());
    assert_eq!(page.header("referrer-policy"), Some("strict-origin"), "the address holds the token");
    assert_eq!(page.header("cache-control"), Some("no-store"));

    let done = browser.post_form("/auth/login/callback", &format!("token={token}")).await;
    assert_eq!((outcome(&done), done.header("location")), ((303, None), Some("/reports?x=1")));
    let week = 7 * 24 * 3600;
    assert_eq!(set(&done, SID), Some((true, format!("Path=/; Max-Age={week}; HttpOnly; Secure; SameSite=Lax"))));
    assert_eq!(set(&done, CSRF), Some((true, format!("Path=/; Max-Age={week}; Secure; SameSite=Lax"))));
    assert_eq!(set(&done, LOGIN), Some((false, "Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax".to_owned())));
    assert_eq!(done.header("cache-control"), Some("no-store"));

    let seen = crate::world::Seen::of(&browser.get("/reports?x=1").await);
    assert_eq!(seen.header("x-doorward-email"), Some("ada@example.com"));
    assert_eq!(seen.header("cookie"), None, "our cookies are no business of the app");
    let went_on = browser.get("/auth/login?return_to=%2Fx").await;
    assert_eq!((went_on.status, went_on.header("location")), (303, Some("/x")), "whoever is signed in goes on");
}

#[tokio::test]
async fn session_and_whoami_tell_the_person_who_they_are_and_nobody_else() {
    let world = World::start(RULES).await;
    let mut ada = world.browser("ada@example.com").await;
    let session = crate::world::json(&ada.get("/auth/session").await);
    assert_eq!(session["authenticated"], true);
    assert_eq!(session["user"]["email"], "ada@example.com");
    assert_eq!(session["method"], "magic_link");
    assert_eq!(session["csrf_token"].as_str(), ada.cookie(CSRF));
    let at = |name: &str| session[name].as_str().unwrap().to_owned();
    assert_eq!(
        (at("created_at"), at("authenticated_at")),
        ("2027-01-15T08:00:00Z".into(), "2027-01-15T08:00:00Z".into())
    );
    assert_eq!(
        (at("idle_expires_at"), at("expires_at")),
        ("2027-01-15T09:00:00Z".into(), "2027-01-22T08:00:00Z".into())
    );
    let who = crate::world::json(&ada.get("/auth/whoami").await);
    assert_eq!(
        (&who["authenticated"], &who["method"], &who["issuer"]),
        (&json!(true), &json!("session"), &json!("local"))
    );
    assert_eq!((&who["email"], &who["client"]["address"]), (&json!("ada@example.com"), &json!("127.0.0.1")));
    assert_eq!(who["subject"], session["user"]["id"]);

    let anonymous = world.anonymous().get("/auth/session").await;
    assert_eq!((anonymous.status, anonymous.text().as_str()), (200, r#"{"authenticated":false}"#));
    let forged = world.anonymous().with("Cookie", &format!("{SID}={}", "A".repeat(43))).get("/auth/session").await;
    assert_eq!((forged.status, forged.text().as_str()), (200, r#"{"authenticated":false}"#));
    let who = crate::world::json(&world.anonymous().get("/auth/whoami").await);
    assert_eq!((&who["authenticated"], who.get("email")), (&json!(false), None));
}
