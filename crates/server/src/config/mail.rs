//! `[mail]`: how sign-in mails leave.

use std::{fmt, net::IpAddr};

use doorward_core::secret::Secret;
use doorward_gate::mail::{HttpMailer, MailConfigError, Mailer, SmtpMailer};
use url::Url;

use super::{
    key::settings,
    read::Reader,
    scalar::{Mailbox, Scalar, SecretText, scalar_field, words},
    store::without_password,
    urls::{RemoteUrl, is_loopback},
};

settings! {
    /// How sign-in mails leave. Without this table nobody can sign in by mail.
    pub struct Mail check Mail::check {
        /// How mails are handed over: to a mail server (`smtp`), or to a mail API over HTTP (`http`) by `POST
        /// /v1/messages/send` with `X-API-Key` and a JSON object of `from`, `to`, `subject`, `text` and `html`.
        transport: Transport = default "smtp";
        /// The mail server: `smtp://host:port`, `smtps://user:password@host`. `smtp://` asks for
        /// STARTTLS except on loopback; `?tls=required`, `opportunistic` or `none` says otherwise. Transport `http`: the
        /// API's address up to `/v1`; `https`, or `http` on loopback.
        url: MailUrl = required "smtp://127.0.0.1:1025", or_file;
        /// Transport `http`: the key that the API knows us by.
        api_key: SecretText<16> = optional "a secret of 16 characters or more", or_file;
        /// Sender of every mail.
        from: Mailbox = required "Example <login@example.com>";
    }
}

impl Mail {
    /// What hands the mails over. Nothing is connected yet.
    ///
    /// # Errors
    /// What reading the file could not see.
    pub fn mailer(&self) -> Result<Mailer, MailConfigError> {
        let from = self.from.to_string();
        match (&self.url, &self.api_key) {
            (MailUrl::Http(url), Some(key)) => HttpMailer::new(url.as_str(), &key.0, &from).map(Mailer::Http),
            (MailUrl::Smtp(url), _) => SmtpMailer::new(url.expose(), &from).map(Mailer::Smtp),
            (MailUrl::Http(_), None) => {
                Err(MailConfigError { key: "api_key", problem: NO_KEY.to_owned(), remedy: NO_KEY_REMEDY })
            }
        }
    }

    fn check(&self, cx: &mut Reader<'_>) {
        match (self.transport, &self.url) {
            (Transport::Smtp, MailUrl::Http(_)) => {
                let what = "the address of a mail API, and the transport is `smtp`";
                cx.problem_in("url", what, "set `transport = \"http\"`, or write an smtp:// or smtps:// URL");
            }
            (Transport::Http, MailUrl::Smtp(_)) => {
                let what = "a mail server, and the transport is `http`";
                cx.problem_in("url", what, "write the https address of the mail API, or set `transport = \"smtp\"`");
            }
            (Transport::Http, MailUrl::Http(_)) if self.api_key.is_none() => {
                cx.problem_in("api_key", NO_KEY, NO_KEY_REMEDY);
            }
            (Transport::Smtp, MailUrl::Smtp(_)) if self.api_key.is_some() => {
                let what = "a mail server is told a user and a password in its URL";
                cx.problem_in("api_key", what, "remove it, or set `transport = \"http\"`");
            }
            (Transport::Smtp, MailUrl::Smtp(_)) | (Transport::Http, MailUrl::Http(_)) => {}
        }
    }
}

const NO_KEY: &str = "a mail API wants to know who sends";
const NO_KEY_REMEDY: &str = "add `api_key_file` with the key that the provider gave out";

/// How mails are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// To a mail server.
    Smtp,
    /// To a mail API.
    Http,
}

words!(Transport, "word": "smtp" => Transport::Smtp, "http" => Transport::Http);
scalar_field!(MailUrl);

/// Where mails are handed over. Does not print a password.
#[derive(Clone, Debug)]
pub enum MailUrl {
    /// A mail server.
    Smtp(SmtpUrl),
    /// The base of a mail API.
    Http(Url),
}

impl fmt::Display for MailUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Smtp(url) => url.fmt(f),
            Self::Http(url) => url.fmt(f),
        }
    }
}

impl Scalar for MailUrl {
    const TYPE: &'static str = "mail server URL";
    const HINT: &'static str = "an smtp:// or smtps:// URL, or with transport `http` an https:// URL";
    fn parse(text: &str, cx: &Reader<'_>) -> Result<Self, String> {
        if !["https:", "http:"]
            .iter()
            .any(|scheme| text.get(..scheme.len()).is_some_and(|t| t.eq_ignore_ascii_case(scheme)))
        {
            return SmtpUrl::parse(text).map(Self::Smtp);
        }
        let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err("the address of a mail API has no user, password, query or fragment".into());
        }
        RemoteUrl::parse(text, cx).map(|url| Self::Http(url.0))
    }
}

/// A mail server. Does not print its password.
#[derive(Clone)]
pub struct SmtpUrl {
    url: Secret<String>,
    /// Host to connect to.
    pub host: String,
    /// Port to connect to.
    pub port: u16,
    /// Whether TLS begins with the first byte.
    pub is_implicit_tls: bool,
}

