//! WebSockets through the door.

use doorward_core::{reason::Reason, ws::close_frame};
use doorward_testkit::{
    upstream::{Conversation, RawUpstream},
    wire::Wire,
};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use super::impatient;
use crate::{
    door::{Door, Setup, connect, until},
    process::A_SECOND,
};

const HANDSHAKE: &str = "GET /ws?x=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACCEPT: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

/// An app that accepts and then says back what it hears, byte by byte.
async fn echoing() -> RawUpstream {
    RawUpstream::with(|mut conversation| async move {
        conversation.until(b"\r\n\r\n").await;
        conversation.say(ACCEPT).await;
        while let Some(bytes) = conversation.exactly(1).await {
            conversation.say(bytes).await;
        }
    })
    .await
}

async fn open(door: &Door) -> Wire {
    let mut wire = Wire::to(door.address).await;
    wire.send(format!("{HANDSHAKE}\r\n")).await;
    let answer = wire.answer().await;
    assert_eq!(answer.status, 101, "{}", answer.head);
    wire
}

/// The first half of a frame.
const HALF: &[u8] = b"\x82\x0ahalf ";

/// Accepts, and says the first half of a frame.
async fn say_half(conversation: &mut Conversation) {
    conversation.until(b"\r\n\r\n").await;
    conversation.say(ACCEPT).await;
    conversation.say(HALF).await;
}

/// A socket on which that has arrived.
async fn open_to_half(door: &Door) -> Wire {
    let mut wire = open(door).await;
    assert_eq!(wire.exactly(HALF.len()).await, HALF);
    wire
}

#[tokio::test]
async fn a_socket_is_piped_both_ways_without_being_re_framed() {
    let app = echoing().await;
    let door = Door::before(app.url()).await;
    let mut wire = Wire::to(door.address).await;
    wire.send(format!("{HANDSHAKE}X-Own: 1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")).await;
    let answer = wire.answer().await;
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.header("sec-websocket-protocol"), Some("chat"));
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    // Fragments, reserved bits, a length in its longest form: all as they are.
    let frames = b"\x41\x02ab\x00\x01c\x89\x00\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x03xyz";
    wire.send(frames).await;
    assert_eq!(wire.exactly(frames.len()).await, frames);
    let heard = app.text();
    assert!(heard.starts_with("GET /ws?x=1 HTTP/1.1\r\n") && heard.contains("x-own: 1\r\n"), "{heard}");
    assert!(heard.contains("sec-websocket-extensions: permessage-deflate\r\n"), "{heard}");
    until("one socket is counted", || door.proxy.open_sockets() == 1).await;
    drop(wire);
    until("none is left", || door.proxy.open_sockets() == 0).await;
}

#[tokio::test]
async fn a_revoked_socket_gets_its_close_frame_between_frames() {
    // A frame has half a second to end: a machine that stands still just then spoils it, and not each time.
    for _ in 0..5 {
        let (resume, resumed) = tokio::sync::watch::channel(false);
        let app = RawUpstream::with(move |mut conversation| {
            let mut resumed = resumed.clone();
            async move {
                say_half(&mut conversation).await;
                resumed.wait_for(|resumed| *resumed).await.unwrap();
                conversation.say(b"frame\x82\x05never").await;
                conversation.end().await;
            }
        })
        .await;
        let door = Door::before(app.url()).await;
        let mut wire = open_to_half(&door).await;
        door.revoke(Reason::SessionRevoked);
        resume.send_replace(true);
        let end = wire.rest().await;
        until("none is left", || door.proxy.open_sockets() == 0).await;
        if !end.is_empty() {
            assert_eq!(end, [b"frame".as_slice(), &close_frame(4003, "session_revoked")].concat());
            return;
        }
    }
    panic!("the socket was cut inside its frame each time");
}

#[tokio::test]
async fn a_revoked_socket_inside_a_frame_that_never_ends_is_cut_within_a_second() {
    let app = RawUpstream::with(|mut conversation| async move {
        say_half(&mut conversation).await;
        conversation.end().await;
    })
    .await;
    let door = Door::before(app.url()).await;
    let mut wire = open_to_half(&door).await;
    door.revoke(Reason::SessionRevoked);
    // The frame has half a second to end; the app hangs up by itself after a minute only.
    let ended = tokio::time::timeout(A_SECOND, wire.assert_closed()).await;
    assert!(ended.is_ok(), "still open long after the frame's grace");
}

