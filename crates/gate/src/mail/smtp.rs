//! SMTP: the transport, built from a URL, and the message on the wire.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use doorward_core::secret::Secret;
use doorward_store::Mail;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{
        AsyncSmtpTransportBuilder, PoolConfig,
        authentication::Credentials,
        client::{Tls, TlsParameters},
        extension::ClientId,
    },
};
use url::{Host, Url};

use super::{MailConfigError, SEND_TIMEOUT, SendError};

/// Longest wait for one answer of the mail server.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection pool to one mail server.
#[derive(Clone)]
pub struct SmtpMailer(Arc<Inner>);

struct Inner {
    settings: AsyncSmtpTransportBuilder,
    /// Made on first use: the pool wants a running runtime, reading a config has none.
    pool: OnceLock<AsyncSmtpTransport<Tokio1Executor>>,
    from: Mailbox,
    server: String,
    /// What it was made from, with the credentials.
    url: Secret<String>,
}

impl fmt::Debug for SmtpMailer {
    /// The server's name; never the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpMailer").field("server", &self.0.server).finish_non_exhaustive()
    }
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protection {
    /// TLS from the first byte (RFC 8314 §3.3).
    Wrapped,
    /// `STARTTLS`, and no mail without it.
    StartTls,
    /// `STARTTLS` if the server offers it: an attacker in between can take the offer away.
    Opportunistic,
    /// Nothing.
    Plain,
}

const URL_REMEDY: &str = "write smtps://user:password@host, smtp://host:587?tls=required or smtp://127.0.0.1:1025";

impl SmtpMailer {
    /// Builds the transport for `smtp://` or `smtps://[user:password@]host[:port][?tls=required|opportunistic|none]`.
    ///
    /// Without `tls`, `smtp://` demands `STARTTLS`, except to a loopback address. Nothing is connected yet:
    /// a mail server that is down is no misconfiguration.
    ///
    /// # Errors
    /// [`MailConfigError`], naming the key.
    pub fn new(url: &str, from: &str) -> Result<Self, MailConfigError> {
        let bad = |problem: &str| MailConfigError { key: "url", problem: problem.to_owned(), remedy: URL_REMEDY };
        let from: Mailbox = from.parse().map_err(|error| MailConfigError {
            key: "from",
            problem: format!("not a sender: {error}"),
            remedy: "write \"Example <login@example.com>\"",
        })?;
        let made_from = Secret::new(url.to_owned());
        let url = Url::parse(url).map_err(|error| bad(&format!("not a URL: {error}")))?;
        let protection = protection(&url).map_err(|problem| bad(&problem))?;
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err(bad("has a path or fragment"));
        }
        let host = url.host().ok_or_else(|| bad("names no host"))?;
        // TLS wants an IPv6 address without the brackets of the URL.
        let name = match host {
            Host::Ipv6(v6) => v6.to_string(),
            Host::Domain(_) | Host::Ipv4(_) => host.to_string(),
        };
        let tls = |name: &str| {
            TlsParameters::new(name.to_owned()).map_err(|error| bad(&format!("TLS cannot be set up: {error}")))
        };
        let (tls, default_port) = match protection {
            Protection::Wrapped => (Tls::Wrapper(tls(&name)?), 465),
            Protection::StartTls => (Tls::Required(tls(&name)?), 587),
            Protection::Opportunistic => (Tls::Opportunistic(tls(&name)?), 587),
            Protection::Plain => (Tls::None, 25),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(name.as_str())
            .port(url.port().unwrap_or(default_port))
            .tls(tls)
            .hello_name(ClientId::Domain(from.email.domain().to_owned()))
            .timeout(Some(COMMAND_TIMEOUT))
            .pool_config(PoolConfig::new().max_size(4).idle_timeout(Duration::from_secs(60)));
        if !url.username().is_empty() {
            let user = decode(url.username()).ok_or_else(|| bad("the user name is badly escaped"))?;
            let password =
                decode(url.password().unwrap_or_default()).ok_or_else(|| bad("the password is badly escaped"))?;
            if matches!(protection, Protection::Plain | Protection::Opportunistic) && !is_loopback(&url) {
                return Err(bad("may send the password without TLS"));
            }
            builder = builder.credentials(Credentials::new(user, password));
        }
        let (pool, url) = (OnceLock::new(), made_from);
        Ok(Self(Arc::new(Inner { settings: builder, pool, from, server: name, url })))
    }

