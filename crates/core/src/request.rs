//! What a decision may look at of a request, and the strict reading of its target, host and head.

mod head;
mod host;
mod path;

use std::net::IpAddr;

pub use head::{check_head, is_websocket_upgrade};
pub use host::Host;
pub use path::{PathFault, RequestPath};

use http::{HeaderMap, Method};

/// `http` or `https`, as the client used it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The word in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Reads the word, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Http, Self::Https].into_iter().find(|scheme| text.eq_ignore_ascii_case(scheme.as_str()))
    }

    /// The port that a URL of this scheme leaves out.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The facts of one request. Whoever builds them has already decided what to believe of forwarding
/// headers; nothing downstream reads those again.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// Method.
    pub method: &'a Method,
    /// Scheme as the client used it.
    pub scheme: Scheme,
    /// `Host` or `:authority` as received, port included.
    pub host: &'a str,
    /// Request target in origin form, exactly as received: path, and query if any.
    pub target: &'a str,
    /// Headers as received.
    pub headers: &'a HeaderMap,
    /// Client address as derived from the trusted proxies.
    pub client: IpAddr,
    /// Whether this asks for a WebSocket.
    pub is_upgrade: bool,
    /// Whether whoever carries the request may hand the connection over to another protocol: then nobody sees what goes
    /// through it, whatever the method.
    pub may_leave_http: bool,
}
