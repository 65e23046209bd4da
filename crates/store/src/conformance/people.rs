use std::time::Duration;

use doorward_core::{
    effects::Effects,
    id::{LinkId, UserId},
    link::{Link, LinkPurpose},
    one_time::{ClaimFirstAdmin, Claimant, OneTime, OneTimePurpose},
    secret::Secret,
    session::Session,
    user::{Email, LinkStatus, Origin, User},
};

use super::{START, all_effects, fresh, fresh_hash, link, race, session, stored_user, traces, user};
use crate::{
    Begin, BeginSession, Changed, ClaimAdmin, ConfirmEmail, CreateUser, EmailChange, LinkSubject, NewUser, Store,
    purge::{Remove, Unproven},
};

fn new(user: &User) -> NewUser {
    NewUser { user: user.clone(), password_hash: None }
}

async fn read(store: &Store, id: UserId) -> User {
    store.user(id).await.unwrap().unwrap()
}

/// Begins a session of `user` without a link.
async fn begun(store: &Store, user: &User) -> Session {
    let session = session(user);
    let plan = BeginSession { session: session.clone(), user_version: user.version, replaces: None, rests_on: None };
    assert_eq!(store.begin_session(plan, Effects::default()).await, Ok(Begin::Began));
    session
}

pub async fn an_external_subject_belongs_to_one_user(a: Store, b: Store) {
    let subject = || Some("sub".to_owned());
    let owner = User { external_subject: subject(), link_status: Some(LinkStatus::Linked), ..user() };
    assert_eq!(a.create_user(owner.clone(), Effects::default()).await, Ok(CreateUser::Created));
    assert_eq!(b.user(owner.id).await, Ok(Some(owner.clone())));
    let twin = User { external_subject: subject(), ..user() };
    assert_eq!(b.create_user(twin, all_effects()).await, Ok(CreateUser::SubjectTaken));
    let other = stored_user(&a).await;
    assert_eq!(b.link_subject(other.id, "sub".to_owned(), all_effects()).await, Ok(LinkSubject::Taken));
    let nobody = UserId::mint(START, fresh());
    assert_eq!(b.link_subject(nobody, "new".to_owned(), all_effects()).await, Ok(LinkSubject::Unknown));
    assert_eq!(traces(&a).await, (0, 0, 0));
    let linked = User { external_subject: Some("new".to_owned()), link_status: Some(LinkStatus::Linked), ..other };
    let out = b.link_subject(linked.id, "new".to_owned(), all_effects()).await;
    assert_eq!(out, Ok(LinkSubject::Linked(linked.clone())));
    assert_eq!((a.user(linked.id).await, traces(&a).await.0), (Ok(Some(linked)), 1));
    // The old subject of a user who gets another one is free again.
    assert!(matches!(
        a.link_subject(owner.id, "third".to_owned(), Effects::default()).await,
        Ok(LinkSubject::Linked(_))
    ));
    let next = User { external_subject: subject(), ..user() };
    assert_eq!(b.create_user(next, Effects::default()).await, Ok(CreateUser::Created));
}

pub async fn a_candidate_is_promoted_only_while_it_waits(a: Store, b: Store) {
    let before = stored_user(&a).await;
    let promote = async |store: &Store, subject: &str| {
        store.promote(before.id, subject.to_owned(), Effects::default()).await.unwrap()
    };
    assert_eq!(promote(&b, "sub").await, LinkSubject::NotPending);
    let pending = User {
        link_status: Some(LinkStatus::PendingVerify),
        candidate_subject: Some("sub".to_owned()),
        version: before.version + 1,
        ..before.clone()
    };
    let out = a.set_pending(before.id, "sub".to_owned(), Effects::default()).await;
    assert_eq!(out, Ok(Changed::Changed(pending.clone())));
    assert_eq!(promote(&b, "other").await, LinkSubject::NotPending);
    let linked = User {
        external_subject: Some("sub".to_owned()),
        link_status: Some(LinkStatus::Linked),
        candidate_subject: None,
        ..pending
    };
    assert_eq!(promote(&b, "sub").await, LinkSubject::Linked(linked.clone()));
    assert_eq!(promote(&a, "sub").await, LinkSubject::NotPending, "it waits no more");
    assert_eq!(read(&a, before.id).await, linked);
    // Of many users who wait for one subject, one gets it.
    let mut ids = Vec::new();
    for _ in 0..20 {
        let id = stored_user(&a).await.id;
        assert!(matches!(a.set_pending(id, "raced".to_owned(), Effects::default()).await, Ok(Changed::Changed(_))));
        ids.push(id);
    }
    let outcomes = race(20, &a, &b, |store, number| {
        let id = ids[number];
        async move { store.promote(id, "raced".to_owned(), Effects::default()).await.unwrap() }
    })
    .await;
    assert_eq!(outcomes.iter().filter(|out| matches!(out, LinkSubject::Linked(_))).count(), 1);
    assert_eq!(outcomes.iter().filter(|out| **out == LinkSubject::Taken).count(), 19);
}

