//! What a long blocklist costs a whole server: memory, time until it lets anybody through, and each check.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use doorward_core::{
    effects::Effects,
    revocation::{NewRevocation, Scope},
};
use doorward_gate::clock::Clock;
use doorward_testkit::{issuer::Issuer, port};
use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    Effort, house,
    load::{self, Server},
    process::{rss, settled},
    report::{Report, Target, median, ratio},
    store,
};

/// Requests of one turn, one after the other: enough that the system's clock of CPU time, which counts
/// hundredths of a second, says something.
const REQUESTS: usize = 20_000;
/// Good tokens, which come in turn.
const TOKENS: usize = 500;
const LONGEST: Duration = Duration::from_secs(120);

/// A server with a list of its own.
struct House {
    folder: TempDir,
    port: u16,
}

pub(crate) async fn run(report: &mut Report, effort: Effort) {
    let entries = if effort.is_quick { 100_000 } else { 1_000_000 };
    report.table(&format!("A blocklist of {entries} tokens in the whole server"), "with it", "to none");
    let issuer = Issuer::start().await;
    let (none, many) = (House::with(&issuer, 0).await, House::with(&issuer, entries).await);
    let now = Clock::system().now().wall.as_secs();
    let bearer = |jti: String| {
        let mut claims = issuer.claims("app", now);
        (claims["jti"], claims["exp"]) = (json!(jti), json!(now + 3600));
        issuer.mint(&claims)
    };
    let good: Vec<String> = (0..TOKENS).map(|number| bearer(format!("good-{number}"))).collect();

    // The first start of each reads its executable and keeps the issuer's keys.
    let mut starts = [Vec::new(), Vec::new()];
    let turns = if effort.is_quick { 2 } else { 5 };
    for round in 0..=turns {
        for (house, took) in [&none, &many].into_iter().zip(&mut starts) {
            let begun = Instant::now();
            let server = house.open(&good[0]).await;
            if round > 0 {
                took.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            drop(server);
        }
    }
    let millis = |times: &[f64]| format!("{:.0}", median(times.iter().copied()));
    let name = format!("ms from the start until a good token passes ({} without)", millis(&starts[0]));
    report.row(&name, &millis(&starts[1]), Some(ratio(&starts[1], &starts[0])), Target::None);

    let (small, large) = (none.open(&good[0]).await, many.open(&good[0]).await);
    let blocked = bearer(name_of(entries / 2));
    assert_eq!(status(&large, &blocked).await, 401, "a token on the list");
    assert_eq!(status(&small, &blocked).await, 200);
    let mut costs = [Vec::new(), Vec::new()];
    for round in 0..=effort.rounds {
        for (server, costs) in [&small, &large].into_iter().zip(&mut costs) {
            let before = load::cpu_of(server.process.id());
            visit(server, &good).await;
            let spent = load::cpu_of(server.process.id()) - before;
            if round > 0 {
                costs.push(spent.as_secs_f64() * 1e6 / REQUESTS as f64);
            }
        }
    }
    let micros = |costs: &[f64]| format!("{:.1}", median(costs.iter().copied()));
    let name = format!("µs of CPU for each check over HTTP ({} without)", micros(&costs[0]));
    report.row(&name, &micros(&costs[1]), Some(ratio(&costs[1], &costs[0])), Target::Most(1.1));

    for server in [&small, &large] {
        settled(server.process.id()).await;
    }
    let [small, large] = [&small, &large].map(|server| rss(server.process.id()));
    let each = (large - small) / entries as f64;
    let name = format!("MB of memory (RSS) ({:.1} without), {each:.0} bytes for each entry", small / 1e6);
    report.row(&name, &format!("{:.1}", large / 1e6), Some(large / small), Target::None);
}

/// As long as the `jti` of most issuers.
fn name_of(number: usize) -> String {
    format!("018f3a5e-7c1b-7d2e-9f3a-{number:012}")
}

impl House {
    async fn with(issuer: &Issuer, entries: usize) -> Self {
        let folder = store::disk();
        let opened = house::sqlite(folder.path()).await;
        let at = Clock::system().now().wall;
        let entry = |number| NewRevocation {
            scope: Scope::Token { issuer: "main".to_owned(), jti: name_of(number) },
            at,
            until: Some(at.plus(Duration::from_hours(24))),
            why: "bench".to_owned(),
        };
        let all: Vec<usize> = (0..entries).collect();
        for batches in all.chunks(100_000) {
            let written = batches.chunks(10_000).map(|batch| {
                let effects = batch.iter().fold(Effects::default(), |all, number| all.with_revocation(entry(*number)));
                opened.append(effects)
            });
            for done in join_all(written).await {
                done.unwrap();
            }
        }
        opened.close().await;
        let port = port::free();
        fs::write(folder.path().join("doorward.toml"), config(folder.path(), port, issuer)).unwrap();
        Self { folder, port }
    }

    /// Starts the server and waits until it lets a good token through: it has read the list to its end then.
    async fn open(&self, token: &str) -> Server {
        let server = Server::serve(self.folder.path(), self.port, false);
        assert!(port::opens(server.address, LONGEST).await, "{}", server.process.output());
        let passes = async {
            while status(&server, token).await != 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let passes = tokio::time::timeout(LONGEST, passes).await;
        assert!(passes.is_ok(), "it lets nobody through:\n{}", server.process.output());
        server
    }
}

async fn status(server: &Server, token: &str) -> u16 {
    let fields = [
        "x-original-method: GET".to_owned(),
        "x-original-url: /orders".to_owned(),
        "x-forwarded-for: 127.0.0.1".to_owned(),
        format!("x-forwarded-host: {}", server.address),
        format!("authorization: Bearer {token}"),
    ];
    load::ask(server.address, "/auth/check/nginx", &fields).await.status
}

/// Asks the forward-auth route over one connection.
async fn visit(server: &Server, tokens: &[String]) {
    let address = server.address;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let requests: Vec<String> = tokens
        .iter()
        .map(|token| {
            format!(
                "GET /auth/check/nginx HTTP/1.1\r\nhost: {address}\r\nx-original-method: GET\r\nx-original-url: /orders\r\n\
                 x-forwarded-for: 127.0.0.1\r\nx-forwarded-host: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
            )
        })
        .collect();
    let mut answer = Vec::with_capacity(4096);
    for request in requests.iter().cycle().take(REQUESTS) {
        stream.write_all(request.as_bytes()).await.unwrap();
        answer.clear();
        // The answer has no body: it ends with its head.
        while !answer.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "the connection ended");
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
}

fn config(data: &Path, port: u16, issuer: &Issuer) -> String {
    format!(
        r#"public_url = "http://127.0.0.1:{port}"
data_dir = "{}"
listen = {{ http = "127.0.0.1:{port}", admin = "127.0.0.1:0", trusted_proxies = ["127.0.0.1/32"] }}
[apps.web]
upstream = "http://127.0.0.1:1"
[[rules]]
path = "/*"
allow = ["bearer"]
app = "web"
[[issuers]]
name = "main"
issuer = "{}"
audiences = ["app"]
keys = {{ jwks_url = "{}" }}
"#,
        data.display(),
        issuer.url(),
        issuer.jwks_url()
    )
}
