//! Key sets and tokens captured from real issuers, before and after they changed their key.

use std::time::Duration;

use doorward_core::{
    decision::Denial,
    jose::{Algorithm, AlgorithmSet, JwkSet, Selection},
    reason::Reason,
    time::{Now, Timestamp},
    token::{self, Claims, TokenPolicy, Verified},
};

use crate::vectors::{load, text};

/// Folders of `issuers/`, and the audience of their access tokens.
const CAPTURES: &[(&str, &str)] = &[
    ("better-auth-EdDSA", "urn:app:api"),
    ("better-auth-ES256", "urn:app:api"),
    ("better-auth-RS256", "urn:app:api"),
    ("oidc-provider-EdDSA", "urn:app"),
    ("oidc-provider-ES256", "urn:app"),
    ("oidc-provider-RS256", "urn:app"),
];

fn verify(token: &str, keys: &JwkSet, audience: &str) -> Result<Verified<Claims>, Denial> {
    let parsed = token::parse(token)?;
    let policy = TokenPolicy {
        issuer: parsed.claimed_issuer().unwrap().to_owned(),
        aliases: vec![],
        audiences: vec![audience.to_owned()],
        algorithms: AlgorithmSet::of(&[Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256]),
        required_claims: vec!["client_id".to_owned(), "jti".to_owned(), "orgs".to_owned()],
        clock_tolerance: Duration::ZERO,
        max_token_age: Some(Duration::from_secs(3600)),
        kind: Some("at+jwt".to_owned()),
    };
    let wall: Timestamp = parsed.claimed_issued_at().unwrap().plus(Duration::from_secs(1));
    match keys.select(parsed.key_id(), parsed.algorithm()?) {
        Selection::Key(key) => token::verify(parsed, key, &policy, Now { wall, mono: Duration::ZERO }),
        Selection::Mismatch => Err(Reason::TokenKeyMismatch.into()),
        Selection::Unknown => Err(Reason::TokenUnknownKey.into()),
    }
}

#[test]
fn tokens_of_real_issuers_verify_with_the_keys_of_their_time() {
    for (name, audience) in CAPTURES {
        let keys = |file: &str| {
            let set = load(&format!("issuers/{name}/{file}.json")).to_string();
            let set = JwkSet::parse(set.as_bytes()).unwrap();
            assert_eq!(set.skipped(), [], "{name}");
            set
        };
        let (before, after) = (keys("jwks-before"), keys("jwks-after-abrupt"));
        let tokens = load(&format!("issuers/{name}/tokens.json"));
        let token = |when: &str| text(&tokens[when], "access_token").to_owned();
        let claims = verify(&token("before"), &before, audience).unwrap_or_else(|denial| panic!("{name}: {denial}"));
        assert!(
            claims.get().subject.is_some() && claims.get().scopes.iter().any(|scope| scope == "api:read"),
            "{name}"
        );
        verify(&token("after"), &after, audience).unwrap_or_else(|denial| panic!("{name}: {denial}"));
        for (when, keys) in [("before", &after), ("after", &before)] {
            let denial = verify(&token(when), keys, audience).unwrap_err();
            assert_eq!(denial.reason, Reason::TokenUnknownKey, "{name}");
        }
    }
}

#[test]
fn an_id_token_is_no_access_token() {
    for (name, audience) in CAPTURES {
        let set = load(&format!("issuers/{name}/jwks-before.json")).to_string();
        let keys = JwkSet::parse(set.as_bytes()).unwrap();
        let tokens = load(&format!("issuers/{name}/tokens.json"));
        let denial = verify(text(&tokens["before"], "id_token"), &keys, audience).unwrap_err();
        assert_eq!(denial.reason, Reason::TokenWrongType, "{name}");
    }
}
