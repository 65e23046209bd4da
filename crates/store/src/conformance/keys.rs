use std::time::Duration;

use doorward_core::{
    effects::Effects,
    id::RingKeyId,
    ring::{KeyState, Purpose, RingKey},
};

use super::{START, all_effects, fresh, race, traces};
use crate::{AddKey, Store};

fn ring_key(purpose: Purpose, age: u64) -> RingKey {
    RingKey {
        id: RingKeyId::mint(START, fresh()),
        purpose,
        wrapped: vec![0, 1, 255],
        created_at: START.plus(Duration::from_secs(age)),
        state: KeyState::Current,
    }
}

pub async fn a_ring_rotates_current_to_previous_to_retired(a: Store, b: Store) {
    let keys: Vec<RingKey> = (0..4).map(|age| ring_key(Purpose::Session, age)).collect();
    let mut current = None;
    for key in &keys {
        assert_eq!(a.add_ring_key(key.clone(), current, Effects::default()).await, Ok(AddKey::Added));
        current = Some(key.id);
    }
    let other = ring_key(Purpose::Link, 0);
    assert_eq!(b.add_ring_key(other.clone(), None, Effects::default()).await, Ok(AddKey::Added));
    let states = [KeyState::Current, KeyState::Previous, KeyState::Retired, KeyState::Retired];
    let expected: Vec<RingKey> =
        keys.iter().rev().zip(states).map(|(key, state)| RingKey { state, ..key.clone() }).collect();
    assert_eq!(b.ring(Purpose::Session).await, Ok(expected));
    assert_eq!(b.ring(Purpose::Link).await, Ok(vec![other]));
    for wrong in [None, Some(keys[0].id), Some(RingKeyId::mint(START, fresh()))] {
        let late = ring_key(Purpose::Session, 9);
        assert_eq!(a.add_ring_key(late, wrong, all_effects()).await, Ok(AddKey::Lost));
    }
    assert_eq!(a.add_ring_key(keys[3].clone(), current, all_effects()).await, Ok(AddKey::Lost), "an id is used once");
    assert_eq!(b.ring(Purpose::Session).await.unwrap()[0].id, keys[3].id);
    assert_eq!(traces(&b).await, (0, 0, 0));
}

pub async fn of_many_processes_that_rotate_a_key_one_wins(a: Store, b: Store) {
    let mut current = None;
    for round in 0..4 {
        let outcomes = race(16, &a, &b, |store, _| {
            let key = ring_key(Purpose::Audit, round);
            async move { (key.id, store.add_ring_key(key, current, all_effects()).await.unwrap()) }
        })
        .await;
        let winners: Vec<RingKeyId> =
            outcomes.iter().filter(|(_, outcome)| *outcome == AddKey::Added).map(|(id, _)| *id).collect();
        assert_eq!(winners.len(), 1);
        current = Some(winners[0]);
        let ring = a.ring(Purpose::Audit).await.unwrap();
        assert_eq!((ring.len() as u64, ring[0].id), (round + 1, winners[0]));
    }
    assert_eq!(traces(&b).await.0, 4);
}

pub async fn an_older_key_set_of_an_issuer_never_replaces_a_newer_one(a: Store, b: Store) {
    assert_eq!(a.issuer_keys("main".to_owned()).await, Ok(None));
    for (json, age, kept) in [("{1}", 5, ("{1}", 5)), ("{0}", 4, ("{1}", 5)), ("{2}", 6, ("{2}", 6))] {
        let at = START.plus(Duration::from_secs(age));
        a.put_issuer_keys("main".to_owned(), json.to_owned(), at).await.unwrap();
        let kept = (kept.0.to_owned(), START.plus(Duration::from_secs(kept.1)));
        assert_eq!(b.issuer_keys("main".to_owned()).await, Ok(Some(kept)));
    }
    assert_eq!(a.issuer_keys("other".to_owned()).await, Ok(None));
}
