//! What asking the gate costs an HTTP server per request.

use std::fmt::Write as _;

use doorward_gate::clock::Clock;
use doorward_testkit::issuer::Issuer;

use crate::{
    Effort, house,
    load::{self, Contestant, Server},
    report::{Report, Target, median, ratio},
    roles,
};

/// Tokens of which each is used once before the first comes again; more than are ever kept.
const TOKENS: usize = 20_000;

pub(crate) async fn run(report: &mut Report, effort: Effort) {
    report.table("A check in an HTTP server on one thread", "CPU s per 10,000 requests", "to plain axum");
    let Some(wrk) = load::program() else {
        return report.skipped("HTTP checks", "wrk is missing");
    };
    let (issuer, clock) = (Issuer::start().await, Clock::system());
    let now = clock.now().wall.as_secs();
    let keys = issuer.key_set().to_string();
    let keys = [(roles::KEYS, keys.as_str())];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let tokens = (0..TOKENS).fold(String::new(), |mut text, number| {
        writeln!(text, "{}", issuer.mint(&house::claims(number, now))).unwrap();
        text
    });
    std::fs::write(&file, tokens).unwrap();
    let token = issuer.mint(&house::claims(TOKENS, now));

    let plain = Server::start("plain", &[]).await;
    let session = Server::start("session", &keys).await;
    let cookie: String = session
        .process
        .line(std::time::Duration::from_secs(10), |line| Some(line.strip_prefix("cookie ")?.into()))
        .await;
    let bearer = Server::start("bearer", &keys).await;
    let app = Server::start("app", &[]).await;
    let (doorward, known) = Server::doorward(folder.path(), app.address).await;

    // Everybody gets the same fields, about 700 bytes, whether they look at them or not.
    let fields =
        |cookie: &str| vec![format!("Cookie: doorward_sid={cookie}"), format!("Authorization: Bearer {token}")];
    let contestant = |name, server: &Server, headers| Contestant {
        name,
        processes: vec![server.process.id()],
        url: format!("http://{}/orders/17", server.address),
        headers,
        tokens: None,
    };
    let mut asked = fields(&known);
    asked.extend(["X-Original-Method: GET".to_owned(), "X-Original-URL: /orders/17".to_owned()]);
    asked.extend(["X-Forwarded-For: 127.0.0.1".to_owned(), format!("X-Forwarded-Host: {}", doorward.address)]);
    let mut contestants = vec![
        contestant("plain axum, fields ignored", &plain, fields(&cookie)),
        contestant("GateLayer, session in memory", &session, fields(&cookie)),
        contestant("GateLayer, EdDSA token that comes again", &bearer, fields(&cookie)),
        contestant("GateLayer, EdDSA tokens that come once", &bearer, fields(&cookie)),
        contestant("Doorward, /auth/check/nginx, session in memory", &doorward, asked),
    ];
    contestants[3].headers.pop();
    contestants[3].tokens = Some(file);
    contestants[4].url = format!("http://{}/auth/check/nginx", doorward.address);
    let costs = load::measure(&wrk, &contestants, effort).await;
    for (at, (contestant, cost)) in contestants.iter().zip(&costs).enumerate() {
        let target = if at == 1 || at == 2 { Target::Most(1.15) } else { Target::None };
        report.row(contestant.name, &format!("{:.3}", median(cost.clone())), Some(ratio(cost, &costs[0])), target);
    }
}
