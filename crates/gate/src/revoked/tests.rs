use std::sync::Arc;

use doorward_core::{
    principal::{PrincipalKind, SubjectId},
    revocation::NewRevocation,
    session::SignInMethod,
    token::Claims,
};

use super::*;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn now(seconds: u64) -> Now {
    let by = Duration::from_secs(seconds);
    Now { wall: START.plus(by), mono: by }
}

fn user(byte: u8) -> UserId {
    UserId::mint(START, [byte; 10])
}

fn principal(user_id: Option<UserId>, authenticated: Authenticated) -> Principal {
    Principal {
        kind: PrincipalKind::User,
        subject: SubjectId { issuer: "main".into(), subject: "ada".into() },
        user_id,
        email: None,
        org_id: None,
        authenticated,
        expires_at: None,
    }
}

fn session(byte: u8, created: u64) -> Principal {
    let created_at = now(created).wall;
    let id = SessionId::mint(START, [byte; 10]);
    let method = SignInMethod::MagicLink;
    principal(Some(user(byte)), Authenticated::Session { id, method, authenticated_at: created_at, created_at })
}

fn token(jti: Option<&str>) -> Principal {
    let claims = Arc::new(Claims { id: jti.map(Into::into), ..Claims::default() });
    principal(None, Authenticated::Bearer { claims })
}

fn entry(seq: i64, scope: Scope, at: u64, until: Option<u64>) -> Revocation {
    let until = until.map(|until| now(until).wall);
    Revocation { seq, entry: NewRevocation { scope, at: now(at).wall, until, why: "test".to_owned() } }
}

fn jti(text: &str) -> Scope {
    Scope::Token { issuer: "main".to_owned(), jti: text.to_owned() }
}

fn lifted(scope: Scope) -> Scope {
    Scope::Lifted { scope: Box::new(scope) }
}

/// Applies what comes next.
fn apply(revoked: &Revoked, entries: &[Revocation]) {
    assert!(revoked.apply(revoked.seq(), entries, now(0)).is_some());
}

#[test]
fn nothing_is_fresh_before_the_log_was_read_to_its_end() {
    let revoked = Revoked::default();
    assert_eq!(revoked.freshness(now(0)), Freshness::Stale);
    apply(&revoked, &[entry(1, jti("a"), 0, None)]);
    assert_eq!(revoked.freshness(now(0)), Freshness::Stale, "more may be to come");
    assert!(revoked.caught_up(revoked.seq(), now(0)));
    assert_eq!(revoked.freshness(now(0)), Freshness::Fresh);
    assert_eq!(revoked.freshness(now(2)), Freshness::Fresh);
    assert_eq!(revoked.freshness(Now { mono: now(2).mono + Duration::from_millis(1), ..now(2) }), Freshness::Stale);
}

#[test]
fn a_wall_clock_that_is_set_back_or_forward_does_not_change_the_age_of_the_state() {
    let revoked = Revoked::default();
    assert!(revoked.caught_up(revoked.seq(), now(10)));
    let at = |wall| Now { wall, mono: now(11).mono };
    assert_eq!(revoked.freshness(at(Timestamp::from_secs(0))), Freshness::Fresh);
    assert_eq!(revoked.freshness(at(now(1_000_000).wall)), Freshness::Fresh);
}

#[test]
fn entries_count_in_their_order_so_the_last_word_about_a_token_holds() {
    let revoked = Revoked::default();
    apply(&revoked, &[entry(1, jti("a"), 0, None), entry(2, jti("b"), 0, None), entry(3, lifted(jti("a")), 1, None)]);
    assert_eq!(revoked.reason(&token(Some("a")), now(2).wall), None);
    assert_eq!(revoked.reason(&token(Some("b")), now(2).wall), Some(Reason::TokenRevoked));
    assert_eq!(revoked.seq(), 3);
    apply(&revoked, &[entry(4, jti("a"), 3, None)]);
    assert_eq!(revoked.reason(&token(Some("a")), now(4).wall), Some(Reason::TokenRevoked));
    assert_eq!(revoked.seq(), 4);
}

