//! Bodies on their way, in both directions.

use std::{sync::Arc, time::Duration};

use doorward_core::reason::Reason;
use doorward_testkit::{upstream::RawUpstream, wire::Wire};

use super::{OK, SOON, impatient};
use crate::door::{Door, Setup, until};

#[tokio::test]
async fn both_directions_stream_piece_by_piece() {
    let app = RawUpstream::with(|mut conversation| async move {
        conversation.until(b"\r\n\r\n").await;
        conversation.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        for _ in 0..3 {
            // A piece goes back only once its counterpart has come, and the other way round.
            let piece = conversation.until(b"\r\n").await.unwrap();
            let line = conversation.until(b"\r\n").await.unwrap();
            conversation.say([piece, line].concat()).await;
        }
        conversation.say("0\r\n\r\n").await;
        conversation.end().await;
    })
    .await;
    let door = Door::before(app.url()).await;
    let mut wire = Wire::to(door.address).await;
    wire.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    wire.until(b"\r\n\r\n").await;
    for piece in ["3\r\none\r\n", "3\r\ntwo\r\n", "5\r\nthree\r\n"] {
        wire.send(piece).await;
        assert_eq!(wire.exactly(piece.len()).await, piece.as_bytes());
    }
    assert_eq!(wire.exactly(5).await, b"0\r\n\r\n");
}

#[tokio::test]
async fn a_body_of_many_megabytes_passes_whole_both_ways() {
    const SIZE: usize = 24 << 20;
    let app = RawUpstream::with(|mut conversation| async move {
        conversation.until(b"\r\n\r\n").await;
        let body = conversation.exactly(SIZE).await.unwrap();
        conversation.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).await;
        conversation.say(body).await;
    })
    .await;
    let door = Door::before(app.url()).await;
    let body: Vec<u8> = (0..SIZE).map(|n| (n % 253) as u8).collect();
    let mut wire = Wire::to(door.address).await;
    wire.send(format!("PUT /big HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n")).await;
    wire.send(&body).await;
    let answer = wire.answer().await;
    assert_eq!(answer.status, 200);
    assert!(answer.body == body, "the body came back changed");
}

