use proptest::prelude::*;

use super::*;

/// Reads a whole connection in pieces; what has passed, and why it ended if it did.
fn read(pieces: &[&[u8]]) -> (Vec<u8>, Option<Flaw>, u32) {
    let mut framing = Framing::new();
    let (mut held, mut passed) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            match framing.step(&held) {
                Step::Pass(count) => passed.extend(held.drain(..count)),
                Step::More | Step::Undecided => break,
                Step::Refuse(flaw) => return (passed, Some(flaw), framing.heads()),
            }
        }
    }
    (passed, None, framing.heads())
}

fn flaw_of(head: &str) -> Option<Flaw> {
    read(&[head.as_bytes()]).1
}

#[test]
fn plain_requests_pass_one_after_the_other() {
    let stream = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n\
        POST / HTTP/1.1\r\nhost:x\r\ncontent-length: 5\r\n\r\nhello\
        \r\nPUT /%41;p=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\nTrailer: T\r\n\r\n\
        3;x=\"y z\"\r\nabc\r\n00A\r\n0123456789\r\n0\r\nT: 1\r\n\r\n\
        GET / HTTP/1.0\r\nHost: x\r\nX: \xe4 \t\r\n\r\n";
    assert_eq!(read(&[stream]), (stream.to_vec(), None, 4));
}

#[test]
fn heads_that_can_be_read_in_two_ways_are_refused() {
    use HeadFlaw::*;
    let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let line = |line: &str| format!("{line}\r\nHost: x\r\n\r\n");
    let cases = [
        (with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), BothLengths),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), BothLengths),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), BothLengths),
        (with("Content-Length: 5\r\nContent-Length: 6\r\n"), ContentLength),
        (with("Content-Length: 5\r\nContent-Length: 5\r\n"), ContentLength),
        (with("Content-Length: 5, 5\r\n"), ContentLength),
        (with("Content-Length: +5\r\n"), ContentLength),
        (with("Content-Length: 0x5\r\n"), ContentLength),
        (with("Content-Length: 5 5\r\n"), ContentLength),
        (with("Content-Length: -1\r\n"), ContentLength),
        (with("Content-Length:\r\n"), ContentLength),
        (with("Content-Length: 9999999999999999999\r\n"), ContentLength),
        (with("Transfer-Encoding: identity\r\n"), TransferEncoding),
        (with("Transfer-Encoding: gzip, chunked\r\n"), TransferEncoding),
        (with("Transfer-Encoding: chunked, chunked\r\n"), TransferEncoding),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), TransferEncoding),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), TransferEncoding),
        (with("Transfer-Encoding: xchunked\r\n"), TransferEncoding),
        (with("Transfer-Encoding: \"chunked\"\r\n"), TransferEncoding),
        (with("Transfer-Encoding:\r\n"), TransferEncoding),
        (with("Transfer-Encoding: chunked;q=1\r\n"), TransferEncoding),
        ("POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".into(), TransferEncoding),
        (with("Transfer-Encoding : chunked\r\n"), FieldName),
        (with("Transfer-Encoding\t: chunked\r\n"), FieldName),
        (with(" Transfer-Encoding: chunked\r\n"), Folded),
        (with("X: y\r\n Transfer-Encoding: chunked\r\n"), Folded),
        (with("X: y\r\n\tz\r\n"), Folded),
        (with("X: y\nTransfer-Encoding: chunked\r\n"), BareLineEnd),
        (with("X: y\rTransfer-Encoding: chunked\r\n"), BareLineEnd),
        (with("X: y\0z\r\n"), FieldValue),
        (with("X: y\x0bz\r\n"), FieldValue),
        (with("Transfer-Encoding: \x0bchunked\r\n"), FieldValue),
        (with("X\r\n"), FieldName),
        (with(": x\r\n"), FieldName),
        (with("X Y: z\r\n"), FieldName),
        (with("Content_Length: 5\r\n"), LookAlike),
        (with("Transfer_Encoding: chunked\r\n"), LookAlike),
        (with("transfer.encoding: chunked\r\n"), LookAlike),
        (with("Host: y\r\n"), Host),
        ("GET / HTTP/1.1\r\n\r\n".into(), Host),
        ("GET / HTTP/1.0\r\n\r\n".into(), Host),
        (line("GET http://y/ HTTP/1.1"), TargetForm),
        (line("GET * HTTP/1.1"), TargetForm),
        (line("CONNECT y:443 HTTP/1.1"), TargetForm),
        (line("GET ?a HTTP/1.1"), TargetForm),
        (line("GET  / HTTP/1.1"), TargetForm),
        (line("GET /a#b HTTP/1.1"), TargetFragment),
        (line("GET /a b HTTP/1.1"), TargetByte),
        (line("GET /a\tb HTTP/1.1"), TargetByte),
        (line("GET /\u{e9} HTTP/1.1"), TargetByte),
        (line("GET /a\"b HTTP/1.1"), TargetByte),
        (line("GET /?a=<b> HTTP/1.1"), TargetByte),
        (with(&"X: y\r\n".repeat(MAX_FIELDS)), TooLarge),
        (line("GET / HTTP/1.1 "), RequestLine),
        (line("GET / HTTP/1.2"), RequestLine),
        (line("GET / HTTP/2.0"), RequestLine),
        (line("GET / http/1.1"), RequestLine),
        (line("GET /"), RequestLine),
        (line("G(T / HTTP/1.1"), RequestLine),
        (line(" GET / HTTP/1.1"), RequestLine),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n".into(), RequestLine),
        ("\nGET / HTTP/1.1\r\nHost: x\r\n\r\n".into(), BareLineEnd),
        ("GET / HTTP/1.1\nHost: x\n\n".into(), BareLineEnd),
        ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".into(), RequestLine),
    ];
    for (head, flaw) in cases {
        assert_eq!(flaw_of(&head), Some(Flaw::Head(flaw)), "{head:?}");
        assert!(!flaw.text().is_empty());
    }
}