#[test]
fn a_page_that_comes_after_a_newer_one_brings_nothing_back() {
    let revoked = Revoked::default();
    // Two read at once. The first answer is on its way when the entry is taken back and read again.
    let late = [entry(11, jti("a"), 0, None)];
    assert_eq!(revoked.apply(0, &[entry(12, lifted(jti("a")), 1, None)], now(1)), Some(0));
    assert_eq!(revoked.apply(0, &late, now(2)), None);
    assert_eq!((revoked.reason(&token(Some("a")), now(2).wall), revoked.seq()), (None, 12));
    // The end of the log as it was says nothing about the log as it is.
    assert!(!revoked.caught_up(11, now(2)));
    assert_eq!(revoked.freshness(now(2)), Freshness::Stale);
    assert!(revoked.caught_up(12, now(2)));
}

#[test]
fn a_page_from_before_a_long_absence_does_not_pass_for_the_whole_log() {
    let revoked = Revoked::default();
    apply(&revoked, &[entry(1, jti("a"), 0, None), entry(2, jti("b"), 0, None)]);
    assert!(revoked.caught_up(2, now(0)));
    let back = now(8 * 24 * 3600);
    revoked.begin_anew_if_cut_off(back);
    assert_eq!((revoked.apply(2, &[entry(3, jti("c"), 0, None)], back), revoked.caught_up(2, back)), (None, false));
    assert_eq!(revoked.apply(0, &[entry(1, jti("a"), 0, None)], back), Some(2));
    assert!(!revoked.caught_up(2, back) && revoked.reason(&token(Some("b")), back.wall).is_some());
}

#[test]
fn a_log_whose_last_entry_is_missing_is_read_from_its_start_and_is_news_unless_that_was_purged() {
    for (until, is_news) in [(None, true), (Some(4_000), true), (Some(3_000), false)] {
        let revoked = Revoked::default();
        apply(&revoked, &[entry(1, Scope::AllSessions, 0, None), entry(2, jti("b"), 0, until)]);
        assert!(revoked.caught_up(2, now(0)));
        let last = revoked.last().unwrap();
        revoked.begin_without(&last, now(0).wall);
        assert_eq!((revoked.seq(), revoked.last()), (0, None));
        let refused = |text: &str| revoked.reason(&token(Some(text)), now(1).wall).is_some();
        assert!(refused("b"), "what was known counts until the end of the log is reached");
        let heard = revoked.apply(0, &[entry(1, Scope::AllSessions, 0, None)], now(1));
        assert_eq!(heard, Some(if is_news { 0 } else { 2 }));
        assert!(revoked.caught_up(1, now(1)) && !refused("b"));
        assert_eq!(revoked.has_ended(None, now(1).mono), is_news, "what is known to have ended ends nothing again");
        // Another one that noticed the same comes late.
        revoked.begin_without(&last, now(0).wall);
        assert_eq!(revoked.seq(), 1);
    }
}

#[test]
fn who_was_let_in_before_all_sessions_ended_is_told_apart_from_who_came_after() {
    let revoked = Revoked::default();
    let everybody = entry(1, Scope::AllSessions, 0, None);
    assert_eq!(revoked.apply(0, std::slice::from_ref(&everybody), now(5)), Some(0));
    assert_eq!(revoked.apply(1, &[entry(2, Scope::UserSessions { id: user(1) }, 0, None)], now(7)), Some(1));
    let ended = |byte: u8, since: u64| revoked.has_ended(Some(user(byte)), now(since).mono);
    assert_eq!([ended(1, 7), ended(1, 8), ended(2, 5), ended(2, 6)], [true, false, true, false]);
    assert!(revoked.caught_up(2, now(7)));
    // The same entries once more are no news.
    let back = now(8 * 24 * 3600);
    revoked.begin_anew_if_cut_off(back);
    assert_eq!(revoked.apply(0, &[everybody], back), Some(2));
    assert!(revoked.caught_up(1, back));
    assert_eq!([revoked.has_ended(None, now(6).mono), ended(1, 7)], [false, true]);
}

