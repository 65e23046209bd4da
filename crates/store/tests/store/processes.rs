//! What happens between processes: two on one file, one that is killed, a server that goes away.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use doorward_core::{
    id::UserId,
    user::{Origin, User},
};
use doorward_store::{
    CreateUser, Readiness, Store, StoreError, StoreOptions,
    conformance::{all_effects, user},
};
use doorward_testkit::{
    postgres::{self, Fsync},
    process::{Process, Signal},
};

const WITHIN: Duration = Duration::from_secs(60);

/// Starts a process with a role of its own (`child.rs`) on the store in `folder`.
fn child(role: &str, folder: &Path, seed: u8) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward-store-child"));
    command.arg(role).arg(folder).arg(seed.to_string());
    Process::start(role, &mut command)
}

/// Makes a user with one effect of each kind; comes back when that is acknowledged.
async fn stored(store: &Store) -> UserId {
    let user = user();
    assert_eq!(store.create_user(user.clone(), all_effects()).await, Ok(CreateUser::Created));
    user.id
}

async fn open(folder: &Path, seed: u8) -> Store {
    let store = Store::open("sqlite:test.db", StoreOptions::new(folder, [seed; 32])).unwrap();
    store.wait_ready(WITHIN).await.unwrap();
    store
}

/// Every user there is; with each must have come one audit row, one mail and one revocation.
async fn whole(store: &Store) -> HashSet<UserId> {
    let mut users = HashSet::new();
    let mut after = None;
    loop {
        let page = store.users(after, 1000).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        users.extend(page.iter().map(|user| user.id));
    }
    let report = store.verify_audit(&[], |_| Ok(())).await.unwrap();
    assert_eq!(report.faults, []);
    assert_eq!(report.rows, users.len() as u64, "a change and its audit row come together");
    assert_eq!(store.outbox_counts().await.unwrap().pending, users.len() as u64);
    let (mut seq, mut revocations) = (0, 0);
    loop {
        let page = store.revocations_after(seq, 1000).await.unwrap();
        let Some(last) = page.last() else { break };
        (seq, revocations) = (last.seq, revocations + page.len());
    }
    assert_eq!(revocations, users.len());
    users
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_start_at_once_on_no_file_migrate_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("made/on/the/way");
    let mut children: Vec<Process> = (1..=4).map(|seed| child("start", &data, seed)).collect();
    for child in &mut children {
        assert!(child.exit(WITHIN).await.success(), "{}", child.output());
    }
    let store = open(&data, 9).await;
    assert_eq!(whole(&store).await.len(), 4);
    assert_eq!(store.audit_writers().await.unwrap().len(), 4);
    store.close().await;
    let mode = fs::metadata(data.join("test.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "only its owner reads the file");
    assert!(!data.join("test.db-wal").exists(), "the log is written back at the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_of_another_process_is_there_when_it_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1).await;
    assert_eq!(store.last_revocation().await, Ok(0));
    let mut other = child("revoke", folder.path(), 2);
    assert!(other.exit(WITHIN).await.success(), "{}", other.output());
    let seen = store.revocations_after(0, 10).await.unwrap();
    assert_eq!(seen.iter().map(|entry| entry.entry.why.as_str()).collect::<Vec<_>>(), ["from the child"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill_and_nothing_is_half_there() {
    let folder = doorward_testkit::folder::quick();
    let mut acknowledged = HashSet::new();
    for round in 1..=4 {
        let mut writer = child("write", folder.path(), round);
        let enough = 150 * usize::from(round);
        let is_enough = |line: &str| {
            let count: usize = line.strip_prefix("acknowledged ")?.split_once(' ')?.1.parse().ok()?;
            (count >= enough).then_some(())
        };
        writer.line(WITHIN, is_enough).await;
        writer.signal(Signal::KILL);
        writer.exit(WITHIN).await;
        let output = writer.output();
        let ids = output.lines().filter_map(|line| line.strip_prefix("acknowledged ")?.split_once(' ')?.0.parse().ok());
        acknowledged.extend(ids.collect::<Vec<UserId>>());
        let store = open(folder.path(), 100 + round).await;
        let users = whole(&store).await;
        assert!(acknowledged.is_subset(&users), "an acknowledged change is gone");
        store.close().await;
    }
    assert!(acknowledged.len() >= 150 * (1 + 2 + 3 + 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_from_the_future_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), 1).await.close().await;
    let file = rusqlite::Connection::open(folder.path().join("test.db")).unwrap();
    let ahead = |version: i64| {
        let text = "INSERT INTO doorward_migrations VALUES (?1, 'later', x'00', '9.9.9')";
        file.execute(text, [version]).unwrap();
    };
    let newest: i64 = file.query_row("SELECT MAX(version) FROM doorward_migrations", [], |row| row.get(0)).unwrap();
    ahead(newest + 1);
    open(folder.path(), 2).await.close().await;
    ahead(newest + 2);
    let store = Store::open("sqlite:test.db", StoreOptions::new(folder.path(), [3; 32])).unwrap();
    let mut ready = store.ready();
    let state = ready.wait_for(|state| matches!(state, Readiness::Connecting { note: Some(_) }));
    let note = format!("{:?}", *tokio::time::timeout(WITHIN, state).await.unwrap().unwrap());
    assert!(note.contains("start a newer release"), "{note}");
    let refused = store.user(user().id).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_database_is_not_there_opens_at_once_and_follows_when_it_comes() {
    let Some(server) = postgres::own(Fsync::Off) else { return };
    let url = server.database();
    server.crash();
    let store = Store::open(&url, StoreOptions::new("", [1; 32])).unwrap();
    let refused = store.user(user().id).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
    server.revive();
    store.wait_ready(WITHIN).await.unwrap();
    stored(&store).await;
    assert_eq!(whole(&store).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_postgresql_that_crashes_under_load_loses_nothing_that_was_acknowledged() {
    let Some(server) = postgres::own(Fsync::Off) else { return };
    let store = Store::open(&server.database(), StoreOptions::new("", [1; 32])).unwrap();
    store.wait_ready(WITHIN).await.unwrap();
    let (stop, failures) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let writers: Vec<_> = (0..12)
        .map(|_| {
            let (store, stop, failures) = (store.clone(), Arc::clone(&stop), Arc::clone(&failures));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let user = user();
                    match store.create_user(user.clone(), all_effects()).await {
                        Ok(_) => acknowledged.push(user.id),
                        Err(error) => {
                            failures.lock().unwrap().push(error);
                            store.wait_ready(WITHIN).await.ok();
                        }
                    }
                }
                acknowledged
            })
        })
        .collect();
    let wait_for = async |rows: i64| {
        let counted = async { while store.last_revocation().await.unwrap_or(0) < rows {} };
        tokio::time::timeout(WITHIN, counted).await.unwrap();
    };
    wait_for(100).await;
    server.crash();
    server.revive();
    store.wait_ready(WITHIN).await.unwrap();
    let before = store.last_revocation().await.unwrap();
    wait_for(before + 100).await;
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = HashSet::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    let users = whole(&store).await;
    assert!(acknowledged.is_subset(&users), "an acknowledged change is gone");
    let failures = failures.lock().unwrap();
    assert!(!failures.is_empty(), "the crash was noticed");
    let expected = |error: &StoreError| matches!(error, StoreError::Unavailable { .. } | StoreError::Timeout { .. });
    assert!(failures.iter().all(expected), "{failures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_waits_for_an_identity_that_is_being_written_and_keeps_its_user() {
    let Some(server) = postgres::shared() else { return };
    let url = server.database();
    let store = Store::open(&url, StoreOptions::new("", [1; 32])).unwrap();
    store.wait_ready(WITHIN).await.unwrap();
    let user = User { origin: Origin::SignUp, ..user() };
    assert_eq!(store.create_user(user.clone(), all_effects()).await, Ok(CreateUser::Created));
    let name = url.rsplit('/').next().unwrap().to_owned();
    // It is held up before its commit until we say so, by a table that somebody else has.
    server.sql(&name, "CREATE TABLE held ()");
    let run = |text: String| {
        let name = name.clone();
        tokio::task::spawn_blocking(move || server.sql(&name, &text))
    };
    let until = async |what: &str, count: &str| {
        let done = async {
            while server.sql(&name, &format!("SELECT count(*) > 0 FROM pg_locks WHERE {count}")) != "t" {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(WITHIN, done).await.is_ok(), "{what}");
    };
    let holding = run("BEGIN; LOCK TABLE held; SELECT pg_sleep(600)".to_owned());
    until("the table is held", "granted AND mode = 'AccessExclusiveLock' AND relation = 'held'::regclass").await;
    let identity = format!("INSERT INTO identities VALUES ('main', 'sub', '{}')", user.id);
    let writing = run(format!("BEGIN; {identity}; LOCK TABLE held; COMMIT"));
    until("the identity is being written", "NOT granted AND relation = 'held'::regclass").await;
    let later = user.created_at.plus(Duration::from_hours(48));
    let purging = tokio::spawn({
        let store = store.clone();
        async move {
            // It gives up waiting after a while, and is run again.
            while store.purge(later, Duration::from_hours(1)).await.is_err() {}
        }
    });
    until("the purge waits", "NOT granted AND locktype = 'transactionid'").await;
    server.sql(
        &name,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
        AND datname = current_database()",
    );
    assert!(holding.await.is_err(), "it was ended");
    writing.await.unwrap();
    tokio::time::timeout(WITHIN, purging).await.expect("the purge comes to its end").unwrap();
    assert_eq!(store.user(user.id).await, Ok(Some(user)));
    store.close().await;
}
