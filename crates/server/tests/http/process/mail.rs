//! Mails to a real mail server: over TLS, with a password, and what happens to those that do not arrive.

use std::fs;

use doorward_testkit::{
    mail::MailSink,
    process::{Process, Signal},
    upstream::RawUpstream,
};
use serde_json::{Value, json};

use super::{Installation, PATIENCE, all, until};

const USER: &str = "robot@example.com";
const PASSWORD: &str = "pass w\u{f6}rd:/@%";
const ESCAPED: &str = "robot%40example.com:pass%20w%C3%B6rd%3A%2F%40%25";
const ADA: &str = "ada@example.com";

/// A certificate of `localhost` and of 127.0.0.1, and its key, in the folder of an installation that trusts it.
fn certificate(installation: &Installation) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let [cert, key] = ["mail-cert.pem", "mail-key.pem"].map(|name| installation.path().join(name));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (cert.to_str().unwrap().to_owned(), key.to_str().unwrap().to_owned())
}

fn mail(url: &str) -> String {
    format!("[mail]\nurl = \"{url}\"\nfrom = \"Doorward <login@example.com>\"\n[login]\nallow_sign_up = true\n")
}

/// `check`, in a process that trusts the installation's own certificate, or not.
async fn check(installation: &Installation, trusts: bool) -> (Option<i32>, String) {
    let mut command = installation.command(&["check"]);
    if trusts {
        command.env("SSL_CERT_FILE", installation.path().join("mail-cert.pem"));
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (output.status.code(), all(&output))
}

async fn serve(installation: &Installation, trusts: bool) -> Process {
    let mut command = installation.command(&["serve"]);
    if trusts {
        command.env("SSL_CERT_FILE", installation.path().join("mail-cert.pem"));
    }
    let server = Process::start("doorward", &mut command);
    until("the port opens", PATIENCE, async || tokio::net::TcpStream::connect(installation.address()).await.ok()).await;
    installation.until_ready().await;
    server
}

async fn ask_for_a_link(installation: &Installation) {
    let asked = installation.post("/auth/login/request-link", "", &json!({ "email": ADA })).await;
    assert_eq!(asked.status, 200, "{asked:?}");
}

/// Everything about one way of protecting the connection: `scheme` and `option` of the URL, `how` of the server.
async fn over_tls(scheme: &str, option: &str, how: &[&str]) {
    let installation = Installation::with("");
    let (cert, key) = certificate(&installation);
    let auth = format!("{USER}:{PASSWORD}");
    let arguments = [&["--cert", cert.as_str(), "--key", key.as_str(), "--auth", auth.as_str()][..], how].concat();
    let Some(sink) = MailSink::start_with(&arguments).await else { return };
    let port = sink.port();

    // A wrong password is said by the doctor, and keeps the mail waiting: the operator can mend it.
    installation.configure(&mail(&format!("{scheme}://robot%40example.com:wrong@localhost:{port}{option}")));
    let (code, said) = check(&installation, true).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("535") && said.contains("mail.url") && !said.contains("wrong@"), "{said}");
    {
        let server = serve(&installation, true).await;
        ask_for_a_link(&installation).await;
        server.line(PATIENCE, |line| line.contains("mail not sent, trying again").then_some(())).await;
        assert!(!server.output().contains(":wrong"), "{}", server.output());
    }
    assert!(sink.mails().await.is_empty());
    assert!(sink.logins().await.iter().all(|login| !login.ok && login.tls && login.user == USER));

    // Somebody in between: no mail and no password for a certificate that nothing vouches for.
    installation.configure(&mail(&format!("{scheme}://{ESCAPED}@localhost:{port}{option}")));
    let attempts = sink.logins().await.len();
    let (code, said) = check(&installation, false).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    assert_eq!(sink.logins().await.len(), attempts, "the password was not even tried");

    let (code, said) = check(&installation, true).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("w%C3%B6rd"), "{said}");
    let server = serve(&installation, true).await;
    ask_for_a_link(&installation).await;
    let mails = sink.arrived(1).await;
    let mail = &mails[0];
    assert_eq!((mail.tls, mail.user.as_deref(), mail.to.as_slice()), (true, Some(USER), &[ADA.to_owned()][..]));
    assert_eq!(mail.types, ["multipart/alternative", "text/plain", "text/html"]);
    let (text, html) = (mail.text.as_deref().unwrap(), mail.html.as_deref().unwrap());
    let token = text.split_once("/login/callback?token=").unwrap().1.split_whitespace().next().unwrap();
    assert!(html.contains(&format!("/login/callback?token={token}")), "{html}");
    assert!(html.contains("<a ") && !text.contains('<'), "{text}");
    drop(server);
}

