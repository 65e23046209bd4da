//! Provider `file`: one license for the whole installation, from a file in its place or from a relay.

use std::{fs, path::Path, time::Duration};

use doorward_core::{
    license::{Holder, LicenseState, Observation},
    time::Timestamp,
};
use doorward_gate::license::{Applied, RefreshError};
use doorward_testkit::{
    paper::{Account, Paper},
    relay::Relay,
    wire::Wire,
};
use serde_json::{Value, json};

use crate::{
    door::until,
    world::{NOW, Setup, World, json as body, outcome},
};

const RULES: &str = "[[rules]]\npath = \"/*\"\nallow = [\"session\"]\napp = \"web\"\n";
const DAY: i64 = 86_400_000;

fn paper(id: &str, issued_days_ago: i64) -> Paper {
    Paper::new(id, NOW * 1000 - issued_days_ago * DAY)
}

async fn world(account: &Account, place: &str) -> World {
    let license = format!(
        "[license]\nprovider = \"file\"\n{place}\naccount = \"acct-1\"\nproduct = \"prod-1\"\npublic_keys = [\"{}\"]\n",
        account.public_key()
    );
    Setup::of(&format!("{RULES}{license}")).start().await
}

fn put(path: &Path, text: &str) {
    let unfinished = path.with_extension("tmp");
    fs::write(&unfinished, text).unwrap();
    fs::rename(unfinished, path).unwrap();
}

async fn admin(world: &World, path: &str) -> String {
    let ask = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    Wire::ask(world.running.admin, ask).await.text()
}

