//! From bytes to a proof.

use std::time::Duration;

use super::{
    claims::{Claims, Found, Registered, Wrong},
    policy::TokenPolicy,
};
use crate::{
    decision::Denial,
    jose::{Algorithm, Compact, HeaderAlgorithm, PublicKey, Type},
    reason::Reason,
    time::{Now, Timestamp},
};

/// A well-formed token of which nothing is proven.
#[derive(Debug)]
pub struct Unverified<'a> {
    jws: Compact<'a>,
    found: Found,
}

/// Proof that `T` was verified; only the checks of this crate make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// What was verified.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// What was verified, without the proof.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Takes a token apart: a strict compact JWS whose payload is a JSON object without duplicate names.
///
/// Not verified: anything.
///
/// # Errors
/// `token_malformed`.
pub fn parse(token: &str) -> Result<Unverified<'_>, Denial> {
    let mut jws = Compact::parse(token)?;
    let found = Found::parse(jws.take_payload()?)?;
    Ok(Unverified { jws, found })
}

impl Unverified<'_> {
    /// The algorithm that the header names.
    ///
    /// # Errors
    /// `token_alg_not_allowed` for `none`, HMAC and everything unknown.
    pub fn algorithm(&self) -> Result<Algorithm, Denial> {
        match self.jws.header().algorithm {
            HeaderAlgorithm::Signature(algorithm) => Ok(algorithm),
            HeaderAlgorithm::Hs256 | HeaderAlgorithm::Other => Err(Reason::TokenAlgNotAllowed.into()),
        }
    }

    /// The key that the header names.
    pub fn key_id(&self) -> Option<&str> {
        self.jws.header().key_id.as_deref()
    }

    /// `typ` of the header.
    pub fn kind(&self) -> &Type {
        &self.jws.header().kind
    }

    /// Whether the token's type is one that `policy` admits; [`verify`] asks again. Asked before keys are
    /// looked for, it saves the fetch that a token of another kind would cause.
    ///
    /// # Errors
    /// `token_wrong_type`.
    pub fn check_kind(&self, policy: &TokenPolicy) -> Result<(), Denial> {
        check_kind(self.kind(), policy)
    }

    /// The issuer that the token claims to be from; good for choosing whose keys to verify with.
    pub fn claimed_issuer(&self) -> Option<&str> {
        self.found.claims.issuer.as_deref()
    }

    /// When the token claims to have been issued.
    pub fn claimed_issued_at(&self) -> Option<Timestamp> {
        self.found.claims.issued_at
    }

    /// Why the token names no issuer that could be chosen: `token_wrong_issuer` for a wrong type,
    /// `token_missing_claim` where there is none, else nothing.
    pub fn issuer_problem(&self) -> Option<Denial> {
        check_issuer_is_there(&self.found).err()
    }
}

/// Verifies a token: the algorithm fits key and policy, the signature is the key's, then type and claims.
///
/// `iss`, `sub`, `aud` and `exp` are required whatever the policy says. Not verified here: whether `key` is the
/// key that the token names and its issuer publishes, and whether the token was revoked.
///
/// # Errors
/// In this order: `token_key_mismatch`, `token_alg_not_allowed`, `token_bad_signature`, `token_wrong_type`,
/// `token_wrong_issuer` or `token_missing_claim`, `token_wrong_audience` or `token_missing_claim`,
/// `token_invalid_claim`, `token_expired`, `token_not_yet_valid`, `token_missing_claim`.
pub fn verify(
    token: Unverified<'_>,
    key: &PublicKey,
    policy: &TokenPolicy,
    now: Now,
) -> Result<Verified<Claims>, Denial> {
    let algorithm = token.algorithm()?;
    if !key.algorithms().contains(algorithm) {
        return Err(Reason::TokenKeyMismatch.into());
    }
    if !policy.algorithms.contains(algorithm) {
        return Err(Reason::TokenAlgNotAllowed.into());
    }
    if !key.is_signature(algorithm, token.jws.signing_input(), token.jws.signature()) {
        return Err(Reason::TokenBadSignature.into());
    }
    check_kind(&token.jws.header().kind, policy)?;
    check_issuer(&token.found, policy, now)?;
    check_audience(&token.found, policy)?;
    check_times(&token.found, policy.clock_tolerance, policy.max_token_age, now)?;
    check_subject(&token.found)?;
    check_rest(&token.found, policy)?;
    Ok(Verified(token.found.claims))
}

