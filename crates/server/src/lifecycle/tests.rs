//! The root secret of a first start: made once, and never called lost while somebody may still have it.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use doorward_core::time::Timestamp;
use futures_util::FutureExt as _;
use tempfile::TempDir;

use super::*;

/// An installation whose keys were made by another process, and whose root secret lies elsewhere for now.
struct Installation {
    folder: TempDir,
    config: Config,
    root: PathBuf,
    aside: PathBuf,
}

impl Installation {
    async fn without_its_root() -> Self {
        let folder = doorward_testkit::folder::quick();
        let text = format!("public_url = \"http://127.0.0.1\"\ndata_dir = {:?}\n", folder.path());
        let config = Config::parse(&text, &folder.path().join("doorward.toml"), &BTreeMap::new()).unwrap();
        let (root, aside) = (folder.path().join("root.key"), folder.path().join("aside.key"));
        let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
        let this = Self { folder, config, root, aside };
        let store = this.store();
        store.wait_ready(Duration::from_mins(1)).await.unwrap();
        let ring = Ring::new(root_secret(&this.config, &clock).unwrap(), store.clone(), clock);
        ring.load().await.unwrap();
        store.close().await;
        fs::rename(&this.root, &this.aside).unwrap();
        this
    }

    fn store(&self) -> Store {
        Store::open("sqlite:doorward.db", StoreOptions::new(self.folder.path(), [7; 32])).unwrap()
    }
}

#[tokio::test]
async fn a_root_secret_that_another_process_makes_while_the_store_is_asked_is_not_called_lost() {
    let installation = Installation::without_its_root().await;
    // The database cannot be opened yet, nor made anew, so the look at the keys waits.
    let [database, elsewhere] = ["doorward.db", "elsewhere.db"].map(|name| installation.folder.path().join(name));
    fs::rename(&database, &elsewhere).unwrap();
    symlink(installation.folder.path().join("not/there.db"), &database).unwrap();
    let store = installation.store();
    let mut checked = Box::pin(check_root(&installation.config, &store));
    assert!(checked.as_mut().now_or_never().is_none(), "it has found no file");
    fs::rename(&installation.aside, &installation.root).unwrap();
    fs::rename(&elsewhere, &database).unwrap();
    checked.await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_root_secret_that_cannot_be_looked_at_is_not_called_lost() {
    let installation = Installation::without_its_root().await;
    let store = installation.store();
    let lost = check_root(&installation.config, &store).await.unwrap_err().to_string();
    assert!(lost.contains("does not exist") && lost.contains("key_ring"), "{lost}");
    // As where a folder may not be entered, which the tests, as root, always may.
    symlink(&installation.root, &installation.root).unwrap();
    let unreadable = check_root(&installation.config, &store).await.unwrap_err();
    assert_eq!(unreadable.exit_code(), 2);
    let unreadable = unreadable.to_string();
    assert!(unreadable.contains("secrets.root_file") && unreadable.contains("root.key"), "{unreadable}");
    assert!(!unreadable.contains("does not exist") && !unreadable.contains("key_ring"), "nothing is to be deleted");
    store.close().await;
}
