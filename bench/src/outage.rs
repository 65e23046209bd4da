//! Whether callers with good tokens wait while strangers send unknown keys, or the issuer is away.

use std::{
    env, fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use doorward_gate::clock::Clock;
use doorward_testkit::{
    issuer::{Forgery, Issuer},
    port,
    process::Process,
    upstream::EchoApp,
};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    Effort,
    load::{Server, this},
    report::{Report, Target, median, ratio},
};

/// Strangers' requests a second.
const RATE: u64 = 300;
/// Good requests of one turn.
const GOOD: usize = 3000;
/// Good requests a second.
const GOOD_RATE: u64 = 1000;

/// Where the crowd sends.
const SERVER: &str = "BENCH_SERVER";
/// The file with the crowd's tokens, one a line.
const TOKENS: &str = "BENCH_TOKENS";

type Http = Client<HttpConnector, Empty<Bytes>>;

/// What happens beside the good requests.
#[derive(Clone, Copy, PartialEq)]
enum Beside {
    Nothing,
    Others,
    UnknownKeys,
    Forged,
    Outage,
}

pub(crate) async fn run(report: &mut Report, effort: Effort) {
    report.table("Good tokens while others flood, or the issuer is away", "p99 in ms", "to quiet");
    let (mut issuer, app) = (Issuer::start().await, EchoApp::start().await);
    let folder = tempfile::tempdir().unwrap();
    let port = port::free();
    fs::write(folder.path().join("doorward.toml"), config(port, &issuer, &app)).unwrap();
    let server = Server::serve(folder.path(), port, false);
    let http: Http = Client::builder(TokioExecutor::new()).build_http();
    let first = issuer.mint(&claims(&issuer, 0));
    let ready = async {
        while ask(&http, server.address, &first).await.as_deref() != Some("200") {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ready).await.expect("Doorward lets a good token through");

    let turns = [Beside::Nothing, Beside::Others, Beside::UnknownKeys, Beside::Forged, Beside::Outage];
    let mut figures = vec![Vec::new(); turns.len()];
    for round in 0..=effort.rounds {
        for (at, beside) in turns.iter().enumerate() {
            let good: Vec<_> = (0..GOOD).map(|number| issuer.mint(&claims(&issuer, number))).collect();
            let others: Vec<_> = (0..1000)
                .map(|number| match beside {
                    Beside::Forged => issuer.forge(&Forgery::Signature, &claims(&issuer, number)),
                    Beside::UnknownKeys => {
                        issuer.forge(&Forgery::Kid(json!(format!("unknown-{number}"))), &claims(&issuer, number))
                    }
                    Beside::Nothing | Beside::Others | Beside::Outage => issuer.mint(&claims(&issuer, number)),
                })
                .collect();
            if *beside == Beside::Outage {
                issuer.die().await;
            }
            let crowd = match beside {
                Beside::Nothing | Beside::Outage => None,
                Beside::Others | Beside::UnknownKeys | Beside::Forged => {
                    let file = folder.path().join("tokens");
                    fs::write(&file, others.join("\n")).unwrap();
                    let server = server.address.to_string();
                    let crowd = Process::start("crowd", this("crowd").env(SERVER, server).env(TOKENS, file));
                    crowd.line(Duration::from_secs(30), |line| (line == "sending").then_some(())).await;
                    Some(crowd)
                }
            };
            let p99 = p99(&http, server.address, &good).await;
            drop(crowd);
            issuer.revive().await;
            if round > 0 {
                figures[at].push(p99.as_secs_f64() * 1000.0);
            }
        }
    }
    for (at, name) in [
        "quiet",
        "300 other good requests a second",
        "300 tokens of unknown keys a second",
        "300 forged signatures a second",
        "the issuer dead",
    ]
    .into_iter()
    .enumerate()
    {
        let target = if at > 1 { Target::Most(1.2) } else { Target::None };
        report.row(
            name,
            &format!("{:.2}", median(figures[at].clone())),
            Some(ratio(&figures[at], &figures[0])),
            target,
        );
    }
}

/// Good claims, unlike any other's.
fn claims(issuer: &Issuer, number: usize) -> Value {
    let mut claims = issuer.claims("app", Clock::system().now().wall.as_secs());
    claims["jti"] = json!(number.to_string());
    claims
}

/// The slowest of a hundred good requests, sent at their rate whether or not the ones before were answered.
async fn p99(http: &Http, server: SocketAddr, tokens: &[String]) -> Duration {
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / GOOD_RATE));
    let mut requests = JoinSet::new();
    for token in tokens {
        pace.tick().await;
        let (http, token) = (http.clone(), token.clone());
        requests.spawn(async move {
            let began = Instant::now();
            assert_eq!(ask(&http, server, &token).await.as_deref(), Some("200"), "a good token");
            began.elapsed()
        });
    }
    let mut took = requests.join_all().await;
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// Plays the crowd, in a process of its own: what it does must not hold up whoever measures. Sends the tokens at the
/// rate, for ever, each without waiting for the one before.
pub(crate) async fn crowd() {
    let server: SocketAddr = env::var(SERVER).unwrap().parse().unwrap();
    let tokens: Vec<String> =
        fs::read_to_string(env::var_os(TOKENS).unwrap()).unwrap().lines().map(str::to_owned).collect();
    let http: Http = Client::builder(TokioExecutor::new()).build_http();
    let mut requests = JoinSet::new();
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    println!("sending");
    for token in tokens.iter().cycle() {
        pace.tick().await;
        let (http, token) = (http.clone(), token.clone());
        requests.spawn(async move { ask(&http, server, &token).await });
        while requests.try_join_next().is_some() {}
    }
}

/// What the answer says: `200`, or the status with the reason for it.
async fn ask(http: &Http, server: SocketAddr, token: &str) -> Option<String> {
    let request =
        Request::get(format!("http://{server}/api/orders")).header("authorization", format!("Bearer {token}"));
    let answer = http.request(request.body(Empty::new()).unwrap()).await.ok()?;
    let mut said = answer.status().as_str().to_owned();
    if let Some(reason) = answer.headers().get("x-doorward-reason").and_then(|reason| reason.to_str().ok()) {
        said += " ";
        said += reason;
    }
    answer.into_body().collect().await.ok()?;
    Some(said)
}

fn config(port: u16, issuer: &Issuer, app: &EchoApp) -> String {
    format!(
        r#"public_url = "http://127.0.0.1:{port}"
[listen]
http = "127.0.0.1:{port}"
admin = "127.0.0.1:0"
[apps.web]
upstream = "{}"
[[rules]]
path = "/api/*"
allow = ["bearer"]
app = "web"
[[issuers]]
name = "main"
issuer = "{}"
audiences = ["app"]
keys = {{ jwks_url = "{}", min_interval = "1s" }}
"#,
        app.url(),
        issuer.url(),
        issuer.jwks_url()
    )
}
