//! `[mail]`: how sign-in mails leave.

use std::{fmt, net::IpAddr};

use doorward_core::secret::Secret;
use url::Url;

use super::{
    key::settings,
    read::Reader,
    scalar::{Mailbox, Scalar, scalar_field, words},
    store::without_password,
    urls::is_loopback,
};

settings! {
    /// How sign-in mails leave. Without this table nobody can sign in by mail.
    pub struct Mail {
        /// How mails are handed over.
        transport: Transport = default "smtp";
        /// The mail server: `smtp://host:port`, `smtps://user:password@host`. `smtp://` asks for
        /// STARTTLS except on loopback; `?tls=required`, `opportunistic` or `none` says otherwise.
        url: SmtpUrl = required "smtp://127.0.0.1:1025", or_file;
        /// Sender of every mail.
        from: Mailbox = required "Example <login@example.com>";
    }
}

/// How mails are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// To a mail server.
    Smtp,
}

words!(Transport, "word": "smtp" => Transport::Smtp);
scalar_field!(SmtpUrl);

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

impl Scalar for SmtpUrl {
    const TYPE: &'static str = "mail server URL";
    const HINT: &'static str = "an smtp:// or smtps:// URL";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
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

    use doorward_gate::mail::SmtpMailer;

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
            ("http://mail.example.com", false),
            ("smtp://", false),
            ("mail.example.com", false),
        ] {
            assert_eq!(SmtpUrl::parse(url, &cx).is_ok(), is_ok, "{url}");
            assert_eq!(SmtpMailer::new(url, "login@example.com").is_ok(), is_ok, "{url} at the mailer");
        }
    }
}
