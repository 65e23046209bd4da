use std::{collections::BTreeSet, time::Duration};

use doorward_core::{
    effects::Effects,
    id::UserId,
    license::{Holder, Known, LicenseState, Observation},
    time::Timestamp,
};

use super::{START, all_effects, fresh, race, traces, user};
use crate::{ApplyLicense, LicenseChange, LicenseEventMark, LicenseRow, LinkSubject, NoteHint, Store};

fn after(secs: u64) -> Timestamp {
    START.plus(Duration::from_secs(secs))
}

fn known(state: LicenseState, secs: u64) -> Known {
    let observation = Observation {
        state,
        license_id: Some("lic-1".to_owned()),
        expires_at: Some(after(1000)),
        entitlements: BTreeSet::from(["sso".to_owned(), "a \"b\"".to_owned()]),
        observed_at: after(secs),
    };
    Known { observation, confirmed_at: after(secs) }
}

fn change(holder: Holder, expected: Option<&Known>, new: &Known) -> LicenseChange {
    LicenseChange { holder, expected: expected.cloned(), known: new.clone(), event: None, at: new.confirmed_at }
}

pub async fn a_license_is_kept_for_each_holder(a: Store, b: Store) {
    let ada = user();
    a.create_user(ada.clone(), Effects::default()).await.unwrap();
    let first = known(LicenseState::Active, 0);
    for holder in [Holder::Installation, Holder::User(ada.id)] {
        assert_eq!(b.license(holder).await, Ok(None));
        assert_eq!(a.apply_license(change(holder, None, &first), Effects::default()).await, Ok(ApplyLicense::Applied));
        let row = LicenseRow { holder, known: first.clone(), last_seq: None };
        assert_eq!(b.license(holder).await, Ok(Some(row)));
    }
    let second = known(LicenseState::Suspended, 60);
    let holder = Holder::User(ada.id);
    let applied = b.apply_license(change(holder, Some(&first), &second), all_effects()).await;
    assert_eq!(applied, Ok(ApplyLicense::Applied));
    assert_eq!(a.license(holder).await.unwrap().unwrap().known, second);
    let named: Vec<Holder> = a.licenses_named("lic-1".to_owned()).await.unwrap().iter().map(|row| row.holder).collect();
    assert_eq!(named, [Holder::Installation, holder]);
    assert_eq!(a.licenses_named("other".to_owned()).await, Ok(vec![]));
    let due = async |before, ahead, limit| {
        let rows = a.unconfirmed_licenses(after(before), after(ahead), limit).await.unwrap();
        rows.iter().map(|row| row.holder).collect::<Vec<_>>()
    };
    assert_eq!(due(59, 60, 10).await, [Holder::Installation]);
    assert_eq!(due(59, 59, 10).await, [Holder::Installation, holder], "from a time that is still to come");
    assert_eq!(due(59, 59, 1).await, [Holder::Installation]);
    assert_eq!(a.license_counts().await, Ok(vec![(LicenseState::Active, 1), (LicenseState::Suspended, 1)]));
    let nobody = Holder::User(UserId::mint(START, fresh()));
    assert!(a.apply_license(change(nobody, None, &first), Effects::default()).await.is_err());
}

pub async fn a_plan_on_what_is_no_longer_known_changes_nothing(a: Store, b: Store) {
    let (first, second) = (known(LicenseState::Active, 0), known(LicenseState::Banned, 60));
    let holder = Holder::Installation;
    a.apply_license(change(holder, None, &first), Effects::default()).await.unwrap();
    for expected in [None, Some(&second)] {
        let outcome = b.apply_license(change(holder, expected, &second), all_effects()).await;
        assert_eq!(outcome, Ok(ApplyLicense::Changed));
    }
    assert_eq!(b.license(holder).await.unwrap().unwrap().known, first);
    assert_eq!(traces(&b).await, (0, 0, 0));
}

pub async fn a_license_webhook_is_taken_once_and_an_older_one_never(a: Store, b: Store) {
    let holder = Holder::Installation;
    let first = known(LicenseState::Active, 0);
    let with = |expected: Option<&Known>, new: &Known, id: Option<&str>, seq| LicenseChange {
        event: Some(LicenseEventMark { id: id.map(str::to_owned), seq }),
        ..change(holder, expected, new)
    };
    let apply = async |store: &Store, change| store.apply_license(change, Effects::default()).await;
    assert_eq!(apply(&a, with(None, &first, Some("e1"), Some(7))).await, Ok(ApplyLicense::Applied));
    let second = known(LicenseState::Suspended, 60);
    for (id, seq) in [(Some("e1"), None), (Some("e1"), Some(9)), (Some("e2"), Some(7)), (None, Some(3))] {
        assert_eq!(apply(&b, with(Some(&first), &second, id, seq)).await, Ok(ApplyLicense::Repeated), "{id:?} {seq:?}");
    }
    // What was not taken is not remembered either.
    assert_eq!(apply(&b, with(Some(&first), &second, Some("e2"), Some(8))).await, Ok(ApplyLicense::Applied));
    let third = known(LicenseState::Active, 120);
    assert_eq!(apply(&a, change(holder, Some(&second), &third)).await, Ok(ApplyLicense::Applied));
    assert_eq!(a.license(holder).await.unwrap().unwrap().last_seq, Some(8), "a question does not forget it");
    assert_eq!(a.forget_license_events(after(0)).await, Ok(1));
    let fourth = known(LicenseState::Banned, 180);
    assert_eq!(apply(&a, with(Some(&third), &fourth, Some("e1"), Some(9))).await, Ok(ApplyLicense::Applied));
}