#[tokio::test]
async fn a_drain_says_going_away_on_every_socket() {
    let app = echoing().await;
    let door = Door::before(app.url()).await;
    let (mut one, mut two) = (open(&door).await, open(&door).await);
    until("both are counted", || door.proxy.open_sockets() == 2).await;
    let (_, one, two) = tokio::join!(door.proxy.close_sockets(), one.rest(), two.rest());
    assert_eq!((one, two), (close_frame(1001, "going away"), close_frame(1001, "going away")));
}

#[tokio::test]
async fn a_socket_on_which_nothing_moves_ends_at_the_idle_limit() {
    let app = echoing().await;
    let mut setup = Setup::of("");
    setup.upstream = impatient(app.url());
    let door = setup.start().await;
    // The same limit holds for the handshake: where the machine stands still just then, it is tried again.
    for _ in 0..5 {
        let mut wire = Wire::to(door.address).await;
        wire.send(format!("{HANDSHAKE}\r\n")).await;
        let answer = wire.answer().await;
        if answer.status != 504 {
            assert_eq!(answer.status, 101, "{}", answer.head);
            assert_eq!(wire.rest().await, close_frame(1001, "idle"));
            return;
        }
    }
    panic!("no handshake was in time");
}

#[tokio::test]
async fn a_refusal_of_the_app_is_passed_on_and_the_connection_ends() {
    let app = RawUpstream::answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let door = Door::before(app.url()).await;
    let mut wire = Wire::to(door.address).await;
    wire.send(format!("{HANDSHAKE}\r\n")).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    assert_eq!(answer.header("connection"), Some("close"));
    wire.assert_closed().await;
}

#[tokio::test]
async fn a_101_that_answers_another_key_or_protocol_is_a_502() {
    for (right, wrong) in [("s3pPLMBi", "AAAALMBi"), ("Upgrade: websocket", "Upgrade: h2c")] {
        let said = ACCEPT.replace(right, wrong);
        let app = RawUpstream::with(move |mut conversation| {
            let said = said.clone();
            async move {
                conversation.until(b"\r\n\r\n").await;
                conversation.say(said).await;
                conversation.end().await;
            }
        })
        .await;
        let door = Door::before(app.url()).await;
        let answer = Wire::ask(door.address, format!("{HANDSHAKE}\r\n")).await;
        assert_eq!((answer.status, answer.header("x-doorward-reason")), (502, Some("upstream_unavailable")), "{wrong}");
    }
}

#[tokio::test]
async fn handshakes_that_can_be_read_in_two_ways_do_not_reach_the_app() {
    let app = echoing().await;
    let door = Door::before(app.url()).await;
    let handshakes = [
        HANDSHAKE.replace("GET", "POST"),
        HANDSHAKE.replace("websocket", "websocket, h2c"),
        HANDSHAKE.replace("Version: 13", "Version: 12"),
        HANDSHAKE.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhl"),
        format!("{HANDSHAKE}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        format!("{HANDSHAKE}Content-Length: 5\r\n"),
    ];
    for handshake in handshakes {
        let answer = Wire::ask(door.address, format!("{handshake}\r\n")).await;
        assert_eq!(
            (answer.status, answer.header("x-doorward-reason")),
            (400, Some("request_malformed")),
            "{handshake}"
        );
    }
    assert_eq!(app.text(), "");
}

#[tokio::test]
async fn two_stock_implementations_talk_through_it() {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let app = tokio::spawn(async move {
        let (stream, _) = socket.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.unwrap();
            }
        }
    });
    let door = Door::before(url).await;
    let stream = connect(door.address).await;
    let (mut socket, _) = tokio_tungstenite::client_async("ws://app.example.com/chat", stream).await.unwrap();
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let sent = Message::binary(vec![7; size]);
        socket.send(sent.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), sent);
    }
    door.revoke(Reason::UserBanned);
    let close = socket.next().await.unwrap().unwrap();
    let Message::Close(Some(close)) = close else { panic!("not a close: {close:?}") };
    assert_eq!((close.code, close.reason.as_str()), (CloseCode::from(4003), "user_banned"));
    app.await.unwrap();
}
