//! The key cache under random events and virtual time, against an issuer that is known exactly.
//!
//! The model issuer rotates, answers slowly, says "not changed", fails and dies; caches on the way give old answers;
//! clocks are set, processes start again with what they kept. Tokens are genuine (signed with a key that it
//! publishes) or made up. After every step the promises of `doorward_core::keys` are checked.
//!
//! CI runs [`HISTORIES`] histories of each test; `DOORWARD_SIM_HISTORIES=1000000` makes a long run of it.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use doorward_core::{
    jose::{Algorithm, AlgorithmSet, JwkSet, PublicKey, sign::SigningKey},
    keys::{FetchProblem, Fetched, KeyCache, KeyPolicy, Lookup, Query, Seed, SeedKind, Ticket},
    reason::Reason,
    time::{Now, Timestamp},
};
use proptest::prelude::*;

const WALL: i64 = 1_800_000_000_000;
/// Histories of each test, unless the environment says otherwise.
const HISTORIES: u32 = 2000;
const MIN_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
enum Event {
    /// Time passes.
    Wait(u64),
    /// The issuer publishes a new key; `is_abrupt` drops the old ones at once.
    Rotate { is_abrupt: bool },
    /// New material under the newest id.
    ReplaceNewest,
    /// A token that the issuer signed now with its newest key.
    Genuine,
    /// A token with an id that nobody published, claiming to be this many seconds old.
    MadeUp { age: u64 },
    /// A token with a published id and a wrong signature.
    Forged { age: u64 },
    /// The background job looks at its timer.
    Timer,
    /// The oldest outstanding fetch is answered with what the issuer published so many seconds ago, or fails.
    Answer { is_good: bool, age: u64 },
    /// The wall clock is set, here and there, by so many seconds.
    SetClock(i64),
    /// The process ends, and the next one begins with what it kept.
    Restart,
    /// The oldest outstanding fetch gets lost.
    Lose,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0_u64..40_000).prop_map(Event::Wait),
        1 => (0_u64..100_000_000).prop_map(Event::Wait),
        2 => any::<bool>().prop_map(|is_abrupt| Event::Rotate { is_abrupt }),
        1 => Just(Event::ReplaceNewest),
        6 => Just(Event::Genuine),
        4 => (0_u64..100).prop_map(|age| Event::MadeUp { age }),
        4 => (0_u64..100).prop_map(|age| Event::Forged { age }),
        4 => Just(Event::Timer),
        8 => prop::bool::weighted(0.7).prop_map(|is_good| Event::Answer { is_good, age: 0 }),
        2 => (1_u64..4000).prop_map(|age| Event::Answer { is_good: true, age }),
        1 => (-100_000_i64..100_000).prop_map(Event::SetClock),
        1 => Just(Event::Restart),
        1 => Just(Event::Lose),
    ]
}

struct World {
    cache: KeyCache,
    millis: u64,
    /// How far the wall clock was set, in milliseconds.
    offset: i64,
    /// What the issuer publishes: id and seed.
    published: BTreeMap<String, u8>,
    /// What it published, and since when.
    history: Vec<(u64, BTreeMap<String, u8>)>,
    newest: String,
    next_seed: u8,
    outstanding: Vec<Ticket>,
    /// When fetches began that a token caused.
    caused: Vec<u64>,
    /// When fetches began at all.
    begun: Vec<u64>,
    /// When the deadline of the fetch under way is.
    in_flight_until: Vec<u64>,
    /// When the last good answer that was taken had been asked for.
    good_asked: Option<u64>,
    /// Up to when the set in use shows what was published at least; `None` for one of an earlier process.
    shows_until: Option<i64>,
    /// The last good set, with its fetch and its wall time, as a store would keep it.
    kept: Option<(u64, BTreeMap<String, u8>, Timestamp)>,
    asked: BTreeMap<String, u64>,
}

