//! Blocked tokens and subjects: from our own log, and from a set that somebody else keeps.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use doorward_core::{
    credential::{CredentialKind, CredentialSet},
    principal::Principal,
    reason::Reason,
    revocation::Scope,
    rule::{OnStale, Rule},
};
use doorward_gate::{
    blocklist::Block,
    external::{Asked as Answer, BlockedSubjects},
    gate::Checked,
    issuer::{IssuerConfig, Issuers, KeySource},
};
use doorward_testkit::issuer::Issuer;

use super::house::{Asked, House, SESSION, policy, rule};

const BEARER: CredentialSet = CredentialSet::NONE.with(CredentialKind::Bearer);

struct World {
    house: House,
    issuer: Issuer,
}

impl World {
    async fn of(rules: Vec<Rule>) -> Self {
        let house = House::of(rules.clone()).await;
        let issuer = Issuer::start().await;
        let source = KeySource::Url(issuer.jwks_url().parse().unwrap());
        let config = IssuerConfig::new("main", crate::issuer::policy(&issuer.url()), source);
        let issuers = Issuers::new(vec![config], &house.clock, None).unwrap();
        house.gate.swap(policy(2, rules), issuers);
        Self { house, issuer }
    }

    fn token(&self, jti: &str, subject: &str) -> Asked {
        let mut claims = self.issuer.claims("app", self.house.clock.now().wall.as_secs());
        claims["jti"] = jti.into();
        claims["sub"] = subject.into();
        Asked::get("/x").bearer(&self.issuer.mint(&claims))
    }

    async fn block(&self, scope: Scope, until: Option<Duration>) {
        let until = until.map(|after| self.house.clock.now().wall.plus(after));
        let block = Block { scope, until, why: "stolen".to_owned(), by: "a test".to_owned() };
        self.house.gate.block(block).await.unwrap();
    }

    async fn set(&self) -> Set {
        let set = Set::default();
        self.house.gate.use_blocked_subjects(Some(Box::new(set.clone())));
        set
    }
}

/// A set that another system would write.
#[derive(Clone, Debug, Default)]
struct Set(Arc<State>);

#[derive(Debug, Default)]
struct State {
    members: Mutex<HashSet<String>>,
    problem: Mutex<Option<String>>,
    asked: AtomicUsize,
}

impl BlockedSubjects for Set {
    fn contains(&self, subject: Arc<str>) -> Answer {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let answer = match &*self.0.problem.lock().unwrap() {
            Some(problem) => Err(problem.clone()),
            None => Ok(self.0.members.lock().unwrap().contains(&*subject)),
        };
        Box::pin(async move { answer })
    }
}

impl Set {
    fn add(&self, subject: &str) {
        self.0.members.lock().unwrap().insert(subject.to_owned());
    }

    fn break_down(&self) {
        *self.0.problem.lock().unwrap() = Some("no connection".to_owned());
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Ordering::Relaxed)
    }
}

fn token(jti: &str) -> Scope {
    Scope::token("main", jti).unwrap()
}

#[tokio::test]
async fn a_blocked_token_is_refused_though_it_was_verified_before_until_its_entry_ends_or_is_taken_back() {
    let world = World::of(vec![rule("/*", BEARER)]).await;
    let (one, two) = (world.token("1", "ada"), world.token("2", "bob"));
    for request in [&one, &two, &one] {
        assert_eq!(world.house.ask(request).await, Ok(()));
    }
    world.block(token("1"), Some(Duration::from_secs(60))).await;
    world.block(Scope::subject("main", "bob").unwrap(), None).await;
    // At once, from memory, without a poll in between.
    assert_eq!(world.house.ask(&one).await, Err(Reason::TokenRevoked));
    assert_eq!(world.house.ask(&two).await, Err(Reason::TokenRevoked));
    assert_eq!(world.house.ask(&world.token("3", "ada")).await, Ok(()), "neither its jti nor its sub is listed");
    assert_eq!(world.house.gate.blocklist(0, 10).await.unwrap().len(), 2);
    assert_eq!(world.house.gate.blocklist_len(), 2);

    world.house.advance(Duration::from_secs(60)).await;
    assert_eq!(world.house.ask(&one).await, Ok(()), "its entry has ended");
    assert_eq!(world.house.ask(&two).await, Err(Reason::TokenRevoked));
    let bob = Scope::subject("main", "bob").unwrap();
    assert_eq!(world.house.gate.unblock(bob.clone(), "found again", "a test").await, Ok(true));
    assert_eq!(world.house.ask(&two).await, Ok(()));
    assert_eq!(world.house.gate.unblock(bob, "", "a test").await, Ok(false));
    let kinds: Vec<String> =
        world.house.store.audit_tail(0, 100).await.unwrap().into_iter().map(|row| row.kind).collect();
    assert_eq!(kinds, ["blocklist.added", "blocklist.added", "blocklist.removed"]);
}

