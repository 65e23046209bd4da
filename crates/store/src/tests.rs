//! Every statement, prepared on both engines: what does not prepare is not SQL there.

use std::{collections::HashSet, time::Duration};

use crate::{Store, StoreConfigError, StoreOptions, sql::Statement};

const WITHIN: Duration = Duration::from_secs(30);

fn statements() -> Vec<&'static Statement> {
    let modules = [
        crate::accounts::ALL,
        crate::api_keys::ALL,
        crate::audit::ALL,
        crate::blocklist::ALL,
        crate::consume::ALL,
        crate::emails::ALL,
        crate::identities::ALL,
        crate::jobs::ALL,
        crate::keys::ALL,
        crate::license_hints::ALL,
        crate::license_upkeep::ALL,
        crate::licenses::ALL,
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
    assert_eq!(blocks.count(), 20);
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

/// Statements as release 1 knew them: it goes on writing while a newer one has migrated.
const RELEASE_1: [&str; 4] = [
    "INSERT INTO users (id, email, email_verified, admin, version, banned_at, link_status, candidate_subject, \
     created_at) VALUES ($1, 'old@example.com', FALSE, FALSE, 1, NULL, NULL, NULL, 1) ON CONFLICT (email) DO NOTHING",
    "INSERT INTO links (id, user_id, user_version, email, browser, return_to, created_at, expires_at, used_at) \
     VALUES ($1, $1, 1, 'old@example.com', $2, '/', 1, 9000000000000, NULL)",
    "UPDATE links SET used_at = 2 WHERE id = $1 AND user_id = $1 AND used_at IS NULL",
    "INSERT INTO sessions (id, hash, user_id, org_id, method, created_at, authenticated_at, last_used_at, expires_at, \
     ip, user_agent) VALUES ($1, $2, $1, NULL, 'magic_link', 1, 1, 1, 9000000000000, NULL, NULL)",
];

/// What this release makes of rows that release 1 wrote.
#[allow(clippy::unwrap_used, reason = "part of the tests")]
async fn reads_release_1(store: &Store, id: uuid::Uuid, hash: [u8; 32]) {
    use doorward_core::{
        id::{LinkId, UserId},
        link::LinkPurpose,
        session::TokenHash,
        user::Origin,
    };
    let user = store.user(UserId::from_uuid(id)).await.unwrap().unwrap();
    assert_eq!((user.email.as_str(), user.external_subject, user.origin), ("old@example.com", None, Origin::Operator));
    let link = store.link(LinkId::from_uuid(id)).await.unwrap().unwrap();
    assert_eq!((link.purpose, link.code, link.voided_at), (LinkPurpose::SignIn, None, None));
    assert!(link.used_at.is_some());
    assert!(store.session(TokenHash::from_bytes(hash)).await.unwrap().is_some());
}

/// The schema of release 1 with the rows that say so, for one engine.
fn release_1(dialect: crate::dialect::Dialect) -> (String, &'static crate::migrate::Migration) {
    let first = &crate::migrate::MIGRATIONS[0];
    let table = crate::dialect::migration(dialect, crate::migrate::TABLE);
    (table + &crate::dialect::migration(dialect, first.text), first)
}

const NOTE: &str = "INSERT INTO doorward_migrations (version, name, checksum, release) VALUES ($1, $2, $3, '0')";

#[tokio::test]
async fn on_sqlite_the_previous_release_writes_before_and_after_this_one_migrates() {
    let folder = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("test.db")).unwrap();
    let (schema, first) = release_1(crate::dialect::Dialect::Sqlite);
    connection.execute_batch(&schema).unwrap();
    connection.execute(NOTE, (first.version, first.name, first.checksum())).unwrap();
    let write = |id: uuid::Uuid, hash: [u8; 32]| {
        for text in RELEASE_1 {
            let wants = text.contains("$2");
            let id = id.as_bytes().to_vec();
            let text = crate::dialect::statement(crate::dialect::Dialect::Sqlite, text);
            let done = if wants { connection.execute(&text, (id, hash)) } else { connection.execute(&text, (id,)) };
            assert_eq!(done, Ok(1), "{text}");
        }
    };
    let (before, after) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
    write(before, [1; 32]);
    let store = Store::open("sqlite:test.db", StoreOptions::new(folder.path(), [1; 32])).unwrap();
    store.wait_ready(WITHIN).await.unwrap();
    reads_release_1(&store, before, [1; 32]).await;
    connection.execute("DELETE FROM users", ()).unwrap();
    write(after, [2; 32]);
    reads_release_1(&store, after, [2; 32]).await;
    store.close().await;
}

#[tokio::test]
async fn on_postgresql_the_previous_release_writes_before_and_after_this_one_migrates() {
    let Some(server) = doorward_testkit::postgres::shared() else { return };
    let url = server.database();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let (schema, first) = release_1(crate::dialect::Dialect::Postgres);
    client.batch_execute(&schema).await.unwrap();
    client.execute(NOTE, &[&first.version, &first.name, &first.checksum().as_slice()]).await.unwrap();
    let write = async |id: uuid::Uuid, hash: [u8; 32]| {
        for text in RELEASE_1 {
            // The driver has no type for UUIDs here; the server reads the text.
            let text = text.replace("$1", &format!("'{id}'"));
            let hash = hash.as_slice();
            let done = if text.contains("$2") {
                client.execute(&text.replace("$2", "$1"), &[&hash]).await
            } else {
                client.execute(&text, &[]).await
            };
            assert_eq!(done.unwrap(), 1, "{text}");
        }
    };
    let (before, after) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
    write(before, [1; 32]).await;
    let store = Store::open(&url, StoreOptions::new("", [1; 32])).unwrap();
    store.wait_ready(WITHIN).await.unwrap();
    reads_release_1(&store, before, [1; 32]).await;
    client.execute("DELETE FROM users", &[]).await.unwrap();
    write(after, [2; 32]).await;
    reads_release_1(&store, after, [2; 32]).await;
    store.close().await;
}
