//! Where an issuer's keys come from over a deployment's life: `keys fetch`, a first set, kept keys, SIGHUP.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use doorward_core::jose::JwkSet;
use doorward_testkit::{
    issuer::{Fault, Issuer, Poison, Rotation},
    process::{Process, Signal},
    upstream::EchoApp,
    wire::Wire,
};
use rustls::pki_types::PrivateKeyDer;

use super::{Installation, PATIENCE, all, database::Database, is_behind, reason, until};

/// Requests to the executable; ten thousand are asked of the gate itself, in its own tests.
const REQUESTS: usize = 1000;

pub(super) fn rest(app: &EchoApp, issuer: &Issuer, keys: &str) -> String {
    let (app, issuer) = (app.url(), issuer.url());
    // No fetch is late where the test does not say so.
    let limit = if keys.contains("fetch_timeout") { "" } else { ", fetch_timeout = \"60s\"" };
    format!(
        "[apps.web]\nupstream = \"{app}\"\n[[rules]]\npath = \"/api/*\"\nallow = [\"bearer\"]\napp = \"web\"\n\
         [[issuers]]\nname = \"main\"\nissuer = \"{issuer}\"\naudiences = [\"app\"]\nkeys = {{ {keys}{limit} }}\n"
    )
}

pub(super) fn bearer(issuer: &Issuer) -> String {
    let now = doorward_gate::clock::Clock::system().now().wall.as_secs();
    format!("Authorization: Bearer {}\r\n", issuer.mint(&issuer.claims("app", now)))
}

/// What the admin listener shows to Prometheus.
async fn metrics(server: &Process) -> String {
    let address = |line: &str| line.split_once("admin=")?.1.split_whitespace().next()?.parse().ok();
    let admin: SocketAddr = server.line(PATIENCE, address).await;
    Wire::ask(admin, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.text()
}

async fn ask_often(installation: &Installation, bearer: &str) {
    let mut wire = Wire::to(installation.address()).await;
    for n in 0..REQUESTS {
        let in_time = async || {
            wire.send(format!("GET /api/{n} HTTP/1.1\r\nHost: {}\r\n{bearer}\r\n", installation.address())).await;
            Some(wire.answer().await).filter(|answer| !is_behind(answer))
        };
        let (answer, _) = until("the revocations are read", PATIENCE, in_time).await;
        assert_eq!(answer.status, 200, "{n}: {answer:?}");
    }
}

#[tokio::test]
async fn keys_fetch_writes_a_whole_file_or_leaves_the_old_one() {
    let (app, mut issuer, elsewhere) = (EchoApp::start().await, Issuer::start().await, Issuer::start().await);
    let keys = format!("jwks_url = \"{}\", first = \"first.json\", fetch_timeout = \"30s\"", issuer.jwks_url());
    let installation = Installation::with(&rest(&app, &issuer, &keys));
    let file = installation.path().join("first.json");
    let skipped = installation.ok(&["keys", "fetch", "main"]).await;
    assert!(skipped.contains("skipped") && !file.exists() && issuer.hits() == 0, "{skipped}");
    let fetch = ["keys", "fetch", "main", "--allow-loopback"];
    let said = installation.ok(&fetch).await;
    assert!(said.contains("1 keys"), "{said}");
    let written = fs::read(&file).unwrap();
    assert_eq!(JwkSet::parse(&written).unwrap().len(), 1);

    // Who says nothing, or only a little at a time, is waited for this long.
    installation.configure(&rest(&app, &issuer, &keys.replace("30s", "1s")));
    for fault in [
        Fault::Status(404),
        Fault::Garbage,
        Fault::Empty,
        Fault::Html,
        Fault::Large(600 * 1024),
        Fault::Silent,
        Fault::Drip,
        Fault::Endless,
        Fault::GzipBomb,
        Fault::CutOff,
        Fault::NotASet,
        Fault::NotModified,
        Fault::RedirectLoop,
        Fault::Redirect(elsewhere.jwks_url()),
        Fault::Redirect("file:///etc/passwd".to_owned()),
    ] {
        issuer.fault(Some(fault.clone()));
        let failed = installation.run(&fetch).await;
        assert_eq!(failed.status.code(), Some(1), "{fault:?}: {}", all(&failed));
        assert!(all(&failed).contains("the file stays as it was"), "{}", all(&failed));
        assert_eq!(fs::read(&file).unwrap(), written, "{fault:?}");
    }
    assert_eq!(elsewhere.hits(), 0, "another origin is not asked");
    issuer.fault(None);
    issuer.poison(Poison::Private);
    let failed = installation.run(&fetch).await;
    assert_eq!(failed.status.code(), Some(1), "a secret is not copied: {}", all(&failed));
    issuer.die().await;
    assert_eq!(installation.run(&fetch).await.status.code(), Some(1));
    assert_eq!(fs::read(&file).unwrap(), written);
    let left: Vec<_> = fs::read_dir(installation.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".new-"))
        .collect();
    assert!(left.is_empty(), "drafts stay behind: {left:?}");

    let unknown = installation.run(&["keys", "fetch", "other"]).await;
    assert_eq!(unknown.status.code(), Some(2), "{}", all(&unknown));
    assert!(all(&unknown).contains("there are: main"), "{}", all(&unknown));
}

