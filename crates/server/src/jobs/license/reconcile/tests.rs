use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use doorward_core::{
    effects::Effects,
    id::UserId,
    license::{Known, LicensePolicy, LicenseState, Observation},
    time::Now,
    user::{Email, User},
};
use doorward_gate::{
    clock::Clock,
    license::{Answering, FaultKind, LicenseParts, LicenseProvider, ProviderFault, Question},
};
use doorward_store::{ApplyLicense, CreateUser, LicenseChange};
use futures_util::FutureExt as _;

use super::*;
use crate::config::Config;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const SECOND: Duration = Duration::from_secs(1);

/// A provider that finds every license active, but fails about some; and counts its questions by holder.
#[derive(Debug, Default)]
struct Player {
    faults: HashMap<Holder, FaultKind>,
    is_slow: bool,
    is_for_all: bool,
    asked: Mutex<HashMap<Holder, usize>>,
}

impl Player {
    fn total(&self) -> usize {
        self.asked.lock().unwrap().values().sum()
    }
}

impl LicenseProvider for Player {
    fn name(&self) -> &'static str {
        "player"
    }

    fn ask(&self, question: Question, now: Now) -> Answering {
        *self.asked.lock().unwrap().entry(question.holder).or_default() += 1;
        let answer = match self.faults.get(&question.holder) {
            Some(kind) => Err(ProviderFault::new(*kind, "fails about this one")),
            None => Ok(active(now.wall)),
        };
        let pause = if self.is_slow { SECOND } else { Duration::ZERO };
        async move {
            tokio::time::sleep(pause).await;
            answer
        }
        .boxed()
    }

    fn is_per_user(&self) -> bool {
        !self.is_for_all
    }
}

fn active(at: Timestamp) -> Observation {
    Observation {
        state: LicenseState::Active,
        license_id: Some("lic-1".to_owned()),
        expires_at: None,
        entitlements: Default::default(),
        observed_at: at,
    }
}

/// Users with licenses that were confirmed one second after each other, an hour and more ago.
struct Scene {
    parts: Parts,
    clock: Clock,
    holders: Vec<Holder>,
}

impl Scene {
    async fn new(users: usize) -> Self {
        let (store, clock) = (Store::memory(), Clock::manual(START));
        let text = "public_url = \"http://127.0.0.1\"\n[secrets]\nroot = \"only for this test, only for this test\"\n";
        let config = Config::parse(text, std::path::Path::new("doorward.toml"), &Default::default()).unwrap();
        let parts = Parts::without_server(&store, &config, &clock).unwrap();
        let mut scene = Self { parts, clock, holders: Vec::new() };
        scene.ask(Player::default());
        for number in 0..users {
            let at = scene.clock.now().wall;
            let email = Email::parse(&format!("user{number}@example.com")).unwrap();
            let user = User::new(UserId::mint(at, scene.clock.random()), email, at);
            assert_eq!(store.create_user(user.clone(), Effects::default()).await, Ok(CreateUser::Created));
            scene.know(Holder::User(user.id)).await;
            scene.clock.advance(SECOND);
        }
        scene.clock.advance(Duration::from_secs(3600));
        scene
    }

    /// The provider from now on.
    fn ask(&self, player: Player) -> Arc<Player> {
        let player = Arc::new(player);
        self.parts.gate.use_licenses(Some(LicenseParts {
            provider: Arc::clone(&player) as Arc<dyn LicenseProvider>,
            policy: LicensePolicy { trust_for: Duration::from_hours(24), grace: Duration::from_hours(24) },
            cache_ttl: Duration::from_secs(300),
            issuer: None,
        }));
        player
    }

    async fn know(&mut self, holder: Holder) {
        let licenses = self.parts.gate.licenses().unwrap();
        licenses.observe(holder, active(self.clock.now().wall), None).await.unwrap();
        self.holders.push(holder);
    }

