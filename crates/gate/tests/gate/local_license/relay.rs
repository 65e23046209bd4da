use std::time::Duration;

use doorward_core::{license::LicenseState, secret::Secret};
use doorward_gate::license::{Expected, FaultKind, LicenseProvider, RelayOptions, RelayProvider};
use doorward_testkit::{paper::Account, relay::Relay};

use super::{NOW, ask, ask_judged, expected, now, paper};

const KEY: &str = "AAAAAA-BBBBBB-V3";
const SECOND: Duration = Duration::from_secs(1);

async fn relay(account: &Account, ids: &[&str]) -> Relay {
    let files = ids.iter().map(|id| (account.encrypted(&paper(id, 1), KEY), KEY.to_owned()));
    Relay::start(&files.collect::<Vec<_>>(), 60, || NOW.as_secs()).await
}

fn options(relay: &Relay, name: &str, secret: Option<&str>, expected: Expected) -> RelayOptions {
    let secret = secret.map(|secret| Secret::new(secret.to_owned()));
    let url = relay.url().parse().unwrap();
    RelayOptions { url, fingerprint: name.to_owned(), pool: None, secret, expected }
}

fn node(relay: &Relay, name: &str, secret: Option<&str>, expected: Expected) -> RelayProvider {
    RelayProvider::new(options(relay, name, secret, expected)).unwrap()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("did not come to pass: {what}");
}

#[tokio::test]
async fn a_lease_is_claimed_extended_before_it_ends_and_given_back() {
    let account = Account::generate();
    let relay = relay(&account, &["l1"]).await;
    let one = node(&relay, "node 1/a", None, expected(&account));
    assert!(!one.is_per_user() && one.is_due(now(Duration::ZERO)));
    let said = ask(&one, Duration::ZERO).await.unwrap();
    assert_eq!((said.state, said.license_id.as_deref()), (LicenseState::Active, Some("l1")));
    assert!(!one.is_due(now(SECOND * 29)) && one.is_due(now(SECOND * 30)), "at half its time");
    let extended = ask(&one, SECOND * 30).await.unwrap();
    assert_eq!(extended.license_id.as_deref(), Some("l1"), "the relay does not send the file again");
    assert_eq!(extended.observed_at, NOW.plus(SECOND * 30));
    assert!(one.release(now(SECOND * 31)).await);
    assert!(!one.release(now(SECOND * 32)).await, "there is nothing left to give back");
    assert_eq!(
        relay.heard(),
        ["PUT /v1/nodes/node%201%2Fa", "PUT /v1/nodes/node%201%2Fa", "DELETE /v1/nodes/node%201%2Fa"]
    );
    assert!(relay.nodes().is_empty());
}

#[tokio::test]
async fn a_lease_of_an_earlier_process_is_given_back_and_claimed_anew() {
    let account = Account::generate();
    let relay = relay(&account, &["l1"]).await;
    for extends in [true, false] {
        relay.extend(extends);
        let crashed = node(&relay, "n1", None, expected(&account));
        ask(&crashed, Duration::ZERO).await.unwrap();
        // Only the relay remembers; its answer to the same name has no file (202), or is a conflict (409).
        let next = node(&relay, "n1", None, expected(&account));
        assert_eq!(ask(&next, SECOND).await.unwrap().license_id.as_deref(), Some("l1"), "extends: {extends}");
        // Whoever has the file needs nothing but to hear that the lease is still theirs.
        let before = relay.heard().len();
        assert_eq!(ask(&next, SECOND * 30).await.unwrap().license_id.as_deref(), Some("l1"));
        assert_eq!(relay.heard().len(), before + 1);
        next.release(now(SECOND * 31)).await;
    }
}

#[tokio::test]
async fn a_new_configuration_goes_on_with_the_lease_unless_it_asks_for_another_one() {
    let account = Account::generate();
    let relay = relay(&account, &["l1"]).await;
    let first = node(&relay, "n1", None, expected(&account));
    ask(&first, Duration::ZERO).await.unwrap();
    relay.wait_as("n2");
    let follow = |old: &RelayProvider, secret: Option<&str>, expected: Expected| {
        RelayProvider::following(options(&relay, "n1", secret, expected), Some(old)).unwrap()
    };
    let same = follow(&first, None, expected(&account));
    assert!(same.is_due(now(SECOND)), "it asks at once");
    assert_eq!(ask(&same, SECOND).await.unwrap().license_id.as_deref(), Some("l1"));
    let secret = "relay-secret-of-the-test";
    relay.sign_with(Some(secret));
    let signed = follow(&same, Some(secret), expected(&account));
    assert_eq!(ask(&signed, SECOND * 2).await.unwrap().license_id.as_deref(), Some("l1"));
    assert_eq!((relay.nodes(), relay.heard()), (vec!["n1".to_owned()], vec!["PUT /v1/nodes/n1".to_owned(); 3]));
    // What was proven for one product is not for another.
    let other = Expected { product: Some("prod-2".to_owned()), ..expected(&account) };
    assert_eq!(ask(&follow(&signed, Some(secret), other), SECOND * 3).await.unwrap().state, LicenseState::None);
    assert_eq!(relay.nodes(), ["n2"]);
}

