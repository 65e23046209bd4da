//! Keys of our own change while people sign in.

use doorward_core::{reason::Reason, revocation::Scope, ring::Purpose};
use doorward_store::Store;

use super::house::{Browser, House};

crate::on_every_store! {
    async fn rotating_the_session_key_ends_every_session(store: Store) {
        let house = House::over(store).await;
        let mut sessions = Vec::new();
        for n in 0..3 {
            let email = format!("user{n}@example.com");
            house.user(&email).await;
            sessions.push(house.signed_in(&email, &mut Browser::at(&format!("192.0.2.{n}"))).await.session.hash);
        }
        let before = house.store.last_revocation().await.unwrap();
        house.ring.rotate(Purpose::Session).await.unwrap();
        for hash in sessions {
            assert!(house.store.session(hash).await.unwrap().is_none());
        }
        let log = house.store.revocations_after(before, 10).await.unwrap();
        let scopes: Vec<_> = log.into_iter().map(|revocation| revocation.entry.scope).collect();
        // With the key, and again for those that began until the new one was in use.
        assert_eq!(scopes, [Scope::KeyRing { purpose: "session".into() }, Scope::AllSessions, Scope::AllSessions]);
        assert_eq!(house.audited("session.revoked").await.len(), 1);
        house.signed_in("user0@example.com", &mut Browser::at("192.0.2.9")).await;
    }

    async fn a_link_outlives_one_rotation_of_its_key_and_not_two(store: Store) {
        let house = House::over(store.clone()).await;
        let replica = house.replica(store).await;
        house.user("anna@example.com").await;
        let mut browser = Browser::at("192.0.2.1");
        let mut second = Browser::at("192.0.2.7");
        let one = house.link("anna@example.com", &mut browser).await;
        let two = house.link("anna@example.com", &mut second).await;
        house.ring.rotate(Purpose::Link).await.unwrap();
        assert!(browser.confirm(&house, &one).await.is_ok());
        assert_eq!(second.confirm(&replica, &two).await.map(|_| ()), Ok(()), "a replica behind the log still has the key");
        house.ring.rotate(Purpose::Link).await.unwrap();
        assert_eq!(browser.refused(&house, &one).await, Reason::LinkInvalid);
        let fresh = house.link("anna@example.com", &mut Browser::at("192.0.2.3")).await;
        replica.ring.reload(Purpose::Link).await.unwrap();
        assert_eq!(Browser::at("192.0.2.4").refused(&replica, &fresh).await, Reason::LinkWrongBrowser);
    }
}
