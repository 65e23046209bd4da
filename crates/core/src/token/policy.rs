//! What an issuer's tokens must look like.

use std::time::Duration;

use crate::{jose::AlgorithmSet, time::Timestamp};

/// A second name of an issuer, for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerAlias {
    /// `iss` under that name.
    pub issuer: String,
    /// From when on it is no longer accepted.
    pub until: Timestamp,
}

/// The rules for tokens of one issuer. Nothing is accepted that is not named here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPolicy {
    /// `iss`, compared byte by byte (RFC 8725 §3.8).
    pub issuer: String,
    /// Other names of the issuer, each until a date.
    pub aliases: Vec<IssuerAlias>,
    /// One of these must be in `aud`. An empty list accepts no token.
    pub audiences: Vec<String>,
    /// Algorithms that may be used. An empty set accepts no token.
    pub algorithms: AlgorithmSet,
    /// Claims that must be there, besides `iss`, `sub`, `aud` and `exp`.
    pub required_claims: Vec<String>,
    /// How far the issuer's clock may be off, for `exp`, `nbf`, `iat` and `max_token_age`.
    pub clock_tolerance: Duration,
    /// How old a token may be by its `iat`, whatever its `exp` says; makes `iat` required.
    pub max_token_age: Option<Duration>,
    /// The `typ` that tokens must have. Without it, none, `JWT` and `at+jwt` are accepted.
    pub kind: Option<String>,
}

impl TokenPolicy {
    /// Whether `issuer` is this issuer's name at `at`.
    pub fn is_issuer(&self, issuer: &str, at: Timestamp) -> bool {
        issuer == self.issuer || self.aliases.iter().any(|alias| alias.issuer == issuer && at < alias.until)
    }
}
