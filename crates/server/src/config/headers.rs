//! `[headers]`: what our own answers say besides.

use super::{
    key::settings,
    read::Reader,
    scalar::{Scalar, scalar_field, shown},
};

settings! {
    /// Security headers of Doorward's own answers. All but this one are always there; an app's answers are its own
    /// business unless `apps.NAME.harden` says otherwise.
    pub struct Headers {
        /// `Strict-Transport-Security`, sent over https only. Browsers keep it for as long as it says, so begin
        /// with a short `max-age`.
        hsts: Hsts = optional "max-age=31536000; includeSubDomains";
    }
}

scalar_field!(Hsts);

/// A `Strict-Transport-Security` value in its usual spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hsts(String);

impl Hsts {
    /// The value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A year; the preload list takes nothing shorter.
const YEAR: u64 = 31_536_000;

impl Scalar for Hsts {
    const TYPE: &'static str = "HSTS policy";
    const HINT: &'static str = "`max-age=SECONDS`, with `; includeSubDomains` and `; preload` where wanted";
    /// RFC 6797 §6.1: `max-age` once, each directive at most once. Others are refused: a browser skips what it does
    /// not know, so a typing mistake would never be seen.
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let (mut max_age, mut with_subdomains, mut is_preload) = (None, false, false);
        for directive in text.split(';').map(str::trim) {
            let (name, value) = match directive.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim())),
                None => (directive, None),
            };
            let is_new = match (name.to_ascii_lowercase().as_str(), value) {
                ("max-age", Some(digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                    let seconds: u64 = digits.parse().map_err(|_| "`max-age` is no number of seconds".to_owned())?;
                    max_age.replace(seconds).is_none()
                }
                ("includesubdomains", None) => !std::mem::replace(&mut with_subdomains, true),
                ("preload", None) => !std::mem::replace(&mut is_preload, true),
                _ => return Err(format!("`{}` is no directive of it", shown(directive))),
            };
            if !is_new {
                return Err(format!("`{}` stands twice", shown(name)));
            }
        }
        let max_age = max_age.ok_or("`max-age` is missing")?;
        if is_preload && !(with_subdomains && max_age >= YEAR) {
            return Err(format!("`preload` needs `includeSubDomains` and a `max-age` of {YEAR} or more"));
        }
        let subdomains = if with_subdomains { "; includeSubDomains" } else { "" };
        let preload = if is_preload { "; preload" } else { "" };
        Ok(Self(format!("max-age={max_age}{subdomains}{preload}")))
    }
}
