//! The step scenarios of `vectors/own/scenarios.json`: scanners, buttons pressed at once, newer links, pending users, and
//! where links and mails go.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use doorward_core::{
    effects::Effects,
    user::{Email, LinkStatus},
};
use doorward_gate::flow::{DirectoryFault, SubjectAnswer, SubjectDirectory};
use doorward_testkit::{neighbour, postgres, wire::Answer};
use serde_json::{Value, json};

use super::{RULES, SID, confirm, link, set};
use crate::world::{Caller, Request, Setup, World, json as body, outcome};

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const ADA: &str = "ada@example.com";

/// A license provider that knows the subjects of some addresses.
#[derive(Debug)]
pub(crate) struct Provider {
    subjects: Mutex<BTreeMap<String, String>>,
    is_down: AtomicBool,
}

impl Provider {
    pub(crate) fn of(subjects: &[(&str, &str)]) -> Self {
        let subjects = subjects.iter().map(|&(email, subject)| (email.to_owned(), subject.to_owned())).collect();
        Self { subjects: Mutex::new(subjects), is_down: AtomicBool::new(false) }
    }
}

impl SubjectDirectory for Provider {
    fn subject_of<'a>(&'a self, email: &'a Email) -> SubjectAnswer<'a> {
        Box::pin(async move {
            if self.is_down.load(Ordering::SeqCst) {
                return Err(DirectoryFault("connection refused".to_owned()));
            }
            Ok(self.subjects.lock().unwrap().get(email.as_str()).cloned())
        })
    }
}

/// A world in which only those have an account who were given one.
pub(super) async fn closed() -> World {
    Setup::of(RULES).login("response_floor = \"0s\"").start().await
}

/// The code in the latest mail to `email`.
pub(super) fn code(world: &World, email: &str) -> String {
    let mails = world.mailbox.mails();
    let mail = mails.iter().rfind(|mail| mail.to.as_str() == email).unwrap();
    let is_code = |line: &&str| line.len() == 9 && line.as_bytes()[4] == b'-';
    mail.text.lines().find(is_code).unwrap_or_else(|| panic!("no code: {}", mail.text)).to_owned()
}

pub(super) async fn type_code(browser: &mut Caller, code: &str) -> Answer {
    browser.post("/auth/login/code", &json!({ "code": code })).await
}

pub(super) async fn ask(browser: &mut Caller, email: &str) -> Answer {
    browser.post("/auth/login/request-link", &json!({ "email": email })).await
}

pub(super) async fn audited(world: &World, kind: &str) -> Vec<Value> {
    let rows = world.store().audit_tail(0, 10_000).await.unwrap();
    let details = rows.into_iter().filter(|row| row.kind == kind).filter_map(|row| row.detail);
    details.map(|detail| serde_json::from_str(&detail).unwrap()).collect()
}

/// Waits until the requests for links so far have been worked off.
pub(super) async fn worked_off(world: &World, count: u64) {
    crate::door::until("the requests are worked off", || {
        let stats = world.server().sign_in.stats();
        let all =
            [stats.mailed, stats.malformed, stats.unknown, stats.banned, stats.limited, stats.dropped, stats.failed];
        all.iter().sum::<u64>() >= count
    })
    .await;
}

/// Which test drives which scenario of the vector.
const SCENARIOS: [(u64, &str); 27] = [
    (1, "scanners_of_all_kinds_burn_nothing_and_get_nothing"),
    (2, "scanners_of_all_kinds_burn_nothing_and_get_nothing"),
    (3, "scanners_of_all_kinds_burn_nothing_and_get_nothing"),
    (4, "the_code_from_the_mail_signs_in_the_browser_that_asked_and_no_other"),
    (5, "a_hundred_presses_of_one_button_are_one_session"),
    (6, "a_link_works_once_and_in_its_time"),
    (7, "a_newer_link_of_the_same_browser_voids_the_older_one_and_a_strangers_voids_nothing"),
    (8, "with_the_cap_of_ten_minutes_link_and_code_are_over_a_second_later"),
    (9, "nobody_can_time_whether_an_address_is_known"),
    (10, "odd_addresses_get_one_mail_at_most_and_only_to_themselves"),
    (11, "a_foreign_host_gets_no_link"),
    (12, "a_sign_in_ends_at_the_local_address_that_was_asked_for_or_at_the_root"),
    (13, "a_flood_for_one_address_keeps_nobody_out_who_has_signed_in_before"),
    (14, "a_slash_64_is_one_client_and_forwarding_headers_of_strangers_are_nothing"),
    (15, "a_mail_server_that_is_down_delays_nobody_and_a_late_link_is_not_sent_any_more"),
    (16, "a_token_altered_in_any_character_is_invalid_for_one_reason"),
    (17, "a_token_of_another_installation_is_invalid"),
    (18, "a_session_is_no_link_and_a_link_is_no_session"),
    // Documented in docs/decisions/0012: a restored link works until its end, or until its key is rotated away.
    (19, "a_link_of_a_restored_database_works_once_more_until_its_key_is_rotated_away"),
    (20, "fifty_callbacks_at_once_make_exactly_one_session"),
    (21, "a_kill_at_any_point_of_a_sign_in_leaves_it_done_or_undone_over_sqlite"),
    (22, "the_page_of_a_link_keeps_its_token_to_itself"),
    (23, "a_ban_between_mail_and_click_keeps_the_person_out"),
    (24, "scanners_of_all_kinds_burn_nothing_and_get_nothing"),
    (25, "somebody_else_who_is_signed_in_is_asked_first"),
    (26, "a_ban_or_change_between_mail_and_click_voids_the_link"),
    (27, "odd_addresses_get_one_mail_at_most_and_only_to_themselves"),
];

