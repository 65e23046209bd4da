//! Signed answers and webhooks (draft-cavage-http-signatures, as Keygen writes it).

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName};
use jiff::fmt::rfc2822;

use super::{AccountKeys, Algorithm, Problem, decode_standard};
use crate::time::Timestamp;

const SIGNATURE: HeaderName = HeaderName::from_static("keygen-signature");
/// Copies that proxies leave alone; Cloudflare and ALB write a `Date` of their own.
const KEYGEN_DATE: HeaderName = HeaderName::from_static("keygen-date");
const KEYGEN_DIGEST: HeaderName = HeaderName::from_static("keygen-digest");
const DIGEST: HeaderName = HeaderName::from_static("digest");
/// What Keygen always signs, in its order.
const SIGNED: &str = "(request-target) host date digest";
/// Longest signature header looked at, in bytes; the longest of Keygen's has about 500.
const MAX_HEADER: usize = 2048;

/// An answer or a webhook with what its signature covers.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Method of the request; of the question, where this is an answer.
    pub method: &'a str,
    /// Path and query exactly as sent. Behind a proxy that rewrites paths: those of the public URL.
    pub target: &'a str,
    /// Host of the URL, without port.
    pub host: &'a str,
    /// Headers of the answer or the webhook.
    pub headers: &'a HeaderMap,
    /// Body, byte for byte.
    pub body: &'a [u8],
}

/// A message that was signed by the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// When it was signed, by the server's clock; whole seconds.
    pub at: Timestamp,
    /// With what.
    pub algorithm: Algorithm,
}

/// Verifies that `message` was signed by the key of `account` within `window` of `now`, on either side.
///
/// Not verified: that it is the answer to *this* question (compare the nonce), and that it is not a repetition
/// within the window (compare the idempotency token).
///
/// # Errors
/// [`Problem`]; [`Problem::Stale`] only for a signature that fits.
pub fn verify_message(
    message: &Message<'_>,
    keys: &AccountKeys,
    account: &str,
    window: Duration,
    now: Timestamp,
) -> Result<Signed, Problem> {
    let header = one(message.headers, &SIGNATURE, "Keygen-Signature")?.ok_or(Problem::Unsigned)?;
    let parameters = Parameters::parse(header)?;
    if parameters.signature.is_empty() {
        return Err(Problem::EmptySignature);
    }
    let algorithm = Algorithm::parse(parameters.algorithm).ok_or(Problem::AlgorithmNotAllowed)?;
    if parameters.headers != SIGNED {
        return Err(Problem::Malformed("the list of signed headers"));
    }
    let date = either(message.headers, [&KEYGEN_DATE, &http::header::DATE], "Date")?;
    let declared = either(message.headers, [&KEYGEN_DIGEST, &DIGEST], "Digest")?;
    let signature = decode_standard(parameters.signature).ok_or(Problem::Malformed("the signature"))?;
    if declared != format!("sha-256={}", STANDARD.encode(digest(&SHA256, message.body))) {
        return Err(Problem::BadDigest);
    }
    let target = if message.target.is_empty() { "/" } else { message.target };
    let text = format!(
        "(request-target): {} {target}\nhost: {}\ndate: {date}\ndigest: {declared}",
        message.method.to_ascii_lowercase(),
        message.host,
    );
    // First whose it says that it is: another account's message is no forgery.
    if parameters.key_id != account {
        return Err(Problem::OtherAccount);
    }
    keys.verify(algorithm, text.as_bytes(), &signature)?;
    let at = parse_date(date).ok_or(Problem::Malformed("Date"))?;
    if at.since(now) > window || now.since(at) > window {
        return Err(Problem::Stale);
    }
    Ok(Signed { at, algorithm })
}

/// When a message says that it was signed; nothing of it is verified. For telling people how far two clocks are apart.
pub fn claimed_date(headers: &HeaderMap) -> Option<Timestamp> {
    parse_date(either(headers, [&KEYGEN_DATE, &http::header::DATE], "Date").ok()?)
}

/// `Thu, 09 Feb 2023 21:20:13 GMT` (RFC 9110 §5.6.7, the preferred form alone).
fn parse_date(text: &str) -> Option<Timestamp> {
    let at = rfc2822::DateTimeParser::new().parse_timestamp(text.strip_suffix(" GMT").map(|_| text)?).ok()?;
    Some(Timestamp::from_secs(at.as_second()))
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName, what: &'static str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() || value.len() > MAX_HEADER {
        return Err(Problem::Malformed(what));
    }
    value.to_str().map(Some).map_err(|_| Problem::Malformed(what))
}

/// The first of two headers that is there.
fn either<'a>(headers: &'a HeaderMap, names: [&HeaderName; 2], what: &'static str) -> Result<&'a str, Problem> {
    for name in names {
        if let Some(value) = one(headers, name, what)? {
            return Ok(value);
        }
    }
    Err(Problem::Malformed(what))
}

/// `keyid="…", algorithm="…", signature="…", headers="…"`.
struct Parameters<'a> {
    key_id: &'a str,
    algorithm: &'a str,
    signature: &'a str,
    headers: &'a str,
}

impl<'a> Parameters<'a> {
    fn parse(header: &'a str) -> Result<Self, Problem> {
        let malformed = Problem::Malformed("Keygen-Signature");
        let [mut key_id, mut algorithm, mut signature, mut headers] = [None; 4];
        for part in header.split(',') {
            let (name, value) = part.trim().split_once('=').ok_or_else(|| malformed.clone())?;
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            let slot = match name {
                "keyid" => &mut key_id,
                "algorithm" => &mut algorithm,
                "signature" => &mut signature,
                "headers" => &mut headers,
                _ => return Err(malformed),
            };
            let value = value.filter(|value| !value.contains('"')).ok_or_else(|| malformed.clone())?;
            if slot.replace(value).is_some() {
                return Err(malformed);
            }
        }
        match (key_id, algorithm, signature, headers) {
            (Some(key_id), Some(algorithm), Some(signature), Some(headers)) => {
                Ok(Self { key_id, algorithm, signature, headers })
            }
            _ => Err(malformed),
        }
    }
}
