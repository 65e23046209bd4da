use doorward_core::{effects::Effects, id::LinkId, link::Link, user::User};

use super::{START, all_effects, fresh, link, plan, race, session, stored_user, traces};
use crate::{Consume, Store, StoreError};

pub async fn a_link_is_found_and_consumed_once(a: Store, b: Store) {
    let user = stored_user(&a).await;
    let link = link(&user);
    assert_eq!(b.link(link.id).await, Ok(None));
    a.put_link(link.clone(), Effects::default()).await.unwrap();
    assert_eq!(b.link(link.id).await, Ok(Some(link.clone())));
    let plan = plan(&link, &user);
    assert_eq!(b.consume_link(plan.clone(), all_effects()).await, Ok(Consume::Consumed));
    assert_eq!(a.link(link.id).await, Ok(Some(Link { used_at: Some(plan.at), ..link.clone() })));
    let verified = User { email_verified: true, ..user.clone() };
    assert_eq!(a.session(plan.session.hash).await, Ok(Some((plan.session.clone(), verified))));
    let left = traces(&a).await;
    assert_eq!((left.0, left.1), (1, 1));
    let again = super::plan(&link, &user);
    assert_eq!(a.consume_link(again.clone(), all_effects()).await, Ok(Consume::AlreadyUsed));
    assert_eq!(a.session(again.session.hash).await, Ok(None));
    let unknown = doorward_core::link::ConsumeLink { link: LinkId::mint(START, fresh()), ..again };
    assert_eq!(a.consume_link(unknown, all_effects()).await, Ok(Consume::Unknown));
    assert_eq!(traces(&b).await, left, "only the first left effects");
    let error = a.put_link(link, all_effects()).await.unwrap_err();
    assert!(matches!(error, StoreError::Fault { op: "put_link", .. }), "{error}");
    let stranger = super::user();
    let error = a.put_link(super::link(&stranger), all_effects()).await.unwrap_err();
    assert!(matches!(error, StoreError::Fault { .. }), "{error}");
    assert_eq!(traces(&b).await, left, "a link of nobody leaves nothing");
}

pub async fn a_hundred_callers_consume_a_link_once(a: Store, b: Store) {
    let user = stored_user(&a).await;
    for _ in 0..5 {
        let link = link(&user);
        a.put_link(link.clone(), Effects::default()).await.unwrap();
        let before = traces(&a).await;
        let outcomes = race(100, &a, &b, |store, _| {
            let plan = plan(&link, &user);
            async move { store.consume_link(plan, all_effects()).await.unwrap() }
        })
        .await;
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Consume::Consumed).count(), 1);
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Consume::AlreadyUsed).count(), 99);
        let after = traces(&b).await;
        assert_eq!((after.0, after.1), (before.0 + 1, before.1 + 1));
    }
    assert_eq!(a.sessions_of(user.id).await.unwrap().len(), 5);
}

pub async fn a_link_of_a_user_who_changed_is_not_consumed(a: Store, b: Store) {
    let user = stored_user(&a).await;
    let link = link(&user);
    a.put_link(link.clone(), Effects::default()).await.unwrap();
    a.set_banned(user.id, Some(START), Effects::default()).await.unwrap();
    assert_eq!(b.consume_link(plan(&link, &user), all_effects()).await, Ok(Consume::UserChanged), "banned");
    let banned = a.user(user.id).await.unwrap().unwrap();
    assert_eq!(b.consume_link(plan(&link, &banned), all_effects()).await, Ok(Consume::UserChanged), "still banned");
    a.set_banned(user.id, None, Effects::default()).await.unwrap();
    assert_eq!(b.consume_link(plan(&link, &user), all_effects()).await, Ok(Consume::UserChanged), "an older version");
    let other = stored_user(&a).await;
    assert_eq!(b.consume_link(plan(&link, &other), all_effects()).await, Ok(Consume::UserChanged), "somebody else's");
    assert_eq!(traces(&b).await, (0, 0, 0));
    assert_eq!(b.link(link.id).await.unwrap().unwrap().used_at, None, "the link stays unused");
    assert_eq!(b.sessions_of(user.id).await, Ok(vec![]));
    assert!(!b.user(user.id).await.unwrap().unwrap().email_verified);
}

pub async fn consuming_a_link_ends_the_session_it_replaces(a: Store, b: Store) {
    let user = stored_user(&a).await;
    let mut before = None;
    for _ in 0..3 {
        let link = link(&user);
        a.put_link(link.clone(), Effects::default()).await.unwrap();
        let mut plan = plan(&link, &user);
        plan.replaces = before;
        before = Some(plan.session.hash);
        assert_eq!(b.consume_link(plan, Effects::default()).await, Ok(Consume::Consumed));
        assert_eq!(a.sessions_of(user.id).await.unwrap().len(), 1);
    }
    // A session whose token exists already is a broken promise of the generator: nothing of it is kept.
    let link = link(&user);
    a.put_link(link.clone(), Effects::default()).await.unwrap();
    let mut clash = plan(&link, &user);
    clash.session.hash = before.unwrap_or_else(|| session(&user).hash);
    let error = b.consume_link(clash, all_effects()).await.unwrap_err();
    assert!(matches!(error, StoreError::Fault { op: "consume_link", .. }), "{error}");
    assert_eq!(a.link(link.id).await.unwrap().unwrap().used_at, None);
    assert_eq!(traces(&a).await, (0, 0, 0));
}
