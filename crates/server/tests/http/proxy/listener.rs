//! The bounds of a listener, and TLS.

use std::{sync::Arc, time::Duration};

use doorward::listener::Tls;
use doorward_testkit::{
    upstream::{EchoApp, RawUpstream},
    wire::Wire,
};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::TlsConnector;

use super::{OK, SOON};
use crate::door::{Door, Setup, connect, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn a_connection_that_sends_half_a_head_or_nothing_is_closed() {
    let app = RawUpstream::answering(OK).await;
    let mut setup = Setup::of(app.url());
    setup.listener.head = Duration::from_millis(100);
    let door = setup.start().await;
    for sent in ["", "P", "PRI * HT", "GET / HTTP/1.1\r\nHost: x\r\nX: "] {
        let mut wire = Wire::to(door.address).await;
        wire.send(sent).await;
        wire.assert_closed().await;
    }
    assert_eq!(door.seen(), 0);
}

#[tokio::test]
async fn a_connection_on_which_nothing_happens_is_closed_and_one_at_work_is_not() {
    let app = RawUpstream::with(|mut conversation| async move {
        conversation.request().await;
        let later = tokio::time::sleep(Duration::from_millis(600));
        later.await;
        conversation.say(OK).await;
        conversation.end().await;
    })
    .await;
    let mut setup = Setup::of(app.url());
    setup.listener.idle = Duration::from_millis(100);
    let door = setup.start().await;
    let mut wire = Wire::to(door.address).await;
    wire.send(GET).await;
    assert_eq!(wire.answer().await.text(), "ok");
    wire.assert_closed().await;
}

#[tokio::test]
async fn a_head_that_is_too_long_or_has_too_many_fields_is_refused_with_its_reason() {
    let door = Door::before("http://127.0.0.1:9").await;
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(40_000));
    let endless = format!("GET /{}", "y".repeat(80_000));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(100));
    for head in [long, endless, many] {
        let mut wire = Wire::to(door.address).await;
        wire.send(&head).await;
        let answer = wire.answer().await;
        assert_eq!((answer.status, answer.header("x-doorward-reason")), (413, Some("payload_too_large")));
    }
    assert_eq!(door.seen(), 0);
}

#[tokio::test]
async fn the_largest_head_that_is_allowed_passes() {
    let app = RawUpstream::answering(OK).await;
    let door = Door::before(app.url()).await;
    let head = |fields: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let long = head(&format!("X: {}\r\n", "y".repeat(32 * 1024 - head("X: \r\n").len())));
    assert_eq!(long.len(), 32 * 1024);
    assert_eq!(Wire::ask(door.address, long).await.status, 200);
    assert_eq!(Wire::ask(door.address, head(&"X: y\r\n".repeat(99))).await.status, 200);
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let app = RawUpstream::answering(OK).await;
    let mut setup = Setup::of(app.url());
    setup.listener.max_connections = 1;
    let door = setup.start().await;
    let mut first = Wire::to(door.address).await;
    first.send(GET).await;
    first.answer().await;
    let mut second = Wire::to(door.address).await;
    second.send(GET).await;
    first.send(GET).await;
    first.answer().await;
    assert_eq!(door.seen(), 2, "the second was served beside the first");
    drop(first);
    assert_eq!(second.answer().await.status, 200);
}

#[tokio::test]
async fn a_drain_answers_what_is_under_way_and_takes_nothing_new() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let app = RawUpstream::with(move |mut conversation| {
        let mut gone = gone.clone();
        async move {
            conversation.request().await;
            gone.wait_for(|gone| *gone).await.unwrap();
            conversation.say(OK).await;
            conversation.end().await;
        }
    })
    .await;
    let mut door = Door::before(app.url()).await;
    let (mut busy, mut idle) = (Wire::to(door.address).await, Wire::to(door.address).await);
    busy.send(GET).await;
    until("a request is under way", || !app.text().is_empty()).await;
    door.drain.cancel();
    idle.assert_closed().await;
    assert!(tokio::net::TcpStream::connect(door.address).await.is_err(), "still accepts");
    go.send_replace(true);
    assert_eq!(busy.answer().await.text(), "ok");
    busy.assert_closed().await;
    tokio::time::timeout(SOON, &mut door.running).await.expect("still running").unwrap();
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline_whatever_is_under_way() {
    let app = RawUpstream::with(|mut conversation| async move { conversation.end().await }).await;
    let mut setup = Setup::of(app.url());
    setup.listener.drain = Duration::from_millis(100);
    let mut door = setup.start().await;
    let mut wire = Wire::to(door.address).await;
    wire.send(GET).await;
    until("a request is under way", || !app.text().is_empty()).await;
    door.drain.cancel();
    tokio::time::timeout(SOON, &mut door.running).await.expect("still running").unwrap();
    wire.assert_closed().await;
}

#[tokio::test]
async fn tls_serves_both_protocols_and_takes_up_a_new_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let renew = || {
        let made = rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).unwrap();
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        made.cert.pem()
    };
    let connector = |pem: &str, alpn: &[u8]| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsConnector::from(Arc::new(config))
    };
    let name = || ServerName::try_from("app.example.com").unwrap();

    let old = renew();
    let app = EchoApp::start().await;
    let mut setup = Setup::of(app.url());
    let tls = Tls::load(&cert, &key).unwrap();
    setup.tls = Some(tls.clone());
    let door = setup.start().await;

    let stream = connector(&old, b"http/1.1").connect(name(), connect(door.address).await).await.unwrap();
    let mut wire = Wire::over(stream);
    wire.send("GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n").await;
    let answer = wire.answer().await.text();
    assert!(answer.contains(r#"["x-forwarded-proto","https"]"#), "{answer}");

    let stream = connector(&old, b"h2").connect(name(), connect(door.address).await).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut h2, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request =
        http::Request::get("https://app.example.com/over/h2?x").header("cookie", "a=1").header("cookie", "b=2");
    let (answer, _) = h2.send_request(request.body(()).unwrap(), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let said = String::from_utf8(body.data().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(said.contains(r#""target":"/over/h2?x""#) && said.contains(r#"["host","app.example.com"]"#), "{said}");
    assert!(said.contains(r#"["cookie","a=1; b=2"]"#), "{said}");

    let new = renew();
    tls.reload().unwrap();
    assert!(connector(&old, b"h2").connect(name(), connect(door.address).await).await.is_err());
    assert!(connector(&new, b"h2").connect(name(), connect(door.address).await).await.is_ok());
}

#[tokio::test]
async fn plain_bytes_on_a_tls_port_and_silence_end_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut setup = Setup::of("http://127.0.0.1:9");
    setup.tls = Some(Tls::load(&cert, &key).unwrap());
    setup.listener.handshake = Duration::from_millis(100);
    let door = setup.start().await;
    for sent in [GET, ""] {
        let mut wire = Wire::to(door.address).await;
        wire.send(sent).await;
        let rest = wire.rest().await;
        assert!(!rest.starts_with(b"HTTP"), "{:?}", rest.escape_ascii().to_string());
    }
    assert_eq!(door.seen(), 0);
}
