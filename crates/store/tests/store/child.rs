//! One more process on a store, for the tests that need two: `ROLE FOLDER SEED`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "part of the tests; its parent reads it")]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use doorward_core::{effects::Effects, id::UserId};
use doorward_store::{
    CreateUser, Store, StoreOptions,
    conformance::{all_effects, revocation, user},
};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, folder, seed] = &arguments[..] else { panic!("usage: ROLE FOLDER SEED") };
    let seed: u8 = seed.parse().unwrap();
    let store = Store::open("sqlite:test.db", StoreOptions::new(folder, [seed; 32])).unwrap();
    store.wait_ready(Duration::from_secs(60)).await.unwrap();
    match role.as_str() {
        "start" => {
            stored(&store).await;
            store.close().await;
        }
        "revoke" => {
            store.append(Effects::default().with_revocation(revocation("from the child"))).await.unwrap();
        }
        "write" => {
            let count = AtomicUsize::new(0);
            let writers = (0..16).map(|_| async {
                loop {
                    let id = stored(&store).await;
                    println!("acknowledged {id} {}", count.fetch_add(1, Ordering::SeqCst));
                }
            });
            futures_util::future::join_all(writers).await;
        }
        other => panic!("no such role: {other}"),
    }
}

/// Makes a user with one effect of each kind; comes back when that is acknowledged.
async fn stored(store: &Store) -> UserId {
    let user = user();
    assert_eq!(store.create_user(user.clone(), all_effects()).await, Ok(CreateUser::Created));
    user.id
}
