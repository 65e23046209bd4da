//! What happens while the store does not answer: nothing is burnt, nothing is claimed.

use std::{fs, time::Duration};

use doorward_core::{reason::Reason, ring::RootSecret};
use doorward_gate::{clock::Clock, ring::Ring};
use doorward_store::StoreError;

use super::house::{Browser, House, START, within};

const ANNA: &str = "anna@example.com";

#[tokio::test]
async fn a_process_that_lost_its_store_burns_no_link_and_claims_no_sign_out() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::over(crate::sqlite(folder.path())).await;
    let lost = house.replica(crate::sqlite(folder.path())).await;
    house.user(ANNA).await;
    let mut browser = Browser::at("192.0.2.1");
    let token = house.link(ANNA, &mut browser).await;
    lost.store.close().await;

    assert_eq!(browser.refused(&lost, &token).await, Reason::StoreUnavailable);
    assert_eq!(browser.peek(&lost, &token).await.unwrap_err().reason, Reason::StoreUnavailable);
    assert_eq!(browser.refused(&lost, "junk").await, Reason::LinkInvalid, "a bad token needs no store to be bad");
    let signed_in = browser.confirm(&house, &token).await.unwrap();

    let hash = signed_in.session.hash;
    let denial = lost.sign_in.sign_out(hash, browser.asker(), lost.clock.now()).await.unwrap_err();
    assert_eq!(denial.reason, Reason::StoreUnavailable);
    assert!(house.store.session(hash).await.unwrap().is_some());
}

#[tokio::test]
async fn a_start_without_a_database_waits_for_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let in_the_way = folder.path().join("doorward.db");
    fs::create_dir(&in_the_way).unwrap();
    let store = crate::sqlite(folder.path());
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable { .. })));
    let ring = Ring::new(RootSecret::parse(&[1; 32]).unwrap(), store.clone(), Clock::manual(START));
    assert_eq!(ring.keys(doorward_core::ring::Purpose::Link).unwrap_err().reason, Reason::StoreUnavailable);

    let loading = ring.load_until_ready();
    tokio::pin!(loading);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut loading).await;
    assert!(early.is_err(), "nothing to load from yet");
    fs::remove_dir(&in_the_way).unwrap();
    within("the ring", loading).await.unwrap();
    assert!(ring.is_ready());
}
