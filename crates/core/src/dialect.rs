//! Forward-auth: how each proxy says which request it asks about.
//!
//! Each dialect reads exactly its own family of headers. A missing or doubled one, or one of another
//! family, is a refusal: it was set by the client, or by a proxy that is not the one we think.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method};

use crate::{
    decision::Denial,
    origin::Origin,
    reason::Reason,
    request::{Host, Scheme},
};

/// The proxies whose way of asking is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// nginx `auth_request`: `X-Original-Method`, `X-Original-URL`, `X-Forwarded-Host`.
    Nginx,
    /// Caddy `forward_auth`: `X-Forwarded-Method`, `-Proto`, `-Host`, `-Uri`.
    Caddy,
    /// Traefik `forwardAuth`: the same.
    Traefik,
    /// HAProxy with the Lua action of `deploy/`: as nginx.
    Haproxy,
    /// Envoy `ext_authz` over HTTP: its own method, `Host`, and the path behind ours.
    Envoy,
}

/// The request that a proxy asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original<'a> {
    /// Method.
    pub method: Method,
    /// Scheme, where the dialect says it; else that of [`client::derive`](crate::client::derive).
    pub scheme: Option<Scheme>,
    /// Host as the client wrote it; not yet judged.
    pub host: &'a str,
    /// Target in origin form, for [`RequestPath::parse`](crate::request::RequestPath::parse).
    pub target: Cow<'a, str>,
}

const METHOD: HeaderName = HeaderName::from_static("x-original-method");
const URL: HeaderName = HeaderName::from_static("x-original-url");
const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Every name in which some proxy says what the original request was. Whoever reads one of them
/// refuses the others. `X-Forwarded-For` and, outside its family, `X-Forwarded-Proto` say nothing about it.
const ALL: [&str; 10] = [
    "x-original-method",
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-rewrite-url",
    "x-forwarded-method",
    "x-forwarded-host",
    "x-forwarded-uri",
    "x-forwarded-path",
    "x-forwarded-prefix",
];

impl Dialect {
    /// All dialects.
    pub const ALL: [Self; 5] = [Self::Nginx, Self::Caddy, Self::Traefik, Self::Haproxy, Self::Envoy];

    /// The word in its route.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }

    /// Reads what follows `/check/` in our own request target: the dialect and, for Envoy, the original
    /// target. A query of our own is not read and may hold anything.
    pub fn route(rest: &str) -> Option<(Self, &str)> {
        let (word, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let dialect = Self::ALL.into_iter().find(|dialect| dialect.as_str() == word)?;
        match (dialect, tail) {
            (Self::Envoy, "") => Some((dialect, "/")),
            (Self::Envoy, _) => tail.starts_with('/').then_some((dialect, tail)),
            _ => (tail.is_empty() || tail.starts_with('?')).then_some((dialect, "")),
        }
    }

    /// The names of [`ALL`] that are its own.
    const fn reads(self) -> &'static [&'static str] {
        match self {
            Self::Nginx | Self::Haproxy => &["x-original-method", "x-original-url", "x-forwarded-host"],
            Self::Caddy | Self::Traefik => &["x-forwarded-method", "x-forwarded-host", "x-forwarded-uri"],
            Self::Envoy => &[],
        }
    }

