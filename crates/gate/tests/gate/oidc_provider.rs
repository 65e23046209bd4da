//! A token of a real issuer made by others: npm `oidc-provider`, started here.

use std::{sync::Arc, time::Duration};

use doorward_core::{decision::Denial, reason::Reason};
use doorward_gate::{
    clock::Clock,
    issuer::{IssuerConfig, Issuers, KeySource, Verdict, VerifiedToken},
};
use doorward_testkit::oidc_provider::OidcProvider;

use crate::issuer::{policy, until};

async fn opens_through_rotation_and_death(algorithm: &str) {
    let Some(mut provider) = OidcProvider::start(algorithm).await else { return };
    // Budgets and waits are counted by a clock that stands still, whatever the machine does; the day is today's.
    let clock = Clock::manual(Clock::system().now().wall);
    let now = || {
        clock.set_wall(Clock::system().now().wall);
        clock.now()
    };
    let mut policy = policy(provider.url());
    policy.audiences = vec!["urn:app".to_owned()];
    policy.required_claims = vec!["tenant_id".to_owned(), "client_id".to_owned(), "jti".to_owned()];
    policy.kind = Some("at+jwt".to_owned());
    let url = provider.jwks_url().parse().unwrap();
    let config = IssuerConfig::new("op", policy, KeySource::Url(url));
    let config = IssuerConfig { fetch_timeout: Duration::from_mins(1), ..config };
    let issuers = Issuers::new(vec![config], &clock, None).unwrap();
    issuers.start();
    until("warm", || issuers.status(clock.now())[0].keys.keys == 1).await;
    let at_once = |token: &str| -> Result<Arc<VerifiedToken>, Denial> {
        match issuers.verify(token, now()) {
            Verdict::Ready(verdict) => verdict,
            Verdict::Pending(_) => panic!("a known key was waited for"),
        }
    };

    let old = provider.token().await;
    let verified = at_once(&old).unwrap();
    assert_eq!(verified.claims.subject.as_deref(), Some("service"));
    assert_eq!(
        (&verified.claims.scopes[..], verified.claims.more.str("tenant_id").as_deref()),
        (&["api:read".to_owned()][..], Some("acme"))
    );
    assert_eq!(provider.fetches().await, 1);

    provider.rotate("overlap").await;
    let new = provider.token().await;
    let verdicts = (0..50).map(|_| issuers.verify(&new, now()).wait());
    for verdict in futures_util::future::join_all(verdicts).await {
        verdict.unwrap();
    }
    assert!(at_once(&old).is_ok(), "the old key is still published");
    assert_eq!(provider.fetches().await, 2);

    provider.die().await;
    assert!(at_once(&new).is_ok() && at_once(&old).is_ok());
    let middle = new.len() - 40;
    let other = if &new[middle..=middle] == "A" { "B" } else { "A" };
    let tampered = format!("{}{other}{}", &new[..middle], &new[middle + 1..]);
    let refusal = issuers.verify(&tampered, now()).wait().await.unwrap_err();
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