    /// One run, in which the clock goes with tokio's, which is paused and goes as fast as nobody works.
    async fn run(&self) -> Outcome {
        let clock = self.clock.clone();
        let passing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                clock.advance(Duration::from_millis(50));
            }
        });
        let outcome = run(self.parts.clone()).await;
        passing.abort();
        outcome
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_asks_a_thousand_questions_the_oldest_first_and_the_next_one_the_rest() {
    let scene = Scene::new(1005).await;
    let player = scene.ask(Player::default());
    assert_eq!(scene.run().await, Ok("asked about 1000 licenses, 0 had gone".to_owned()));
    let late = |player: &Player| {
        scene.holders[1000..].iter().filter(|holder| player.asked.lock().unwrap().contains_key(holder)).count()
    };
    assert_eq!((player.total(), late(&player)), (1000, 0));
    assert_eq!(scene.run().await, Ok("asked about 5 licenses, 0 had gone".to_owned()));
    assert_eq!((player.total(), late(&player)), (1005, 5), "once each");
    assert_eq!(scene.run().await, Ok("asked about 0 licenses, 0 had gone".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_license_that_always_fails_stands_before_no_other_whatever_the_failure() {
    for kind in [FaultKind::Untrusted, FaultKind::Misconfigured, FaultKind::Unavailable] {
        let scene = Scene::new(20).await;
        let bad = scene.holders[0];
        let player = scene.ask(Player { faults: [(bad, kind)].into(), ..Player::default() });
        for run in 1..=3 {
            let others = if run == 1 { 19 } else { 0 };
            let expected = Err(format!("asked about {others} licenses, 1 got no answer"));
            assert_eq!(scene.run().await, expected, "{kind:?}");
            assert_eq!(player.asked.lock().unwrap()[&bad], run, "it is tried once in each run");
            scene.clock.advance(Duration::from_secs(300));
        }
        assert_eq!(player.total(), 19 + 3);
    }
}

#[tokio::test(start_paused = true)]
async fn more_failing_licenses_than_a_run_asks_about_hold_up_the_others_for_one_run_and_never_again() {
    const FAILING: usize = 1100;
    let mut scene = Scene::new(FAILING + 50).await;
    let faults = scene.holders[..FAILING].iter().map(|holder| (*holder, FaultKind::Untrusted)).collect();
    let player = scene.ask(Player { faults, ..Player::default() });
    let times = |which: &[Holder]| {
        let asked = player.asked.lock().unwrap();
        let times: Vec<usize> = which.iter().map(|holder| asked.get(holder).copied().unwrap_or(0)).collect();
        (times.iter().min().copied().unwrap_or(0), times.iter().max().copied().unwrap_or(0))
    };
    assert_eq!(scene.run().await, Err("asked about 0 licenses, 1000 got no answer".to_owned()));
    scene.clock.advance(SECOND * 60);
    assert_eq!(scene.run().await, Err("asked about 50 licenses, 950 got no answer".to_owned()));
    assert_eq!((times(&scene.holders[..FAILING]), times(&scene.holders[FAILING..])), ((1, 2), (1, 1)));

    // From now on everybody has their turn: nobody is asked twice before all others were once.
    let answered = scene.holders.split_off(FAILING);
    for _ in 0..3 {
        scene.clock.advance(UNCONFIRMED);
        let before = times(&answered);
        assert_eq!(scene.run().await, Err("asked about 50 licenses, 950 got no answer".to_owned()));
        assert_eq!(times(&answered), (before.0 + 1, before.1 + 1));
    }
    let (least, most) = times(&scene.holders);
    assert!(most - least <= 1 && least >= 4, "each in its turn: {least} to {most}");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_away_is_left_alone_and_a_slow_one_is_asked_until_the_time_is_over() {
    let scene = Scene::new(300).await;
    let away = scene.holders.iter().map(|holder| (*holder, FaultKind::Unavailable)).collect();
    let player = scene.ask(Player { faults: away, ..Player::default() });
    let error = scene.run().await.unwrap_err();
    assert!(error.starts_with("asked about 0 licenses, then stopped: the license provider failed"), "{error}");
    assert!(player.total() <= 5, "{} questions", player.total());

    let player = scene.ask(Player { is_slow: true, ..Player::default() });
    let error = scene.run().await.unwrap_err();
    assert!(error.ends_with("then the time was over; the next run goes on"), "{error}");
    assert!((200..=240).contains(&player.total()), "{} questions", player.total());
    assert!(scene.run().await.is_ok());
    assert_eq!(player.total(), 300);
}

#[tokio::test(start_paused = true)]
async fn the_license_of_the_installation_is_found_behind_those_of_users_from_another_provider() {
    let mut scene = Scene::new(1005).await;
    let player = scene.ask(Player { is_for_all: true, ..Player::default() });
    scene.know(Holder::Installation).await;
    assert_eq!(scene.run().await, Ok("asked about 0 licenses, 0 had gone".to_owned()), "it is young");
    scene.clock.advance(UNCONFIRMED);
    assert_eq!(scene.run().await, Ok("asked about 1 licenses, 0 had gone".to_owned()));
    assert_eq!(player.asked.lock().unwrap().keys().collect::<Vec<_>>(), [&Holder::Installation]);
}

#[tokio::test(start_paused = true)]
async fn what_a_clock_that_was_ahead_confirmed_is_asked_for_again_at_once() {
    let scene = Scene::new(1).await;
    let (holder, store) = (scene.holders[0], scene.parts.gate.store());
    let row = store.license(holder).await.unwrap().unwrap();
    let now = scene.clock.now().wall;
    let known = Known { confirmed_at: now.plus(Duration::from_hours(30 * 24)), ..row.known.clone() };
    let change = LicenseChange { holder, expected: Some(row.known), known, event: None, at: now };
    assert_eq!(store.apply_license(change, Effects::default()).await, Ok(ApplyLicense::Applied));
    scene.ask(Player::default());
    assert_eq!(scene.run().await, Ok("asked about 1 licenses, 0 had gone".to_owned()));
    assert_eq!(scene.run().await, Ok("asked about 0 licenses, 0 had gone".to_owned()), "confirmed now");
}

#[tokio::test(start_paused = true)]
async fn licenses_that_fail_hold_up_the_others_for_one_run_also_where_the_clock_was_set_back() {
    const FAILING: usize = 1100;
    let scene = Scene::new(FAILING + 50).await;
    let faults = scene.holders[..FAILING].iter().map(|holder| (*holder, FaultKind::Untrusted)).collect();
    scene.ask(Player { faults, ..Player::default() });
    scene.clock.set_wall(START.minus(Duration::from_hours(24)));
    assert_eq!(scene.run().await, Err("asked about 0 licenses, 1000 got no answer".to_owned()));
    scene.clock.advance(SECOND * 60);
    assert_eq!(scene.run().await, Err("asked about 50 licenses, 950 got no answer".to_owned()));
}