    /// Whether the other one hands mails to the same server in the same way.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0.url.expose() == other.0.url.expose() && self.0.from == other.0.from
    }

    /// Sends one mail, within [`SEND_TIMEOUT`].
    pub(super) async fn send(&self, mail: &Mail) -> Result<(), SendError> {
        let message = message(&self.0.from, mail)?;
        let sent = tokio::time::timeout(SEND_TIMEOUT, self.transport().send(message)).await;
        match sent {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => Err(self.timed_out()),
        }
    }

    /// Connects, greets and signs in, without a mail.
    pub(super) async fn ping(&self) -> Result<(), SendError> {
        match tokio::time::timeout(COMMAND_TIMEOUT, self.transport().test_connection()).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(SendError::temporary(format!("{} does not answer NOOP", self.0.server))),
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => Err(self.timed_out()),
        }
    }

    fn transport(&self) -> &AsyncSmtpTransport<Tokio1Executor> {
        self.0.pool.get_or_init(|| self.0.settings.clone().build())
    }

    fn timed_out(&self) -> SendError {
        SendError::temporary(format!("{} did not answer in time", self.0.server))
    }

    fn failed(&self, error: &lettre::transport::smtp::Error) -> SendError {
        // 53x answers (RFC 4954 §6) refuse us, not this mail: the operator can mend that while it waits.
        let is_about_us = error.status().is_some_and(|code| (530..540).contains(&u16::from(code)));
        let mut note = format!("{}: {error}", self.0.server);
        let mut source = std::error::Error::source(error);
        // lettre nests at most a few causes; the bound keeps a cycle from mattering.
        for _ in 0..4 {
            let Some(cause) = source else { break };
            note.push_str(": ");
            note.push_str(&cause.to_string());
            source = cause.source();
        }
        if error.is_permanent() && !is_about_us { SendError::permanent(note) } else { SendError::temporary(note) }
    }
}

fn protection(url: &Url) -> Result<Protection, String> {
    let mut asked = None;
    for (key, value) in url.query_pairs() {
        if key != "tls" {
            return Err(format!("knows no option \"{key}\""));
        }
        asked = Some(match value.as_ref() {
            "required" => Protection::StartTls,
            "opportunistic" => Protection::Opportunistic,
            "none" => Protection::Plain,
            _ => return Err("knows tls=required, tls=opportunistic and tls=none".to_owned()),
        });
    }
    match (url.scheme(), asked) {
        ("smtps", None) => Ok(Protection::Wrapped),
        ("smtps", Some(_)) => Err("smtps:// has TLS from the start and takes no tls option".to_owned()),
        ("smtp", Some(asked)) => Ok(asked),
        ("smtp", None) if is_loopback(url) => Ok(Protection::Plain),
        ("smtp", None) => Ok(Protection::StartTls),
        (other, _) => Err(format!("has the scheme \"{other}\"")),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        // A scheme that `url` does not know keeps an IPv4 address as a name.
        Some(Host::Domain(name)) => {
            name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        Some(Host::Ipv4(v4)) => v4.is_loopback(),
        Some(Host::Ipv6(v6)) => v6.is_loopback(),
        None => false,
    }
}

/// Undoes percent-encoding (RFC 3986 §2.1); `None` on a bad escape.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// The message on the wire. Its `Message-ID` comes from the outbox, so a repeated delivery is recognisable.
fn message(from: &Mailbox, mail: &Mail) -> Result<Message, SendError> {
    let unsendable = |error: &dyn fmt::Display| SendError::permanent(format!("not sendable: {error}"));
    let to = mail.to.as_str().parse().map_err(|error: lettre::address::AddressError| unsendable(&error))?;
    let since_epoch = Duration::from_millis(u64::try_from(mail.created_at.as_millis()).unwrap_or(0));
    // RFC 3834 §5: keeps holiday answers from coming back.
    let auto = HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject(mail.subject.as_str())
        .date(SystemTime::UNIX_EPOCH + since_epoch)
        .message_id(Some(format!("<{}@{}>", mail.id, from.email.domain())))
        .raw_header(auto)
        .multipart(MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone()))
        .map_err(|error| unsendable(&error))
}

