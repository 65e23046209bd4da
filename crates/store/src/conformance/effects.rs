use std::time::Duration;

use doorward_core::{
    audit::{AuditEvent, AuditFault, ChainVerifier, ERASED_ROWS, EventKind, erased_rows},
    effects::Effects,
    id::{ApiKeyId, DecisionId, OrgId, RingKeyId, SessionId, UserId},
    reason::Reason,
    revocation::{NewRevocation, Scope},
};

use super::{START, all_effects, fresh, link, mail, plan, race, revocation, stored_user, traces, user};
use crate::{Checkpoint, Store, StoreError, WriterHead};

pub async fn revocations_are_read_in_order_and_in_pages(a: Store, b: Store) {
    assert_eq!(a.last_revocation().await, Ok(0));
    let (user, later) = (UserId::mint(START, fresh()), Some(START.plus(Duration::from_secs(9))));
    let token = Scope::Token { issuer: "main".to_owned(), jti: "a\"b".to_owned() };
    let scopes = [
        Scope::Session { id: SessionId::mint(START, fresh()) },
        Scope::UserSessions { id: user },
        Scope::AllSessions,
        Scope::User { id: user },
        Scope::ApiKey { id: ApiKeyId::mint(START, fresh()) },
        token.clone(),
        Scope::Subject { issuer: "main".to_owned(), subject: "\u{fc}".to_owned() },
        Scope::Lifted { scope: Box::new(token) },
        Scope::LicenseTime,
        Scope::KeyRing { purpose: "session".to_owned() },
    ];
    let entries: Vec<NewRevocation> = scopes
        .into_iter()
        .map(|scope| NewRevocation { scope, at: START, until: later, why: "test".to_owned() })
        .collect();
    for pair in entries.chunks(2) {
        let effects = Effects { revocations: pair.to_vec(), ..Effects::default() };
        a.append(effects).await.unwrap();
    }
    let mut read = Vec::new();
    let mut after = 0;
    loop {
        let page = b.revocations_after(after, 4).await.unwrap();
        assert!(page.len() <= 4);
        let Some(last) = page.last() else { break };
        after = last.seq;
        read.extend(page);
    }
    assert!(read.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    assert_eq!(b.last_revocation().await, Ok(after));
    assert_eq!(read.into_iter().map(|revocation| revocation.entry).collect::<Vec<_>>(), entries);
}

pub async fn a_reader_that_polls_misses_no_revocation_of_concurrent_writers(a: Store, b: Store) {
    const WRITERS: usize = 12;
    const EACH: usize = 15;
    let reader = a.clone();
    let poll = tokio::spawn(async move {
        let (mut seen, mut after) = (Vec::new(), 0);
        while seen.len() < WRITERS * EACH {
            let page = reader.revocations_after(after, 1000).await.unwrap();
            assert!(page.iter().all(|entry| entry.seq > after));
            after = page.last().map_or(after, |entry| entry.seq);
            seen.extend(page.into_iter().map(|entry| entry.entry.why));
            tokio::task::yield_now().await;
        }
        seen
    });
    race(WRITERS, &a, &b, |store, writer| async move {
        for number in 0..EACH {
            // Together with other work, so that transactions differ in length.
            let mut effects = Effects::default().with_revocation(revocation(&format!("{writer}/{number}")));
            if number % 3 == 0 {
                effects = effects.with_mail(mail());
                effects.audit.push(AuditEvent::new(EventKind::SessionRevoked, START));
            }
            store.append(effects).await.unwrap();
        }
    })
    .await;
    let seen = tokio::time::timeout(Duration::from_mins(1), poll).await;
    let mut seen = seen.unwrap_or_else(|_| panic!("the reader has missed an entry")).unwrap();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), WRITERS * EACH);
}

pub async fn an_operation_that_fails_leaves_nothing_behind(a: Store, b: Store) {
    let known = mail();
    let stored = stored_user(&a).await;
    let link = link(&stored);
    a.put_link(link.clone(), Effects::default().with_mail(known.clone())).await.unwrap();
    // A mail whose id is taken breaks the transaction at its end, after everything else was written.
    let broken = || {
        let mut effects = all_effects().with_mail(known.clone());
        effects.audit.push(AuditEvent::new(EventKind::UserCreated, START));
        effects
    };
    let before = traces(&a).await;
    let new = user();
    let plan = plan(&link, &stored);
    let errors = [
        a.create_user(new.clone(), broken()).await.unwrap_err(),
        b.consume_link(plan.clone(), broken()).await.unwrap_err(),
        a.append(broken()).await.unwrap_err(),
        b.set_banned(stored.id, Some(START), broken()).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::Fault { .. }), "{error}");
    }
    assert_eq!(traces(&b).await, before);
    assert_eq!(b.user(new.id).await, Ok(None));
    assert_eq!(b.user(stored.id).await, Ok(Some(stored.clone())));
    assert_eq!(b.link(link.id).await, Ok(Some(link)));
    assert_eq!(b.session(plan.session.hash).await, Ok(None));
    // And the next ones go on as if nothing had been, the chain without a gap.
    a.create_user(new, all_effects()).await.unwrap();
    let after = traces(&a).await;
    assert_eq!((after.0, after.1), (before.0 + 1, before.1 + 1));
    assert_eq!(b.verify_audit(&[], |_| Ok(())).await.unwrap().faults, []);
}

