use std::time::Duration;

use doorward_core::{
    effects::Effects,
    id::{LinkId, SessionId},
    link::{ConsumeLink, Link, LinkPurpose, Promotion, Proof, TypedCode},
    user::{Email, LinkStatus, User},
};

use super::{START, all_effects, fresh, fresh_hash, link, plan, race, stored_user, traces};
use crate::{Changed, Consume, Store, TryCode};

/// A link with a code.
fn with_code(user: &User) -> Link {
    let code = TypedCode { hash: [7; 32], expires_at: START.plus(Duration::from_mins(10)), tries: 0 };
    Link { code: Some(code), ..link(user) }
}

async fn put(store: &Store, link: Link) -> Link {
    store.put_link(link.clone(), Effects::default()).await.unwrap();
    link
}

async fn voided(store: &Store, link: &Link) -> bool {
    store.link(link.id).await.unwrap().unwrap().voided_at.is_some()
}

pub async fn a_newer_link_voids_older_ones_of_the_same_user_purpose_and_browser(a: Store, b: Store) {
    let (user, other) = (stored_user(&a).await, stored_user(&a).await);
    let browser = fresh_hash();
    let here = |user: &User| Link { browser, ..link(user) };
    let old = put(&a, here(&user)).await;
    let used = put(&a, Link { used_at: Some(START), ..here(&user) }).await;
    let elsewhere = put(&a, link(&user)).await;
    let of_other = put(&a, here(&other)).await;
    let to = Email::parse("new@example.com").unwrap();
    let purposes = [LinkPurpose::ReAuth { session: SessionId::mint(START, fresh()) }, LinkPurpose::EmailChange { to }];
    let mut kept = vec![used, elsewhere, of_other];
    for purpose in purposes {
        kept.push(put(&b, Link { purpose, ..here(&user) }).await);
    }
    assert!(voided(&a, &old).await, "the link that was used counts as newer");
    let newer = put(&b, Link { created_at: START.plus(Duration::from_secs(9)), ..here(&user) }).await;
    let newest = put(&b, Link { created_at: START.plus(Duration::from_secs(10)), ..here(&user) }).await;
    let gone = Link { voided_at: Some(newest.created_at), ..newer.clone() };
    assert_eq!(a.link(newer.id).await, Ok(Some(gone)));
    kept.push(newest);
    for link in &kept {
        assert_eq!(a.link(link.id).await, Ok(Some(link.clone())));
    }
    assert_eq!(b.consume_link(plan(&newer, &user), all_effects()).await, Ok(Consume::Voided));
    assert_eq!(traces(&a).await, (0, 0, 0));
    // Many at once from one browser: one is left.
    let raced = race(20, &a, &b, |store, number| {
        let link = Link { browser, created_at: START.plus(Duration::from_secs(20 + number as u64)), ..link(&user) };
        async move { put(&store, link).await }
    })
    .await;
    let mut live = 0;
    for link in &raced {
        live += usize::from(!voided(&a, link).await);
    }
    assert_eq!(live, 1);
}

pub async fn a_link_and_its_code_begin_one_session_however_many_ask(a: Store, b: Store) {
    let user = stored_user(&a).await;
    for _ in 0..5 {
        let link = put(&a, with_code(&user)).await;
        let outcomes = race(100, &a, &b, |store, number| {
            let by = if number % 3 == 0 { Proof::Code } else { Proof::Link };
            let plan = ConsumeLink { by, ..plan(&link, &user) };
            async move { store.consume_link(plan, Effects::default()).await.unwrap() }
        })
        .await;
        assert_eq!(outcomes.iter().filter(|out| **out == Consume::Consumed).count(), 1);
        assert_eq!(outcomes.iter().filter(|out| **out == Consume::AlreadyUsed).count(), 99);
    }
    assert_eq!(a.sessions_of(user.id).await.unwrap().len(), 5);
}