pub async fn of_many_who_learn_of_a_license_at_once_one_writes(a: Store, b: Store) {
    let outcomes = race(16, &a, &b, |store, at| async move {
        let new = known(LicenseState::Active, at as u64);
        store.apply_license(change(Holder::Installation, None, &new), all_effects()).await.unwrap()
    })
    .await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == ApplyLicense::Applied).count(), 1);
    assert_eq!(traces(&b).await.0, 1);
}

pub async fn of_license_webhooks_that_come_at_once_the_highest_number_taken_stays(a: Store, b: Store) {
    let holder = Holder::Installation;
    let row = known(LicenseState::Active, 0);
    a.apply_license(change(holder, None, &row), Effects::default()).await.unwrap();
    for round in 0..20 {
        // They say the same at the same moment, so nothing but their numbers tells them apart.
        let taken = race(8, &a, &b, |store, at| {
            let (seq, row) = (round * 8 + at as i64, known(LicenseState::Active, 0));
            let event = Some(LicenseEventMark { id: None, seq: Some(seq) });
            let change = LicenseChange { event, ..change(holder, Some(&row), &row) };
            async move { (seq, store.apply_license(change, Effects::default()).await.unwrap()) }
        })
        .await;
        let highest = taken.iter().filter(|(_, outcome)| *outcome == ApplyLicense::Applied).map(|(seq, _)| *seq).max();
        assert!(highest.is_some(), "round {round}: one of them is the first");
        assert_eq!(b.license(holder).await.unwrap().unwrap().last_seq, highest, "round {round}: {taken:?}");
    }
}

pub async fn a_license_hint_stays_until_somebody_asked_after_it(a: Store, b: Store) {
    let ada = user();
    a.create_user(ada.clone(), Effects::default()).await.unwrap();
    let holder = Holder::User(ada.id);
    let note = async |event: &str, holders: &[Holder], at| {
        a.note_license_hint(event.to_owned(), holders.to_vec(), after(at)).await.unwrap()
    };
    assert_eq!(note("t1", &[holder, Holder::Installation, holder], 0).await, NoteHint::Noted);
    assert_eq!(note("t1", &[holder], 50).await, NoteHint::Repeated, "a repetition makes no hint newer");
    assert_eq!(note("t2", &[holder], 60).await, NoteHint::Noted);
    let all = vec![(Holder::Installation, after(0)), (holder, after(60))];
    assert_eq!(b.license_hints(after(60), 10).await, Ok(all.clone()));
    assert_eq!(b.license_hints(after(60), 1).await, Ok(all[..1].to_vec()));
    assert_eq!(b.license_hints(after(59), 10).await, Ok(all[..1].to_vec()));
    // Whoever asked because of the first one has not asked because of the second.
    b.settle_license_hint(holder, after(0)).await.unwrap();
    assert_eq!(a.license_hints(after(60), 10).await, Ok(all));
    b.settle_license_hint(holder, after(60)).await.unwrap();
    b.settle_license_hint(Holder::Installation, after(0)).await.unwrap();
    assert_eq!(a.license_hints(after(600), 10).await, Ok(vec![]));
    assert_eq!(note("t3", &[], 70).await, NoteHint::Noted, "one that is about nobody known is remembered all the same");
    assert_eq!(note("t3", &[], 70).await, NoteHint::Repeated);
    let nobody = Holder::User(UserId::mint(START, fresh()));
    assert!(a.note_license_hint("t4".to_owned(), vec![nobody], after(0)).await.is_err());
    assert_eq!(note("t4", &[holder], 80).await, NoteHint::Noted, "what failed is not remembered");
}

