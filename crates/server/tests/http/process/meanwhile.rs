//! People who are signed in while things happen around them: a database that goes away, sockets that are open.

use std::time::Duration;

use doorward_core::ws;
use doorward_testkit::{
    mail::MailSink,
    postgres,
    upstream::{EchoApp, RawUpstream},
    wire::Wire,
};
use serde_json::json;

use super::{A_SECOND, Installation, PATIENCE, figure, now, reason, until};

const ACCEPT: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// How many sockets are closed, at most, until one of them was within a second.
const ROUNDS: usize = 5;

fn rest(store: &str, sink: &MailSink, app: &str) -> String {
    format!(
        "{store}[mail]\nurl = \"{}\"\nfrom = \"Doorward <login@example.com>\"\n[apps.web]\nupstream = \"{app}\"\n\
         [[rules]]\npath = \"/careless\"\nallow = [\"session\"]\non_stale = \"allow\"\napp = \"web\"\n\
         [[rules]]\npath = \"/*\"\nallow = [\"session\"]\napp = \"web\"\n",
        sink.url()
    )
}

#[tokio::test]
async fn a_database_that_goes_away_is_a_503_after_two_seconds_and_never_signs_anybody_out() {
    let Some(sink) = MailSink::start().await else { return };
    let Some(database) = postgres::own(postgres::Fsync::Off) else { return };
    let app = EchoApp::start().await;
    let store = format!(
        "[store]\nurl = \"{}\"\n[secrets]\nroot = \"only for this test, only for this test\"\n",
        database.database()
    );
    let installation = Installation::with(&rest(&store, &sink, &app.url()));
    let server = installation.serve_ready().await;
    installation.ok(&["users", "add", "ada@example.com"]).await;
    let session = installation.sign_in(&sink, "ada@example.com").await;
    assert_eq!(installation.judged("/x", &session).await.status, 200);

    database.crash();
    let gone = now();
    // Revocations cannot be read any more: what memory knows holds for two seconds, then the store is asked.
    until("the route is closed", PATIENCE, async || {
        let answer = installation.get("/x", &session).await;
        assert!([200, 503].contains(&answer.status), "an outage of ours is never a 401: {answer:?}");
        (answer.status == 503).then(|| assert_eq!(reason(&answer).1, Some("store_unavailable")))
    })
    .await;
    figure("an outage of the database until sessions are not relied on any more", gone.elapsed());
    assert_eq!(installation.get("/careless", &session).await.status, 200, "where the rule says so, memory goes on");
    until("readiness says so", PATIENCE, async || (installation.get("/readyz", "").await.status == 503).then_some(()))
        .await;
    assert_eq!(installation.get("/healthz", "").await.status, 200);

    database.revive();
    until("the same session is good again", PATIENCE, async || {
        let answer = installation.get("/x", &session).await;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 200).then_some(())
    })
    .await;
    installation.until_ready().await;
    assert!(server.output().contains("the database went away"), "{}", server.output());
    let verified = installation.ok(&["audit", "verify"]).await;
    assert!(!verified.contains("FAULT"), "{verified}");
}

/// A socket of whoever has this session.
async fn socket(installation: &Installation, session: &str) -> Wire {
    let host = installation.address();
    let mut wire = Wire::to(host).await;
    let handshake = format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{session}\r\n"
    );
    wire.send(handshake).await;
    let answer = wire.answer().await;
    assert_eq!(answer.status, 101, "{answer:?}");
    // A text frame goes round, so both ends stand.
    wire.send(b"\x81\x85\0\0\0\0hello").await;
    assert_eq!(wire.exactly(11).await, b"\x81\x85\0\0\0\0hello");
    wire
}

