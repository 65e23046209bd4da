//! A disk that is full, a replica that is cut off, an audit table that blocks: what goes on, what does not, and that
//! nothing is half done.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use doorward_testkit::{
    mail::MailSink,
    postgres::{self, Fsync},
    process::{Process, Signal},
    upstream::EchoApp,
};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use super::{Installation, PATIENCE, cookie, database::Database, figure, now, reason, until};

const ADA: &str = "ada@example.com";

fn rest(store: &str, sink: &MailSink, app: &EchoApp) -> String {
    format!(
        "{store}[login]\nresponse_floor = \"0s\"\n[mail]\nurl = \"{}\"\nfrom = \"Doorward <login@example.com>\"\n\
         [apps.web]\nupstream = \"{}\"\n[[rules]]\npath = \"/*\"\nallow = [\"session\"]\napp = \"web\"\n",
        sink.url(),
        app.url()
    )
}

fn postgres_store(url: &str) -> String {
    format!("[store]\nurl = \"{url}\"\n[secrets]\nroot = \"only for this test, only for this test\"\n")
}

/// A link that was mailed, and the login cookie that goes with it.
async fn link(one: &Installation, sink: &MailSink) -> (String, serde_json::Value) {
    let before = sink.mails().await.len();
    let asked = one.post("/auth/login/request-link", "", &json!({ "email": ADA })).await;
    let text = sink.arrived(before + 1).await[before].text.clone().unwrap();
    let link = text.split_whitespace().find(|word| word.contains("/login/callback?token=")).unwrap();
    let token = link.split_once("?token=").unwrap().1.to_owned();
    (format!("Cookie: {}\r\n", cookie(&asked, "doorward_login")), json!({ "token": token }))
}

/// The server as a child that can write no file longer than this: what a full disk says, without one.
fn with_little_room(one: &Installation, bytes: u64) -> Process {
    let server = one.command(&["serve"]);
    let mut shell = Command::new("bash");
    let script = "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"";
    shell.args(["-c", script, "room", &(bytes / 1024).to_string()]).arg(server.get_program()).args(server.get_args());
    shell.current_dir(one.path()).env_remove("DOORWARD_CONFIG").env("RUST_LOG", "info,doorward=debug");
    Process::start("doorward with little room", &mut shell)
}

#[tokio::test]
async fn a_full_disk_is_a_503_for_what_writes_and_nothing_for_what_reads() {
    let Some(sink) = MailSink::start().await else { return };
    let app = EchoApp::start().await;
    let one = Installation::with(&rest("", &sink, &app));
    one.ok(&["users", "add", ADA]).await;
    let mut server = one.serve_ready().await;
    let session = one.sign_in(&sink, ADA).await;
    server.signal(Signal::TERM);
    server.exit(PATIENCE).await;

    let file = one.path().join("data/doorward.db");
    let room = std::fs::metadata(&file).unwrap().len() + 128 * 1024;
    let mut server = with_little_room(&one, room);
    until("the port opens", PATIENCE, async || TcpStream::connect(one.address()).await.ok()).await;
    one.until_ready().await;
    let (login, token) = link(&one, &sink).await;
    // Strangers press the button until nothing can be written any more; the answer to them never changes.
    let mut strangers = 0_u32;
    until("the disk is full", PATIENCE * 3, async || {
        strangers += 1;
        let [_, a, b, c] = strangers.to_be_bytes();
        let from = format!("X-Forwarded-For: 10.{a}.{b}.{c}\r\n");
        let email = json!({ "email": format!("u{strangers}@example.com") });
        assert_eq!(one.post("/auth/login/request-link", &from, &email).await.status, 200);
        let wrong = one.post("/auth/login/callback", &from, &token).await;
        assert_eq!(reason(&wrong), (403, Some("link_wrong_browser")), "a refusal needs no room: {wrong:?}");
        server.output().contains("audit rows wait for the store").then_some(())
    })
    .await;
    let refused = one.post("/auth/login/callback", &login, &token).await;
    assert_eq!(reason(&refused), (503, Some("store_unavailable")), "{refused:?}");
    let read = one.judged("/x", &session).await;
    assert_eq!(read.status, 200, "who is signed in stays so: {read:?}");
    assert!(server.is_running());
    server.signal(Signal::KILL);
    server.exit(PATIENCE).await;

    // Room again.
    let _server = one.serve_ready().await;
    assert_eq!(one.judged("/x", &session).await.status, 200);
    assert_eq!(one.post("/auth/login/callback", &login, &token).await.status, 200, "the refusals burnt nothing");
    let check = rusqlite::Connection::open(&file).unwrap();
    let whole: String = check.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    let verified = one.ok(&["audit", "verify"]).await;
    assert!(verified.contains("the log holds"), "{verified}");
}

/// A wire to a database that can be cut: bytes stop, connections stay.
struct CutWire {
    port: u16,
    is_cut: Arc<AtomicBool>,
}