/// The claims of a token that we minted ourselves and whose signature fits.
pub(crate) fn verify_own_claims(mut jws: Compact<'_>, now: Now) -> Result<Verified<Claims>, Denial> {
    let found = Found::parse(jws.take_payload()?)?;
    check_times(&found, Duration::ZERO, None, now)?;
    if found.wrong != Wrong::default() {
        return Err(Reason::TokenInvalidClaim.into());
    }
    Ok(Verified(found.claims))
}

/// RFC 8725 §3.11: a token of another kind is none of this one.
fn check_kind(kind: &Type, policy: &TokenPolicy) -> Result<(), Denial> {
    let fits = match (&policy.kind, kind) {
        (Some(expected), kind) => kind.is(expected),
        (None, Type::Absent) => true,
        (None, kind) => kind.is("JWT") || kind.is("at+jwt"),
    };
    if fits {
        return Ok(());
    }
    let expected = policy.kind.as_deref().unwrap_or("none, JWT or at+jwt");
    Err(Denial::from(Reason::TokenWrongType).with_note(format!("`typ` must be {expected}; set `typ` of the issuer")))
}

fn check_issuer_is_there(found: &Found) -> Result<&str, Denial> {
    if found.wrong.contains(Registered::Iss) {
        return Err(Reason::TokenWrongIssuer.into());
    }
    found.claims.issuer.as_deref().ok_or_else(|| missing("iss"))
}

fn check_issuer(found: &Found, policy: &TokenPolicy, now: Now) -> Result<(), Denial> {
    let issuer = check_issuer_is_there(found)?;
    if policy.is_issuer(issuer, now.wall) { Ok(()) } else { Err(Reason::TokenWrongIssuer.into()) }
}

fn check_audience(found: &Found, policy: &TokenPolicy) -> Result<(), Denial> {
    if found.wrong.contains(Registered::Aud) {
        return Err(Reason::TokenWrongAudience.into());
    }
    let audience = &found.claims.audience;
    if !found.has_audience {
        return Err(missing("aud"));
    }
    if audience.iter().any(|one| !one.is_empty() && policy.audiences.contains(one)) {
        return Ok(());
    }
    Err(Reason::TokenWrongAudience.into())
}

fn check_times(found: &Found, tolerance: Duration, max_age: Option<Duration>, now: Now) -> Result<(), Denial> {
    for (claim, name) in [(Registered::Exp, "exp"), (Registered::Nbf, "nbf"), (Registered::Iat, "iat")] {
        if found.wrong.contains(claim) {
            return Err(invalid(name));
        }
    }
    let Claims { expires_at, not_before, issued_at, .. } = &found.claims;
    let expires_at = expires_at.ok_or_else(|| missing("exp"))?;
    // "On or after" `exp` is too late (RFC 7519 §4.1.4).
    if now.wall >= expires_at.plus(tolerance) {
        return Err(Reason::TokenExpired.into());
    }
    let latest = now.wall.plus(tolerance);
    if not_before.is_some_and(|not_before| not_before > latest) || issued_at.is_some_and(|issued| issued > latest) {
        return Err(Reason::TokenNotYetValid.into());
    }
    // A token that ends before it begins was never meant to be used.
    if not_before.is_some_and(|begin| begin > expires_at) || issued_at.is_some_and(|issued| issued > expires_at) {
        return Err(invalid("exp"));
    }
    if let Some(max_age) = max_age {
        let issued_at = issued_at.ok_or_else(|| missing("iat"))?;
        if now.wall >= issued_at.plus(max_age).plus(tolerance) {
            return Err(Denial::from(Reason::TokenExpired).with_note("older than `max_token_age`"));
        }
    }
    Ok(())
}

fn check_subject(found: &Found) -> Result<(), Denial> {
    if found.wrong.contains(Registered::Sub) {
        return Err(invalid("sub"));
    }
    found.claims.subject.as_ref().map(|_| ()).ok_or_else(|| missing("sub"))
}

fn check_rest(found: &Found, policy: &TokenPolicy) -> Result<(), Denial> {
    for (claim, name) in [(Registered::Jti, "jti"), (Registered::Scope, "scope")] {
        if found.wrong.contains(claim) {
            return Err(invalid(name));
        }
    }
    match policy.required_claims.iter().find(|name| !found.claims.has(name)) {
        Some(name) => Err(missing(name)),
        None => Ok(()),
    }
}

fn missing(name: &str) -> Denial {
    Denial::from(Reason::TokenMissingClaim).with_required(name)
}

fn invalid(name: &str) -> Denial {
    Denial::from(Reason::TokenInvalidClaim).with_required(name)
}
