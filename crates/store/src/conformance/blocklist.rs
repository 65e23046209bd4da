use std::time::Duration;

use doorward_core::{
    audit::{AuditEvent, EventKind},
    effects::Effects,
    revocation::{NewRevocation, Revocation, Scope},
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
    let lifted = Scope::Lifted { scope: Box::new(scope.clone()) };
    let entry = NewRevocation { scope: lifted, at: now, until: None, why: "found".to_owned() };
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
