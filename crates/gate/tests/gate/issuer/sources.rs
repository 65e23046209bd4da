//! Conditional questions, stale answers, budgets under load, and the other sources of keys.

use std::{fmt::Write as _, task::Poll};

use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use doorward_core::{jose::PublicKey, token::IssuerAlias};
use doorward_testkit::issuer::Etag;

use super::*;

/// The token with another character in the middle of its signature.
fn tampered(token: &str) -> String {
    let middle = token.len() - 40;
    let other = if &token[middle..=middle] == "A" { "B" } else { "A" };
    format!("{}{other}{}", &token[..middle], &token[middle + 1..])
}

#[tokio::test]
async fn a_set_that_has_not_changed_is_not_sent_again_and_its_verdicts_are_kept() {
    let world = World::cold(Issuer::start().await, None);
    world.issuer.etag(Etag::Honest);
    world.issuer.cache_control("max-age=100");
    world.issuers.start();
    until("warm", || world.keys() == 1).await;
    let token = world.token();
    let before = world.verify_now(&token).unwrap();
    world.clock.advance(Duration::from_secs(120));
    until("asked again", || world.issuer.hits() == 2).await;
    until("reported", || world.status().age == Some(Duration::ZERO)).await;
    assert!(Arc::ptr_eq(&before, &world.verify_now(&token).unwrap()), "the verdict was found anew");
}

#[tokio::test]
async fn an_issuer_that_lies_about_changes_is_found_out_by_the_first_token_of_a_new_key() {
    let world = World::cold(Issuer::start().await, None);
    world.issuer.etag(Etag::Lying);
    assert!(world.verify_in_time(&world.token()).await.is_ok());
    world.issuer.rotate(Rotation::Abrupt);
    world.clock.advance(Duration::from_secs(60));
    assert!(world.verify_in_time(&world.token()).await.is_ok());
    world.issuer.rotate(Rotation::SameId);
    world.clock.advance(Duration::from_secs(60));
    assert!(world.verify_in_time(&world.token()).await.is_ok());
    assert_eq!(world.issuer.hits(), 3);
}

#[tokio::test]
async fn not_changed_in_answer_to_a_question_that_named_nothing_is_a_failure() {
    let world = World::cold(Issuer::start().await, None);
    world.issuer.fault(Some(Fault::NotModified));
    assert_eq!(reason(world.verify_in_time(&world.token()).await), Reason::KeysUnavailable);
    assert_eq!(
        world.status().last_problem.map(|problem| problem.to_string()).as_deref(),
        Some("answered with status 304")
    );
    world.issuer.fault(None);
    world.clock.advance(Duration::from_secs(60));
    assert!(world.verify_in_time(&world.token()).await.is_ok());
}

#[tokio::test]
async fn an_answer_that_a_cache_kept_is_no_proof_against_a_newer_key() {
    let world = World::warm().await;
    world.clock.advance(Duration::from_secs(60));
    world.issuer.rotate(Rotation::Overlap);
    world.issuer.fault(Some(Fault::Stale));
    let known = world.issuer.mint_by(1, &json!({}), &world.issuer.claims("app", world.now_secs()));
    let denial = world.verify_in_time(&world.token()).await.unwrap_err();
    assert_eq!(denial.reason, Reason::KeysUnavailable, "the key may be there by now: never 401");
    assert!(denial.retry_after().is_some());
    assert!(world.verify_now(&known).is_ok(), "an older picture replaces nothing");
    assert_eq!(
        world.status().last_problem.unwrap().to_string(),
        doorward_core::keys::FetchProblem::Outdated.to_string()
    );
    world.issuer.fault(None);
    world.clock.advance(Duration::from_secs(60));
    assert!(world.verify_in_time(&world.token()).await.is_ok());
}

