//! Whose license counts: for each kind of caller, and where one license is for everybody.

use doorward_core::{
    credential::{CredentialKind, CredentialSet},
    effects::Effects,
    id::{LinkId, OrgId, SessionId, UserId},
    jose::hs256::{self, MacKey},
    link::{self, Asker, LinkRequest, NewSession, Promotion},
    reason::Reason,
    revocation::Scope,
    session::{OpaqueToken, SignInMethod},
    user::{Email, Origin},
};
use doorward_gate::{
    external::{Asked as Answer, BlockedSubjects},
    gate::Checked,
    issuer::{IssuerConfig, Issuers, KeySource},
    policy::{LegacyPolicy, Policy},
    window::Window,
};
use doorward_store::{Consume, CreateUser};
use doorward_testkit::issuer::Issuer;
use serde_json::json;

use super::*;
use crate::check::house::policy;

const ANY: CredentialSet = CredentialSet::NONE
    .with(CredentialKind::Session)
    .with(CredentialKind::ApiKey)
    .with(CredentialKind::Bearer)
    .with(CredentialKind::Legacy);

fn secret() -> MacKey {
    MacKey::new(&[7; 32]).unwrap()
}

/// A gate that admits every kind of caller, with an issuer `main`.
async fn everybody(is_per_user: bool) -> (World, Issuer) {
    let rules = || vec![Rule { license: LicenseMode::Active, ..rule("/*", ANY) }];
    let (world, issuer) = (World::of(rules(), is_per_user).await, Issuer::start().await);
    let set = doorward_core::jose::JwkSet::parse(issuer.key_set().to_string().as_bytes()).unwrap();
    let config = IssuerConfig::new("main", crate::issuer::policy(&issuer.url()), KeySource::Inline(set));
    let issuers = Issuers::new(vec![config], &world.house.clock, None).unwrap();
    let with_window = Policy::new(
        2,
        rules(),
        vec![],
        policy(1, vec![]).sessions,
        policy(1, vec![]).cookies,
        doorward_core::csrf::OriginPolicy {
            own: doorward_core::origin::Origin::parse("https://app.example").unwrap(),
            allowed: vec![],
        },
    );
    let with_window = with_window.with_legacy(LegacyPolicy { allow: true, key: Some(secret()) });
    world.house.gate.swap(Arc::new(with_window), issuers);
    world.house.gate.use_window(Window::Open);
    (world, issuer)
}

fn token(issuer: &Issuer, subject: &str) -> Asked {
    let mut claims = issuer.claims("app", START.as_secs());
    claims["sub"] = json!(subject);
    Asked::get("/x").bearer(&issuer.mint(&claims))
}

fn asked_about(world: &World) -> Vec<Holder> {
    lock(&world.vendor.0.asked).iter().map(|question| question.holder).collect()
}

#[tokio::test]
async fn sessions_keys_and_tokens_of_a_user_count_as_that_user() {
    let (world, issuer) = everybody(true).await;
    let ada = world.person("ada@example.com").await;
    let (session, _) = world.house.signed_in(&ada.user).await;
    let claims = json!({ "sub": ada.user.id, "iat": START.as_secs(), "exp": START.as_secs() + 600 });
    let legacy = Asked::get("/x").bearer(&hs256::mint(&secret(), "JWT", &claims).unwrap());
    let subject = "subject-of-ada".to_owned();
    world.house.store.link_identity("main".to_owned(), subject.clone(), ada.user.id, Effects::default()).await.unwrap();
    for request in [ada.get(), Asked::get("/x").session(&session), legacy, token(&issuer, &subject)] {
        world.vendor.book(ada.holder, Book::of(LicenseState::Active));
        world.licenses().refresh(ada.holder).await.unwrap();
        assert_eq!(world.house.ask(&request).await, Ok(()));
        world.vendor.book(ada.holder, Book::of(LicenseState::Banned));
        world.licenses().refresh(ada.holder).await.unwrap();
        assert_eq!(world.house.ask(&request).await, Err(Reason::LicenseBanned));
    }
    assert!(asked_about(&world).iter().all(|holder| *holder == ada.holder));
}

#[tokio::test]
async fn keys_of_an_organisation_count_as_it_and_those_of_a_service_have_no_license() {
    let (world, _issuer) = everybody(true).await;
    let org = OrgId::mint(START, [9; 10]);
    let (of_org, _) = world.house.api_key(KeyOwner::Org(org), &[], |_| ()).await;
    let (of_service, _) = world.house.api_key(KeyOwner::Service("ci".to_owned()), &[], |_| ()).await;
    world.vendor.book(Holder::Org(org), Book::of(LicenseState::Active));
    assert_eq!(world.house.ask(&Asked::get("/x").bearer(&of_org)).await, Ok(()));
    assert_eq!(asked_about(&world), [Holder::Org(org)]);
    assert_eq!(world.house.ask(&Asked::get("/x").bearer(&of_service)).await, Err(Reason::LicenseNone));
    assert_eq!(asked_about(&world).len(), 1);
}

