use std::time::Duration;

use doorward_core::{
    id::{ApiKeyId, SessionId},
    session::SignInMethod,
    user::Email,
};

use super::*;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn at(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

fn user(byte: u8) -> User {
    User {
        email_verified: true,
        ..User::new(UserId::mint(START, [byte; 10]), Email::parse("ada@example.com").unwrap(), START)
    }
}

fn entry(byte: u8, user: &User) -> Arc<SessionEntry> {
    let session = Session {
        id: SessionId::mint(START, [byte; 10]),
        hash: TokenHash::of(&[byte]),
        user_id: user.id,
        org_id: None,
        method: SignInMethod::MagicLink,
        created_at: START,
        authenticated_at: START,
        last_used_at: START,
        expires_at: at(86_400),
        ip: None,
        user_agent: None,
    };
    Arc::new(SessionEntry::new(session, user))
}

fn key(owner: KeyOwner) -> ApiKey {
    ApiKey {
        id: ApiKeyId::mint(START, [1; 10]),
        hash: TokenHash::of(b"key"),
        owner,
        org_id: None,
        name: "ci".to_owned(),
        prefix: "dwk_1234".to_owned(),
        capabilities: Default::default(),
        created_at: START,
        expires_at: None,
        revoked_at: None,
        deleted_at: None,
        last_used_at: None,
    }
}

#[test]
fn a_session_is_written_as_used_once_a_minute_however_often_it_is_used() {
    let entry = entry(1, &user(1));
    assert!(!entry.touch(at(59)));
    assert_eq!(entry.last_used_at(), at(59), "every use counts in memory");
    assert!(entry.touch(at(60)) && !entry.touch(at(60)) && !entry.touch(at(119)));
    assert!(entry.touch(at(120)));
}

#[test]
fn a_clock_that_is_set_back_takes_no_use_back_and_writes_none() {
    let entry = entry(1, &user(1));
    assert!(entry.touch(at(100)));
    assert!(!entry.touch(at(10)));
    assert_eq!(entry.last_used_at(), at(100));
}

#[test]
fn a_copy_just_read_takes_over_the_uses_that_the_store_does_not_know_yet() {
    let (old, new) = (entry(1, &user(1)), entry(1, &user(1)));
    assert!(old.touch(at(300)));
    new.carry_over(&old);
    assert_eq!(new.last_used_at(), at(300));
    assert!(!new.touch(at(310)), "it was written ten seconds ago");
    old.carry_over(&entry(1, &user(1)));
    assert_eq!(old.last_used_at(), at(300), "an older copy takes nothing back");
}

#[test]
fn each_scope_voids_what_it_means() {
    let (ada, bob) = (user(1), user(2));
    let of_bob = Arc::new(KeyEntry::new(key(KeyOwner::User(bob.id)), Some(&bob)));
    let kept = |scope: Scope| {
        let records = Records::new(100);
        let entries = [entry(1, &ada), entry(2, &ada), entry(3, &bob)];
        for entry in &entries {
            records.keep_session(Arc::clone(entry));
        }
        records.keep_key(Arc::clone(&of_bob));
        records.void(&scope);
        let sessions = entries.map(|entry| records.session(&entry.session.hash).is_some());
        (sessions, records.key(&of_bob.key.hash).is_some())
    };
    let first = entry(1, &ada).session.id;
    assert_eq!(kept(Scope::Session { id: first }), ([false, true, true], true));
    assert_eq!(kept(Scope::UserSessions { id: ada.id }), ([false, false, true], true));
    assert_eq!(kept(Scope::AllSessions), ([false; 3], true));
    assert_eq!(kept(Scope::User { id: bob.id }), ([true, true, false], false));
    assert_eq!(kept(Scope::ApiKey { id: of_bob.key.id }), ([true; 3], false));
    assert_eq!(kept(Scope::Lifted { scope: Box::new(Scope::ApiKey { id: of_bob.key.id }) }), ([true; 3], false));
    assert_eq!(kept(Scope::Token { issuer: "main".to_owned(), jti: "x".to_owned() }), ([true; 3], true));
}

#[test]
fn a_users_key_without_its_user_admits_nobody() {
    let ada = user(1);
    assert!(!KeyEntry::new(key(KeyOwner::User(ada.id)), Some(&ada)).is_banned);
    assert!(KeyEntry::new(key(KeyOwner::User(ada.id)), None).is_banned);
    assert!(!KeyEntry::new(key(KeyOwner::Service("ci".to_owned())), None).is_banned);
}