#[test]
fn every_scenario_of_the_vector_has_a_test_that_drives_it() {
    let root = neighbour::repository();
    let file: Value =
        serde_json::from_str(&fs::read_to_string(root.join("vectors/own/scenarios.json")).unwrap()).unwrap();
    let numbers: Vec<u64> =
        file["magic_link"].as_array().unwrap().iter().map(|row| row["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, SCENARIOS.map(|(n, _)| n));
    let mut code = String::new();
    crate::attacks::sources(&root.join("crates"), &mut code);
    for (n, test) in SCENARIOS {
        assert!(code.contains(&format!("fn {test}(")), "SCN.magic {n}: {test} does not exist");
    }
}

#[tokio::test]
async fn scanners_of_all_kinds_burn_nothing_and_get_nothing() {
    let world = closed().await;
    world.user(ADA).await;
    let (mut browser, token) = link(&world, ADA).await;
    let target = format!("/auth/login/callback?token={token}");
    for n in 0..20 {
        let from = format!("198.51.100.{}", n % 5);
        let agent = ["Slackbot-LinkExpanding 1.0", "Mozilla/5.0 (Windows) SafeLinks", "Teams/1.0"][n % 3];
        for method in ["HEAD", "GET"] {
            let mut scanner = world.visitor().with("X-Forwarded-For", &from).with("User-Agent", agent);
            let page = scanner.ask(Request::new(method, &target).with("Sec-Purpose", "prefetch")).await;
            assert_eq!(outcome(&page), (200, None));
            assert!(!page.text().contains("<form"), "nothing to press elsewhere: {}", page.text());
            // One that runs the script and presses the button all the same.
            if n < 5 {
                let pressed = scanner.post_form("/auth/login/callback", &format!("token={token}")).await;
                assert_eq!(outcome(&pressed), (403, Some("link_wrong_browser")));
                assert_eq!(set(&pressed, SID), None);
            }
        }
    }
    // The browser itself fetches ahead of its person: a page, but none that goes on by itself.
    for header in ["prefetch", "prefetch;prerender"] {
        let ahead = browser.ask(Request::get(&target).with("Sec-Purpose", header)).await;
        assert!(ahead.text().contains("<form") && !ahead.text().contains("data-go-on"), "{}", ahead.text());
    }
    let page = browser.get(&target).await;
    assert!(page.text().contains("data-go-on"), "{}", page.text());
    assert_eq!(confirm(&mut browser, &token).await.status, 200);
    let sessions = audited(&world, "session.created").await;
    assert_eq!(sessions.len(), 1);
}

/// Presses the button a hundred times at once; how each answered.
async fn press_a_hundred_times(world: &World) -> Vec<(u16, Option<String>)> {
    let (browser, token) = link(world, ADA).await;
    let presses = (0..100).map(|_| {
        let (mut browser, token) = (browser.clone(), token.clone());
        async move {
            let answer = confirm(&mut browser, &token).await;
            (answer.status, answer.header("x-doorward-reason").map(str::to_owned))
        }
    });
    let mut answers = futures_util::future::join_all(presses).await;
    answers.sort_unstable();
    let user = world.store().user_by_email(Email::parse(ADA).unwrap()).await.unwrap().unwrap();
    assert_eq!(world.store().sessions_of(user.id).await.unwrap().len(), 1);
    answers
}

#[tokio::test]
async fn a_hundred_presses_of_one_button_are_one_session() {
    let world = World::start(RULES).await;
    let answers = press_a_hundred_times(&world).await;
    assert_eq!(answers[0], (200, None));
    assert!(answers[1..].iter().all(|answer| *answer == (409, Some("link_reused".to_owned()))), "{answers:?}");
}

#[tokio::test]
async fn a_hundred_presses_of_one_button_are_one_session_over_postgresql_too() {
    let Some(database) = postgres::shared() else { return };
    let store =
        format!("url = \"{}\"\n[secrets]\nroot = \"only for this test, only for this test\"", database.database());
    let world = Setup::of(RULES).store(&store).start().await;
    let answers = press_a_hundred_times(&world).await;
    assert_eq!(answers[0], (200, None));
    assert!(answers[1..].iter().all(|answer| *answer == (409, Some("link_reused".to_owned()))), "{answers:?}");
}

#[tokio::test]
async fn a_newer_link_of_the_same_browser_voids_the_older_one_and_a_strangers_voids_nothing() {
    let world = closed().await;
    world.user(ADA).await;
    let mut browser = world.visitor();
    let older = browser.ask_for_link(&world.mailbox, ADA, "/").await;
    let newer = browser.ask_for_link(&world.mailbox, ADA, "/").await;
    world.visitor().with("X-Forwarded-For", "203.0.113.1").ask_for_link(&world.mailbox, ADA, "/").await;
    let refused = confirm(&mut browser, &older).await;
    assert_eq!(outcome(&refused), (401, Some("link_invalid")));
    assert!(body(&refused)["detail"].as_str().unwrap().contains("newer link"), "{refused:?}");
    let page =
        browser.ask(Request::get(format!("/auth/login/callback?token={older}")).with("Accept", "text/html")).await;
    assert!(page.status == 401 && page.text().contains("A newer link was sent"), "{}", page.text());
    assert_eq!(confirm(&mut browser, &newer).await.status, 200);
}

#[tokio::test]
async fn a_pending_user_is_promoted_with_the_first_sign_in_or_stopped_by_a_mismatch() {
    let provider = Arc::new(Provider::of(&[(ADA, "subject-of-ada"), ("bob@example.com", "somebody-else")]));
    let setup = Setup::of(RULES).login("response_floor = \"0s\"");
    let world = setup.directory(Arc::clone(&provider) as Arc<dyn SubjectDirectory>).start().await;
    let store = world.store();
    let mut ids = BTreeMap::new();
    for name in ["ada", "bob", "carl"] {
        let user = world.user(&format!("{name}@example.com")).await;
        store.set_pending(user.id, format!("subject-of-{name}"), Effects::default()).await.unwrap();
        ids.insert(name, user.id);
    }
    let user = async |name: &str| store.user(ids[name]).await.unwrap().unwrap();

    // Down: nobody is held up, and stays pending.
    provider.is_down.store(true, Ordering::SeqCst);
    let (mut browser, token) = link(&world, ADA).await;
    assert_eq!(confirm(&mut browser, &token).await.status, 200);
    assert_eq!(user("ada").await.link_status, Some(LinkStatus::PendingVerify));
    provider.is_down.store(false, Ordering::SeqCst);

    let (mut browser, token) = link(&world, ADA).await;
    assert_eq!(confirm(&mut browser, &token).await.status, 200);
    let ada = user("ada").await;
    assert_eq!((ada.link_status, ada.external_subject.as_deref()), (Some(LinkStatus::Linked), Some("subject-of-ada")));

    for _ in 0..2 {
        let (mut browser, token) = link(&world, "bob@example.com").await;
        let refused = confirm(&mut browser, &token).await;
        assert_eq!(outcome(&refused), (409, Some("link_mismatch")));
        assert_eq!(set(&refused, SID), None);
        let page = browser.ask(
            Request::new("POST", "/auth/login/callback")
                .with("Content-Type", "application/x-www-form-urlencoded")
                .with("Accept", "text/html")
                .body(format!("token={token}")),
        );
        assert!(page.await.text().contains("This account could not be linked"));
    }
    assert_eq!(user("bob").await.link_status, Some(LinkStatus::Mismatch));
    assert!(store.sessions_of(ids["bob"]).await.unwrap().is_empty());
    let rows = audited(&world, "link.mismatch").await;
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (&rows[0]["candidate_subject"], &rows[0]["attempted_subject"]),
        (&json!("subject-of-bob"), &json!("somebody-else"))
    );

    // Known to nobody there: no conflict.
    let (mut browser, token) = link(&world, "carl@example.com").await;
    assert_eq!(confirm(&mut browser, &token).await.status, 200);
    assert_eq!(user("carl").await.link_status, Some(LinkStatus::PendingVerify));
}

#[tokio::test]
async fn odd_addresses_get_one_mail_at_most_and_only_to_themselves() {
    let world = World::start(RULES).await;
    let long = format!("{}@example.com", "a".repeat(300));
    let odd = [
        "a@example.com,b@example.com",
        "\"a@evil.example\"@example.com",
        "\"\"e@attacker.example\"@victim.example",
        "a@example.com\r\nBcc: b@example.com",
        "<b>a</b>@example.com",
        "a@b@example.com",
        "ä@example.com",
        long.as_str(),
    ];
    for (n, email) in odd.iter().enumerate() {
        let mut browser = world.visitor().with("X-Forwarded-For", &format!("203.0.113.{n}"));
        assert_eq!(ask(&mut browser, email).await.text(), r#"{"ok":true}"#, "{email}");
    }
    for (n, email) in ["  ADA@Example.COM ", "x@xn--bcher-kva.example"].iter().enumerate() {
        ask(&mut world.visitor().with("X-Forwarded-For", &format!("198.51.100.{n}")), email).await;
    }
    worked_off(&world, 10).await;
    crate::door::until("the mails arrive", || world.mailbox.mails().len() == 2).await;
    let to: BTreeSet<String> = world.mailbox.mails().iter().map(|mail| mail.to.as_str().to_owned()).collect();
    assert_eq!(to, BTreeSet::from([ADA.to_owned(), "x@xn--bcher-kva.example".to_owned()]));
    assert_eq!(world.server().sign_in.stats().malformed, odd.len() as u64);
}

#[tokio::test]
async fn a_foreign_host_gets_no_link() {
    let world = World::start(RULES).await;
    let request = Request::new("POST", "/auth/login/request-link").to("evil.example");
    let refused =
        world.visitor().ask(request.with("Content-Type", "application/json").body(r#"{"email":"a@b.example"}"#)).await;
    assert_eq!(outcome(&refused), (421, Some("host_unknown")));
    let (_, _) = link(&world, ADA).await;
    let text = world.mailbox.mails()[0].text.clone();
    assert!(text.contains("https://app.example/auth/login/callback?token=") && !text.contains("evil"), "{text}");
}

#[tokio::test]
async fn a_token_of_another_installation_is_invalid() {
    let (one, other) = (World::start(RULES).await, World::start(RULES).await);
    let (browser, token) = link(&one, ADA).await;
    let (elsewhere, _) = link(&other, ADA).await;
    let mut thief = other.visitor().with("Cookie", &format!("{}; {}", browser.cookies(), ""));
    assert_eq!(outcome(&confirm(&mut thief, &token).await), (401, Some("link_invalid")));
    assert_eq!(outcome(&confirm(&mut elsewhere.clone(), &token).await), (401, Some("link_invalid")));
}

#[tokio::test]
async fn a_session_is_no_link_and_a_link_is_no_session() {
    let world = World::start(RULES).await;
    let ada = world.browser(ADA).await;
    let session = ada.cookie(SID).unwrap().to_owned();
    let (mut browser, token) = link(&world, "bob@example.com").await;
    assert_eq!(outcome(&confirm(&mut browser, &session).await), (401, Some("link_invalid")));
    let as_session = world.anonymous().with("Cookie", &format!("{SID}={token}")).get("/x").await;
    assert_eq!(outcome(&as_session), (401, Some("session_unknown")));
    let as_bearer = world.bearer(&token).get("/x").await;
    assert_eq!(as_bearer.status, 401);
}

#[tokio::test]
async fn the_page_of_a_link_keeps_its_token_to_itself() {
    let world = World::start(RULES).await;
    let (mut browser, token) = link(&world, ADA).await;
    let page = browser.get(&format!("/auth/login/callback?token={token}")).await;
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("referrer-policy"), Some("strict-origin"), "an origin has no query");
    let text = page.text();
    let script = text.split("<script src=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let script = browser.get(script).await.text();
    assert!(script.contains("history.replaceState"), "{script}");
    assert!(!text.contains("http://") && !text.contains("https://"), "nothing is loaded from elsewhere: {text}");
}

#[tokio::test]
async fn somebody_else_who_is_signed_in_is_asked_first() {
    let world = World::start(RULES).await;
    let mut bob = world.browser("bob@example.com").await;
    let before = bob.clone();
    let token = bob.ask_for_link(&world.mailbox, ADA, "/").await;
    let target = format!("/auth/login/callback?token={token}");
    let page = bob.get(&target).await.text();
    assert!(!page.contains("data-go-on") && page.contains("b•••@example.com"), "{page}");
    let own = world.visitor();
    let mut ada = own;
    ada.sign_in(&world.mailbox, ADA).await;
    world.advance(MINUTE).await;
    let again = ada.ask_for_link(&world.mailbox, ADA, "/").await;
    let page = ada.get(&format!("/auth/login/callback?token={again}")).await.text();
    assert!(page.contains("data-go-on"), "the same person need not be asked: {page}");

    assert_eq!(confirm(&mut bob, &token).await.status, 200);
    assert_ne!(bob.cookie(SID), before.cookie(SID));
    assert_eq!(body(&bob.get("/auth/session").await)["user"]["email"], ADA);
    assert_eq!(before.clone().get("/x").await.status, 401, "the old session has ended");
}