impl SmtpUrl {
    /// The whole URL, password and all.
    pub fn expose(&self) -> &str {
        self.url.expose()
    }
}

/// The URL with its password left out.
impl fmt::Display for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(self.url.expose()))
    }
}

impl fmt::Debug for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl SmtpUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("not a mail server URL: {error}"))?;
        let is_implicit_tls = match url.scheme() {
            "smtp" => false,
            "smtps" => true,
            _ => return Err("not an smtp:// or smtps:// URL".into()),
        };
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return Err("the mail server URL names no host".into());
        };
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err("the mail server URL has a path or fragment".into());
        }
        // `url` knows hosts of http only; for other schemes an IPv4 address is a plain text.
        let is_local = is_loopback(&url) || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let mut is_plain = !is_implicit_tls && is_local;
        for (name, value) in url.query_pairs() {
            is_plain = match (&*name, &*value) {
                ("tls", "required" | "opportunistic") if !is_implicit_tls => false,
                ("tls", "none") if !is_implicit_tls => true,
                _ => return Err("smtp:// takes ?tls=required, opportunistic or none; smtps:// takes no option".into()),
            };
        }
        if !url.username().is_empty() && is_plain && !is_local {
            return Err("the password would travel without TLS".into());
        }
        let port = url.port().unwrap_or(if is_implicit_tls {
            465
        } else if is_plain {
            25
        } else {
            587
        });
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            is_implicit_tls,
            url: Secret::new(text.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_mail_server_is_accepted_exactly_if_the_mailer_takes_it() {
        let file = Path::new("doorward.toml");
        let cx = Reader::new(file);
        for (url, is_ok) in [
            ("smtp://127.0.0.1:1025", true),
            ("smtp://[::1]:1025", true),
            ("smtp://mail.example.com", true),
            ("smtp://u:p@mail.example.com", true),
            ("smtps://u:p@mail.example.com", true),
            ("smtp://u:p@mail.example.com?tls=required", true),
            ("smtp://mail.example.com?tls=none", true),
            ("smtp://u:p@mail.example.com?tls=none", false),
            ("smtps://mail.example.com?tls=required", false),
            ("smtp://mail.example.com?tls=maybe", false),
            ("smtp://mail.example.com?x=y", false),
            ("smtp://mail.example.com/path", false),
            ("smtp://", false),
            ("mail.example.com", false),
        ] {
            assert_eq!(MailUrl::parse(url, &cx).is_ok(), is_ok, "{url}");
            assert_eq!(SmtpMailer::new(url, "login@example.com").is_ok(), is_ok, "{url} at the mailer");
        }
        let key = Secret::new("only for this test".to_owned());
        for (url, is_ok) in [
            ("https://mail.example.com", true),
            ("HTTPS://mail.example.com/api/", true),
            ("http://127.0.0.1:1025", true),
            ("http://[::1]", true),
            ("http://localhost", true),
            ("http://mail.example.com", false),
            ("https://u:p@mail.example.com", false),
            ("https://mail.example.com?x=y", false),
            ("https://mail.example.com#x", false),
            ("https://", false),
        ] {
            assert_eq!(MailUrl::parse(url, &cx).is_ok(), is_ok, "{url}");
            assert_eq!(HttpMailer::new(url, &key, "login@example.com").is_ok(), is_ok, "{url} at the mailer");
        }
    }

    fn problems(lines: &str) -> Vec<String> {
        let text = format!("public_url = \"https://app.example.com\"\n[mail]\nfrom = \"login@example.com\"\n{lines}");
        match crate::config::Config::parse(&text, Path::new("doorward.toml"), &Default::default()) {
            Ok(config) => vec![format!("{:?}", config.mail.as_ref().unwrap().mailer().unwrap())],
            Err(problems) => {
                problems.0.into_iter().map(|problem| format!("{}: {}", problem.key, problem.what)).collect()
            }
        }
    }

    #[test]
    fn one_transport_is_configured_whole_and_the_other_not_at_all() {
        let (smtp, http) = ("url = \"smtp://127.0.0.1:1025\"\n", "url = \"https://mail.example.com\"\n");
        let (over, key) = ("transport = \"http\"\n", "api_key = \"only for this test\"\n");
        for (lines, expected) in [
            (smtp.to_owned(), "Smtp(SmtpMailer { server: \"127.0.0.1\", .. })"),
            (
                format!("{over}{http}{key}"),
                "Http(HttpMailer { endpoint: \"https://mail.example.com/v1/messages/send\", .. })",
            ),
            (http.to_owned(), "mail.url: the address of a mail API, and the transport is `smtp`"),
            (format!("{over}{smtp}{key}"), "mail.url: a mail server, and the transport is `http`"),
            (format!("{over}{http}"), "mail.api_key: a mail API wants to know who sends"),
            (format!("{smtp}{key}"), "mail.api_key: a mail server is told a user and a password in its URL"),
            (format!("{over}{http}api_key = \"short\"\n"), "mail.api_key: the secret is shorter than 16 characters"),
        ] {
            assert_eq!(problems(&lines), [expected], "{lines}");
        }
    }
}
