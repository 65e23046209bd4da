//! HTTP/1.1 and 1.0.

use doorward_testkit::{upstream::RawUpstream, wire::Wire};

use super::{HIDDEN, OK, assert_refused};
use crate::door::{Door, until};

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}")
}

#[tokio::test]
async fn content_length_beside_transfer_encoding_is_refused_in_either_order() {
    let chunked = format!("0\r\n\r\n{HIDDEN}");
    for fields in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 0\r\n",
        "content-length: 6\r\ntransfer-encoding: CHUNKED\r\n",
    ] {
        assert_refused(post(fields, &chunked)).await;
    }
}

#[tokio::test]
async fn every_disguise_of_transfer_encoding_is_refused() {
    // TE.TE: each has been chunked to one server and unknown to another.
    for field in [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        " Transfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "Transfer-Encoding\r\n: chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: chunked\x00",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked;x=y",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunk\u{e9}d",
        "Transfer-Encoding:",
        "Transfer_Encoding: chunked",
        "Transfer.Encoding: chunked",
    ] {
        assert_refused(post(&format!("{field}\r\n"), &format!("0\r\n\r\n{HIDDEN}"))).await;
    }
}

#[tokio::test]
async fn every_disguise_of_content_length_is_refused() {
    for field in [
        "Content-Length: 0\r\nContent-Length: 44",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: 5,6",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 ,",
        "Content-Length: 5 6",
        "Content-Length: 5\x0b",
        "Content-Length: 5\x00",
        "Content-Length: ",
        "Content-Length: five",
        "Content-Length: \u{0665}",
        "Content-Length: 18446744073709551621",
        "Content-Length : 5",
        "Content-Length\t: 5",
        " Content-Length: 5",
        "Content-Length:\r\n 5",
        "Content_Length: 5",
        "Content-Length\x00: 5",
    ] {
        assert_refused(post(&format!("{field}\r\n"), &format!("hello{HIDDEN}"))).await;
    }
}

#[tokio::test]
async fn http_1_0_with_a_transfer_encoding_is_refused() {
    assert_refused(format!("POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}")).await;
    let keep = "Connection: keep-alive\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n";
    assert_refused(format!("POST / HTTP/1.0\r\nHost: x\r\n{keep}\r\n0\r\n\r\n{HIDDEN}")).await;
}

#[tokio::test]
async fn other_versions_and_line_ends_are_refused() {
    for head in [
        "GET / HTTP/1.1\nHost: x\n\n",
        "GET / HTTP/1.1\r\nHost: x\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\n",
        "GET / HTTP/1.1\rHost: x\r\r",
        "GET / HTTP/1.1\r\r\nHost: x\r\n\r\n",
        "GET / HTTP/0.9\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: x\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        "GET / HTTP/01.1\r\nHost: x\r\n\r\n",
        "GET / http/1.1\r\nHost: x\r\n\r\n",
        "GET /\r\nHost: x\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\x00GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        assert_refused(head).await;
    }
}

#[tokio::test]
async fn targets_that_are_not_in_origin_form_are_refused() {
    for line in [
        "GET http://y/admin HTTP/1.1",
        "GET HTTPS://x/ HTTP/1.1",
        "GET y:80 HTTP/1.1",
        "GET * HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "CONNECT y:443 HTTP/1.1",
        "CONNECT /admin HTTP/1.1",
        "TRACE / HTTP/1.1",
        "GET ?x HTTP/1.1",
        "GET @y/ HTTP/1.1",
        "GET /a#/../admin HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /a\tb HTTP/1.1",
        "GET /a\x00b HTTP/1.1",
        "GET /a\x7fb HTTP/1.1",
        "GET /\u{ff0f}admin HTTP/1.1",
    ] {
        assert_refused(format!("{line}\r\nHost: x\r\n\r\n")).await;
    }
}

