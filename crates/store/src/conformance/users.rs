use std::time::Duration;

use doorward_core::{
    effects::Effects,
    id::UserId,
    secret::Secret,
    user::{LinkStatus, User},
};

use super::{START, all_effects, fresh, race, stored_user, traces, user};
use crate::{Changed, CreateUser, LinkIdentity, Store, StoreError};

pub async fn a_user_is_found_by_id_and_address(a: Store, b: Store) {
    let full = User {
        email_verified: true,
        admin: true,
        version: 7,
        banned_at: Some(START),
        link_status: Some(LinkStatus::PendingVerify),
        candidate_subject: Some("sub'ject\u{fc}".to_owned()),
        ..user()
    };
    let plain = user();
    for user in [full, plain] {
        assert_eq!(b.user(user.id).await, Ok(None));
        assert_eq!(a.create_user(user.clone(), Effects::default()).await, Ok(CreateUser::Created));
        assert_eq!(b.user(user.id).await, Ok(Some(user.clone())));
        assert_eq!(b.user_by_email(user.email.clone()).await, Ok(Some(user)));
    }
    assert_eq!(a.user_by_email(user().email).await, Ok(None));
}

pub async fn an_address_belongs_to_one_user_however_many_ask_at_once(a: Store, b: Store) {
    let email = user().email;
    let outcomes = race(40, &a, &b, |store, _| {
        let user = User { email: email.clone(), ..user() };
        async move { store.create_user(user, all_effects()).await.unwrap() }
    })
    .await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == CreateUser::Created).count(), 1);
    assert_eq!(a.users(None, 100).await.unwrap().len(), 1);
    assert_eq!(traces(&b).await, (1, 1, a.last_revocation().await.unwrap()), "the losers' effects are not there");
    let twice = User { email: user().email, ..stored_user(&a).await };
    let error = a.create_user(twice, all_effects()).await.unwrap_err();
    assert!(matches!(error, StoreError::Fault { op: "create_user", .. }), "{error}");
}

pub async fn users_come_in_pages_in_the_order_of_their_ids(a: Store, b: Store) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(stored_user(&a).await.id);
    }
    ids.sort();
    let first: Vec<UserId> = b.users(None, 3).await.unwrap().iter().map(|user| user.id).collect();
    let second: Vec<UserId> = b.users(first.last().copied(), 3).await.unwrap().iter().map(|user| user.id).collect();
    assert_eq!([first.as_slice(), second.as_slice()].concat(), ids);
    assert_eq!(b.users(second.last().copied(), 3).await, Ok(vec![]));
}

pub async fn a_ban_counts_the_version_up_and_an_unknown_user_is_named(a: Store, b: Store) {
    let before = stored_user(&a).await;
    let banned_at = Some(START.plus(Duration::from_secs(1)));
    let banned = User { banned_at, version: before.version + 1, ..before.clone() };
    assert_eq!(a.set_banned(before.id, banned_at, Effects::default()).await, Ok(Changed::Changed(banned.clone())));
    assert_eq!(b.user(before.id).await, Ok(Some(banned.clone())));
    let lifted = User { banned_at: None, version: before.version + 2, ..banned };
    assert_eq!(b.set_banned(before.id, None, Effects::default()).await, Ok(Changed::Changed(lifted)));
    let nobody = UserId::mint(START, fresh());
    assert_eq!(a.set_banned(nobody, banned_at, all_effects()).await, Ok(Changed::Unknown));
    assert_eq!(traces(&b).await, (0, 0, 0));
}

pub async fn an_identity_belongs_to_one_user(a: Store, b: Store) {
    let (first, second) = (stored_user(&a).await, stored_user(&a).await);
    let link = async |store: &Store, user: &User| {
        store.link_identity("main".to_owned(), "sub".to_owned(), user.id, Effects::default()).await
    };
    assert_eq!(b.user_by_identity("main".to_owned(), "sub".to_owned()).await, Ok(None));
    assert_eq!(link(&a, &first).await, Ok(LinkIdentity::Linked));
    assert_eq!(link(&b, &first).await, Ok(LinkIdentity::Linked), "again for the same user");
    assert_eq!(link(&b, &second).await, Ok(LinkIdentity::Taken));
    assert_eq!(b.user_by_identity("main".to_owned(), "sub".to_owned()).await, Ok(Some(first)));
    assert_eq!(b.user_by_identity("other".to_owned(), "sub".to_owned()).await, Ok(None), "the issuer is part of it");
    let nobody = UserId::mint(START, fresh());
    let error = a.link_identity("main".to_owned(), "new".to_owned(), nobody, all_effects()).await.unwrap_err();
    assert!(matches!(error, StoreError::Fault { .. }), "{error}");
    let outcomes = race(20, &a, &b, |store, number| {
        let id = if number < 10 { second.id } else { nobody };
        let other = user();
        async move {
            let id = if number < 10 { id } else { other.id };
            if number >= 10 {
                store.create_user(other, Effects::default()).await.unwrap();
            }
            store
                .link_identity("main".to_owned(), "raced".to_owned(), id, Effects::default())
                .await
                .map(|out| (id, out))
        }
    })
    .await;
    let owner = b.user_by_identity("main".to_owned(), "raced".to_owned()).await.unwrap().unwrap().id;
    for outcome in outcomes {
        let (id, outcome) = outcome.unwrap();
        assert_eq!(outcome == LinkIdentity::Linked, id == owner);
    }
}

pub async fn password_hashes_are_read_of_the_newest_users_first_and_of_nobody_else(a: Store, b: Store) {
    let mut users = [stored_user(&a).await, stored_user(&a).await, stored_user(&a).await];
    users.sort_unstable_by_key(|user| user.id);
    let read = async |limit| {
        let hashes = b.password_hashes(limit).await.unwrap();
        hashes.iter().map(|hash| hash.expose().clone()).collect::<Vec<_>>()
    };
    assert!(read(10).await.is_empty());
    for (user, hash) in users.iter().zip(["first", "second"]) {
        a.set_password(user.id, Some(Secret::new(hash.to_owned())), Effects::default()).await.unwrap();
    }
    assert_eq!(read(10).await, ["second", "first"]);
    assert_eq!(read(1).await, ["second"]);
    a.set_password(users[1].id, None, Effects::default()).await.unwrap();
    assert_eq!(read(10).await, ["first"]);
}