#[tokio::test]
async fn a_publisher_that_forbids_keeping_or_wants_it_kept_for_ever_is_followed_within_bounds() {
    for (cache_control, expected) in
        [("no-store", 48..=60), ("max-age=0", 48..=60), ("max-age=1000000000000000000", 34_560..=43_200)]
    {
        let world = World::cold(Issuer::start().await, None);
        world.issuer.cache_control(cache_control);
        assert!(world.verify_in_time(&world.token()).await.is_ok());
        let next = world.status().next_fetch_in.unwrap().as_secs();
        assert!(expected.contains(&next), "{cache_control}: {next}");
    }
}

#[tokio::test]
async fn forged_signatures_under_a_known_kid_cost_the_budget_and_delay_nobody() {
    let world = World::warm().await;
    let good = world.token();
    for minute in 0..5_u64 {
        let forged: Vec<_> = (0..500)
            .map(|n| {
                let mut claims = world.issuer.claims("app", world.now_secs());
                claims["jti"] = json!(n.to_string());
                tampered(&world.issuer.mint(&claims))
            })
            .collect();
        let verdicts = join_all(forged.iter().map(|token| world.verify_in_time(token))).await;
        assert!(verdicts.into_iter().all(|verdict| reason(verdict) == Reason::TokenBadSignature));
        assert!(world.verify_now(&good).is_ok());
        let allowed = 2 * (minute + 1);
        assert!(world.issuer.hits() <= allowed, "{} fetches after {minute} minutes", world.issuer.hits());
        world.clock.advance(Duration::from_secs(60));
    }
}

#[tokio::test]
async fn with_the_budget_spent_a_younger_token_waits_for_the_next_slot_and_an_older_one_is_refused() {
    let world =
        world_of(Issuer::start().await, |config| IssuerConfig { min_interval: Duration::from_secs(1), ..config });
    assert!(world.verify_in_time(&world.token()).await.is_ok());
    let made_up = |age: i64| {
        let mut claims = world.issuer.claims("app", world.now_secs() - age);
        claims["exp"] = json!(world.now_secs() + 300);
        world.issuer.mint_with(&json!({"kid": "made-up"}), &claims)
    };
    assert_eq!(reason(world.verify_in_time(&made_up(0)).await), Reason::TokenUnknownKey);
    assert_eq!(world.issuer.hits(), 2, "the budget of two seconds is spent");
    assert_eq!(
        reason(world.verify_now(&made_up(60))),
        Reason::TokenUnknownKey,
        "older than the keys: no wait, no fetch"
    );
    world.issuer.rotate(Rotation::Abrupt);
    let young = world.token();
    let Verdict::Pending(waiting) = world.verify(&young) else { panic!("a younger token waits") };
    world.clock.advance(Duration::from_secs(2));
    let verdict = tokio::time::timeout(WITHIN, waiting).await.expect("bounded");
    assert!(verdict.is_ok(), "{verdict:?}");
    assert_eq!(world.issuer.hits(), 3);
}

#[tokio::test]
async fn with_the_next_slot_too_far_a_younger_token_hears_when_to_come_back() {
    let world = World::warm().await;
    let made_up = |kid: &str| world.issuer.mint_with(&json!({"kid": kid}), &world.issuer.claims("app", START));
    assert_eq!(reason(world.verify_in_time(&made_up("one")).await), Reason::TokenUnknownKey);
    let denial = world.verify_now(&made_up("two")).unwrap_err();
    assert_eq!(denial.reason, Reason::KeysUnavailable);
    assert!((50..=61).contains(&denial.retry_after().unwrap()), "{denial:?}");
}

