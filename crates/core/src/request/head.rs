//! What a request's head must not contain, whatever the rules say.

use http::{HeaderMap, Method, header};

use super::Host;
use crate::{decision::Denial, reason::Reason};

/// Refuses heads that can be taken for another request than the one that is judged.
///
/// `authority` is the one of the request line or `:authority`, if there was one. Not checked here:
/// the target ([`RequestPath`](super::RequestPath)), message framing (the HTTP library).
///
/// # Errors
/// `request_malformed` for the methods CONNECT and TRACE (RFC 9110 §9.3.6, §9.3.8), for headers that
/// ask an upstream to take another method, for no or two hosts, and for an authority other than
/// `Host` (RFC 9112 §3.2, RFC 9113 §8.3.1).
pub fn check_head(method: &Method, headers: &HeaderMap, authority: Option<&str>) -> Result<(), Denial> {
    let refused = |note: &str| Err(Denial::from(Reason::RequestMalformed).with_note(note));
    if method == Method::CONNECT || method == Method::TRACE {
        return refused("method: CONNECT and TRACE are not served");
    }
    for name in headers.keys() {
        if is_method_override(name.as_str()) {
            return refused("header: a method override is not accepted");
        }
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return refused("host: more than one");
    }
    match (host, authority) {
        (None, None) => refused("host: none"),
        (None, Some(authority)) => Host::parse(authority).map(drop),
        (Some(host), authority) => {
            let host =
                host.to_str().map_err(|_| Denial::from(Reason::RequestMalformed).with_note("host: not ASCII"))?;
            let host = Host::parse(host)?;
            match authority.map(Host::parse).transpose()? {
                Some(authority) if authority != host => refused("host: not the authority of the request line"),
                _ => Ok(()),
            }
        }
    }
}

/// Whether an upstream could take `name` for an order to use another method, in any spelling.
fn is_method_override(name: &str) -> bool {
    const NAMES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];
    let same = |known: &str| {
        name.len() == known.len()
            && name
                .bytes()
                .zip(known.bytes())
                .all(|(a, b)| a.eq_ignore_ascii_case(&b) || b == b'-' && !a.is_ascii_alphanumeric())
    };
    NAMES.into_iter().any(same)
}

/// Whether this asks for a WebSocket over HTTP/1.1 (RFC 6455 §4.1), or is a proxy's question about a
/// request that does: `Upgrade` is hop-by-hop and some proxies (Traefik's forwardAuth) drop it when they
/// ask, so `Sec-WebSocket-Key` and `Sec-Fetch-Mode: websocket` count as well.
///
/// Treating a request as an upgrade asks more of it, never less, so this errs to that side. Whether
/// it is a correct handshake is for whoever upgrades.
pub fn is_websocket_upgrade(method: &Method, headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::UPGRADE).iter().filter_map(|value| value.to_str().ok());
    let is_websocket = |word: &str| word.trim().eq_ignore_ascii_case("websocket");
    method == Method::GET
        && (lists.flat_map(|list| list.split(',')).any(is_websocket)
            || headers.contains_key(header::SEC_WEBSOCKET_KEY)
            || headers.get_all("sec-fetch-mode").iter().any(|mode| mode == "websocket"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn head(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value));
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_plain_head_passes_and_its_host_may_be_spelled_in_two_ways() {
        assert_eq!(check_head(&Method::GET, &head(&[("host", "app.example")]), None), Ok(()));
        assert_eq!(check_head(&Method::GET, &head(&[("host", "app.example")]), Some("APP.example")), Ok(()));
        assert_eq!(check_head(&Method::GET, &head(&[]), Some("app.example")), Ok(()));
    }

    #[test]
    fn a_head_that_could_be_another_request_is_refused() {
        let two = {
            let mut two = head(&[("host", "a")]);
            two.append("host", HeaderValue::from_static("b"));
            two
        };
        for (method, headers, authority) in [
            (Method::CONNECT, head(&[("host", "a")]), None),
            (Method::TRACE, head(&[("host", "a")]), None),
            (Method::GET, head(&[]), None),
            (Method::GET, two, None),
            (Method::GET, head(&[("host", "a")]), Some("b")),
            (Method::GET, head(&[("host", "a")]), Some("a:81")),
            (Method::POST, head(&[("host", "a"), ("x-http-method-override", "GET")]), None),
            (Method::POST, head(&[("host", "a"), ("x_http_method", "GET")]), None),
        ] {
            let denial = check_head(&method, &headers, authority).unwrap_err();
            assert_eq!(denial.reason, Reason::RequestMalformed, "{method} {headers:?}");
        }
    }

    #[test]
    fn an_upgrade_is_seen_in_a_list_and_in_any_case() {
        assert!(is_websocket_upgrade(&Method::GET, &head(&[("upgrade", "h2c, WebSocket")])));
        assert!(!is_websocket_upgrade(&Method::POST, &head(&[("upgrade", "websocket")])));
        assert!(!is_websocket_upgrade(&Method::GET, &head(&[("upgrade", "h2c"), ("sec-fetch-mode", "navigate")])));
    }

    #[test]
    fn an_upgrade_is_seen_also_where_a_proxy_dropped_the_hop_by_hop_header() {
        assert!(is_websocket_upgrade(&Method::GET, &head(&[("sec-websocket-key", "x")])));
        assert!(is_websocket_upgrade(&Method::GET, &head(&[("sec-fetch-mode", "websocket")])));
    }
}
