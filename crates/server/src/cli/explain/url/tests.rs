use std::path::Path;

use doorward_core::id::UserId;

use super::*;

const CONFIG: &str = r#"
public_url = "https://app.example.com"
[apps.web]
upstream = "http://127.0.0.1:3000"
[[rules]]
path = "/public/*"
allow = ["public"]
app = "web"
[[rules]]
path = "/api/*"
methods = ["GET"]
allow = ["bearer", "session"]
app = "web"
require = { recent_auth = true, claims = { tenant = "acme" } }
[[rules]]
path = "/*"
allow = ["session"]
app = "web"
"#;

fn config() -> Config {
    Config::parse(CONFIG, Path::new("doorward.toml"), &Default::default()).unwrap()
}

async fn explained(url: &str, method: Method) -> Value {
    let mut bytes = Vec::new();
    run(&config(), &Clock::system(), url, &method, None, &mut Out::new(&mut bytes, true)).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn outcomes(document: &Value) -> Vec<&str> {
    document["rules"].as_array().unwrap().iter().map(|rule| rule["outcome"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn each_rule_is_a_hit_or_a_miss() {
    let document = explained("https://app.example.com/api/x?y=1#z", Method::GET).await;
    assert_eq!(outcomes(&document), ["miss", "hit", "miss"]);
    assert_eq!(document["outcome"]["rule"], 1);
    assert_eq!(document["outcome"]["admits"], "session, bearer");
    assert_eq!(document["target"], "/api/x?y=1", "browsers keep the fragment");
}

#[tokio::test]
async fn another_method_on_a_path_is_denied_and_later_rules_are_not_tried() {
    let document = explained("/api", Method::POST).await;
    assert_eq!(document["outcome"]["reason"], "rule_denies");
    assert_eq!(document["outcome"]["required"], "GET");
}

#[tokio::test]
async fn what_never_reaches_the_rules_says_why() {
    for (url, reason) in [
        ("https://other.example.com/", "host_unknown"),
        ("/public/../api", "request_malformed"),
        ("/a//b", "request_malformed"),
        ("/%2e%2e/", "request_malformed"),
    ] {
        let document = explained(url, Method::GET).await;
        assert_eq!(document["outcome"]["reason"], reason, "{url}");
    }
    assert_eq!(explained("/auth/login", Method::GET).await["outcome"]["kind"], "own_route");
    assert_eq!(explained("/healthz", Method::GET).await["outcome"]["kind"], "own_route");
    assert_eq!(explained("/authority", Method::GET).await["outcome"]["kind"], "rule");
}

#[tokio::test]
async fn people_get_a_table_and_the_demands_of_the_rule() {
    let mut bytes = Vec::new();
    let out = &mut Out::new(&mut bytes, false);
    run(&config(), &Clock::system(), "/api/x", &Method::GET, None, out).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    for part in
        ["hit ", "rules[1] /api/* decides", "claim tenant = \"acme\", a recent sign-in", "web at http://127.0.0.1:3000"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn a_user_is_judged_as_if_freshly_signed_in() {
    let config = config();
    let rules = config.core_rules();
    let now = Timestamp::from_secs(1_800_000_000);
    let mut user = User {
        email_verified: true,
        version: 0,
        ..User::new(UserId::mint(now, [1; 10]), Email::parse("ada@example.com").unwrap(), now)
    };
    let reason = |rule: usize, user: &User| {
        judge(&config, &rules[rule], &Method::GET, user, None, now).map_err(|denial| denial.reason)
    };
    assert_eq!(reason(0, &user), Ok(()));
    assert_eq!(reason(1, &user), Err(Reason::MissingClaim), "claims bind bearers, so a session lacks them");
    assert_eq!(reason(2, &user), Ok(()));
    user.banned_at = Some(now);
    assert_eq!(reason(2, &user), Err(Reason::UserBanned));
    assert_eq!(reason(0, &user), Ok(()), "a public rule asks nobody");
}

#[tokio::test]
async fn the_license_that_counts_is_explained_with_whose_it_is_and_what_follows() {
    use std::{collections::BTreeSet, time::Duration};

    use doorward_core::{
        effects::Effects,
        license::{Holder, Known, LicenseState, Observation},
        revocation::{NewRevocation, Scope},
    };
    use doorward_store::{LicenseChange, Store};

    use super::license;

    let mut config = config().license.clone();
    let (store, now) = (Store::memory(), Timestamp::from_secs(1_800_000_000));
    let user = User {
        external_subject: Some("s1".to_owned()),
        ..User::new(UserId::mint(now, [1; 10]), Email::parse("ada@example.com").unwrap(), now)
    };
    store.create_user(user.clone(), Effects::default()).await.unwrap();
    assert!(license::of(&config, &store, &user, now).await.unwrap().is_none(), "there is no provider");

    let day = Duration::from_hours(24);
    let observation = Observation {
        state: LicenseState::Active,
        license_id: Some("lic-1".to_owned()),
        expires_at: Some(now.plus(day)),
        entitlements: BTreeSet::from(["sso".to_owned()]),
        observed_at: now,
    };
    for holder in [Holder::User(user.id), Holder::Installation] {
        let known = Known { observation: observation.clone(), confirmed_at: now };
        let change = LicenseChange { holder, expected: None, known, event: None, at: now };
        store.apply_license(change, Effects::default()).await.unwrap();
    }
    config.provider = crate::config::Provider::File;
    let at = async |config: &crate::config::License, at| license::of(config, &store, &user, at).await.unwrap().unwrap();
    let text = |licensed: &Licensed, at| {
        let lines = license::lines(licensed, at).into_iter().map(|(name, value)| format!("{name}: {value}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let fresh = at(&config, now).await;
    let json = license::to_json(&fresh);
    assert_eq!(
        (&json["holder"], &json["verdict"], &json["state"]),
        (&json!("installation"), &json!("allow"), &json!("active"))
    );
    assert!(text(&fresh, now).contains("the installation's: expiring"), "{}", text(&fresh, now));
    assert!(
        text(&fresh, now).contains("everything passes until 2027-01-16 08:00:00Z (in 1d)"),
        "{}",
        text(&fresh, now)
    );

    config.provider = crate::config::Provider::Jwt;
    config.trust_for = day * 30;
    config.issuer = Some("titanium".to_owned());
    let later = now.plus(day * 2);
    let over = at(&config, later).await;
    assert_eq!(license::to_json(&over)["reason"], "license_expired_grace");
    assert!(text(&over, later).contains("the user's own: expired"), "{}", text(&over, later));
    let scope = Scope::subject("titanium", "s1").unwrap();
    let blocked = NewRevocation { scope, at: now, until: None, why: "test".to_owned() };
    store.append(Effects::default().with_revocation(blocked)).await.unwrap();
    let blocked = at(&config, now).await;
    assert_eq!(license::to_json(&blocked)["reason"], "license_blocked");
    assert!(text(&blocked, now).contains("nothing passes: license_blocked"));
}