#[tokio::test]
async fn open_sockets_close_with_their_reason_within_a_second_of_a_command_or_a_sign_out() {
    let Some(sink) = MailSink::start().await else { return };
    let app = RawUpstream::with(|mut conversation| async move {
        let Some(request) = conversation.request().await else { return };
        if request.starts_with("GET /events ") {
            conversation.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n").await;
            return conversation.end().await;
        }
        if !request.contains("Sec-WebSocket-Key") && !request.contains("sec-websocket-key") {
            return conversation.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
        conversation.say(ACCEPT).await;
        while let Some(bytes) = conversation.exactly(1).await {
            conversation.say(bytes).await;
        }
    })
    .await;
    let installation = Installation::with(&rest("", &sink, &app.url()));
    let _server = installation.serve_ready().await;
    installation.ok(&["users", "add", "ada@example.com"]).await;
    installation.ok(&["users", "add", "eve@example.com"]).await;

    let ada = installation.sign_in(&sink, "ada@example.com").await;
    let eve = installation.sign_in(&sink, "eve@example.com").await;
    let mut closing = socket(&installation, &ada).await;
    let mut staying = socket(&installation, &eve).await;
    let mut stream = Wire::to(installation.address()).await;
    stream.send(format!("GET /events HTTP/1.1\r\nHost: {}\r\n{ada}\r\n", installation.address())).await;
    stream.until(b"event\r\n").await;
    installation.ok(&["sessions", "revoke", "--user", "ada@example.com"]).await;
    let by_command = closed("a command ended the session", &mut closing, "session_revoked").await;
    let started = now();
    assert!(!stream.rest().await.ends_with(b"0\r\n\r\n"), "the stream seems to have ended by itself");
    assert!(started.elapsed() < A_SECOND, "{:?}", started.elapsed());
    staying.send(b"\x81\x82\0\0\0\0ok").await;
    assert_eq!(staying.exactly(8).await, b"\x81\x82\0\0\0\0ok", "somebody else's socket stays open");

    let out = installation.post("/auth/logout", &eve, &json!({})).await;
    assert_eq!(out.status, 200, "{out:?}");
    closed("its person signed out", &mut staying, "session_revoked").await;

    let ada = installation.sign_in(&sink, "ada@example.com").await;
    let mut banned = socket(&installation, &ada).await;
    installation.ok(&["users", "ban", "ada@example.com"]).await;
    let by_ban = closed("its person was banned", &mut banned, "user_banned").await;
    // What is promised: a machine that stood still spoils some of them, not all.
    let mut took = vec![by_command, by_ban];
    while took.len() < ROUNDS && took.iter().all(|took| *took >= Duration::from_secs(1)) {
        let eve = installation.sign_in(&sink, "eve@example.com").await;
        let mut closing = socket(&installation, &eve).await;
        installation.ok(&["sessions", "revoke", "--user", "eve@example.com"]).await;
        took.push(closed("a command ended the session", &mut closing, "session_revoked").await);
    }
    assert!(took.iter().any(|took| *took < Duration::from_secs(1)), "{took:?}");
}

/// The stream of events over HTTP/2 of whoever has this session, after its first event.
async fn events(
    h2: &mut h2::client::SendRequest<bytes::Bytes>,
    installation: &Installation,
    session: &str,
) -> h2::RecvStream {
    let cookie = session.trim().strip_prefix("Cookie: ").unwrap();
    let url = format!("http://{}/events", installation.address());
    let request = http::Request::get(url).header("cookie", cookie).body(()).unwrap();
    let (answer, _) = h2.send_request(request, true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "event");
    body
}

#[tokio::test]
async fn a_stream_over_http_2_ends_within_a_second_of_its_session_and_its_neighbour_goes_on() {
    let Some(sink) = MailSink::start().await else { return };
    let (say, said) = tokio::sync::watch::channel(0);
    let app = RawUpstream::with(move |mut conversation| {
        let mut said = said.clone();
        async move {
            conversation.request().await;
            conversation.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            loop {
                conversation.say("5\r\nevent\r\n").await;
                if said.changed().await.is_err() {
                    break;
                }
            }
        }
    })
    .await;
    let installation = Installation::with(&rest("", &sink, &app.url()));
    let _server = installation.serve_ready().await;
    installation.ok(&["users", "add", "ada@example.com"]).await;
    installation.ok(&["users", "add", "eve@example.com"]).await;
    let ada = installation.sign_in(&sink, "ada@example.com").await;
    let eve = installation.sign_in(&sink, "eve@example.com").await;
    let stream = tokio::net::TcpStream::connect(installation.address()).await.unwrap();
    let (mut h2, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    // Two people behind one proxy: streams of one connection, each with a session of its own.
    let mut ends = events(&mut h2, &installation, &ada).await;
    let mut stays = events(&mut h2, &installation, &eve).await;
    installation.ok(&["sessions", "revoke", "--user", "ada@example.com"]).await;
    let started = now();
    let end = tokio::time::timeout(PATIENCE, ends.data()).await.unwrap();
    figure("a stream over HTTP/2 ended after a command", started.elapsed());
    assert!(matches!(end, Some(Err(_))), "reset, not an end that looks like the app's: {end:?}");
    assert!(started.elapsed() < A_SECOND, "{:?}", started.elapsed());
    say.send_replace(1);
    assert_eq!(stays.data().await.unwrap().unwrap(), "event", "somebody else's stream goes on");
    let out = installation.post("/auth/logout", &eve, &json!({})).await;
    assert_eq!(out.status, 200, "{out:?}");
    let started = now();
    assert!(matches!(tokio::time::timeout(PATIENCE, stays.data()).await.unwrap(), Some(Err(_))));
    assert!(started.elapsed() < A_SECOND, "{:?}", started.elapsed());
}

/// Asserts that a socket ends by a close frame with this reason, within the bound; how long that took.
async fn closed(what: &str, wire: &mut Wire, expected: &str) -> Duration {
    let started = now();
    let rest = wire.rest().await;
    let took = started.elapsed();
    figure(&format!("an open socket closed after {what}"), took);
    assert_eq!(rest, ws::close_frame(4003, expected), "{what}: {:?}", rest.escape_ascii().to_string());
    assert!(took < A_SECOND, "{what}: {took:?}");
    took
}
