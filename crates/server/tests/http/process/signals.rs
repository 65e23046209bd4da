//! Draining, reloading, and what is written meanwhile.

use std::net::TcpStream;

use doorward_testkit::{
    process::Signal,
    upstream::{EchoApp, RawUpstream},
    wire::Wire,
};
use serde_json::Value;
use tokio::sync::watch;

use super::{Installation, PATIENCE, reason, until};

fn public(app: &str, path: &str) -> String {
    format!("[apps.web]\nupstream = \"{app}\"\n[[rules]]\npath = \"{path}\"\nallow = [\"public\"]\napp = \"web\"\n")
}

#[tokio::test]
async fn sigterm_finishes_what_is_under_way_takes_nothing_new_and_ends_with_zero() {
    let (go, gone) = watch::channel(false);
    let app = RawUpstream::with(move |mut conversation| {
        let mut gone = gone.clone();
        async move {
            conversation.request().await;
            gone.wait_for(|gone| *gone).await.unwrap();
            conversation.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").await;
            conversation.end().await;
        }
    })
    .await;
    let installation = Installation::with(&public(&app.url(), "/*"));
    let mut server = installation.serve_ready().await;
    let mut slow = Wire::to(installation.address()).await;
    slow.send(format!("GET /slow HTTP/1.1\r\nHost: {}\r\n\r\n", installation.address())).await;
    until("the app hears the request", PATIENCE, async || (!app.text().is_empty()).then_some(())).await;
    server.signal(Signal::TERM);
    let refused = async || TcpStream::connect(installation.address()).is_err().then_some(());
    until("new connections are refused", PATIENCE, refused).await;
    assert!(server.is_running(), "it did not wait:\n{}", server.output());
    go.send_replace(true);
    assert_eq!(slow.answer().await.text(), "slow");
    assert_eq!(server.exit(PATIENCE).await.code(), Some(0), "{}", server.output());
    assert!(server.output().contains("stopped"), "{}", server.output());
}

#[tokio::test]
async fn sigint_ends_with_zero_also_in_the_moment_in_which_the_port_opens() {
    let app = EchoApp::start().await;
    for _ in 0..5 {
        let installation = Installation::with(&public(&app.url(), "/*"));
        // Returns with the first connection that is accepted, which is before the start is over.
        let mut server = installation.serve().await;
        server.signal(Signal::INT);
        assert_eq!(server.exit(PATIENCE).await.code(), Some(0), "{}", server.output());
    }
}

#[tokio::test]
async fn sighup_takes_a_changed_rule_and_a_bad_file_keeps_the_old_one_and_names_every_problem() {
    let app = EchoApp::start().await;
    let installation = Installation::with(&public(&app.url(), "/one"));
    let mut server = installation.serve_ready().await;
    assert_eq!(installation.get("/one", "").await.status, 200);
    assert_eq!(reason(&installation.get("/two", "").await), (403, Some("no_rule")));
    installation.configure(&public(&app.url(), "/two"));
    assert_eq!(installation.get("/one", "").await.status, 200, "nothing happens without the signal");
    server.signal(Signal::HUP);
    let taken = async || (installation.get("/two", "").await.status == 200).then_some(());
    until("the new rule is in force", PATIENCE, taken).await;
    assert_eq!(reason(&installation.get("/one", "").await), (403, Some("no_rule")));

    installation.configure(&(public("ftp://nowhere", "/three") + "allow_everything = true\n"));
    server.signal(Signal::HUP);
    for part in ["the old one stays", "apps.web.upstream", "allow_everything: unknown key"] {
        server.line(PATIENCE, |line| line.contains(part).then_some(())).await;
    }
    assert_eq!(installation.get("/two", "").await.status, 200, "the old rule still holds");
    assert_eq!(reason(&installation.get("/three", "").await), (403, Some("no_rule")));
    assert!(server.is_running());
}

#[tokio::test]
async fn every_line_of_a_json_log_is_one_object_and_a_refusal_says_why() {
    let app = EchoApp::start().await;
    let installation = Installation::with(&public(&app.url(), "/one"));
    let (mut server, _) = installation.serve_timed(&["--log-format", "json"]).await;
    installation.until_ready().await;
    let refused = installation.get("/two?token=secret-in-a-query", "").await;
    installation.configure("nonsense = 1\nmore = 2\n");
    server.signal(Signal::HUP);
    server.line(PATIENCE, |line| line.contains("the old one stays").then_some(())).await;
    server.signal(Signal::TERM);
    assert_eq!(server.exit(PATIENCE).await.code(), Some(0));
    let output = server.log();
    let lines: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let fail = lines.iter().find(|line| line["message"] == "auth fail" && line["reason"] == "no_rule").unwrap();
    assert_eq!(fail["decision"].as_str(), refused.header("x-doorward-decision"), "joins the answer with the log");
    assert_eq!(fail["http.path"], "/two");
    assert!(!output.contains("secret-in-a-query"), "{output}");
}
