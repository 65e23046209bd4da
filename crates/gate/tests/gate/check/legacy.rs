//! Tokens of the old system, in the soak window and after it.

use std::{pin::pin, sync::Arc, task::Poll, time::Duration};

use doorward_core::{
    credential::CredentialKind,
    effects::Effects,
    jose::hs256::{self, MacKey},
    principal::Authenticated,
    reason::Reason,
    revocation::Scope,
    rule::{Require, Rule},
    user::User,
};
use doorward_gate::{
    gate::Checked,
    issuer::Issuers,
    policy::{LegacyPolicy, Policy},
    window::Window,
};
use serde_json::{Value, json};

use super::house::{Asked, House, SESSION, START, policy, rule};

fn key(byte: u8) -> MacKey {
    MacKey::new(&[byte; 32]).unwrap()
}

fn claims(user: &User) -> Value {
    json!({ "sub": user.id, "email": user.email, "role": "admin", "iat": START.as_secs(), "exp": START.as_secs() + 86_400 })
}

fn request(claims: &Value) -> Asked {
    Asked::get("/x").bearer(&hs256::mint(&key(1), "JWT", claims).unwrap())
}

fn rules() -> Vec<Rule> {
    let soaked = SESSION.with(CredentialKind::Legacy);
    let asks = |path, change: fn(&mut Require)| {
        let mut rule = rule(path, soaked.with(CredentialKind::Bearer).with(CredentialKind::ApiKey));
        change(&mut rule.require);
        rule
    };
    vec![
        asks("/recent", |require| require.recent_auth = true),
        asks("/capable", |require| require.capability = Some("deploy".into())),
        asks("/scoped", |require| require.scopes = vec!["admin".into()]),
        asks("/claimed", |require| require.claims = [("role".to_owned(), json!("admin"))].into()),
        rule("/*", soaked),
    ]
}

/// A policy whose file has a soak window.
fn soaking(version: u64, allow: bool, key: Option<MacKey>) -> Arc<Policy> {
    let plain = policy(version, rules());
    let whole = Arc::into_inner(plain).unwrap();
    Arc::new(whole.with_legacy(LegacyPolicy { allow, key }))
}

fn swap(house: &House, policy: Arc<Policy>) {
    house.gate.swap(policy, Issuers::new(Vec::new(), &house.clock, None).unwrap());
}

async fn house() -> House {
    let house = House::of(rules()).await;
    swap(&house, soaking(2, true, Some(key(1))));
    house.gate.use_window(Window::Open);
    house
}

#[tokio::test]
async fn a_token_of_the_old_system_stands_for_its_user_by_id_and_by_mail() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let mut by_mail = claims(&ada);
    by_mail["sub"] = json!("17");
    for claims in [claims(&ada), by_mail] {
        let principal = Arc::clone(house.decide(&request(&claims)).await.outcome.unwrap().principal.unwrap().get());
        assert_eq!(principal.user_id, Some(ada.id));
        assert!(principal.subject.is_local());
        assert!(matches!(principal.authenticated, Authenticated::Legacy { .. }));
    }
    // From memory the second time.
    house.store.close().await;
    assert!(matches!(house.check(&request(&claims(&ada))), Checked::Ready(decision) if decision.outcome.is_ok()));
}

#[tokio::test]
async fn a_subject_seen_once_stays_with_its_user_when_the_address_passes_to_somebody_else() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let bob = house.user("bob@example.com").await;
    let mut old = claims(&ada);
    old["sub"] = json!("17");
    assert_eq!(house.decide(&request(&old)).await.caller.unwrap().user_id, Some(ada.id));
    old["email"] = json!(bob.email);
    assert_eq!(house.decide(&request(&old)).await.caller.unwrap().user_id, Some(ada.id));
}