#[tokio::test]
async fn a_token_waits_three_seconds_for_a_silent_issuer_whatever_a_fetch_may_take() {
    let issuer = Issuer::start().await;
    issuer.fault(Some(Fault::Silent));
    let config = IssuerConfig { fetch_timeout: Duration::from_secs(300), ..config(&issuer) };
    let clock = Clock::manual(Timestamp::from_secs(START));
    let issuers = Issuers::new(vec![config], &clock, None).unwrap();
    let token = issuer.mint(&issuer.claims("app", START));
    let Verdict::Pending(waiting) = issuers.verify(&token, clock.now()) else { panic!("there are no keys yet") };
    until("it was asked", || issuer.hits() == 1).await;
    clock.advance(Duration::from_secs(3));
    let verdict = tokio::time::timeout(WITHIN, waiting).await.expect("not the five minutes of the fetch");
    let denial = verdict.unwrap_err();
    assert_eq!((denial.reason, denial.retry_after().is_some()), (Reason::KeysUnavailable, true));
    assert_eq!(issuer.hits(), 1, "the fetch goes on for those who come later");
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_wait_for_a_silent_issuer_and_the_rest_is_told_at_once() {
    // The fetch lasts longer than the test: nothing changes while they come, however long that takes here.
    let long = Duration::from_secs(300);
    let world = world_of(Issuer::start().await, |config| IssuerConfig { fetch_timeout: long, ..config });
    world.issuer.fault(Some(Fault::Silent));
    let token = world.token();
    let (mut waiting, mut told) = (Vec::new(), 0);
    for _ in 0..5000 {
        let mut verdict = Box::pin(world.verify(&token).wait());
        match futures_util::poll!(&mut verdict) {
            Poll::Pending => waiting.push(verdict),
            Poll::Ready(verdict) => {
                let denial = verdict.unwrap_err();
                let note = denial.detail().and_then(|detail| detail.note.as_deref());
                assert_eq!(note, Some("too many requests wait for this issuer"));
                assert_eq!(denial.reason, Reason::KeysUnavailable);
                told += 1;
            }
        }
    }
    assert_eq!((waiting.len(), told), (4096, 5000 - 4096));
    until("it was asked", || world.issuer.hits() == 1).await;
    world.clock.advance(Duration::from_secs(3));
    let all = tokio::time::timeout(Duration::from_secs(60), join_all(waiting)).await.expect("not the fetch's time");
    assert!(all.into_iter().all(|verdict| reason(verdict) == Reason::KeysUnavailable));
    assert_eq!(world.issuer.hits(), 1);
    assert_eq!(world.issuers.status(world.clock.now())[0].waiters, 0, "everybody went away again");
}

#[tokio::test]
async fn a_key_file_may_be_replaced_by_renaming_and_half_a_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let issuer = Issuer::start().await;
    std::fs::write(&path, issuer.key_set().to_string()).unwrap();
    let world = world_of(issuer, |config| IssuerConfig { source: KeySource::File(path.clone()), ..config });
    world.issuers.start();
    until("read", || world.keys() == 1).await;
    let old = world.token();
    world.issuer.rotate(Rotation::Abrupt);
    let text = world.issuer.key_set().to_string();
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    until("half a file is seen", || world.status().failures > 0).await;
    assert!(world.verify_now(&old).is_ok());
    // The same time and size, another file.
    let draft = folder.path().join("keys.json.new");
    std::fs::write(&draft, &text).unwrap();
    std::fs::rename(&draft, &path).unwrap();
    let is_new = || {
        world.clock.advance(Duration::from_millis(100));
        matches!(world.verify(&world.token()), Verdict::Ready(Ok(_)))
    };
    until("the new file is in use", is_new).await;
    assert_eq!(world.issuer.hits(), 0);
}

#[tokio::test]
async fn a_token_without_kid_is_good_where_exactly_one_key_fits() {
    let world = World::warm().await;
    let without = || world.issuer.mint_with(&json!({"kid": null}), &world.issuer.claims("app", world.now_secs()));
    assert!(world.verify_now(&without()).is_ok());
    world.issuer.add_key(issuer::Algorithm::Es256);
    world.clock.advance(Duration::from_secs(60));
    assert!(world.verify_in_time(&world.token()).await.is_ok(), "a second key, of another algorithm");
    assert!(world.verify_now(&without()).is_ok());
    world.issuer.rotate(Rotation::Overlap);
    world.clock.advance(Duration::from_secs(60));
    assert!(world.verify_in_time(&world.token()).await.is_ok(), "a third key, of the same algorithm");
    assert_eq!(reason(world.verify_in_time(&without()).await), Reason::TokenUnknownKey);
}

