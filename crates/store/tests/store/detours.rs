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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_a_failover_led_to_a_standby_go_on_where_the_name_leads_next() {
    let (Some(primary), Some(standby)) = (postgres::shared(), postgres::own(Fsync::Off)) else { return };
    let name = database(primary);
    standby.sql("postgres", &format!("CREATE DATABASE {name}"));
    for port in [primary.port(), standby.port()] {
        let store = open(port, &name);
        store.wait_ready(WITHIN).await.unwrap();
        store.close().await;
    }
    standby.become_standby();
    let switch = Switch::to(standby.port()).await;
    let store = open(switch.port(), &name);
    store.wait_ready(WITHIN).await.unwrap();
    for _ in 0..2 {
        let refused = store.create_user(user(), all_effects()).await;
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "a standby is no fault of ours: {refused:?}");
    }
    switch.lead_to(primary.port());
    assert_eq!(store.create_user(user(), all_effects()).await, Ok(CreateUser::Created));
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
    let mut ready = store.ready();
    let state = ready.wait_for(|state| matches!(state, Readiness::Connecting { note: Some(_) }));
    let note = format!("{:?}", *tokio::time::timeout(WITHIN, state).await.unwrap().unwrap());
    assert!(note.contains("pool_mode = session"), "{note}");
    let refused = store.user(user().id).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    store.close().await;
}