#[tokio::test]
async fn nobody_a_banned_user_and_a_wrong_secret_are_refused() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let mut stranger = claims(&ada);
    stranger["sub"] = json!("17");
    stranger["email"] = json!("nobody@example.com");
    assert_eq!(house.ask(&request(&stranger)).await, Err(Reason::TokenInvalidClaim));
    assert_eq!(house.ask(&request(&claims(&ada))).await, Ok(()));
    let forged = Asked::get("/x").bearer(&hs256::mint(&key(2), "JWT", &claims(&ada)).unwrap());
    assert_eq!(house.ask(&forged).await, Err(Reason::TokenBadSignature));
    // A secret that was changed voids what was admitted under the old one.
    swap(&house, soaking(3, true, Some(key(2))));
    assert_eq!(house.ask(&forged).await, Ok(()));
    assert_eq!(house.ask(&request(&claims(&ada))).await, Err(Reason::TokenBadSignature));
    swap(&house, soaking(4, true, None));
    assert_eq!(house.ask(&request(&claims(&ada))).await, Err(Reason::TokenBadSignature));
    swap(&house, soaking(5, true, Some(key(1))));
    house.ban(&ada).await;
    house.gate.follow().await;
    assert_eq!(house.ask(&request(&claims(&ada))).await, Err(Reason::UserBanned));
    house.clock.advance(Duration::from_secs(86_400));
    house.gate.follow().await;
    assert_eq!(house.ask(&request(&claims(&ada))).await, Err(Reason::TokenExpired));
}

#[tokio::test]
async fn what_ends_all_sessions_of_a_user_ends_the_tokens_issued_before() {
    for scope in [|user: &User| Scope::UserSessions { id: user.id }, |_: &User| Scope::AllSessions] {
        let house = house().await;
        let ada = house.user("ada@example.com").await;
        house.advance(Duration::from_secs(60)).await;
        let mut undated = claims(&ada);
        undated.as_object_mut().unwrap().remove("iat");
        let mut later = claims(&ada);
        later["iat"] = json!(START.as_secs() + 61);
        for good in [claims(&ada), undated.clone()] {
            assert_eq!(house.ask(&request(&good)).await, Ok(()));
        }
        house.revoke(scope(&ada)).await;
        house.advance(Duration::from_secs(5)).await;
        assert_eq!(house.ask(&request(&claims(&ada))).await, Err(Reason::TokenRevoked));
        assert_eq!(house.ask(&request(&undated)).await, Err(Reason::TokenRevoked));
        assert_eq!(house.ask(&request(&later)).await, Ok(()));
    }
}

#[tokio::test]
async fn a_token_of_the_old_system_meets_no_requirement_of_a_rule() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let token = hs256::mint(&key(1), "JWT", &{
        let mut claims = claims(&ada);
        claims["scope"] = json!("admin");
        claims
    })
    .unwrap();
    for (path, reason) in [
        ("/recent", Reason::ReAuthRequired),
        ("/capable", Reason::MissingCapability),
        ("/scoped", Reason::MissingScope),
        ("/claimed", Reason::MissingClaim),
    ] {
        assert_eq!(house.ask(&Asked::get(path).bearer(&token)).await, Err(reason), "{path}");
    }
}

#[tokio::test]
async fn a_session_cookie_wins_also_when_it_is_no_good() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let bob = house.user("bob@example.com").await;
    let (session, record) = house.signed_in(&bob).await;
    let both = request(&claims(&ada)).session(&session);
    let decision = house.decide(&both).await;
    assert_eq!(decision.caller.unwrap().user_id, Some(bob.id));
    house
        .store
        .end_session(
            record.hash,
            Effects::default().with_revocation(house.revocation(Scope::Session { id: record.id })),
        )
        .await
        .unwrap();
    house.gate.follow().await;
    assert!(house.ask(&both).await.is_err());
}

#[tokio::test]
async fn a_closed_window_admits_nobody_and_ends_what_is_open() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let asked = request(&claims(&ada));
    let principal = house.decide(&asked).await.caller.unwrap();
    let mut ended = pin!(house.gate.ended(principal, house.clock.now()));
    assert!(std::future::poll_fn(|cx| Poll::Ready(ended.as_mut().poll(cx).is_pending())).await);
    house.gate.use_window(Window::Closed);
    assert_eq!(tokio::time::timeout(Duration::from_mins(1), ended).await, Ok(Reason::LegacyLoginDisabled));
    assert_eq!(house.ask(&asked).await, Err(Reason::LegacyLoginDisabled));
    house.gate.use_window(Window::Open);
    assert_eq!(house.ask(&asked).await, Ok(()));
    // The file is the ceiling.
    swap(&house, soaking(3, false, Some(key(1))));
    assert_eq!(house.ask(&asked).await, Err(Reason::LegacyLoginDisabled));
    assert_eq!(house.gate.window(), Window::Closed);
}

#[tokio::test]
async fn before_the_state_is_known_nobody_can_tell() {
    let house = House::of(rules()).await;
    swap(&house, soaking(2, true, Some(key(1))));
    let ada = house.user("ada@example.com").await;
    assert_eq!(house.ask(&request(&claims(&ada))).await, Err(Reason::StoreUnavailable));
}
