use std::time::Duration;

use doorward_core::{
    effects::Effects,
    id::{OrgId, SessionId},
    revocation::NewRevocation,
    session::{Session, SignInMethod},
    time::Timestamp,
    user::User,
};

use futures_util::future::join_all;

use super::{START, all_effects, fresh, fresh_hash, link, plan, race, revocation, session, stored_user, traces};
use crate::{Begin, BeginSession, Consume, End, LISTED_SESSIONS, Purged, Store, Which};

async fn stored_session(store: &Store, user: &User, change: impl FnOnce(&mut Session)) -> Session {
    let link = link(user);
    store.put_link(link.clone(), Effects::default()).await.unwrap();
    let mut plan = plan(&link, user);
    change(&mut plan.session);
    let session = plan.session.clone();
    assert_eq!(store.consume_link(plan, Effects::default()).await, Ok(Consume::Consumed));
    session
}

async fn last_used(store: &Store, session: &Session) -> Option<Timestamp> {
    store.session(session.hash).await.unwrap().map(|(session, _)| session.last_used_at)
}

pub async fn a_session_is_found_with_its_user_and_ends_once(a: Store, b: Store) {
    let user = stored_user(&a).await;
    assert_eq!(a.session(fresh_hash()).await, Ok(None));
    let methods = [SignInMethod::MagicLink, SignInMethod::Code, SignInMethod::Oidc, SignInMethod::Password];
    for method in methods {
        let stored = stored_session(&a, &user, |session| {
            session.method = method;
            if method == SignInMethod::Code {
                (session.ip, session.user_agent) = (None, None);
                session.org_id = Some(OrgId::mint(START, fresh()));
            }
        })
        .await;
        let verified = User { email_verified: true, ..user.clone() };
        assert_eq!(b.session(stored.hash).await, Ok(Some((stored.clone(), verified))));
        let before = traces(&a).await;
        assert_eq!(b.end_session(stored.hash, all_effects()).await, Ok(End::Ended(stored.clone())));
        assert_eq!(a.session(stored.hash).await, Ok(None));
        assert_eq!(a.end_session(stored.hash, all_effects()).await, Ok(End::Unknown));
        let after = traces(&a).await;
        assert_eq!((after.0, after.1), (before.0 + 1, before.1 + 1));
    }
}

pub async fn sessions_end_by_user_by_name_and_all(a: Store, b: Store) {
    let (one, two) = (stored_user(&a).await, stored_user(&a).await);
    let mut of_one = Vec::new();
    for _ in 0..3 {
        of_one.push(stored_session(&a, &one, |_| {}).await);
        stored_session(&a, &two, |_| {}).await;
    }
    of_one.sort_by_key(|session| std::cmp::Reverse(session.id));
    assert_eq!(b.sessions_of(one.id).await, Ok(of_one.clone()));
    assert_eq!(b.end_sessions(Which::One(of_one[1].id), Effects::default()).await, Ok(1));
    assert_eq!(a.sessions_of(one.id).await.unwrap().len(), 2);
    assert_eq!(b.end_sessions(Which::User(one.id), Effects::default()).await, Ok(2));
    assert_eq!(a.sessions_of(two.id).await.unwrap().len(), 3);
    assert_eq!(b.end_sessions(Which::All, Effects::default()).await, Ok(3));
    assert_eq!(a.sessions_of(two.id).await, Ok(vec![]));
    let nobody = Which::One(SessionId::mint(START, fresh()));
    assert_eq!(b.end_sessions(nobody, all_effects()).await, Ok(0));
    assert_eq!(traces(&a).await.0, 1, "the command is on record also when it met nobody");
}

pub async fn so_many_sessions_that_one_transaction_would_not_do_end_all_the_same(a: Store, b: Store) {
    let user = stored_user(&a).await;
    for _ in 0..603 {
        stored_session(&a, &user, |_| {}).await;
    }
    let before = traces(&a).await;
    assert_eq!(b.end_sessions(Which::All, all_effects()).await, Ok(603));
    assert_eq!(a.sessions_of(user.id).await, Ok(vec![]));
    // One row and one mail, and the revocation before and with the last of them.
    let after = traces(&a).await;
    let log = a.revocations_after(before.2, 10).await.unwrap();
    assert_eq!((after.0 - before.0, after.1 - before.1, log.len()), (1, 1, 2));
    assert_eq!(b.end_sessions(Which::All, all_effects()).await, Ok(0));
    assert_eq!(a.revocations_after(after.2, 10).await.unwrap().len(), 1);
}

