//! Every statement, prepared on both engines: what does not prepare is not SQL there.

use std::{collections::HashSet, time::Duration};

use crate::{Store, StoreConfigError, StoreOptions, sql::Statement};

const WITHIN: Duration = Duration::from_secs(30);

fn statements() -> Vec<&'static Statement> {
    let modules = [
        crate::accounts::ALL,
        crate::api_keys::ALL,
        crate::audit::ALL,
        crate::consume::ALL,
        crate::identities::ALL,
        crate::jobs::ALL,
        crate::keys::ALL,
        crate::links::ALL,
        crate::one_time::ALL,
        crate::outbox::ALL,
        crate::purge::ALL,
        crate::revocations::ALL,
        crate::runtime::ALL,
        crate::sessions::ALL,
        crate::users::ALL,
    ];
    modules.concat()
}

#[test]
fn every_module_with_statements_is_in_the_list() {
    // The list above is by hand; the source says how many blocks there are.
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let blocks = source.read_dir().unwrap().filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        path.is_file() && std::fs::read_to_string(path).unwrap().lines().any(|line| line == "statements! {")
    });
    assert_eq!(blocks.count(), 15);
    let names: HashSet<_> = statements().iter().map(|statement| statement.name).collect();
    assert_eq!(names.len(), statements().len(), "names tell statements apart in errors");
}

#[tokio::test]
async fn every_statement_prepares_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open("sqlite:test.db", StoreOptions::new(folder.path(), [1; 32])).unwrap();
    store.wait_ready(WITHIN).await.unwrap();
    store.close().await;
    let connection = rusqlite::Connection::open(folder.path().join("test.db")).unwrap();
    for statement in statements() {
        let prepared = connection.prepare(statement.sqlite());
        assert!(prepared.is_ok(), "{}: {}", statement.name, prepared.unwrap_err());
    }
}

#[tokio::test]
async fn every_statement_prepares_on_postgresql() {
    let Some(server) = doorward_testkit::postgres::shared() else { return };
    let url = server.database();
    let store = Store::open(&url, StoreOptions::new("", [1; 32])).unwrap();
    store.wait_ready(WITHIN).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    for statement in statements() {
        let prepared = client.prepare(statement.postgres()).await;
        assert!(prepared.is_ok(), "{}: {}", statement.name, prepared.unwrap_err());
    }
}

#[test]
fn a_url_that_names_no_store_is_a_misconfiguration() {
    let open = |url: &str| Store::open(url, StoreOptions::new("", [1; 32])).err();
    assert_eq!(open("mysql://host/db"), Some(StoreConfigError::UnknownScheme));
    assert_eq!(open("sqlite:"), Some(StoreConfigError::NoFile));
    assert_eq!(open("sqlite::memory:"), Some(StoreConfigError::NoFile));
}