#[cfg(test)]
mod tests {
    use doorward_core::{id::MailId, time::Timestamp, user::Email};

    use super::*;

    const FROM: &str = "Example <login@example.com>";

    fn of(url: &str) -> Result<Protection, String> {
        protection(&Url::parse(url).unwrap())
    }

    #[test]
    fn mail_to_another_machine_is_protected_unless_the_operator_says_otherwise() {
        assert_eq!(of("smtp://mail.example.com"), Ok(Protection::StartTls));
        assert_eq!(of("smtps://mail.example.com"), Ok(Protection::Wrapped));
        assert_eq!(of("smtp://mail.example.com?tls=none"), Ok(Protection::Plain));
        assert_eq!(of("smtp://mail.example.com?tls=opportunistic"), Ok(Protection::Opportunistic));
        for loopback in ["smtp://127.0.0.1:1025", "smtp://localhost:1025", "smtp://[::1]:1025"] {
            assert_eq!(of(loopback), Ok(Protection::Plain), "{loopback}");
        }
    }

    #[test]
    fn a_bad_url_names_its_key_and_a_remedy_and_shows_no_password() {
        for url in [
            "http://h",
            "smtp://",
            "mail.example.com",
            "smtp://u:geheim@h?tls=maybe",
            "smtp://u:geheim@h?starttls=1",
            "smtps://u:geheim@h?tls=none",
            "smtp://u:geheim@h?tls=none",
            "smtp://u:geheim@h?tls=opportunistic",
            "smtp://u:geheim%zz@h",
            "smtp://u:geheim@h/path",
        ] {
            let error = SmtpMailer::new(url, FROM).unwrap_err();
            assert_eq!(error.key, "url", "{url}");
            assert!(error.to_string().contains("smtps://user"), "{error}");
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
        assert_eq!(SmtpMailer::new("smtp://127.0.0.1", "nobody").unwrap_err().key, "from");
    }

    #[test]
    fn a_password_is_percent_decoded_and_never_printed() {
        assert_eq!(decode("p%40ss%3Aw%C3%B6rd").as_deref(), Some("p@ss:wörd"));
        assert_eq!((decode("%4"), decode("%zz"), decode("%ff")), (None, None, None));
        let mailer = SmtpMailer::new("smtps://user:geheim@mail.example.com", FROM).unwrap();
        assert_eq!(format!("{mailer:?}"), "SmtpMailer { server: \"mail.example.com\", .. }");
    }

    #[test]
    fn a_message_has_both_parts_a_stable_id_and_one_recipient() {
        let at = Timestamp::from_secs(1_800_000_000);
        let mail = Mail {
            id: MailId::mint(at, [1; 10]),
            to: Email::parse("a@example.com").unwrap(),
            kind: "magic_link".into(),
            subject: "Sign in\r\nBcc: evil@example.com".into(),
            text: "plain words".into(),
            html: "<p>html words</p>".into(),
            created_at: at,
            give_up_at: at,
        };
        let message = message(&FROM.parse().unwrap(), &mail).unwrap();
        let wire = String::from_utf8(message.formatted()).unwrap();
        assert!(wire.contains(&format!("Message-ID: <{}@example.com>\r\n", mail.id)), "{wire}");
        assert!(wire.contains("Date: Fri, 15 Jan 2027 08:00:00 +0000\r\n"), "{wire}");
        assert!(wire.contains("Auto-Submitted: auto-generated\r\n"), "{wire}");
        assert!(wire.contains("plain words") && wire.contains("html words"), "{wire}");
        assert!(!wire.lines().any(|line| line.starts_with("Bcc")), "{wire}");
        assert_eq!(message.envelope().to().len(), 1);
    }
}
