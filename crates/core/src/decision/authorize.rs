//! The second step: may this principal do this?

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::{Denial, Grant, Permitted};
use crate::{
    license::{self, Licensed},
    principal::{Authenticated, Principal},
    reason::Reason,
    rule::{Access, OnStale, Rule},
    time::Timestamp,
    token::Claims,
};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// The rule that the request met.
    pub rule: &'a Rule,
    /// How old a sign-in may be where the rule asks for a recent one.
    pub recent_auth: Duration,
    /// Whether the request only reads; see [`license::check`].
    pub reads: bool,
}

impl Action<'_> {
    /// Whether a request with this method only reads. An upgrade, to a WebSocket or anything else, does not, whatever its
    /// method: what goes through the connection then may change anything.
    pub fn is_read(method: &http::Method, is_upgrade: bool) -> bool {
        !is_upgrade && matches!(*method, http::Method::GET | http::Method::HEAD | http::Method::OPTIONS)
    }
}

/// Whether the revocation state is recent enough to rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Read within the stated bound.
    Fresh,
    /// Older; the rule's `on_stale` decides.
    Stale,
}

/// The state that a decision is taken against.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// Age of the revocation state.
    pub freshness: Freshness,
    /// Why the principal's credential or subject is revoked, if it is.
    pub revoked: Option<Reason>,
    /// The license that counts for the principal, where the rule asks for one and it was looked at.
    pub license: Option<&'a Licensed>,
}

/// Admits anybody to a public rule.
///
/// # Errors
/// `no_credential` if the rule is not public.
pub fn admit_public(rule: &Rule) -> Result<Grant, Denial> {
    match rule.access {
        Access::Public => Ok(Grant { principal: None, is_stale: false, license: None }),
        Access::Credential(_) => Err(Reason::NoCredential.into()),
    }
}

/// Decides whether `principal` may do `action`, given `snapshot`.
///
/// Not checked here: whether the credential itself is valid (that made the principal), and cross-site
/// protection, which needs the request.
///
/// # Errors
/// `rule_denies` (the rule does not admit this kind of credential), `token_revoked`, `session_revoked`,
/// `user_banned`, `api_key_revoked` (as the snapshot says), `license_blocked`, `shared_unavailable`,
/// `re_auth_required`, `missing_capability`, `missing_scope`, `missing_claim`; and last, so that nobody is asked about
/// a license in vain, those of [`license::check`].
pub fn authorize(
    principal: Arc<Principal>,
    action: &Action<'_>,
    snapshot: &Snapshot<'_>,
    now: Timestamp,
) -> Result<Grant, Denial> {
    let rule = action.rule;
    if let Access::Credential(kinds) = rule.access
        && !kinds.contains(principal.authenticated.kind())
    {
        return Err(Reason::RuleDenies.into());
    }
    // A known revocation counts however old the state is; only its absence needs freshness.
    if let Some(reason) = snapshot.revoked {
        return Err(reason.into());
    }
    let asks_license = license::is_asked(rule);
    if asks_license && snapshot.license.is_some_and(|license| license.is_blocked) {
        return Err(Reason::LicenseBlocked.into());
    }
    let is_stale = snapshot.freshness == Freshness::Stale;
    if is_stale && rule.on_stale == OnStale::Deny {
        return Err(Reason::SharedUnavailable.into());
    }
    if rule.require.recent_auth {
        check_recent(&principal.authenticated, action.recent_auth, now)?;
    }
    check_requirements(&principal.authenticated, rule)?;
    license::check(snapshot.license, rule, action.reads)?;
    let license = snapshot.license.filter(|_| asks_license).cloned();
    Ok(Grant { principal: Some(Permitted(principal)), is_stale, license })
}

/// Only a session can be recent: an access token is no proof that anybody is present (NIST SP 800-63B-4).
fn check_recent(authenticated: &Authenticated, window: Duration, now: Timestamp) -> Result<(), Denial> {
    match authenticated {
        Authenticated::Session { authenticated_at, .. } if now < authenticated_at.plus(window) => Ok(()),
        _ => {
            let seconds = u32::try_from(window.as_secs()).unwrap_or(u32::MAX);
            Err(Denial::from(Reason::ReAuthRequired).with_max_age(seconds))
        }
    }
}

/// A requirement that does not apply to the credential at hand denies: it would otherwise be met by
/// presenting a weaker kind.
fn check_requirements(authenticated: &Authenticated, rule: &Rule) -> Result<(), Denial> {
    let require = &rule.require;
    if let Some(needed) = &require.capability {
        let has = matches!(authenticated, Authenticated::ApiKey { capabilities, .. } if capabilities.contains(needed));
        if !has {
            return Err(Denial::from(Reason::MissingCapability).with_required(needed.as_str()));
        }
    }
    // A token of the old system stands in for a session: what it claims binds nobody here.
    let claims = match authenticated {
        Authenticated::Bearer { claims } => Some(claims.as_ref()),
        Authenticated::Session { .. } | Authenticated::ApiKey { .. } | Authenticated::Legacy { .. } => None,
    };
    for scope in &require.scopes {
        if !claims.is_some_and(|claims| claims.scopes.contains(scope)) {
            return Err(Denial::from(Reason::MissingScope).with_required(scope.as_str()));
        }
    }
    for (name, wanted) in &require.claims {
        if !claims.is_some_and(|claims| claim_holds(claims, name, wanted)) {
            return Err(Denial::from(Reason::MissingClaim).with_required(name.as_str()));
        }
    }
    Ok(())
}

/// Whether the claim equals `wanted`, or is a list that contains it. No coercion: `"1"` is not `1`.
fn claim_holds(claims: &Claims, name: &str, wanted: &Value) -> bool {
    if name == "sub" {
        return claims.subject.as_deref() == wanted.as_str() && claims.subject.is_some();
    }
    // The usual case, without building anything.
    if let (Some(text), Some(wanted)) = (claims.more.str(name), wanted.as_str()) {
        return text == wanted;
    }
    match claims.more.get(name) {
        Some(Value::Array(items)) if !wanted.is_array() => items.contains(wanted),
        Some(value) => value == *wanted,
        None => false,
    }
}