pub async fn a_failing_operation_takes_no_other_with_it(a: Store, b: Store) {
    let known = mail();
    a.append(Effects::default().with_mail(known.clone())).await.unwrap();
    let outcomes = race(60, &a, &b, |store, number| {
        let effects = if number % 3 == 0 { all_effects().with_mail(known.clone()) } else { all_effects() };
        let user = user();
        async move { (number, user.id, store.create_user(user, effects).await) }
    })
    .await;
    for (number, id, outcome) in outcomes {
        assert_eq!(outcome.is_ok(), number % 3 != 0, "{number}: {outcome:?}");
        assert_eq!(b.user(id).await.unwrap().is_some(), number % 3 != 0);
    }
    assert_eq!(traces(&b).await.0, 40);
    let report = a.verify_audit(&[], |_| Ok(())).await.unwrap();
    assert_eq!((report.rows, report.faults), (40, vec![]));
}

pub async fn an_outcome_without_a_change_writes_no_effect(a: Store, b: Store) {
    let stored = stored_user(&a).await;
    let changed = a.changed();
    let twin = doorward_core::user::User { email: stored.email.clone(), ..user() };
    a.create_user(twin, all_effects()).await.unwrap();
    a.set_banned(UserId::mint(START, fresh()), None, all_effects()).await.unwrap();
    assert_eq!(traces(&b).await, (0, 0, 0));
    assert!(!changed.has_changed().unwrap());
}

pub async fn changes_of_this_process_wake_its_readers(a: Store, _b: Store) {
    let mut changed = a.changed();
    let reader = tokio::spawn(async move {
        changed.changed().await.unwrap();
        *changed.borrow()
    });
    a.append(all_effects().with_revocation(revocation("two"))).await.unwrap();
    let seen = tokio::time::timeout(Duration::from_mins(1), reader).await.unwrap().unwrap();
    assert_eq!((seen.revocations, seen.mails), (2, 1));
}

