//! HTTP/2, with frames and header blocks made by hand where no client would send them.

use doorward_testkit::{upstream::RawUpstream, wire::Wire};

use super::OK;
use crate::door::{Door, connect, until};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals without indexing or Huffman coding: any bytes at all.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        if text.len() < 127 {
            bytes.push(text.len() as u8);
        } else {
            bytes.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                bytes.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            bytes.push(rest as u8);
        }
        bytes.extend(text.as_bytes());
    };
    for (name, value) in fields {
        bytes.push(0);
        text(&mut bytes, name);
        text(&mut bytes, value);
    }
    bytes
}

struct H2(Wire);

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// `:status`, when it stands in the static table.
    Status(u16),
    Reset,
    GoAway,
    Closed,
}

impl H2 {
    async fn to(door: &Door) -> Self {
        let mut wire = Wire::to(door.address).await;
        wire.send([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        Self(wire)
    }

    /// How the first stream ends.
    async fn end(&mut self) -> End {
        loop {
            let Ok(head) = tokio::time::timeout(std::time::Duration::from_mins(1), self.frame()).await else {
                panic!("no end came");
            };
            let Some((kind, flags, payload)) = head else { return End::Closed };
            match kind {
                SETTINGS if flags & ACK == 0 => self.0.send(frame(SETTINGS, ACK, 0, &[])).await,
                HEADERS => {
                    let status = [(0x88, 200), (0x8c, 400), (0x8d, 404)];
                    let status = status.iter().find(|(byte, _)| payload.first() == Some(byte));
                    return End::Status(status.map_or(0, |(_, status)| *status));
                }
                RST_STREAM => return End::Reset,
                GOAWAY => return End::GoAway,
                _ => {}
            }
        }
    }

    async fn frame(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let head = self.0.try_exactly(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        Some((head[3], head[4], self.0.try_exactly(length).await?))
    }
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "app.example.com"), (":path", "/")];

fn with<'a>(change: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields: Vec<(&str, &str)> = GET.to_vec();
    for (name, value) in change {
        match fields.iter_mut().find(|(present, _)| present == name && name.starts_with(':')) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
    }
    fields
}

/// Sends the frames on a new connection; the stream must not get a 200. Returns what the app heard.
async fn not_answered(what: &str, frames: &[Vec<u8>]) -> String {
    let app = RawUpstream::answering(OK).await;
    let door = Door::before(app.url()).await;
    let mut h2 = H2::to(&door).await;
    h2.0.send(frames.concat()).await;
    assert_ne!(h2.end().await, End::Status(200), "{what}");
    app.text()
}

/// The same, and the app must have heard nothing.
async fn assert_refused(what: &str, frames: &[Vec<u8>]) {
    let heard = not_answered(what, frames).await;
    assert_eq!(heard, "", "{what}");
}

#[tokio::test]
async fn a_plain_request_made_by_hand_passes() {
    let app = RawUpstream::answering(OK).await;
    let door = Door::before(app.url()).await;
    let mut h2 = H2::to(&door).await;
    h2.0.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&GET))).await;
    assert_eq!(h2.end().await, End::Status(200));
    assert!(
        app.text().starts_with("GET / HTTP/1.1\r\n") && app.text().contains("host: app.example.com\r\n"),
        "{}",
        app.text()
    );
}

#[tokio::test]
async fn fields_that_would_frame_or_route_an_http_1_message_are_refused() {
    let cases: &[&[(&str, &str)]] = &[
        &[("transfer-encoding", "chunked")],
        &[("connection", "close")],
        &[("connection", "x-forwarded-for")],
        &[("keep-alive", "timeout=5")],
        &[("proxy-connection", "keep-alive")],
        &[("upgrade", "websocket")],
        &[("te", "gzip")],
        &[("transfer_encoding", "chunked")],
        &[("content_length", "5")],
        &[("host", "admin.example.com")],
        &[("host", "app.example.com"), ("host", "app.example.com")],
        &[("x-http-method-override", "DELETE")],
        &[("content-length", "5")],
        &[("content-length", "0"), ("content-length", "5")],
        &[("content-length", "+0")],
    ];
    for fields in cases {
        let headers = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&with(fields)));
        assert_refused(&format!("{fields:?}"), &[headers]).await;
    }
}

#[tokio::test]
async fn line_ends_and_controls_in_fields_are_refused() {
    let smuggled = "x\r\n\r\nGET /admin HTTP/1.1\r\nHost: x\r\n\r\n";
    let cases: &[(&str, &str)] = &[
        ("x", smuggled),
        ("x", "a\nb"),
        ("x", "a\rb"),
        ("x", "a\0b"),
        ("x\r\ny", "z"),
        ("x: y\r\nz", "z"),
        ("x y", "z"),
        ("X-Upper", "z"),
        ("", "z"),
        (":path", "/\r\nx: y"),
        (":path", "/ HTTP/1.1\r\nHost: x\r\n\r\nGET /admin"),
        (":path", "/a b"),
        (":method", "GET /admin HTTP/1.1\r\nHost: x\r\n\r\nGET"),
        (":method", "GET "),
        (":authority", "x\r\ny: z"),
        (":scheme", "http://x/admin?"),
    ];
    for field in cases {
        let headers = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&with(&[*field])));
        assert_refused(&format!("{field:?}"), &[headers]).await;
    }
}

