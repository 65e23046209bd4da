//! HMAC-SHA256 tokens (RFC 7518 §3.2): those that Doorward mints for itself, such as sign-in links, and those of
//! the system that it replaces ([`crate::legacy`]); never an issuer's.

use std::fmt;

use aws_lc_rs::hmac;
use serde::Serialize;

use super::{
    jws::{Compact, HeaderAlgorithm},
    sign,
};
use crate::{
    decision::Denial,
    reason::Reason,
    time::Now,
    token::{self, Claims, Verified},
};

/// Shortest key, in bytes (RFC 7518 §3.2).
pub const MIN_KEY_BYTES: usize = 32;

/// The key has fewer than [`MIN_KEY_BYTES`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTooShort;

impl fmt::Display for KeyTooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an HS256 key needs at least {MIN_KEY_BYTES} bytes")
    }
}

impl std::error::Error for KeyTooShort {}

/// A symmetric key. Does not print.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

impl MacKey {
    /// From random or derived bytes; a password is not enough (RFC 8725 §3.5).
    ///
    /// # Errors
    /// Below [`MIN_KEY_BYTES`].
    pub fn new(bytes: &[u8]) -> Result<Self, KeyTooShort> {
        if bytes.len() < MIN_KEY_BYTES {
            return Err(KeyTooShort);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(…)")
    }
}

/// Mints a token of type `kind`, a name of Doorward's own such as `doorward-link+jwt`.
///
/// # Errors
/// Where `claims` cannot be written as JSON.
pub fn mint(key: &MacKey, kind: &str, claims: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut token = sign::signing_input(&sign::Protected { alg: "HS256", typ: kind, kid: None }, claims)?;
    let tag = hmac::sign(&key.0, token.as_bytes());
    sign::append_signature(&mut token, tag.as_ref());
    Ok(token)
}

/// A token with any protected header, signed with `key` whatever the header says: what an attacker who has the
/// key, or the old system, could present.
#[cfg(test)]
pub(crate) fn mint_with_header(key: &MacKey, header: &str, claims: &str) -> String {
    let mut token = [header, claims].map(|part| super::base64url::encode(part.as_bytes())).join(".");
    let tag = hmac::sign(&key.0, token.as_bytes());
    sign::append_signature(&mut token, tag.as_ref());
    token
}

/// Takes a token apart whose `alg` is HS256 and whose tag is the key's (compared in constant time).
///
/// Not verified: `typ` and anything in the payload; [`verify`] does.
///
/// # Errors
/// `token_malformed`, `token_alg_not_allowed`, `token_bad_signature`.
pub fn open<'t>(key: &MacKey, token: &'t str) -> Result<Compact<'t>, Denial> {
    let jws = Compact::parse(token)?;
    if jws.header().algorithm != HeaderAlgorithm::Hs256 {
        return Err(Reason::TokenAlgNotAllowed.into());
    }
    if hmac::verify(&key.0, jws.signing_input(), jws.signature()).is_err() {
        return Err(Reason::TokenBadSignature.into());
    }
    Ok(jws)
}

/// Verifies a token that [`mint`] made: `alg` is HS256, `typ` is exactly `kind`, the tag fits (compared in
/// constant time), `exp` is there and has not passed, `nbf` and `iat` do not lie ahead. There is no
/// tolerance: the clock that minted it is ours.
///
/// Not verified: who it is for and whether it was used; that is the caller's record.
///
/// # Errors
/// `token_malformed`, `token_alg_not_allowed`, `token_bad_signature`, `token_wrong_type`,
/// `token_missing_claim`, `token_invalid_claim`, `token_expired`, `token_not_yet_valid`.
pub fn verify(key: &MacKey, kind: &str, token: &str, now: Now) -> Result<Verified<Claims>, Denial> {
    let jws = open(key, token)?;
    if !jws.header().kind.is(kind) {
        return Err(Reason::TokenWrongType.into());
    }
    token::verify_own_claims(jws, now)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::time::Timestamp;

    const KIND: &str = "doorward-link+jwt";

    fn key(byte: u8) -> MacKey {
        MacKey::new(&[byte; 32]).unwrap()
    }

    fn at(secs: i64) -> Now {
        Now { wall: Timestamp::from_secs(secs), mono: Duration::ZERO }
    }

    fn reason(result: Result<Verified<Claims>, Denial>) -> Reason {
        result.unwrap_err().reason
    }

    #[test]
    fn what_was_minted_verifies_until_it_expires() {
        let token = mint(&key(1), KIND, &json!({"sub": "u", "jti": "j", "iat": 100, "exp": 200})).unwrap();
        let claims = verify(&key(1), KIND, &token, at(199)).unwrap();
        assert_eq!((claims.get().subject.as_deref(), claims.get().id.as_deref()), (Some("u"), Some("j")));
        assert_eq!(reason(verify(&key(1), KIND, &token, at(200))), Reason::TokenExpired);
        assert_eq!(reason(verify(&key(1), KIND, &token, at(99))), Reason::TokenNotYetValid);
    }

    #[test]
    fn another_key_type_or_algorithm_is_refused() {
        let token = mint(&key(1), KIND, &json!({"exp": 200})).unwrap();
        assert_eq!(reason(verify(&key(2), KIND, &token, at(0))), Reason::TokenBadSignature);
        assert_eq!(reason(verify(&key(1), "JWT", &token, at(0))), Reason::TokenWrongType);
        let unsigned = token.replace("eyJhbGciOiJIUzI1NiI", "eyJhbGciOiJub25lIiI");
        assert!(verify(&key(1), KIND, &unsigned, at(0)).is_err());
        let ed = sign::SigningKey::from_seed(&[1; 32]).unwrap();
        let token = ed.mint(KIND, None, &json!({"exp": 200})).unwrap();
        assert_eq!(reason(verify(&key(1), KIND, &token, at(0))), Reason::TokenAlgNotAllowed);
    }

    #[test]
    fn a_token_without_end_is_refused_and_so_is_a_short_key() {
        let token = mint(&key(1), KIND, &json!({"sub": "u"})).unwrap();
        assert_eq!(reason(verify(&key(1), KIND, &token, at(0))), Reason::TokenMissingClaim);
        assert_eq!(MacKey::new(&[7; 31]).err(), Some(KeyTooShort));
    }
}