#[test]
fn a_token_is_revoked_under_its_issuer_only_and_a_subject_with_all_its_tokens() {
    let revoked = Revoked::default();
    let elsewhere = Scope::Token { issuer: "other".to_owned(), jti: "a".to_owned() };
    apply(&revoked, &[entry(1, elsewhere, 0, None)]);
    assert_eq!(revoked.reason(&token(Some("a")), START), None);
    let subject = Scope::Subject { issuer: "main".to_owned(), subject: "ada".to_owned() };
    apply(&revoked, &[entry(2, subject.clone(), 0, None)]);
    assert_eq!(revoked.reason(&token(None), START), Some(Reason::TokenRevoked));
    apply(&revoked, &[entry(3, lifted(subject), 0, None)]);
    assert_eq!(revoked.reason(&token(None), START), None);
}

#[test]
fn whoever_was_cut_off_for_days_reads_the_log_again_and_forgets_what_was_taken_back_meanwhile() {
    let revoked = Revoked::default();
    apply(&revoked, &[entry(1, jti("lifted"), 0, None), entry(2, jti("kept"), 0, None)]);
    assert!(revoked.caught_up(revoked.seq(), now(0)));
    let days = |days: u64| now(days * 24 * 3600);
    revoked.begin_anew_if_cut_off(days(3));
    assert_eq!(revoked.seq(), 2, "a night without the store is no reason");
    // The entry that lifted the first one came and went unseen.
    let back = days(8);
    revoked.begin_anew_if_cut_off(back);
    assert_eq!(revoked.seq(), 0);
    let refused = |text: &str| revoked.reason(&token(Some(text)), back.wall).is_some();
    assert!(refused("lifted") && refused("kept"), "what was known counts until the end of the log is reached");
    apply(&revoked, &[entry(2, jti("kept"), 0, None)]);
    revoked.begin_anew_if_cut_off(back);
    assert_eq!(revoked.seq(), 2, "it has begun already");
    apply(&revoked, &[entry(9, jti("new"), 0, None)]);
    assert!(refused("lifted") && refused("new"));
    revoked.changed(user(1), NewRevocation::BAN, back);
    assert!(revoked.caught_up(revoked.seq(), back));
    assert!(!refused("lifted") && refused("kept") && refused("new"));
    assert_eq!((revoked.seq(), revoked.blocklist_len()), (9, 2));
    assert_eq!(revoked.change(user(1), back.mono), Some(Change::Banned), "what was heard meanwhile is not lost");
}

#[test]
fn an_entry_ends_at_its_time_also_where_nobody_swept() {
    let revoked = Revoked::default();
    apply(&revoked, &[entry(1, jti("a"), 0, Some(10))]);
    assert!(revoked.reason(&token(Some("a")), now(9).wall).is_some());
    assert_eq!(revoked.reason(&token(Some("a")), now(10).wall), None);
}

#[test]
fn sessions_that_began_later_are_not_meant_by_an_order_to_end_all() {
    let revoked = Revoked::default();
    apply(&revoked, &[entry(1, Scope::UserSessions { id: user(1) }, 100, Some(200))]);
    assert_eq!(revoked.reason(&session(1, 100), now(101).wall), Some(Reason::SessionRevoked));
    assert_eq!(revoked.reason(&session(1, 101), now(101).wall), None);
    assert_eq!(revoked.reason(&session(2, 100), now(101).wall), None, "another user's");
    // An older order that is read again later takes nothing back.
    apply(&revoked, &[entry(2, Scope::UserSessions { id: user(1) }, 50, Some(60))]);
    assert_eq!(revoked.reason(&session(1, 100), now(101).wall), Some(Reason::SessionRevoked));
    apply(&revoked, &[entry(3, Scope::AllSessions, 300, None)]);
    assert_eq!(revoked.reason(&session(2, 300), now(301).wall), Some(Reason::SessionRevoked));
    assert_eq!(revoked.reason(&session(2, 301), now(301).wall), None);
}

