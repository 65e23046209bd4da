//! `Authorization: Bearer` (RFC 6750 §2.1), and what kind of credential it carries.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header};
use memchr::{memchr, memchr_iter};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::Value;

use super::CredentialKind;
use crate::{api_key, decision::Denial, jose::Type, legacy, reason::Reason};

/// Longest accepted bearer credential in bytes.
pub const MAX: usize = 16 * 1024;

/// The credential of the one `Authorization: Bearer` line; `None` if there is none, or another scheme.
///
/// # Errors
/// `ambiguous_credential` for two lines or a list; `request_malformed` for what no credential can be:
/// too long, non-ASCII, with a space in it.
pub(super) fn find(headers: &HeaderMap) -> Result<Option<&str>, Denial> {
    let refused = |reason, note| Err(Denial::from(reason).with_note(note));
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return refused(Reason::AmbiguousCredential, "authorization: more than one");
    }
    let line = super::cookie::trim(line.as_bytes());
    let Some((scheme, rest)) = line.split_at_checked("bearer".len()) else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case(b"bearer") || !matches!(rest, [] | [b' ', ..]) {
        return Ok(None);
    }
    match rest {
        [] => Ok(None),
        [_, token @ ..] if memchr(b',', token).is_some() => {
            refused(Reason::AmbiguousCredential, "authorization: a list of credentials")
        }
        [_, token @ ..] if token.len() > MAX => refused(Reason::RequestMalformed, "authorization: too long"),
        [_, token @ ..] => match std::str::from_utf8(token) {
            // Every byte is looked at, so that the compiler looks at many at once.
            Ok(token) if token.bytes().fold(true, |all, byte| all & byte.is_ascii_graphic()) => Ok(Some(token)),
            _ => refused(Reason::RequestMalformed, "authorization: a byte that no credential has"),
        },
    }
}

/// What kind of credential a bearer text is, for a rule that admits legacy tokens or not.
///
/// Nothing is verified: this only says whose check has to judge it.
pub(super) fn kind(text: &str, legacy_admitted: bool) -> CredentialKind {
    // JWE and broken tokens go where they are refused as tokens; everything else is an API key,
    // because imported ones keep the form that they had.
    let dots = memchr_iter(b'.', text.as_bytes()).take(5).count();
    if text.starts_with(api_key::PREFIX) || !(dots == 2 || dots == 4 || text.starts_with("eyJ")) {
        CredentialKind::ApiKey
    } else if legacy_admitted && is_legacy(text) {
        CredentialKind::Legacy
    } else {
        CredentialKind::Bearer
    }
}

#[derive(Deserialize)]
struct HeaderPeek {
    #[serde(default, deserialize_with = "kind_of")]
    typ: Option<Type>,
}

#[derive(Deserialize)]
struct ClaimsPeek {
    #[serde(default, deserialize_with = "present")]
    iss: bool,
}

/// The member, whatever it is; `null` counts as a value.
fn kind_of<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Type>, D::Error> {
    Ok(Some(match Value::deserialize(value)? {
        Value::String(text) => Type::Text(text.into()),
        _ => Type::NotText,
    }))
}

/// Whether the member is there, whatever it is.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

/// Whether this is a token of the soak window: no `iss`, and no `typ` other than `JWT`. The `alg` has no say, so
/// nobody can choose the legacy check by it. What cannot be read is not legacy.
fn is_legacy(token: &str) -> bool {
    let part = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let mut parts = token.split('.').map(part);
    let (Some(Some(header)), Some(Some(claims))) = (parts.next(), parts.next()) else { return false };
    let (Ok(header), Ok(claims)) =
        (serde_json::from_slice::<HeaderPeek>(&header), serde_json::from_slice::<ClaimsPeek>(&claims))
    else {
        return false;
    };
    !claims.iss && legacy::is_kind(&header.typ.unwrap_or(Type::Absent))
}
