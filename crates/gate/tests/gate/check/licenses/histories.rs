//! A year in virtual time: whatever happens in whatever order, every verdict is one that a simple model allows.
//!
//! The model knows what the vendor's books said when, and when the gate can have heard of it last. It knows nothing of
//! caches, questions and breakers: those may make knowledge younger, never older than promised.

use doorward_core::{license::SKEW, reason::Reason, time::Timestamp};
use doorward_gate::{
    gate::GateTask,
    license::{Applied, BreakerState},
};

use super::*;

const YEAR: Duration = Duration::from_hours(365 * 24);
const PEOPLE: usize = 4;

/// Numbers that only depend on the seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// What may come of a request, without words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passes,
    /// 402: the license is not there.
    Refused,
    /// 503: nobody can tell.
    Unknown,
}

impl Outcome {
    fn of(verdict: Result<(), Reason>) -> Self {
        match verdict {
            Ok(()) => Self::Passes,
            Err(Reason::LicenseUnknown) => Self::Unknown,
            Err(reason) if reason.status() == 402 => Self::Refused,
            Err(reason) => panic!("{reason} is no matter of licenses"),
        }
    }
}

/// The promise, in one place: what `book`, confirmed at `confirmed`, lets a request do at `now`.
fn promised(book: &Book, confirmed: Timestamp, now: Timestamp, reads: bool) -> Outcome {
    let age = now.since(confirmed);
    let (is_dead, can_read, can_write) = match book.state {
        LicenseState::Active => match book.expires_at {
            Some(end) if now >= end.plus(POLICY.grace) => (true, false, false),
            Some(end) if now >= end => (false, true, false),
            _ => (false, true, true),
        },
        LicenseState::ActiveBeyondExpiry => (false, true, true),
        _ => (true, false, false),
    };
    if age < POLICY.trust_for {
        let passes = if reads { can_read } else { can_write };
        return if passes { Outcome::Passes } else { Outcome::Refused };
    }
    if is_dead || age >= POLICY.trust_for + POLICY.grace || !reads { Outcome::Unknown } else { Outcome::Passes }
}

/// What the model remembers about one person.
struct Account {
    person: Person,
    /// What the books said from when on.
    history: Vec<(Timestamp, Book)>,
    /// The gate's knowledge is no older than this; `None`: it may know nothing.
    oldest: Option<Timestamp>,
}

impl Account {
    /// Everything that may come of a request at `now`, if the vendor was reachable last at `reached`.
    fn allowed(&self, reached: Timestamp, now: Timestamp, reads: bool) -> Vec<Outcome> {
        let Some(oldest) = self.oldest else {
            return vec![Outcome::Unknown, Outcome::Passes, Outcome::Refused];
        };
        let newest = reached.max(oldest);
        let mut allowed = Vec::new();
        for (at, (from, book)) in self.history.iter().enumerate() {
            let until = self.history.get(at + 1).map_or(newest, |(next, _)| (*next).min(newest));
            let from = (*from).max(oldest);
            if from > until {
                continue;
            }
            for confirmed in [from, until] {
                let outcome = promised(book, confirmed, now, reads);
                if !allowed.contains(&outcome) {
                    allowed.push(outcome);
                }
            }
        }
        allowed
    }
}

struct Year {
    world: World,
    accounts: Vec<Account>,
    dice: Dice,
    is_up: bool,
    /// When the vendor was reachable last.
    reached: Timestamp,
    /// The highest time so far.
    high: Timestamp,
    /// Since when (monotonic) the vendor answers and the clock is right.
    steady_since: Duration,
    /// Whether a question has found that out.
    is_known_steady: bool,
    outcomes: [usize; 3],
    restarts: usize,
}

impl Year {
    async fn begin(seed: u64) -> Self {
        let world = World::new().await;
        let mut accounts = Vec::new();
        for n in 0..PEOPLE {
            let person = world.person(&format!("u{n}@example.com")).await;
            let book = Book::of(LicenseState::Active).until(START.plus(DAY * 30));
            world.vendor.book(person.holder, book.clone());
            accounts.push(Account { person, history: vec![(START, book)], oldest: None });
        }
        Self {
            world,
            accounts,
            dice: Dice(seed),
            is_up: true,
            reached: START,
            high: START,
            steady_since: Duration::ZERO,
            is_known_steady: true,
            outcomes: [0; 3],
            restarts: 0,
        }
    }

    /// The highest time so far; looking makes the gate see it too.
    fn now(&mut self) -> Timestamp {
        self.high = self.high.max(self.world.licenses().now());
        self.high
    }

    fn shake(&mut self) {
        self.steady_since = self.world.house.clock.now().mono;
        self.is_known_steady = false;
    }

    /// Seconds to years pass in steps of every size.
    async fn pass(&mut self) {
        let most = [2, 60, 400, 3600, 6 * 3600, 24 * 3600][self.dice.roll(6) as usize];
        let span = Duration::from_millis(self.dice.roll(most * 1000) + 1);
        self.world.advance(span).await;
        let now = self.now();
        if self.is_up {
            self.reached = now;
        }
    }