pub async fn an_import_makes_all_of_a_batch_or_none(a: Store, b: Store) {
    let known = stored_user(&a).await;
    let batch: Vec<User> = (0..300).map(|_| user()).collect();
    let mut clash: Vec<NewUser> = batch.iter().map(new).collect();
    clash[7].user.email = known.email.clone();
    clash[9].user.email = batch[8].email.clone();
    clash[10].user.external_subject = Some("sub".to_owned());
    clash[11].user.external_subject = Some("sub".to_owned());
    let outcomes = b.create_users(clash, all_effects()).await.unwrap();
    let expected: Vec<CreateUser> = (0..300)
        .map(|number| match number {
            7 | 9 => CreateUser::EmailTaken,
            11 => CreateUser::SubjectTaken,
            _ => CreateUser::Created,
        })
        .collect();
    assert_eq!(outcomes, expected);
    assert_eq!((a.users(None, 1000).await.unwrap().len(), traces(&a).await), (1, (0, 0, 0)), "nothing was changed");
    let hash = Secret::new("$2b$10$hash".to_owned());
    let whole = batch.iter().map(|user| NewUser { password_hash: Some(hash.clone()), ..new(user) }).collect();
    assert_eq!(b.create_users(whole, all_effects()).await, Ok(vec![CreateUser::Created; 300]));
    assert_eq!((a.users(None, 1000).await.unwrap().len(), traces(&a).await.0), (301, 1));
    let (found, kept) = a.password(batch[299].email.clone()).await.unwrap().unwrap();
    assert_eq!((found, kept.expose().as_str()), (batch[299].clone(), "$2b$10$hash"));
    // Two imports of the same people at once: one makes them.
    let people: Vec<User> = (0..50).map(|_| user()).collect();
    let outcomes = race(4, &a, &b, |store, _| {
        let mine = people.iter().map(|user| new(&User { id: UserId::mint(START, fresh()), ..user.clone() })).collect();
        async move { store.create_users(mine, Effects::default()).await.unwrap() }
    })
    .await;
    let made = outcomes.iter().filter(|out| out.iter().all(|one| *one == CreateUser::Created)).count();
    assert_eq!((made, a.users(None, 1000).await.unwrap().len()), (1, 351));
    assert_eq!(a.create_users(Vec::new(), Effects::default()).await, Ok(vec![]));
}

pub async fn a_password_hash_is_found_only_where_there_is_one(a: Store, b: Store) {
    let user = stored_user(&a).await;
    let hash = |store: &Store| {
        let store = store.clone();
        let email = user.email.clone();
        async move { store.password(email).await.unwrap().map(|(user, hash)| (user, hash.expose().clone())) }
    };
    assert_eq!(hash(&b).await, None);
    let set = async |store: &Store, id, hash: Option<&str>| {
        let hash = hash.map(|hash| Secret::new(hash.to_owned()));
        store.set_password(id, hash, all_effects()).await.unwrap()
    };
    assert_eq!(set(&a, user.id, Some("one")).await, Changed::Changed(user.clone()));
    assert_eq!(hash(&b).await, Some((user.clone(), "one".to_owned())));
    assert_eq!(set(&b, user.id, Some("two")).await, Changed::Changed(user.clone()));
    assert_eq!(hash(&a).await, Some((user.clone(), "two".to_owned())));
    assert_eq!(set(&a, user.id, None).await, Changed::Changed(user.clone()));
    assert_eq!(hash(&b).await, None);
    assert_eq!(set(&a, UserId::mint(START, fresh()), Some("one")).await, Changed::Unknown);
    assert_eq!(traces(&a).await.0, 3);
}

