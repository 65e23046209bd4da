//! The TLS listener.

use std::{fs, sync::Arc};

use doorward_testkit::{port, upstream::EchoApp, wire::Wire};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Installation, PATIENCE};

const NAME: &str = "app.example.com";

/// Writes a new certificate and gives it back.
fn renew(installation: &Installation) -> String {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    // Key first: a server that looks in between finds a pair that does not match, and keeps the old one.
    fs::write(installation.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::write(installation.path().join("cert.pem"), made.cert.pem()).unwrap();
    made.cert.pem()
}

async fn connect(port: u16, root: &str, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(NAME).unwrap(), stream).await
}

#[tokio::test]
async fn it_serves_both_protocols_and_takes_up_a_changed_certificate_by_itself() {
    let app = EchoApp::start().await;
    let (installation, https) = (Installation::with(""), port::free());
    let old = renew(&installation);
    fs::write(
        installation.path().join("doorward.toml"),
        format!(
            "public_url = \"https://{NAME}\"\n[listen]\nhttp = \"{}\"\nhttps = \"127.0.0.1:{https}\"\n\
             admin = \"127.0.0.1:0\"\ntls = {{ cert_file = \"cert.pem\", key_file = \"key.pem\" }}\n\
             [apps.web]\nupstream = \"{}\"\n[[rules]]\npath = \"/*\"\nallow = [\"public\"]\napp = \"web\"\n",
            installation.address(),
            app.url()
        ),
    )
    .unwrap();
    let server = installation.serve().await;
    // The ports open one after the other.
    server.line(PATIENCE, |line| line.contains("listening").then_some(())).await;

    let stream = connect(https, &old, b"http/1.1").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut wire = Wire::over(stream);
    wire.send(format!("GET /x HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
    let answer = wire.answer().await;
    assert!(answer.text().contains(r#"["x-forwarded-proto","https"]"#), "{answer:?}");

    let stream = connect(https, &old, b"h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut h2, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("https://{NAME}/over/h2")).body(()).unwrap();
    let (answer, _) = h2.send_request(request, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let said = String::from_utf8(body.data().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(said.contains(r#""target":"/over/h2""#), "{said}");

    let new = renew(&installation);
    // Waited for by its log line: handshakes without end would be a load of their own.
    server.line(PATIENCE, |line| line.contains("taken up anew").then_some(())).await;
    connect(https, &new, b"h2").await.unwrap_or_else(|error| panic!("{error}:\n{}", server.output()));
    assert!(connect(https, &old, b"h2").await.is_err());
}