#[tokio::test]
async fn keys_fetch_takes_a_url_without_a_configuration_and_tells_programs_what_it_did() {
    let issuer = Issuer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::with("");
    let file = folder.path().join("keys.json");
    let file = file.to_str().unwrap();
    let said = installation
        .ok(&["keys", "fetch", &issuer.url(), "--allow-loopback", "--out", file, "--json", "--config", "none"])
        .await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["issuer"], &said["keys"]), (&issuer.url().into(), &1.into()));
    assert_eq!(said["url"], issuer.jwks_url());
    assert_eq!(fs::read_to_string(file).unwrap(), issuer.key_set().to_string());
    assert_eq!((issuer.discoveries(), issuer.hits()), (1, 1));
    let printed = installation.ok(&["keys", "fetch", &issuer.url(), "--allow-loopback"]).await;
    assert_eq!(printed, issuer.key_set().to_string());
    let open = installation.run(&["keys", "fetch", "http://sso.example.com"]).await;
    assert_eq!(open.status.code(), Some(2), "{}", all(&open));
}

#[tokio::test]
async fn with_a_first_set_no_request_asks_the_issuer_and_without_its_file_the_live_keys_serve() {
    let (app, issuer) = (EchoApp::start().await, Issuer::start().await);
    let keys = "discovery = true, first = \"first.json\"";
    let installation = Installation::with(&rest(&app, &issuer, keys));
    let server = installation.serve_ready().await;
    server.line(PATIENCE, |line| line.contains("there is no first key set").then_some(())).await;
    assert_eq!(installation.judged("/api/x", &bearer(&issuer)).await.status, 200, "the live keys");
    drop(server);

    let issuer = Issuer::start().await;
    let installation = Installation::with(&rest(&app, &issuer, keys));
    installation.ok(&["keys", "fetch", "main", "--allow-loopback"]).await;
    let (hits, discoveries) = (issuer.hits(), issuer.discoveries());
    let _server = installation.serve_ready().await;
    ask_often(&installation, &bearer(&issuer)).await;
    assert_eq!((issuer.hits(), issuer.discoveries()), (hits, discoveries));
    // And what it lacks comes from the issuer.
    issuer.rotate(Rotation::Abrupt);
    assert_eq!(installation.judged("/api/x", &bearer(&issuer)).await.status, 200);
    assert_eq!(issuer.hits(), hits + 1);
}

#[tokio::test]
async fn kept_keys_serve_the_next_process_at_once_also_while_the_issuer_is_dead() {
    let (app, mut issuer) = (EchoApp::start().await, Issuer::start().await);
    let installation = Installation::with(&rest(&app, &issuer, &format!("jwks_url = \"{}\"", issuer.jwks_url())));
    let mut server = installation.serve_ready().await;
    assert_eq!(installation.judged("/api/x", &bearer(&issuer)).await.status, 200);
    // The request is answered first; they are written down afterwards, and nobody waits for that.
    let database = Database::Sqlite(installation.path().join("data/doorward.db"));
    let kept = async || (database.number("SELECT count(*) FROM issuer_keys") > 0).then_some(());
    until("the keys are kept", PATIENCE, kept).await;
    server.signal(Signal::TERM);
    assert_eq!(server.exit(PATIENCE).await.code(), Some(0));

    // A machine that stands still while the store is being opened costs one fetch, at the start: another start shows it.
    for round in 1.. {
        let hits = issuer.hits();
        let mut server = installation.serve_ready().await;
        ask_often(&installation, &bearer(&issuer)).await;
        server.signal(Signal::TERM);
        server.exit(PATIENCE).await;
        match issuer.hits() - hits {
            0 => break,
            fetches => assert!(fetches == 1 && round < 5, "no request asks the issuer: {fetches} in round {round}"),
        }
    }

    issuer.die().await;
    let _server = installation.serve_ready().await;
    assert_eq!(installation.judged("/api/x", &bearer(&issuer)).await.status, 200, "the kept keys serve");
    issuer.rotate(Rotation::Abrupt);
    let refused = installation.get("/api/x", &bearer(&issuer)).await;
    assert_eq!(reason(&refused), (503, Some("keys_unavailable")));
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
}