pub async fn audit_rows_are_sealed_into_a_chain_that_verifies(a: Store, b: Store) {
    let mut event = AuditEvent::new(EventKind::RequestRefused, START).about(UserId::mint(START, fresh()));
    event.org_id = Some(OrgId::mint(START, fresh()));
    event.decision = Some(DecisionId::mint(START, fresh()));
    event.reason = Some(Reason::SessionIdle);
    event.detail.ip = Some("192.0.2.9".parse().unwrap());
    event.detail.more.insert("count".to_owned(), 3.into());
    let plain = AuditEvent::new(EventKind::ServerStarted, START);
    a.append(Effects { audit: vec![event.clone(), plain], ..Effects::default() }).await.unwrap();
    let rows = b.audit_tail(0, 10).await.unwrap();
    assert_eq!(rows.len(), 2);
    let row = &rows[0];
    assert_eq!((row.kind.as_str(), row.reason.as_deref(), row.at), ("request.refused", Some("session_idle"), START));
    assert_eq!((row.user_id, row.org_id, row.decision), (event.user_id, event.org_id, event.decision));
    assert_eq!(row.detail.as_deref(), Some(r#"{"ip":"192.0.2.9","count":3}"#));
    assert_ne!(rows[0].salt, rows[1].salt);
    assert_eq!(b.audit_tail(rows[0].seq, 10).await.unwrap(), rows[1..]);
    let mut verifier = ChainVerifier::default();
    for row in &b.audit_chain(row.writer, 0, 10).await.unwrap() {
        verifier.check(row).unwrap();
    }
    let (number, hash) = verifier.head();
    assert_eq!(b.audit_writers().await, Ok(vec![WriterHead { writer: row.writer, number, hash }]));
    let report = b.verify_audit(&[], |_| Ok(())).await.unwrap();
    assert_eq!((report.writers, report.rows, report.faults), (1, 2, vec![]));
}

pub async fn concurrent_audit_rows_make_whole_chains(a: Store, b: Store) {
    race(24, &a, &b, |store, _| async move {
        for _ in 0..5 {
            store.append(all_effects()).await.unwrap();
        }
    })
    .await;
    let report = a.verify_audit(&[], |_| Ok(())).await.unwrap();
    assert_eq!((report.rows, report.faults), (120, vec![]));
    let (mut after, mut rows) = (0, 0);
    loop {
        let page = b.audit_tail(after, 50).await.unwrap();
        let Some(last) = page.last() else { break };
        (after, rows) = (last.seq, rows + page.len());
    }
    assert_eq!(rows, 120);
}

pub async fn a_checkpoint_is_kept_with_its_heads(a: Store, b: Store) {
    a.append(all_effects()).await.unwrap();
    let heads = a.audit_writers().await.unwrap();
    let first = Checkpoint { at: START, heads, key: RingKeyId::mint(START, fresh()), signature: vec![1, 2, 3] };
    let second = Checkpoint { at: START.plus(Duration::from_secs(1)), signature: vec![], ..first.clone() };
    a.put_checkpoint(first.clone(), Effects::default()).await.unwrap();
    a.put_checkpoint(second.clone(), all_effects()).await.unwrap();
    assert_eq!(b.checkpoints(10).await, Ok(vec![second.clone(), first.clone()]));
    let one = b.checkpoints_after(0, 1).await.unwrap();
    assert_eq!((one.len(), &one[0].1), (1, &first));
    let rest = b.checkpoints_after(one[0].0, 10).await.unwrap();
    assert_eq!((rest.len(), &rest[0].1), (1, &second));
    let report = b.verify_audit(&[], |_| Ok(())).await.unwrap();
    assert_eq!((report.checkpoint, report.checkpoints, report.unsigned), (Some(second.at), 2, 1));
    assert_eq!(report.faults, []);
    let report =
        b.verify_audit(&[], |checkpoint| if *checkpoint == first { Ok(()) } else { Err("odd") }).await.unwrap();
    assert_eq!(report.faults, [AuditFault::Checkpoint { at: second.at, flaw: "odd" }]);
    // A checkpoint that names more rows than there are: somebody has cut the log.
    let mut heads = b.audit_writers().await.unwrap();
    let (writer, number) = (heads[0].writer, heads[0].number);
    heads[0].number += 5;
    let cut = Checkpoint { at: START, heads, key: RingKeyId::mint(START, fresh()), signature: vec![] };
    a.put_checkpoint(cut, Effects::default()).await.unwrap();
    let expected = AuditFault::Cut { writer, expected: number + 5, found: number, signed: Some(START) };
    assert_eq!(b.verify_audit(&[], |_| Ok(())).await.unwrap().faults, [expected]);
}

pub async fn details_are_erased_with_their_salts_and_the_chain_holds(a: Store, b: Store) {
    let person = UserId::mint(START, fresh());
    let rows: Vec<AuditEvent> = (0..4)
        .map(|n| {
            let mut event = AuditEvent::new(EventKind::SessionCreated, START).about(person);
            event.detail.more.insert("n".to_owned(), n.into());
            event
        })
        .collect();
    a.append(Effects { audit: rows, ..Effects::default() }).await.unwrap();
    let before = b.audit_tail(0, 10).await.unwrap();
    let erase = vec![(before[0].writer, before[0].number), (before[2].writer, before[2].number)];
    let mut record = AuditEvent::new(EventKind::AuditErased, START).about(person);
    record.detail.more.insert(ERASED_ROWS.to_owned(), erased_rows(&erase));
    assert_eq!(b.erase_details(erase.clone(), Effects::audited(record.clone())).await, Ok(2));
    assert_eq!(a.erase_details(erase, Effects::audited(record)).await, Ok(0), "nothing is left, and no row says so");
    let after = a.audit_tail(0, 10).await.unwrap();
    assert_eq!(after.len(), 5);
    for (n, (old, new)) in before.iter().zip(&after).enumerate() {
        let is_erased = n % 2 == 0;
        assert_eq!((new.detail.is_none(), new.salt == [0; 16]), (is_erased, is_erased), "{n}");
        assert_eq!((new.hash, new.detail_hash, new.user_id), (old.hash, old.detail_hash, old.user_id));
    }
    let report = b.verify_audit(&[], |_| Ok(())).await.unwrap();
    assert_eq!((report.erased, report.faults), (2, vec![]));
    // The record itself stays, and without one an erasure is a fault.
    let record = after.last().map(|row| (row.writer, row.number)).unwrap();
    assert_eq!(a.erase_details(vec![record], Effects::default()).await, Ok(0));
    let silent = (before[3].writer, before[3].number);
    assert_eq!(a.erase_details(vec![silent], Effects::default()).await, Ok(1));
    let expected = AuditFault::Erased { writer: silent.0, number: silent.1, count: 1 };
    assert_eq!(b.verify_audit(&[], |_| Ok(())).await.unwrap().faults, [expected]);
}
