//! The gate as a host sees it, over real stores and with a clock that stands still.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails fails its test")]

mod sign_in;

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
    };
}
pub(crate) use on_every_store;
