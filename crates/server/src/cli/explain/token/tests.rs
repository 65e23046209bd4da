use std::{fs, path::Path, time::Duration};

use doorward_core::jose::hs256;
use doorward_testkit::issuer::{Algorithm, Issuer as Idp};
use serde_json::json;

use super::*;

fn config(idp: &Idp, dir: &Path) -> Config {
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
    let config = config(idp, dir.path());
    explain(&config, &config.issuers, &Clock::system(), token, &mut steps).await;
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
        ("algorithm", "ok"),
        ("issuer", "ok"),
        ("type", "ok"),
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
    let flipped = if good[..good.len() - 2].ends_with("AA") { "BA" } else { "AA" };
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

/// Cases of the vectors that `explain` sees otherwise than the core's reader alone, each with the reason why.
const OTHERWISE: [(&str, &str, &str); 5] = [
    ("A-08", "token_missing_claim", "the file always has a `max_token_age`, which asks for `iat`"),
    ("A-09", "token_missing_claim", "as A-08"),
    ("A-10", "token_missing_claim", "as A-08"),
    ("A-13", "token_missing_claim", "as A-08"),
    ("M-14", "token_missing_claim", "it names no issuer, so no issuer's rule about `typ` is there to be broken"),
];

fn vectors(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test]
async fn every_token_of_the_strict_profile_is_explained_offline_with_the_reason_that_a_request_would_get() {
    let (file, pinned) = (vectors("own/jwt-strict-profile.json"), vectors("own/jwt-strict-reasons.json"));
    let (dir, default) = (tempfile::tempdir().unwrap(), &file["default_policy"]);
    let mut seen = std::collections::BTreeSet::new();
    let mut wrong = Vec::new();
    for case in file["cases"].as_array().unwrap() {
        let (id, token) = (case["id"].as_str().unwrap(), case["token"].as_str().unwrap());
        let keys = if case["jwks"].is_null() { &file["jwks"] } else { &case["jwks"] };
        let Ok(set) = JwkSet::parse(keys.to_string().as_bytes()) else { continue };
        let algorithms = case["policy"]["algorithms"].as_array().or(default["algorithms"].as_array()).unwrap();
        let kind = case["policy"]["typ"].as_str().map_or(String::new(), |kind| format!("typ = \"{kind}\"\n"));
        let text = format!(
            "public_url = \"http://localhost:8080\"\n[[issuers]]\nname = \"main\"\nissuer = {}\naudiences = [{}]\n\
             algorithms = {}\nclock_tolerance = \"{}s\"\n{kind}keys = {{ public_key = \"{}\" }}\n",
            default["issuer"],
            default["audience"],
            json!(algorithms),
            default["leeway_s"],
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        );
        let config = Config::parse(&text, &dir.path().join("doorward.toml"), &Default::default()).unwrap();
        // What no file could say: keys that a start refuses, and tokens as old as the vectors.
        let mut issuer = config.issuers[0].clone();
        issuer.max_token_age = Duration::from_secs(u32::MAX.into());
        (issuer.keys.public_key, issuer.keys.jwks) = (None, Some(crate::config::KeySet(set)));
        let clock = Clock::manual(Timestamp::from_secs(case["policy"]["now"].as_i64().unwrap_or(1_800_000_000)));
        let mut steps = Steps::default();
        explain(&config, &[issuer], &clock, token, &mut steps).await;
        let last = steps.0.last().unwrap();
        let otherwise = OTHERWISE.iter().find(|(other, ..)| *other == id).map(|(_, verdict, _)| *verdict);
        let expected = otherwise.unwrap_or_else(|| pinned["reasons"][id].as_str().unwrap());
        let is_right = match expected {
            "accepted" => last.step == "revoked",
            reason => last.outcome == "fails" && last.detail.contains(reason),
        };
        if !is_right {
            wrong.push(format!("{id}: {last:?}, not {expected}"));
        }
        seen.insert(expected.to_owned());
        let signature = token.rsplit('.').next().unwrap();
        let printed: String = steps.0.iter().map(|step| step.detail.clone()).collect();
        assert!(signature.len() < 40 || !printed.contains(signature), "{id}: the signature was printed");
        let says_distance = steps.0.iter().any(|step| step.step == "exp" && step.detail.contains('('));
        assert!(expected != "token_expired" || says_distance, "{id}: how long ago it ended is not said");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Every reason about a token but the blocklist's, which has a test of its own.
    let tokens = Reason::ALL.iter().map(|reason| reason.code()).filter(|code| code.starts_with("token_"));
    let unseen: Vec<_> = tokens.filter(|code| *code != "token_revoked" && !seen.contains(*code)).collect();
    assert!(unseen.is_empty(), "not explained by any case: {unseen:?}");
}

#[tokio::test]
async fn a_token_of_the_old_system_is_judged_by_window_secret_claims_and_user() {
    const SECRET: &str = "the-old-system-signed-with-this-one";
    let dir = tempfile::tempdir().unwrap();
    let config = |legacy: &str| {
        let text =
            format!("public_url = \"http://localhost:8080\"\ndata_dir = {:?}\n{legacy}", dir.path().to_str().unwrap());
        Config::parse(&text, &dir.path().join("doorward.toml"), &Default::default()).unwrap()
    };
    let open = format!("[legacy]\nallow = true\nhs256_secret = \"{SECRET}\"\ncutover_on = \"2999-01-01\"\n");
    let token = |claims: Value| {
        let key = hs256::MacKey::new(SECRET.as_bytes()).unwrap();
        hs256::mint(&key, "JWT", &claims).unwrap()
    };
    let good = token(json!({ "sub": "17", "email": "ada@example.com", "exp": now() + 60 }));
    let judge = async |config: &Config, token: &str| {
        let mut steps = Steps::default();
        explain(config, &[], &Clock::system(), token, &mut steps).await;
        let judged = steps.0.into_iter().filter(|step| step.outcome != "fact");
        judged.map(|step| (step.step, step.outcome, step.detail)).collect::<Vec<_>>()
    };
    let short = |judged: &[(&'static str, &'static str, String)]| {
        judged.iter().map(|(step, outcome, _)| (*step, *outcome)).collect::<Vec<_>>()
    };
    let judged = judge(&config(&open), &good).await;
    let expected = [("form", "ok"), ("window", "unknown"), ("signature", "ok"), ("claims", "ok"), ("user", "unknown")];
    assert_eq!(short(&judged), expected, "no store yet: {judged:?}");

    let store = open_store(&config(&open), &Clock::system()).unwrap();
    store.wait_ready(STORE_WAIT).await.unwrap();
    let judged = judge(&config(&open), &good).await;
    assert!(judged[4].1 == "fails" && judged[4].2.contains("token_invalid_claim"), "{judged:?}");
    let at = Clock::system().now().wall;
    let user = doorward_core::user::User::new(
        doorward_core::id::UserId::mint(at, [7; 10]),
        doorward_core::user::Email::parse("ada@example.com").unwrap(),
        at,
    );
    store.create_user(user.clone(), Default::default()).await.unwrap();
    let judged = judge(&config(&open), &good).await;
    assert!(judged[4].1 == "ok" && judged[4].2.contains("ada@example.com, found by mail address"), "{judged:?}");
    store.set_banned(user.id, Some(at), Default::default()).await.unwrap();
    let judged = judge(&config(&open), &good).await;
    assert!(judged[4].1 == "fails" && judged[4].2.contains("user_banned"), "{judged:?}");
    store.close().await;

    let over = token(json!({ "sub": "17", "email": "ada@example.com", "exp": now() - 60 }));
    let judged = judge(&config(&open), &over).await;
    assert!(judged[3].0 == "claims" && judged[3].2.contains("token_expired"), "{judged:?}");
    let (said, of_another) = (good.rsplit_once('.').unwrap().0, over.rsplit_once('.').unwrap().1);
    let judged = judge(&config(&open), &format!("{said}.{of_another}")).await;
    assert!(judged.last().unwrap().2.contains("token_bad_signature"), "{judged:?}");
    let closed = config(&open.replace("allow = true", "allow = false"));
    let judged = judge(&closed, &good).await;
    assert!(judged[1].0 == "window" && judged[1].2.contains("legacy_login_disabled"), "{judged:?}");
    assert_eq!(short(&judge(&config(""), &good).await)[1], ("algorithm", "fails"), "no window, no such tokens");
}
