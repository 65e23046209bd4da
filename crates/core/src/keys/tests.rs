use std::time::Duration;

use serde_json::json;

use super::{FetchProblem, Fetched, KeyCache, KeyEvent, KeyPolicy, Lookup, Query, Seed, SeedKind, Ticket};
use crate::{
    jose::{Algorithm, AlgorithmSet, JwkSet, PublicKey, Selection, sign::SigningKey},
    reason::Reason,
    time::{Now, Timestamp},
};

const START: i64 = 1_800_000_000;

fn at(secs: u64) -> Now {
    Now { wall: Timestamp::from_secs(START + i64::try_from(secs).unwrap()), mono: Duration::from_secs(1000 + secs) }
}

fn set(keys: &[(&str, u8)]) -> JwkSet {
    let keys: Vec<_> =
        keys.iter().map(|(id, seed)| SigningKey::from_seed(&[*seed; 32]).unwrap().public_jwk(id)).collect();
    JwkSet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn good(keys: &[(&str, u8)]) -> Result<Fetched, FetchProblem> {
    Ok(answer(Some(set(keys))))
}

fn answer(set: Option<JwkSet>) -> Fetched {
    Fetched { set, max_age: None, age: Duration::ZERO, jitter: 0 }
}

fn seed(kind: SeedKind, made: Timestamp) -> Seed {
    Seed { set: set(&[("a", 1)]), made, kind, jitter: 0 }
}

fn cache() -> KeyCache {
    KeyCache::new(KeyPolicy::fetched(AlgorithmSet::of(&[Algorithm::EdDsa])))
}

/// A cache that has fetched key `a` at second 0.
fn warm() -> KeyCache {
    let mut cache = cache();
    let ticket = cache.due_fetch(at(0)).unwrap();
    assert!(cache.fetched(&ticket, good(&[("a", 1)]), at(0)).is_in_use);
    cache
}

/// A token with this `kid`, issued and arrived at `secs`.
fn token(cache: &KeyCache, id: &'static str, secs: u64) -> Query<'static> {
    let arrived = at(secs);
    let issued_at = Some(arrived.wall);
    Query { key_id: Some(id), algorithm: Algorithm::EdDsa, issued_at, arrived, era: cache.era() }
}

fn ask(cache: &mut KeyCache, id: &'static str, secs: u64) -> Lookup {
    let query = token(cache, id, secs);
    cache.lookup(query, at(secs))
}

fn ticket(lookup: Lookup) -> Ticket {
    match lookup {
        Lookup::Fetch(ticket) | Lookup::UseAndFetch(_, ticket) => ticket,
        other => panic!("no ticket in {other:?}"),
    }
}

fn refusal(lookup: &Lookup) -> Reason {
    match lookup {
        Lookup::Refuse(denial) => denial.reason,
        other => panic!("no refusal: {other:?}"),
    }
}

fn is_use(lookup: &Lookup) -> bool {
    matches!(lookup, Lookup::Use(_) | Lookup::UseAndFetch(..))
}

fn key(seed: u8) -> PublicKey {
    SigningKey::from_seed(&[seed; 32]).unwrap().public_key().unwrap()
}

#[test]
fn the_first_token_fetches_and_all_others_wait_for_it() {
    let mut cache = cache();
    let query = token(&cache, "a", 0);
    let first = ticket(cache.lookup(query, at(0)));
    for _ in 0..1000 {
        assert!(matches!(ask(&mut cache, "a", 0), Lookup::Wait { .. }));
    }
    cache.fetched(&first, good(&[("a", 1)]), at(1));
    assert!(is_use(&cache.lookup(query, at(1))));
    assert_eq!(cache.status(at(1)).fetches, 1);
}

#[test]
fn a_key_that_appears_right_after_a_fetch_is_found_at_once() {
    let mut cache = warm();
    let query = token(&cache, "b", 1);
    let fetch = ticket(cache.lookup(query, at(1)));
    cache.fetched(&fetch, good(&[("a", 1), ("b", 2)]), at(1));
    assert!(is_use(&cache.lookup(query, at(1))));
}

#[test]
fn an_unknown_key_is_refused_by_the_fetch_that_it_caused_and_then_without_one() {
    let mut cache = warm();
    let query = token(&cache, "x", 60);
    let fetch = ticket(cache.lookup(query, at(60)));
    cache.fetched(&fetch, good(&[("a", 1)]), at(61));
    assert_eq!(refusal(&cache.lookup(query, at(61))), Reason::TokenUnknownKey);
    let old = Query { issued_at: Some(at(0).wall), ..token(&cache, "y", 62) };
    assert_eq!(refusal(&cache.lookup(old, at(62))), Reason::TokenUnknownKey);
    let undated = Query { issued_at: None, ..old };
    assert_eq!(refusal(&cache.lookup(undated, at(62))), Reason::TokenUnknownKey);
    assert_eq!(cache.status(at(62)).fetches, 2);
}

#[test]
fn a_young_token_waits_for_a_near_slot_and_hears_of_a_far_one() {
    let mut cache = warm();
    let fetch = ticket(ask(&mut cache, "x", 1));
    cache.fetched(&fetch, good(&[("a", 1)]), at(1));
    let far = ask(&mut cache, "y", 2);
    let Lookup::Refuse(denial) = far else { panic!("{far:?}") };
    assert_eq!((denial.reason, denial.retry_after()), (Reason::KeysUnavailable, Some(59)));
    let near = ask(&mut cache, "y", 57);
    assert!(matches!(near, Lookup::Wait { until } if until == at(60).mono), "{near:?}");
    assert!(is_use(&ask(&mut cache, "a", 57)));
}

#[test]
fn a_token_waits_three_seconds_in_all_and_the_fetch_goes_on_for_the_next_one() {
    let mut cache = warm();
    let (query, replaced) = (token(&cache, "b", 60), token(&cache, "a", 60));
    let fetch = ticket(cache.lookup(query, at(60)));
    let waits = |lookup: &Lookup, end: u64| matches!(lookup, Lookup::Wait { until } if *until == at(end).mono);
    assert!(waits(&cache.lookup(query, at(62)), 63) && waits(&cache.bad_signature(replaced, &key(1), at(62)), 63));
    let later = token(&cache, "b", 62);
    for lookup in [cache.lookup(query, at(63)), cache.bad_signature(replaced, &key(1), at(63))] {
        let Lookup::Refuse(denial) = lookup else { panic!("{lookup:?}") };
        assert_eq!((denial.reason, denial.retry_after().is_some()), (Reason::KeysUnavailable, true));
    }
    assert!(waits(&cache.lookup(later, at(63)), 65));
    cache.fetched(&fetch, good(&[("a", 1), ("b", 2)]), at(64));
    assert!(is_use(&cache.lookup(later, at(64))) && is_use(&cache.lookup(query, at(64))));
    // And where there are no keys yet.
    let mut cold = self::cache();
    let query = token(&cold, "a", 10);
    let _fetch = ticket(cold.lookup(query, at(10)));
    assert!(waits(&cold.lookup(query, at(11)), 13));
    assert_eq!(refusal(&cold.lookup(query, at(13))), Reason::KeysUnavailable);
}

#[test]
fn a_flood_of_made_up_ids_costs_two_fetches_a_minute() {
    let mut cache = warm();
    for secs in 0..600 {
        for id in ["x", "y", "z"] {
            if let Lookup::Fetch(ticket) = ask(&mut cache, id, secs) {
                cache.fetched(&ticket, good(&[("a", 1)]), at(secs));
            }
            assert!(is_use(&ask(&mut cache, "a", secs)), "a good token waited at {secs}");
        }
    }
    assert!(cache.status(at(600)).fetches <= 20, "{}", cache.status(at(600)).fetches);
}

#[test]
fn a_failed_fetch_keeps_the_keys_and_is_tried_again_after_a_pause() {
    let mut cache = warm();
    let mut secs = 600;
    for expected_pause in [1, 2, 4, 8, 16, 30, 30] {
        let fetch = cache.due_fetch(at(secs)).expect("due");
        cache.fetched(&fetch, Err(FetchProblem::Status(500)), at(secs));
        assert!(is_use(&ask(&mut cache, "a", secs)));
        assert_eq!(cache.next_due(), Some(at(secs + expected_pause).mono));
        secs += expected_pause;
    }
    let status = cache.status(at(secs));
    assert_eq!((status.failures, status.keys), (7, 1));
    assert_eq!(status.last_problem, Some(FetchProblem::Status(500)));
}

#[test]
fn keys_past_max_stale_are_not_used() {
    let mut cache = warm();
    let day = 24 * 3600;
    let Lookup::UseAndFetch(_, lost) = ask(&mut cache, "a", day - 1) else { panic!("a refresh was due") };
    drop(lost);
    assert!(cache.due_fetch(at(day + 5)).is_none(), "the refresh of the token above was lost; a pause follows");
    assert_eq!(refusal(&ask(&mut cache, "a", day)), Reason::KeysUnavailable);
    assert_eq!(cache.status(at(day)).keys, 0);
    let fetch = cache.due_fetch(at(day + 60)).unwrap();
    cache.fetched(&fetch, good(&[("a", 1)]), at(day + 60));
    assert!(is_use(&ask(&mut cache, "a", day + 60)));
}

#[test]
fn an_empty_set_is_a_failure_and_one_bad_key_is_not() {
    let mut cache = warm();
    let fetch = cache.due_fetch(at(600)).unwrap();
    cache.fetched(&fetch, good(&[]), at(600));
    assert_eq!(cache.status(at(600)).last_problem, Some(FetchProblem::Empty));
    assert!(is_use(&ask(&mut cache, "a", 600)));
    let fetch = cache.due_fetch(at(601)).unwrap();
    let mixed = JwkSet::parse(
        json!({"keys": [{"kty": "??", "kid": "q"}, SigningKey::from_seed(&[1; 32]).unwrap().public_jwk("a")]})
            .to_string()
            .as_bytes(),
    );
    let settled = cache.fetched(&fetch, Ok(answer(Some(mixed.unwrap()))), at(601));
    assert!(settled.is_in_use && matches!(&settled.events[..], [KeyEvent::Skipped(_)]), "{settled:?}");
    assert!(is_use(&ask(&mut cache, "a", 601)));
}

#[test]
fn a_lost_job_frees_itself_and_its_late_answer_overwrites_nothing_newer() {
    let mut cache = warm();
    let lost = cache.due_fetch(at(600)).unwrap();
    assert!(cache.due_fetch(at(605)).is_none());
    assert!(cache.due_fetch(at(606)).is_none(), "a lost flight is a failure: it is followed by a pause");
    let second = cache.due_fetch(at(607)).unwrap();
    assert!(cache.fetched(&second, good(&[("b", 2)]), at(608)).is_in_use);
    assert!(!cache.fetched(&lost, good(&[("a", 1)]), at(609)).is_in_use);
    assert!(is_use(&ask(&mut cache, "b", 609)));
}

#[test]
fn a_late_answer_is_taken_while_nothing_newer_came() {
    let mut cache = warm();
    let late = cache.due_fetch(at(600)).unwrap();
    let second = cache.due_fetch(at(607)).or_else(|| cache.due_fetch(at(608))).unwrap();
    assert!(cache.fetched(&late, good(&[("b", 2)]), at(608)).is_in_use);
    assert!(is_use(&ask(&mut cache, "b", 608)));
    assert!(cache.fetched(&second, good(&[("c", 3)]), at(609)).is_in_use);
}

#[test]
fn new_material_under_an_old_id_is_fetched_once_and_reported() {
    let mut cache = warm();
    let query = token(&cache, "a", 60);
    let fetch = ticket(cache.bad_signature(query, &key(1), at(60)));
    assert!(matches!(cache.bad_signature(query, &key(1), at(60)), Lookup::Wait { .. }));
    let settled = cache.fetched(&fetch, good(&[("a", 2)]), at(61));
    assert_eq!(settled.events, [KeyEvent::Replaced("a".into())]);
    let Lookup::Use(found) = cache.bad_signature(query, &key(1), at(61)) else { panic!("no key") };
    assert_eq!(*found, key(2));
    assert_eq!(refusal(&cache.bad_signature(query, &key(2), at(61))), Reason::TokenBadSignature);
}

#[test]
fn a_wrong_signature_waits_for_a_slot_that_is_near_and_is_refused_where_it_is_far() {
    let mut cache = warm();
    let fetch = ticket(ask(&mut cache, "x", 1));
    cache.fetched(&fetch, good(&[("a", 1)]), at(1));
    let far = token(&cache, "a", 56);
    assert_eq!(refusal(&cache.bad_signature(far, &key(1), at(56))), Reason::TokenBadSignature);
    let near = token(&cache, "a", 57);
    let waits = cache.bad_signature(near, &key(1), at(57));
    assert!(matches!(waits, Lookup::Wait { until } if until == at(60).mono), "{waits:?}");
    let fetch = ticket(cache.bad_signature(near, &key(1), at(60)));
    cache.fetched(&fetch, good(&[("a", 2)]), at(60));
    let Lookup::Use(found) = cache.bad_signature(near, &key(1), at(60)) else { panic!("no key") };
    assert_eq!((&*found, cache.status(at(60)).fetches), (&key(2), 3));
}

#[test]
fn whether_a_key_was_replaced_cannot_be_told_by_a_fetch_that_failed() {
    let mut cache = warm();
    let query = token(&cache, "a", 60);
    let fetch = ticket(cache.bad_signature(query, &key(1), at(60)));
    cache.fetched(&fetch, Err(FetchProblem::TimedOut), at(61));
    assert_eq!(refusal(&cache.bad_signature(query, &key(1), at(61))), Reason::KeysUnavailable);
    let later = token(&cache, "a", 61);
    assert!(matches!(cache.bad_signature(later, &key(1), at(61)), Lookup::Fetch(_)), "within the budget, for its sake");
}

#[test]
fn a_tampered_token_older_than_the_keys_costs_no_fetch() {
    let mut cache = warm();
    let old = Query { issued_at: Some(Timestamp::from_secs(START - 60)), ..token(&cache, "a", 300) };
    assert_eq!(refusal(&cache.bad_signature(old, &key(1), at(300))), Reason::TokenBadSignature);
    assert_eq!(cache.status(at(300)).fetches, 1);
}

#[test]
fn an_algorithm_outside_the_policy_costs_no_fetch() {
    let mut cache = warm();
    let query = Query { algorithm: Algorithm::Rs256, ..token(&cache, "x", 60) };
    assert_eq!(refusal(&cache.lookup(query, at(60))), Reason::TokenAlgNotAllowed);
    let known = Query { algorithm: Algorithm::Rs256, ..token(&cache, "a", 60) };
    assert!(matches!(cache.lookup(known, at(60)), Lookup::Fetch(_)), "the id may stand for another type by now");
}

#[test]
fn fixed_keys_are_never_fetched_and_never_stale() {
    let mut cache = KeyCache::new(KeyPolicy::fixed(AlgorithmSet::of(&[Algorithm::EdDsa])));
    assert!(cache.seed(seed(SeedKind::Given, at(0).wall), at(0)).is_in_use);
    assert!(is_use(&ask(&mut cache, "a", 10_000_000)));
    assert_eq!(refusal(&ask(&mut cache, "x", 1)), Reason::TokenUnknownKey);
    let query = token(&cache, "a", 1);
    assert_eq!(refusal(&cache.bad_signature(query, &key(1), at(1))), Reason::TokenBadSignature);
    assert_eq!((cache.next_due(), cache.status(at(1)).fetches), (None, 0));
}

#[test]
fn keys_of_an_earlier_process_serve_for_the_rest_of_their_time() {
    let hours = |hours: i64| Timestamp::from_secs(START - hours * 3600);
    let mut cache = cache();
    assert!(!cache.seed(seed(SeedKind::Kept, hours(24)), at(0)).is_in_use);
    assert!(cache.seed(seed(SeedKind::Kept, hours(23)), at(0)).is_in_use);
    assert!(matches!(ask(&mut cache, "a", 0), Lookup::UseAndFetch(..)), "they are refreshed at once");
    assert!(is_use(&ask(&mut cache, "a", 3599)));
    assert!(!is_use(&ask(&mut cache, "a", 3600)));
}

#[test]
fn a_set_from_the_future_of_a_clock_set_back_does_not_live_longer() {
    let mut cache = cache();
    cache.seed(seed(SeedKind::Kept, Timestamp::from_secs(START + 86_400)), at(0));
    assert!(is_use(&ask(&mut cache, "a", 86_399)));
    assert!(!is_use(&ask(&mut cache, "a", 86_400)));
}

#[test]
fn the_next_fetch_follows_the_publisher_within_bounds_and_jitter() {
    let due_after = |max_age: Option<u64>, jitter| {
        let mut cache = cache();
        let fetch = cache.due_fetch(at(0)).unwrap();
        let max_age = max_age.map(Duration::from_secs);
        cache.fetched(&fetch, Ok(Fetched { max_age, jitter, ..answer(Some(set(&[("a", 1)]))) }), at(0));
        (cache.next_due().unwrap() - at(0).mono).as_secs()
    };
    assert_eq!(due_after(None, 0), 600);
    assert_eq!(due_after(Some(300), 0), 300);
    assert_eq!(due_after(Some(300), 255), 240);
    assert_eq!(due_after(Some(0), 0), 60);
    assert_eq!(due_after(Some(86_400 * 365), 0), 12 * 3600);
}

#[test]
fn keys_of_a_moment_ago_are_not_fetched_again_until_they_would_be() {
    for (kind, made, due) in [(SeedKind::Kept, START - 60, 540), (SeedKind::Given, START - 90_000, 600)] {
        let mut cache = cache();
        assert!(cache.seed(seed(kind, Timestamp::from_secs(made)), at(0)).is_in_use);
        assert!(matches!(ask(&mut cache, "a", due - 1), Lookup::Use(_)), "{kind:?}");
        assert!(matches!(ask(&mut cache, "a", due), Lookup::UseAndFetch(..)), "{kind:?}");
    }
}

#[test]
fn a_first_fetch_that_is_held_waits_and_goes_off_when_nothing_else_brought_keys() {
    let mut cache = cache();
    cache.hold(at(1).mono);
    assert!(cache.due_fetch(at(0)).is_none());
    assert!(matches!(ask(&mut cache, "a", 0), Lookup::Wait { until } if until == at(1).mono));
    assert!(cache.seed(seed(SeedKind::Kept, at(0).wall), at(0)).is_in_use);
    assert!(matches!(ask(&mut cache, "a", 1), Lookup::Use(_)));
    let mut cache = self::cache();
    cache.hold(at(60).mono);
    cache.hurry(at(1));
    assert!(matches!(ask(&mut cache, "a", 1), Lookup::Fetch(_)));
}

#[test]
fn of_two_seeds_the_newer_one_serves_and_a_fetched_set_beats_both() {
    let mut cache = cache();
    let newer = Seed { set: set(&[("b", 2)]), ..seed(SeedKind::Kept, at(0).wall) };
    assert!(cache.seed(seed(SeedKind::Given, Timestamp::from_secs(START - 60)), at(0)).is_in_use);
    assert!(cache.seed(newer.clone(), at(0)).is_in_use);
    assert!(!cache.seed(seed(SeedKind::Given, Timestamp::from_secs(START - 30)), at(0)).is_in_use);
    assert!(is_use(&ask(&mut cache, "b", 1)));
    let fetch = ticket(ask(&mut cache, "a", 1));
    cache.fetched(&fetch, good(&[("a", 1)]), at(1));
    assert!(!cache.seed(Seed { made: at(5).wall, ..newer }, at(5)).is_in_use);
}

#[test]
fn an_unchanged_set_counts_as_fetched_and_what_was_found_under_it_still_holds() {
    let mut cache = warm();
    let before = cache.snapshot().unwrap();
    let fetch = cache.due_fetch(at(600)).unwrap();
    assert_eq!(fetch.base(), Some(1));
    assert!(cache.fetched(&fetch, Ok(answer(None)), at(601)).is_in_use);
    assert!(std::sync::Arc::ptr_eq(before.set(), cache.snapshot().unwrap().set()));
    let fetch = cache.due_fetch(at(1200)).unwrap();
    assert!(cache.fetched(&fetch, good(&[("a", 1)]), at(1200)).is_in_use);
    assert!(std::sync::Arc::ptr_eq(before.set(), cache.snapshot().unwrap().set()), "an equal set is the same set");
    let still = at(1200 + 24 * 3600 - 1);
    assert!(!cache.snapshot().unwrap().is_stale(still), "the time began again");
}

#[test]
fn not_changed_without_a_set_that_it_could_mean_is_a_failure() {
    let mut cold = cache();
    let fetch = cold.due_fetch(at(0)).unwrap();
    assert_eq!(fetch.base(), None);
    assert!(!cold.fetched(&fetch, Ok(answer(None)), at(0)).is_in_use);
    assert_eq!(cold.status(at(0)).last_problem, Some(FetchProblem::Unmatched));
    // The set that the question was about was replaced by a late answer while the question was under way.
    let mut cache = warm();
    let late = cache.due_fetch(at(600)).unwrap();
    let second = cache.due_fetch(at(607)).or_else(|| cache.due_fetch(at(608))).unwrap();
    cache.fetched(&late, good(&[("b", 2)]), at(608));
    assert!(!cache.fetched(&second, Ok(answer(None)), at(609)).is_in_use);
    assert_eq!(cache.status(at(609)).last_problem, Some(FetchProblem::Unmatched));
    assert!(is_use(&ask(&mut cache, "b", 609)));
}

#[test]
fn an_answer_kept_by_a_cache_neither_replaces_a_newer_one_nor_proves_that_a_key_does_not_exist() {
    let aged = |keys, age| Ok(Fetched { age: Duration::from_secs(age), ..answer(Some(set(keys))) });
    let mut cache = warm();
    let query = token(&cache, "b", 100);
    let fetch = ticket(cache.lookup(query, at(100)));
    assert!(fetch.is_for_token());
    assert!(cache.fetched(&fetch, aged(&[("a", 1)], 50), at(100)).is_in_use);
    assert_eq!(refusal(&cache.lookup(query, at(100))), Reason::KeysUnavailable, "it may be there by now");
    let old = Query { issued_at: Some(at(40).wall), ..query };
    assert_eq!(refusal(&cache.lookup(old, at(100))), Reason::TokenUnknownKey);

    let fetch = ticket(ask(&mut cache, "b", 161));
    assert!(cache.fetched(&fetch, good(&[("a", 1), ("b", 2)]), at(161)).is_in_use);
    let fetch = cache.due_fetch(at(761)).unwrap();
    assert!(!cache.fetched(&fetch, aged(&[("a", 1)], 700), at(761)).is_in_use, "from before the set in use");
    assert_eq!(cache.status(at(761)).last_problem, Some(FetchProblem::Outdated));
    assert!(is_use(&ask(&mut cache, "b", 762)));
    assert_eq!(cache.next_due(), Some(at(761 + 600).mono), "asked again in time, not in haste");
    // Rather an old picture than none.
    let late = 161 + 24 * 3600 + 10;
    let fetch = cache.due_fetch(at(late)).unwrap();
    assert!(cache.fetched(&fetch, aged(&[("a", 1)], 24 * 3600), at(late)).is_in_use);
}

#[test]
fn a_clock_that_is_set_makes_no_set_younger_or_older() {
    for by in [-86_400_i64, 86_400] {
        let mut cache = warm();
        let mut now = at(100);
        now.wall = Timestamp::from_secs(START + 100 + by);
        let known = Query { issued_at: Some(now.wall), arrived: now, ..token(&cache, "a", 100) };
        assert!(matches!(cache.lookup(known, now), Lookup::Use(_)), "not frozen: {by}");
        let fetch = ticket(cache.lookup(Query { key_id: Some("x"), ..known }, now));
        cache.fetched(&fetch, good(&[("a", 1)]), now);
        let fetch = ticket(cache.lookup(Query { key_id: Some("y"), era: cache.era(), ..known }, now));
        cache.fetched(&fetch, good(&[("a", 1)]), now);
        let young = Query { key_id: Some("z"), era: cache.era(), ..known };
        assert_eq!(refusal(&cache.lookup(young, now)), Reason::KeysUnavailable, "not hammered: {by}");
        let old = Query { issued_at: Some(now.wall.minus(Duration::from_secs(60))), ..young };
        assert_eq!(refusal(&cache.lookup(old, now)), Reason::TokenUnknownKey, "{by}");
    }
}

#[test]
fn an_outage_shows_in_what_readers_see() {
    let mut cache = warm();
    assert_eq!(cache.snapshot().unwrap().outage(at(10)), None);
    let fetch = cache.due_fetch(at(600)).unwrap();
    cache.fetched(&fetch, Err(FetchProblem::Status(500)), at(600));
    assert_eq!(cache.snapshot().unwrap().outage(at(700)), Some(Duration::from_secs(700)));
    assert_eq!(cache.status(at(700)).serves_for, Some(Duration::from_secs(24 * 3600 - 700)));
    let fetch = cache.due_fetch(at(701)).unwrap();
    cache.fetched(&fetch, good(&[("a", 1)]), at(701));
    assert_eq!(cache.snapshot().unwrap().outage(at(701)), None);
}

#[test]
fn a_token_without_id_is_refused_where_more_than_one_key_fits() {
    let mut cache = warm();
    let fetch = cache.due_fetch(at(600)).unwrap();
    cache.fetched(&fetch, good(&[("a", 1), ("b", 2)]), at(600));
    assert!(matches!(cache.snapshot().unwrap().set().select(None, Algorithm::EdDsa), Selection::Unknown));
    let query = Query { key_id: None, issued_at: Some(at(0).wall), ..token(&cache, "", 601) };
    assert_eq!(refusal(&cache.lookup(query, at(601))), Reason::TokenUnknownKey);
}
