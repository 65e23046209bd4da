//! Tokens of the system that Doorward replaces: HS256 JWTs of about 30 days with `sub`, `email` and `role`
//! (B41), accepted while the soak window is open.
//!
//! What makes a token one of these is its form, never its `alg`: no `iss`, and no `typ` other than `JWT`
//! ([`crate::credential`]). So a token of an issuer cannot be brought here, and one of ours of another type
//! (a sign-in link, an identity assertion) cannot either. `role` says nothing here: who administers this
//! installation is written in its own store.

use crate::{
    decision::Denial,
    id::UserId,
    jose::{
        Type,
        hs256::{self, MacKey},
    },
    reason::Reason,
    time::Now,
    token::{self, Claims, Verified},
    user::Email,
};

/// The issuer name under which the subjects of the old system are kept with the users that they were found to
/// be. No `[[issuers]]` entry can have it.
pub const ISSUER: &str = "legacy";

/// Whether a `typ` is one that these tokens have: none, or `JWT` (RFC 7519 §5.1).
pub fn is_kind(kind: &Type) -> bool {
    *kind == Type::Absent || kind.is("JWT")
}

/// Verifies a token of the old system: `alg` is HS256 and nothing else, the tag is the key's (compared in
/// constant time), `typ` and `iss` are as the form says, `exp` is there and has not passed, `nbf` and `iat` do
/// not lie ahead. There is no tolerance: the old system stood where Doorward stands now.
///
/// Not verified: whether there is such a user, whether they are banned, whether the token was revoked, and
/// whether the soak window is open.
///
/// # Errors
/// `token_malformed`, `token_alg_not_allowed`, `token_bad_signature`, `token_wrong_type`, `token_missing_claim`,
/// `token_invalid_claim`, `token_expired`, `token_not_yet_valid`, `token_wrong_issuer`.
pub fn verify(key: &MacKey, token: &str, now: Now) -> Result<Verified<Claims>, Denial> {
    let jws = hs256::open(key, token)?;
    if !is_kind(&jws.header().kind) {
        return Err(Reason::TokenWrongType.into());
    }
    let verified = token::verify_own_claims(jws, now)?;
    let claims = verified.get();
    if claims.issuer.is_some() {
        return Err(Denial::from(Reason::TokenWrongIssuer).with_note("a token of the old system names no issuer"));
    }
    if names(claims).is_empty() {
        return Err(Denial::from(Reason::TokenMissingClaim).with_required("sub"));
    }
    Ok(verified)
}

/// By what a token names its user, the surest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `sub`, where it has the form of a local id; good only if there is such a user.
    pub id: Option<UserId>,
    /// `sub` as it came: the old system's name for the user.
    pub subject: Option<String>,
    /// `email`; or `sub`, where that is an address and there is no `email`.
    pub email: Option<Email>,
}

impl Names {
    /// Whether it names nobody.
    pub const fn is_empty(&self) -> bool {
        self.id.is_none() && self.email.is_none()
    }
}

