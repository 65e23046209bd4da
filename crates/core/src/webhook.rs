//! Webhooks about licenses: HMAC-SHA256 over `{timestamp}.{raw body}` (B59, B60).

use std::{fmt, time::Duration};

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName};
use serde_json::Value;

use crate::{
    decision::Denial, jose::StrictValue, license::LicenseState, reason::Reason, secret::Secret, time::Timestamp,
};

/// The header with `sha256=<hex>`.
pub const SIGNATURE: HeaderName = HeaderName::from_static("x-titanium-signature");
/// The header with the time of signing, in seconds since the Unix epoch.
pub const TIMESTAMP: HeaderName = HeaderName::from_static("x-titanium-timestamp");
/// How far the timestamp may lie from our clock, on either side.
pub const WINDOW: Duration = Duration::from_secs(300);
/// Longest body looked at, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// Longest subject or id taken, in bytes.
const MAX_TEXT: usize = 512;

/// The secrets under which a webhook may be signed: one, or two while they change.
#[derive(Default)]
pub struct WebhookSecrets(Vec<hmac::Key>);

impl WebhookSecrets {
    /// From the configuration; none means that the webhook is switched off.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret<String>>) -> Self {
        Self(secrets.into_iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())).collect())
    }

    /// Whether there is none: the webhook is switched off.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for WebhookSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookSecrets({})", self.0.len())
    }
}

/// Verifies that `body`, byte for byte, was signed by whoever has a secret, within [`WINDOW`] of `now`. Gives back
/// when it was signed.
///
/// Not verified: what it says ([`LicenseEvent::parse`]), and that it is not a repetition.
///
/// # Errors
/// `webhook_disabled`, `webhook_missing_signature`, `webhook_bad_timestamp`, `webhook_stale`,
/// `webhook_bad_signature`; in this order, so that a stale one costs no HMAC.
pub fn verify(secrets: &WebhookSecrets, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Timestamp, Denial> {
    if secrets.0.is_empty() {
        return Err(Reason::WebhookDisabled.into());
    }
    let signature = single(headers, &SIGNATURE).map_err(|()| Reason::WebhookBadSignature)?;
    let signature = signature.ok_or(Reason::WebhookMissingSignature)?;
    let stamp = single(headers, &TIMESTAMP).ok().flatten().ok_or(Reason::WebhookBadTimestamp)?;
    let at = parse_stamp(stamp).ok_or(Reason::WebhookBadTimestamp)?;
    if at.since(now) > WINDOW || now.since(at) > WINDOW.saturating_add(Duration::from_millis(999)) {
        return Err(Reason::WebhookStale.into());
    }
    let tag = parse_signature(signature).ok_or(Reason::WebhookBadSignature)?;
    let message = [stamp, b".", body].concat();
    // Each of them, so that the time says nothing about which one it was.
    let fits = secrets.0.iter().fold(false, |fits, key| hmac::verify(key, &message, &tag).is_ok() | fits);
    if fits { Ok(at) } else { Err(Reason::WebhookBadSignature.into()) }
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, ()> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(http::HeaderValue::as_bytes);
    if values.next().is_some() { Err(()) } else { Ok(first) }
}

/// Digits and nothing else.
fn parse_stamp(text: &[u8]) -> Option<Timestamp> {
    let is_number = !text.is_empty() && text.len() <= 15 && text.iter().all(u8::is_ascii_digit);
    let digits = is_number.then(|| std::str::from_utf8(text).ok()).flatten()?;
    digits.parse().ok().map(Timestamp::from_secs)
}

/// `sha256=` and 64 hex digits, in either case.
fn parse_signature(text: &[u8]) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(b"sha256=").filter(|digits| digits.len() == 64)?;
    let mut tag = [0; 32];
    for (byte, pair) in tag.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(tag)
}

/// What a webhook says: `{subject, license_status, license_id?, id?, seq?}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LicenseEvent {
    /// Whose license, by the provider's name of the holder.
    pub subject: String,
    /// What it is now.
    pub state: LicenseState,
    /// The license; one that is missing leaves the known one as it is.
    pub license_id: Option<String>,
    /// Name of the event, for telling repetitions.
    pub id: Option<String>,
    /// Number of the event, for telling older ones.
    pub seq: Option<i64>,
}

