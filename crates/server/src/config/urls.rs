//! URLs of the configuration, each with the rules of its place.

use std::{fmt, net::IpAddr};

use doorward_core::origin::Origin;
use url::{Host, Url};

use super::{
    read::Reader,
    scalar::{Scalar, scalar_field, shown},
};

scalar_field!(PublicUrl, RemoteUrl, Upstream, Origin, HostName);

fn parse(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("`{}` is not a URL: {error}", shown(text)))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("`{}` is not an http or https URL", shown(text)));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL holds a user name or password".into());
    }
    if url.fragment().is_some() {
        return Err(format!("`{}` has a fragment", shown(text)));
    }
    Ok(url)
}

fn has_path(url: &Url) -> bool {
    url.path() != "/" || url.query().is_some()
}

/// Whether this machine is meant: `localhost`, `*.localhost` (RFC 6761 §6.3), 127.0.0.0/8, ::1.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The origin under which people reach this installation: `https`, or `http` on loopback; no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(Url);

impl PublicUrl {
    /// The URL.
    pub const fn as_url(&self) -> &Url {
        &self.0
    }

    /// Scheme, host and port without a slash at the end, as browsers send it in `Origin`.
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// Host, lower case, without port; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// Host and port as clients put them in `Host`.
    pub fn authority(&self) -> &str {
        self.0.authority()
    }

    /// Whether people come over TLS. Decides names and `Secure` of the cookies.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Whether only this machine is meant.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin())
    }
}

impl Scalar for PublicUrl {
    const TYPE: &'static str = "URL";
    const HINT: &'static str = "scheme and host, without a path; http is for loopback only";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let url = parse(text)?;
        let is_open = url.scheme() == "http" && !is_loopback(&url);
        let what = match (has_path(&url), is_open) {
            (false, false) => return Ok(Self(url)),
            (true, false) => "has a path or a query",
            (false, true) => "is http and not on loopback",
            (true, true) => "has a path or a query, and is http and not on loopback",
        };
        Err(format!("`{}` {what}", shown(text)))
    }
}

/// A URL that we fetch over the network: `https`, or `http` on loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteUrl(pub Url);

impl Scalar for RemoteUrl {
    const TYPE: &'static str = "URL";
    const HINT: &'static str = "an https URL; http is for loopback only";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let url = parse(text)?;
        if url.scheme() == "http" && !is_loopback(&url) {
            return Err(format!("`{}` is http and not on loopback", shown(text)));
        }
        Ok(Self(url))
    }
}

/// Where an app listens: `http` or `https`, host and port. Paths are forwarded as they came, so there is none here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Upstream(Url);

impl Upstream {
    /// The URL.
    pub const fn as_url(&self) -> &Url {
        &self.0
    }

    /// Host and port to connect to.
    pub fn host_and_port(&self) -> (String, u16) {
        let host = match self.0.host() {
            Some(Host::Ipv6(address)) => IpAddr::V6(address).to_string(),
            Some(host) => host.to_string(),
            None => String::new(),
        };
        (host, self.0.port_or_known_default().unwrap_or(80))
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

impl Scalar for Upstream {
    const TYPE: &'static str = "URL";
    const HINT: &'static str = "an http or https URL without a path";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let url = parse(text)?;
        if has_path(&url) {
            return Err(format!("`{}` has a path or a query; requests keep the path they came with", shown(text)));
        }
        Ok(Self(url))
    }
}

impl Scalar for Origin {
    const TYPE: &'static str = "origin";
    const HINT: &'static str = "origins: scheme, host and port";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| format!("`{}` is not an origin", shown(text)))
    }
}

/// A host without port, in the form in which hosts are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(String);

impl HostName {
    /// Lower case; an IPv6 address in brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for HostName {
    const TYPE: &'static str = "host";
    const HINT: &'static str = "a host name or address, without scheme and port";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let host = Host::parse(text).map_err(|_| format!("`{}` is not a host", shown(text)))?;
        Ok(Self(host.to_string()))
    }
}
