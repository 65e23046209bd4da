//! Licenses in the request path, with a provider that a test plays.

mod clocks;
mod histories;
mod open;
mod outages;
mod requests;
mod whose;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use doorward_core::{
    api_key::KeyOwner,
    license::{Holder, LicensePolicy, LicenseState, Observation},
    rule::{LicenseMode, Rule},
    time::{Now, Timestamp},
    user::User,
};
use doorward_gate::{
    gate::Gate,
    license::{Answering, FaultKind, LicenseParts, LicenseProvider, Licenses, ProviderFault, Question},
};

use super::house::{Asked, House, SESSION, START, rule};

const TTL: Duration = Duration::from_secs(300);
const DAY: Duration = Duration::from_hours(24);
const POLICY: LicensePolicy = LicensePolicy { trust_for: DAY, grace: DAY.saturating_mul(7) };

/// What the vendor has on its books about one holder.
#[derive(Clone, Debug, PartialEq)]
struct Book {
    state: LicenseState,
    expires_at: Option<Timestamp>,
    entitlements: BTreeSet<String>,
}

impl Book {
    fn of(state: LicenseState) -> Self {
        Self { state, expires_at: None, entitlements: BTreeSet::new() }
    }

    fn until(self, end: Timestamp) -> Self {
        Self { expires_at: Some(end), ..self }
    }

    fn with(mut self, code: &str) -> Self {
        self.entitlements.insert(code.to_owned());
        self
    }

    fn said_at(&self, observed_at: Timestamp) -> Observation {
        let Self { state, expires_at, entitlements } = self.clone();
        let license_id = (state != LicenseState::None).then(|| "lic-1".to_owned());
        Observation { state, license_id, expires_at, entitlements, observed_at }
    }
}

/// A vendor; clones are one.
#[derive(Clone, Debug)]
struct Vendor(Arc<Office>);

#[derive(Debug)]
struct Office {
    is_per_user: bool,
    books: Mutex<HashMap<Holder, Book>>,
    fault: Mutex<Option<ProviderFault>>,
    /// How long an answer takes, by the runtime's clock.
    delay: Mutex<Duration>,
    asked: Mutex<Vec<Question>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Vendor {
    fn new(is_per_user: bool) -> Self {
        Self(Arc::new(Office {
            is_per_user,
            books: Mutex::default(),
            fault: Mutex::default(),
            delay: Mutex::default(),
            asked: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
        }))
    }

    fn book(&self, holder: Holder, book: Book) {
        lock(&self.0.books).insert(holder, book);
    }

    fn asked(&self) -> usize {
        lock(&self.0.asked).len()
    }

    fn fail(&self, kind: FaultKind) {
        *lock(&self.0.fault) = Some(ProviderFault::new(kind, "a test says so"));
    }

    /// Has it ask to be left alone for `pause`.
    fn limit(&self, pause: Duration) {
        let limited = ProviderFault::new(FaultKind::Unavailable, "429");
        *lock(&self.0.fault) = Some(ProviderFault { retry_after: Some(pause), ..limited });
    }

    fn work(&self) {
        *lock(&self.0.fault) = None;
    }

    fn take(&self, delay: Duration) {
        *lock(&self.0.delay) = delay;
    }
}

impl LicenseProvider for Vendor {
    fn name(&self) -> &'static str {
        "vendor"
    }

    fn ask(&self, question: Question, now: Now) -> Answering {
        let (office, holder) = (Arc::clone(&self.0), question.holder);
        lock(&office.asked).push(question);
        let delay = *lock(&office.delay);
        Box::pin(async move {
            let now_under_way = office.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            office.most_under_way.fetch_max(now_under_way, Ordering::SeqCst);
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            office.under_way.fetch_sub(1, Ordering::SeqCst);
            match lock(&office.fault).clone() {
                Some(fault) => Err(fault),
                None => {
                    let books = lock(&office.books);
                    let book = books.get(&holder).cloned().unwrap_or_else(|| Book::of(LicenseState::None));
                    Ok(book.said_at(now.wall))
                }
            }
        })
    }

    fn is_per_user(&self) -> bool {
        self.0.is_per_user
    }
}

fn parts(vendor: &Vendor) -> LicenseParts {
    LicenseParts { provider: Arc::new(vendor.clone()), policy: POLICY, cache_ttl: TTL, issuer: Some("main".into()) }
}

/// A rule for everything that asks for a license.
fn licensed(mode: LicenseMode) -> Rule {
    Rule { license: mode, ..rule("/*", SESSION.with(doorward_core::credential::CredentialKind::ApiKey)) }
}

/// A gate with a vendor.
struct World {
    house: House,
    vendor: Vendor,
}

/// A user with a key, as requests.
struct Person {
    user: User,
    holder: Holder,
    key: String,
}

impl Person {
    fn get(&self) -> Asked {
        Asked::get("/x").bearer(&self.key)
    }

    fn post(&self) -> Asked {
        Asked::post("/x").bearer(&self.key)
    }
}

impl World {
    async fn new() -> Self {
        Self::of(vec![licensed(LicenseMode::ActiveOrGraceRead)], true).await
    }

    async fn of(rules: Vec<Rule>, is_per_user: bool) -> Self {
        let (house, vendor) = (House::of(rules).await, Vendor::new(is_per_user));
        house.gate.use_licenses(Some(parts(&vendor)));
        Self { house, vendor }
    }

    fn licenses(&self) -> Licenses {
        self.house.gate.licenses().unwrap()
    }

    async fn person(&self, email: &str) -> Person {
        let user = self.house.user(email).await;
        let (key, _) = self.house.api_key(KeyOwner::User(user.id), &[], |_| ()).await;
        Person { holder: Holder::User(user.id), user, key }
    }

    /// A person with a license in this state.
    async fn licensee(&self, state: LicenseState) -> Person {
        let person = self.person("ada@example.com").await;
        self.vendor.book(person.holder, Book::of(state));
        person
    }

    async fn advance(&self, by: Duration) {
        self.house.advance(by).await;
    }
}

/// Lets questions that nobody waits for come to their end.
async fn settle(gate: &Gate) {
    let licenses = gate.licenses().unwrap();
    for _ in 0..10_000 {
        if licenses.status().under_way == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("a question does not end");
}
