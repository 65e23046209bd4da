//! How often strangers may ask, try and guess, and whom their floods do not keep out.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    RULES, SID, confirm, link,
    magic::{ADA, ask, audited, closed, worked_off},
    set,
};
use crate::world::{Setup, World, outcome};

const KNOWN: &str = "__Host-doorward_known";

#[tokio::test]
async fn a_flood_for_one_address_keeps_nobody_out_who_has_signed_in_before() {
    let world = closed().await;
    world.user(ADA).await;
    let mut ada = world.visitor();
    let token = ada.ask_for_link(&world.mailbox, ADA, "/").await;
    let done = confirm(&mut ada, &token).await;
    assert_eq!(set(&done, KNOWN), Some((true, "Path=/; Max-Age=7776000; HttpOnly; Secure; SameSite=Lax".to_owned())));
    assert!(!ada.cookie(KNOWN).unwrap().contains("ada"));
    ada.post("/auth/logout", &json!({})).await;
    assert!(ada.cookie(KNOWN).is_some(), "it outlives the session");

    for n in 0..100 {
        let mut stranger = world.visitor().with("X-Forwarded-For", &format!("203.0.113.{n}"));
        assert_eq!(ask(&mut stranger, ADA).await.text(), r#"{"ok":true}"#);
    }
    worked_off(&world, 101).await;
    let mailed = || world.server().sign_in.stats().mailed;
    assert_eq!(mailed(), 5, "one was her own");
    // Also behind the address whose own budget is spent.
    for _ in 0..5 {
        let token = ada.ask_for_link(&world.mailbox, ADA, "/").await;
        assert_eq!(confirm(&mut ada, &token).await.status, 200);
        ada.post("/auth/logout", &json!({})).await;
    }
    ask(&mut ada, ADA).await;
    worked_off(&world, 107).await;
    assert_eq!(mailed(), 10, "this budget has an end as well, and signing in does not start it anew");
    // It is hers alone: in a browser that is known for another address it counts for nothing.
    world.user("bob@example.com").await;
    for _ in 0..3 {
        ask(&mut ada.clone(), "bob@example.com").await;
    }
    worked_off(&world, 110).await;
    assert_eq!(mailed(), 12, "three a minute for her network, the first of which was hers");
    let rows = audited(&world, "rate.limited").await;
    assert!(rows.iter().any(|row| row["limit"] == "link-address" && row["address_hash"].is_string()), "{rows:?}");
    assert!(rows.len() <= 4, "throttled: {rows:?}");
    assert!(rows.iter().all(|row| !row.to_string().contains("ada@")), "{rows:?}");
}

#[tokio::test]
async fn a_slash_64_is_one_client_and_forwarding_headers_of_strangers_are_nothing() {
    let world = closed().await;
    let mut count = 0;
    let mut limited = async |from: &str, world: &World| {
        count += 1;
        let mut caller = world.visitor().with("X-Forwarded-For", from);
        ask(&mut caller, &format!("user{count}@example.com")).await;
        worked_off(world, count).await;
        world.server().sign_in.stats().limited
    };
    for n in 0..20 {
        limited(&format!("2001:db8:1:2:{n:x}::{n:x}"), &world).await;
    }
    assert_eq!(limited("2001:db8:1:2:ffff::1", &world).await, 18);
    assert_eq!(limited("2001:db8:1:3::1", &world).await, 18, "the next network is another client");
    world.stop().await;

    let world = Setup::of(RULES).login("response_floor = \"0s\"").listen("trusted_proxies = []").start().await;
    let junk = json!({ "token": "a.b.c" });
    let mut seen = Vec::new();
    for n in 0..12 {
        let mut stranger = world.visitor().with("X-Forwarded-For", &format!("203.0.113.{n}"));
        seen.push(stranger.post("/auth/login/callback", &junk).await);
    }
    let statuses: Vec<u16> = seen.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [vec![401; 10], vec![429; 2]].concat());
    let budget = |n: usize| (seen[n].header("ratelimit-policy"), seen[n].header("ratelimit"));
    assert_eq!(budget(0), (Some("\"callback\";q=10;w=60"), Some("\"callback\";r=9;t=6")));
    assert_eq!(budget(10), (Some("\"callback\";q=10;w=60"), Some("\"callback\";r=0;t=6")));
    assert_eq!((outcome(&seen[10]), seen[10].header("retry-after")), ((429, Some("rate_limited")), Some("6")));
}

#[tokio::test]
async fn junk_from_one_network_keeps_no_holder_of_a_link_out() {
    let world = World::start(RULES).await;
    let (mut browser, token) = link(&world, ADA).await;
    for _ in 0..12 {
        world.visitor().post("/auth/login/callback", &json!({ "token": "a.b.c" })).await;
    }
    assert_eq!(confirm(&mut browser, &token).await.status, 200);
}

#[tokio::test]
async fn made_up_session_cookies_meet_a_limit_that_known_ones_do_not() {
    let world = World::start(RULES).await;
    let mut ada = world.browser(ADA).await;
    assert_eq!(ada.get("/x").await.status, 200);
    let mut statuses = BTreeMap::new();
    for n in 0..130 {
        let made_up = format!("{SID}={:0>43}", format!("{n}A").replace('A', "A"));
        let answer = world.anonymous().with("Cookie", &made_up).get("/x").await;
        *statuses.entry(outcome(&answer).1.map(str::to_owned)).or_insert(0) += 1;
    }
    let count = |code: &str| statuses.get(&Some(code.to_owned())).copied().unwrap_or(0);
    assert_eq!((count("session_unknown"), count("rate_limited")), (120, 10), "{statuses:?}");
    let unclear =
        world.anonymous().with("Cookie", &format!("{SID}={}", "B".repeat(42) + "A")).get("/auth/session").await;
    assert_eq!(outcome(&unclear), (429, Some("rate_limited")), "cannot tell is not nobody");
    assert_eq!(unclear.header("ratelimit-policy"), Some("\"unknown-credential\";q=120;w=60"));
    assert_eq!(ada.get("/x").await.status, 200);
}
