//! Issuers made by others change their keys under load, behind the executable: no good token is refused meanwhile.
//!
//! A token is good while every change of keys since it was minted left its key published (C1–C9). Those whose key is gone may
//! be accepted for a while or refused, and are not counted.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use doorward_testkit::{
    better_auth::BetterAuth,
    keycloak::Keycloak,
    oidc_provider::OidcProvider,
    upstream::{EchoApp, RawUpstream},
    wire::Wire,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Installation, figure, now, reason};

/// Requests a second, where the machine has the time for them.
const RATE: u64 = 200;
/// Requests under way at once; a machine that cannot keep up is not buried under them.
const AT_ONCE: usize = 128;
/// How long requests come before each change, and at least as long as that after it.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(3);
/// The longest that a change may take.
const LONGEST: Duration = Duration::from_secs(90);
/// What the budget of fetches is told; changes come further apart than this.
const INTERVAL: Duration = Duration::from_secs(1);
/// A machine, or an issuer, that stands still for so long may keep a new key from a token for the three seconds that it
/// waits; or from a fetch for the five that it takes, and then there is another one.
const STILL: Duration = Duration::from_secs(2);
/// How often a change is played, at most, until nothing stood still meanwhile.
const PLAYS: usize = 4;

/// An issuer that somebody else wrote.
trait Real {
    fn url(&self) -> String;
    fn address(&self) -> SocketAddr;
    fn jwks_path(&self) -> String;
    async fn token(&self) -> String;
    async fn rotate(&mut self, mode: &str);
}

impl Real for OidcProvider {
    fn url(&self) -> String {
        self.url().to_owned()
    }
    fn address(&self) -> SocketAddr {
        self.url().strip_prefix("http://").unwrap().parse().unwrap()
    }
    fn jwks_path(&self) -> String {
        "/jwks".to_owned()
    }
    async fn token(&self) -> String {
        self.token().await
    }
    async fn rotate(&mut self, mode: &str) {
        Self::rotate(self, mode).await;
    }
}

impl Real for BetterAuth {
    fn url(&self) -> String {
        self.url().to_owned()
    }
    fn address(&self) -> SocketAddr {
        self.address()
    }
    fn jwks_path(&self) -> String {
        "/api/auth/jwks".to_owned()
    }
    async fn token(&self) -> String {
        self.token().await
    }
    async fn rotate(&mut self, mode: &str) {
        Self::rotate(self, mode).await;
    }
}

impl Real for Keycloak {
    fn url(&self) -> String {
        self.url()
    }
    fn address(&self) -> SocketAddr {
        self.address()
    }
    fn jwks_path(&self) -> String {
        self.jwks_path()
    }
    async fn token(&self) -> String {
        self.token().await
    }
    async fn rotate(&mut self, mode: &str) {
        self.rotate(mode == "overlap").await;
    }
}

/// What was asked of an issuer.
#[derive(Default)]
struct Asked {
    count: AtomicU64,
    /// The longest that it took to answer, in milliseconds.
    slowest: AtomicU64,
}

/// Relays questions about the key set, and counts them.
async fn counting(issuer: SocketAddr, path: String, asked: &Arc<Asked>) -> RawUpstream {
    let asked = Arc::clone(asked);
    RawUpstream::with(move |mut conversation| {
        let (asked, path) = (Arc::clone(&asked), path.clone());
        async move {
            while conversation.request().await.is_some() {
                asked.count.fetch_add(1, Ordering::Relaxed);
                let (question, began) =
                    (format!("GET {path} HTTP/1.1\r\nHost: {issuer}\r\nConnection: close\r\n\r\n"), now());
                let answer = Wire::ask(issuer, question).await;
                asked.slowest.fetch_max(u64::try_from(began.elapsed().as_millis()).unwrap(), Ordering::Relaxed);
                let head = format!(
                    "HTTP/1.1 {} OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    answer.status,
                    answer.body.len()
                );
                conversation.say([head.as_bytes(), &answer.body].concat()).await;
            }
        }
    })
    .await
}

/// What callers send.
#[derive(Clone, Default, PartialEq)]
struct Newest {
    bearer: String,
    /// Counts changes; odd while one happens that takes the key of this token away, when nobody can say whether it is good.
    change: u64,
}

type Shared = Arc<Mutex<Newest>>;

/// What came of a load.
#[derive(Default)]
struct Load {
    sent: u64,
    /// What tokens that were good from the question to the answer were refused with.
    refused: Vec<(u16, Option<String>)>,
    /// The longest that no answer came to anybody.
    longest_gap: Duration,
    /// When the last answer came to a token whose key was taken away meanwhile.
    last_stray: Option<Instant>,
}

impl Load {
    fn add(&mut self, answer: Answered) {
        match answer {
            Answered::Good(refusal) => self.refused.extend(refusal),
            Answered::Stray(at) => self.last_stray = self.last_stray.max(Some(at)),
        }
    }
}

enum Answered {
    /// To a good token; why it was refused, if it was.
    Good(Option<(u16, Option<String>)>),
    /// To one of which nobody can say whether it is good.
    Stray(Instant),
}

