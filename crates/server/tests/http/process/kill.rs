//! The executable is killed at random points of a sign-in. Whatever the moment: no link is used without its session,
//! no second session begins, what was answered stands, and the audit log verifies.

use std::time::Duration;

use doorward_gate::clock::Clock;
use doorward_testkit::{
    mail::MailSink,
    postgres,
    process::{Process, Signal},
    wire::Wire,
};
use serde_json::json;

use super::{Installation, PATIENCE, cookie, database::Database, figure, now, reason, until};

/// Sign-ins that nobody kills, before the others: with the first of those all the links that one client gets in a minute.
const WARM: usize = 2;

/// How many points; `DOORWARD_KILLS=200` for more.
fn points() -> usize {
    let given = std::env::var("DOORWARD_KILLS").ok();
    given.map_or(30, |text| text.parse().unwrap_or_else(|_| panic!("DOORWARD_KILLS is a number, not {text:?}")))
}

fn rest(store: &str, sink: &MailSink) -> String {
    format!(
        "{store}[login]\nresponse_floor = \"0s\"\n[mail]\nurl = \"{}\"\nfrom = \"Doorward <login@example.com>\"\n",
        sink.url()
    )
}

/// A link and the browser that asked for it.
struct Asked {
    login: String,
    token: String,
}

/// Asks for a link; the login cookie of the browser.
async fn ask(one: &Installation, email: &str) -> String {
    let asked = one.post("/auth/login/request-link", "", &json!({ "email": email })).await;
    assert_eq!(asked.status, 200, "{asked:?}");
    cookie(&asked, "doorward_login")
}

/// The token in the mail to `email` of this place in their order, once it is there.
async fn token(sink: &MailSink, email: &str, place: usize) -> String {
    let (text, _) = until("the mail is there", PATIENCE, async || {
        let mails = sink.mails().await;
        mails.into_iter().filter(|mail| mail.to == [email]).nth(place).map(|mail| mail.text.unwrap())
    })
    .await;
    let link = text.split_whitespace().find(|word| word.contains("/login/callback?token=")).unwrap();
    link.split_once("?token=").unwrap().1.to_owned()
}

/// The bytes that press the button.
fn press(one: &Installation, asked: &Asked) -> String {
    let (host, body) = (one.address(), json!({ "token": asked.token }).to_string());
    format!(
        "POST /auth/login/callback HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nCookie: {}\r\n\r\n{body}",
        body.len(),
        asked.login
    )
}

/// Kills after `delay`, to the microsecond that the system allows.
async fn kill_after(mut server: Process, delay: Duration) -> Process {
    tokio::task::spawn_blocking(move || {
        std::thread::sleep(delay);
        server.signal(Signal::KILL);
        server
    })
    .await
    .unwrap()
}

/// A number from 0 to 1.
fn random(clock: &Clock) -> f64 {
    f64::from(u32::from_be_bytes(clock.random())) / f64::from(u32::MAX)
}

/// What the database says of a user.
fn state(database: &Database, email: &str) -> (i64, i64, i64) {
    let user = format!("(SELECT id FROM users WHERE email = '{email}')");
    let sessions = database.number(&format!("SELECT count(*) FROM sessions WHERE user_id = {user}"));
    let used = database.number(&format!("SELECT count(*) FROM links WHERE user_id = {user} AND used_at IS NOT NULL"));
    let created = "SELECT count(*) FROM audit WHERE kind = 'session.created' AND user_id =";
    (used, sessions, database.number(&format!("{created} {user}")))
}

