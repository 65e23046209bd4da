use std::{future::Future, pin::pin, sync::Arc, task::Poll, time::Duration};

use doorward_core::{
    api_key::KeyOwner, credential::CredentialKind, effects::Effects, principal::Principal, reason::Reason,
    revocation::Scope,
};
use doorward_store::Which;

use super::house::{Asked, House, SESSION, rule};

async fn house() -> House {
    House::of(vec![rule("/*", SESSION.with(CredentialKind::ApiKey))]).await
}

async fn admitted(house: &House, request: &Asked) -> Arc<Principal> {
    Arc::clone(house.decide(request).await.outcome.unwrap().principal.unwrap().get())
}

/// What it has come to by now.
async fn so_far(ended: impl Future<Output = Reason>) -> Option<Reason> {
    let mut ended = pin!(ended);
    std::future::poll_fn(|cx| {
        Poll::Ready(match ended.as_mut().poll(cx) {
            Poll::Ready(reason) => Some(reason),
            Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn an_open_socket_ends_with_its_session_and_with_no_other() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let (token, session) = house.signed_in(&ada).await;
    let (_, other) = house.signed_in(&ada).await;
    let principal = admitted(&house, &Asked::get("/x").session(&token)).await;
    let mut ended = pin!(house.gate.ended(principal, house.clock.now()));
    assert_eq!(so_far(ended.as_mut()).await, None);
    house.revoke(Scope::Session { id: other.id }).await;
    house.gate.follow().await;
    assert_eq!(so_far(ended.as_mut()).await, None);
    house.revoke(Scope::Session { id: session.id }).await;
    house.gate.follow().await;
    assert_eq!(so_far(ended.as_mut()).await, Some(Reason::SessionRevoked));
}

#[tokio::test]
async fn a_ban_between_the_admission_and_the_first_look_ends_the_socket() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let (text, _) = house.api_key(KeyOwner::User(ada.id), &[], |_| ()).await;
    let since = house.clock.now();
    let principal = admitted(&house, &Asked::get("/x").bearer(&text)).await;
    house.clock.advance(Duration::from_millis(5));
    house.ban(&ada).await;
    house.gate.follow().await;
    assert_eq!(so_far(house.gate.ended(principal, since)).await, Some(Reason::UserBanned));
}

#[tokio::test]
async fn a_session_that_began_while_all_were_ended_holds_no_socket_open() {
    for is_of_everybody in [false, true] {
        let house = house().await;
        let ada = house.user("ada@example.com").await;
        let scope = if is_of_everybody { Scope::AllSessions } else { Scope::UserSessions { id: ada.id } };
        // The command says when it began; the session is younger by the clock, and gone with the others.
        let entry = house.revocation(scope);
        house.clock.advance(Duration::from_millis(1));
        let (token, _) = house.signed_in(&ada).await;
        let principal = admitted(&house, &Asked::get("/x").session(&token)).await;
        let mut ended = pin!(house.gate.ended(principal, house.clock.now()));
        assert_eq!(so_far(ended.as_mut()).await, None);
        house.store.end_sessions(Which::All, Effects::default().with_revocation(entry)).await.unwrap();
        house.gate.follow().await;
        assert_eq!(so_far(ended.as_mut()).await, Some(Reason::SessionRevoked));
        // And who comes after it may stay.
        house.clock.advance(Duration::from_millis(1));
        let (token, _) = house.signed_in(&ada).await;
        let principal = admitted(&house, &Asked::get("/x").session(&token)).await;
        assert_eq!(so_far(house.gate.ended(principal, house.clock.now())).await, None);
    }
}

#[tokio::test]
async fn a_change_before_the_admission_ends_nothing() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let (token, _) = house.signed_in(&ada).await;
    house.revoke(Scope::User { id: ada.id }).await;
    house.gate.follow().await;
    house.clock.advance(Duration::from_millis(1));
    let since = house.clock.now();
    let principal = admitted(&house, &Asked::get("/x").session(&token)).await;
    assert_eq!(so_far(house.gate.ended(principal, since)).await, None);
}

#[tokio::test]
async fn a_ban_is_not_missed_among_more_entries_than_are_kept_for_listeners() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let (token, _) = house.signed_in(&ada).await;
    let principal = admitted(&house, &Asked::get("/x").session(&token)).await;
    let mut ended = pin!(house.gate.ended(principal, house.clock.now()));
    assert_eq!(so_far(ended.as_mut()).await, None);
    house.ban(&ada).await;
    let others = (0..3000).fold(Effects::default(), |effects, n| {
        let scope = Scope::Token { issuer: "main".to_owned(), jti: n.to_string() };
        effects.with_revocation(house.revocation(scope))
    });
    house.store.append(others).await.unwrap();
    house.gate.follow().await;
    assert_eq!(so_far(ended.as_mut()).await, Some(Reason::UserBanned));
}

#[tokio::test(start_paused = true)]
async fn a_socket_ends_at_the_end_of_its_session_also_where_the_clock_was_set() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let (token, session) = house.signed_in(&ada).await;
    let principal = admitted(&house, &Asked::get("/x").session(&token)).await;
    let mut ended = pin!(house.gate.ended(principal, house.clock.now()));
    assert_eq!(so_far(ended.as_mut()).await, None);
    house.clock.set_wall(session.expires_at);
    // Nothing happens and nobody calls; it looks by itself within a minute.
    let reason = tokio::time::timeout(Duration::from_secs(61), ended).await;
    assert_eq!(reason, Ok(Reason::SessionExpiredAbsolute));
}