impl World {
    fn new() -> Self {
        let published = BTreeMap::from([("k0".to_owned(), 0)]);
        Self {
            cache: KeyCache::new(policy()),
            // Long after the start of the machine, so that there is something to be old.
            millis: 10_000_000,
            offset: 0,
            history: vec![(0, published.clone())],
            published,
            newest: "k0".to_owned(),
            next_seed: 1,
            outstanding: Vec::new(),
            caused: Vec::new(),
            begun: Vec::new(),
            in_flight_until: Vec::new(),
            good_asked: None,
            shows_until: None,
            kept: None,
            asked: BTreeMap::new(),
        }
    }

    fn now(&self) -> Now {
        let millis = i64::try_from(self.millis).unwrap() + self.offset;
        Now { wall: Timestamp::from_millis(WALL + millis), mono: Duration::from_millis(self.millis) }
    }

    /// What was published so many milliseconds ago.
    fn published_before(&self, age: u64) -> BTreeMap<String, u8> {
        let at = self.millis - age;
        self.history.iter().rev().find(|(since, _)| *since <= at).unwrap().1.clone()
    }

    fn publish(&mut self) {
        self.millis += 1;
        self.history.push((self.millis, self.published.clone()));
    }

    /// There is one fetch at a time.
    fn took(&mut self, ticket: Ticket, is_caused: bool) {
        let now = self.millis;
        self.in_flight_until.retain(|until| *until > now);
        assert!(self.in_flight_until.is_empty(), "two fetches at once");
        self.in_flight_until.push(now + u64::try_from(ticket.remaining(self.now()).as_millis()).unwrap());
        if is_caused {
            self.caused.push(now);
        }
        self.begun.push(now);
        self.asked.insert(format!("{ticket:?}"), now);
        self.outstanding.push(ticket);
    }

    fn token(&mut self, id: &str, age: u64, is_forged: bool) {
        let now = self.now();
        let (due_before, status) = (self.cache.next_due(), self.cache.status(now));
        let issued_at = Some(now.wall.minus(Duration::from_secs(age)));
        let era = self.cache.era();
        let query = Query { key_id: Some(id), algorithm: Algorithm::EdDsa, issued_at, arrived: now, era };
        let is_genuine = age == 0 && !is_forged && self.published.contains_key(id);
        let mut lookup = self.cache.lookup(query, now);
        let had_key = matches!(lookup, Lookup::Use(_) | Lookup::UseAndFetch(..));
        if let Lookup::Use(key) | Lookup::UseAndFetch(key, _) = &lookup {
            assert!(status.keys > 0, "a stale key was used");
            let right = self.published.get(id).map(|seed| public(*seed));
            if is_forged || right.as_ref() != Some(&**key) {
                let key = std::sync::Arc::clone(key);
                if let Lookup::UseAndFetch(_, ticket) = lookup {
                    self.took(ticket, false);
                }
                lookup = self.cache.bad_signature(query, &key, now);
            }
        }
        match lookup {
            Lookup::Use(_) => {}
            Lookup::UseAndFetch(_, ticket) => self.took(ticket, false),
            // Without keys the timer's own fetches are handed out; they keep their own pace.
            Lookup::Fetch(ticket) => {
                let is_due = due_before.is_some_and(|due| due <= now.mono);
                self.took(ticket, !is_due);
            }
            Lookup::Wait { until } => {
                assert!(until > now.mono, "waiting for the past");
                assert!(until <= now.mono + Duration::from_secs(3), "waiting for longer than anybody should");
            }
            Lookup::Refuse(denial) => {
                let reason = denial.reason;
                // The stated exception: new material under an old id while the budget is spent.
                let is_excepted = had_key && reason == Reason::TokenBadSignature && self.is_budget_spent();
                let is_fair = !is_genuine || reason == Reason::KeysUnavailable || is_excepted;
                assert!(is_fair, "a genuine token was refused: {reason:?}");
                assert!(!had_key || reason == Reason::TokenBadSignature, "a known key: {reason:?}");
            }
        }
    }

