//! A real issuer made by others: npm `oidc-provider`, started for one test.

use std::{net::SocketAddr, process::Command, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    neighbour,
    process::{Process, Signal},
    wire::Wire,
};

const WITHIN: Duration = Duration::from_secs(30);

/// A running `oidc-provider`; it ends when this is dropped.
pub struct OidcProvider {
    process: Process,
    url: String,
    address: SocketAddr,
}

impl OidcProvider {
    /// Starts it with keys of this algorithm (`EdDSA`, `ES256`, `RS256`); `None`, loudly, where node or its
    /// packages are missing.
    ///
    /// # Panics
    /// If they are missing under `CI=true`, or it does not come up.
    pub async fn start(algorithm: &str) -> Option<Self> {
        let node = neighbour::require("node with the packages of e2e/", neighbour::node())?;
        let script = neighbour::repository().join("e2e/neighbours/oidc-provider.mjs");
        let process = Process::start("oidc-provider", Command::new(node).arg(script).env("ALG", algorithm));
        let issuer = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["issuer"].as_str().map(str::to_owned)
        };
        let url = process.line(WITHIN, issuer).await;
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        Some(Self { process, url, address })
    }

    /// `iss` of its tokens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Address of its key set.
    pub fn jwks_url(&self) -> String {
        format!("{}/jwks", self.url)
    }

    /// A new access token of its client `service`: audience `urn:app`, scope `api:read`, type `at+jwt`.
    ///
    /// # Panics
    /// If it refuses.
    pub async fn token(&self) -> String {
        let basic = STANDARD.encode("service:test-secret-of-the-service-client");
        let body = "grant_type=client_credentials&resource=urn%3Aapp&scope=api%3Aread";
        let kind = "application/x-www-form-urlencoded";
        let fields = format!("Authorization: Basic {basic}\r\nContent-Type: {kind}\r\n");
        let answer = self.ask("POST", "/token", &fields, body).await;
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// Changes its signing key; `mode` is `overlap` (both are published), `abrupt` or `samekid`.
    ///
    /// # Panics
    /// If it refuses.
    pub async fn rotate(&self, mode: &str) {
        self.ask("POST", &format!("/__t/rotate?mode={mode}"), "", "").await;
    }

    /// How often its key set was asked for.
    ///
    /// # Panics
    /// If it does not tell.
    pub async fn fetches(&self) -> u64 {
        self.ask("GET", "/__t/stats", "", "").await["stats"]["jwks"].as_u64().unwrap()
    }

    /// Ends it.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn die(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.exit(WITHIN).await;
    }

    async fn ask(&self, method: &str, target: &str, fields: &str, body: &str) -> Value {
        let (host, length) = (self.address, body.len());
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n"
        );
        let answer = Wire::ask(self.address, head + body).await;
        assert!((200..300).contains(&answer.status), "{answer:?}\n{}", self.process.output());
        serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
    }
}
