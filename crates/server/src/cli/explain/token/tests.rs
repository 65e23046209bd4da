use doorward_testkit::issuer::{Algorithm, Issuer as Idp};
use serde_json::json;

use super::*;

fn config(idp: &Idp, dir: &std::path::Path) -> Config {
    let text = format!(
        "public_url = \"http://localhost:8080\"\n[[issuers]]\nname = \"main\"\nissuer = \"{}\"\naudiences = [\"app\"]\n\
         keys = {{ jwks_url = \"{}\" }}\n",
        idp.url(),
        idp.jwks_url()
    );
    Config::parse(&text, &dir.join("doorward.toml"), &Default::default()).unwrap()
}

/// The outcome of each named step, and everything that would be printed.
async fn steps(idp: &Idp, token: &str) -> (Vec<(&'static str, &'static str)>, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut steps = Steps::default();
    explain(&config(idp, dir.path()), &Clock::system(), token, &mut steps).await;
    let text = steps.0.iter().map(|step| format!("{} {}: {}\n", step.outcome, step.step, step.detail)).collect();
    let judged = steps.0.iter().filter(|step| step.outcome != "fact");
    (judged.map(|step| (step.step, step.outcome)).collect(), text)
}

fn now() -> i64 {
    Clock::system().now().wall.as_secs()
}

#[tokio::test]
async fn a_good_token_passes_every_step_and_is_never_printed() {
    let idp = Idp::start().await;
    let token = idp.mint(&idp.claims("app", now()));
    let (judged, text) = steps(&idp, &token).await;
    let expected = [
        ("form", "ok"),
        ("issuer", "ok"),
        ("keys", "ok"),
        ("key", "ok"),
        ("signature", "ok"),
        ("claims", "ok"),
        ("revoked", "unknown"),
    ];
    assert_eq!(judged, expected, "{text}");
    assert!(text.contains("fact exp: ") && text.contains("(in 4m 5") || text.contains("(in 5m)"), "{text}");
    let signature = token.rsplit('.').next().unwrap();
    assert!(!text.contains(signature), "the signature was printed");
}

#[tokio::test]
async fn the_step_that_fails_is_named_with_its_reason() {
    let idp = Idp::start().await;
    let stranger = Idp::start().await;
    let mut expired = idp.claims("app", now());
    expired["exp"] = json!(now() - 3600);
    expired["iat"] = json!(now() - 7200);
    let good = idp.mint(&idp.claims("app", now()));
    let flipped = if good.ends_with("AA") { "BA" } else { "AA" };
    let tampered = format!("{}{flipped}", &good[..good.len() - 4]) + &good[good.len() - 2..];
    let cases = [
        ("not a token".to_owned(), "form", "token_malformed"),
        ("dwk_something".to_owned(), "form", "API key"),
        (idp.mint(&expired), "claims", "token_expired"),
        (idp.mint(&idp.claims("other", now())), "claims", "token_wrong_audience"),
        (stranger.mint(&stranger.claims("app", now())), "issuer", "token_wrong_issuer"),
        (idp.mint_with(&json!({"kid": "nobody"}), &idp.claims("app", now())), "key", "token_unknown_key"),
        (tampered, "signature", "token_bad_signature"),
    ];
    for (token, step, reason) in cases {
        let (judged, text) = steps(&idp, &token).await;
        assert_eq!(judged.last(), Some(&(step, "fails")), "{text}");
        assert!(text.lines().last().unwrap().contains(reason), "{reason} in\n{text}");
    }
}

#[tokio::test]
async fn a_dead_issuer_is_no_verdict_on_the_token() {
    let mut idp = Idp::start_with(Algorithm::EdDsa).await;
    let token = idp.mint(&idp.claims("app", now()));
    idp.die().await;
    let (judged, text) = steps(&idp, &token).await;
    assert_eq!(judged.last(), Some(&("keys", "unknown")), "{text}");
    assert!(text.contains("keys_unavailable"), "{text}");
}
