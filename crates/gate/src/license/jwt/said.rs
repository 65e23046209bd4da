//! What a hub's answer says.

use std::{collections::BTreeSet, sync::Arc};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use doorward_core::{
    decision::Denial,
    keygen::{Validation, parse_time},
    license::{LicenseState, Observation},
    reason::Reason,
    time::Timestamp,
    token::Claims,
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    issuer::VerifiedToken,
    license::{
        provider::{FaultKind, ProviderFault},
        trouble::Trouble,
    },
};

/// Most entitlements that are read of a token.
const MAX_ENTITLEMENTS: usize = 1000;

/// The body of an answer.
pub(super) enum Answer {
    /// A license JWT, of which nothing is proven yet.
    Token(String),
    /// No: that needs no token.
    Refused(Observation),
}

impl Answer {
    /// # Errors
    /// What says yes without a token, and what says nothing.
    pub(super) fn read(json: &str) -> Result<Self, Trouble> {
        #[derive(Deserialize)]
        struct Body {
            meta: Meta,
        }
        #[derive(Deserialize)]
        struct Meta {
            token: Option<String>,
        }
        let body: Body = serde_json::from_str(json).map_err(|_| Trouble::Shape("`meta`"))?;
        if let Some(token) = body.meta.token {
            return Ok(Self::Token(token));
        }
        let validation = Validation::read(json).map_err(Trouble::shape)?;
        if validation.is_valid {
            return Err(Trouble::Shape("`meta.token`"));
        }
        Ok(Self::Refused(validation.observe()))
    }
}

/// What a license JWT says whose signature fits.
pub(super) enum Said {
    Good(Arc<VerifiedToken>, LicenseState, Option<Timestamp>),
    /// The token is over, and with it the license that it speaks of, since then: a hub that is asked now and has nothing
    /// newer to say would not answer with a token that has ended (B52).
    Expired(Option<Timestamp>),
    /// It is for something else.
    Other,
}

impl Said {
    /// # Errors
    /// What proves nothing about a license: a token that cannot be verified, that is of another issuer, whose word for
    /// its status is unknown here, or whose `end_claim` is no time.
    pub(super) fn read(
        token: &str,
        verdict: Result<Arc<VerifiedToken>, Denial>,
        issuer: &str,
        product: Option<&str>,
        end_claim: &str,
    ) -> Result<Self, ProviderFault> {
        let verified = match verdict {
            Ok(verified) => verified,
            Err(denial) => {
                return match denial.reason {
                    // The signature was found to fit before any claim was looked at.
                    Reason::TokenExpired => Ok(Self::Expired(end_of_ended(token, end_claim))),
                    Reason::TokenWrongAudience | Reason::TokenMissingClaim | Reason::TokenInvalidClaim => {
                        Ok(Self::Other)
                    }
                    reason => {
                        let kind = match reason {
                            Reason::KeysUnavailable => FaultKind::Unavailable,
                            _ => FaultKind::Untrusted,
                        };
                        Err(ProviderFault::new(kind, format!("the license JWT is not believed: {}", reason.code())))
                    }
                };
            }
        };
        if *verified.issuer != *issuer {
            let note = format!("the license JWT is of the issuer {:?}, not of {issuer:?}", verified.issuer);
            return Err(ProviderFault::new(FaultKind::Untrusted, note));
        }
        if product.is_some_and(|product| !verified.claims.audience.iter().any(|audience| audience == product)) {
            return Ok(Self::Other);
        }
        let state = state(&verified.claims).ok_or(Trouble::Shape("the status in the license JWT"))?;
        let end =
            stated_end(&verified.claims, end_claim).ok_or(Trouble::Shape("the license's end in the license JWT"))?;
        Ok(Self::Good(verified, state, end))
    }

    /// `subject`: whom the license must be about, `Some(None)` where nobody knows; `None` where it may be about anybody.
    pub(super) fn observe(self, subject: Option<Option<&str>>, now: Timestamp) -> Observation {
        let bare = |state, expires_at, observed_at| Observation {
            state,
            license_id: None,
            expires_at,
            entitlements: BTreeSet::new(),
            observed_at,
        };
        match self {
            Self::Expired(end) => bare(LicenseState::Expired, end, now),
            Self::Other => bare(LicenseState::Invalid, None, now),
            Self::Good(token, state, end) => {
                let claims = &token.claims;
                let observed_at = claims.issued_at.unwrap_or(now);
                let is_theirs = subject.is_none_or(|subject| subject.is_some() && subject == claims.subject.as_deref());
                if !is_theirs {
                    return bare(LicenseState::Invalid, None, observed_at);
                }
                let entitlements = entitlements(claims);
                Observation { entitlements, ..bare(state, end, observed_at) }
            }
        }
    }
}

/// The state that a token claims; none claimed means active (B52). `None`: a word that is unknown here.
fn state(claims: &Claims) -> Option<LicenseState> {
    if claims.more.raw("status").is_none() {
        return Some(LicenseState::Active);
    }
    let word = claims.more.str("status")?;
    match word.to_ascii_lowercase().as_str() {
        "active" | "valid" | "expiring" | "inactive" => Some(LicenseState::Active),
        "expired" => Some(LicenseState::Expired),
        "suspended" => Some(LicenseState::Suspended),
        "banned" => Some(LicenseState::Banned),
        "none" => Some(LicenseState::None),
        "invalid" => Some(LicenseState::Invalid),
        _ => None,
    }
}

fn entitlements(claims: &Claims) -> BTreeSet<String> {
    let listed = claims.more.raw("entitlements").and_then(|raw| serde_json::from_str::<Vec<String>>(raw).ok());
    listed.unwrap_or_default().into_iter().take(MAX_ENTITLEMENTS).collect()
}

/// The end that the license states in its claim `name`; `None`: something that is no time.
fn stated_end(claims: &Claims, name: &str) -> Option<Option<Timestamp>> {
    if name == "exp" {
        return Some(claims.expires_at);
    }
    let Some(raw) = claims.more.raw(name) else { return Some(None) };
    moment(&serde_json::from_str(raw).ok()?)
}

/// Seconds since the Unix epoch, as in any claim of a token (RFC 7519 §2), or RFC 3339; null is "no end".
pub(super) fn moment(value: &Value) -> Option<Option<Timestamp>> {
    /// The year 9999: what lies beyond is a number in other units.
    const MOST: f64 = 253_402_300_799.0;
    match value {
        Value::Null => Some(None),
        Value::String(text) => parse_time(text).map(Some),
        Value::Number(number) => {
            let secs = number.as_f64().filter(|secs| (0.0..=MOST).contains(secs))?;
            Some(Some(Timestamp::from_millis((secs * 1000.0) as i64)))
        }
        _ => None,
    }
}

/// When the license ended that a token spoke of which has ended itself, and whose signature is known to fit: as it
/// states, but not after the token's own end.
fn end_of_ended(token: &str, name: &str) -> Option<Timestamp> {
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let ended = moment(claims.get("exp")?)??;
    let stated = claims.get(name).and_then(moment).flatten();
    Some(stated.map_or(ended, |end| end.min(ended)))
}