#[tokio::test]
async fn a_token_that_belongs_to_no_user_has_no_license_until_it_is_linked() {
    let (world, issuer) = everybody(true).await;
    let ada = world.licensee(LicenseState::Active).await;
    let request = token(&issuer, "stranger");
    assert_eq!(world.house.ask(&request).await, Err(Reason::LicenseNone));
    assert_eq!(world.vendor.asked(), 0);
    let link =
        world.house.store.link_identity("main".to_owned(), "stranger".to_owned(), ada.user.id, Effects::default());
    link.await.unwrap();
    world.advance(Duration::from_secs(1)).await;
    assert_eq!(world.house.ask(&request).await, Ok(()));
    // From then on the store need not be asked whose it is.
    assert!(matches!(world.house.check(&request), Checked::Ready(decision) if decision.outcome.is_ok()));
    // The same name at another issuer is somebody else.
    assert_eq!(world.house.store.user_by_identity("other".to_owned(), "stranger".to_owned()).await, Ok(None));
}

#[tokio::test]
async fn tokens_of_strangers_ask_the_store_once_a_second_for_each_subject() {
    let (world, issuer) = everybody(true).await;
    let (stranger, other) = (token(&issuer, "stranger"), token(&issuer, "another"));
    let is_from_memory = |request: &Asked| match world.house.check(request) {
        Checked::Ready(decision) => {
            assert_eq!(decision.outcome.unwrap_err().reason, Reason::LicenseNone);
            true
        }
        Checked::Pending(_) => false,
    };
    for request in [&stranger, &other] {
        assert_eq!(world.house.ask(request).await, Err(Reason::LicenseNone));
    }
    for _ in 0..100 {
        assert!(is_from_memory(&stranger) && is_from_memory(&other));
    }
    world.advance(Duration::from_secs(1)).await;
    assert!(!is_from_memory(&stranger), "and what the store says counts from then on");
    // Who can have no license needs no store to be told so.
    let (of_service, _) = world.house.api_key(KeyOwner::Service("ci".to_owned()), &[], |_| ()).await;
    let request = Asked::get("/x").bearer(&of_service);
    assert_eq!(world.house.ask(&request).await, Err(Reason::LicenseNone));
    for _ in 0..100 {
        assert!(is_from_memory(&request));
    }
}

#[tokio::test]
async fn a_user_who_is_gone_without_a_word_is_forgotten_with_the_next_question() {
    let (world, issuer) = everybody(true).await;
    let day_before = START.minus(DAY * 2);
    let gone = User {
        origin: Origin::SignUp,
        ..User::new(UserId::mint(day_before, [220; 10]), Email::parse("gone@example.com").unwrap(), day_before)
    };
    let store = &world.house.store;
    assert_eq!(store.create_user(gone.clone(), Effects::default()).await.unwrap(), CreateUser::Created);
    store.link_subject(gone.id, "kg-gone".to_owned(), Effects::default()).await.unwrap();
    world.vendor.book(Holder::User(gone.id), Book::of(LicenseState::Active));
    let request = token(&issuer, "kg-gone");
    assert_eq!(world.house.ask(&request).await, Ok(()));
    assert_eq!(store.purge(START, DAY).await.unwrap().users, 1);
    let entries = store.revocations_after(0, 100).await.unwrap();
    assert!(entries.iter().all(|entry| !matches!(entry.entry.scope, Scope::User { .. })), "nothing tells of it");
    world.advance(TTL).await;
    let _ = world.house.ask(&request).await;
    settle(&world.house.gate).await;
    assert_eq!(world.house.ask(&request).await, Err(Reason::LicenseNone));
}

#[tokio::test]
async fn a_token_of_the_providers_own_issuer_is_the_user_whom_the_provider_calls_so() {
    let (world, issuer) = everybody(true).await;
    let ada = world.licensee(LicenseState::Active).await;
    world.house.store.link_subject(ada.user.id, "kg-ada".to_owned(), Effects::default()).await.unwrap();
    assert_eq!(world.house.ask(&token(&issuer, "kg-ada")).await, Ok(()));
    assert_eq!(lock(&world.vendor.0.asked)[0].subject.as_deref(), Some("kg-ada"));
}

#[tokio::test]
async fn one_license_of_the_installation_is_everybodys() {
    let (world, issuer) = everybody(false).await;
    let ada = world.person("ada@example.com").await;
    let (session, _) = world.house.signed_in(&ada.user).await;
    let (of_service, _) = world.house.api_key(KeyOwner::Service("ci".to_owned()), &[], |_| ()).await;
    let requests = [
        ada.get(),
        Asked::get("/x").session(&session),
        Asked::get("/x").bearer(&of_service),
        token(&issuer, "stranger"),
    ];
    world.vendor.book(Holder::Installation, Book::of(LicenseState::Active));
    for request in &requests {
        assert_eq!(world.house.ask(request).await, Ok(()));
    }
    assert_eq!(asked_about(&world), [Holder::Installation]);
    world.vendor.book(Holder::Installation, Book::of(LicenseState::Suspended));
    world.licenses().refresh(Holder::Installation).await.unwrap();
    for request in &requests {
        assert_eq!(world.house.ask(request).await, Err(Reason::LicenseSuspended));
    }
}