pub async fn a_code_is_tried_five_times_however_many_try(a: Store, b: Store) {
    let user = stored_user(&a).await;
    let link = put(&a, with_code(&user)).await;
    let outcomes = race(60, &a, &b, |store, _| async move { store.try_code(link.id).await.unwrap() }).await;
    let mut tries: Vec<u32> = outcomes
        .iter()
        .filter_map(|out| match out {
            TryCode::Counted { tries } => Some(*tries),
            TryCode::Exhausted | TryCode::Unknown => None,
        })
        .collect();
    tries.sort_unstable();
    assert_eq!(tries, [1, 2, 3, 4, 5]);
    assert_eq!(outcomes.iter().filter(|out| **out == TryCode::Exhausted).count(), 55);
    assert_eq!(b.link(link.id).await.unwrap().unwrap().code.unwrap().tries, 5);
    assert_eq!(b.consume_link(plan(&link, &user), Effects::default()).await, Ok(Consume::Consumed), "the link is good");
    assert_eq!(a.try_code(link.id).await, Ok(TryCode::Unknown), "used");
    assert_eq!(a.try_code(LinkId::mint(START, fresh())).await, Ok(TryCode::Unknown));
    let plain = put(&a, super::link(&user)).await;
    assert_eq!(a.try_code(plain.id).await, Ok(TryCode::Unknown), "it has no code");
    let browser = fresh_hash();
    let old = put(&a, Link { browser, ..with_code(&user) }).await;
    put(&a, Link { browser, ..with_code(&user) }).await;
    assert_eq!(a.try_code(old.id).await, Ok(TryCode::Unknown), "void");
}

pub async fn the_codes_of_a_browser_are_found_newest_first(a: Store, b: Store) {
    let browser = fresh_hash();
    let now = START.plus(Duration::from_mins(5));
    assert_eq!(b.code_links(browser, now).await, Ok(vec![]));
    let mut links = Vec::new();
    for second in 0..10 {
        let user = stored_user(&a).await;
        let created_at = START.plus(Duration::from_secs(second));
        links.insert(0, put(&a, Link { browser, created_at, ..with_code(&user) }).await);
    }
    assert_eq!(b.code_links(browser, now).await.unwrap(), links[..8]);
    let user = stored_user(&a).await;
    let at = |created_at| Link { browser, created_at, ..with_code(&user) };
    put(&a, Link { browser, created_at: now, ..link(&user) }).await;
    put(&a, Link { used_at: Some(now), ..at(now) }).await;
    put(&a, Link { expires_at: now, ..at(now) }).await;
    put(&a, Link { browser: fresh_hash(), ..at(now) }).await;
    let mut over = at(now);
    over.code = over.code.map(|code| TypedCode { expires_at: now, ..code });
    put(&a, over).await;
    assert_eq!(b.code_links(browser, now).await.unwrap(), links[..8], "none of these can be typed here");
    assert_eq!(
        b.consume_link(plan(&links[0], &user_of(&b, &links[0]).await), Effects::default()).await,
        Ok(Consume::Consumed)
    );
    assert_eq!(b.code_links(browser, now).await.unwrap(), links[1..9]);
    for _ in 0..5 {
        b.try_code(links[1].id).await.unwrap();
    }
    assert_eq!(a.code_links(browser, now).await.unwrap()[0].code.unwrap().tries, 5, "one without tries is named");
}

async fn user_of(store: &Store, link: &Link) -> User {
    store.user(link.user_id).await.unwrap().unwrap()
}

pub async fn a_re_authentication_needs_the_session_that_asked(a: Store, b: Store) {
    let user = stored_user(&a).await;
    let first = put(&a, link(&user)).await;
    let signed_in = plan(&first, &user);
    a.consume_link(signed_in.clone(), Effects::default()).await.unwrap();
    let old = signed_in.session;
    let again = put(&a, Link { purpose: LinkPurpose::ReAuth { session: old.id }, ..link(&user) }).await;
    assert_eq!(b.link(again.id).await, Ok(Some(again.clone())));
    let mut again = ConsumeLink { requires: Some(old.id), ..plan(&again, &user) };
    (again.session.created_at, again.session.expires_at) = (old.created_at, old.expires_at);
    let stranger = stored_user(&a).await;
    let theirs = put(&a, link(&stranger)).await;
    let theirs = ConsumeLink { requires: Some(old.id), ..plan(&theirs, &stranger) };
    assert_eq!(b.consume_link(theirs, all_effects()).await, Ok(Consume::SessionGone), "somebody else's session");
    assert_eq!(b.consume_link(again.clone(), Effects::default()).await, Ok(Consume::Consumed));
    assert_eq!(a.sessions_of(user.id).await, Ok(vec![again.session]), "the old one ended");
    let late = put(&a, link(&user)).await;
    let gone = ConsumeLink { requires: Some(old.id), ..plan(&late, &user) };
    assert_eq!(b.consume_link(gone, all_effects()).await, Ok(Consume::SessionGone));
    assert_eq!((traces(&a).await, b.link(late.id).await), ((0, 0, 0), Ok(Some(late))));
    assert_eq!(a.sessions_of(user.id).await.unwrap().len(), 1);
}