#[tokio::test]
async fn trailers_pass_both_ways_less_what_no_header_could_carry() {
    let app = RawUpstream::with(|mut conversation| async move {
        conversation.request().await;
        conversation
            .say(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Set-Cookie\r\n\r\n\
                 2\r\nok\r\n0\r\nX-Sum: 2\r\nSet-Cookie: doorward_sid=evil\r\n\r\n",
            )
            .await;
    })
    .await;
    let door = Door::before(app.url()).await;
    let answer = Wire::ask(
        door.address,
        "POST / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\
         Trailer: X-Sum, X-Doorward-Subject, Remote-User\r\n\r\n\
         2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Doorward-Subject: admin\r\nRemote-User: admin\r\n\r\n",
    )
    .await;
    assert_eq!((answer.text().as_str(), answer.trailers.to_lowercase().as_str()), ("ok", "x-sum: 2"));
    let heard = app.text().to_lowercase();
    assert!(heard.contains("te: trailers"), "{heard}");
    assert!(heard.ends_with("2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n"), "{heard}");
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_when_its_body_is_wanted() {
    let app = RawUpstream::answering(OK).await;
    let door = Door::before(app.url()).await;
    let mut wire = Wire::to(door.address).await;
    wire.send("PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(wire.until(b"\r\n\r\n").await, b"HTTP/1.1 100 Continue\r\n\r\n");
    wire.send("hello").await;
    assert_eq!(wire.answer().await.text(), "ok");
    assert!(app.text().ends_with("hello") && !app.text().to_lowercase().contains("expect"));
}

#[tokio::test]
async fn informational_answers_of_an_app_do_not_disturb_the_final_one() {
    let app = RawUpstream::answering(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let door = Door::before(app.url()).await;
    assert_eq!(Wire::ask(door.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.text(), "ok");
}

#[tokio::test]
async fn an_app_that_breaks_off_inside_its_answer_is_seen_to_break_off() {
    let app = RawUpstream::with(|mut conversation| async move {
        conversation.request().await;
        conversation.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
        conversation.hang_up().await;
    })
    .await;
    let door = Door::before(app.url()).await;
    let mut wire = Wire::to(door.address).await;
    wire.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let rest = String::from_utf8(wire.rest().await).unwrap();
    assert!(rest.contains("half") && !rest.ends_with("0\r\n\r\n"), "{rest}");
}

#[tokio::test]
async fn an_answer_that_stalls_is_cut_off_at_the_idle_limit() {
    let app = RawUpstream::with(|mut conversation| async move {
        conversation.request().await;
        conversation.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        conversation.end().await;
    })
    .await;
    let mut setup = Setup::of("");
    setup.upstream = impatient(app.url());
    let door = setup.start().await;
    let mut wire = Wire::to(door.address).await;
    wire.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(wire.rest().await.ends_with(b"half"));
}

#[tokio::test]
async fn an_upload_that_moves_keeps_a_silent_app_from_timing_out() {
    let app = RawUpstream::answering(OK).await;
    let mut setup = Setup::of("");
    setup.upstream = impatient(app.url());
    let door = setup.start().await;
    let mut statuses = Vec::new();
    // A machine that stands still for as long as the limit spoils one of them, not all.
    while statuses.len() < 5 && !statuses.contains(&200) {
        let mut wire = Wire::to(door.address).await;
        wire.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n").await;
        // Three times the limit in all, never as long as the limit without a byte.
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..12 {
            pace.tick().await;
            wire.send("x").await;
        }
        statuses.push(wire.answer().await.status);
    }
    assert!(statuses.contains(&200), "{statuses:?}");
}

#[tokio::test]
async fn a_stream_of_somebody_who_was_revoked_ends_and_so_does_his_waiting() {
    let app = RawUpstream::with(|mut conversation| async move {
        if conversation.request().await.is_some_and(|request| request.starts_with("GET /events")) {
            conversation.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n").await;
        }
        conversation.end().await;
    })
    .await;
    let door = Door::before(app.url()).await;
    let (mut streaming, mut waiting) = (Wire::to(door.address).await, Wire::to(door.address).await);
    streaming.send("GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await;
    streaming.until(b"event\r\n").await;
    waiting.send("GET /poll HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until("the app was asked", || app.text().contains("/poll")).await;
    door.revoke(Reason::SessionRevoked);
    assert!(!streaming.rest().await.ends_with(b"0\r\n\r\n"), "the stream seems to have ended by itself");
    let answer = waiting.answer().await;
    assert_eq!((answer.status, answer.header("x-doorward-reason")), (401, Some("session_revoked")));
}

#[tokio::test]
async fn a_short_answer_on_its_way_is_finished_and_only_a_slow_or_long_one_is_cut() {
    let go_on = Arc::new(tokio::sync::Semaphore::new(0));
    let told = Arc::clone(&go_on);
    let app = RawUpstream::with(move |mut conversation| {
        let told = Arc::clone(&told);
        async move {
            let request = conversation.request().await.unwrap_or_default();
            let length = if request.starts_with("GET /long") { 100_000 } else { 8 };
            conversation.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nhalf")).await;
            if request.starts_with("GET /quick") {
                told.acquire().await.unwrap().forget();
                conversation.say("done").await;
            }
            conversation.end().await;
        }
    })
    .await;
    // The answer has a third of a second to be finished: a machine that stands still just then spoils it, and not each time.
    for _ in 0..5 {
        let door = Door::before(app.url()).await;
        let mut wires = Vec::new();
        for target in ["/quick", "/slow", "/long"] {
            let mut wire = Wire::to(door.address).await;
            wire.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            assert!(wire.until(b"half").await.starts_with(b"HTTP/1.1 200"), "{target}");
            wires.push(wire);
        }
        door.revoke(Reason::SessionRevoked);
        let [quick, slow, long] = &mut wires[..] else { unreachable!("three were opened") };
        go_on.add_permits(1);
        let finished = quick.try_exactly(4).await;
        assert_eq!(long.rest().await, b"", "a long one is cut");
        let cut = tokio::time::timeout(SOON, slow.rest()).await;
        assert_eq!(cut.as_deref(), Ok(&b""[..]), "a short one is waited for, but not long");
        if let Some(end) = finished {
            assert_eq!(end, b"done");
            return;
        }
    }
    panic!("a short answer was cut each time");
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_along() {
    let (hung_up, mut told) = tokio::sync::watch::channel(false);
    let app = RawUpstream::with(move |mut conversation| {
        let hung_up = hung_up.clone();
        async move {
            conversation.request().await;
            conversation.end().await;
            hung_up.send_replace(true);
        }
    })
    .await;
    let door = Door::before(app.url()).await;
    let mut wire = Wire::to(door.address).await;
    wire.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until("the app was asked", || app.text().contains("/slow")).await;
    drop(wire);
    let told = tokio::time::timeout(SOON, told.wait_for(|told| *told)).await;
    assert!(told.is_ok(), "the app still works for nobody");
}

#[tokio::test]
async fn of_many_clients_at_once_each_gets_the_answer_to_its_own_request() {
    let app = RawUpstream::with(|mut conversation| async move {
        while let Some(request) = conversation.request().await {
            let said = request.split(' ').nth(1).unwrap_or_default().to_owned();
            conversation.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len())).await;
        }
    })
    .await;
    let door = Door::before(app.url()).await;
    let address = door.address;
    let clients = (0..50).map(|client| {
        tokio::spawn(async move {
            let mut wire = Wire::to(address).await;
            for turn in 0..40 {
                wire.send(format!("GET /{client}/{turn} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
                assert_eq!(wire.answer().await.text(), format!("/{client}/{turn}"));
            }
        })
    });
    for client in futures_util::future::join_all(clients).await {
        client.unwrap();
    }
    assert!(app.heard().len() < 500, "connections are not used again");
}
