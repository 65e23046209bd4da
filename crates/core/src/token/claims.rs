//! Claims of a token, typed.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::{
    jose::{Name, Strict, insert_once},
    time::Timestamp,
};

/// The claims of a JWT (RFC 7519 §4.1), typed; everything not registered stays in `more`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// `aud`, always as a list.
    pub audience: Vec<String>,
    /// `exp`.
    pub expires_at: Option<Timestamp>,
    /// `nbf`.
    pub not_before: Option<Timestamp>,
    /// `iat`.
    pub issued_at: Option<Timestamp>,
    /// `jti`.
    pub id: Option<String>,
    /// `scope` (RFC 8693 §4.2), split at spaces.
    pub scopes: Vec<String>,
    /// All other members, as they came.
    pub more: Map<String, Value>,
}

impl Claims {
    /// Whether the claim `name` is there and not null. Registered claims count by their registered name.
    pub fn has(&self, name: &str) -> bool {
        match name {
            "iss" => self.issuer.is_some(),
            "sub" => self.subject.is_some(),
            "aud" => !self.audience.is_empty(),
            "exp" => self.expires_at.is_some(),
            "nbf" => self.not_before.is_some(),
            "iat" => self.issued_at.is_some(),
            "jti" => self.id.is_some(),
            "scope" => !self.scopes.is_empty(),
            _ => self.more.get(name).is_some_and(|value| !value.is_null()),
        }
    }
}

/// The registered claims, as places in [`Wrong`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registered {
    Iss,
    Sub,
    Aud,
    Exp,
    Nbf,
    Iat,
    Jti,
    Scope,
}

/// Which registered claims were there with a wrong type or an impossible value. They read as absent in
/// [`Claims`]; the check of the claim refuses the token for it, after the signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wrong(u8);

impl Wrong {
    pub(super) fn contains(self, claim: Registered) -> bool {
        self.0 & 1 << claim as u8 != 0
    }

    fn add(&mut self, claim: Registered) {
        self.0 |= 1 << claim as u8;
    }
}

/// Claims as they were found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) claims: Claims,
    pub(super) wrong: Wrong,
    /// Whether there was an `aud`; an empty list in [`Claims`] does not say.
    pub(super) has_audience: bool,
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FoundVisitor)
    }
}

struct FoundVisitor;

impl<'de> Visitor<'de> for FoundVisitor {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a claims object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut claims = Claims::default();
        let mut wrong = Wrong::default();
        let mut seen = Wrong::default();
        while let Some(Name(name)) = map.next_key()? {
            let claim = match &*name {
                "iss" => Registered::Iss,
                "sub" => Registered::Sub,
                "aud" => Registered::Aud,
                "exp" => Registered::Exp,
                "nbf" => Registered::Nbf,
                "iat" => Registered::Iat,
                "jti" => Registered::Jti,
                "scope" => Registered::Scope,
                _ => {
                    let value = map.next_value_seed(Strict::MEMBER)?;
                    insert_once(&mut claims.more, Cow::into_owned(name), value)?;
                    continue;
                }
            };
            if seen.contains(claim) {
                return Err(A::Error::custom("a name appears twice"));
            }
            seen.add(claim);
            let value = map.next_value_seed(Strict::MEMBER)?;
            if !claims.put(claim, value) {
                wrong.add(claim);
            }
        }
        Ok(Found { claims, wrong, has_audience: seen.contains(Registered::Aud) })
    }
}

impl Claims {
    /// Whether `value` could be what `claim` is.
    fn put(&mut self, claim: Registered, value: Value) -> bool {
        match (claim, value) {
            (Registered::Iss, Value::String(text)) => put(&mut self.issuer, Some(text)),
            (Registered::Sub, Value::String(text)) => put(&mut self.subject, is_subject(&text).then_some(text)),
            (Registered::Jti, Value::String(text)) => put(&mut self.id, Some(text)),
            (Registered::Exp, Value::Number(number)) => put(&mut self.expires_at, numeric_date(&number)),
            (Registered::Nbf, Value::Number(number)) => put(&mut self.not_before, numeric_date(&number)),
            (Registered::Iat, Value::Number(number)) => put(&mut self.issued_at, numeric_date(&number)),
            (Registered::Aud, value) => put_list(&mut self.audience, strings(value)),
            // A string by RFC 8693 §4.2; some issuers write an array.
            (Registered::Scope, Value::String(text)) => {
                self.scopes = text.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
                true
            }
            (Registered::Scope, value @ Value::Array(_)) => put_list(&mut self.scopes, strings(value)),
            _ => false,
        }
    }
}

fn put<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    *place = value;
    place.is_some()
}

fn put_list(place: &mut Vec<String>, value: Option<Vec<String>>) -> bool {
    value.is_some_and(|list| {
        *place = list;
        true
    })
}

/// A string, or an array of nothing but strings (RFC 7519 §4.1.3).
fn strings(value: Value) -> Option<Vec<String>> {
    let text = |value| match value {
        Value::String(text) => Some(text),
        _ => None,
    };
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(items) => items.into_iter().map(text).collect(),
        _ => None,
    }
}

/// A subject goes into headers, logs and identities: not empty, bounded, no control characters.
fn is_subject(text: &str) -> bool {
    (1..=1024).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// A NumericDate (RFC 7519 §2), fractions included. Beyond the year 9999 it is no date but a mistake,
/// such as milliseconds.
fn numeric_date(number: &Number) -> Option<Timestamp> {
    const LAST: i64 = 253_402_300_799;
    if let Some(secs) = number.as_i64() {
        return (-LAST..=LAST).contains(&secs).then(|| Timestamp::from_secs(secs));
    }
    let secs = number.as_f64()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "bounded on the line above")]
    (secs.abs() <= LAST as f64).then(|| Timestamp::from_millis((secs * 1000.0).floor() as i64))
}
