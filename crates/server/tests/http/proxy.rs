//! What reaches an app, what comes back, and when it ends.

mod listener;
mod sockets;
mod streaming;

use std::time::Duration;

use doorward::proxy::UpstreamOptions;
use doorward_testkit::{
    port,
    upstream::{EchoApp, RawUpstream},
    wire::Wire,
};
use serde_json::Value;

use crate::door::{Door, Setup, until};

pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// For what happens at once where the machine does not stand still; whatever else would bring it about, an app that gives up
/// or another limit, takes half a minute or more.
pub(super) const SOON: Duration = Duration::from_secs(20);

pub(super) fn impatient(url: impl Into<String>) -> UpstreamOptions {
    let mut options = UpstreamOptions::new("web", url);
    options.idle = Duration::from_millis(200);
    options.connect = Duration::from_millis(200);
    options
}

fn header<'a>(said: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = said["headers"].as_array().unwrap().iter();
    headers.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_app_sees_the_request_as_it_was_judged_and_who_sent_it() {
    let app = EchoApp::start().await;
    let door = Door::before(app.url()).await;
    let answer = Wire::ask(
        door.address,
        "POST /a%2Fb;p?q=%20+&&x HTTP/1.1\r\nHost: App.example.com:81\r\nContent-Length: 5\r\nX-Own: 1\r\n\
         X-Doorward-Subject: admin\r\nX_Doorward_Subject: admin\r\nRemote-User: admin\r\nX-Forwarded-For: 6.6.6.6\r\n\
         Forwarded: for=6.6.6.6\r\nAuthorization: Bearer x\r\nCookie: doorward_sid=s; theirs=1\r\n\
         Connection: keep-alive, X-Doorward-Subject, X-Forwarded-For, Host\r\n\r\nhello",
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("private"));
    let said: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&said["method"], &said["body"]), (&"POST".into(), &"hello".into()));
    assert_eq!(said["target"], "/a%2Fb;p?q=%20+&&x");
    assert_eq!(header(&said, "host"), ["App.example.com:81"]);
    assert_eq!(header(&said, "x-forwarded-host"), ["App.example.com:81"]);
    assert_eq!(header(&said, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(header(&said, "x-forwarded-proto"), ["http"]);
    assert_eq!(header(&said, "x-doorward-subject"), ["u1"]);
    assert_eq!(header(&said, "x-own"), ["1"]);
    assert_eq!(header(&said, "cookie"), ["theirs=1"]);
    for gone in ["x_doorward_subject", "remote-user", "forwarded", "authorization", "connection"] {
        assert!(header(&said, gone).is_empty(), "{gone}");
    }
}

#[tokio::test]
async fn the_bytes_of_a_target_are_not_touched_on_the_way() {
    let app = RawUpstream::answering(OK).await;
    let door = Door::before(app.url()).await;
    let targets = [
        "/",
        "/?",
        "/a//b",
        "/a/../b",
        "/%2e%2E/",
        "/%zz",
        "/a\\b",
        "/;x=1;y",
        "/a?b?c=%00&d={}|^",
        "/~u/!$&'()*+,=:@",
    ];
    for target in targets {
        let answer = Wire::ask(door.address, format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert_eq!(answer.status, 200, "{target}");
        assert!(app.text().contains(&format!("GET {target} HTTP/1.1\r\n")), "{target}");
    }
}

#[tokio::test]
async fn an_answer_passes_untouched_but_for_what_is_hop_by_hop_or_ours() {
    let app = RawUpstream::answering(
        b"HTTP/1.1 418 Short And Stout\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nServer: s/1\r\n\
          Cache-Control: max-age=5\r\nSet-Cookie: a=1\r\nSet-Cookie: doorward_sid=evil\r\nX-Doorward-Reason: none\r\n\
          ETag: W/\"1\"\r\nContent-Length: 3\r\n\r\ntea",
    )
    .await;
    let door = Door::before(app.url()).await;
    let answer = Wire::ask(door.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut lines: Vec<_> = answer.head.lines().filter(|line| !line.starts_with("date:")).collect();
    assert_eq!(lines.remove(0), "HTTP/1.1 418 Short And Stout");
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["cache-control: max-age=5", "content-length: 3", "etag: W/\"1\"", "server: s/1", "set-cookie: a=1"]
    );
    assert_eq!(answer.text(), "tea");
}

#[tokio::test]
async fn answers_without_a_body_keep_what_they_declare_and_the_connection_goes_on() {
    let app = RawUpstream::with(|mut conversation| async move {
        while let Some(request) = conversation.request().await {
            conversation
                .say(match &request[..8] {
                    "HEAD /a " => &b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"[..],
                    "HEAD /b " => b"HTTP/1.1 200 OK\r\n\r\n",
                    "HEAD /c " => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                    "GET /204" => b"HTTP/1.1 204 No Content\r\n\r\n",
                    "GET /304" => b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Length: 99\r\n\r\n",
                    _ => OK,
                })
                .await;
        }
    })
    .await;
    let door = Door::before(app.url()).await;
    let mut wire = Wire::to(door.address).await;
    let mut ask = async |method: &str, path: &str| {
        wire.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        wire.answer_to(method).await
    };
    assert_eq!(ask("HEAD", "/a").await.header("content-length"), Some("1234"));
    assert_eq!(ask("HEAD", "/b").await.status, 200);
    assert_eq!(ask("HEAD", "/c").await.status, 200);
    assert_eq!(ask("GET", "/204").await.status, 204);
    let not_modified = ask("GET", "/304").await;
    assert_eq!((not_modified.status, not_modified.header("etag")), (304, Some("\"1\"")));
    assert_eq!(ask("GET", "/").await.text(), "ok");
}

#[tokio::test]
async fn an_app_that_is_down_is_a_502_and_one_that_is_silent_a_504() {
    let door = Door::before(format!("http://127.0.0.1:{}", port::free())).await;
    let answer = Wire::ask(door.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!((answer.status, answer.header("x-doorward-reason")), (502, Some("upstream_unavailable")));

    let silent = RawUpstream::with(|mut conversation| async move { conversation.end().await }).await;
    let mut setup = Setup::of("");
    setup.upstream = impatient(silent.url());
    let door = setup.start().await;
    let answer = Wire::ask(door.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!((answer.status, answer.header("x-doorward-reason")), (504, Some("upstream_timeout")));
}

#[tokio::test]
async fn an_app_that_does_not_finish_its_tls_handshake_in_time_is_a_504() {
    let silent = RawUpstream::with(|mut conversation| async move { conversation.end().await }).await;
    let mut setup = Setup::of("");
    setup.upstream = impatient(silent.url().replace("http", "https"));
    setup.upstream.idle = Duration::from_secs(60);
    let door = setup.start().await;
    let answer = Wire::ask(door.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!((answer.status, answer.header("x-doorward-reason")), (504, Some("upstream_timeout")));
}

#[tokio::test]
async fn nonsense_from_an_app_is_a_502_and_never_passed_on() {
    let answers: [&'static [u8]; 7] = [
        b"220 mail.example.com ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"",
    ];
    for said in answers {
        let app = RawUpstream::with(move |mut conversation| async move {
            conversation.request().await;
            conversation.say(said).await;
            conversation.hang_up().await;
        })
        .await;
        let door = Door::before(app.url()).await;
        let answer = Wire::ask(door.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let got = (answer.status, answer.header("x-doorward-reason"));
        assert_eq!(got, (502, Some("upstream_unavailable")), "{}", said.escape_ascii());
    }
}

#[tokio::test]
async fn what_an_app_says_beyond_its_answer_reaches_nobody() {
    let app = RawUpstream::answering(
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    )
    .await;
    let door = Door::before(app.url()).await;
    for _ in 0..5 {
        let answer = Wire::ask(door.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    }
}

#[tokio::test]
async fn a_pooled_connection_that_has_died_is_not_the_clients_problem() {
    let app = RawUpstream::with(|mut conversation| async move {
        conversation.request().await;
        conversation.say(OK).await;
        conversation.hang_up().await;
    })
    .await;
    let door = Door::before(app.url()).await;
    for number in 1..=20 {
        let answer = Wire::ask(door.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(answer.status, 200, "request {number}: {}", answer.text());
        // The next one must find it closed, not closing.
        until("the app was asked", || app.heard().len() >= number).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_that_was_sent_is_never_sent_again() {
    let app = RawUpstream::with(|mut conversation| async move {
        conversation.request().await;
        conversation.say(OK).await;
        conversation.request().await;
        conversation.hang_up().await;
    })
    .await;
    let door = Door::before(app.url()).await;
    let request = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nonce");
    assert_eq!(Wire::ask(door.address, request("/first")).await.status, 200);
    let answer = Wire::ask(door.address, request("/second")).await;
    assert_eq!((answer.status, answer.header("x-doorward-reason")), (502, Some("upstream_unavailable")));
    assert_eq!(app.text().matches("POST /second").count(), 1);
}

#[tokio::test]
async fn requests_beyond_an_apps_places_wait_and_then_are_refused() {
    let app = RawUpstream::with(|mut conversation| async move { conversation.end().await }).await;
    let mut setup = Setup::of("");
    setup.upstream = UpstreamOptions::new("web", app.url());
    setup.upstream.max_in_flight = 1;
    setup.upstream.connect = Duration::from_millis(100);
    let door = setup.start().await;
    let mut first = Wire::to(door.address).await;
    first.send("GET /first HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until("the first is under way", || app.text().contains("/first")).await;
    let answer = Wire::ask(door.address, "GET /second HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!((answer.status, answer.header("x-doorward-reason")), (502, Some("upstream_unavailable")));
    assert!(!app.text().contains("/second"));
}