/// A set that another system writes.
#[derive(Clone, Debug)]
struct Set(Arc<Mutex<Result<Vec<String>, String>>>);

impl BlockedSubjects for Set {
    fn contains(&self, subject: Arc<str>) -> Answer {
        let answer =
            lock(&self.0).as_ref().map(|names| names.iter().any(|name| **name == *subject)).map_err(Clone::clone);
        Box::pin(async move { answer })
    }
}

#[tokio::test]
async fn the_blocklist_is_asked_live_about_the_subject_of_the_license_for_every_kind_of_caller() {
    let (world, issuer) = everybody(true).await;
    let ada = world.licensee(LicenseState::Active).await;
    world.house.store.link_subject(ada.user.id, "kg-ada".to_owned(), Effects::default()).await.unwrap();
    let (session, _) = world.house.signed_in(&ada.user).await;
    let callers = [ada.get(), Asked::get("/x").session(&session), token(&issuer, "kg-ada")];
    let set = Set(Arc::new(Mutex::new(Ok(Vec::new()))));
    world.house.gate.use_blocked_subjects(Some(Box::new(set.clone())));
    for caller in &callers {
        assert_eq!(world.house.ask(caller).await, Ok(()));
    }
    *lock(&set.0) = Ok(vec!["kg-ada".to_owned()]);
    let verdicts = [Reason::LicenseBlocked, Reason::LicenseBlocked, Reason::TokenRevoked];
    for (caller, reason) in callers.iter().zip(verdicts) {
        assert_eq!(world.house.ask(caller).await, Err(reason));
    }
    *lock(&set.0) = Err("no connection".to_owned());
    for caller in &callers {
        assert_eq!(
            world.house.ask(caller).await,
            Err(Reason::SharedUnavailable),
            "a set that is down has said nothing"
        );
    }
    // Our own list says the same to people, whatever the set does.
    *lock(&set.0) = Ok(Vec::new());
    world.house.revoke(Scope::Subject { issuer: "main".to_owned(), subject: "kg-ada".to_owned() }).await;
    world.house.gate.follow().await;
    for (caller, reason) in callers.iter().zip(verdicts) {
        assert_eq!(world.house.ask(caller).await, Err(reason));
    }
}

/// Signs `user` in as the flow does for a pending user whose candidate fits.
async fn promote(house: &House, user: &User, subject: &str) -> OpaqueToken {
    let now = house.clock.now().wall;
    let token = OpaqueToken::mint([210; 32]);
    let asker = Asker::new(None, None);
    let request = LinkRequest {
        id: LinkId::mint(now, [211; 10]),
        browser: token.hash(),
        return_to: "/".to_owned(),
        ttl: Duration::from_secs(900),
        asker: asker.clone(),
    };
    let (link, effects) = link::plan_request(user, request, now).unwrap();
    house.store.put_link(link.clone(), effects).await.unwrap();
    let new = NewSession {
        id: SessionId::mint(now, [212; 10]),
        hash: token.hash(),
        method: SignInMethod::MagicLink,
        absolute: DAY,
        asker,
        replaces: None,
    };
    let (mut plan, mut effects) = link::plan_consume(&link, new, now);
    link::promote(&mut plan, &mut effects, Promotion::Promote { subject: subject.to_owned() });
    assert_eq!(house.store.consume_link(plan, effects).await.unwrap(), Consume::Consumed);
    token
}

#[tokio::test]
async fn whoever_is_promoted_to_a_blocked_subject_is_blocked_in_every_process_while_nobody_can_be_asked() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    world.house.store.set_pending(ada.user.id, "kg-ada".to_owned(), Effects::default()).await.unwrap();
    world.house.revoke(Scope::Subject { issuer: "main".to_owned(), subject: "kg-ada".to_owned() }).await;
    let replica = House::unread(world.house.store.clone(), vec![licensed(LicenseMode::ActiveOrGraceRead)]);
    replica.gate.use_licenses(Some(parts(&world.vendor)));
    for house in [&world.house, &replica] {
        house.gate.follow().await;
        assert_eq!(house.ask(&ada.get()).await, Ok(()), "the subject is a candidate only");
    }
    world.vendor.fail(FaultKind::Unavailable);
    let pending = world.house.store.user(ada.user.id).await.unwrap().unwrap();
    let session = promote(&world.house, &pending, "kg-ada").await;
    for house in [&world.house, &replica] {
        house.gate.follow().await;
        assert_eq!(house.ask(&ada.get()).await, Err(Reason::LicenseBlocked));
        // The session that began with it is blocked too, and not revoked.
        assert_eq!(house.ask(&Asked::get("/x").session(&session)).await, Err(Reason::LicenseBlocked));
    }
}