    /// Reads the original request out of a check request.
    ///
    /// `method` and `host` are the check request's own, `suffix` is what [`Dialect::route`] found. Not
    /// checked here: the host and the target, which are judged as those of any request.
    ///
    /// # Errors
    /// `untrusted_peer` unless a trusted proxy asks; `request_malformed` for a missing or doubled header,
    /// for one of another family in any spelling, and for a value that cannot be read.
    pub fn read<'a>(
        self,
        peer_is_trusted: bool,
        method: &Method,
        host: &'a str,
        suffix: &'a str,
        headers: &'a HeaderMap,
    ) -> Result<Original<'a>, Denial> {
        if !peer_is_trusted {
            return Err(Reason::UntrustedPeer.into());
        }
        self.refuse_others(headers)?;
        match self {
            Self::Envoy => Ok(Original { method: method.clone(), scheme: None, host, target: Cow::Borrowed(suffix) }),
            Self::Nginx | Self::Haproxy => {
                let host = single(headers, &FORWARDED_HOST)?;
                let (scheme, target) = read_url(single(headers, &URL)?, host)?;
                Ok(Original { method: read_method(single(headers, &METHOD)?)?, scheme, host, target })
            }
            Self::Caddy | Self::Traefik => {
                let proto = single(headers, &FORWARDED_PROTO)?;
                let scheme = Scheme::parse(proto).or(match proto {
                    "ws" => Some(Scheme::Http),
                    "wss" => Some(Scheme::Https),
                    _ => None,
                });
                Ok(Original {
                    method: read_method(single(headers, &FORWARDED_METHOD)?)?,
                    scheme: Some(scheme.ok_or_else(|| malformed("x-forwarded-proto: not http or https"))?),
                    host: single(headers, &FORWARDED_HOST)?,
                    target: Cow::Borrowed(single(headers, &FORWARDED_URI)?),
                })
            }
        }
    }

    /// Refuses names of other families, and other spellings of any of them.
    fn refuse_others(self, headers: &HeaderMap) -> Result<(), Denial> {
        let same = |name: &str, known: &str| {
            name.len() == known.len()
                && name.bytes().zip(known.bytes()).all(|(a, b)| a == b || b == b'-' && !a.is_ascii_alphanumeric())
        };
        let foreign = |name: &&HeaderName| {
            let is_known = ALL.iter().any(|known| same(name.as_str(), known));
            let is_spelled = same(name.as_str(), FORWARDED_PROTO.as_str()) && **name != FORWARDED_PROTO;
            is_spelled || is_known && !self.reads().contains(&name.as_str())
        };
        match headers.keys().find(foreign) {
            Some(name) => Err(malformed(&format!("{name}: not a header of the {} dialect", self.as_str()))),
            None => Ok(()),
        }
    }
}

fn malformed(note: &str) -> Denial {
    Denial::from(Reason::RequestMalformed).with_note(format!("forward-auth: {note}"))
}

/// The one value of a header that has to be there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, Denial> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (None, _) => Err(malformed(&format!("{name}: missing"))),
        (Some(Ok(text)), None) if !text.is_empty() => Ok(text),
        _ => Err(malformed(&format!("{name}: doubled, empty or not ASCII"))),
    }
}

/// Reads the original method; those that [`check_head`](crate::request::check_head) refuses are refused
/// here too.
fn read_method(text: &str) -> Result<Method, Denial> {
    match Method::from_bytes(text.as_bytes()) {
        Ok(Method::CONNECT | Method::TRACE) => Err(malformed("CONNECT and TRACE are not served")),
        Ok(method) => Ok(method),
        Err(_) => Err(malformed("the original method is no method")),
    }
}

/// Reads `X-Original-URL`: a target in origin form, or a whole URL whose host is the forwarded one.
fn read_url<'a>(url: &'a str, host: &str) -> Result<(Option<Scheme>, Cow<'a, str>), Denial> {
    if url.starts_with('/') {
        return Ok((None, Cow::Borrowed(url)));
    }
    let read = || {
        let (scheme, rest) = url.split_once("://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let origin = Origin::parse(&url[..scheme.len() + 3 + end])?;
        let same = Origin::new(origin.scheme(), &Host::parse(host).ok()?) == origin;
        let target = match &rest[end..] {
            target if target.starts_with('/') => Cow::Borrowed(target),
            target => Cow::Owned(format!("/{target}")),
        };
        same.then_some((Some(origin.scheme()), target))
    };
    read().ok_or_else(|| malformed("x-original-url: neither a path nor a URL of the forwarded host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_names_its_dialect_and_only_envoy_has_a_path_behind_it() {
        assert_eq!(Dialect::route("nginx"), Some((Dialect::Nginx, "")));
        assert_eq!(Dialect::route("caddy?x=/envoy/y"), Some((Dialect::Caddy, "")));
        assert_eq!(Dialect::route("envoy/a?b=1"), Some((Dialect::Envoy, "/a?b=1")));
        assert_eq!(Dialect::route("envoy"), Some((Dialect::Envoy, "/")));
        for rest in ["", "nginx/", "nginx/a", "Nginx", "apache", "envoy?x", "nginx;x"] {
            assert_eq!(Dialect::route(rest), None, "{rest}");
        }
    }
}
