//! Web origins: scheme, host and port (RFC 6454 §4).

use std::fmt;

use crate::request::{Host, Scheme};

/// An origin in one spelling: two are the same exactly if they are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Origin {
    /// Reads `scheme://host` or `scheme://host:port`, as in the header `Origin` and in the config.
    ///
    /// `None` for `null`, other schemes, user information, a path (also a lone slash) and whatever
    /// [`Host::parse`] refuses.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = Scheme::parse(scheme)?;
        let host = Host::parse(authority).ok()?;
        // A browser never sends a trailing dot for a site that is addressed without one.
        if authority.split(':').next().is_some_and(|name| name.ends_with('.')) {
            return None;
        }
        Some(Self::new(scheme, &host))
    }

    /// The origin of a host under a scheme.
    pub fn new(scheme: Scheme, host: &Host<'_>) -> Self {
        Self { scheme, host: host.name().to_owned(), port: host.port_or_default(scheme) }
    }

    /// Scheme.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name, lower case, without port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port, also if it is the scheme's default.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

/// The form of the header `Origin`: the default port is left out.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_origin_has_one_spelling() {
        for text in ["https://app.example", "HTTPS://APP.example", "https://app.example:443"] {
            assert_eq!(Origin::parse(text).unwrap().to_string(), "https://app.example", "{text}");
        }
        assert_eq!(Origin::parse("http://[::1]:8080").unwrap().to_string(), "http://[::1]:8080");
        assert_ne!(Origin::parse("http://app.example"), Origin::parse("https://app.example"));
    }

    #[test]
    fn what_is_no_origin_is_none() {
        for text in [
            "null",
            "",
            "app.example",
            "https://",
            "https://a/",
            "https://a/b",
            "ftp://a",
            "https://u@a",
            "https:a",
            "https://a.",
            "https://a.:443",
            "https://a?x",
            "https://a https://b",
            "https://a, https://b",
            "file://",
        ] {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }
}