#[tokio::test]
async fn pseudo_headers_that_are_doubled_missing_late_or_odd_are_refused() {
    let cases: Vec<Vec<(&str, &str)>> = vec![
        with(&[(":path", "http://x/admin")]),
        with(&[(":path", "*")]),
        with(&[(":path", "")]),
        with(&[(":path", "admin")]),
        with(&[(":path", "?x")]),
        with(&[(":authority", "")]),
        with(&[(":authority", "u@app.example.com")]),
        with(&[(":authority", "app.example.com/admin")]),
        with(&[(":method", "CONNECT")]),
        with(&[(":method", "TRACE")]),
        with(&[(":method", "CONNECT"), (":protocol", "websocket")]),
        with(&[(":unknown", "x")]),
        with(&[(":status", "200")]),
        GET.into_iter().chain([(":path", "/admin")]).collect(),
        GET.into_iter().chain([(":authority", "admin")]).collect(),
        GET.into_iter().filter(|(name, _)| *name != ":path").collect(),
        GET.into_iter().filter(|(name, _)| *name != ":method").collect(),
        GET.into_iter().filter(|(name, _)| *name != ":scheme").collect(),
        GET.into_iter().filter(|(name, _)| *name != ":authority").collect(),
        [("x", "y")].into_iter().chain(GET).collect(),
    ];
    for fields in cases {
        let headers = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields));
        assert_refused(&format!("{fields:?}"), &[headers]).await;
    }
}

#[tokio::test]
async fn a_body_of_another_length_than_declared_never_becomes_a_whole_request() {
    for (declared, sent) in [("0", &b"GET /admin HTTP/1.1\r\n\r\n"[..]), ("3", b"hello"), ("50", b"hello")] {
        let fields = with(&[(":method", "POST"), ("content-length", declared)]);
        let frames = [frame(HEADERS, END_HEADERS, 1, &block(&fields)), frame(DATA, END_STREAM, 1, sent)];
        let what = format!("{declared} declared, {} sent", sent.len());
        // Its head may have gone on its way; what was sent too much must not follow as a request.
        let heard = not_answered(&what, &frames).await;
        assert!(!heard.contains("/admin"), "{what}: {heard}");
        let body = heard.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(declared == "0" || body.len() < declared.parse().unwrap(), "{what}: {heard}");
    }
}

#[tokio::test]
async fn frames_that_interrupt_or_never_end_a_header_block_end_the_connection() {
    let half = &block(&GET)[..10];
    assert_refused("DATA inside a header block", &[frame(HEADERS, 0, 1, half), frame(DATA, 0, 1, b"x")]).await;
    assert_refused("CONTINUATION without a block", &[frame(CONTINUATION, END_HEADERS, 1, half)]).await;
    assert_refused("an even stream", &[frame(HEADERS, END_STREAM | END_HEADERS, 2, &block(&GET))]).await;
    let mut flood = vec![frame(HEADERS, END_STREAM, 1, &block(&GET))];
    let filler = block(&[("x-filler", &"y".repeat(4000))]);
    flood.extend((0..500).map(|_| frame(CONTINUATION, 0, 1, &filler)));
    assert_refused("an endless header block", &flood).await;
}

#[tokio::test]
async fn a_client_that_opens_and_resets_streams_in_a_row_is_cut_off() {
    let app = RawUpstream::answering(OK).await;
    let door = Door::before(app.url()).await;
    let mut h2 = H2::to(&door).await;
    for n in 0..2_000u32 {
        let stream = 2 * n + 1;
        let reset = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
        h2.0.send([frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&GET)), reset].concat()).await;
    }
    loop {
        match h2.frame().await {
            Some((GOAWAY, _, payload)) => {
                assert_eq!(payload[4..8], 11u32.to_be_bytes(), "not ENHANCE_YOUR_CALM");
                break;
            }
            Some(_) => {}
            None => break,
        }
    }
    assert!(door.seen() < 1_000, "{} of 2000 got through", door.seen());
}

#[tokio::test]
async fn streams_beyond_the_bound_wait_and_sockets_over_h2_are_not_offered() {
    let app = RawUpstream::with(|mut conversation| async move { conversation.end().await }).await;
    let door = Door::before(app.url()).await;
    let (h2, connection) = h2::client::handshake(connect(door.address).await).await.unwrap();
    tokio::spawn(connection);
    let mut h2 = h2.ready().await.unwrap();
    assert!(!h2.is_extended_connect_protocol_enabled());
    let mut answers = Vec::new();
    for _ in 0..128 {
        let request = http::Request::get("http://app.example.com/").body(()).unwrap();
        answers.push(h2.send_request(request, true).unwrap());
        h2 = h2.ready().await.unwrap();
        if answers.len() == 128 {
            break;
        }
    }
    until("all that may are under way", || door.seen() == 128).await;
    assert_eq!(h2.current_max_send_streams(), 128);
}

#[tokio::test]
async fn a_large_upload_over_h2_arrives_whole() {
    const SIZE: usize = 4 << 20;
    let app = RawUpstream::with(|mut conversation| async move {
        conversation.until(b"\r\n\r\n").await;
        let body = conversation.exactly(SIZE).await.unwrap_or_default();
        let right = body.iter().enumerate().all(|(n, &byte)| byte == (n % 251) as u8) && body.len() == SIZE;
        conversation.say(format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{right:5}")).await;
    })
    .await;
    let door = Door::before(app.url()).await;
    let (mut h2, connection) = h2::client::handshake(connect(door.address).await).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::put("http://app.example.com/").header("content-length", SIZE).body(()).unwrap();
    let (answer, mut send) = h2.send_request(request, false).unwrap();
    let body: bytes::Bytes = (0..SIZE).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
    send.send_data(body, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(&body.data().await.unwrap().unwrap()[..], b"true ");
}
