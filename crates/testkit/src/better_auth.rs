//! A real issuer made by others: npm `better-auth` with its OAuth provider, started for one test.

use std::{net::SocketAddr, process::Command, time::Duration};

use serde_json::Value;

use crate::{neighbour, process::Process, wire::Wire};

const WITHIN: Duration = Duration::from_secs(60);

/// A running `better-auth`; it ends when this is dropped.
pub struct BetterAuth {
    process: Process,
    issuer: String,
    address: SocketAddr,
}

impl BetterAuth {
    /// Starts it with keys of this algorithm (`EdDSA`, `ES256`, `RS256`), a client and a user with a session; `None`, loudly,
    /// where node or its packages are missing.
    ///
    /// # Panics
    /// If they are missing under `CI=true`, or it does not come up.
    pub async fn start(algorithm: &str) -> Option<Self> {
        let node = neighbour::require("node with the packages of e2e/", neighbour::node())?;
        let script = neighbour::repository().join("e2e/neighbours/better-auth.mjs");
        let process = Process::start("better-auth", Command::new(node).arg(script).env("ALG", algorithm));
        let ready = |line: &str| serde_json::from_str::<Value>(line).ok().filter(|line| line["ready"] == true);
        let ready = process.line(WITHIN, ready).await;
        let issuer = ready["issuer"].as_str().unwrap().to_owned();
        let address = ready["origin"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
        Some(Self { process, issuer, address })
    }

    /// `iss` of its tokens.
    pub fn url(&self) -> &str {
        &self.issuer
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new access token of its user (authorization code with PKCE): audience `urn:app:api`, `orgs` and `projects`.
    ///
    /// # Panics
    /// If it refuses.
    pub async fn token(&self) -> String {
        self.control("/__t/token").await["access_token"].as_str().unwrap().to_owned()
    }

    /// Changes its signing key; `mode` is `overlap` (both are published), `abrupt` or `samekid`.
    ///
    /// # Panics
    /// If it refuses.
    pub async fn rotate(&self, mode: &str) {
        self.control(&format!("/__t/rotate?mode={mode}")).await;
    }

    async fn control(&self, target: &str) -> Value {
        let host = self.address;
        let head = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let answer = Wire::ask(self.address, head).await;
        assert_eq!(answer.status, 200, "{answer:?}\n{}", self.process.output());
        serde_json::from_slice(&answer.body).unwrap()
    }
}