pub async fn a_role_counts_the_version_up(a: Store, b: Store) {
    let before = stored_user(&a).await;
    assert_eq!(b.has_admin().await, Ok(false));
    let admin = User { admin: true, version: before.version + 1, ..before.clone() };
    assert_eq!(a.set_admin(before.id, true, Effects::default()).await, Ok(Changed::Changed(admin)));
    assert_eq!(b.has_admin().await, Ok(true));
    let plain = User { admin: false, version: before.version + 2, ..before.clone() };
    assert_eq!(b.set_admin(before.id, false, Effects::default()).await, Ok(Changed::Changed(plain)));
    assert_eq!(a.has_admin().await, Ok(false));
    assert_eq!(a.set_admin(UserId::mint(START, fresh()), true, all_effects()).await, Ok(Changed::Unknown));
    assert_eq!(traces(&a).await, (0, 0, 0));
}

pub async fn an_address_changes_to_one_that_is_free(a: Store, b: Store) {
    let (one, two) = (stored_user(&a).await, stored_user(&a).await);
    let to = user().email;
    let update = async |store: &Store, user: &User, to: &Email| {
        store.update_email(user.id, user.version, to.clone(), all_effects()).await.unwrap()
    };
    assert_eq!(update(&b, &one, &two.email).await, EmailChange::Taken);
    assert_eq!(update(&b, &User { version: 99, ..one.clone() }, &to).await, EmailChange::UserChanged);
    assert_eq!(update(&b, &user(), &to).await, EmailChange::Unknown);
    assert_eq!(traces(&a).await, (0, 0, 0));
    let moved = User { email: to.clone(), email_verified: true, version: one.version + 1, ..one.clone() };
    assert_eq!(update(&b, &one, &to).await, EmailChange::Changed(moved.clone()));
    assert_eq!(a.user_by_email(to.clone()).await, Ok(Some(moved.clone())));
    assert_eq!(a.user_by_email(one.email.clone()).await, Ok(None));
    assert!(update(&a, &two, &one.email).await.is_changed(), "the old address is free");
    let banned = a.set_banned(moved.id, Some(START), Effects::default()).await;
    let Ok(Changed::Changed(banned)) = banned else { panic!("{banned:?}") };
    assert_eq!(update(&b, &banned, &user().email).await, EmailChange::UserChanged, "banned");
    // Of many users who want one address at once, also one who signs up with it, one gets it.
    let wanted = user().email;
    let mut users = Vec::new();
    for _ in 0..20 {
        users.push(stored_user(&a).await);
    }
    let got = race(21, &a, &b, |store, number| {
        let wanted = wanted.clone();
        let user = users.get(number).cloned();
        async move {
            match user {
                Some(user) => store.update_email(user.id, 1, wanted, Effects::default()).await.unwrap().is_changed(),
                None => {
                    let new = User { email: wanted, ..super::user() };
                    store.create_user(new, Effects::default()).await.unwrap() == CreateUser::Created
                }
            }
        }
    })
    .await;
    assert_eq!(got.iter().filter(|got| **got).count(), 1);
}