#[test]
fn chunks_that_can_be_read_in_two_ways_are_refused() {
    let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bodies = [
        "\r\n",
        ";x\r\n",
        "g\r\n",
        "0x5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        " 5\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "5\nhello\r\n",
        "5\r\nhelloX\r\n",
        "5\r\nhello\n",
        "5\r\nhello0\r\n\r\n",
        "5;a\nb\r\nhello\r\n",
        "5;a\rb\r\nhello\r\n",
        "0000000000000000\r\n",
        "fffffffffffffffff\r\n",
        "0\r\n\n",
        "0\r\nX: y\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\nGET / HTTP/1.1\r\n\r\n",
    ];
    for body in bodies {
        let (passed, flaw, _) = read(&[head.as_bytes(), body.as_bytes()]);
        assert_eq!(flaw, Some(Flaw::Chunk), "{body:?}");
        assert_eq!(passed, head.as_bytes(), "{body:?}");
    }
    let long = format!("5;{}\r\n", "x".repeat(300));
    assert_eq!(read(&[head.as_bytes(), long.as_bytes()]).1, Some(Flaw::Chunk));
    let trailers = format!("0\r\n{}", "x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(600));
    assert_eq!(read(&[head.as_bytes(), trailers.as_bytes()]).1, Some(Flaw::Chunk));
}

#[test]
fn nothing_passes_behind_an_upgrade_until_it_is_switched() {
    let head = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n";
    let mut framing = Framing::new();
    assert_eq!(framing.step(head), Step::Pass(head.len()));
    assert_eq!(framing.step(b"\x81\x00"), Step::Undecided);
    framing.switch();
    assert_eq!(framing.step(b"\x81\x00"), Step::Pass(2));
}

#[test]
fn a_switch_that_nobody_asked_for_changes_nothing() {
    let mut framing = Framing::new();
    framing.switch();
    assert_eq!(framing.step(b"\n"), Step::Refuse(Flaw::Head(HeadFlaw::BareLineEnd)));
}

#[test]
fn the_preface_of_http_2_opens_the_first_connection_bytes_only() {
    let stream = [H2_PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat();
    assert_eq!(read(&[&stream]).0, stream);
    assert_eq!(read(&[&stream[..3], &stream[3..]]).0, stream);
    let late = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", H2_PREFACE].concat();
    assert_eq!(read(&[&late]).1, Some(Flaw::Head(HeadFlaw::RequestLine)));
}

/// A reader of the plainest kind: requests as text, for those that pass.
fn requests(passed: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut rest = passed;
    let mut requests = Vec::new();
    while !rest.is_empty() {
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(rest[..end].to_vec()).unwrap();
        rest = &rest[end..];
        let length =
            head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |n| n.parse().unwrap());
        requests.push((head, rest[..length].to_vec()));
        rest = &rest[length..];
    }
    requests
}

proptest! {
    #[test]
    fn what_passes_does_not_depend_on_how_the_bytes_arrive(
        parts in prop::collection::vec(prop::sample::select(vec![
            "GET / HTTP/1.1\r\n", "POST /x HTTP/1.1\r\n", "Host: x\r\n", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n",
            "\r\n", "abc", "3\r\nabc\r\n", "0\r\n\r\n", "X: y\r\n", "\n", "Upgrade: h\r\n", " z\r\n", "PRI * HTTP/2.0\r\n\r\n", "SM\r\n\r\n",
        ]), 0..14),
        cuts in prop::collection::vec(1usize..9, 1..20),
    ) {
        let stream = parts.concat().into_bytes();
        let mut pieces = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break }
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        let whole = read(&[&stream]);
        prop_assert!(stream.starts_with(&whole.0));
        prop_assert_eq!(read(&pieces), whole);
    }

    #[test]
    fn requests_with_a_length_are_the_same_requests_to_the_plainest_reader(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
    ) {
        let mut stream = Vec::new();
        for body in &bodies {
            stream.extend(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).bytes());
            stream.extend(body);
        }
        let (passed, flaw, heads) = read(&[&stream]);
        prop_assert_eq!(flaw, None);
        prop_assert_eq!(heads as usize, bodies.len());
        prop_assert_eq!(requests(&passed).into_iter().map(|(_, body)| body).collect::<Vec<_>>(), bodies);
    }

    #[test]
    fn no_bytes_make_it_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (passed, ..) = read(&[&bytes]);
        prop_assert!(bytes.starts_with(&passed));
    }
}
