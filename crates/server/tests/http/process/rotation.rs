//! Issuers made by others change their keys under load, behind the executable: no good token is refused meanwhile.
//!
//! A token is good while every change of keys since it was minted left its key published (C1–C9). Those whose key is gone may
//! be accepted for a while or refused, and are not counted.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use doorward_testkit::{
    better_auth::BetterAuth,
    keycloak::Keycloak,
    oidc_provider::OidcProvider,
    upstream::{EchoApp, RawUpstream},
    wire::Wire,
};
use tokio::{task::JoinSet, time::sleep};

use super::{Installation, figure, now, reason};

/// Requests a second, and how long they come after each change.
const RATE: u64 = 200;
const BETWEEN: Duration = Duration::from_secs(4);
/// What the budget of fetches is told; changes come further apart than this.
const INTERVAL: &str = "1s";

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

/// Sends requests at the rate; what went wrong with tokens that were good from the question to the answer.
async fn load(installation: &Arc<Installation>, newest: &Shared, of: Duration) -> (u64, Vec<String>) {
    let mut requests = JoinSet::new();
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let total = of.as_millis() as u64 * RATE / 1000;
    for _ in 0..total {
        pace.tick().await;
        let (installation, newest) = (Arc::clone(installation), Arc::clone(newest));
        requests.spawn(async move {
            let Newest { bearer, change } = newest.lock().unwrap().clone();
            let answer = installation.get("/read/x", &bearer).await;
            let was_good = change % 2 == 0 && newest.lock().unwrap().change == change;
            (was_good && answer.status != 200).then(|| format!("{:?}", reason(&answer)))
        });
    }
    let answers = requests.join_all().await;
    (total, answers.into_iter().flatten().collect())
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
keys = {{ jwks_url = "{}/jwks", min_interval = "{INTERVAL}" }}
"#,
        app.url(),
        issuer.url(),
        relay.url()
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

    let began = now();
    for mode in modes {
        let before = fetches.load(Ordering::Relaxed);
        let change = async {
            sleep(BETWEEN / 4).await;
            if *mode != "overlap" {
                newest.lock().unwrap().change += 1;
            }
            issuer.rotate(mode).await;
            let bearer = bearer(&issuer.token().await);
            let mut newest = newest.lock().unwrap();
            let change = newest.change.next_multiple_of(2);
            *newest = Newest { bearer, change };
        };
        let ((sent, refused), ()) = tokio::join!(load(&installation, &newest, BETWEEN), change);
        assert!(refused.is_empty(), "{mode}: {} of {sent} good tokens refused: {:?}", refused.len(), refused.first());
        let after = fetches.load(Ordering::Relaxed);
        assert!(
            (1..=1 + u64::from(*mode == "samekid")).contains(&(after - before)),
            "{mode}: {} fetches",
            after - before
        );
    }
    figure(&format!("{algorithm}, {modes:?}: {RATE} requests/s without a refusal for"), began.elapsed());
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
