//! Commands in other processes, replicas, and a kill: who is signed in afterwards.

use doorward_testkit::{
    mail::MailSink,
    postgres,
    process::{Process, Signal},
    upstream::EchoApp,
    wire::Wire,
};

use super::{A_SECOND, Installation, PATIENCE, cookie, figure, reason, until};

fn rest(store: &str, sink: &MailSink, app: &EchoApp) -> String {
    format!(
        "{store}[mail]\nurl = \"{}\"\nfrom = \"Doorward <login@example.com>\"\n[apps.web]\nupstream = \"{}\"\n\
         [[rules]]\npath = \"/*\"\nallow = [\"session\"]\napp = \"web\"\n",
        sink.url(),
        app.url()
    )
}

/// What an ended session is called: by the revocation log's own entry, or once its row is gone.
const ENDED: &[(u16, Option<&str>)] = &[(401, Some("session_revoked")), (401, Some("session_unknown"))];

/// Asserts that every installation refuses this session within the bound, whatever its caches hold.
async fn refused(installations: &[&Installation], session: &str, expected: &[(u16, Option<&str>)]) {
    for installation in installations {
        let (_, took) = until("the session is refused", A_SECOND, async || {
            // An answer on its way when the revocation comes may be cut, but never before its first byte.
            let (host, mut wire) = (installation.address(), Wire::to(installation.address()).await);
            wire.send(format!("GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{session}\r\n")).await;
            let answer = String::from_utf8_lossy(&wire.rest().await).into_owned();
            let is_as_expected = |(status, reason): &(u16, Option<&str>)| {
                answer.starts_with(&format!("HTTP/1.1 {status} "))
                    && answer.contains(&format!("x-doorward-reason: {}\r\n", reason.unwrap()))
            };
            assert!(!answer.is_empty(), "cut off without a word");
            // One that cannot be judged in time lets nobody in, and says nothing about the session.
            let is_refused = !["HTTP/1.1 200 ", "HTTP/1.1 503 "].iter().any(|head| answer.starts_with(head));
            is_refused.then(|| assert!(expected.iter().any(is_as_expected), "{answer}"))
        })
        .await;
        figure("a command's revocation in a running server, after the command ended", took);
    }
}