pub async fn a_user_is_found_by_the_subject_of_the_license_provider(a: Store, b: Store) {
    let ada = user();
    a.create_user(ada.clone(), Effects::default()).await.unwrap();
    assert_eq!(b.user_by_subject("kg-1".to_owned()).await, Ok(None));
    let linked = a.link_subject(ada.id, "kg-1".to_owned(), Effects::default()).await.unwrap();
    assert!(!matches!(linked, LinkSubject::Unknown), "{linked:?}");
    assert_eq!(b.user_by_subject("kg-1".to_owned()).await.unwrap().map(|user| user.id), Some(ada.id));
    assert_eq!(b.user_by_subject("KG-1".to_owned()).await, Ok(None), "names of a provider are compared byte for byte");
}

pub async fn licenses_that_end_are_found_in_the_order_of_their_holders(a: Store, b: Store) {
    let mut holders = vec![Holder::Installation];
    for _ in 0..2 {
        let user = user();
        a.create_user(user.clone(), Effects::default()).await.unwrap();
        holders.push(Holder::User(user.id));
    }
    holders.sort_unstable_by_key(Holder::to_string);
    for holder in &holders {
        let known = known(LicenseState::Active, 0);
        a.apply_license(change(*holder, None, &known), Effects::default()).await.unwrap();
    }
    let found = async |from, until, last: Option<Holder>, limit| -> Vec<Holder> {
        let rows = b.ending_licenses(after(from), after(until), last, limit).await.unwrap();
        rows.iter().map(|row| row.holder).collect()
    };
    assert_eq!(found(999, 1000, None, 10).await, holders);
    assert_eq!(found(999, 1000, None, 2).await, holders[..2]);
    assert_eq!(found(999, 1000, Some(holders[1]), 2).await, holders[2..]);
    assert_eq!(found(1000, 2000, None, 10).await, [], "the moment `from` is not in it");
    assert_eq!(found(0, 999, None, 10).await, []);
    let (old, new) = (known(LicenseState::Active, 0), known(LicenseState::Suspended, 60));
    a.apply_license(change(holders[0], Some(&old), &new), Effects::default()).await.unwrap();
    assert_eq!(found(0, 1000, None, 10).await, holders[1..], "what is suspended does not end any more");
}

pub async fn licenses_that_were_asked_about_in_vain_stand_behind_those_that_were_not(a: Store, b: Store) {
    let mut holders = Vec::new();
    for secs in 0..5 {
        let user = user();
        a.create_user(user.clone(), Effects::default()).await.unwrap();
        let holder = Holder::User(user.id);
        a.apply_license(change(holder, None, &known(LicenseState::Active, secs)), Effects::default()).await.unwrap();
        holders.push(holder);
    }
    let found = async |store: &Store, before, limit| -> Vec<usize> {
        let rows = store.unconfirmed_licenses(after(before), after(1_000_000), limit).await.unwrap();
        rows.iter().map(|row| holders.iter().position(|holder| *holder == row.holder).unwrap()).collect()
    };
    assert_eq!(found(&b, 10, 10).await, [0, 1, 2, 3, 4]);
    for (at, failing) in [(100, 0), (101, 1), (102, 2)] {
        a.license_tried(holders[failing], after(at)).await.unwrap();
    }
    assert_eq!(found(&b, 10, 10).await, [3, 4, 0, 1, 2], "they are still there, behind the others");
    assert_eq!(found(&b, 10, 2).await, [3, 4], "and fill no page");
    a.license_tried(holders[0], after(200)).await.unwrap();
    assert_eq!(found(&b, 10, 10).await, [3, 4, 1, 2, 0], "each in its turn");
    assert_eq!(found(&b, 2, 10).await, [1, 2, 0], "a try confirms nothing");
    // What is confirmed has its place by that alone.
    let (old, new) = (known(LicenseState::Active, 1), known(LicenseState::Suspended, 3));
    b.apply_license(change(holders[1], Some(&old), &new), Effects::default()).await.unwrap();
    let order = found(&a, 10, 10).await;
    assert_eq!(order[2..], [4, 2, 0], "{order:?}");
    a.license_tried(Holder::Installation, after(1)).await.unwrap();
    assert_eq!(a.license(Holder::Installation).await, Ok(None), "a try makes no license");
}

pub async fn a_license_that_is_forgotten_is_whatever_is_said_next(a: Store, b: Store) {
    let holder = Holder::Installation;
    assert_eq!(a.forget_license(holder, all_effects()).await, Ok(false));
    assert_eq!(traces(&b).await, (0, 0, 0), "nothing was known");
    a.apply_license(change(holder, None, &known(LicenseState::Banned, 60)), Effects::default()).await.unwrap();
    assert_eq!(b.forget_license(holder, all_effects()).await, Ok(true));
    assert_eq!((a.license(holder).await, traces(&a).await), (Ok(None), traces(&b).await));
    assert_ne!(traces(&b).await, (0, 0, 0));
    let older = known(LicenseState::Active, 0);
    assert_eq!(a.apply_license(change(holder, None, &older), Effects::default()).await, Ok(ApplyLicense::Applied));
}