async fn sign_in_survives(one: &Installation, database: &Database, sink: &MailSink) {
    let (clock, points) = (Clock::system(), points());
    let people = (0..points).map(|n| format!("user{n}")).chain((0..WARM).map(|n| format!("warm{n}")));
    let people: String = people.map(|name| format!("{{\"email\":\"{name}@example.com\"}}\n")).collect();
    std::fs::write(one.path().join("people.jsonl"), people).unwrap();
    one.ok(&["users", "import", "people.jsonl", "--apply"]).await;
    let mut server = one.serve_ready().await;
    // What a sign-in takes on this machine: the shortest, since whatever else goes on only adds to it.
    let mut centre = PATIENCE;
    for n in 0..WARM {
        let email = format!("warm{n}@example.com");
        let asked = Asked { login: ask(one, &email).await, token: token(sink, &email, 0).await };
        let began = now();
        assert_eq!(Wire::ask(one.address(), press(one, &asked)).await.status, 200);
        centre = centre.min(began.elapsed());
    }
    // From there it moves towards the moment of the commit: earlier after a link that was used, later after one that was
    // not.
    let (mut used_first, mut answered, mut while_asking) = (0, 0, 0);
    for n in 0..points {
        let email = format!("user{n}@example.com");
        let mut cookie_of = None;
        let asked = if n % 5 == 4 {
            // Somewhere between the request and its mail.
            while_asking += 1;
            let mut wire = Wire::to(one.address()).await;
            let (host, body) = (one.address(), json!({ "email": email }).to_string());
            let head = format!(
                "POST /auth/login/request-link HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n\
                 Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            wire.send(head).await;
            server = kill_after(server, centre.mul_f64(5.0 * random(&clock))).await;
            wire.rest().await;
            None
        } else {
            let asked = Asked { login: ask(one, &email).await, token: token(sink, &email, 0).await };
            let mut wire = Wire::to(one.address()).await;
            let started = now();
            wire.send(press(one, &asked)).await;
            let killed = tokio::spawn(kill_after(server, centre.mul_f64(0.4 + 1.2 * random(&clock))));
            let answer = String::from_utf8_lossy(&wire.rest().await).into_owned();
            if n == 0 {
                figure("a sign-in that is killed", started.elapsed());
            }
            server = killed.await.unwrap();
            if answer.starts_with("HTTP/1.1 200 ") && answer.contains("\r\n\r\n") {
                answered += 1;
                let set = answer.lines().find_map(|line| line.strip_prefix("set-cookie: doorward_sid="));
                cookie_of = set.and_then(|value| value.split(';').next()).map(str::to_owned);
            }
            Some(asked)
        };
        assert_eq!(server.exit(PATIENCE).await.code(), None, "by the signal");
        database.settled().await;
        let (used, sessions, created) = state(database, &email);
        assert_eq!((used, used), (sessions, created), "{n}: used, sessions, rows: {used} {sessions} {created}");
        assert!(sessions <= 1, "{n}: {sessions} sessions");
        let verified = one.ok(&["audit", "verify"]).await;
        assert!(verified.contains("the log holds"), "{n}: {verified}");
        let step = if used == 1 { 0.8 } else { 1.25 };
        if asked.is_some() {
            used_first += used;
            centre = centre.mul_f64(step).clamp(Duration::from_micros(300), Duration::from_secs(10));
        }

        server = one.serve_ready().await;
        if let Some(sid) = cookie_of {
            assert_eq!(used, 1, "{n}: answered and not kept");
            let session = one.get("/auth/session", &format!("Cookie: doorward_sid={sid}\r\n")).await;
            assert!(session.text().contains(&email), "{n}: answered and gone: {session:?}");
        }
        // The person goes on with what there is: the same link, or another one where there is none.
        let answer = match asked {
            Some(asked) => Wire::ask(one.address(), press(one, &asked)).await,
            None => {
                let login = ask(one, &email).await;
                let mut place = 0;
                loop {
                    let asked = Asked { login: login.clone(), token: token(sink, &email, place).await };
                    let answer = Wire::ask(one.address(), press(one, &asked)).await;
                    // The mail of the request that was cut off may come after all, and belongs to no browser now.
                    if reason(&answer) != (403, Some("link_wrong_browser")) {
                        break answer;
                    }
                    place += 1;
                }
            }
        };
        match used {
            0 => assert_eq!(answer.status, 200, "{n}: {answer:?}"),
            _ => assert_eq!(reason(&answer), (409, Some("link_reused")), "{n}"),
        }
        assert_eq!(state(database, &email), (1, 1, 1), "{n}");
    }
    eprintln!(
        "FIGURE killed {points} times: {while_asking} while the link was asked for, {used_first} after the commit \
         ({answered} of them answered), the rest before it"
    );
    if points >= 30 {
        let pressed = i64::try_from(points - while_asking).unwrap();
        assert!((1..pressed).contains(&used_first), "killed on one side of the commit only: {used_first} of {pressed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_point_of_a_sign_in_leaves_it_done_or_undone_over_sqlite() {
    let Some(sink) = MailSink::start().await else { return };
    let one = Installation::with(&rest("", &sink));
    let database = Database::Sqlite(one.path().join("data/doorward.db"));
    sign_in_survives(&one, &database, &sink).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_point_of_a_sign_in_leaves_it_done_or_undone_over_postgresql() {
    let Some(sink) = MailSink::start().await else { return };
    let Some(server) = postgres::shared() else { return };
    let url = server.database();
    let store = format!("[store]\nurl = \"{url}\"\n[secrets]\nroot = \"only for this test, only for this test\"\n");
    let one = Installation::with(&rest(&store, &sink));
    sign_in_survives(&one, &Database::of(server, &url), &sink).await;
}