#[tokio::test]
async fn sighup_carries_the_keys_over_starts_new_issuers_and_stops_those_that_are_gone() {
    let (app, mut issuer, second) = (EchoApp::start().await, Issuer::start().await, Issuer::start().await);
    let keys = format!("jwks_url = \"{}\"", issuer.jwks_url());
    let one = rest(&app, &issuer, &keys);
    let installation = Installation::with(&one);
    let mut server = installation.serve_ready().await;
    let token = bearer(&issuer);
    assert_eq!(installation.judged("/api/x", &token).await.status, 200);
    let hits = issuer.hits();
    issuer.die().await;

    let two = format!(
        "{one}[[issuers]]\nname = \"second\"\nissuer = \"{}\"\naudiences = [\"app\"]\nkeys = {{ discovery = true }}\n",
        second.url()
    );
    installation.configure(&two);
    server.signal(Signal::HUP);
    let is_taken = async || (installation.get("/api/x", &bearer(&second)).await.status == 200).then_some(());
    until("the new issuer", PATIENCE, is_taken).await;
    assert_eq!(installation.judged("/api/x", &token).await.status, 200, "its keys were known before");
    assert_eq!(issuer.hits(), hits, "nothing was asked again");

    installation.configure(&one);
    server.signal(Signal::HUP);
    let is_gone = async || {
        let answer = installation.get("/api/x", &bearer(&second)).await;
        (reason(&answer) == (401, Some("token_wrong_issuer"))).then_some(())
    };
    until("the second issuer is gone", PATIENCE, is_gone).await;
    assert_eq!(installation.judged("/api/x", &token).await.status, 200);
    drop(server);
}

#[tokio::test]
async fn a_key_that_was_replaced_under_its_kid_is_in_the_log_in_the_metrics_and_in_the_audit_log() {
    let (app, issuer) = (EchoApp::start().await, Issuer::start().await);
    let keys = format!("jwks_url = \"{}\", min_interval = \"1s\"", issuer.jwks_url());
    let installation = Installation::with(&rest(&app, &issuer, &keys));
    let server = installation.serve_ready().await;
    let kid = issuer.key_id();
    assert_eq!(installation.judged("/api/x", &bearer(&issuer)).await.status, 200);
    let counted = "doorward_issuer_key_changes_total{name=\"main\"}";
    assert!(!metrics(&server).await.contains(counted), "nothing has changed yet");
    issuer.rotate(Rotation::SameId);
    assert_eq!(issuer.key_id(), kid);
    // A token of the second in which the keys were fetched says nothing about them; the next one does.
    let is_taken = async || (installation.get("/api/x", &bearer(&issuer)).await.status == 200).then_some(());
    until("the new material is in use", PATIENCE, is_taken).await;

    let line = |line: &str| {
        let is_it = line.contains("a key was replaced under its old kid") && line.contains(&kid);
        (is_it && line.contains("main") && line.contains("WARN")).then_some(())
    };
    server.line(PATIENCE, line).await;
    let is_counted = async || metrics(&server).await.contains(&format!("{counted} 1\n")).then_some(());
    until("it is counted", PATIENCE, is_counted).await;
    let row = async || {
        let rows = installation.ok(&["audit", "export"]).await;
        rows.lines().find(|row| row.contains("issuer.key_changed")).map(str::to_owned)
    };
    let row: serde_json::Value = serde_json::from_str(&until("the row", PATIENCE, row).await.0).unwrap();
    assert_eq!((&row["detail"]["issuer"], &row["detail"]["kid"]), (&"main".into(), &kid.as_str().into()), "{row}");
    // Once: the same key again is no news.
    assert_eq!(installation.judged("/api/x", &bearer(&issuer)).await.status, 200);
    assert!(metrics(&server).await.contains(&format!("{counted} 1\n")));
}

#[tokio::test]
async fn check_says_what_is_wrong_with_discovery() {
    let (app, issuer) = (EchoApp::start().await, Issuer::start().await);
    let with = |name: &str| {
        let text = rest(&app, &issuer, "discovery = true");
        text.replace(&format!("issuer = \"{}\"", issuer.url()), &format!("issuer = \"{name}\""))
    };
    let installation = Installation::with(&with(&issuer.url()));
    let fine = installation.run(&["check"]).await;
    assert_eq!(fine.status.code(), Some(0), "{}", all(&fine));
    assert!(all(&fine).contains(&issuer.jwks_url()), "{}", all(&fine));
    // The same server under another name: what it says of itself is not what was asked for.
    installation.configure(&with(&format!("{}/", issuer.url())));
    let other = installation.run(&["check"]).await;
    assert_eq!(other.status.code(), Some(1), "{}", all(&other));
    assert!(all(&other).contains("about another issuer"), "{}", all(&other));
}

#[tokio::test]
async fn keys_behind_a_certificate_of_nobody_are_not_fetched_and_nothing_is_asked_in_the_open() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (shaken, came) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counts, comes) = (Arc::clone(&shaken), Arc::clone(&came));
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            comes.fetch_add(1, Ordering::SeqCst);
            if acceptor.accept(stream).await.is_ok() {
                counts.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let (app, issuer) = (EchoApp::start().await, Issuer::start().await);
    let keys = format!("jwks_url = \"https://localhost:{port}/jwks.json\"");
    let installation = Installation::with(&rest(&app, &issuer, &keys));
    let failed = installation.run(&["keys", "fetch", "main", "--allow-loopback", "--out", "keys.json"]).await;
    assert_eq!(failed.status.code(), Some(1), "{}", all(&failed));
    assert!(all(&failed).to_ascii_lowercase().contains("certificate"), "{}", all(&failed));
    assert!(came.load(Ordering::SeqCst) > 0 && shaken.load(Ordering::SeqCst) == 0);
    assert!(!installation.path().join("keys.json").exists());
    server.abort();
}
