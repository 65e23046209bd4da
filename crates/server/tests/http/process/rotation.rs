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

/// Relays questions about the key set, and counts them.
async fn counting(issuer: SocketAddr, path: String, count: &Arc<AtomicU64>) -> RawUpstream {
    let count = Arc::clone(count);
    RawUpstream::with(move |mut conversation| {
        let (count, path) = (Arc::clone(&count), path.clone());
        async move {
            while conversation.request().await.is_some() {
                count.fetch_add(1, Ordering::Relaxed);
                let question = format!("GET {path} HTTP/1.1\r\nHost: {issuer}\r\nConnection: close\r\n\r\n");
                let answer = Wire::ask(issuer, question).await;
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
    refused: Vec<String>,
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
    Good(Option<String>),
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
    let mut change = pin!(timeout(LONGEST, change));
    let done = loop {
        tokio::select! {
            done = &mut change => break done.expect("the issuer changes its keys in time"),
            Some(answer) = requests.join_next() => load.add(answer.unwrap()),
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
                            Answered::Good(is_refused.then(|| format!("{:?}", reason(&answer))))
                        }
                        false => Answered::Stray(now()),
                    }
                });
            }
        }
    };
    for answer in requests.join_all().await {
        load.add(answer);
    }
    (load, done)
}

async fn no_good_token_is_refused(mut issuer: impl Real, audience: &str, algorithm: &str, modes: &[&str]) {
    let fetches = Arc::new(AtomicU64::new(0));
    let relay = counting(issuer.address(), issuer.jwks_path(), &fetches).await;
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
    let first = installation.get("/read/x", &token).await;
    assert_eq!(first.status, 200, "{first:?}\n{}", server.output());
    let at_first = fetches.load(Ordering::Relaxed);
    assert!(at_first <= 1, "{at_first} fetches for the first token");

    let (began, mut sent) = (now(), 0);
    for mode in modes {
        let before = fetches.load(Ordering::Relaxed);
        let change = async {
            sleep(BEFORE).await;
            if *mode != "overlap" {
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
        assert!(refused.is_empty(), "{mode}: {} of {} good tokens refused: {:?}", refused.len(), load.sent, refused[0]);
        // Tokens of a key that is gone may each ask again, once the interval has passed.
        let strays = load.last_stray.map_or(Duration::ZERO, |at| at.saturating_duration_since(changed));
        let most = 1 + u64::from(*mode == "samekid") + strays.as_secs() / INTERVAL.as_secs();
        let fetched = fetches.load(Ordering::Relaxed) - before;
        assert!((1..=most).contains(&fetched), "{mode}: {fetched} fetches, strays for {strays:?}");
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
