//! Rules: which requests reach which app, and what they must show.

mod pattern;
mod set;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

pub use pattern::{PathPattern, PatternError};
pub use set::{Outcome, RuleSet, RuleVerdict};

use crate::credential::CredentialSet;

/// What a rule admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody; credentials are not looked at.
    Public,
    /// Holders of one of these kinds of credential.
    Credential(CredentialSet),
}

/// How a rule protects against cross-site requests. Only sessions are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsrfMode {
    /// Not at all.
    Off,
    /// `Sec-Fetch-Site` and `Origin`.
    Origin,
    /// Those, and the `X-CSRF-Token` header (double submit, bound to the session).
    Token,
}

/// What a rule asks of the license.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LicenseMode {
    /// Nothing.
    None,
    /// Active.
    Active,
    /// Active, or in grace and the request only reads.
    ActiveOrGraceRead,
}

/// What happens when the revocation state is too old to rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStale {
    /// Refuse with `shared_unavailable`.
    Deny,
    /// Let through, marked.
    Allow,
}

/// How paths with more than one reading are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathMode {
    /// Refused.
    Strict,
    /// Let through where every reading meets the same rule.
    SameRule,
}

/// What a principal must show besides being admitted. What does not apply to the principal at hand denies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Require {
    /// API keys: this capability.
    pub capability: Option<String>,
    /// Bearers: these scopes, all of them.
    pub scopes: Vec<String>,
    /// Bearers: these claims with these values (a list claim: contains the value).
    pub claims: BTreeMap<String, Value>,
    /// License entitlements, all of them.
    pub entitlements: Vec<String>,
    /// Sessions: authenticated within the `recent_auth` window.
    pub recent_auth: bool,
}

/// One `[[rules]]` entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// For people: `rules[2] /api/*`.
    pub name: Arc<str>,
    /// Host it speaks for, lower case, without port.
    pub host: Arc<str>,
    /// Path pattern.
    pub path: PathPattern,
    /// Methods; empty admits all. `GET` includes `HEAD`.
    pub methods: Vec<http::Method>,
    /// Who is admitted.
    pub access: Access,
    /// Cross-site protection.
    pub csrf: CsrfMode,
    /// License.
    pub license: LicenseMode,
    /// Stale revocation state.
    pub on_stale: OnStale,
    /// Further requirements.
    pub require: Require,
    /// Index of the app in the policy.
    pub app: usize,
    /// How odd paths are met; from the app.
    pub paths: PathMode,
    /// Keep a JWT in `Authorization` for the upstream.
    pub forward_authorization: bool,
}

impl Rule {
    /// A rule with the defaults of the reference: every method, `csrf = "origin"`, `on_stale = "deny"`, strict
    /// paths, no license, nothing further required, the first app. `host` is a name without port.
    ///
    /// # Errors
    /// [`PatternError`] for a path that is no pattern.
    pub fn new(host: &str, path: &str, access: Access) -> Result<Self, PatternError> {
        Ok(Self {
            name: path.into(),
            host: host.to_ascii_lowercase().into(),
            path: PathPattern::parse(path)?,
            methods: Vec::new(),
            access,
            csrf: CsrfMode::Origin,
            license: LicenseMode::None,
            on_stale: OnStale::Deny,
            require: Require::default(),
            app: 0,
            paths: PathMode::Strict,
            forward_authorization: false,
        })
    }
}