impl CutWire {
    async fn to(url: &str) -> Self {
        let target = url.split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, is_cut) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
        let cut = Arc::clone(&is_cut);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (target, cut) = (target.clone(), Arc::clone(&cut));
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    let ((nr, nw), (fr, fw)) = (near.into_split(), far.into_split());
                    tokio::join!(carry(nr, fw, &cut), carry(fr, nw, &cut));
                });
            }
        });
        Self { port, is_cut }
    }
}

async fn carry(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, is_cut: &AtomicBool) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        while is_cut.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
}

#[tokio::test]
async fn a_replica_cut_off_from_the_database_answers_503_while_the_other_goes_on() {
    let Some(sink) = MailSink::start().await else { return };
    let Some(server) = postgres::shared() else { return };
    let app = EchoApp::start().await;
    let url = server.database();
    let wire = CutWire::to(&url).await;
    let name = url.rsplit('/').next().unwrap();
    let through = format!("postgres://app@127.0.0.1:{}/{name}", wire.port);
    let [stays, parted] = [&url, &through].map(|url| Installation::with(&rest(&postgres_store(url), &sink, &app)));
    let (_stays, mut apart) = tokio::join!(stays.serve_ready(), parted.serve_ready());
    stays.ok(&["users", "add", ADA]).await;
    let session = stays.sign_in(&sink, ADA).await;
    for replica in [&stays, &parted] {
        assert_eq!(replica.judged("/x", &session).await.status, 200);
    }

    wire.is_cut.store(true, Ordering::SeqCst);
    let started = now();
    stays.ok(&["sessions", "revoke", "--user", ADA]).await;
    until("the other replica refuses the session", PATIENCE, async || {
        (stays.try_get("/x", &session).await?.status == 401).then_some(())
    })
    .await;
    until("the one that is cut off says that it cannot tell", PATIENCE, async || {
        let answer = parted.get("/x", &session).await;
        // It may know the session for the age that its rules admit; it must not sign anybody out for what it cannot know.
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 503).then(|| assert_eq!(reason(&answer).1, Some("store_unavailable")))
    })
    .await;
    figure("a replica cut off until it relies on nothing any more", started.elapsed());
    for _ in 0..3 {
        assert_eq!(parted.get("/x", &session).await.status, 503, "and it does not come back to what it knew");
    }
    assert!(apart.is_running());
    let fresh = stays.sign_in(&sink, ADA).await;
    assert_eq!(stays.judged("/x", &fresh).await.status, 200);

    wire.is_cut.store(false, Ordering::SeqCst);
    until("it has heard of everything", PATIENCE, async || {
        let old = parted.try_get("/x", &session).await?.status;
        let new = parted.get("/x", &fresh).await.status;
        ((old, new) == (401, 200)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_audit_table_that_blocks_delays_nobody_who_reads_and_lets_nobody_in_unrecorded() {
    let Some(sink) = MailSink::start().await else { return };
    let Some(server) = postgres::shared() else { return };
    let app = EchoApp::start().await;
    let url = server.database();
    let database = Database::of(server, &url);
    let one = Installation::with(&rest(&postgres_store(&url), &sink, &app));
    let _server = one.serve_ready().await;
    one.ok(&["users", "add", ADA]).await;
    let session = one.sign_in(&sink, ADA).await;
    let (login, token) = link(&one, &sink).await;
    let held = {
        let name = url.rsplit('/').next().unwrap().to_owned();
        let lock = "BEGIN; LOCK TABLE audit IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(240); COMMIT";
        tokio::task::spawn_blocking(move || server.sql(&name, lock))
    };
    let locked = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
        AND relation = 'audit'::regclass";
    until("the table is locked", PATIENCE, async || (database.number(locked) == 1).then_some(())).await;
    let begun = now();
    let signing_in = one.post("/auth/login/callback", &login, &token);
    let meanwhile = async {
        // Grants and refusals of requests are written in batches, and nobody waits for them.
        for _ in 0..5 {
            assert_eq!(one.judged("/x", &session).await.status, 200);
            assert_eq!(one.get("/x", "").await.status, 401);
        }
        assert_eq!(database.number(locked), 1, "all of it while the table was locked");
    };
    let (refused, ()) = tokio::join!(signing_in, meanwhile);
    assert_eq!(reason(&refused), (503, Some("store_unavailable")), "{refused:?}");
    figure("a sign-in that cannot be recorded is refused after", begun.elapsed());
    assert_eq!(database.number(locked), 1, "bounded by its deadline, not by the lock");
    database.number(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
         AND relation = 'audit'::regclass",
    );
    assert!(held.await.is_err(), "its connection was ended under it");
    until("the link, which nothing burnt, signs in", PATIENCE, async || {
        let answer = one.post("/auth/login/callback", &login, &token).await;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(database.number("SELECT count(*) FROM sessions"), 2);
    let verified = one.ok(&["audit", "verify"]).await;
    assert!(verified.contains("the log holds"), "{verified}");
}

#[tokio::test]
async fn a_database_that_takes_a_link_and_cannot_say_so_gets_no_second_one() {
    let Some(sink) = MailSink::start().await else { return };
    let Some(server) = postgres::own(Fsync::Off) else { return };
    let app = EchoApp::start().await;
    let url = server.database();
    let name = url.rsplit('/').next().unwrap();
    let number = |sql: &str| server.sql(name, sql).parse::<i64>().unwrap();
    let one = Installation::with(&rest(&postgres_store(&url), &sink, &app));
    let mut process = one.serve_ready().await;
    one.ok(&["users", "add", ADA]).await;
    // A commit waits for a replica that is not there: it is made, and nobody hears of it.
    let replica = |setting: &str| {
        server.sql("postgres", &format!("ALTER SYSTEM {setting}"));
        server.sql("postgres", "SELECT pg_reload_conf()");
    };
    replica("SET synchronous_standby_names = 'nobody'");
    until("the setting counts", PATIENCE, async || {
        (server.sql("postgres", "SHOW synchronous_standby_names") == "nobody").then_some(())
    })
    .await;
    let asked = one.post("/auth/login/request-link", "", &json!({ "email": ADA })).await;
    assert_eq!(asked.status, 200);
    // Longer than the store is waited for: the link is tried again meanwhile.
    until("it has waited for long", PATIENCE, async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' \
            AND now() - state_change > interval '7 seconds'";
        (number(waiting) > 0).then_some(())
    })
    .await;
    replica("RESET synchronous_standby_names");
    sink.arrived(1).await;
    // It ends what it has begun.
    process.signal(Signal::TERM);
    process.exit(PATIENCE).await;
    assert_eq!((number("SELECT count(*) FROM links"), sink.mails().await.len()), (1, 1));
}

#[tokio::test]
async fn who_signs_in_is_signed_in_also_where_the_database_could_not_say_that_it_was_done() {
    let Some(sink) = MailSink::start().await else { return };
    let Some(server) = postgres::own(Fsync::Off) else { return };
    let app = EchoApp::start().await;
    let one = Installation::with(&rest(&postgres_store(&server.database()), &sink, &app));
    let _process = one.serve_ready().await;
    one.ok(&["users", "add", ADA]).await;
    let (login, token) = link(&one, &sink).await;
    server.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.sql("postgres", "SELECT pg_reload_conf()");
    until("commits wait for a replica", PATIENCE, async || {
        (server.sql("postgres", "SHOW synchronous_standby_names") == "nobody").then_some(())
    })
    .await;
    // The commit is made, and its connection ends before it can say so.
    let ends = async {
        loop {
            let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            server.sql("postgres", ended);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = tokio::select! {
        answer = one.post("/auth/login/callback", &login, &token) => answer,
        () = ends => unreachable!(),
    };
    assert_eq!(answer.status, 200, "{answer:?}");
    server.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names");
    server.sql("postgres", "SELECT pg_reload_conf()");
    let session = format!("Cookie: {}\r\n", cookie(&answer, "doorward_sid"));
    until("the session is good", PATIENCE, async || (one.get("/x", &session).await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn a_link_of_a_restored_database_works_once_more_until_its_key_is_rotated_away() {
    let Some(sink) = MailSink::start().await else { return };
    let app = EchoApp::start().await;
    let one = Installation::with(&rest("", &sink, &app));
    let database = Database::Sqlite(one.path().join("data/doorward.db"));
    one.ok(&["users", "add", ADA]).await;
    let mut server = one.serve_ready().await;
    let (login, token) = link(&one, &sink).await;
    let backup = database.copy();
    let used = one.post("/auth/login/callback", &login, &token).await;
    assert_eq!(used.status, 200);
    let session = format!("Cookie: {}\r\n", cookie(&used, "doorward_sid"));
    let restore = async |server: &mut Process| {
        server.signal(Signal::TERM);
        server.exit(PATIENCE).await;
        let Database::Sqlite(backup) = &backup else { unreachable!() };
        for end in ["-wal", "-shm"] {
            std::fs::remove_file(one.path().join(format!("data/doorward.db{end}"))).ok();
        }
        std::fs::copy(backup, one.path().join("data/doorward.db")).unwrap();
    };
    // Restored as it is: what happened since has not happened. The session is gone, the link works until its end.
    restore(&mut server).await;
    server = one.serve_ready().await;
    assert_eq!(reason(&one.get("/x", &session).await), (401, Some("session_unknown")));
    assert_eq!(one.post("/auth/login/callback", &login, &token).await.status, 200, "once more");
    assert_eq!(reason(&one.post("/auth/login/callback", &login, &token).await), (409, Some("link_reused")));
    // Restored, and the key of links rotated twice: nothing that was mailed before works.
    restore(&mut server).await;
    one.ok(&["keys", "rotate", "link"]).await;
    one.ok(&["keys", "rotate", "link"]).await;
    let _server = one.serve_ready().await;
    assert_eq!(reason(&one.post("/auth/login/callback", &login, &token).await), (401, Some("link_invalid")));
    let verified = one.ok(&["audit", "verify"]).await;
    assert!(verified.contains("the log holds"), "{verified}");
}