async fn pending(store: &Store, subject: &str) -> User {
    let user = stored_user(store).await;
    match store.set_pending(user.id, subject.to_owned(), Effects::default()).await.unwrap() {
        Changed::Changed(user) => user,
        Changed::Unknown => panic!("the user is gone"),
    }
}

pub async fn a_sign_in_promotes_the_candidate_that_was_compared(a: Store, b: Store) {
    let user = pending(&a, "sub").await;
    let promoted = |link: &Link, user: &User, subject: &str| ConsumeLink {
        promote: Some(Promotion::Promote { subject: subject.to_owned() }),
        ..plan(link, user)
    };
    let link = put(&a, link(&user)).await;
    assert_eq!(b.consume_link(promoted(&link, &user, "other"), all_effects()).await, Ok(Consume::UserChanged));
    let plain = stored_user(&a).await;
    let of_plain = put(&a, super::link(&plain)).await;
    assert_eq!(b.consume_link(promoted(&of_plain, &plain, "sub"), all_effects()).await, Ok(Consume::UserChanged));
    let second = pending(&a, "sub").await;
    let of_second = put(&a, super::link(&second)).await;
    assert_eq!(traces(&a).await, (0, 0, 0));
    assert_eq!(b.consume_link(promoted(&link, &user, "sub"), Effects::default()).await, Ok(Consume::Consumed));
    let linked = User {
        email_verified: true,
        external_subject: Some("sub".to_owned()),
        link_status: Some(LinkStatus::Linked),
        candidate_subject: None,
        ..user.clone()
    };
    assert_eq!(a.user(user.id).await, Ok(Some(linked)));
    assert_eq!(b.consume_link(promoted(&of_second, &second, "sub"), all_effects()).await, Ok(Consume::SubjectTaken));
    assert_eq!((traces(&a).await, b.link(of_second.id).await), ((0, 0, 0), Ok(Some(of_second))));
    assert_eq!((b.user(second.id).await, b.sessions_of(second.id).await), (Ok(Some(second)), Ok(vec![])));
}

pub async fn a_mismatch_is_noted_and_consumes_nothing(a: Store, b: Store) {
    let user = pending(&a, "sub").await;
    let link = put(&a, link(&user)).await;
    let noted = ConsumeLink { promote: Some(Promotion::Mismatch), ..plan(&link, &user) };
    assert_eq!(b.consume_link(noted.clone(), all_effects()).await, Ok(Consume::Mismatch));
    let marked = User { link_status: Some(LinkStatus::Mismatch), ..user.clone() };
    assert_eq!(a.user(user.id).await, Ok(Some(marked)));
    assert_eq!((a.link(link.id).await, a.sessions_of(user.id).await), (Ok(Some(link)), Ok(vec![])));
    assert_eq!(traces(&a).await.0, 1, "it is on record");
    let stale = ConsumeLink { user_version: 99, ..noted.clone() };
    assert_eq!(b.consume_link(stale, all_effects()).await, Ok(Consume::UserChanged));
    let plain = stored_user(&a).await;
    let of_plain = put(&a, super::link(&plain)).await;
    let nothing = ConsumeLink { promote: Some(Promotion::Mismatch), ..plan(&of_plain, &plain) };
    assert_eq!(b.consume_link(nothing, all_effects()).await, Ok(Consume::UserChanged), "nothing waits for them");
    let used = put(&a, Link { used_at: Some(START), ..super::link(&user) }).await;
    let used = ConsumeLink { link: used.id, ..noted };
    assert_eq!(b.consume_link(used, all_effects()).await, Ok(Consume::AlreadyUsed));
    assert_eq!(traces(&a).await.0, 1);
}