impl LicenseEvent {
    /// Reads a verified body. Members that it does not know are left alone; a member that is there twice is refused.
    ///
    /// # Errors
    /// `webhook_bad_payload` with the member's name as a note.
    pub fn parse(body: &[u8]) -> Result<Self, Denial> {
        let bad = |what: &str| Denial::from(Reason::WebhookBadPayload).with_note(what);
        if body.len() > MAX_BODY {
            return Err(bad("longer than 64 KiB"));
        }
        let StrictValue(value) = serde_json::from_slice(body).map_err(|_| bad("not one JSON object"))?;
        let Value::Object(members) = value else { return Err(bad("not one JSON object")) };
        let text = |name: &'static str| match members.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if !text.is_empty() && text.len() <= MAX_TEXT => Ok(Some(text.clone())),
            Some(_) => Err(bad(name)),
        };
        let status = text("license_status")?.ok_or_else(|| bad("license_status"))?;
        let seq = match members.get("seq") {
            None | Some(Value::Null) => None,
            Some(number) => Some(number.as_i64().filter(|seq| *seq >= 0).ok_or_else(|| bad("seq"))?),
        };
        Ok(Self {
            subject: text("subject")?.ok_or_else(|| bad("subject"))?,
            state: parse_status(&status).ok_or_else(|| bad("license_status"))?,
            license_id: text("license_id")?,
            id: text("id")?,
            seq,
        })
    }
}

/// A status word of a license server, in any case. `EXPIRING` and `INACTIVE` are shown for licenses that can be used.
pub fn parse_status(word: &str) -> Option<LicenseState> {
    Some(match word.to_ascii_uppercase().as_str() {
        "ACTIVE" | "VALID" | "EXPIRING" | "INACTIVE" => LicenseState::Active,
        "EXPIRED" => LicenseState::Expired,
        "SUSPENDED" => LicenseState::Suspended,
        "BANNED" => LicenseState::Banned,
        "NONE" => LicenseState::None,
        "INVALID" => LicenseState::Invalid,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(body: &str) -> Result<LicenseEvent, String> {
        LicenseEvent::parse(body.as_bytes()).map_err(|denial| {
            assert_eq!(denial.reason, Reason::WebhookBadPayload);
            denial.detail().unwrap().note.clone().unwrap()
        })
    }

    #[test]
    fn an_event_says_whose_license_became_what() {
        let body = r#"{"subject":"u1","license_status":"Suspended","license_id":null,"id":"e1","seq":7,"more":{}}"#;
        let wanted = LicenseEvent {
            subject: "u1".into(),
            state: LicenseState::Suspended,
            license_id: None,
            id: Some("e1".into()),
            seq: Some(7),
        };
        assert_eq!(event(body), Ok(wanted));
    }

    #[test]
    fn a_payload_that_cannot_be_read_is_refused_with_the_name_of_the_member() {
        for (body, named) in [
            ("", "not one JSON object"),
            ("[]", "not one JSON object"),
            (r#"{"subject":"a","subject":"b","license_status":"ACTIVE"}"#, "not one JSON object"),
            (r#"{"license_status":"ACTIVE"}"#, "subject"),
            (r#"{"subject":"","license_status":"ACTIVE"}"#, "subject"),
            (r#"{"subject":7,"license_status":"ACTIVE"}"#, "subject"),
            (r#"{"subject":"a"}"#, "license_status"),
            (r#"{"subject":"a","license_status":"FANCY"}"#, "license_status"),
            (r#"{"subject":"a","license_status":"ACTIVE","license_id":[]}"#, "license_id"),
            (r#"{"subject":"a","license_status":"ACTIVE","id":7}"#, "id"),
            (r#"{"subject":"a","license_status":"ACTIVE","seq":-1}"#, "seq"),
            (r#"{"subject":"a","license_status":"ACTIVE","seq":1.5}"#, "seq"),
        ] {
            assert_eq!(event(body), Err(named.to_owned()), "{body}");
        }
    }
}
