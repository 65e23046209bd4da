//! The one list of cases on every backend.

use std::time::Duration;

use doorward_store::{Store, StoreOptions, for_each_case};

/// Long enough for a loaded machine; no test waits this long when it passes.
const WITHIN: Duration = Duration::from_secs(30);

fn options(folder: &std::path::Path, seed: u8) -> StoreOptions {
    StoreOptions { deadline: WITHIN, ..StoreOptions::new(folder, [seed; 32]) }
}

mod memory {
    use super::*;

    macro_rules! tests {
        ($($case:ident,)+) => { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let store = Store::memory();
                doorward_store::conformance::$case(store.clone(), store).await;
            }
        )+ };
    }
    for_each_case!(tests);
}

mod sqlite {
    use super::*;

    macro_rules! tests {
        ($($case:ident,)+) => { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let folder = doorward_testkit::folder::quick();
                let a = Store::open("sqlite:test.db", options(folder.path(), 1)).unwrap();
                let b = Store::open("sqlite:test.db", options(folder.path(), 2)).unwrap();
                a.wait_ready(WITHIN).await.unwrap();
                b.wait_ready(WITHIN).await.unwrap();
                doorward_store::conformance::$case(a.clone(), b.clone()).await;
                a.close().await;
                b.close().await;
            }
        )+ };
    }
    for_each_case!(tests);
}

mod postgres {
    use super::*;

    macro_rules! tests {
        ($($case:ident,)+) => { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(server) = doorward_testkit::postgres::shared() else { return };
                let url = server.database();
                let a = Store::open(&url, options(std::path::Path::new(""), 1)).unwrap();
                let b = Store::open(&url, options(std::path::Path::new(""), 2)).unwrap();
                a.wait_ready(WITHIN).await.unwrap();
                b.wait_ready(WITHIN).await.unwrap();
                doorward_store::conformance::$case(a.clone(), b.clone()).await;
                a.close().await;
                b.close().await;
            }
        )+ };
    }
    for_each_case!(tests);
}