/// By what `claims` name their user.
pub fn names(claims: &Claims) -> Names {
    let subject = claims.subject.as_deref();
    let email = claims.more.str("email");
    Names {
        id: subject.and_then(|subject| subject.parse().ok()),
        subject: subject.map(str::to_owned),
        email: email.as_deref().or(subject).and_then(Email::parse),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::{jose::sign::SigningKey, time::Timestamp};

    const NOW: i64 = 1_800_000_000;

    fn now() -> Now {
        Now { wall: Timestamp::from_secs(NOW), mono: Duration::ZERO }
    }

    fn key(byte: u8) -> MacKey {
        MacKey::new(&[byte; 32]).unwrap()
    }

    fn claims() -> Value {
        json!({ "sub": "17", "email": "Ada@Example.com", "role": "admin", "iat": NOW - 60, "exp": NOW + 60 })
    }

    fn verdict(header: &str, claims: &Value) -> Result<Names, Reason> {
        let token = hs256::mint_with_header(&key(1), header, &claims.to_string());
        verify(&key(1), &token, now()).map(|verified| names(verified.get())).map_err(|denial| denial.reason)
    }

    #[test]
    fn a_token_of_the_old_system_names_its_user_by_id_and_by_mail() {
        for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","typ":"JWT"}"#, r#"{"typ":"jwt","alg":"HS256"}"#] {
            let named = verdict(header, &claims()).unwrap();
            assert_eq!((named.id, named.email), (None, Email::parse("ada@example.com")), "{header}");
        }
        let id = UserId::mint(Timestamp::from_secs(NOW), [3; 10]);
        let mut by_id = claims();
        by_id["sub"] = json!(id);
        assert_eq!(verdict(r#"{"alg":"HS256"}"#, &by_id).unwrap().id, Some(id));
        let by_sub = json!({ "sub": "ada@example.com", "exp": NOW + 60 });
        assert_eq!(verdict(r#"{"alg":"HS256"}"#, &by_sub).unwrap().email, Email::parse("ada@example.com"));
    }

    #[test]
    fn another_algorithm_type_or_key_is_refused() {
        for (header, reason) in [
            (r#"{"alg":"none"}"#, Reason::TokenAlgNotAllowed),
            (r#"{"alg":"hs256"}"#, Reason::TokenAlgNotAllowed),
            (r#"{"alg":"HS384"}"#, Reason::TokenAlgNotAllowed),
            (r#"{"alg":"HS512"}"#, Reason::TokenAlgNotAllowed),
            (r#"{"alg":"RS256"}"#, Reason::TokenAlgNotAllowed),
            (r#"{"alg":"EdDSA"}"#, Reason::TokenAlgNotAllowed),
            (r#"{"alg":"HS256","typ":"at+jwt"}"#, Reason::TokenWrongType),
            (r#"{"alg":"HS256","typ":"doorward-link+jwt"}"#, Reason::TokenWrongType),
            (r#"{"alg":"HS256","typ":""}"#, Reason::TokenWrongType),
            (r#"{"alg":"HS256","typ":null}"#, Reason::TokenWrongType),
            (r#"{"alg":"HS256","crit":["exp"]}"#, Reason::TokenMalformed),
            (r#"{"alg":"HS256","alg":"HS256"}"#, Reason::TokenMalformed),
        ] {
            assert_eq!(verdict(header, &claims()), Err(reason), "{header}");
        }
        let token = hs256::mint_with_header(&key(2), r#"{"alg":"HS256"}"#, &claims().to_string());
        assert_eq!(verify(&key(1), &token, now()).unwrap_err().reason, Reason::TokenBadSignature);
        let signed = SigningKey::from_seed(&[1; 32]).unwrap().mint("JWT", None, &claims()).unwrap();
        assert_eq!(verify(&key(1), &signed, now()).unwrap_err().reason, Reason::TokenAlgNotAllowed);
    }

    #[test]
    fn an_issuer_no_end_or_nobody_named_is_refused() {
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            verdict(r#"{"alg":"HS256"}"#, &claims).unwrap_err()
        };
        assert_eq!(with("iss", json!("https://sso.example.com")), Reason::TokenWrongIssuer);
        assert_eq!(with("iss", json!(7)), Reason::TokenInvalidClaim);
        assert_eq!(with("exp", json!(NOW)), Reason::TokenExpired);
        assert_eq!(with("exp", json!("tomorrow")), Reason::TokenInvalidClaim);
        assert_eq!(with("iat", json!(NOW + 1)), Reason::TokenNotYetValid);
        assert_eq!(with("nbf", json!(NOW + 1)), Reason::TokenNotYetValid);
        assert_eq!(with("email", json!("nobody")), Reason::TokenMissingClaim);
        let mut endless = claims();
        endless.as_object_mut().unwrap().remove("exp");
        assert_eq!(verdict(r#"{"alg":"HS256"}"#, &endless), Err(Reason::TokenMissingClaim));
    }
}