pub async fn of_many_sessions_the_newest_are_listed_and_each_is_found(a: Store, b: Store) {
    let (user, other) = (stored_user(&a).await, stored_user(&a).await);
    let begin = |store: &Store, number: u64| {
        let at = START.plus(Duration::from_secs(number));
        let id = SessionId::mint(at, fresh());
        let session = Session { id, created_at: at, ..session(&user) };
        let plan = BeginSession { session, user_version: user.version, replaces: None, rests_on: None };
        let store = store.clone();
        async move {
            assert_eq!(store.begin_session(plan.clone(), Effects::default()).await, Ok(Begin::Began));
            plan.session
        }
    };
    let many = LISTED_SESSIONS as u64 + 3;
    let mut all = join_all((0..many).map(|number| begin(if number % 2 == 0 { &a } else { &b }, number))).await;
    assert_eq!(a.sessions_of_after(user.id, None).await.unwrap(), all[..LISTED_SESSIONS], "from the oldest on");
    let rest = b.sessions_of_after(user.id, Some(all[LISTED_SESSIONS - 1].id)).await.unwrap();
    assert_eq!(rest, all[LISTED_SESSIONS..]);
    all.reverse();
    assert_eq!(b.sessions_of(user.id).await.unwrap(), all[..LISTED_SESSIONS], "the newest first");
    for session in [&all[0], &all[many as usize - 1]] {
        assert_eq!(a.session_of(user.id, session.id).await.as_ref(), Ok(&Some(session.clone())));
        assert_eq!(b.session_of(other.id, session.id).await, Ok(None), "somebody else's");
    }
    assert_eq!(b.session_of(user.id, SessionId::mint(START, fresh())).await, Ok(None));
}

pub async fn a_touch_never_moves_back_and_never_revives(a: Store, b: Store) {
    let user = stored_user(&a).await;
    let (kept, ended) = (stored_session(&a, &user, |_| {}).await, stored_session(&a, &user, |_| {}).await);
    a.end_session(ended.hash, Effects::default()).await.unwrap();
    let later = START.plus(Duration::from_secs(60));
    b.touch_sessions(vec![(ended.hash, later), (kept.hash, later), (fresh_hash(), later)]).await.unwrap();
    assert_eq!(last_used(&a, &kept).await, Some(later));
    assert_eq!(last_used(&a, &ended).await, None);
    b.touch_sessions(vec![(kept.hash, START)]).await.unwrap();
    assert_eq!(last_used(&a, &kept).await, Some(later));
    b.touch_sessions(Vec::new()).await.unwrap();
    let newest = START.plus(Duration::from_secs(1200));
    let many = (0..1200).map(|second| (kept.hash, START.plus(Duration::from_secs(1200 - second)))).collect();
    a.touch_sessions(many).await.unwrap();
    assert_eq!(last_used(&b, &kept).await, Some(newest), "more than one batch");
}

pub async fn ending_wins_over_any_number_of_touches(a: Store, b: Store) {
    let user = stored_user(&a).await;
    for _ in 0..10 {
        let session = stored_session(&a, &user, |_| {}).await;
        let hash = session.hash;
        race(8, &a, &b, |store, number| async move {
            if number == 4 {
                assert!(matches!(store.end_session(hash, Effects::default()).await, Ok(End::Ended(_))));
            } else {
                let at = START.plus(Duration::from_secs(number as u64));
                store.touch_sessions(vec![(hash, at)]).await.unwrap();
            }
        })
        .await;
        assert_eq!(a.session(hash).await, Ok(None));
    }
}

pub async fn a_purge_removes_what_is_over_and_nothing_else(a: Store, b: Store) {
    let user = stored_user(&a).await;
    let idle = Duration::from_hours(1);
    let now = START.plus(Duration::from_hours(26));
    let alive = stored_session(&a, &user, |session| session.last_used_at = now).await;
    let at_limit = stored_session(&a, &user, |session| session.last_used_at = now.minus(idle)).await;
    let ended = stored_session(&a, &user, |session| {
        session.last_used_at = now;
        session.expires_at = now;
    })
    .await;
    let fresh_link = doorward_core::link::Link { expires_at: now.minus(Duration::from_hours(1)), ..link(&user) };
    a.put_link(fresh_link.clone(), Effects::default()).await.unwrap();
    for until in [Some(now), Some(now.plus(idle)), None] {
        let entry = NewRevocation { until, ..revocation("test") };
        a.append(Effects::default().with_revocation(entry)).await.unwrap();
    }
    let last = a.last_revocation().await.unwrap();
    // Three links of consumed sessions ended long ago.
    assert_eq!(b.purge(now, idle).await, Ok(Purged { sessions: 2, links: 3, revocations: 1, ..Purged::default() }));
    assert_eq!(b.purge(now, idle).await, Ok(Purged::default()));
    assert!(last_used(&a, &alive).await.is_some());
    assert_eq!((last_used(&a, &at_limit).await, last_used(&a, &ended).await), (None, None));
    assert_eq!(a.link(fresh_link.id).await, Ok(Some(fresh_link)), "its second use is still called by its name");
    assert_eq!(a.revocations_after(0, 10).await.unwrap().len(), 2);
    let entry = NewRevocation { until: Some(now), ..revocation("test") };
    a.append(Effects::default().with_revocation(entry)).await.unwrap();
    assert_eq!(b.purge(now, idle).await.unwrap().revocations, 1);
    a.append(Effects::default().with_revocation(revocation("test"))).await.unwrap();
    assert!(a.last_revocation().await.unwrap() > last + 1, "a number is never given twice");
}
