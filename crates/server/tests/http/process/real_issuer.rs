//! Tokens of an issuer made by others, through the executable to an app.

use std::time::Duration;

use doorward_testkit::{oidc_provider::OidcProvider, upstream::EchoApp};

use super::{Installation, PATIENCE, figure, now, reason, until};

/// How many requests stand for "it delays nothing".
const REQUESTS: usize = 500;
/// Generous: an unoptimised build on a shared machine, and each request opens a connection. A fetch that
/// somebody waited for would take its whole timeout of five seconds.
const P99: Duration = Duration::from_millis(500);

fn rest(app: &EchoApp, provider: &OidcProvider, algorithm: &str) -> String {
    format!(
        r#"
[apps.web]
upstream = "{}"
[[rules]]
path = "/read/*"
allow = ["bearer"]
require = {{ scopes = ["api:read"], claims = {{ tenant_id = "acme" }} }}
app = "web"
[[rules]]
path = "/write/*"
allow = ["bearer"]
require = {{ scopes = ["api:write"] }}
app = "web"
[[issuers]]
name = "op"
issuer = "{}"
audiences = ["urn:app"]
algorithms = ["{algorithm}"]
required_claims = ["tenant_id", "client_id", "jti"]
typ = "at+jwt"
keys = {{ jwks_url = "{}", min_interval = "1s" }}
"#,
        app.url(),
        provider.url(),
        provider.jwks_url()
    )
}

/// The slowest of a hundred, over many requests one after the other.
async fn p99(installation: &Installation, bearer: &str) -> Duration {
    let mut took = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let started = now();
        let answer = installation.get("/read/x", bearer).await;
        took.push(started.elapsed());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    took.sort_unstable();
    took[REQUESTS * 99 / 100]
}

async fn opens_through_rotation_and_death(algorithm: &str) {
    let Some(mut provider) = OidcProvider::start(algorithm).await else { return };
    let app = EchoApp::start().await;
    let installation = Installation::with(&rest(&app, &provider, algorithm));
    let server = installation.serve_ready().await;
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");

    let old = bearer(&provider.token().await);
    let opened = async || {
        let answer = installation.get("/read/x", &old).await;
        (answer.status == 200).then_some(answer)
    };
    let (answer, _) = until("a token opens its route", PATIENCE, opened).await;
    for part in [r#"["x-doorward-subject","op|service"]"#, r#"["x-doorward-method","bearer"]"#] {
        assert!(answer.text().contains(part), "{part} in {}", answer.text());
    }
    assert!(!answer.text().contains("Bearer"), "the token that was used stays here: {}", answer.text());
    assert_eq!(reason(&installation.get("/write/x", &old).await), (403, Some("missing_scope")));
    let alive = p99(&installation, &old).await;

    for mode in ["overlap", "abrupt"] {
        provider.rotate(mode).await;
        let new = bearer(&provider.token().await);
        let answer = installation.get("/read/x", &new).await;
        assert_eq!(answer.status, 200, "the first request with a new key waits for it ({mode}): {answer:?}");
    }
    let fetches = provider.fetches().await;
    assert!(fetches <= 8, "{fetches} fetches for {REQUESTS} requests and two rotations");

    let new = bearer(&provider.token().await);
    assert_eq!(installation.get("/read/x", &new).await.status, 200);
    provider.die().await;
    let dead = p99(&installation, &new).await;
    figure("p99 of a bearer request, issuer alive", alive);
    figure("p99 of a bearer request, issuer dead", dead);
    assert!(alive < P99 && dead < P99, "{alive:?} {dead:?}");
    let (head, signature) = new.trim_end().rsplit_once('.').unwrap();
    let tampered = format!("{head}.{}\r\n", signature.chars().rev().collect::<String>());
    let refused = installation.get("/read/x", &tampered).await;
    assert_eq!(refused.status, 401, "a dead issuer is no reason to let anybody in: {refused:?}");
    drop(server);
}

#[tokio::test]
async fn an_eddsa_token_of_oidc_provider_opens_a_route_through_rotation_and_death() {
    opens_through_rotation_and_death("EdDSA").await;
}

#[tokio::test]
async fn an_es256_token_of_oidc_provider_opens_a_route_through_rotation_and_death() {
    opens_through_rotation_and_death("ES256").await;
}

#[tokio::test]
async fn an_rs256_token_of_oidc_provider_opens_a_route_through_rotation_and_death() {
    opens_through_rotation_and_death("RS256").await;
}
