use std::time::Duration;

use doorward_core::{
    api_key::KeyOwner,
    effects::Effects,
    reason::Reason,
    revocation::Scope,
    rule::{Require, Rule},
};
use doorward_gate::gate::Checked;

use super::house::{Asked, House, KEY, START, rule};

async fn house() -> House {
    let deploy = Require { capability: Some("deploy".to_owned()), ..Require::default() };
    House::of(vec![Rule { require: deploy, ..rule("/deploy", KEY) }, rule("/*", KEY)]).await
}

fn service() -> KeyOwner {
    KeyOwner::Service("ci".to_owned())
}

#[tokio::test]
async fn a_key_does_what_its_capabilities_say() {
    let house = house().await;
    let (able, _) = house.api_key(service(), &["deploy"], |_| ()).await;
    let (other, _) = house.api_key(service(), &["read"], |_| ()).await;
    assert_eq!(house.ask(&Asked::post("/deploy").bearer(&able)).await, Ok(()));
    assert_eq!(house.ask(&Asked::post("/deploy").bearer(&other)).await, Err(Reason::MissingCapability));
    assert_eq!(house.ask(&Asked::post("/x").bearer(&other)).await, Ok(()));
    house.store.close().await;
    assert!(matches!(house.check(&Asked::get("/x").bearer(&able)), Checked::Ready(_)), "from memory");
}

#[tokio::test]
async fn a_key_that_is_over_says_how() {
    let house = house().await;
    let (revoked, _) = house.api_key(service(), &[], |key| key.revoked_at = Some(START)).await;
    let (deleted, _) = house.api_key(service(), &[], |key| key.deleted_at = Some(START)).await;
    let ends = START.plus(Duration::from_secs(60));
    let (ending, _) = house.api_key(service(), &[], |key| key.expires_at = Some(ends)).await;
    assert_eq!(house.ask(&Asked::get("/x").bearer(&revoked)).await, Err(Reason::ApiKeyRevoked));
    assert_eq!(house.ask(&Asked::get("/x").bearer(&deleted)).await, Err(Reason::ApiKeyDeleted));
    assert_eq!(house.ask(&Asked::get("/x").bearer(&ending)).await, Ok(()));
    house.advance(Duration::from_secs(60)).await;
    assert_eq!(house.ask(&Asked::get("/x").bearer(&ending)).await, Err(Reason::ApiKeyExpired));
    let unknown = doorward_core::api_key::mint([200; 32]).text;
    assert_eq!(house.ask(&Asked::get("/x").bearer(unknown.expose())).await, Err(Reason::ApiKeyNotFound));
}

#[tokio::test]
async fn a_mistyped_key_is_refused_without_a_question_to_the_store() {
    let house = house().await;
    let (text, _) = house.api_key(service(), &[], |_| ()).await;
    house.store.close().await;
    let Checked::Ready(decision) = house.check(&Asked::get("/x").bearer(&text[..text.len() - 1])) else {
        panic!("asked the store")
    };
    assert_eq!(decision.outcome.unwrap_err().reason, Reason::ApiKeyNotFound);
}

#[tokio::test]
async fn a_key_revoked_in_another_process_ends_as_soon_as_the_log_is_read() {
    let house = house().await;
    let (text, key) = house.api_key(service(), &[], |_| ()).await;
    let request = Asked::get("/x").bearer(&text);
    assert_eq!(house.ask(&request).await, Ok(()));
    let effects = Effects::default().with_revocation(house.revocation(Scope::ApiKey { id: key.id }));
    house.store.revoke_api_key(key.id, house.clock.now().wall, effects).await.unwrap();
    assert_eq!(house.ask(&request).await, Ok(()), "nobody has read the log");
    house.gate.follow().await;
    assert_eq!(house.ask(&request).await, Err(Reason::ApiKeyRevoked));
}

#[tokio::test]
async fn the_keys_of_a_banned_user_admit_nobody() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let (text, _) = house.api_key(KeyOwner::User(ada.id), &[], |_| ()).await;
    let request = Asked::get("/x").bearer(&text);
    assert_eq!(house.ask(&request).await, Ok(()));
    house.ban(&ada).await;
    house.gate.follow().await;
    assert_eq!(house.ask(&request).await, Err(Reason::UserBanned));
}