#[tokio::test]
async fn starttls_with_a_password_and_without_trust() {
    over_tls("smtp", "?tls=required", &[]).await;
}

#[tokio::test]
async fn tls_from_the_first_byte_with_a_password_and_without_trust() {
    over_tls("smtps", "", &["--implicit"]).await;
}

#[tokio::test]
async fn the_doctor_tells_a_mail_api_that_takes_our_key_from_one_that_does_not() {
    let refusing = RawUpstream::answering(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 7\r\n\r\nbad key").await;
    let taking = RawUpstream::answering(b"HTTP/1.1 422 Unprocessable Content\r\nContent-Length: 0\r\n\r\n").await;
    let settings = |url: String| {
        format!(
            "[mail]\ntransport = \"http\"\nurl = \"{url}\"\napi_key_file = \"./mail.key\"\nfrom = \"login@example.com\"\n"
        )
    };
    let installation = Installation::with(&settings(refusing.url()));
    fs::write(installation.path().join("mail.key"), "only-for-this-test\n").unwrap();
    let (code, said) = check(&installation, false).await;
    assert_eq!(code, Some(1), "{said}");
    for part in ["mail API http://127.0.0.1", "401 (it does not take this key): bad key", "`mail.api_key`"] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    installation.configure(&settings(taking.url()));
    let (code, said) = check(&installation, false).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(taking.text().contains("x-api-key: only-for-this-test\r\n"), "{}", taking.text());
    installation.configure(&settings("smtp://127.0.0.1:25".to_owned()));
    let (code, said) = check(&installation, false).await;
    assert!(code == Some(2) && said.contains("mail.url"), "{said}");
}

#[tokio::test]
async fn a_link_leaves_through_a_mail_api() {
    let api = RawUpstream::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let installation = Installation::with(&format!(
        "[mail]\ntransport = \"http\"\nurl = \"{}\"\napi_key = \"only-for-this-test\"\nfrom = \"login@example.com\"\n\
         [login]\nallow_sign_up = true\n",
        api.url()
    ));
    let server = serve(&installation, false).await;
    ask_for_a_link(&installation).await;
    server.line(PATIENCE, |line| line.contains("mail sent").then_some(())).await;
    let said = api.text();
    let body: Value = serde_json::from_str(said.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["to"], ADA);
    assert!(body["text"].as_str().unwrap().contains("/login/callback?token="), "{body}");
    assert!(!server.output().contains("only-for-this-test"), "{}", server.output());
}

#[tokio::test]
async fn sighup_hands_mails_to_the_server_that_the_file_names_now_and_names_what_waits_for_the_next_start() {
    let (Some(first), Some(second)) = (MailSink::start().await, MailSink::start().await) else { return };
    let floor = "response_floor = \"0s\"\n";
    let installation = Installation::with(&(mail(&first.url()) + floor));
    let mut server = serve(&installation, false).await;
    ask_for_a_link(&installation).await;
    first.arrived(1).await;

    installation.configure(&(mail(&second.url()) + floor));
    server.signal(Signal::HUP);
    server.line(PATIENCE, |line| line.contains("took the new configuration").then_some(())).await;
    ask_for_a_link(&installation).await;
    second.arrived(1).await;
    assert_eq!(first.mails().await.len(), 1);
    assert!(!server.output().contains("takes effect with the next start"), "{}", server.output());

    installation.configure("data_dir = \"elsewhere\"\n[store]\nurl = \"sqlite:other.db\"\n");
    // `data_dir` stands before the first table.
    let path = installation.path().join("doorward.toml");
    let text = fs::read_to_string(&path).unwrap().replace("data_dir = \"elsewhere\"\n", "");
    fs::write(&path, format!("data_dir = \"elsewhere\"\n{text}")).unwrap();
    server.signal(Signal::HUP);
    for key in ["data_dir", "store.url", "mail"] {
        let is_it =
            |line: &str| line.contains("takes effect with the next start") && line.contains(&format!("key=\"{key}\""));
        server.line(PATIENCE, |line| is_it(line).then_some(())).await;
    }
    ask_for_a_link(&installation).await;
    second.arrived(2).await;
}
