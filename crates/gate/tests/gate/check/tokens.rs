//! Tokens that come again: what was found good before is judged anew in everything that can change.

use doorward_core::{
    credential::{CredentialKind, CredentialSet},
    jose::JwkSet,
    reason::Reason,
    revocation::Scope,
    token::TokenPolicy,
};
use doorward_gate::{
    gate::Checked,
    issuer::{IssuerConfig, Issuers, KeySource},
};
use doorward_testkit::issuer::Issuer;
use serde_json::json;

use super::house::{Asked, House, START, policy, rule};

const BEARER: CredentialSet = CredentialSet::NONE.with(CredentialKind::Bearer);

fn issuers(house: &House, issuer: &Issuer, change: impl FnOnce(&mut TokenPolicy)) -> Issuers {
    let set = JwkSet::parse(issuer.key_set().to_string().as_bytes()).unwrap();
    let mut policy = crate::issuer::policy(&issuer.url());
    change(&mut policy);
    let config = IssuerConfig::new("main", policy, KeySource::Inline(set));
    Issuers::new(vec![config], &house.clock, None).unwrap()
}

/// A gate that admits tokens, and a request with a token that was admitted once.
async fn admitted() -> (House, Issuer, Asked) {
    let (house, issuer) = (House::of(vec![rule("/*", BEARER)]).await, Issuer::start().await);
    house.gate.swap(policy(1, vec![rule("/*", BEARER)]), issuers(&house, &issuer, |_| ()));
    let mut claims = issuer.claims("app", START.as_secs());
    claims["jti"] = json!("token-1");
    let request = Asked::get("/x").bearer(&issuer.mint(&claims));
    assert_eq!(house.ask(&request).await, Ok(()));
    (house, issuer, request)
}

#[tokio::test]
async fn a_token_on_the_blocklist_is_refused_although_its_verdict_is_kept() {
    for scope in [
        Scope::Token { issuer: "main".to_owned(), jti: "token-1".to_owned() },
        Scope::Subject { issuer: "main".to_owned(), subject: "subject-1".to_owned() },
    ] {
        let (house, _issuer, request) = admitted().await;
        house.revoke(scope).await;
        house.gate.follow().await;
        assert_eq!(house.ask(&request).await, Err(Reason::TokenRevoked));
    }
}

#[tokio::test]
async fn another_policy_counts_at_once_also_for_tokens_that_were_good_before() {
    let (house, issuer, request) = admitted().await;
    let rules = || vec![rule("/*", BEARER)];
    house.gate.swap(policy(2, rules()), issuers(&house, &issuer, |policy| policy.audiences = vec!["other".into()]));
    assert_eq!(house.ask(&request).await, Err(Reason::TokenWrongAudience));
    house.gate.swap(policy(3, rules()), issuers(&house, &issuer, |_| ()));
    assert_eq!(house.decide(&request).await.policy, 3);
    house.gate.swap(policy(4, rules()), Issuers::new(vec![], &house.clock, None).unwrap());
    assert_eq!(house.ask(&request).await, Err(Reason::TokenWrongIssuer));
}

#[tokio::test]
async fn a_decision_on_a_token_that_comes_again_waits_for_nothing_and_allocates_once() {
    let (house, _issuer, request) = admitted().await;
    let mut is_admitted = false;
    let allocated = allocation_counter::measure(|| {
        let Checked::Ready(decision) = house.check(&request) else { panic!("nothing is to be waited for") };
        is_admitted = decision.outcome.is_ok();
    });
    assert!(is_admitted);
    // The test's own observer makes a text of the app's name; the decision itself allocates nothing.
    assert!(allocated.count_total <= 1, "{allocated:?}");
}