#[tokio::test]
async fn a_claim_is_brought_to_its_end_although_whoever_asked_has_lost_patience() {
    let account = Account::generate();
    let relay = relay(&account, &["l1"]).await;
    ask(&node(&relay, "n1", None, expected(&account)), Duration::ZERO).await.unwrap();
    let next = node(&relay, "n1", None, expected(&account));
    relay.hold_back(Some("DELETE"));
    let asking = tokio::spawn({
        let next = next.clone();
        async move { ask(&next, SECOND).await }
    });
    until("the lease is given back", || relay.heard().len() == 3 && relay.nodes().is_empty()).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    relay.hold_back(None);
    until("it is claimed again", || relay.nodes() == ["n1"]).await;
    assert_eq!(ask(&next, SECOND * 2).await.unwrap().license_id.as_deref(), Some("l1"));
    assert_eq!(relay.heard().len(), 5, "the next question found it claimed: {:?}", relay.heard());
}

#[tokio::test]
async fn the_file_of_a_lease_ends_by_the_time_by_which_licenses_end_whatever_the_clock_says() {
    let account = Account::generate();
    let relay = relay(&account, &["l1"]).await;
    let one = node(&relay, "n1", None, expected(&account));
    let days = |days: u32| Duration::from_hours(24) * days;
    assert!(ask_judged(&one, Duration::ZERO, days(28)).await.is_ok());
    for _ in 0..2 {
        let over = ask_judged(&one, SECOND * 30, days(29)).await.unwrap_err();
        assert!(over.kind == FaultKind::Untrusted && over.note.contains("has ended"), "held, and handed out: {over}");
    }
}

#[tokio::test]
async fn where_no_license_is_free_there_is_none_until_one_is() {
    let account = Account::generate();
    let relay = relay(&account, &["l1"]).await;
    let (one, two) = (node(&relay, "n1", None, expected(&account)), node(&relay, "n2", None, expected(&account)));
    ask(&one, Duration::ZERO).await.unwrap();
    let said = ask(&two, Duration::ZERO).await.unwrap();
    assert_eq!((said.state, said.license_id), (LicenseState::None, None));
    assert!(!two.is_due(now(SECOND * 29)) && two.is_due(now(SECOND * 30)), "it tries again");
    // The first lost its lease: the relay took it back, and the other was faster.
    relay.reap("n1");
    assert_eq!(ask(&two, SECOND * 30).await.unwrap().state, LicenseState::Active);
    assert_eq!(ask(&one, SECOND * 30).await.unwrap().state, LicenseState::None);
    two.release(now(SECOND * 31)).await;
    assert_eq!(ask(&one, SECOND * 60).await.unwrap().state, LicenseState::Active);
}

#[tokio::test]
async fn with_a_secret_only_what_the_relay_signed_lately_counts() {
    let account = Account::generate();
    let relay = relay(&account, &["l1"]).await;
    let secret = "relay-secret-of-the-test";
    let one = node(&relay, "n1", Some(secret), expected(&account));
    let fault = ask(&one, Duration::ZERO).await.unwrap_err();
    assert!(fault.kind == FaultKind::Untrusted && fault.note.contains("not signed"), "{fault}");
    assert!(!one.is_due(now(SECOND * 29)), "it does not try without end");
    relay.sign_with(Some("another-secret-of-the-test"));
    let fault = ask(&one, Duration::ZERO).await.unwrap_err();
    assert!(fault.note.contains("does not fit"), "{fault}");
    relay.sign_with(Some(secret));
    let fault = ask(&one, SECOND * 301).await.unwrap_err();
    assert!(fault.note.contains("five minutes apart"), "{fault}");
    let said = ask(&one, SECOND * 5).await.unwrap();
    assert_eq!((said.state, said.observed_at), (LicenseState::Active, NOW), "the relay's clock, which is signed");
}

#[tokio::test]
async fn a_relay_that_hands_out_forged_or_foreign_files_or_is_away_says_nothing_about_a_license() {
    let account = Account::generate();
    let forged = relay(&Account::generate(), &["l1"]).await;
    let one = node(&forged, "n1", None, expected(&account));
    let fault = ask(&one, Duration::ZERO).await.unwrap_err();
    assert!(fault.kind == FaultKind::Untrusted && fault.note.contains("the signature does not fit"), "{fault}");
    let genuine = relay(&account, &["l1"]).await;
    let foreign = Expected { product: Some("prod-2".to_owned()), ..expected(&account) };
    let fault = ask(&node(&genuine, "n1", None, foreign), Duration::ZERO).await.unwrap_err();
    assert!(fault.kind == FaultKind::Untrusted && fault.note.contains("another product"), "{fault}");
    let away = node(&genuine, "n2", None, expected(&account));
    drop(genuine);
    let fault = ask(&away, Duration::ZERO).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unavailable, "{fault}");
    assert!(!fault.note.contains("n2"), "the node's name is not in the log");
}
