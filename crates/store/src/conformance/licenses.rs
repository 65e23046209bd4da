use std::{collections::BTreeSet, time::Duration};

use doorward_core::{
    effects::Effects,
    id::UserId,
    license::{Holder, Known, LicenseState, Observation},
    time::Timestamp,
};

use super::{START, all_effects, fresh, race, traces, user};
use crate::{ApplyLicense, LicenseChange, LicenseEventMark, LicenseRow, Store};

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
    let old: Vec<Holder> = a.unconfirmed_licenses(after(59), 10).await.unwrap().iter().map(|row| row.holder).collect();
    assert_eq!(old, [Holder::Installation]);
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