    /// The vendor writes something else into its books.
    fn rewrite(&mut self) {
        let (now, who) = (self.now(), self.dice.roll(PEOPLE as u64) as usize);
        let days = |dice: &mut Dice, most: u64| Duration::from_secs(dice.roll(most * 24 * 3600));
        let book = match self.dice.roll(8) {
            0 => Book::of(LicenseState::Suspended),
            1 => Book::of(LicenseState::Banned),
            2 => Book::of(LicenseState::None),
            3 => Book::of(LicenseState::ActiveBeyondExpiry).until(now.minus(DAY)),
            4 => Book::of(LicenseState::Active).until(now.minus(days(&mut self.dice, 10))),
            5 => Book::of(LicenseState::Active),
            _ => Book::of(LicenseState::Active).until(now.plus(days(&mut self.dice, 40))),
        };
        let account = &mut self.accounts[who];
        self.world.vendor.book(account.person.holder, book.clone());
        account.history.push((now, book));
    }

    /// The vendor goes away or comes back.
    fn turn(&mut self) {
        self.is_up = !self.is_up;
        if self.is_up {
            self.world.vendor.work();
        } else {
            let kinds = FaultKind::ALL;
            self.world.vendor.fail(kinds[self.dice.roll(kinds.len() as u64) as usize]);
        }
        self.shake();
    }

    /// A webhook: the vendor tells what its books say now, or repeats what they said once.
    async fn tell(&mut self) {
        let who = self.dice.roll(PEOPLE as u64) as usize;
        let account = &self.accounts[who];
        let which = self.dice.roll(account.history.len() as u64) as usize;
        let (said_at, book) = account.history[which].clone();
        let (holder, is_newest) = (account.person.holder, which + 1 == account.history.len());
        let now = self.now();
        let licenses = self.world.licenses();
        if is_newest {
            licenses.observe(holder, book.said_at(now), None).await.unwrap();
            self.accounts[who].oldest = Some(now);
            self.reached = self.reached.max(now);
            return;
        }
        // One that was signed by a time that agrees with a clock that is wrong is taken for one of now; only whoever set
        // the clock can have kept one for so long.
        let wall = self.world.house.clock.now().wall;
        if wall < now && said_at.since(wall).max(wall.since(said_at)) <= SKEW {
            return;
        }
        // One that comes late changes nothing where something newer is known.
        let known = self.world.house.store.license(holder).await.unwrap();
        if known.is_some_and(|row| row.known.observation.observed_at > said_at) {
            assert_eq!(licenses.observe(holder, book.said_at(said_at), None).await.unwrap(), Applied::Older);
        }
    }

    /// Somebody sets the clock back, by up to two days, or it is put right again.
    fn set_clock(&mut self) {
        let wall = self.world.house.clock.now().wall;
        let high = self.now();
        let to = if wall < high { high } else { wall.minus(Duration::from_secs(self.dice.roll(2 * 24 * 3600))) };
        self.world.house.clock.set_wall(to);
        self.shake();
    }

    /// The process ends in order, and another one begins over the same store.
    async fn restart(&mut self) {
        let house = &mut self.world.house;
        let task: GateTask = house.task.take().unwrap();
        house.gate.run(task, async {}).await;
        let clock = house.clock.clone();
        let rules = vec![licensed(LicenseMode::ActiveOrGraceRead)];
        *house = House::on(house.store.clone(), clock, rules);
        house.gate.use_licenses(Some(parts(&self.world.vendor)));
        house.gate.follow().await;
        self.restarts += 1;
    }

    /// Somebody asks for something.
    async fn ask(&mut self) {
        let who = self.dice.roll(PEOPLE as u64) as usize;
        let reads = self.dice.roll(2) == 0;
        let person = &self.accounts[who].person;
        let request = if reads { person.get() } else { person.post() };
        let outcome = Outcome::of(self.world.house.ask(&request).await);
        settle(&self.world.house.gate).await;
        let now = self.now();
        let account = &mut self.accounts[who];
        // The promise: with a provider that answers, what is known is no older than `cache_ttl`.
        if self.is_known_steady {
            let floor = now.minus(TTL);
            account.oldest = Some(account.oldest.map_or(floor, |oldest| oldest.max(floor)).max(START));
        }
        let allowed = account.allowed(self.reached, now, reads);
        assert!(
            allowed.contains(&outcome),
            "{outcome:?} is none of {allowed:?}: reads {reads}, steady {}, known since {:?}, now {now:?}, {:?}",
            self.is_known_steady,
            account.oldest,
            account.history.last()
        );
        self.outcomes[outcome as usize] += 1;
        // After an outage a question has to find out that it is over; the pauses before it have an end.
        let steady = self.world.house.clock.now().mono.saturating_sub(self.steady_since);
        let is_closed = self.world.licenses().status().breaker == BreakerState::Closed;
        self.is_known_steady = self.is_up && is_closed && steady >= Duration::from_secs(90);
    }
}

async fn year(seed: u64) -> Year {
    let mut year = Year::begin(seed).await;
    let end = START.plus(YEAR);
    while year.now() < end {
        year.pass().await;
        match year.dice.roll(40) {
            0 => year.rewrite(),
            1 => year.turn(),
            2 => year.tell().await,
            3 => year.set_clock(),
            4 if year.dice.roll(10) == 0 => year.restart().await,
            _ => year.ask().await,
        }
    }
    year
}

#[tokio::test(start_paused = true)]
async fn in_a_year_of_anything_every_verdict_is_one_that_the_model_allows() {
    let mut outcomes = [0; 3];
    let mut restarts = 0;
    for seed in 0..2 {
        let year = year(seed).await;
        for (sum, count) in outcomes.iter_mut().zip(year.outcomes) {
            *sum += count;
        }
        restarts += year.restarts;
    }
    // A history in which nothing happens would prove nothing.
    assert!(outcomes.iter().all(|&count| count > 100) && restarts > 2, "{outcomes:?} {restarts}");
}
