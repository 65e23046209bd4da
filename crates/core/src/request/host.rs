//! The `Host` of a request, in one spelling.

use std::{borrow::Cow, net::Ipv6Addr};

use crate::{decision::Denial, reason::Reason, request::Scheme};

/// A host name and perhaps a port, from `Host` or `:authority`.
///
/// The name is lower case, without the dot of a fully qualified name, IPv6 in brackets and in its
/// canonical form; so one host has one spelling and a comparison cannot be dodged by another
/// (CVE-2026-48794, CVE-2022-23632).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    name: Cow<'a, str>,
    port: Option<u16>,
}

impl<'a> Host<'a> {
    /// Longest accepted name (RFC 1035 §2.3.4).
    pub const MAX: usize = 253;

    /// Reads `host` or `host:port` (RFC 9110 §7.2). Allocates only if the name needs folding.
    ///
    /// # Errors
    /// `request_malformed` for user information, lists, white space, escapes, zone ids, empty labels
    /// and everything else that is not a plain name or address. Whether the host is one of ours is not
    /// said here.
    pub fn parse(text: &'a str) -> Result<Self, Denial> {
        Self::read(text)
            .ok_or_else(|| Denial::from(Reason::RequestMalformed).with_note("host: not a plain name or address"))
    }

    fn read(text: &'a str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            let port = if rest.is_empty() { None } else { Some(port(rest.strip_prefix(':')?)?) };
            let name = format!("[{address}]");
            let name =
                if text.starts_with(name.as_str()) { Cow::Borrowed(&text[..name.len()]) } else { Cow::Owned(name) };
            return Some(Self { name, port });
        }
        let (name, port) = match text.split_once(':') {
            Some((name, digits)) => (name, Some(port(digits)?)),
            None => (text, None),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() || name.len() > Self::MAX {
            return None;
        }
        let (mut upper, mut label) = (false, 0usize);
        for byte in name.bytes() {
            match byte {
                b'.' if label > 0 => {
                    label = 0;
                    continue;
                }
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
                b'A'..=b'Z' => upper = true,
                _ => return None,
            }
            label += 1;
            if label > 63 {
                return None;
            }
        }
        if label == 0 {
            return None;
        }
        let name = if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) };
        Some(Self { name, port })
    }

    /// The name: lower case, no port, no trailing dot.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, if one was written.
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port that is meant under `scheme`.
    pub fn port_or_default(&self, scheme: Scheme) -> u16 {
        self.port.unwrap_or_else(|| scheme.default_port())
    }

    /// `name` or `name:port`; the default port of `scheme` is left out.
    pub fn to_authority(&self, scheme: Scheme) -> String {
        match self.port {
            Some(port) if port != scheme.default_port() => format!("{}:{port}", self.name),
            _ => self.name.clone().into_owned(),
        }
    }

    /// The same host, owned.
    pub fn into_owned(self) -> Host<'static> {
        Host { name: Cow::Owned(self.name.into_owned()), port: self.port }
    }
}

/// Reads a port: one to five digits, no sign, not zero.
fn port(digits: &str) -> Option<u16> {
    let plain = (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten().filter(|&port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_host_reads_alike() {
        for text in ["app.example", "APP.example", "app.example.", "App.Example.:443", "app.example:443"] {
            let host = Host::parse(text).unwrap();
            assert_eq!(host.name(), "app.example", "{text}");
            assert_eq!(host.to_authority(Scheme::Https), "app.example", "{text}");
        }
        assert_eq!(Host::parse("[0:0:0:0:0:0:0:1]:8080").unwrap().name(), "[::1]");
        assert_eq!(Host::parse("[::1]").unwrap().port_or_default(Scheme::Http), 80);
        assert_eq!(Host::parse("a:8443").unwrap().to_authority(Scheme::Https), "a:8443");
    }

    #[test]
    fn what_is_no_plain_host_is_refused() {
        let long = format!("{}.example", "a".repeat(64));
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "a b",
            "a,b",
            "user@a",
            "a/b",
            "a;x=1",
            "a%2e",
            "a:",
            "a:0",
            "a:65536",
            "a:+80",
            "a:80:80",
            "[::1",
            "[::1]x",
            "[fe80::1%eth0]",
            "[127.0.0.1]",
            "ä.example",
            "a\\b",
            "a:080000",
            &long,
        ] {
            assert_eq!(Host::parse(text).unwrap_err().reason, Reason::RequestMalformed, "{text}");
        }
    }
}
