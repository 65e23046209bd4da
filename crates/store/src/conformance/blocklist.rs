use std::time::Duration;

use doorward_core::{
    audit::{AuditEvent, EventKind},
    effects::Effects,
    revocation::{LIFTED_FOR, NewRevocation, Revocation, Scope},
    time::Timestamp,
};

use super::{START, revocation, traces};
use crate::{Store, Unblock};

const HOUR: Duration = Duration::from_secs(3600);

fn token(jti: &str) -> Scope {
    Scope::token("main", jti).unwrap()
}

async fn block(store: &Store, scope: Scope, until: Option<Timestamp>) {
    let entry = NewRevocation { scope, at: START, until, why: "stolen".to_owned() };
    store.append(Effects::default().with_revocation(entry)).await.unwrap();
}

async fn unblock(store: &Store, scope: &Scope, now: Timestamp) -> Unblock {
    let entry = NewRevocation::lifting(scope.clone(), now, "found");
    let effects = Effects::audited(AuditEvent::new(EventKind::BlocklistRemoved, now)).with_revocation(entry);
    store.unblock(scope.clone(), now, effects).await.unwrap()
}

fn scopes(entries: Vec<Revocation>) -> Vec<Scope> {
    entries.into_iter().map(|entry| entry.entry.scope).collect()
}

async fn listed(store: &Store, now: Timestamp) -> Vec<Scope> {
    scopes(store.blocklist(now, 0, 1000).await.unwrap())
}

pub async fn the_blocklist_is_what_is_in_force_and_not_lifted(a: Store, b: Store) {
    let (for_ever, for_an_hour) = (token("a\"_%\\'b"), Scope::subject("main", "\u{fc}").unwrap());
    let (lifted, other) = (token("lifted"), Scope::subject("other", "lifted").unwrap());
    a.append(Effects::default().with_revocation(revocation("no blocklist entry"))).await.unwrap();
    for (scope, until) in [(&for_ever, None), (&for_an_hour, Some(START.plus(HOUR))), (&lifted, None), (&other, None)] {
        block(&a, scope.clone(), until).await;
    }
    assert_eq!(unblock(&b, &lifted, START).await, Unblock::Lifted);
    assert_eq!(listed(&b, START).await, [for_ever.clone(), for_an_hour.clone(), other.clone()]);
    assert_eq!(listed(&a, START.plus(HOUR)).await, [for_ever.clone(), other.clone()], "the end itself is outside");
    let found = b.blocked(for_an_hour.clone(), START).await.unwrap().unwrap().entry;
    assert_eq!((found.until, found.why.as_str()), (Some(START.plus(HOUR)), "stolen"));
    assert_eq!(b.blocked(for_an_hour, START.plus(HOUR)).await, Ok(None));
    assert_eq!(b.blocked(lifted.clone(), START).await, Ok(None));
    // What is not on the list cannot be taken off it, and leaves no trace.
    let before = traces(&a).await;
    for unknown in [lifted, token("never"), Scope::subject("main", "lifted").unwrap()] {
        assert_eq!(unblock(&a, &unknown, START).await, Unblock::NotListed);
    }
    assert_eq!(traces(&b).await, before);
}

pub async fn what_is_lifted_can_be_blocked_again_and_a_purge_changes_no_answer(a: Store, b: Store) {
    let scope = token("again");
    block(&a, scope.clone(), None).await;
    block(&a, scope.clone(), Some(START.plus(HOUR))).await;
    // A shorter entry does not shorten a longer one.
    assert_eq!(listed(&b, START.plus(HOUR)).await, std::slice::from_ref(&scope));
    assert_eq!(unblock(&b, &scope, START).await, Unblock::Lifted, "one lift takes back both");
    assert_eq!(listed(&a, START).await, []);
    let short = token("short");
    block(&b, scope.clone(), None).await;
    block(&b, short, Some(START.plus(HOUR))).await;
    let later = START.plus(HOUR * 2);
    assert_eq!(listed(&a, later).await, std::slice::from_ref(&scope));
    a.purge(later, HOUR).await.unwrap();
    assert_eq!(listed(&b, later).await, std::slice::from_ref(&scope));
    assert_eq!(unblock(&b, &scope, later).await, Unblock::Lifted);
    assert_eq!(listed(&b, later).await, []);
}

