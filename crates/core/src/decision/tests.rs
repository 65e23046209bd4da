use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::json;

use super::*;
use crate::{
    credential::{CredentialKind, CredentialSet},
    id::{ApiKeyId, SessionId, UserId},
    principal::{Authenticated, PrincipalKind, SubjectId},
    rule::{Access, CsrfMode, LicenseMode, OnStale, PathMode, PathPattern, Require, Rule},
    session::SignInMethod,
    token::Claims,
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const WINDOW: Duration = Duration::from_secs(300);

fn rule(kinds: &[CredentialKind], require: Require) -> Rule {
    let kinds = kinds.iter().fold(CredentialSet::NONE, |set, &kind| set.with(kind));
    Rule {
        name: "test".into(),
        host: "app.example".into(),
        path: PathPattern::parse("/*").unwrap(),
        methods: Vec::new(),
        access: Access::Credential(kinds),
        csrf: CsrfMode::Off,
        license: LicenseMode::None,
        on_stale: OnStale::Deny,
        require,
        app: 0,
        paths: PathMode::Strict,
        forward_authorization: false,
    }
}

const ALL: &[CredentialKind] = &[CredentialKind::Session, CredentialKind::ApiKey, CredentialKind::Bearer];

fn caller(authenticated: Authenticated) -> Arc<Principal> {
    Arc::new(Principal {
        kind: PrincipalKind::User,
        subject: SubjectId { issuer: "main".into(), subject: "u1".into() },
        user_id: Some(UserId::mint(NOW, [1; 10])),
        email: None,
        org_id: None,
        authenticated,
        expires_at: None,
    })
}

fn session(age: Duration) -> Arc<Principal> {
    caller(Authenticated::Session {
        id: SessionId::mint(NOW, [2; 10]),
        method: SignInMethod::MagicLink,
        authenticated_at: NOW.minus(age),
        created_at: NOW.minus(age),
    })
}

fn api_key(capabilities: &[&str]) -> Arc<Principal> {
    caller(Authenticated::ApiKey {
        id: ApiKeyId::mint(NOW, [3; 10]),
        capabilities: capabilities.iter().map(|&name| name.to_owned()).collect(),
    })
}

fn bearer(scopes: &[&str], more: serde_json::Value) -> Arc<Principal> {
    let serde_json::Value::Object(more) = more else { panic!("claims are an object") };
    let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
    caller(Authenticated::Bearer {
        claims: Arc::new(Claims { subject: Some("u1".into()), scopes, more: more.into(), ..Claims::default() }),
    })
}

const FRESH: Snapshot<'_> = Snapshot { freshness: Freshness::Fresh, revoked: None, license: None };

fn verdict(principal: Arc<Principal>, rule: &Rule, snapshot: Snapshot<'_>) -> Result<Grant, Reason> {
    authorize(principal, &Action { rule, recent_auth: WINDOW, reads: true }, &snapshot, NOW)
        .map_err(|denial| denial.reason)
}

#[test]
fn a_kind_that_the_rule_does_not_name_is_denied() {
    let only_keys = rule(&[CredentialKind::ApiKey], Require::default());
    assert_eq!(verdict(session(Duration::ZERO), &only_keys, FRESH), Err(Reason::RuleDenies));
    assert!(verdict(api_key(&[]), &only_keys, FRESH).is_ok());
}

#[test]
fn a_known_revocation_denies_even_where_stale_state_may_pass() {
    let mut rule = rule(ALL, Require::default());
    rule.on_stale = OnStale::Allow;
    let snapshot = Snapshot { freshness: Freshness::Stale, revoked: Some(Reason::TokenRevoked), license: None };
    assert_eq!(verdict(bearer(&[], json!({})), &rule, snapshot), Err(Reason::TokenRevoked));
}

#[test]
fn stale_revocation_state_is_denied_or_marked_as_the_rule_says() {
    let mut rule = rule(ALL, Require::default());
    let stale = Snapshot { freshness: Freshness::Stale, revoked: None, license: None };
    assert_eq!(verdict(session(Duration::ZERO), &rule, stale), Err(Reason::SharedUnavailable));
    rule.on_stale = OnStale::Allow;
    assert!(verdict(session(Duration::ZERO), &rule, stale).unwrap().is_stale);
    assert!(!verdict(session(Duration::ZERO), &rule, FRESH).unwrap().is_stale);
}

#[test]
fn recent_authentication_ends_at_its_limit_and_no_token_or_key_ever_has_it() {
    let rule = rule(ALL, Require { recent_auth: true, ..Require::default() });
    assert!(verdict(session(WINDOW - Duration::from_millis(1)), &rule, FRESH).is_ok());
    assert_eq!(verdict(session(WINDOW), &rule, FRESH), Err(Reason::ReAuthRequired));
    assert_eq!(verdict(api_key(&["deploy"]), &rule, FRESH), Err(Reason::ReAuthRequired));
    assert_eq!(verdict(bearer(&[], json!({})), &rule, FRESH), Err(Reason::ReAuthRequired));
    let denial =
        authorize(session(WINDOW), &Action { rule: &rule, recent_auth: WINDOW, reads: true }, &FRESH, NOW).unwrap_err();
    assert_eq!(denial.detail().unwrap().max_age_seconds, Some(300));
}

#[test]
fn a_capability_binds_keys_and_an_empty_list_has_none() {
    let rule = rule(ALL, Require { capability: Some("deploy".into()), ..Require::default() });
    assert!(verdict(api_key(&["read", "deploy"]), &rule, FRESH).is_ok());
    assert_eq!(verdict(api_key(&["read"]), &rule, FRESH), Err(Reason::MissingCapability));
    assert_eq!(verdict(api_key(&[]), &rule, FRESH), Err(Reason::MissingCapability));
    // What does not apply to the principal at hand denies.
    assert_eq!(verdict(session(Duration::ZERO), &rule, FRESH), Err(Reason::MissingCapability));
    assert_eq!(verdict(bearer(&["deploy"], json!({})), &rule, FRESH), Err(Reason::MissingCapability));
}

#[test]
fn claims_are_compared_without_coercion_and_lists_contain() {
    let claims = BTreeMap::from([("tenant_id".to_owned(), json!("acme"))]);
    let rule = rule(ALL, Require { claims, ..Require::default() });
    assert!(verdict(bearer(&[], json!({ "tenant_id": "acme" })), &rule, FRESH).is_ok());
    assert!(verdict(bearer(&[], json!({ "tenant_id": ["other", "acme"] })), &rule, FRESH).is_ok());
    for other in [json!("Acme"), json!(["acme2"]), json!({ "acme": true }), json!(null), json!(1)] {
        let found = verdict(bearer(&[], json!({ "tenant_id": other })), &rule, FRESH);
        assert_eq!(found, Err(Reason::MissingClaim), "{other}");
    }
    assert_eq!(verdict(bearer(&[], json!({})), &rule, FRESH), Err(Reason::MissingClaim));
    assert_eq!(verdict(session(Duration::ZERO), &rule, FRESH), Err(Reason::MissingClaim));
}

#[test]
fn a_number_claim_is_not_met_by_its_text() {
    let claims = BTreeMap::from([("level".to_owned(), json!(1))]);
    let rule = rule(ALL, Require { claims, ..Require::default() });
    assert!(verdict(bearer(&[], json!({ "level": 1 })), &rule, FRESH).is_ok());
    assert_eq!(verdict(bearer(&[], json!({ "level": "1" })), &rule, FRESH), Err(Reason::MissingClaim));
}

#[test]
fn every_scope_is_needed_and_only_tokens_have_scopes() {
    let rule = rule(ALL, Require { scopes: vec!["api:read".into(), "api:write".into()], ..Require::default() });
    assert!(verdict(bearer(&["api:write", "api:read"], json!({})), &rule, FRESH).is_ok());
    assert_eq!(verdict(bearer(&["api:read"], json!({})), &rule, FRESH), Err(Reason::MissingScope));
    assert_eq!(verdict(api_key(&["api:read", "api:write"]), &rule, FRESH), Err(Reason::MissingScope));
}

#[test]
fn what_needs_a_license_fails_closed_while_there_is_no_provider() {
    let entitled = rule(ALL, Require { entitlements: vec!["sso".into()], ..Require::default() });
    assert_eq!(verdict(session(Duration::ZERO), &entitled, FRESH), Err(Reason::LicenseEntitlementMissing));
    let mut licensed = rule(ALL, Require::default());
    licensed.license = LicenseMode::ActiveOrGraceRead;
    assert_eq!(verdict(session(Duration::ZERO), &licensed, FRESH), Err(Reason::LicenseUnknown));
}

#[test]
fn a_public_rule_admits_without_a_principal_and_no_other_rule_does() {
    let mut public = rule(&[], Require::default());
    assert_eq!(admit_public(&public).unwrap_err().reason, Reason::NoCredential);
    public.access = Access::Public;
    assert_eq!(admit_public(&public).unwrap().principal, None);
}
