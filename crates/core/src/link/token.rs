//! The token in the mail: a compact HS256 JWT that names a link (B29).

use serde::Serialize;

use super::Link;
use crate::{
    decision::Denial,
    id::{LinkId, UserId},
    jose::hs256::{self, MacKey},
    reason::Reason,
    ring::{KeyMaterial, KeySet},
    time::Now,
    user::Email,
};

/// `typ` of the token; no other token of ours has it.
pub const TYPE: &str = "doorward-link+jwt";
const PURPOSE: &str = "magic-link";
/// Longest token looked at, in bytes; ours have about 420, more only for the longest addresses.
pub const MAX_BYTES: usize = 2048;

/// What a link token says, its signature and times verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkClaims {
    /// `jti`: which link.
    pub link: LinkId,
    /// `sub`: whom it signs in.
    pub user: UserId,
    /// Address that it was sent to.
    pub email: Email,
}

#[derive(Serialize)]
struct Written<'a> {
    sub: UserId,
    email: &'a Email,
    purpose: &'static str,
    jti: LinkId,
    iat: i64,
    exp: i64,
}

fn mac(key: &KeyMaterial) -> Result<MacKey, Denial> {
    MacKey::new(key.expose()).map_err(|error| Denial::from(Reason::Internal).with_note(error.to_string()))
}

/// Mints the token that names `link`, with the current key of the purpose `link`.
///
/// # Errors
/// `internal` if the claims cannot be written, which no parsed address causes.
pub fn mint_token(link: &Link, keys: &KeySet) -> Result<String, Denial> {
    let claims = Written {
        sub: link.user_id,
        email: &link.email,
        purpose: PURPOSE,
        jti: link.id,
        iat: link.created_at.as_secs(),
        exp: link.expires_at.as_secs(),
    };
    hs256::mint(&mac(keys.current())?, TYPE, &claims)
        .map_err(|error| Denial::from(Reason::Internal).with_note(error.to_string()))
}

