use std::time::Duration;

use serde_json::{Value, json};

use super::{Claims, IssuerAlias, TokenPolicy, Verified, parse, verify};
use crate::{
    decision::Denial,
    jose::{Algorithm, AlgorithmSet, sign::SigningKey},
    reason::Reason,
    time::{Now, Timestamp},
};

const T: i64 = 1_800_000_000;

fn now() -> Now {
    Now { wall: Timestamp::from_secs(T), mono: Duration::ZERO }
}

fn policy() -> TokenPolicy {
    TokenPolicy {
        issuer: "https://issuer.test".into(),
        aliases: vec![],
        audiences: vec!["app".into()],
        algorithms: AlgorithmSet::of(&[Algorithm::EdDsa]),
        required_claims: vec![],
        clock_tolerance: Duration::from_secs(30),
        max_token_age: None,
        kind: None,
    }
}

fn claims() -> Value {
    json!({"iss": "https://issuer.test", "aud": "app", "sub": "u", "exp": T + 60, "iat": T - 60})
}

fn check_as(kind: &str, claims: &Value, policy: &TokenPolicy) -> Result<Verified<Claims>, Denial> {
    let key = SigningKey::from_seed(&[3; 32]).unwrap();
    let token = key.mint(kind, Some("a"), claims).unwrap();
    verify(parse(&token)?, &key.public_key().unwrap(), policy, now())
}

fn check(claims: &Value, policy: &TokenPolicy) -> Result<Verified<Claims>, Denial> {
    check_as("JWT", claims, policy)
}

fn reason_with(name: &str, value: Value) -> Option<Reason> {
    let mut claims = claims();
    claims[name] = value;
    check(&claims, &policy()).err().map(|denial| denial.reason)
}

fn reason_without(name: &str) -> Option<Reason> {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    check(&claims, &policy()).err().map(|denial| denial.reason)
}