    fn is_budget_spent(&self) -> bool {
        let window = u64::try_from((2 * MIN_INTERVAL).as_millis()).unwrap();
        self.begun.iter().filter(|begun| self.millis - **begun < window).count() >= 2
    }

    fn answer(&mut self, is_good: bool, age_secs: u64) {
        if self.outstanding.is_empty() {
            return;
        }
        let ticket = self.outstanding.remove(0);
        let (now, asked) = (self.now(), self.asked[&format!("{ticket:?}")]);
        let (before, found_before) = (self.cache.status(now), self.cache.snapshot());
        let age = age_secs * 1000;
        let shown = self.published_before(age);
        // An honest issuer says "not changed" where it may.
        let base = self.kept.as_ref().filter(|kept| ticket.base() == Some(kept.0) && kept.1 == shown);
        let set = if base.is_some() { None } else { Some(set_of(&shown)) };
        let result = if is_good {
            Ok(Fetched { set, max_age: None, age: Duration::from_millis(age), jitter: 7 })
        } else {
            Err(FetchProblem::Status(500))
        };
        let settled = self.cache.fetched(&ticket, result, now);
        let shows_until = i64::try_from(asked).unwrap() - i64::try_from(age).unwrap();
        if settled.is_in_use {
            assert!(is_good, "a failure is in use");
            assert!(self.good_asked.is_none_or(|good| asked > good), "a late answer overwrote a newer one");
            let is_older = self.shows_until.is_some_and(|before| shows_until + 2000 < before);
            assert!(!is_older || before.keys == 0, "an older picture replaced a newer one that was fresh");
            let found = self.cache.snapshot().unwrap();
            assert_eq!(**found.set(), set_of(&shown), "another set than the one that was answered");
            self.good_asked = Some(asked);
            self.shows_until = Some(shows_until);
            let asked_wall = now.wall.minus(Duration::from_millis(self.millis - asked));
            self.kept = Some((ticket.generation(), shown, asked_wall));
        } else {
            let same = |set: Option<doorward_core::keys::Snapshot>| set.map(|found| found.set().clone());
            assert_eq!(same(self.cache.snapshot()), same(found_before), "a useless answer changed the keys");
        }
        // Its flight has ended, if it still was the current one.
        if self.in_flight_until.iter().any(|_| self.outstanding.is_empty()) {
            self.in_flight_until.clear();
        }
    }

    /// A new process with an empty budget and what the store kept.
    fn restart(&mut self) {
        self.cache = KeyCache::new(policy());
        self.outstanding.clear();
        self.in_flight_until.clear();
        self.check_budget();
        (self.caused, self.begun) = (Vec::new(), Vec::new());
        (self.good_asked, self.shows_until) = (None, None);
        let Some((generation, published, made)) = self.kept.take() else { return };
        let now = self.now();
        let seed = Seed { set: set_of(&published), made, kind: SeedKind::Kept, jitter: 0 };
        let settled = self.cache.seed(seed, now);
        let is_young = now.wall.since(made) < Duration::from_secs(24 * 3600);
        assert_eq!(settled.is_in_use, is_young, "kept keys serve for the rest of their time");
        if is_young {
            // No fetch of the new process has this number, so no answer of it can rest on the seed.
            self.kept = Some((generation.wrapping_add(u64::MAX / 2), published, made.min(now.wall)));
        }
    }

