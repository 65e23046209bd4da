//! The compact serialisation of a JWS (RFC 7515 §7.1), taken apart without believing any of it.

use std::mem::MaybeUninit;

use memchr::{memchr, memrchr};
use simdutf8::basic::from_utf8;

use super::{
    algorithm::Algorithm,
    base64url,
    reader::{Member, read_object},
};
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
    /// Where it is not UTF-8, its bytes.
    payload: Result<String, Vec<u8>>,
    signature: Vec<u8>,
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
        let part = |dot: Option<usize>| dot.ok_or_else(|| malformed("not three parts"));
        let (signed, signature) = around(token, part(memrchr(b'.', token.as_bytes()))?);
        let (header, payload) = around(signed, part(memchr(b'.', signed.as_bytes()))?);
        // One room on the stack, for what is copied out of it and for what is judged and dropped.
        let mut room = [const { MaybeUninit::uninit() }; MAX_TOKEN_BYTES / 4 * 3];
        let header = base64url::decode_into(header, &mut room).map_err(|_| malformed("header is not base64url"))?;
        let header = Header::parse(header)?;
        // A fourth part would be in here, and its `.` is no base64url.
        let payload = base64url::decode_into(payload, &mut room).map_err(|_| {
            malformed(if payload.contains('.') { "not three parts" } else { "payload is not base64url" })
        })?;
        let payload = from_utf8(payload).map(str::to_owned).map_err(|_| payload.to_vec());
        let signature = base64url::decode(signature).map_err(|_| malformed("signature is not base64url"))?;
        Ok(Self { signed, header, payload, signature })
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
        match &self.payload {
            Ok(text) => text.as_bytes(),
            Err(bytes) => bytes,
        }
    }

    /// The signature.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The payload as text, which leaves it empty here.
    ///
    /// # Errors
    /// `token_malformed` where it is not UTF-8.
    pub(crate) fn take_payload(&mut self) -> Result<String, Denial> {
        let text = self.payload.as_mut().map_err(|_| malformed("payload is not UTF-8"))?;
        Ok(std::mem::take(text))
    }
}

/// What is before and behind a dot.
fn around(text: &str, dot: usize) -> (&str, &str) {
    (&text[..dot], &text[dot + 1..])
}

/// `token_malformed` with a note for the operator.
pub(crate) fn malformed(note: &str) -> Denial {
    Denial::from(Reason::TokenMalformed).with_note(note)
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, Denial> {
        let text = from_utf8(bytes).map_err(|_| malformed("header is not UTF-8"))?;
        let (mut algorithm, mut key_id, mut kind) = (None, None, Type::Absent);
        read_object(text, |Member { name, value, .. }| {
            match &*name {
                "alg" => {
                    let found = value.string().ok_or("`alg` is no string")?;
                    algorithm = Some(match &*found {
                        "HS256" => HeaderAlgorithm::Hs256,
                        name => Algorithm::parse(name).map_or(HeaderAlgorithm::Other, HeaderAlgorithm::Signature),
                    });
                }
                "kid" => key_id = Some(value.string().ok_or("`kid` is no string")?.into()),
                "typ" => kind = value.string().map_or(Type::NotText, |text| Type::Text(text.into())),
                // An extension that must be understood, and is not (RFC 7515 §4.1.11); a payload that is
                // not what it seems (RFC 7797 §3; `zip` belongs to JWE, RFC 7516 §4.1.3).
                "crit" | "b64" | "zip" => return Err("`crit`, `b64` and `zip` are not supported"),
                _ => {}
            }
            Ok(())
        })
        .map_err(|problem| malformed(&format!("header: {problem}")))?;
        let algorithm = algorithm.ok_or_else(|| malformed("header: there is no `alg`"))?;
        Ok(Self { algorithm, key_id, kind })
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
