//! The compact serialisation of a JWS (RFC 7515 §7.1), taken apart without believing any of it.

use std::{borrow::Cow, fmt, ops::Range};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

use super::{algorithm::Algorithm, base64url, json::Strict};
use crate::{decision::Denial, reason::Reason};

/// Longest token that is looked at; longer ones are refused before anything of them is read.
pub const MAX_TOKEN_BYTES: usize = 16_384;

/// `alg` of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderAlgorithm {
    /// One that a public key verifies.
    Signature(Algorithm),
    /// `HS256`; only tokens that Doorward minted for itself may carry it.
    Hs256,
    /// Anything else, `none` in every spelling included.
    Other,
}

/// `typ` of a header (RFC 7515 §4.1.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Not there.
    Absent,
    /// A media type.
    Text(Box<str>),
    /// There, and no string.
    NotText,
}

impl Type {
    /// Whether this names the media type `expected`: case does not matter, `application/` may be left out.
    pub fn is(&self, expected: &str) -> bool {
        let Self::Text(text) = self else { return false };
        without_prefix(text).eq_ignore_ascii_case(without_prefix(expected))
    }
}

fn without_prefix(media_type: &str) -> &str {
    const PREFIX: &str = "application/";
    match media_type.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) && !rest.contains('/') => rest,
        _ => media_type,
    }
}

/// What of the protected header is used. Nothing in it is proven before the signature is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `alg`.
    pub algorithm: HeaderAlgorithm,
    /// `kid`.
    pub key_id: Option<Box<str>>,
    /// `typ`.
    pub kind: Type,
}

/// A compact JWS: well-formed, not verified.
#[derive(Clone, Debug)]
pub struct Compact<'a> {
    /// ASCII(header) "." ASCII(payload): what the signature is over (RFC 7515 §5.2).
    signed: &'a str,
    header: Header,
    /// The three parts, decoded, one after the other.
    decoded: Vec<u8>,
    payload: Range<usize>,
}

impl<'a> Compact<'a> {
    /// Takes `token` apart: three parts of canonical base64url, a header that is a strict JSON object with
    /// a string `alg`, and none of `crit`, `b64` and `zip`, which would change what the rest means.
    ///
    /// Not verified: anything. Not read: the payload. `jwk`, `jku`, `x5c`, `x5u` in the header are ignored.
    ///
    /// # Errors
    /// `token_malformed`, with the cause as a note.
    pub fn parse(token: &'a str) -> Result<Self, Denial> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(malformed("longer than 16384 bytes"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or_else(|| malformed("not three parts"))?;
        let (header, payload) = signed.split_once('.').ok_or_else(|| malformed("not three parts"))?;
        if payload.contains('.') {
            return Err(malformed("not three parts"));
        }
        let mut decoded = Vec::with_capacity(token.len() / 4 * 3 + 3);
        let header = base64url::decode_onto(header, &mut decoded).map_err(|_| malformed("header is not base64url"))?;
        let payload =
            base64url::decode_onto(payload, &mut decoded).map_err(|_| malformed("payload is not base64url"))?;
        base64url::decode_onto(signature, &mut decoded).map_err(|_| malformed("signature is not base64url"))?;
        let payload = header..header + payload;
        let header = serde_json::from_slice(&decoded[..header])
            .map_err(|error| malformed(&format!("header: {}", without_input(&error))))?;
        Ok(Self { signed, header, decoded, payload })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the signature is over.
    pub fn signing_input(&self) -> &'a [u8] {
        self.signed.as_bytes()
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.decoded[self.payload.clone()]
    }

    /// The signature.
    pub fn signature(&self) -> &[u8] {
        &self.decoded[self.payload.end..]
    }
}

/// `token_malformed` with a note for the operator.
pub(crate) fn malformed(note: &str) -> Denial {
    Denial::from(Reason::TokenMalformed).with_note(note)
}

/// What was wrong, never with text of the token in it: notes are logged.
pub(crate) fn without_input(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Data => "a member is twice, missing, forbidden, too deep or of the wrong type",
        serde_json::error::Category::Eof => "ends too early",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "not JSON",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}