async fn events(world: &World, kind: &str) -> Vec<Value> {
    let rows = world.store().audit_tail(0, 1000).await.unwrap();
    let of_kind = rows.iter().filter(|row| row.kind == kind);
    of_kind.map(|row| serde_json::from_str(row.detail.as_deref().unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn a_license_file_that_is_put_in_its_place_counts_within_seconds_and_a_bad_one_changes_nothing() {
    let account = Account::generate();
    let world = world(&account, "path = \"license.lic\"").await;
    let path = world.folder().join("license.lic");
    let mut ada = world.browser("ada@example.com").await;
    assert_eq!(outcome(&ada.get("/x").await), (503, Some("license_unknown")), "nobody has said anything yet");
    let unknown = body(&ada.get("/auth/profile/license").await);
    assert_eq!((&unknown["status"], &unknown["checked_at"]), (&json!("unknown"), &Value::Null));

    // That nothing is there is a refusal too, at a look in the background; it has to come before the first file does.
    until("its absence is noticed", || {
        world.server().metrics.render().contains("doorward_license_files_total{name=\"refused\"} 1")
    })
    .await;

    let ends = NOW * 1000 + 10 * DAY;
    let good = Paper { expiry: Some(ends), entitlements: vec!["sso", "audit"], ..paper("lic-1", 3) };
    put(&path, &account.file(&good));
    ada.until_outcome("/x", (200, None)).await;
    let profile = ada.get("/auth/profile/license").await;
    let expected = json!({
        "status": "expiring", "license_id": "lic-1", "checked_at": "2027-01-15T08:00:00Z",
        "expires_at": "2027-01-25T08:00:00Z", "grace_until": null, "entitlements": ["audit", "sso"],
    });
    assert_eq!((outcome(&profile), body(&profile)), ((200, None), expected));
    assert_eq!(outcome(&world.anonymous().get("/auth/profile/license").await), (401, Some("no_credential")));
    let page = ada.clone().with("Accept", "text/html").get("/auth/whoami").await.text();
    assert!(page.contains("active, ends soon") && page.contains("25 January 2027"), "{page}");

    put(&path, &Account::generate().file(&Paper { status: "BANNED", ..paper("lic-1", 1) }));
    for _ in 0..1000 {
        if events(&world, "license.file_refused").await.len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until("the bad file is noticed", || {
        world.server().metrics.render().contains("doorward_license_files_total{name=\"refused\"} 2")
    })
    .await;
    assert_eq!(ada.get("/x").await.status, 200, "the old one goes on");
    let deep: Value = serde_json::from_str(&admin(&world, "/healthz/deep").await).unwrap();
    let license = &deep["license"];
    assert_eq!((&license["provider"], &license["file"]["name"]), (&json!("file"), &json!("license.lic")));
    assert!(license["file"]["problem"].as_str().unwrap().contains("the signature does not fit"), "{license}");

    // A process that starts now has nothing but what the store remembers, and that goes on.
    let other = world.replica().await;
    let mut there = world.at(other.http).with("Cookie", &ada.cookies());
    assert_eq!(there.get("/x").await.status, 200);
    other.stop().await;

    put(&path, &account.file(&Paper { status: "SUSPENDED", expiry: Some(ends), ..paper("lic-1", 1) }));
    ada.until_outcome("/x", (402, Some("license_suspended"))).await;
    assert_eq!(body(&ada.get("/auth/profile/license").await)["status"], "suspended");
    let changes = events(&world, "license.changed").await;
    let changes: Vec<_> = changes.iter().map(|row| (row["old"].as_str(), row["new"].as_str())).collect();
    assert_eq!(changes, [(None, Some("active")), (Some("active"), Some("suspended"))]);
    let metrics = || world.server().metrics.render();
    until("states are counted", || metrics().contains("doorward_licenses{state=\"suspended\"} 1")).await;
    assert!(metrics().contains("doorward_licenses{state=\"active\"} 0"));
    assert!(metrics().contains("doorward_license_files_total{name=\"taken\"} 2"), "{}", metrics());
}

#[tokio::test]
async fn a_license_ends_and_reading_goes_on_for_the_grace_that_the_profile_names() {
    let account = Account::generate();
    let world = world(&account, "path = \"license.lic\"\ntrust_for = \"90d\"").await;
    let ends = NOW * 1000 + DAY;
    put(&world.folder().join("license.lic"), &account.file(&Paper { expiry: Some(ends), ..paper("lic-1", 3) }));
    let metrics = || world.server().metrics.render();
    until("the license is known", || metrics().contains("doorward_licenses{state=\"active\"} 1")).await;
    world.advance(Duration::from_hours(25)).await;
    let mut ada = world.browser("ada@example.com").await;
    assert_eq!(ada.get("/x").await.status, 200, "it is read only");
    let profile = body(&ada.get("/auth/profile/license").await);
    let grace = Timestamp::from_millis(ends).plus(Duration::from_hours(7 * 24));
    assert_eq!((&profile["status"], &profile["grace_until"]), (&json!("expired"), &json!("2027-01-23T08:00:00Z")));
    assert_eq!(grace.as_secs(), 1_800_691_200);
    let token = ada.cookie("__Host-doorward_csrf").unwrap().to_owned();
    let post = crate::world::Request::new("POST", "/x").with("X-CSRF-Token", token);
    assert_eq!(outcome(&ada.ask(post).await), (402, Some("license_expired_grace")));
}

#[tokio::test]
async fn a_file_that_a_question_read_first_and_that_is_older_than_what_is_known_is_told_of() {
    let account = Account::generate();
    let world = world(&account, "path = \"license.lic\"").await;
    let path = world.folder().join("license.lic");
    put(&path, &account.file(&paper("lic-1", 9)));
    let metrics = || world.server().metrics.render();
    until("the license is known", || metrics().contains("doorward_licenses{state=\"active\"} 1")).await;
    let licenses = world.gate().licenses().unwrap();
    let known = world.store().license(Holder::Installation).await.unwrap().unwrap().known.observation;
    let newer = Observation { observed_at: Timestamp::from_millis(NOW * 1000 - DAY), ..known };
    licenses.observe(Holder::Installation, newer, None).await.unwrap();
    // Newer than the one in use, and read before the place is looked at the next time; unless that is just now.
    put(&path, &account.file(&paper("lic-1", 3)));
    let read = licenses.refresh(Holder::Installation).await;
    assert!(matches!(read, Ok(Applied::Older) | Err(RefreshError::Provider(_))), "{read:?}");
    for _ in 0..2000 {
        let refused = events(&world, "license.file_refused").await;
        if refused.iter().any(|event| event["why"].as_str().unwrap().contains("it was issued before the one in use")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("whoever put it there hears nothing");
}

#[tokio::test]
async fn a_relay_leases_a_license_and_gets_it_back_when_the_server_stops() {
    // A claim that the machine made late is made again half a minute later; a lease that is given back late is not, and that
    // is played again.
    let mut heard = Vec::new();
    for _ in 0..4 {
        let relay = leased().await;
        if relay.nodes().is_empty() {
            return;
        }
        heard.push(relay.heard());
    }
    panic!("{heard:?}");
}

/// The relay after a server has leased a license, has extended its lease, and has stopped.
async fn leased() -> Relay {
    let account = Account::generate();
    let key = "AAAAAA-BBBBBB-V3";
    let relay = Relay::start(&[(account.encrypted(&paper("lic-1", 3), key), key.to_owned())], 60, || NOW).await;
    let world = world(&account, &format!("relay_url = \"{}\"\nfingerprint = \"node-1\"", relay.url())).await;
    let mut ada = world.browser("ada@example.com").await;
    let is_let_in = async || (ada.get("/x").await.status == 200).then_some(());
    half_minutes_until("the license is leased", &world, is_let_in).await;
    assert_eq!(relay.nodes(), ["node-1"]);
    let claimed = relay.heard().len();
    world.advance(Duration::from_secs(31)).await;
    let is_extended = async || (relay.heard().len() > claimed).then_some(());
    half_minutes_until("the lease is extended", &world, is_extended).await;
    world.stop().await;
    relay
}

/// Waits for it; every few seconds half a minute of the server's clock passes.
async fn half_minutes_until(what: &str, world: &World, mut holds: impl AsyncFnMut() -> Option<()>) {
    for tries in 1..=6000 {
        if holds().await.is_some() {
            return;
        }
        if tries % 500 == 0 {
            world.advance(Duration::from_secs(31)).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not come to pass: {what}");
}

#[tokio::test]
async fn a_reload_keeps_the_lease_although_another_node_waits_for_it() {
    let account = Account::generate();
    let key = "AAAAAA-BBBBBB-V3";
    let relay = Relay::start(&[(account.encrypted(&paper("lic-1", 3), key), key.to_owned())], 60, || NOW).await;
    let world = world(&account, &format!("relay_url = \"{}\"\nfingerprint = \"node-1\"", relay.url())).await;
    let mut ada = world.browser("ada@example.com").await;
    ada.until_outcome("/x", (200, None)).await;
    relay.wait_as("node-2");
    world.advance(Duration::from_secs(1)).await;
    let asked_at = world.clock.now().wall;
    world.reload(|text| text.replace("[license]", "[license]\ntrust_for = \"90d\""));
    let mut state = None;
    for _ in 0..2000 {
        let known = world.store().license(Holder::Installation).await.unwrap().unwrap().known;
        if known.confirmed_at >= asked_at {
            state = Some(known.observation.state);
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((state, relay.nodes()), (Some(LicenseState::Active), vec!["node-1".to_owned()]), "{:?}", relay.heard());
    assert_eq!(outcome(&ada.get("/x").await), (200, None));
}
