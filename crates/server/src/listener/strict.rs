//! What is refused of a request before anything looks at it, in HTTP/1 and HTTP/2 alike.
//!
//! The bytes of HTTP/1 have been through [`doorward_core::framing`]; h2 has checked the frames of HTTP/2.
//! Here is what both leave open.

use doorward_core::{decision::Denial, framing::HeadFlaw, reason::Reason};
use http::{HeaderName, HeaderValue, Method, Request, Version, header::HOST, uri::Authority};

/// Headers that make some frameworks see another method than the one that was judged.
const METHOD_OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];
/// Headers that frame or route a message; a name that only looks like one is refused.
const LOOK_ALIKES: [&str; 3] = ["content-length", "transfer-encoding", "host"];

/// The refusal for a head that did not pass.
pub(super) fn denial_of(flaw: HeadFlaw) -> Denial {
    let reason = match flaw {
        HeadFlaw::TooLarge => Reason::PayloadTooLarge,
        _ => Reason::RequestMalformed,
    };
    Denial::from(reason).with_note(flaw.text())
}

/// Checks a request, and gives an HTTP/2 one the `Host` that it names in `:authority`, so that everything
/// behind finds exactly one.
///
/// # Errors
/// `request_malformed`.
pub(super) fn check<B>(request: &mut Request<B>) -> Result<(), Denial> {
    let malformed = |note: &str| Err(Denial::from(Reason::RequestMalformed).with_note(note));
    match *request.method() {
        Method::CONNECT => return malformed("CONNECT is not served"),
        Method::TRACE => return malformed("TRACE is not served"),
        _ => {}
    }
    if request.uri().path_and_query().is_none_or(|target| !target.as_str().starts_with('/')) {
        return malformed("the request target is not in origin form");
    }
    for name in request.headers().keys() {
        if METHOD_OVERRIDES.iter().any(|wanted| is_alike(name, wanted)) {
            return malformed("a header asks for another method");
        }
        if LOOK_ALIKES.iter().any(|wanted| name.as_str() != *wanted && is_alike(name, wanted)) {
            return malformed("a header looks like one that frames or routes the message");
        }
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return malformed("there is more than one Host");
    }
    let authority = request.uri().authority();
    if request.version() == Version::HTTP_2 {
        let Some(authority) = authority.filter(|authority| is_host(authority.as_str().as_bytes())) else {
            return malformed("there is no :authority, or none of a host");
        };
        if host.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())) {
            return malformed("Host and :authority differ");
        }
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            request.headers_mut().insert(HOST, host);
        }
    } else if authority.is_some() || !host.is_some_and(|host| is_host(host.as_bytes())) {
        return malformed("the Host is missing or not one, or the target names another");
    }
    Ok(())
}

/// Whether these are a host and at most a port, and nothing that stands for a user.
fn is_host(bytes: &[u8]) -> bool {
    !bytes.contains(&b'@') && Authority::try_from(bytes).is_ok_and(|authority| !authority.host().is_empty())
}

/// Header names are lower case here.
fn is_alike(name: &HeaderName, wanted: &str) -> bool {
    let name = name.as_str().as_bytes();
    name.len() == wanted.len()
        && name
            .iter()
            .zip(wanted.bytes())
            .all(|(&byte, wanted)| byte == wanted || wanted == b'-' && !byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h1(change: impl FnOnce(&mut Request<()>)) -> Result<(), Denial> {
        let mut request = Request::builder().uri("/a?b").header("host", "app.example.com:8080").body(()).unwrap();
        change(&mut request);
        check(&mut request)
    }

    fn h2(change: impl FnOnce(&mut Request<()>)) -> Result<Request<()>, Denial> {
        let uri = "https://app.example.com/a?b";
        let mut request = Request::builder().uri(uri).version(Version::HTTP_2).body(()).unwrap();
        change(&mut request);
        check(&mut request).map(|()| request)
    }

    #[test]
    fn plain_requests_pass_and_h2_gets_its_host() {
        h1(|_| ()).unwrap();
        h1(|request| *request.method_mut() = Method::OPTIONS).unwrap();
        assert_eq!(h2(|_| ()).unwrap().headers()[HOST], "app.example.com");
        let set = |request: &mut Request<()>| {
            request.headers_mut().insert(HOST, HeaderValue::from_static("App.Example.com"));
        };
        assert_eq!(h2(set).unwrap().headers()[HOST], "app.example.com");
    }

    #[test]
    fn what_is_left_open_by_framing_is_refused() {
        let set = |name: &'static str, value: &'static str| {
            move |request: &mut Request<()>| {
                request.headers_mut().insert(name, HeaderValue::from_static(value));
            }
        };
        let append = |request: &mut Request<()>| {
            request.headers_mut().append(HOST, HeaderValue::from_static("app.example.com"));
            request.headers_mut().append(HOST, HeaderValue::from_static("app.example.com"));
        };
        let target =
            |target: &'static str| move |request: &mut Request<()>| *request.uri_mut() = target.parse().unwrap();
        let refused = [
            h1(|request| *request.method_mut() = Method::CONNECT),
            h1(|request| *request.method_mut() = Method::TRACE),
            h1(set("x-http-method-override", "DELETE")),
            h1(set("x_http_method_override", "DELETE")),
            h1(set("x-http-method", "DELETE")),
            h1(set("x-method-override", "DELETE")),
            h1(set("content_length", "5")),
            h1(set("host", "")),
            h1(set("host", "a@b")),
            h1(set("host", "a/b")),
            h1(set("host", "a, b")),
            h1(append),
            h1(target("*")),
            h1(target("http://app.example.com/")),
            h1(target("app.example.com:443")),
            h1(|request| {
                request.headers_mut().remove(HOST);
            }),
            h2(set("host", "other.example.com")).map(drop),
            h2(set("transfer_encoding", "chunked")).map(drop),
            h2(append).map(drop),
            h2(target("/a")).map(drop),
            h2(target("https://u@app.example.com/")).map(drop),
        ];
        for (number, result) in refused.into_iter().enumerate() {
            assert_eq!(result.unwrap_err().reason, Reason::RequestMalformed, "case {number}");
        }
    }
}