    fn step(&mut self, event: &Event) {
        match event {
            Event::Wait(millis) => self.millis += millis,
            Event::Rotate { is_abrupt } => {
                if *is_abrupt || self.published.len() > 4 {
                    self.published.clear();
                }
                self.newest = format!("k{}", self.next_seed);
                self.published.insert(self.newest.clone(), self.next_seed);
                self.next_seed = self.next_seed.wrapping_add(1);
                self.publish();
            }
            Event::ReplaceNewest => {
                self.published.insert(self.newest.clone(), self.next_seed);
                self.next_seed = self.next_seed.wrapping_add(1);
                self.publish();
            }
            Event::SetClock(seconds) => self.offset += seconds * 1000,
            Event::Restart => self.restart(),
            Event::Genuine => self.token(&self.newest.clone(), 0, false),
            Event::MadeUp { age } => self.token("made-up", *age, true),
            Event::Forged { age } => self.token(&self.newest.clone(), *age, true),
            Event::Timer => {
                let now = self.now();
                if let Some(ticket) = self.cache.due_fetch(now) {
                    self.took(ticket, false);
                }
            }
            Event::Answer { is_good, age } => self.answer(*is_good, *age),
            Event::Lose => {
                if !self.outstanding.is_empty() {
                    drop(self.outstanding.remove(0));
                }
            }
        }
        self.millis += 1;
    }

    /// Strangers cause at most two fetches in any minute.
    fn check_budget(&self) {
        let window = u64::try_from((2 * MIN_INTERVAL).as_millis()).unwrap();
        for three in self.caused.windows(3) {
            assert!(three[2] - three[0] >= window, "three fetches caused within a minute: {:?}", self.caused);
        }
    }
}

fn policy() -> KeyPolicy {
    KeyPolicy {
        clock_tolerance: Duration::from_millis(1),
        max_stale: Some(Duration::from_secs(24 * 3600)),
        ..KeyPolicy::fetched(AlgorithmSet::of(&[Algorithm::EdDsa]))
    }
}

fn histories() -> u32 {
    std::env::var("DOORWARD_SIM_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(HISTORIES)
}

fn public(seed: u8) -> PublicKey {
    thread_local!(static KNOWN: RefCell<BTreeMap<u8, PublicKey>> = const { RefCell::new(BTreeMap::new()) });
    let make = || SigningKey::from_seed(&[seed; 32]).unwrap().public_key().unwrap();
    KNOWN.with_borrow_mut(|known| known.entry(seed).or_insert_with(make).clone())
}

fn set_of(published: &BTreeMap<String, u8>) -> JwkSet {
    type Sets = BTreeMap<BTreeMap<String, u8>, JwkSet>;
    thread_local!(static KNOWN: RefCell<Sets> = const { RefCell::new(BTreeMap::new()) });
    let make = || {
        let keys: Vec<_> =
            published.iter().map(|(id, seed)| SigningKey::from_seed(&[*seed; 32]).unwrap().public_jwk(id)).collect();
        JwkSet::parse(serde_json::json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    };
    KNOWN.with_borrow_mut(|known| known.entry(published.clone()).or_insert_with(make).clone())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: histories(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_promises_hold_under_any_order_of_events(events in prop::collection::vec(event(), 1..100)) {
        let mut world = World::new();
        for event in &events {
            world.step(event);
        }
        world.check_budget();
    }

    #[test]
    fn an_issuer_that_comes_back_is_found_again_whatever_happened(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::new();
        for event in &events {
            world.step(event);
        }
        world.outstanding.clear();
        for _ in 0..200 {
            world.millis += 1000;
            let now = world.now();
            if let Some(ticket) = world.cache.due_fetch(now) {
                let fetched = Fetched { set: Some(set_of(&world.published)), max_age: None, age: Duration::ZERO, jitter: 0 };
                world.cache.fetched(&ticket, Ok(fetched), now);
            }
        }
        let (now, newest) = (world.now(), world.newest.clone());
        let query = Query {
            key_id: Some(&newest),
            algorithm: Algorithm::EdDsa,
            issued_at: Some(now.wall),
            arrived: now,
            era: world.cache.era(),
        };
        // The timer has fetched, unless the set at hand is not due yet: then a young token fetches.
        match world.cache.lookup(query, now) {
            Lookup::Use(_) | Lookup::UseAndFetch(..) | Lookup::Fetch(_) => {}
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