pub async fn confirming_an_address_ends_the_other_sessions_and_happens_once(a: Store, b: Store) {
    let user = stored_user(&a).await;
    let to = super::user().email;
    let change = Link { purpose: LinkPurpose::EmailChange { to: to.clone() }, email: to.clone(), ..link(&user) };
    a.put_link(change.clone(), Effects::default()).await.unwrap();
    assert_eq!(b.link(change.id).await, Ok(Some(change.clone())));
    let sign_in = link(&user);
    a.put_link(sign_in.clone(), Effects::default()).await.unwrap();
    let (kept, ended) = (begun(&a, &user).await, begun(&a, &user).await);
    let plan = ConfirmEmail {
        link: change.id,
        user_id: user.id,
        user_version: user.version,
        to: to.clone(),
        at: START,
        keep: Some(kept.hash),
        ends: 1,
    };
    let confirm =
        async |store: &Store, plan: &ConfirmEmail| store.confirm_email(plan.clone(), all_effects()).await.unwrap();
    let other = ConfirmEmail { to: super::user().email, ..plan.clone() };
    assert_eq!(confirm(&b, &other).await, EmailChange::Unknown, "the link is for another address");
    assert_eq!(confirm(&b, &ConfirmEmail { link: sign_in.id, ..plan.clone() }).await, EmailChange::Unknown);
    let unknown = ConfirmEmail { link: LinkId::mint(START, fresh()), ..plan.clone() };
    assert_eq!(confirm(&b, &unknown).await, EmailChange::Unknown);
    let more = ConfirmEmail { ends: 0, ..plan.clone() };
    assert_eq!(confirm(&b, &more).await, EmailChange::SessionsChanged, "one that the effects do not name");
    assert_eq!(confirm(&b, &ConfirmEmail { user_version: 99, ..plan.clone() }).await, EmailChange::UserChanged);
    assert_eq!((traces(&a).await, b.link(change.id).await.unwrap().unwrap().used_at), ((0, 0, 0), None));
    let outcomes = race(30, &a, &b, |store, _| {
        let plan = plan.clone();
        async move { store.confirm_email(plan, all_effects()).await.unwrap() }
    })
    .await;
    assert_eq!(outcomes.iter().filter(|out| out.is_changed()).count(), 1);
    assert_eq!(outcomes.iter().filter(|out| **out == EmailChange::AlreadyUsed).count(), 29);
    assert_eq!((traces(&a).await.0, read(&b, user.id).await.email), (1, to));
    let left: Vec<_> = b.sessions_of(user.id).await.unwrap().iter().map(|session| session.hash).collect();
    assert_eq!((left, a.session(ended.hash).await), (vec![kept.hash], Ok(None)));
    // A conflict leaves the link as it was.
    let (user, taken) = (stored_user(&a).await, stored_user(&a).await.email);
    let change = Link { purpose: LinkPurpose::EmailChange { to: taken.clone() }, email: taken.clone(), ..link(&user) };
    a.put_link(change.clone(), Effects::default()).await.unwrap();
    let plan = ConfirmEmail { link: change.id, user_id: user.id, to: taken, ends: 0, ..plan };
    assert_eq!(confirm(&b, &plan).await, EmailChange::Taken);
    assert_eq!((b.link(change.id).await, read(&a, user.id).await), (Ok(Some(change.clone())), user.clone()));
    let newer = Link { id: LinkId::mint(START, fresh()), ..change };
    a.put_link(newer, Effects::default()).await.unwrap();
    assert_eq!(confirm(&b, &plan).await, EmailChange::Voided);
}

pub async fn a_session_begins_without_a_link_for_the_user_who_was_checked(a: Store, b: Store) {
    let user = stored_user(&a).await;
    let first = begun(&a, &user).await;
    let plan = |version| BeginSession {
        session: session(&user),
        user_version: version,
        replaces: Some(first.hash),
        rests_on: None,
    };
    assert_eq!(b.begin_session(plan(99), all_effects()).await, Ok(Begin::UserChanged));
    let stranger = super::user();
    let nobody = BeginSession { session: session(&stranger), user_version: 1, replaces: None, rests_on: None };
    assert_eq!(b.begin_session(nobody, all_effects()).await, Ok(Begin::UserChanged));
    assert_eq!((traces(&a).await, a.sessions_of(user.id).await.unwrap().len()), ((0, 0, 0), 1));
    let second = plan(user.version);
    assert_eq!(b.begin_session(second.clone(), all_effects()).await, Ok(Begin::Began));
    assert_eq!(a.sessions_of(user.id).await, Ok(vec![second.session]), "the first one was replaced");
    assert!(!read(&a, user.id).await.email_verified, "a password proves no address");
    a.set_banned(user.id, Some(START), Effects::default()).await.unwrap();
    assert_eq!(b.begin_session(plan(user.version + 1), all_effects()).await, Ok(Begin::UserChanged), "banned");
}

