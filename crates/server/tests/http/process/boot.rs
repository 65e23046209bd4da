//! Starting: binding first, warming later, and what stops it.

use std::{fs, net::TcpListener, time::Duration};

use doorward_testkit::{issuer::Issuer, port, postgres, process::Signal, upstream::EchoApp};
use serde_json::json;

use super::{Installation, PATIENCE, all, figure, reason, until};

/// What a release build has to keep, times ten and more: this one is not optimised, and shares the machine. Whoever
/// waited for a neighbour that is dead would not bind at all.
const FIRST: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(5);
/// Starts of which one has to be that fast: a machine that is busy with something else spoils one, not all of them.
const STARTS: usize = 5;

fn rules(app: &str, issuer: &str, jwks_url: &str) -> String {
    format!(
        r#"
[apps.web]
upstream = "{app}"
[[rules]]
path = "/public/*"
allow = ["public"]
app = "web"
[[rules]]
path = "/api/*"
allow = ["bearer"]
app = "web"
[[rules]]
path = "/*"
allow = ["session"]
app = "web"
[[issuers]]
name = "main"
issuer = "{issuer}"
audiences = ["app"]
keys = {{ jwks_url = "{jwks_url}", min_interval = "1s" }}
"#
    )
}

fn mail(port: u16) -> String {
    format!("[mail]\nurl = \"smtp://127.0.0.1:{port}\"\nfrom = \"Doorward <login@example.com>\"\n")
}

fn seconds() -> i64 {
    doorward_gate::clock::Clock::system().now().wall.as_secs()
}

