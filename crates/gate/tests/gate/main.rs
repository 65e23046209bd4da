//! The gate as a host sees it, over real stores and with a clock that stands still.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails fails its test")]

mod check;
mod issuer;
mod layer;
mod local_license;
mod oidc_provider;
mod sign_in;

use doorward_store::{Store, StoreOptions};

/// Runs each case over every store that needs no server.
macro_rules! on_every_store {
    ($(async fn $name:ident($store:ident: Store) $body:block)+) => {
        $(async fn $name($store: Store) $body)+

        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(doorward_store::Store::memory()).await;
            })+
        }

        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                let folder = doorward_testkit::folder::quick();
                let store = crate::sqlite(folder.path());
                super::$name(store.clone()).await;
                store.close().await;
            })+
        }
    };
}
pub(crate) use on_every_store;

/// Opens the database in `folder` as one more process would.
pub(crate) fn sqlite(folder: &std::path::Path) -> Store {
    let seed = doorward_gate::clock::Clock::system().random();
    Store::open("sqlite:doorward.db", StoreOptions::new(folder, seed)).unwrap()
}