fn one_time() -> OneTime {
    OneTime {
        hash: fresh_hash(),
        purpose: OneTimePurpose::FirstAdmin,
        created_at: START,
        expires_at: START.plus(Duration::from_hours(24)),
        used_at: None,
    }
}

fn claim(token: &OneTime, user: &User) -> ClaimFirstAdmin {
    ClaimFirstAdmin {
        token: token.hash,
        claimant: Claimant::New(user.clone()),
        at: START.plus(Duration::from_secs(1)),
        session: session(user),
        replaces: None,
    }
}

pub async fn the_first_administrator_is_claimed_once(a: Store, b: Store) {
    let (one, two) = (one_time(), one_time());
    assert_eq!(b.one_time(one.hash).await, Ok(None));
    for token in [one, two] {
        a.put_one_time(token, Effects::default()).await.unwrap();
        assert_eq!(b.one_time(token.hash).await, Ok(Some(token)));
    }
    let unknown = claim(&one_time(), &user());
    assert_eq!(b.claim_first_admin(unknown, all_effects()).await, Ok(ClaimAdmin::Unknown));
    let late = ClaimFirstAdmin { at: one.expires_at, ..claim(&one, &user()) };
    assert_eq!(b.claim_first_admin(late, all_effects()).await, Ok(ClaimAdmin::Expired));
    let known = stored_user(&a).await;
    let twin = User { email: known.email.clone(), ..user() };
    assert_eq!(b.claim_first_admin(claim(&one, &twin), all_effects()).await, Ok(ClaimAdmin::UserChanged));
    let stale =
        |version| ClaimFirstAdmin { claimant: Claimant::Known { id: known.id, version }, ..claim(&one, &known) };
    assert_eq!(b.claim_first_admin(stale(99), all_effects()).await, Ok(ClaimAdmin::UserChanged));
    assert_eq!((traces(&a).await, a.one_time(one.hash).await), ((0, 0, 0), Ok(Some(one))), "nothing was changed");
    // Two printed URLs, many people at once.
    let outcomes = race(40, &a, &b, |store, number| {
        let plan = claim(if number % 3 == 0 { &one } else { &two }, &user());
        async move { store.claim_first_admin(plan, all_effects()).await.unwrap() }
    })
    .await;
    let claimed: Vec<&User> = outcomes
        .iter()
        .filter_map(|out| match out {
            ClaimAdmin::Claimed(user) => Some(user),
            _ => None,
        })
        .collect();
    let [admin] = claimed[..] else { panic!("{claimed:?}") };
    assert_eq!(outcomes.iter().filter(|out| **out == ClaimAdmin::AdminExists).count(), 39);
    assert!(admin.admin && !admin.email_verified);
    assert_eq!((read(&b, admin.id).await, traces(&a).await.0), (admin.clone(), 1));
    assert_eq!(b.sessions_of(admin.id).await.unwrap().len(), 1);
    assert_eq!(a.users(None, 100).await.unwrap().iter().filter(|user| user.admin).count(), 1);
    for token in [one, two] {
        assert!(b.one_time(token.hash).await.unwrap().unwrap().used_at.is_some(), "none of them is good any more");
    }
    // Once nobody is administrator any more, an old URL stays dead and a new one works, also for somebody known.
    a.set_admin(admin.id, false, Effects::default()).await.unwrap();
    assert_eq!(b.claim_first_admin(claim(&two, &user()), all_effects()).await, Ok(ClaimAdmin::AlreadyUsed));
    let third = one_time();
    a.put_one_time(third, Effects::default()).await.unwrap();
    let plan = ClaimFirstAdmin { token: third.hash, ..stale(known.version) };
    let granted = User { admin: true, version: known.version + 1, ..known.clone() };
    assert_eq!(b.claim_first_admin(plan, all_effects()).await, Ok(ClaimAdmin::Claimed(granted.clone())));
    assert_eq!(read(&a, known.id).await, granted);
}