async fn let_in(installations: &[&Installation], session: &str) {
    for installation in installations {
        let answer = installation.judged("/x", session).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.text().contains(r#"["x-doorward-email","ada@example.com"]"#), "{}", answer.text());
    }
}

/// Signs in, revokes, signs in again, bans: what each command does to the running servers.
async fn commands_are_followed(installations: &[&Installation], sink: &MailSink) {
    let first = installations[0];
    first.ok(&["users", "add", "ada@example.com"]).await;
    let session = first.sign_in(sink, "ada@example.com").await;
    let_in(installations, &session).await;
    first.ok(&["sessions", "revoke", "--user", "ada@example.com"]).await;
    refused(installations, &session, ENDED).await;

    let session = first.sign_in(sink, "ada@example.com").await;
    let_in(installations, &session).await;
    first.ok(&["sessions", "revoke", "--all"]).await;
    refused(installations, &session, ENDED).await;

    let session = first.sign_in(sink, "ada@example.com").await;
    let_in(installations, &session).await;
    first.ok(&["users", "ban", "ada@example.com"]).await;
    // The ban is seen before the rows of the sessions are gone, or after.
    refused(installations, &session, &[ENDED, &[(403, Some("user_banned"))]].concat()).await;
    let verified = first.ok(&["audit", "verify"]).await;
    assert!(!verified.contains("FAULT"), "{verified}");
    let tail = first.ok(&["audit", "tail"]).await;
    for event in ["user.created", "session.created", "session.revoked", "user.banned"] {
        assert!(tail.contains(event), "{event} in\n{tail}");
    }
}

/// Rotates each key under the feet of the running servers.
async fn rotations_are_followed(installations: &[&Installation], sink: &MailSink) {
    let first = installations[0];
    first.ok(&["users", "add", "ada@example.com"]).await;
    let session = first.sign_in(sink, "ada@example.com").await;
    let_in(installations, &session).await;
    // Twice, so that no older key verifies anything.
    for purpose in ["link", "login", "assertion", "audit", "link", "login", "assertion", "audit"] {
        first.ok(&["keys", "rotate", purpose]).await;
    }
    let_in(installations, &session).await;
    let rotated = first.ok(&["keys", "rotate", "session"]).await;
    assert!(rotated.contains("every session has ended"), "{rotated}");
    refused(installations, &session, ENDED).await;
    let session = first.sign_in(sink, "ada@example.com").await;
    let_in(installations, &session).await;
    let verified = first.ok(&["audit", "verify"]).await;
    assert!(!verified.contains("FAULT"), "{verified}");
    let tail = first.ok(&["audit", "tail", "-n", "100"]).await;
    assert!(tail.matches("key.rotated").count() >= 9 && tail.contains("session.revoked"), "{tail}");
    let wrong = first.run(&["keys", "rotate", "everything"]).await;
    assert_eq!(wrong.status.code(), Some(2));
}

#[tokio::test]
async fn keys_are_rotated_under_a_running_server_over_sqlite() {
    let Some(sink) = MailSink::start().await else { return };
    let app = EchoApp::start().await;
    let installation = Installation::with(&rest("", &sink, &app));
    let _server = installation.serve_ready().await;
    rotations_are_followed(&[&installation], &sink).await;
}

#[tokio::test]
async fn keys_are_rotated_under_every_replica_over_postgresql() {
    let Some(sink) = MailSink::start().await else { return };
    let Some(database) = postgres::shared() else { return };
    let app = EchoApp::start().await;
    let store = postgres_store(&database.database());
    let a = Installation::with(&rest(&store, &sink, &app));
    let b = Installation::with(&rest(&store, &sink, &app));
    let (_a, _b) = tokio::join!(a.serve_ready(), b.serve_ready());
    rotations_are_followed(&[&a, &b], &sink).await;
}

fn postgres_store(url: &str) -> String {
    format!("[store]\nurl = \"{url}\"\n[secrets]\nroot = \"only for this test, only for this test\"\n")
}

#[tokio::test]
async fn commands_reach_a_running_server_over_sqlite_within_a_second() {
    let Some(sink) = MailSink::start().await else { return };
    let app = EchoApp::start().await;
    let installation = Installation::with(&rest("", &sink, &app));
    let _server = installation.serve_ready().await;
    commands_are_followed(&[&installation], &sink).await;
}

#[tokio::test]
async fn commands_reach_every_replica_over_postgresql_within_a_second() {
    let Some(sink) = MailSink::start().await else { return };
    let Some(database) = postgres::shared() else { return };
    let app = EchoApp::start().await;
    let store = format!(
        "[store]\nurl = \"{}\"\n[secrets]\nroot = \"only for this test, only for this test\"\n",
        database.database()
    );
    let a = Installation::with(&rest(&store, &sink, &app));
    let b = Installation::with(&rest(&store, &sink, &app));
    // At once, so both make the schema and the first keys.
    let (_a, _b) = tokio::join!(a.serve_ready(), b.serve_ready());
    commands_are_followed(&[&a, &b], &sink).await;
}

#[tokio::test]
async fn a_sign_in_that_was_answered_outlives_a_kill() {
    let Some(sink) = MailSink::start().await else { return };
    let app = EchoApp::start().await;
    let installation = Installation::with(&rest("", &sink, &app));
    installation.ok(&["users", "add", "ada@example.com"]).await;
    let mut server = installation.serve_ready().await;
    for _ in 0..3 {
        let session = installation.sign_in(&sink, "ada@example.com").await;
        killed(&mut server).await;
        server = installation.serve_ready().await;
        let_in(&[&installation], &session).await;
    }
    let verified = installation.ok(&["audit", "verify"]).await;
    assert!(!verified.contains("FAULT"), "{verified}");
}

async fn killed(server: &mut Process) {
    server.signal(Signal::KILL);
    assert_eq!(server.exit(PATIENCE).await.code(), None, "by the signal");
}

#[tokio::test]
async fn the_first_start_prints_an_address_that_makes_one_administrator() {
    const MARK: &str = "/auth/first-admin?token=";
    let installation = Installation::with("");
    let server = installation.serve_ready().await;
    let (token, _) = until("the address is printed", PATIENCE, async || {
        let output = server.output();
        let token = output.split_once(MARK)?.1.split_whitespace().next()?.to_owned();
        (token.len() == 43).then_some(token)
    })
    .await;
    assert!(server.output().contains(&format!("http://{}", installation.address())));
    let page = installation.get(&format!("{MARK}{token}"), "").await;
    assert_eq!(page.status, 200, "{page:?}");
    let wish = serde_json::json!({ "token": token, "email": "ada@example.com" });
    let done = installation.post("/auth/first-admin", "", &wish).await;
    assert_eq!(done.status, 200, "{done:?}");
    let session = format!("Cookie: {}\r\n", cookie(&done, "doorward_sid"));
    let whoami = installation.get("/auth/whoami", &session).await.text();
    assert!(whoami.contains(r#""authenticated":true"#), "{whoami}");
    assert_eq!(reason(&installation.post("/auth/first-admin", "", &wish).await), (409, Some("link_reused")));
    assert!(installation.ok(&["users", "list"]).await.contains("ada@example.com  admin"));
    assert_eq!(server.output().matches(&token).count(), 1, "it is printed once and logged nowhere");
    let mut server = server;
    killed(&mut server).await;
    let server = installation.serve_ready().await;
    assert_eq!(installation.get("/healthz", "").await.status, 200);
    installation.ok(&["users", "list"]).await;
    assert!(!server.output().contains(MARK), "there is an administrator");
}

#[tokio::test]
async fn an_import_is_guarded_goes_on_and_says_by_its_code_what_came_of_it() {
    let installation = Installation::with("");
    let file = installation.path().join("people.csv");
    let hash = "$2b$10$abcdefghijklmnopqrstuuN8H0Q7Vv3Xq1dA0G1yJ6u8m1rC2wJ3K";
    let rows = |count: usize| {
        let rows = (0..count).map(|number| format!("user{number}@example.com,{hash},sub-{number}\n"));
        format!("email,password_hash,pending_subject\n{}", rows.collect::<String>())
    };
    std::fs::write(&file, rows(700)).unwrap();
    let code = async |arguments: &[&str]| {
        let output = installation.run(&[&["users", "import"], arguments].concat()).await;
        (output.status.code(), super::all(&output))
    };
    let (dry, said) = code(&["people.csv"]).await;
    assert!(dry == Some(0) && said.contains("mode=dry-run total=700 created=700"), "{said}");
    assert!(installation.ok(&["users", "list"]).await.contains("no users yet"));
    let (part, said) = code(&["people.csv", "--apply", "--limit", "600"]).await;
    assert!(part == Some(0) && said.contains("created=600"), "{said}");
    std::fs::write(&file, rows(700) + "broken,x,\n").unwrap();
    let (rest, said) = code(&["people.csv", "--apply", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((rest, &report["created"], &report["skipped_existing"]), (Some(1), &100.into(), &600.into()), "{said}");
    assert_eq!((&report["total"], &report["errors"][0]["line"]), (&701.into(), &702.into()));
    assert!(!said.contains(hash));
    for wrong in [&["gone.csv"] as &[&str], &["doorward.toml"], &["people.csv", "--apply", "--dry-run"]] {
        assert_eq!(code(wrong).await.0, Some(2), "{wrong:?}");
    }
    let tail = installation.ok(&["audit", "verify"]).await;
    assert!(!tail.contains("FAULT"), "{tail}");
}
