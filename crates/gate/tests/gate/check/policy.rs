use std::{collections::HashSet, sync::Arc};

use doorward_core::{
    credential::CredentialSet,
    id::DecisionId,
    reason::Reason,
    rule::{Access, Rule},
};
use doorward_gate::issuer::Issuers;

use super::house::{Asked, House, SESSION, policy, rule};

fn open(path: &str) -> Rule {
    Rule { access: Access::Public, ..rule(path, CredentialSet::NONE) }
}

fn no_issuers(house: &House) -> Issuers {
    Issuers::new(Vec::new(), &house.clock, None).unwrap()
}

#[tokio::test]
async fn a_new_policy_counts_from_the_next_request_and_is_named_in_its_decision() {
    let house = House::of(vec![open("/*")]).await;
    let before = house.decide(&Asked::get("/x")).await;
    assert!(before.outcome.is_ok() && before.policy == 1);
    house.gate.swap(policy(2, vec![rule("/*", SESSION)]), no_issuers(&house));
    let after = house.decide(&Asked::get("/x")).await;
    assert_eq!((after.outcome.unwrap_err().reason, after.policy), (Reason::NoCredential, 2));
}

#[tokio::test]
async fn a_request_under_way_ends_under_the_policy_that_it_began_with() {
    let house = House::of(vec![rule("/*", SESSION)]).await;
    let ada = house.user("ada@example.com").await;
    let (token, _) = house.signed_in(&ada).await;
    let pending = house.check(&Asked::get("/x").session(&token));
    house.gate.swap(policy(2, vec![]), no_issuers(&house));
    let decision = pending.decision().await;
    assert!(decision.outcome.is_ok() && decision.policy == 1);
    assert_eq!(house.ask(&Asked::get("/x").session(&token)).await, Err(Reason::NoRule));
}

#[tokio::test]
async fn a_host_that_keeps_a_policy_is_judged_by_that_one() {
    let house = House::of(vec![open("/*")]).await;
    let old = house.gate.policy();
    house.gate.swap(policy(2, vec![]), no_issuers(&house));
    let request = Asked::get("/x");
    let decision = house.gate.check_by(&request.facts(), &old).decision().await;
    assert!(decision.outcome.is_ok() && decision.policy == 1);
}

#[tokio::test]
async fn no_two_decisions_have_one_id() {
    let house = House::of(vec![open("/*")]).await;
    let other = House::of(vec![open("/*")]).await;
    let mut ids = HashSet::<DecisionId>::new();
    for _ in 0..1000 {
        assert!(ids.insert(house.decide(&Asked::get("/x")).await.id));
        assert!(ids.insert(other.decide(&Asked::get("/x")).await.id), "in another process");
    }
}

#[tokio::test]
async fn every_decision_is_observed_once_and_a_peek_never() {
    let house = House::of(vec![rule("/*", SESSION)]).await;
    let ada = house.user("ada@example.com").await;
    let (token, _) = house.signed_in(&ada).await;
    let request = Asked::get("/x").session(&token);
    let looked = house.gate.peek(&request.facts(), &Arc::new(rule("/*", SESSION))).await;
    assert!(looked.outcome.is_ok());
    assert!(house.seen.lock().unwrap().decisions.is_empty());
    assert_eq!(house.ask(&request).await, Ok(()));
    assert_eq!(house.ask(&Asked::get("/x")).await, Err(Reason::NoCredential));
    house.gate.refuse_observed(&request.facts(), Reason::NotFound.into());
    let seen = house.seen.lock().unwrap();
    let reasons: Vec<_> = seen.decisions.iter().map(|(reason, _)| *reason).collect();
    assert_eq!(reasons, [None, Some(Reason::NoCredential), Some(Reason::NotFound)]);
}