#[tokio::test]
async fn a_host_that_is_missing_doubled_or_no_host_is_refused() {
    for fields in ["", "Host: x\r\nHost: x\r\n", "Host: x\r\nHost: y\r\n", "Host: x\r\n Host: y\r\n"] {
        assert_refused(format!("GET / HTTP/1.1\r\n{fields}\r\n")).await;
    }
    for host in ["", "a@b", "a/b", "a b", "a, b", "a:b:c", "a?b", "a#b", "http://a", "a\\b", "[::1"] {
        assert_refused(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    }
}

#[tokio::test]
async fn headers_that_ask_for_another_method_are_refused() {
    for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X_Http_Method_Override"] {
        assert_refused(format!("POST / HTTP/1.1\r\nHost: x\r\n{name}: DELETE\r\n\r\n")).await;
    }
}

#[tokio::test]
async fn a_malformed_request_behind_good_ones_is_refused_in_its_turn() {
    let app = RawUpstream::answering(OK).await;
    let door = Door::before(app.url()).await;
    let mut wire = Wire::to(door.address).await;
    let good = "POST /good HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    wire.send(format!(
        "{good}{good}{}{HIDDEN}",
        post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")
    ))
    .await;
    assert_eq!(wire.answer().await.text(), "ok");
    assert_eq!(wire.answer().await.text(), "ok");
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.header("x-doorward-reason")), (400, Some("request_malformed")));
    wire.assert_closed().await;
    assert_eq!((app.text().matches("/good").count(), door.seen()), (2, 2));
    assert!(!app.text().contains("/admin"));
}

#[tokio::test]
async fn chunks_that_can_be_read_in_two_ways_break_the_request_off() {
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5;x\ny\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "100000000000000005\r\nhello\r\n0\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n folded\r\n\r\n",
        "\r\n0\r\n\r\n",
        "-1\r\n\r\n",
    ] {
        let app = RawUpstream::answering(OK).await;
        let door = Door::before(app.url()).await;
        let mut wire = Wire::to(door.address).await;
        wire.send(post("Transfer-Encoding: chunked\r\n", &format!("{body}{HIDDEN}"))).await;
        let rest = String::from_utf8(wire.rest().await).unwrap();
        assert!(!rest.contains("200 OK"), "{body:?}: {rest}");
        assert!(!app.text().contains("/admin"), "{body:?}");
        assert!(!app.text().ends_with("0\r\n\r\n"), "the app took {body:?} for whole");
    }
}

#[tokio::test]
async fn an_upstream_gets_a_framing_made_anew() {
    let app = RawUpstream::answering(OK).await;
    let door = Door::before(app.url()).await;
    let body = "5;x=y\r\nhello\r\n00006\r\n world\r\n0\r\n\r\n";
    let answer = Wire::ask(door.address, post("Transfer-Encoding: Chunked\r\n", body)).await;
    assert_eq!(answer.status, 200);
    let heard = app.text().to_lowercase();
    assert_eq!(heard.matches("transfer-encoding: chunked\r\n").count(), 1, "{heard}");
    assert!(!heard.contains("x=y") && !heard.contains("content-length"), "{heard}");
    let answer = Wire::ask(door.address, post("Content-Length: 00005\r\n", "hello")).await;
    assert_eq!(answer.status, 200);
    assert!(app.text().ends_with("hello"));
}