#[tokio::test]
async fn what_another_process_blocks_is_refused_after_the_next_reading_of_the_log() {
    let world = World::of(vec![rule("/*", BEARER)]).await;
    let request = world.token("1", "ada");
    assert_eq!(world.house.ask(&request).await, Ok(()));
    world.house.revoke(token("1")).await;
    world.house.advance(Duration::from_millis(200)).await;
    assert_eq!(world.house.ask(&request).await, Err(Reason::TokenRevoked));
    world.house.revoke(Scope::Lifted { scope: Box::new(token("1")) }).await;
    world.house.advance(Duration::from_millis(200)).await;
    assert_eq!(world.house.ask(&request).await, Ok(()));
}

#[tokio::test]
async fn an_entry_that_would_protect_nobody_is_refused() {
    let world = World::of(vec![rule("/*", BEARER)]).await;
    let block = |scope, why: &str| Block { scope, until: None, why: why.to_owned(), by: "a test".to_owned() };
    for bad in [
        block(Scope::token("nobody", "1").unwrap(), ""),
        block(Scope::AllSessions, ""),
        block(token("1"), "two\nlines"),
        block(token("1"), &"x".repeat(201)),
    ] {
        let denial = world.house.gate.block(bad.clone()).await.unwrap_err();
        assert_eq!(denial.reason, Reason::RequestMalformed, "{bad:?}");
    }
    assert_eq!(world.house.store.last_revocation().await, Ok(0));
    assert!(Scope::token("main", "").is_none() && Scope::subject("main", &"x".repeat(513)).is_none());
}

#[tokio::test]
async fn nobody_waits_for_a_log_that_could_not_be_read_twice() {
    let world = World::of(vec![rule("/*", BEARER)]).await;
    let request = world.token("1", "ada");
    assert_eq!(world.house.ask(&request).await, Ok(()));
    world.house.store.close().await;
    for _ in 0..2 {
        world.house.advance(Duration::from_secs(2)).await;
    }
    let Checked::Ready(decision) = world.house.check(&request) else { panic!("it waits") };
    assert_eq!(decision.outcome.unwrap_err().reason, Reason::SharedUnavailable);
}

#[tokio::test]
async fn an_external_set_is_asked_on_every_request_with_a_bearer_and_on_no_other() {
    let world = World::of(vec![rule("/s/*", SESSION), rule("/*", BEARER)]).await;
    let set = world.set().await;
    let request = world.token("1", "ada");
    for number in 1..=3 {
        assert_eq!(world.house.ask(&request).await, Ok(()));
        assert_eq!(set.asked(), number);
    }
    set.add("ada");
    assert_eq!(world.house.ask(&request).await, Err(Reason::TokenRevoked));
    assert_eq!(world.house.ask(&world.token("2", "bob")).await, Ok(()));
    // Our own log is looked at first, and says enough.
    let asked = set.asked();
    world.block(token("2"), None).await;
    assert_eq!(world.house.ask(&world.token("2", "bob")).await, Err(Reason::TokenRevoked));
    let ada = world.house.user("ada@example.com").await;
    let (cookie, _) = world.house.signed_in(&ada).await;
    assert_eq!(world.house.ask(&Asked::get("/s/x").session(&cookie)).await, Ok(()));
    assert_eq!(world.house.ask(&Asked::get("/x").bearer("a.b.c")).await, Err(Reason::TokenMalformed));
    assert_eq!(set.asked(), asked);
    world.house.gate.use_blocked_subjects(None);
    assert_eq!(world.house.ask(&request).await, Ok(()));
}

#[tokio::test]
async fn a_set_that_cannot_be_asked_denies_or_passes_as_stale_by_the_rule() {
    let lax = Rule { on_stale: OnStale::Allow, ..rule("/lax", BEARER) };
    let world = World::of(vec![lax, rule("/*", BEARER)]).await;
    let set = world.set().await;
    set.break_down();
    let strict = world.token("1", "ada");
    let denial = world.house.decide(&strict).await.outcome.unwrap_err();
    assert_eq!((denial.reason, denial.retry_after()), (Reason::SharedUnavailable, Some(1)));
    assert!(denial.to_string().contains("no connection"), "{denial}");
    let mut lax = world.token("1", "ada");
    lax.target = "/lax".to_owned();
    assert!(world.house.decide(&lax).await.outcome.unwrap().is_stale);
    // What our own log knows counts all the same.
    world.block(token("1"), None).await;
    assert_eq!(world.house.ask(&lax).await, Err(Reason::TokenRevoked));
}

#[tokio::test(start_paused = true)]
async fn something_held_open_ends_once_its_subject_is_in_the_external_set() {
    let world = World::of(vec![rule("/*", BEARER)]).await;
    let set = world.set().await;
    let since = world.house.clock.now();
    let principal: Arc<Principal> = world.house.decide(&world.token("1", "ada")).await.caller.unwrap();
    let ended = world.house.gate.ended(Arc::clone(&principal), since);
    let mut ended = std::pin::pin!(ended);
    let step = Duration::from_secs(11);
    for broken in [false, true] {
        if broken {
            set.break_down();
        }
        world.house.clock.advance(step);
        let passed = tokio::time::timeout(step, &mut ended).await;
        assert!(passed.is_err(), "neither a set without it nor one that is down ends anything");
    }
    *set.0.problem.lock().unwrap() = None;
    set.add("ada");
    world.house.clock.advance(step);
    assert_eq!(tokio::time::timeout(step, ended).await, Ok(Reason::TokenRevoked));
}
