//! Claims of a token, typed.

use std::borrow::Cow;

use super::members::{Collector, Members};
use crate::{
    decision::Denial,
    jose::{Span, malformed, read_object},
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
    pub more: Members,
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
            _ => self.more.raw(name).is_some_and(|value| value != "null"),
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

impl Found {
    /// Reads the payload of a token.
    ///
    /// # Errors
    /// `token_malformed`.
    pub(super) fn parse(payload: String) -> Result<Self, Denial> {
        let mut claims = Claims::default();
        let mut wrong = Wrong::default();
        let mut has_audience = false;
        let mut more = Collector::default();
        read_object(&payload, |member| {
            let claim = match &*member.name {
                "iss" => Registered::Iss,
                "sub" => Registered::Sub,
                "aud" => Registered::Aud,
                "exp" => Registered::Exp,
                "nbf" => Registered::Nbf,
                "iat" => Registered::Iat,
                "jti" => Registered::Jti,
                "scope" => Registered::Scope,
                _ => {
                    more.add(&member);
                    return Ok(());
                }
            };
            has_audience |= claim == Registered::Aud;
            if !claims.put(claim, member.value) {
                wrong.add(claim);
            }
            Ok(())
        })
        .map_err(|problem| malformed(&format!("claims: {problem}")))?;
        claims.more = more.finish(payload);
        Ok(Self { claims, wrong, has_audience })
    }
}

impl Claims {
    /// Whether `value` could be what `claim` is.
    fn put(&mut self, claim: Registered, value: Span<'_>) -> bool {
        let text = || value.string().map(Cow::into_owned);
        let date = || value.number().and_then(numeric_date);
        match claim {
            Registered::Iss => put(&mut self.issuer, text()),
            Registered::Sub => put(&mut self.subject, text().filter(|text| is_subject(text))),
            Registered::Jti => put(&mut self.id, text()),
            Registered::Exp => put(&mut self.expires_at, date()),
            Registered::Nbf => put(&mut self.not_before, date()),
            Registered::Iat => put(&mut self.issued_at, date()),
            // A string, or an array of nothing but strings (RFC 7519 §4.1.3).
            Registered::Aud => put_list(&mut self.audience, text().map(|one| vec![one]).or_else(|| value.strings())),
            // A string by RFC 8693 §4.2; some issuers write an array.
            Registered::Scope => {
                put_list(&mut self.scopes, value.string().map(|text| words(&text)).or_else(|| value.strings()))
            }
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

fn words(text: &str) -> Vec<String> {
    text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A subject goes into headers, logs and identities: not empty, bounded, no control characters.
fn is_subject(text: &str) -> bool {
    (1..=1024).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// A NumericDate (RFC 7519 §2), fractions included. Beyond the year 9999 it is no date but a mistake,
/// such as milliseconds.
fn numeric_date(number: &str) -> Option<Timestamp> {
    const LAST: i64 = 253_402_300_799;
    if let Ok(secs) = number.parse::<i64>() {
        return (-LAST..=LAST).contains(&secs).then(|| Timestamp::from_secs(secs));
    }
    let secs: f64 = number.parse().ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "bounded on the line above")]
    (secs.abs() <= LAST as f64).then(|| Timestamp::from_millis((secs * 1000.0).floor() as i64))
}
