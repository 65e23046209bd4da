//! PostgreSQL behind something else: a name that leads to a standby after a failover, a pooler in between.

use std::time::Duration;

use doorward_store::{
    CreateUser, Readiness, Store, StoreError, StoreOptions,
    conformance::{all_effects, user},
};
use doorward_testkit::{
    pgbouncer::PgBouncer,
    postgres::{self, Fsync},
    switch::Switch,
};

const WITHIN: Duration = Duration::from_secs(60);

fn open(port: u16, database: &str) -> Store {
    let url = format!("postgres://app@127.0.0.1:{port}/{database}");
    Store::open(&url, StoreOptions::new("", [1; 32])).unwrap()
}

/// The name of a new database on a server.
fn database(server: &postgres::Postgres) -> String {
    server.database().rsplit('/').next().unwrap().to_owned()
}

/// A primary and a standby with the same empty schema.
async fn pair() -> Option<(&'static postgres::Postgres, postgres::Postgres, String)> {
    let (primary, standby) = (postgres::shared()?, postgres::own(Fsync::Off)?);
    let name = database(primary);
    standby.sql("postgres", &format!("CREATE DATABASE {name}"));
    for port in [primary.port(), standby.port()] {
        let store = open(port, &name);
        store.wait_ready(WITHIN).await.unwrap();
        store.close().await;
    }
    standby.become_standby();
    Some((primary, standby, name))
}

/// Waits until the store says why it does not connect.
async fn said(store: &Store, what: &str) {
    let mut ready = store.ready();
    let says = |state: &Readiness| matches!(state, Readiness::Connecting { note: Some(note) } if note.contains(what));
    let state = tokio::time::timeout(WITHIN, ready.wait_for(says)).await;
    assert!(state.is_ok(), "{what}: {:?}", *store.ready().borrow());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_a_failover_led_to_a_standby_go_on_where_the_name_leads_next() {
    let Some((primary, standby, name)) = pair().await else { return };
    let switch = Switch::to(primary.port()).await;
    let store = open(switch.port(), &name);
    store.wait_ready(WITHIN).await.unwrap();
    // What reads is connected; what writes is not yet.
    switch.lead_to(standby.port());
    for _ in 0..2 {
        let refused = store.create_user(user(), all_effects()).await;
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "a standby is no fault of ours: {refused:?}");
    }
    switch.lead_to(primary.port());
    assert_eq!(store.create_user(user(), all_effects()).await, Ok(CreateUser::Created));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_read_from_a_standby_and_the_store_goes_on_where_the_name_leads_next() {
    let Some((primary, standby, name)) = pair().await else { return };
    let switch = Switch::to(standby.port()).await;
    let store = open(switch.port(), &name);
    said(&store, "is a standby").await;
    let refused = store.revocations_after(0, 10).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "it may lack the newest: {refused:?}");
    switch.lead_to(primary.port());
    store.wait_ready(WITHIN).await.unwrap();
    let new = user();
    assert_eq!(store.create_user(new.clone(), all_effects()).await, Ok(CreateUser::Created));
    assert!(store.user(new.id).await.unwrap().is_some());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_is_taken_that_hands_out_whole_sessions_and_named_where_it_does_not() {
    let Some(server) = postgres::shared() else { return };
    let name = database(server);
    let Some(pooler) = PgBouncer::start(server, "session").await else { return };
    let store = open(pooler.port(), &name);
    store.wait_ready(WITHIN).await.unwrap();
    assert_eq!(store.create_user(user(), all_effects()).await, Ok(CreateUser::Created));
    store.close().await;

    let Some(pooler) = PgBouncer::start(server, "transaction").await else { return };
    let store = open(pooler.port(), &name);
    said(&store, "pool_mode = session").await;
    let refused = store.user(user().id).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    store.close().await;
}
