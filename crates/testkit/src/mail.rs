//! A real mail server that keeps what it gets (aiosmtpd), for tests of our SMTP.

use std::{collections::HashMap, process::Command, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{neighbour, process::Process};

/// A running mail server; it ends when this is dropped.
pub struct MailSink {
    process: Process,
    smtp: u16,
    control: u16,
}

/// A mail as the server got it.
#[derive(Clone, Debug, Deserialize)]
pub struct SunkMail {
    /// Envelope sender.
    pub from: String,
    /// Envelope recipients.
    pub to: Vec<String>,
    /// Subject line, decoded.
    pub subject: String,
    /// `Message-ID`.
    pub message_id: Option<String>,
    /// Plain text part, decoded.
    pub text: Option<String>,
    /// HTML part, decoded.
    pub html: Option<String>,
    /// Media types of the whole and of its parts, from the outside in.
    pub types: Vec<String>,
    /// All headers.
    pub headers: HashMap<String, String>,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Whom the server had let in.
    pub user: Option<String>,
}

/// An attempt to sign in at the server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Login {
    /// Who it was.
    pub user: String,
    /// Whether the password was right.
    pub ok: bool,
    /// Whether it came over TLS.
    pub tls: bool,
}

#[derive(Deserialize)]
struct Ready {
    smtp: u16,
    http: u16,
}

const WITHIN: Duration = Duration::from_mins(1);

impl MailSink {
    /// Starts the server; `None`, loudly, where Python or aiosmtpd is missing.
    ///
    /// # Panics
    /// If it is missing under `CI=true`, or does not come up.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// Starts it with these arguments of `e2e/neighbours/smtp_sink.py`, for TLS and passwords.
    ///
    /// # Panics
    /// As [`MailSink::start`].
    pub async fn start_with(arguments: &[&str]) -> Option<Self> {
        let python = neighbour::require("aiosmtpd", neighbour::python())?;
        let script = neighbour::repository().join("e2e/neighbours/smtp_sink.py");
        let process = Process::start("the mail sink", Command::new(python).arg(script).args(arguments));
        let ready: Ready = process.line(WITHIN, |line| serde_json::from_str(line).ok()).await;
        Some(Self { process, smtp: ready.smtp, control: ready.http })
    }

    /// The port that it takes mails at.
    pub fn port(&self) -> u16 {
        self.smtp
    }

    /// Attempts to sign in, oldest first.
    pub async fn logins(&self) -> Vec<Login> {
        serde_json::from_str(&self.ask("GET", "/logins").await).unwrap()
    }

    /// Its address for `[mail] url`.
    pub fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.smtp)
    }

    /// The mails that it took, oldest first.
    pub async fn mails(&self) -> Vec<SunkMail> {
        serde_json::from_str(&self.ask("GET", "/mails").await).unwrap()
    }

    /// Waits until it has taken `count` mails.
    ///
    /// # Panics
    /// If they do not come in time.
    pub async fn arrived(&self, count: usize) -> Vec<SunkMail> {
        let arrived = async {
            loop {
                let mails = self.mails().await;
                if mails.len() >= count {
                    return mails;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let Ok(mails) = tokio::time::timeout(WITHIN, arrived).await else {
            panic!("{count} mails did not arrive in {WITHIN:?}; the sink printed:\n{}", self.process.output());
        };
        mails
    }

    /// Answers the next `times` mails with `code`.
    pub async fn refuse(&self, code: u16, times: u32) {
        self.ask("POST", &format!("/fault?code={code}&times={times}")).await;
    }

    /// How many of the refusals asked for are still to come.
    pub async fn refusals_left(&self) -> u32 {
        #[derive(Deserialize)]
        struct Fault {
            times: u32,
        }
        serde_json::from_str::<Fault>(&self.ask("POST", "/fault").await).unwrap().times
    }

    /// One request to the control port, which speaks HTTP/1.0: the answer ends with the connection.
    async fn ask(&self, method: &str, target: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.control)).await.unwrap();
        let request = format!("{method} {target} HTTP/1.0\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        assert!(head.contains(" 200 "), "{method} {target}: {head}");
        body.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_keeps_what_it_takes_and_refuses_what_it_is_told_to() {
        let Some(sink) = MailSink::start().await else { return };
        assert!(sink.mails().await.is_empty());
        sink.refuse(451, 1).await;
        assert_eq!(sink.refusals_left().await, 1);
        assert!(say(&sink).await.contains("451 refused by the test"));
        assert_eq!(sink.refusals_left().await, 0);
        assert!(say(&sink).await.contains("250 taken"));
        let mails = sink.arrived(1).await;
        assert_eq!((mails[0].subject.as_str(), mails[0].text.as_deref()), ("Hello", Some("words\r\n")));
        assert_eq!(mails[0].to, ["b@example.com"]);
    }

    async fn say(sink: &MailSink) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", sink.smtp)).await.unwrap();
        let mut said = String::new();
        for line in [
            "EHLO test",
            "MAIL FROM:<a@example.com>",
            "RCPT TO:<b@example.com>",
            "DATA",
            "Subject: Hello\r\n\r\nwords\r\n.",
            "QUIT",
        ] {
            let mut buffer = [0; 1024];
            let read = stream.read(&mut buffer).await.unwrap();
            said.push_str(&String::from_utf8_lossy(&buffer[..read]));
            stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        }
        stream.read_to_string(&mut said).await.unwrap();
        said
    }
}
