//! The WebSocket handshake, checked on both sides before a byte goes through (RFC 6455 §4).

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use doorward_core::decision::Denial;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING,
        UPGRADE,
    },
};

use super::{headers::tokens, malformed};

/// What is appended to the key (§1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A client's opening handshake that is one.
#[derive(Debug)]
pub(super) struct Handshake {
    accept: String,
}

impl Handshake {
    /// The handshake in `request`; `None` when it asks for none, or for another protocol, which is not
    /// passed on: the request is then an ordinary one (RFC 9110 §7.8).
    ///
    /// # Errors
    /// `request_malformed` when it asks for a WebSocket in a way that client and app could read differently.
    pub(super) fn of<B>(request: &Request<B>) -> Result<Option<Self>, Denial> {
        let headers = request.headers();
        let is_asked = tokens(headers, &UPGRADE).any(|token| token.eq_ignore_ascii_case("websocket"))
            && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
        if !is_asked {
            return Ok(None);
        }
        if request.method() != Method::GET || request.version() != Version::HTTP_11 {
            return Err(malformed("a WebSocket handshake is a GET in HTTP/1.1"));
        }
        if tokens(headers, &UPGRADE).count() != 1 {
            return Err(malformed("a WebSocket handshake that offers other protocols too"));
        }
        if headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
            return Err(malformed("a WebSocket handshake with a body"));
        }
        if single(headers, &SEC_WEBSOCKET_VERSION) != Some(b"13") {
            return Err(malformed("a WebSocket handshake of another version than 13"));
        }
        let key =
            single(headers, &SEC_WEBSOCKET_KEY).filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
        let key = key.ok_or_else(|| malformed("a WebSocket handshake without a key of 16 bytes"))?;
        let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        hash.update(key);
        hash.update(GUID);
        Ok(Some(Self { accept: STANDARD.encode(hash.finish()) }))
    }

    /// Checks that a 101 answers this handshake.
    ///
    /// # Errors
    /// What is wrong with it, for the operator.
    pub(super) fn accepts<B>(&self, answer: &Response<B>) -> Result<(), &'static str> {
        let headers = answer.headers();
        let mut upgrade = tokens(headers, &UPGRADE);
        if !upgrade.next().is_some_and(|token| token.eq_ignore_ascii_case("websocket")) || upgrade.next().is_some() {
            return Err("it switched to another protocol than WebSocket");
        }
        if single(headers, &SEC_WEBSOCKET_ACCEPT) != Some(self.accept.as_bytes()) {
            return Err("its Sec-WebSocket-Accept does not answer the client's key");
        }
        Ok(())
    }
}

/// Puts back what says that the protocol is switched; both are hop-by-hop.
pub(super) fn mark_switching(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes().trim_ascii())
}

#[cfg(test)]
mod tests {
    use doorward_core::reason::Reason;

    use super::*;

    fn request(change: impl FnOnce(&mut Request<()>)) -> Request<()> {
        let mut request = Request::builder()
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .unwrap();
        change(&mut request);
        request
    }

    #[test]
    fn the_example_of_the_standard_is_accepted_and_its_answer_checked() {
        let handshake = Handshake::of(&request(|_| ())).unwrap().unwrap();
        let answer = |accept: &str, upgrade: &str| {
            Response::builder().header("upgrade", upgrade).header("sec-websocket-accept", accept).body(()).unwrap()
        };
        assert_eq!(handshake.accepts(&answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "websocket")), Ok(()));
        assert!(handshake.accepts(&answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "h2c")).is_err());
        assert!(handshake.accepts(&answer("AAAALMBiTxaQ9kYGzzhZRbK+xOo=", "websocket")).is_err());
    }

    #[test]
    fn other_protocols_are_not_asked_for() {
        let h2c = request(|request| {
            request.headers_mut().insert("upgrade", HeaderValue::from_static("h2c"));
        });
        assert!(Handshake::of(&h2c).unwrap().is_none());
    }

    #[test]
    fn a_handshake_that_could_be_read_in_two_ways_is_refused() {
        let set = |name: &'static str, value: &'static str| {
            request(move |request| {
                request.headers_mut().insert(name, HeaderValue::from_static(value));
            })
        };
        let cases = [
            request(|request| *request.method_mut() = Method::POST),
            request(|request| *request.version_mut() = Version::HTTP_2),
            set("upgrade", "websocket, h2c"),
            set("content-length", "5"),
            set("transfer-encoding", "chunked"),
            set("sec-websocket-version", "8"),
            set("sec-websocket-key", "short"),
            request(|request| {
                request.headers_mut().remove("sec-websocket-key");
            }),
            request(|request| {
                request.headers_mut().append("sec-websocket-key", HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
            }),
        ];
        for case in cases {
            assert_eq!(Handshake::of(&case).unwrap_err().reason, Reason::RequestMalformed, "{case:?}");
        }
    }
}