#[tokio::test]
async fn a_single_key_in_any_spelling_answers_to_every_kid_without_any_network() {
    let issuer = Issuer::start().await;
    let raw = BASE64_URL_SAFE_NO_PAD.decode(issuer.key_set()["keys"][0]["x"].as_str().unwrap()).unwrap();
    // SubjectPublicKeyInfo of an Ed25519 key (RFC 8410 §4).
    let der = [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..], &raw].concat();
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    };
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64_STANDARD.encode(&der));
    for text in [
        hex(&raw),
        BASE64_STANDARD.encode(&raw),
        BASE64_URL_SAFE_NO_PAD.encode(&raw),
        pem,
        hex(&der),
        BASE64_STANDARD.encode(&der),
    ] {
        let key = PublicKey::parse_text(&text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        let clock = Clock::manual(Timestamp::from_secs(START));
        let config = IssuerConfig { source: KeySource::Single(key), ..config(&issuer) };
        let issuers = Issuers::new(vec![config], &clock, None).unwrap();
        issuers.start();
        for kid in [json!("any"), json!(null)] {
            let token = issuer.mint_with(&json!({ "kid": kid }), &issuer.claims("app", START));
            assert!(matches!(issuers.verify(&token, clock.now()), Verdict::Ready(Ok(_))), "{text}");
            assert!(matches!(issuers.verify(&tampered(&token), clock.now()), Verdict::Ready(Err(_))), "{text}");
        }
    }
    assert_eq!(issuer.hits(), 0);
}

#[tokio::test]
async fn an_alias_ends_on_its_date_and_a_required_claim_names_the_tenant() {
    let until = Timestamp::from_secs(START + 100);
    let world = world_of(Issuer::start().await, |mut config| {
        config.policy.aliases = vec![IssuerAlias { issuer: "https://old.test".to_owned(), until }];
        config.policy.required_claims = vec!["tenant_id".to_owned()];
        config
    });
    let token = |iss: Option<&str>, tenant: Option<&str>| {
        let mut claims = world.issuer.claims("app", world.now_secs());
        claims["iss"] = json!(iss.map_or(world.issuer.url(), str::to_owned));
        if let Some(tenant) = tenant {
            claims["tenant_id"] = json!(tenant);
        }
        world.issuer.mint(&claims)
    };
    let alias = token(Some("https://old.test"), Some("acme"));
    assert!(world.verify_in_time(&alias).await.is_ok());
    assert_eq!(reason(world.verify_in_time(&token(None, None)).await), Reason::TokenMissingClaim);
    let token = world.verify_now(&token(None, Some("acme"))).unwrap();
    assert_eq!(token.claims.more.str("tenant_id").as_deref(), Some("acme"));
    world.clock.set_wall(until);
    assert_eq!(reason(world.verify_now(&alias)), Reason::TokenWrongIssuer, "also where it was good a moment ago");
}

#[tokio::test]
async fn an_issuer_may_insist_on_access_tokens_by_rfc_9068() {
    let world = world_of(Issuer::start().await, |mut config| {
        config.policy.kind = Some("at+jwt".to_owned());
        config
    });
    let of =
        |typ: serde_json::Value| world.issuer.mint_with(&json!({ "typ": typ }), &world.issuer.claims("app", START));
    for typ in ["at+jwt", "application/at+jwt", "AT+JWT"] {
        assert!(world.verify_in_time(&of(json!(typ))).await.is_ok(), "{typ}");
    }
    for typ in [json!("JWT"), json!(null), json!("id+jwt"), json!("application/jwt")] {
        assert_eq!(reason(world.verify_in_time(&of(typ.clone())).await), Reason::TokenWrongType, "{typ}");
    }
    assert_eq!(world.issuer.hits(), 1, "a wrong type never fetches");
}