#[test]
fn a_good_token_gives_its_claims_typed() {
    let mut claims = claims();
    claims["scope"] = json!("api:read  api:write");
    claims["tenant"] = json!({"id": 7});
    let verified = check(&claims, &policy()).unwrap().into_inner();
    assert_eq!(verified.scopes, ["api:read", "api:write"]);
    assert_eq!(verified.expires_at, Some(Timestamp::from_secs(T + 60)));
    assert_eq!(verified.more.raw("tenant"), Some(r#"{"id":7}"#));
    assert_eq!(verified.more.len(), 1);
}

#[test]
fn every_required_claim_is_named_when_it_lacks() {
    for name in ["iss", "sub", "aud", "exp"] {
        assert_eq!(reason_without(name), Some(Reason::TokenMissingClaim), "{name}");
    }
    assert_eq!(reason_without("iat"), None);
    let policy = TokenPolicy { required_claims: vec!["tenant".into()], ..policy() };
    let mut claims = claims();
    claims["tenant"] = Value::Null;
    let denial = check(&claims, &policy).unwrap_err();
    assert_eq!(denial.reason, Reason::TokenMissingClaim);
    assert_eq!(denial.detail().unwrap().required.as_deref(), Some("tenant"));
}

#[test]
fn the_signature_is_judged_before_any_claim() {
    let mut claims = claims();
    claims["exp"] = json!("soon");
    claims["iss"] = json!("https://evil.test");
    let token = SigningKey::from_seed(&[4; 32]).unwrap().mint("x", None, &claims).unwrap();
    let key = SigningKey::from_seed(&[3; 32]).unwrap().public_key().unwrap();
    let denial = verify(parse(&token).unwrap(), &key, &policy(), now()).unwrap_err();
    assert_eq!(denial.reason, Reason::TokenBadSignature);
}

#[test]
fn an_empty_policy_accepts_nothing() {
    let no_audience = TokenPolicy { audiences: vec![], ..policy() };
    assert_eq!(check(&claims(), &no_audience).unwrap_err().reason, Reason::TokenWrongAudience);
    let no_algorithm = TokenPolicy { algorithms: AlgorithmSet::NONE, ..policy() };
    assert_eq!(check(&claims(), &no_algorithm).unwrap_err().reason, Reason::TokenAlgNotAllowed);
    let empty = TokenPolicy { audiences: vec![String::new()], ..policy() };
    let mut claims = claims();
    claims["aud"] = json!("");
    assert_eq!(check(&claims, &empty).unwrap_err().reason, Reason::TokenWrongAudience);
}

#[test]
fn an_alias_of_the_issuer_ends_at_its_date() {
    let with_alias = |until| TokenPolicy {
        aliases: vec![IssuerAlias { issuer: "https://old.test".into(), until: Timestamp::from_secs(until) }],
        ..policy()
    };
    let mut claims = claims();
    claims["iss"] = json!("https://old.test");
    assert!(check(&claims, &with_alias(T + 1)).is_ok());
    assert_eq!(check(&claims, &with_alias(T)).unwrap_err().reason, Reason::TokenWrongIssuer);
}

#[test]
fn the_age_of_a_token_is_bounded_where_the_policy_says_so() {
    let aged = |age| TokenPolicy { max_token_age: Some(Duration::from_secs(age)), ..policy() };
    assert!(check(&claims(), &aged(60)).is_ok());
    assert_eq!(check(&claims(), &aged(30)).unwrap_err().reason, Reason::TokenExpired);
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove("iat");
    assert_eq!(check(&claims, &aged(60)).unwrap_err().reason, Reason::TokenMissingClaim);
}

#[test]
fn impossible_values_are_told_from_expired_ones() {
    assert_eq!(reason_with("exp", json!(4_102_444_800_000_i64)), Some(Reason::TokenInvalidClaim));
    assert_eq!(reason_with("exp", json!(1e300)), Some(Reason::TokenInvalidClaim));
    assert_eq!(reason_with("exp", json!(-1)), Some(Reason::TokenExpired));
    assert_eq!(reason_with("nbf", Value::Null), Some(Reason::TokenInvalidClaim));
    assert_eq!(reason_with("iat", json!(T + 31)), Some(Reason::TokenNotYetValid));
    let mut claims = claims();
    (claims["iat"], claims["exp"]) = (json!(T - 5), json!(T - 10));
    assert_eq!(check(&claims, &policy()).unwrap_err().reason, Reason::TokenInvalidClaim);
    assert_eq!(reason_with("scope", json!(7)), Some(Reason::TokenInvalidClaim));
    assert_eq!(reason_with("scope", json!(["a", "b"])), None);
}

#[test]
fn subjects_that_could_not_travel_in_a_header_are_refused() {
    for bad in [json!("a\r\nX-Evil: 1"), json!("\u{0}"), json!(""), json!(7), json!("x".repeat(1025))] {
        assert_eq!(reason_with("sub", bad.clone()), Some(Reason::TokenInvalidClaim), "{bad}");
    }
    assert_eq!(reason_with("sub", json!("Ünïcode|ok")), None);
}

#[test]
fn a_token_of_another_kind_is_refused() {
    for kind in ["at+jwt", "application/at+jwt", "jwt"] {
        assert!(check_as(kind, &claims(), &policy()).is_ok(), "{kind}");
    }
    for kind in ["logout+jwt", "dpop+jwt", "doorward-assertion+jwt", "doorward-link+jwt", ""] {
        assert_eq!(check_as(kind, &claims(), &policy()).unwrap_err().reason, Reason::TokenWrongType, "{kind}");
    }
    let own = TokenPolicy { kind: Some("license+jwt".into()), ..policy() };
    assert!(check_as("license+jwt", &claims(), &own).is_ok());
    assert_eq!(check(&claims(), &own).unwrap_err().reason, Reason::TokenWrongType);
}

#[test]
fn a_key_of_another_algorithm_is_a_mismatch_whatever_the_policy_says() {
    let token = SigningKey::from_seed(&[3; 32]).unwrap().mint("JWT", None, &claims()).unwrap();
    let x =
        base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, "eZWDLehINXoAPu3kXrGPlmWhQn5YNKi3OcKur20AsTo");
    let y =
        base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, "PeLX_fXmmrzymKEOpBEr2VUt6w0SO7uM7SXMeGkKjss");
    let key = crate::jose::PublicKey::p256(&x.unwrap(), &y.unwrap()).unwrap();
    let denial = verify(parse(&token).unwrap(), &key, &policy(), now()).unwrap_err();
    assert_eq!(denial.reason, Reason::TokenKeyMismatch);
}