#[tokio::test]
async fn a_body_on_a_get_is_not_taken_for_a_request() {
    let app = RawUpstream::answering(OK).await;
    let door = Door::before(app.url()).await;
    let mut wire = Wire::to(door.address).await;
    let length = HIDDEN.len();
    wire.send(format!("GET /public HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{HIDDEN}")).await;
    assert_eq!(wire.answer().await.status, 200);
    wire.send("GET /next HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 200);
    // It went along as what it was: a body of a declared length.
    assert_eq!(door.seen(), 2);
    assert!(app.text().contains(&format!("content-length: {length}\r\n")), "{}", app.text());
}

#[tokio::test]
async fn a_request_without_a_length_has_no_body() {
    let app = RawUpstream::answering(OK).await;
    let door = Door::before(app.url()).await;
    let mut wire = Wire::to(door.address).await;
    wire.send("POST /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!((wire.answer().await.status, wire.answer().await.status), (200, 200));
    assert_eq!(door.seen(), 2, "both were judged");
}

#[tokio::test]
async fn bytes_behind_an_upgrade_reach_the_app_only_after_its_101() {
    // RUSTSEC-2026-0033: the app refuses, and takes what follows for a request.
    let app = RawUpstream::with(|mut conversation| async move {
        conversation.until(b"\r\n\r\n").await;
        conversation.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
        conversation.end().await;
    })
    .await;
    let door = Door::before(app.url()).await;
    let mut wire = Wire::to(door.address).await;
    let handshake = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    wire.send(format!("{handshake}{HIDDEN}")).await;
    assert_eq!(wire.answer().await.text(), "no");
    wire.assert_closed().await;
    assert_eq!(door.seen(), 1);
    assert!(!app.text().contains("/admin"), "{}", app.text());
}

#[tokio::test]
async fn an_offer_of_cleartext_h2_is_not_passed_on() {
    let app = RawUpstream::answering(OK).await;
    let door = Door::before(app.url()).await;
    let mut wire = Wire::to(door.address).await;
    let offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n";
    wire.send(format!("GET / HTTP/1.1\r\nHost: x\r\n{offer}\r\n{HIDDEN}")).await;
    assert_eq!(wire.answer().await.text(), "ok");
    wire.assert_closed().await;
    let heard = app.text().to_lowercase();
    assert!(!heard.contains("h2c") && !heard.contains("http2-settings") && !heard.contains("/admin"), "{heard}");
}

#[tokio::test]
async fn a_connect_does_not_poison_the_connections_to_an_app() {
    // CVE-2026-71324.
    let app = RawUpstream::answering(OK).await;
    let door = Door::before(app.url()).await;
    for _ in 0..3 {
        let mut wire = Wire::to(door.address).await;
        wire.send(format!("CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n{HIDDEN}")).await;
        assert_eq!(wire.answer().await.status, 400);
        wire.assert_closed().await;
        assert_eq!(Wire::ask(door.address, "GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").await.text(), "ok");
    }
    assert!(!app.text().contains("CONNECT") && !app.text().contains("/admin"), "{}", app.text());
    assert_eq!(app.text().matches("GET /ok").count(), 3);
}

#[tokio::test]
async fn an_answer_before_the_bodys_end_does_not_leave_the_rest_for_the_next_request() {
    // The app answers early and would take the rest of the body for a request on the same connection.
    let app = RawUpstream::with(|mut conversation| async move {
        conversation.until(b"\r\n\r\n").await;
        conversation.say(OK).await;
        conversation.end().await;
    })
    .await;
    let door = Door::before(app.url()).await;
    let mut wire = Wire::to(door.address).await;
    wire.send(post("Content-Length: 1000\r\n", "start")).await;
    assert_eq!(wire.answer().await.text(), "ok");
    drop(wire);
    assert_eq!(Wire::ask(door.address, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n").await.text(), "ok");
    until("the next request went its own way", || app.heard().iter().any(|one| one.starts_with(b"GET /next"))).await;
}

#[tokio::test]
async fn one_request_at_a_time_goes_over_a_connection_to_an_app() {
    // Pipelined requests of one client are not pipelined to the app, so answers cannot be mixed up.
    let app = RawUpstream::with(|mut conversation| async move {
        while let Some(request) = conversation.request().await {
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            conversation.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())).await;
        }
    })
    .await;
    let door = Door::before(app.url()).await;
    let mut wire = Wire::to(door.address).await;
    let all: String = (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    wire.send(all).await;
    for n in 0..20 {
        assert_eq!(wire.answer().await.text(), format!("/{n}"));
    }
}
