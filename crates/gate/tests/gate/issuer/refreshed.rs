//! Keys that are asked for because it is time: what the job does.

use std::time::Duration;

use doorward_gate::issuer::{Issuers, Refreshed};
use doorward_store::Store;
use doorward_testkit::issuer::{Fault, Issuer};

use super::{World, config};

const HALF_AN_HOUR: Duration = Duration::from_secs(30 * 60);

#[tokio::test]
async fn old_keys_are_asked_for_by_one_process_for_all_and_kept_for_the_next_start() {
    let store = Store::memory();
    // Never started: as in a command, nothing but the question itself fetches.
    let one = World::cold(Issuer::start().await, Some(&store));
    let other = Issuers::new(vec![config(&one.issuer)], &one.clock, Some(&store)).unwrap();
    let asked = one.issuers.refresh().await;
    assert_eq!(asked, [Refreshed { name: "main".into(), is_asked: true, problem: None }]);
    assert_eq!((one.issuer.hits(), one.keys()), (1, 1));
    assert!(!other.refresh().await[0].is_asked, "the store has young ones");
    one.clock.advance(HALF_AN_HOUR - Duration::from_secs(1));
    assert!(!one.issuers.refresh().await[0].is_asked && !other.refresh().await[0].is_asked);
    one.clock.advance(Duration::from_secs(1));
    assert!(other.refresh().await[0].is_asked);
    assert!(!one.issuers.refresh().await[0].is_asked, "another process has just asked");
    assert_eq!(one.issuer.hits(), 2);

    one.clock.advance(HALF_AN_HOUR);
    one.issuer.fault(Some(Fault::Status(500)));
    let failed = one.issuers.refresh().await;
    assert!(failed[0].is_asked && failed[0].problem.as_deref().is_some_and(|text| text.contains("500")), "{failed:?}");
    assert_eq!(one.keys(), 1, "known keys stay in use");
    one.issuer.fault(None);
    assert_eq!(one.issuers.refresh().await[0].problem, None);
}
