//! A token of a real issuer made by others: npm `oidc-provider`, started here.

use std::{process::Command, sync::Arc, time::Duration};

use doorward_core::{decision::Denial, reason::Reason};
use doorward_gate::{
    clock::Clock,
    issuer::{IssuerConfig, Issuers, KeySource, Verdict, VerifiedToken},
};
use doorward_testkit::{
    neighbour,
    process::{Process, Signal},
};
use serde_json::Value;

use crate::issuer::{policy, until};

const WITHIN: Duration = Duration::from_secs(30);

struct Provider {
    process: Process,
    url: String,
    client: reqwest::Client,
}

impl Provider {
    /// The provider, or a loud skip where node or its packages are missing.
    async fn start(algorithm: &str) -> Option<Self> {
        let node = neighbour::require("node with the packages of e2e/", neighbour::node())?;
        let script = neighbour::repository().join("e2e/neighbours/oidc-provider.mjs");
        let process = Process::start("oidc-provider", Command::new(node).arg(script).env("ALG", algorithm));
        let issuer = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["issuer"].as_str().map(str::to_owned)
        };
        let url = process.line(WITHIN, issuer).await;
        Some(Self { process, url, client: reqwest::Client::new() })
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Value {
        let answer = request.timeout(WITHIN).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{status}: {text}\n{}", self.process.output());
        serde_json::from_str(&text).unwrap()
    }

    /// An access token for the service itself.
    async fn token(&self) -> String {
        let request = self.client.post(format!("{}/token", self.url));
        let request = request.basic_auth("service", Some("test-secret-of-the-service-client"));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let body = "grant_type=client_credentials&resource=urn%3Aapp&scope=api%3Aread";
        let answer = self.call(request.body(body)).await;
        answer["access_token"].as_str().unwrap().to_owned()
    }

    async fn rotate(&self, mode: &str) {
        self.call(self.client.post(format!("{}/__t/rotate?mode={mode}", self.url))).await;
    }

    async fn fetches(&self) -> u64 {
        let answer = self.call(self.client.get(format!("{}/__t/stats", self.url))).await;
        answer["stats"]["jwks"].as_u64().unwrap()
    }
}

async fn opens_through_rotation_and_death(algorithm: &str) {
    let Some(mut provider) = Provider::start(algorithm).await else { return };
    let clock = Clock::system();
    let mut policy = policy(&provider.url);
    policy.audiences = vec!["urn:app".to_owned()];
    policy.required_claims = vec!["tenant_id".to_owned(), "client_id".to_owned(), "jti".to_owned()];
    policy.kind = Some("at+jwt".to_owned());
    let url = format!("{}/jwks", provider.url).parse().unwrap();
    let issuers = Issuers::new(vec![IssuerConfig::new("op", policy, KeySource::Url(url))], &clock, None).unwrap();
    issuers.start();
    until("warm", || issuers.status(clock.now())[0].keys.keys == 1).await;
    let at_once = |token: &str| -> Result<Arc<VerifiedToken>, Denial> {
        match issuers.verify(token, clock.now()) {
            Verdict::Ready(verdict) => verdict,
            Verdict::Pending(_) => panic!("a known key was waited for"),
        }
    };

    let old = provider.token().await;
    let verified = at_once(&old).unwrap();
    assert_eq!(verified.claims.subject.as_deref(), Some("service"));
    assert_eq!(
        (&verified.claims.scopes[..], &verified.claims.more["tenant_id"]),
        (&["api:read".to_owned()][..], &"acme".into())
    );
    assert_eq!(provider.fetches().await, 1);

    provider.rotate("overlap").await;
    let new = provider.token().await;
    let verdicts = (0..50).map(|_| issuers.verify(&new, clock.now()).wait());
    for verdict in futures_util::future::join_all(verdicts).await {
        verdict.unwrap();
    }
    assert!(at_once(&old).is_ok(), "the old key is still published");
    assert_eq!(provider.fetches().await, 2);

    provider.process.signal(Signal::TERM);
    provider.process.exit(WITHIN).await;
    assert!(at_once(&new).is_ok() && at_once(&old).is_ok());
    let middle = new.len() - 40;
    let other = if &new[middle..=middle] == "A" { "B" } else { "A" };
    let tampered = format!("{}{other}{}", &new[..middle], &new[middle + 1..]);
    let refusal = issuers.verify(&tampered, clock.now()).wait().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::TokenBadSignature);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eddsa_token_of_oidc_provider_opens_through_rotation_and_death() {
    opens_through_rotation_and_death("EdDSA").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_es256_token_of_oidc_provider_opens_through_rotation_and_death() {
    opens_through_rotation_and_death("ES256").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rs256_token_of_oidc_provider_opens_through_rotation_and_death() {
    opens_through_rotation_and_death("RS256").await;
}