/// Sends requests at the rate until `change` is done.
async fn load(
    installation: &Arc<Installation>,
    newest: &Shared,
    change: impl Future<Output = Instant>,
) -> (Load, Instant) {
    let mut requests = JoinSet::new();
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut load = Load::default();
    let mut last = now();
    let mut change = pin!(timeout(LONGEST, change));
    let done = loop {
        tokio::select! {
            done = &mut change => break done.expect("the issuer changes its keys in time"),
            Some(answer) = requests.join_next() => {
                load.longest_gap = load.longest_gap.max(last.elapsed());
                last = now();
                load.add(answer.unwrap());
            }
            _ = pace.tick(), if requests.len() < AT_ONCE => {
                let (installation, newest) = (Arc::clone(installation), Arc::clone(newest));
                load.sent += 1;
                requests.spawn(async move {
                    let Newest { bearer, change } = newest.lock().unwrap().clone();
                    let answer = installation.get("/read/x", &bearer).await;
                    let was_good = change % 2 == 0 && newest.lock().unwrap().change == change;
                    match was_good {
                        true => {
                            let is_refused = answer.status != 200 && !super::is_behind(&answer);
                            let (status, reason) = reason(&answer);
                            Answered::Good(is_refused.then(|| (status, reason.map(str::to_owned))))
                        }
                        false => Answered::Stray(now()),
                    }
                });
            }
        }
    };
    load.longest_gap = load.longest_gap.max(last.elapsed());
    for answer in requests.join_all().await {
        load.add(answer);
    }
    (load, done)
}

async fn no_good_token_is_refused(mut issuer: impl Real, audience: &str, algorithm: &str, modes: &[&str]) {
    let asked = Arc::new(Asked::default());
    let relay = counting(issuer.address(), issuer.jwks_path(), &asked).await;
    let app = EchoApp::start().await;
    let installation = Arc::new(Installation::with(&format!(
        r#"
[apps.web]
upstream = "{}"
[[rules]]
path = "/read/*"
allow = ["bearer"]
app = "web"
[[issuers]]
name = "real"
issuer = "{}"
audiences = ["{audience}"]
algorithms = ["{algorithm}"]
keys = {{ jwks_url = "{}/jwks", min_interval = "{}s" }}
"#,
        app.url(),
        issuer.url(),
        relay.url(),
        INTERVAL.as_secs()
    )));
    let server = installation.serve_ready().await;
    let newest = Shared::default();
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let token = bearer(&issuer.token().await);
    newest.lock().unwrap().bearer.clone_from(&token);
    let started = now();
    let first = installation.judged("/read/x", &token).await;
    assert_eq!(first.status, 200, "{first:?}\n{}", server.output());
    let at_first = asked.count.load(Ordering::Relaxed);
    assert!(at_first <= 1 || started.elapsed() > STILL, "{at_first} fetches for the first token");

    let (began, mut sent) = (now(), 0);
    let (mut left, mut plays) = (modes.iter().peekable(), 0);
    while let Some(mode) = left.peek() {
        let before = asked.count.load(Ordering::Relaxed);
        asked.slowest.store(0, Ordering::Relaxed);
        let change = async {
            sleep(BEFORE).await;
            if **mode != "overlap" {
                newest.lock().unwrap().change += 1;
            }
            issuer.rotate(mode).await;
            let bearer = bearer(&issuer.token().await);
            {
                let mut newest = newest.lock().unwrap();
                let change = newest.change.next_multiple_of(2);
                *newest = Newest { bearer, change };
            }
            let changed = now();
            sleep(AFTER).await;
            changed
        };
        let (load, changed) = load(&installation, &newest, change).await;
        sent += load.sent;
        let refused = &load.refused;
        plays += 1;
        let slowest = Duration::from_millis(asked.slowest.load(Ordering::Relaxed));
        let stood_still = load.longest_gap.max(slowest) > STILL;
        // "Not now" may come of that, and a second fetch; "no" never does.
        if stood_still && plays < PLAYS && refused.iter().all(|(status, _)| *status == 503) {
            eprintln!("{mode}: played again: no answer for {:?}, the issuer took {slowest:?}", load.longest_gap);
            continue;
        }
        assert!(refused.is_empty(), "{mode}: {} of {} good tokens refused: {:?}", refused.len(), load.sent, refused[0]);
        // Tokens of a key that is gone may each ask again, once the interval has passed.
        let strays = load.last_stray.map_or(Duration::ZERO, |at| at.saturating_duration_since(changed));
        let most = 1 + u64::from(**mode == "samekid") + strays.as_secs() / INTERVAL.as_secs();
        let fetched = asked.count.load(Ordering::Relaxed) - before;
        assert!((1..=most).contains(&fetched), "{mode}: {fetched} fetches, strays for {strays:?}");
        left.next();
        plays = 0;
    }
    let rate = sent / began.elapsed().as_secs().max(1);
    figure(&format!("{algorithm}, {modes:?}: {rate} requests/s without a refusal for"), began.elapsed());
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oidc_provider_changes_its_keys_under_load_and_no_good_token_is_refused() {
    let Some(issuer) = OidcProvider::start("ES256").await else { return };
    no_good_token_is_refused(issuer, "urn:app", "ES256", &["overlap", "abrupt", "samekid"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn better_auth_changes_its_keys_under_load_and_no_good_token_is_refused() {
    let Some(issuer) = BetterAuth::start("EdDSA").await else { return };
    no_good_token_is_refused(issuer, "urn:app:api", "EdDSA", &["overlap", "abrupt", "samekid"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keycloak_changes_its_keys_under_load_and_no_good_token_is_refused() {
    let Some(issuer) = Keycloak::start().await else { return };
    no_good_token_is_refused(issuer, "app-api", "RS256", &["overlap", "abrupt"]).await;
}