#[test]
fn a_sweep_forgets_what_is_over_and_nothing_that_is_in_force() {
    let revoked = Revoked::default();
    let one = SessionId::mint(START, [1; 10]);
    apply(
        &revoked,
        &[
            entry(1, jti("over"), 0, Some(10)),
            entry(2, jti("for ever"), 0, None),
            entry(3, Scope::Session { id: one }, 0, Some(1000)),
            entry(4, Scope::UserSessions { id: user(2) }, 5, Some(10)),
        ],
    );
    revoked.changed(user(3), "role", now(0));
    revoked.sweep(now(10));
    {
        let state = revoked.state.read().unwrap();
        assert_eq!(state.tokens.len(), 1);
        assert!(state.user_sessions.is_empty());
        assert_eq!((state.sessions.len(), state.users.len()), (1, 1));
    }
    assert!(revoked.reason(&token(Some("for ever")), now(10).wall).is_some());
    assert_eq!(revoked.reason(&session(1, 500), now(10).wall), Some(Reason::SessionRevoked));
    revoked.sweep(now(1000));
    let state = revoked.state.read().unwrap();
    assert!(state.sessions.is_empty() && state.users.is_empty());
}

#[test]
fn a_change_of_a_user_counts_for_what_began_before_it() {
    let revoked = Revoked::default();
    revoked.changed(user(1), "role", now(5));
    let change = |user, since| revoked.change(user, now(since).mono);
    assert_eq!((change(user(1), 4), change(user(1), 5)), (Some(Change::Other), Some(Change::Other)));
    assert_eq!((change(user(1), 6), change(user(2), 4)), (None, None));
}

#[test]
fn a_ban_is_called_a_ban_until_it_is_lifted_whatever_else_changes() {
    let revoked = Revoked::default();
    let mut told = Vec::new();
    for why in ["role", NewRevocation::BAN, "role", NewRevocation::UNBAN, "role"] {
        revoked.changed(user(1), why, now(5));
        told.push(revoked.change(user(1), now(5).mono).unwrap());
    }
    use Change::{Banned, Other};
    assert_eq!(told, [Other, Banned, Banned, Other, Other]);
}

#[test]
fn a_revoked_api_key_stays_so_until_it_is_lifted() {
    let revoked = Revoked::default();
    let id = ApiKeyId::mint(START, [1; 10]);
    let key = principal(None, Authenticated::ApiKey { id, capabilities: Default::default() });
    assert_eq!(revoked.reason(&key, START), None);
    apply(&revoked, &[entry(1, Scope::ApiKey { id }, 0, None)]);
    assert_eq!(revoked.reason(&key, now(1_000_000).wall), Some(Reason::ApiKeyRevoked));
    apply(&revoked, &[entry(2, lifted(Scope::ApiKey { id }), 0, None)]);
    assert_eq!(revoked.reason(&key, START), None);
}

#[test]
fn entries_for_one_name_add_up_and_are_lifted_together() {
    let revoked = Revoked::default();
    apply(&revoked, &[entry(1, jti("a"), 0, None), entry(2, jti("a"), 0, Some(10))]);
    assert!(revoked.reason(&token(Some("a")), now(10).wall).is_some(), "the longer one counts, as after a restart");
    apply(&revoked, &[entry(3, Scope::Lifted { scope: Box::new(jti("a")) }, 0, None)]);
    assert!(revoked.reason(&token(Some("a")), now(5).wall).is_none());
    assert_eq!(revoked.blocklist_len(), 0);
    apply(&revoked, &[entry(4, jti("a"), 0, Some(20))]);
    assert!(revoked.reason(&token(Some("a")), now(19).wall).is_some());
    assert!(revoked.reason(&token(Some("a")), now(20).wall).is_none(), "the end itself is outside");
}
