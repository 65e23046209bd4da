//! `[mail]`: how sign-in mails leave.

use std::fmt;

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
        /// The mail server: `smtp://host:port`, `smtps://user:password@host`; `?tls=required` asks for STARTTLS.
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
        let mut is_tls_required = is_implicit_tls;
        for (name, value) in url.query_pairs() {
            match (&*name, &*value) {
                ("tls", "required") if !is_implicit_tls => is_tls_required = true,
                ("tls", "opportunistic") if !is_implicit_tls => {}
                _ => return Err("the only option of an smtp:// URL is ?tls=required or ?tls=opportunistic".into()),
            }
        }
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return Err("the mail server URL names no host".into());
        };
        // `url` knows hosts of http only; for other schemes a loopback address is a plain text.
        let is_local = is_loopback(&url) || matches!(host, "127.0.0.1" | "localhost");
        if url.password().is_some() && !is_tls_required && !is_local {
            return Err("the password would travel unencrypted; use smtps:// or add ?tls=required".into());
        }
        let port = url.port().unwrap_or(if is_implicit_tls {
            465
        } else if is_tls_required {
            587
        } else {
            25
        });
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            is_implicit_tls,
            url: Secret::new(text.to_owned()),
        })
    }
}