pub async fn a_purge_removes_who_signed_up_and_never_proved_it(a: Store, b: Store) {
    let now = START.plus(Duration::from_hours(24));
    let store = async |user: User| {
        assert_eq!(a.create_user(user.clone(), Effects::default()).await, Ok(CreateUser::Created));
        user
    };
    let sign_up = || User { origin: Origin::SignUp, ..user() };
    let gone = store(sign_up()).await;
    a.put_link(link(&gone), Effects::default()).await.unwrap();
    let mut kept = vec![
        store(user()).await,
        store(User { created_at: START.plus(Duration::from_millis(1)), ..sign_up() }).await,
        store(User { email_verified: true, ..sign_up() }).await,
        store(User { banned_at: Some(START), ..sign_up() }).await,
        store(User { admin: true, ..sign_up() }).await,
    ];
    let waiting = store(sign_up()).await;
    let live = Link { expires_at: now.plus(Duration::from_secs(1)), ..link(&waiting) };
    a.put_link(live, Effects::default()).await.unwrap();
    kept.push(waiting.clone());
    let known = store(sign_up()).await;
    a.link_identity("main".to_owned(), "sub".to_owned(), known.id, Effects::default()).await.unwrap();
    kept.push(known);
    assert_eq!(b.purge(now, Duration::from_hours(48)).await.unwrap().users, 1);
    assert_eq!((a.user(gone.id).await, a.user_by_email(gone.email.clone()).await), (Ok(None), Ok(None)));
    for user in &kept {
        assert_eq!(b.user(user.id).await, Ok(Some(user.clone())));
    }
    let rows = a.audit_tail(0, 100).await.unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (row.kind.as_str(), row.user_id)).collect();
    assert_eq!(rows, [("user.removed", Some(gone.id))]);
    assert_eq!(b.purge(now.plus(Duration::from_secs(1)), Duration::from_hours(48)).await.unwrap().users, 2);
    assert_eq!(b.user(waiting.id).await, Ok(None), "its link has ended");
    // More than one batch, while somebody else purges too: each is removed and on record once.
    for _ in 0..3 {
        let many = (0..400).map(|_| NewUser { user: sign_up(), password_hash: None }).collect();
        a.create_users(many, Effects::default()).await.unwrap();
    }
    let later = now.plus(Duration::from_secs(2));
    let removed =
        race(2, &a, &b, |store, _| async move { store.purge(later, Duration::from_hours(48)).await.unwrap().users })
            .await;
    assert_eq!(removed.iter().sum::<u64>(), 1200);
    assert_eq!(a.verify_audit(&[], |_| Ok(())).await.unwrap().rows, 1203);
}

pub async fn a_purge_leaves_who_came_back_since_it_looked(a: Store, b: Store) {
    let now = START.plus(Duration::from_hours(24));
    let mut users = Vec::new();
    for _ in 0..3 {
        let user = User { origin: Origin::SignUp, ..user() };
        assert_eq!(a.create_user(user.clone(), Effects::default()).await, Ok(CreateUser::Created));
        users.push(user);
    }
    let mut found = b.read(Unproven { now, after: None }).await.unwrap();
    found.sort();
    assert_eq!(found.len(), 3);
    // One signs in by an issuer, another asks for a link.
    a.link_identity("main".to_owned(), "sub".to_owned(), users[0].id, Effects::default()).await.unwrap();
    a.put_link(Link { expires_at: now.plus(Duration::from_secs(1)), ..link(&users[1]) }, Effects::default())
        .await
        .unwrap();
    assert_eq!(b.write(Remove { ids: found, now }, Effects::default()).await, Ok(false));
    for (user, goes) in users.iter().zip([false, false, true]) {
        let removed = b.write(Remove { ids: vec![user.id], now }, Effects::default()).await;
        assert_eq!((removed, a.user(user.id).await.unwrap().is_none()), (Ok(goes), goes));
    }
}
