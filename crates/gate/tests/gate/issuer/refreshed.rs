//! Keys that are asked for because it is time: what the job does.

use std::time::Duration;

use doorward_gate::issuer::{Issuers, Refreshed};
use doorward_store::Store;
use doorward_testkit::issuer::{Fault, Issuer};
use futures_util::poll;

use super::{World, config, until};

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

#[tokio::test]
async fn keys_that_come_while_the_store_is_asked_are_not_asked_for_again() {
    let folder = doorward_testkit::folder::quick();
    let store = crate::sqlite(folder.path());
    // Now and then the store is so fast that its answer is there at once; such a round shows nothing.
    for _ in 0..100 {
        let world = World::cold(Issuer::start().await, Some(&store));
        let mut refresh = std::pin::pin!(world.issuers.refresh());
        assert!(poll!(&mut refresh).is_pending());
        if world.status().fetches > 0 {
            continue;
        }
        world.issuers.start();
        until("the first fetch", || world.keys() == 1).await;
        assert_eq!(refresh.await, [Refreshed { name: "main".into(), is_asked: false, problem: None }]);
        assert_eq!(world.issuer.hits(), 1, "tokens have the rest of the budget to themselves");
        return;
    }
    panic!("the store never took any time");
}