/// A member name: borrowed where the text has no escapes.
pub(crate) struct Name<'de>(pub(crate) Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JOSE header")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let (mut algorithm, mut key_id, mut kind) = (None, None, None);
        let mut others: Vec<Cow<'de, str>> = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            let is_twice = match &*name {
                "alg" => {
                    let Name(text) = map.next_value()?;
                    let found = match &*text {
                        "HS256" => HeaderAlgorithm::Hs256,
                        name => Algorithm::parse(name).map_or(HeaderAlgorithm::Other, HeaderAlgorithm::Signature),
                    };
                    algorithm.replace(found).is_some()
                }
                "kid" => {
                    let Name(text) = map.next_value()?;
                    key_id.replace(Box::from(text)).is_some()
                }
                "typ" => {
                    let found = match map.next_value_seed(Strict::MEMBER)? {
                        Value::String(text) => Type::Text(text.into()),
                        _ => Type::NotText,
                    };
                    kind.replace(found).is_some()
                }
                // An extension that must be understood, and is not (RFC 7515 §4.1.11); a payload that is
                // not what it seems (RFC 7797 §3; `zip` belongs to JWE, RFC 7516 §4.1.3).
                "crit" | "b64" | "zip" => return Err(A::Error::custom("`crit`, `b64` and `zip` are not supported")),
                _ => {
                    map.next_value_seed(Strict::MEMBER)?;
                    let is_twice = others.contains(&name);
                    others.push(name);
                    is_twice
                }
            };
            if is_twice {
                return Err(A::Error::custom("a name appears twice"));
            }
        }
        let algorithm = algorithm.ok_or_else(|| A::Error::missing_field("alg"))?;
        Ok(Header { algorithm, key_id, kind: kind.unwrap_or(Type::Absent) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(json: &str) -> Result<Header, Denial> {
        Compact::parse(&format!("{}.e30.", base64url::encode(json.as_bytes()))).map(|jws| jws.header)
    }

    #[test]
    fn a_token_comes_apart_into_its_three_parts() {
        let token = format!("{}.Zm9v.YmFy", base64url::encode(br#"{"alg":"ES256","kid":"a","typ":"JWT"}"#));
        let jws = Compact::parse(&token).unwrap();
        assert_eq!((jws.payload(), jws.signature()), (&b"foo"[..], &b"bar"[..]));
        assert_eq!(jws.signing_input(), token.strip_suffix(".YmFy").unwrap().as_bytes());
        assert_eq!(jws.header().key_id.as_deref(), Some("a"));
        assert_eq!(jws.header().algorithm, HeaderAlgorithm::Signature(Algorithm::Es256));
    }

    #[test]
    fn members_that_change_the_meaning_of_the_rest_are_refused() {
        for member in [r#""crit":["exp"]"#, r#""crit":[]"#, r#""crit":null"#, r#""b64":true"#, r#""zip":"DEF""#] {
            let denial = header(&format!(r#"{{"alg":"EdDSA",{member}}}"#)).unwrap_err();
            assert_eq!(denial.reason, Reason::TokenMalformed, "{member}");
        }
    }

    #[test]
    fn no_name_may_appear_twice_in_a_header() {
        for name in ["alg", "kid", "typ", "x", "\\u0078"] {
            assert!(header(&format!(r#"{{"alg":"EdDSA","x":"1","kid":"a","typ":"b","{name}":"EdDSA"}}"#)).is_err());
        }
    }

    #[test]
    fn types_compare_as_media_types() {
        let of = |text: &str| Type::Text(text.into());
        for same in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
            assert!(of(same).is("at+jwt"), "{same}");
        }
        for other in ["JWT", "at+jwt ", "application/x/at+jwt", "", "application/"] {
            assert!(!of(other).is("at+jwt"), "{other}");
        }
        assert!(!Type::Absent.is("") && !Type::NotText.is(""));
    }

    #[test]
    fn nothing_of_a_token_reaches_the_note() {
        let denial = header(r#"{"alg":"EdDSA","secret-looking":"a","secret-looking":"b"}"#).unwrap_err();
        assert!(!denial.to_string().contains("secret-looking"), "{denial}");
    }
}
