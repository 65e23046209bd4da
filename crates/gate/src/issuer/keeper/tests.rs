use std::{fs, pin::pin};

use doorward_core::{
    jose::{Algorithm, AlgorithmSet},
    token::TokenPolicy,
};
use doorward_store::StoreOptions;
use doorward_testkit::{folder, issuer::Issuer};
use futures_util::FutureExt as _;

use super::*;
use crate::issuer::IssuerConfig;

const WITHIN: Duration = Duration::from_secs(60);

fn definition(issuer: &Issuer) -> Definition {
    let policy = TokenPolicy {
        issuer: issuer.url(),
        aliases: vec![],
        audiences: vec!["app".to_owned()],
        algorithms: AlgorithmSet::of(&[Algorithm::EdDsa]),
        required_claims: vec![],
        clock_tolerance: Duration::from_secs(30),
        max_token_age: None,
        kind: None,
    };
    IssuerConfig::new("main", policy, KeySource::Url(issuer.jwks_url().parse().unwrap())).definition()
}

#[tokio::test]
async fn the_first_fetch_waits_for_a_store_that_is_still_being_opened() {
    let issuer = Issuer::start().await;
    let definition = definition(&issuer);
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let folder = folder::quick();
    let open = || Store::open("sqlite:data/doorward.db", StoreOptions::new(folder.path(), [7; 32])).unwrap();
    let before = open();
    before.wait_ready(WITHIN).await.unwrap();
    let keys = issuer.key_set().to_string();
    before.put_issuer_keys(definition.record().unwrap(), keys, clock.now().wall).await.unwrap();
    before.close().await;

    // While something else is in the place of its folder, the store tries again and again.
    let (place, away) = (folder.path().join("data"), folder.path().join("away"));
    fs::rename(&place, &away).unwrap();
    fs::write(&place, "").unwrap();
    let store = open();
    let around =
        Surroundings { clock, clients: Clients::new().unwrap(), store: Some(store), listener: Listener::default() };
    let keeper = Arc::new(Keeper::new(definition, around));
    let state = || {
        let status = keeper.status(keeper.now());
        (status.keys, status.fetches)
    };
    let mut keeping = pin!(keep(Arc::downgrade(&keeper), keeper.changes.subscribe()));
    tokio::time::pause();
    for pause in [Duration::ZERO, RECALL - Duration::from_millis(10)] {
        tokio::time::advance(pause).await;
        assert!(keeping.as_mut().now_or_never().is_none());
        assert_eq!(state(), (0, 0), "nothing is fetched yet");
    }
    tokio::time::resume();
    fs::remove_file(&place).unwrap();
    fs::rename(&away, &place).unwrap();
    assert!(keeper.recall(WITHIN).await);
    assert_eq!((state(), issuer.hits()), ((1, 0), 0), "what was kept is in use");
}