/// Reads and verifies the token of a link: HS256 under one of our keys, our `typ`, `exp`, `iat`, and every
/// claim of B29 in its place.
///
/// Not verified: whether the link exists, is unused and belongs to this browser; see [`super::check`].
///
/// # Errors
/// `link_expired` for a token of ours that is too old, `link_invalid` for everything else.
pub fn parse_token(text: &str, keys: &KeySet, now: Now) -> Result<LinkClaims, Denial> {
    let invalid = |note: &str| Denial::from(Reason::LinkInvalid).with_note(note);
    if text.len() > MAX_BYTES {
        return Err(invalid("longer than any token of ours"));
    }
    let mut refusal = invalid("no key");
    for key in keys.accepted() {
        match hs256::verify(&mac(key)?, TYPE, text, now) {
            Ok(verified) => {
                let claims = verified.get();
                if claims.more.str("purpose").as_deref() != Some(PURPOSE) {
                    return Err(invalid("another purpose"));
                }
                let link = claims.id.as_deref().and_then(|id| id.parse().ok());
                let user = claims.subject.as_deref().and_then(|id| id.parse().ok());
                let email = claims.more.str("email").and_then(|email| Email::parse(&email));
                let (Some(link), Some(user), Some(email)) = (link, user, email) else {
                    return Err(invalid("a claim is missing or malformed"));
                };
                return Ok(LinkClaims { link, user, email });
            }
            // Only a bad signature may be another key's doing.
            Err(denial) if denial.reason == Reason::TokenBadSignature => refusal = invalid("token_bad_signature"),
            Err(denial) if denial.reason == Reason::TokenExpired => return Err(Reason::LinkExpired.into()),
            Err(denial) => return Err(invalid(&denial.to_string())),
        }
    }
    Err(refusal)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::{
        id::RingKeyId,
        ring::{KeyState, Purpose, RingKey, RootSecret, wrap},
        session::TokenHash,
        time::Timestamp,
    };

    const MADE: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn now(after_secs: u64) -> Now {
        Now { wall: MADE.plus(Duration::from_secs(after_secs)), mono: Duration::ZERO }
    }

    /// A ring whose keys are 32 times their number; the first is current.
    pub(in crate::link) fn ring(numbers: &[u8]) -> KeySet {
        let root = RootSecret::parse(&[7; 32]).unwrap();
        let rows: Vec<RingKey> = numbers
            .iter()
            .enumerate()
            .map(|(at, &number)| {
                let key = KeyMaterial::mint(RingKeyId::mint(MADE, [number; 10]), [number; 32]);
                let wrapped = wrap(&root, Purpose::Link, &key, [number; 12]).unwrap();
                let state = if at == 0 { KeyState::Current } else { KeyState::Previous };
                RingKey { id: key.id, purpose: Purpose::Link, wrapped, created_at: MADE, state }
            })
            .collect();
        KeySet::open(&root, &rows).unwrap().unwrap()
    }

    fn link() -> Link {
        Link {
            id: LinkId::mint(MADE, [1; 10]),
            purpose: crate::link::LinkPurpose::SignIn,
            user_id: UserId::mint(MADE, [2; 10]),
            user_version: 0,
            email: Email::parse("a@example.com").unwrap(),
            browser: TokenHash::from_bytes([3; 32]),
            return_to: "/".into(),
            created_at: MADE,
            expires_at: MADE.plus(Duration::from_secs(900)),
            used_at: None,
            voided_at: None,
            code: None,
        }
    }

    fn refused(token: &str, keys: &KeySet, after_secs: u64) -> Reason {
        parse_token(token, keys, now(after_secs)).unwrap_err().reason
    }

    #[test]
    fn a_minted_token_names_its_link_until_it_ends() {
        let token = mint_token(&link(), &ring(&[1])).unwrap();
        let claims = parse_token(&token, &ring(&[1]), now(899)).unwrap();
        let LinkClaims { link: id, user, email } = claims;
        assert_eq!((id, user, email), (link().id, link().user_id, link().email));
        assert_eq!(refused(&token, &ring(&[1]), 900), Reason::LinkExpired);
        assert!(token.len() < 600, "{} bytes", token.len());
    }

    #[test]
    fn a_rotated_key_still_verifies_and_a_retired_one_does_not() {
        let token = mint_token(&link(), &ring(&[1])).unwrap();
        assert!(parse_token(&token, &ring(&[2, 1]), now(0)).is_ok());
        assert_eq!(refused(&token, &ring(&[3, 2]), 0), Reason::LinkInvalid);
    }

    #[test]
    fn a_token_altered_in_any_character_is_invalid_for_one_reason() {
        let (keys, token) = (ring(&[1]), mint_token(&link(), &ring(&[1])).unwrap());
        for at in 0..token.len() {
            for other in ["A", "Q", "_", ".", "=", " "] {
                let mut altered = token.clone();
                altered.replace_range(at..=at, other);
                if altered != token {
                    assert_eq!(refused(&altered, &keys, 0), Reason::LinkInvalid, "character {at} became {other}");
                }
            }
        }
        for bad in ["", ".", "..", "a.b.c", &token[..token.len() - 1], &"a".repeat(100_000)] {
            assert_eq!(refused(bad, &keys, 0), Reason::LinkInvalid);
        }
        assert_eq!(refused(&format!("{token}A"), &keys, 5_000), Reason::LinkInvalid, "a forgery is never just expired");
    }

    #[test]
    fn a_token_of_ours_with_another_type_purpose_or_claim_missing_is_invalid() {
        let keys = ring(&[1]);
        let key = mac(keys.current()).unwrap();
        let link = link();
        let good = json!({
            "sub": link.user_id, "email": link.email, "purpose": "magic-link", "jti": link.id,
            "iat": MADE.as_secs(), "exp": MADE.as_secs() + 60,
        });
        let minted = |kind: &str, claims: &serde_json::Value| hs256::mint(&key, kind, claims).unwrap();
        assert!(parse_token(&minted(TYPE, &good), &keys, now(0)).is_ok());
        assert_eq!(refused(&minted("JWT", &good), &keys, 0), Reason::LinkInvalid);
        for name in ["sub", "email", "purpose", "jti", "exp"] {
            let mut without = good.clone();
            without.as_object_mut().unwrap().remove(name);
            assert_eq!(refused(&minted(TYPE, &without), &keys, 0), Reason::LinkInvalid, "without {name}");
            let mut wrong = good.clone();
            wrong[name] = json!(["x"]);
            assert_eq!(refused(&minted(TYPE, &wrong), &keys, 0), Reason::LinkInvalid, "{name} of another type");
        }
    }
}