async fn log(store: &Store, after: i64) -> Vec<Scope> {
    scopes(store.revocations_after(after, 1000).await.unwrap())
}

pub async fn what_is_lifted_leaves_the_log_at_once_and_the_lift_itself_once_everybody_has_read_it(a: Store, b: Store) {
    let (scope, other) = (token("lifted"), token("other"));
    let lifted = || Scope::Lifted { scope: Box::new(token("lifted")) };
    block(&a, scope.clone(), None).await;
    block(&a, other.clone(), None).await;
    block(&a, scope.clone(), Some(START.plus(HOUR))).await;
    let read = a.last_revocation().await.unwrap();
    assert_eq!(unblock(&b, &scope, START).await, Unblock::Lifted);
    assert_eq!(log(&a, 0).await, [other.clone(), lifted()], "who begins now finds nothing to take back");
    assert_eq!(log(&a, read).await, [lifted()], "who has read it learns that it is over");
    let end = START.plus(LIFTED_FOR);
    a.purge(end.minus(HOUR), HOUR).await.unwrap();
    assert_eq!(log(&b, read).await, [lifted()]);
    a.purge(end, HOUR).await.unwrap();
    assert_eq!(log(&b, 0).await, std::slice::from_ref(&other));
    assert_eq!(listed(&b, end).await, [other]);
    // What comes next is still a number that nobody has read.
    block(&b, scope.clone(), None).await;
    assert_eq!(log(&a, read + 1).await, [scope]);
}

pub async fn blocks_and_lifts_without_end_leave_nothing_behind(a: Store, b: Store) {
    let scope = Scope::subject("main", "in and out").unwrap();
    for _ in 0..250 {
        block(&a, scope.clone(), None).await;
        assert_eq!(unblock(&b, &scope, START).await, Unblock::Lifted);
    }
    assert_eq!(log(&a, 0).await.len(), 250, "the lifts of a week, and nothing else");
    let purged = b.purge(START.plus(LIFTED_FOR), HOUR).await.unwrap();
    assert_eq!((purged.revocations, log(&a, 0).await), (250, Vec::new()));
}

pub async fn whoever_follows_the_log_and_whoever_begins_anew_agree_however_blocks_and_lifts_race(a: Store, b: Store) {
    let scope = token("contested");
    for _ in 0..10 {
        let after = a.last_revocation().await.unwrap();
        let ends = (0..12).map(|number| {
            let (store, scope) = (if number % 2 == 0 { a.clone() } else { b.clone() }, scope.clone());
            tokio::spawn(async move {
                if number % 3 == 0 {
                    unblock(&store, &scope, START).await;
                } else {
                    block(&store, scope, None).await;
                }
            })
        });
        for end in ends.collect::<Vec<_>>() {
            end.await.unwrap();
        }
        let mut followed = false;
        for entry in log(&a, after).await {
            followed = entry == scope;
        }
        // Entries that were lifted are gone from the log, but never one that came after its lift.
        let anew = b.blocked(scope.clone(), START).await.unwrap().is_some();
        assert_eq!(followed, anew);
    }
}

pub async fn a_long_blocklist_comes_in_pages(a: Store, b: Store) {
    let all: Vec<Scope> = (0..250).map(|number| token(&number.to_string())).collect();
    let effects = all.iter().fold(Effects::default(), |effects, scope| {
        let entry = NewRevocation { scope: scope.clone(), at: START, until: None, why: "test".to_owned() };
        effects.with_revocation(entry)
    });
    a.append(effects).await.unwrap();
    let (mut read, mut after) = (Vec::new(), 0);
    loop {
        let page = b.blocklist(START, after, 100).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 100);
        after = last.seq;
        read.extend(scopes(page));
    }
    assert_eq!(read, all);
}
