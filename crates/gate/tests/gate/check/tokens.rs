//! Tokens that come again: what was found good before is judged anew in everything that can change.

use std::{
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use doorward_core::{
    credential::{CredentialKind, CredentialSet},
    jose::JwkSet,
    reason::Reason,
    revocation::Scope,
    token::TokenPolicy,
};
use doorward_gate::{
    clock::Clock,
    external::{Asked as Answer, BlockedSubjects},
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

/// A set that nobody is in; the machine is suspended for so long while it is asked for the first time.
#[derive(Debug)]
struct Suspending(Clock, Mutex<Duration>);

impl BlockedSubjects for Suspending {
    fn contains(&self, _: Arc<str>) -> Answer {
        let (clock, pause) = (self.0.clone(), mem::take(&mut *self.1.lock().unwrap()));
        Box::pin(async move {
            clock.advance(pause);
            Ok(false)
        })
    }
}

#[tokio::test]
async fn a_token_that_ended_while_the_machine_was_suspended_opens_nothing_after_it() {
    let (mut house, _issuer, request) = admitted().await;
    let set = Suspending(house.clock.clone(), Mutex::new(Duration::from_hours(3)));
    house.gate.use_blocked_subjects(Some(Box::new(set)));
    let (gate, task) = (house.gate.clone(), house.task.take().unwrap());
    let running = tokio::spawn(async move { gate.run(task, std::future::pending()).await });
    assert_eq!(house.ask(&request).await, Err(Reason::TokenExpired));
    running.abort();
}

#[tokio::test]
async fn a_token_that_ends_while_somebody_is_asked_about_its_subject_opens_nothing() {
    let (house, _issuer, request) = admitted().await;
    // Its end with the tolerance is 330 s from the start.
    house.advance(Duration::from_secs(329)).await;
    for (pause, expected) in [(Duration::ZERO, Ok(())), (Duration::from_secs(1), Err(Reason::TokenExpired))] {
        let set = Suspending(house.clock.clone(), Mutex::new(pause));
        house.gate.use_blocked_subjects(Some(Box::new(set)));
        assert_eq!(house.ask(&request).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_the_log_keeps_hope_while_the_store_connects_again() {
    let (mut house, _issuer, request) = admitted().await;
    let (gate, task) = (house.gate.clone(), house.task.take().unwrap());
    let running = tokio::spawn(async move { gate.run(task, std::future::pending()).await });
    // As where the server has closed every connection: each reading fails at once.
    house.store.close().await;
    house.clock.advance(Duration::from_secs(3));
    #[allow(clippy::disallowed_methods, reason = "measures, does not decide")]
    let began = tokio::time::Instant::now();
    assert_eq!(house.ask(&request).await, Err(Reason::SharedUnavailable));
    let took = began.elapsed();
    assert!((Duration::from_millis(100)..Duration::from_secs(1)).contains(&took), "{took:?}");
    assert!(house.seen.lock().unwrap().faults.len() >= 2, "the log was asked twice at least");
    running.abort();
}