#[tokio::test]
async fn with_every_neighbour_dead_it_serves_what_it_can_and_follows_them_back_to_life() {
    let Some(database) = postgres::own(postgres::Fsync::Off) else { return };
    let url = database.database();
    database.crash();
    let (app, mut issuer) = (EchoApp::start().await, Issuer::start().await);
    issuer.die().await;
    let store = format!(
        "[store]\nurl = \"{url}\"\n[secrets]\nroot = \"only for this test, only for this test\"\n{}",
        mail(port::free())
    );
    let installation = Installation::with(&(store + &rules(&app.url(), &issuer.url(), &issuer.jwks_url())));
    let (server, bound) = installation.serve_timed(&[]).await;
    figure("port bound, first start, every neighbour dead", bound);
    assert!(bound < FIRST, "{bound:?}");

    assert_eq!(installation.get("/healthz", "").await.text(), r#"{"ok":true}"#);
    let ready = installation.get("/readyz", "").await;
    assert_eq!(reason(&ready), (503, Some("store_unavailable")));
    assert!(ready.header("retry-after").is_some(), "{ready:?}");
    assert_eq!(installation.get("/public/x", "").await.status, 200, "a public route needs no neighbour");
    assert_eq!(reason(&installation.get("/x", "").await), (401, Some("no_credential")));
    let bearer = format!("Authorization: Bearer {}\r\n", issuer.mint(&issuer.claims("app", seconds())));
    let closed = installation.get("/api/x", &bearer).await;
    assert_eq!(reason(&closed), (503, Some("keys_unavailable")), "cannot verify now is not a bad token");
    let session = format!("Cookie: doorward_sid={}\r\n", "A".repeat(43));
    assert_eq!(reason(&installation.get("/x", &session).await), (503, Some("store_unavailable")));
    for warning in ["the store cannot be opened; trying again", "the issuer's keys:"] {
        server.line(PATIENCE, |line| (line.contains("WARN") && line.contains(warning)).then_some(())).await;
    }

    issuer.revive().await;
    let open = async || (installation.get("/api/x", &bearer).await.status == 200).then_some(());
    // The revocation state has never been read, so bearers wait for the database too.
    database.revive();
    installation.until_ready().await;
    until("the token opens its route", PATIENCE, open).await;
    assert_eq!(reason(&installation.get("/x", &session).await), (401, Some("session_unknown")));
}

#[tokio::test]
async fn a_dead_issuer_or_one_that_answers_404_closes_its_route_only() {
    let issuer = Issuer::start().await;
    let app = EchoApp::start().await;
    for jwks_url in [format!("{}/nothing-here", issuer.url()), format!("http://127.0.0.1:{}/keys", port::free())] {
        let installation = Installation::with(&(mail(port::free()) + &rules(&app.url(), &issuer.url(), &jwks_url)));
        let server = installation.serve_ready().await;
        let bearer = format!("Authorization: Bearer {}\r\n", issuer.mint(&issuer.claims("app", seconds())));
        let closed = installation.get("/api/x", &bearer).await;
        assert_eq!(reason(&closed), (503, Some("keys_unavailable")), "{jwks_url}");
        assert_eq!(installation.get("/public/x", "").await.status, 200);
        server
            .line(PATIENCE, |line| (line.contains("WARN") && line.contains("the issuer's keys:")).then_some(()))
            .await;
    }
}

#[tokio::test]
async fn with_sqlite_the_port_is_bound_at_once_and_a_dead_mail_server_is_a_warning() {
    let app = EchoApp::start().await;
    let rest = mail(port::free()) + &rules(&app.url(), "http://127.0.0.1:9", "http://127.0.0.1:9/keys");
    let installation = Installation::with(&rest);
    let (server, first) = installation.serve_timed(&[]).await;
    installation.until_ready().await;
    drop(server);
    installation.ok(&["users", "add", "ada@example.com"]).await;
    let mut starts = Vec::new();
    let server = loop {
        let (server, took) = installation.serve_timed(&[]).await;
        starts.push(took);
        if took < AGAIN || starts.len() == STARTS {
            break server;
        }
    };
    let again = *starts.iter().min().unwrap();
    figure("port bound, first start, SQLite", first);
    figure("port bound, existing SQLite database", again);
    assert!(first < FIRST && again < AGAIN, "{first:?} {starts:?}");
    installation.until_ready().await;
    let asked = installation.post("/auth/login/request-link", "", &json!({ "email": "ada@example.com" })).await;
    assert_eq!((asked.status, asked.text().as_str()), (200, r#"{"ok":true}"#));
    server.line(PATIENCE, |line| (line.contains("WARN") && line.contains("mail not sent")).then_some(())).await;
    assert_eq!(installation.get("/readyz", "").await.status, 200, "mail waits in the outbox");
}

#[tokio::test]
async fn a_wrong_configuration_ends_with_two_and_every_problem_and_a_taken_port_with_one() {
    let rest = rules("http://127.0.0.1:9", "http://127.0.0.1:9", "http://127.0.0.1:9/keys");
    let installation = Installation::with(&format!("{rest}[session]\nidle = \"soon\"\n[login]\nlink_ttll = \"1m\"\n"));
    let ended = installation.run(&["serve"]).await;
    assert_eq!(ended.status.code(), Some(2), "{}", all(&ended));
    for part in ["session.idle: `soon`", "login.link_ttll: unknown key", "2 problems"] {
        assert!(all(&ended).contains(part), "{part} in\n{}", all(&ended));
    }
    installation.configure(&rest);
    let taken = TcpListener::bind(installation.address()).unwrap();
    let ended = installation.run(&["serve"]).await;
    assert_eq!(ended.status.code(), Some(1), "{}", all(&ended));
    assert!(
        all(&ended).contains("listen.http") && all(&ended).contains(&installation.port.to_string()),
        "{}",
        all(&ended)
    );
    drop(taken);
    installation.serve().await;
}

#[tokio::test]
async fn a_root_secret_that_is_missing_is_not_made_anew_while_the_store_holds_keys() {
    let installation = Installation::with("");
    let root = installation.path().join("data/root.key");
    // A store without keys is no reason: the first start makes both.
    installation.ok(&["users", "add", "ada@example.com"]).await;
    assert!(!root.exists());
    let mut server = installation.serve_ready().await;
    until("the keys are made", PATIENCE, async || root.exists().then_some(())).await;
    server.signal(Signal::TERM);
    assert_eq!(server.exit(PATIENCE).await.code(), Some(0));

    let aside = installation.path().join("aside.key");
    fs::rename(&root, &aside).unwrap();
    for command in [&["serve"][..], &["keys", "rotate", "session"], &["jobs", "run", "checkpoint"], &["check"]] {
        let refused = installation.run(command).await;
        let said = all(&refused);
        assert_eq!(refused.status.code(), Some(2), "{command:?}: {said}");
        assert!(said.contains("root.key does not exist") && said.contains("put it back"), "{command:?}: {said}");
        assert!(!root.exists(), "{command:?} made another one");
    }
    fs::rename(&aside, &root).unwrap();
    let server = installation.serve_ready().await;
    assert!(!server.output().contains("cannot be opened"), "{}", server.output());
}
