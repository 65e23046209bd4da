//! The audit log against somebody who can write to the database: what is found, where, and with which keys.

use std::{fs, path::Path};

use doorward_testkit::{postgres, process::Signal};
use serde_json::{Value, json};

use super::{Installation, PATIENCE, all, database::Database, until};

const ROOT: &str = "only for this test, only for this test";
/// The longest chain of the log: that of the import.
const CHAIN: &str = "(SELECT writer FROM audit GROUP BY writer ORDER BY count(*) DESC LIMIT 1)";

/// An installation with a chain of twelve rows, some shorter ones, and a checkpoint over them all.
async fn kept(rest: &str) -> Installation {
    let one = Installation::with(rest);
    let people: String = (0..12).map(|n| format!("{{\"email\":\"user{n}@example.com\"}}\n")).collect();
    fs::write(one.path().join("people.jsonl"), people).unwrap();
    one.ok(&["users", "import", "people.jsonl", "--apply"]).await;
    one.ok(&["users", "ban", "user1@example.com"]).await;
    signed(&one).await;
    one
}

/// Lets a server sign what there is.
async fn signed(one: &Installation) {
    let before = verified(one, &[]).await["checkpoints"].as_u64().unwrap();
    let mut server = one.serve_ready().await;
    server.signal(Signal::TERM);
    assert!(server.exit(PATIENCE).await.success(), "{}", server.output());
    let (_, _) = until("a checkpoint is there", PATIENCE, async || {
        (verified(one, &[]).await["checkpoints"].as_u64().unwrap() > before).then_some(())
    })
    .await;
}

/// What `audit verify --json` says.
async fn verified(one: &Installation, arguments: &[&str]) -> Value {
    let output = one.run(&[&["audit", "verify", "--json"], arguments].concat()).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", all(&output)));
    assert_eq!(output.status.code(), Some(i32::from(report["ok"] != true)), "{report}");
    assert_eq!(report["ok"] == true, report["faults"] == json!([]), "{report}");
    report
}

/// Verifies a database with the public key alone: in a folder without configuration and root secret.
async fn by_key_alone(database: &Database, key: &Path, more: &[&str]) -> Value {
    let elsewhere = Installation::bare();
    let url = database.url();
    verified(&elsewhere, &[&["--public-key", key.to_str().unwrap(), "--store", &url], more].concat()).await
}

/// Verifies an export with the public key alone.
async fn exported(file: &Path, key: &Path) -> Value {
    let [file, key] = [file, key].map(|path| path.to_str().unwrap());
    verified(&Installation::bare(), &["--public-key", key, "--export", file]).await
}

/// Changes as somebody makes them who can write to the database, and what must be said of each.
fn tamperings() -> Vec<(String, &'static str)> {
    let set = |what: &str| format!("UPDATE audit SET {what} WHERE writer = {CHAIN} AND number = 3");
    let number =
        |from: i64, to: i64| format!("UPDATE audit SET number = {to} WHERE writer = {CHAIN} AND number = {from};");
    let cut = format!("DELETE FROM audit WHERE writer = {CHAIN} AND number > 5;");
    let head = format!(
        "UPDATE audit_writers SET number = 5, \
         head = (SELECT hash FROM audit WHERE number = 5 AND writer = {CHAIN}) WHERE id = {CHAIN};"
    );
    vec![
        (set("kind = 'session.ended'"), "row 3 was altered"),
        (set("user_id = NULL"), "row 3 was altered"),
        (set("at = at + 1"), "row 3 was altered"),
        (set("reason = 'no_rule'"), "row 3 was altered"),
        (set("hash = detail_hash"), "row 3 was altered"),
        (set("detail = '{}'"), "the detail of row 3 was altered"),
        (set("detail = NULL"), "the details of 1 rows, first row 3, are gone, and no erasure names them"),
        (format!("DELETE FROM audit WHERE writer = {CHAIN} AND number = 3"), "row 3 is missing, row 4 follows"),
        ([number(3, -1), number(4, 3), number(-1, 4)].concat(), "row 3 stands in another place than it was written to"),
        (cut.clone(), "it ends at row 5, and the checkpoint of"),
        (head.clone() + &cut, "it ends at row 5, and the checkpoint of"),
        (
            format!("DELETE FROM audit_writers WHERE id = {CHAIN}; DELETE FROM audit WHERE writer = {CHAIN};"),
            "it ends at row 0, and the checkpoint of",
        ),
        ("UPDATE audit_checkpoints SET at = at + 1".to_owned(), "its signature does not verify"),
        ("UPDATE audit_checkpoints SET signature = heads".to_owned(), "its signature does not verify"),
        ("UPDATE audit_checkpoints SET heads = signature".to_owned(), "its signature does not verify"),
        ("DELETE FROM audit_checkpoints".to_owned(), "checkpoints, and there are 0: checkpoints were deleted"),
    ]
}

/// Whether there is a fault, and none but what is expected.
fn are_all(report: &Value, expected: &str) -> bool {
    let faults = report["faults"].as_array().unwrap();
    !faults.is_empty() && faults.iter().all(|fault| fault.as_str().unwrap().contains(expected))
}

/// Every change is found in the store and in what is exported from it, with the public key and nothing else.
async fn every_tampering_is_named(one: &Installation, database: &Database) {
    let key = one.path().join("audit-keys.json");
    fs::write(&key, one.ok(&["audit", "public-key"]).await).unwrap();
    let honest = verified(one, &[]).await;
    assert!(honest["ok"] == true && honest["chains"].as_u64().unwrap() >= 3, "{honest}");
    assert!(honest["checkpoints"].as_u64().unwrap() >= 1, "{honest}");
    assert_eq!(by_key_alone(database, &key, &[]).await, honest);
    for (sql, expected) in tamperings() {
        let copy = database.copy();
        copy.run(&sql);
        let report = by_key_alone(&copy, &key, &[]).await;
        assert!(are_all(&report, expected), "{sql}: {expected} in {report}");
        let export = one.path().join("tampered.jsonl");
        let mut command = one.command(&["audit", "export"]);
        let output = command.env("DOORWARD__STORE__URL", copy.url()).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", all(&output));
        fs::write(&export, &output.stdout).unwrap();
        let report = exported(&export, &key).await;
        assert!(are_all(&report, expected), "exported, {sql}: {expected} in {report}");
    }
    // With the root secret as well, in place.
    let (sql, expected) = &tamperings()[0];
    let before = database.copy();
    database.run(sql);
    let report = verified(one, &[]).await;
    assert!(are_all(&report, expected), "{report}");
    assert_eq!(by_key_alone(&before, &key, &[]).await, honest, "and the copy from before still holds");
}

#[tokio::test]
async fn every_tampering_with_the_sqlite_file_is_named_with_the_public_key_alone() {
    let one = kept("").await;
    let database = Database::Sqlite(one.path().join("data/doorward.db"));
    every_tampering_is_named(&one, &database).await;
}

#[tokio::test]
async fn every_tampering_with_postgresql_rows_is_named_with_the_public_key_alone() {
    let Some(server) = postgres::shared() else { return };
    let url = server.database();
    let one = kept(&format!("[store]\nurl = \"{url}\"\n[secrets]\nroot = \"{ROOT}\"\n")).await;
    every_tampering_is_named(&one, &Database::of(server, &url)).await;
}

#[tokio::test]
async fn an_export_is_verified_without_store_and_root_and_each_edit_of_the_file_is_named() {
    let one = kept("").await;
    let (key, file) = (one.path().join("keys.json"), one.path().join("audit.jsonl"));
    fs::write(&key, one.ok(&["audit", "public-key"]).await).unwrap();
    let text = one.ok(&["audit", "export"]).await;
    fs::write(&file, &text).unwrap();
    let honest = exported(&file, &key).await;
    assert_eq!(honest, verified(&one, &[]).await);
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| line.contains("user.imported")).unwrap() + 2;
    let swapped = |a: usize, b: usize| {
        let mut lines = lines.clone();
        lines.swap(a, b);
        lines.join("\n")
    };
    let without = |at: usize| [&lines[..at], &lines[at + 1..]].concat().join("\n");
    let edits = [
        (text.replacen("user.imported", "user.created", 1), "was altered"),
        // What people read beside what is sealed.
        (
            lines.join("\n").replacen("\"by\":\"command line\"", "\"by\":\"somebody\"", 1),
            "says something else than it seals",
        ),
        (text.replacen(r#""at":"20"#, r#""at":"19"#, 1), "says something else than it seals"),
        (without(at), "is missing, row"),
        (swapped(at, at + 1), "stands in another place"),
        (lines[..lines.len() - 3].join("\n"), "rows were cut off"),
        (lines[..at].join("\n"), "rows were cut off"),
        (without(1), "checkpoints were deleted"),
        (swapped(1, lines.len() - 1), "does not belong where it stands"),
        (text.clone() + "\n{}", "is no line of an export"),
        (text.clone() + lines[lines.len() - 1], "is missing, row"),
    ];
    for (n, (edited, expected)) in edits.iter().enumerate() {
        assert_ne!(*edited, text, "{n}");
        fs::write(&file, edited).unwrap();
        let report = exported(&file, &key).await;
        let faults = report["faults"].to_string();
        assert!(faults.contains(expected), "{n}: {expected} in {faults}");
    }
    // Other keys, a filtered export, and no keys at all.
    fs::write(&file, &text).unwrap();
    let stranger = kept("").await;
    let other = stranger.path().join("keys.json");
    fs::write(&other, stranger.ok(&["audit", "public-key"]).await).unwrap();
    let faults = exported(&file, &other).await["faults"].to_string();
    assert!(faults.contains("signed by a key that is not among the public keys"), "{faults}");
    fs::write(&file, one.ok(&["audit", "export", "--event", "user.imported"]).await).unwrap();
    let [file, key] = [&file, &key].map(|path| path.to_str().unwrap());
    for wrong in [vec!["--public-key", key, "--export", file], vec!["--export", file], vec!["--public-key", file]] {
        let output = one.run(&[vec!["audit", "verify"], wrong.clone()].concat()).await;
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", all(&output));
    }
    assert_eq!(honest, verified(&one, &[]).await, "the store itself was never touched");
}

#[tokio::test]
async fn a_log_put_back_as_a_whole_shows_against_a_checkpoint_kept_elsewhere() {
    let one = kept("").await;
    let database = Database::Sqlite(one.path().join("data/doorward.db"));
    let (key, anchor) = (one.path().join("keys.json"), one.path().join("anchor.jsonl"));
    fs::write(&key, one.ok(&["audit", "public-key"]).await).unwrap();
    let old = database.copy();
    one.ok(&["users", "unban", "user1@example.com"]).await;
    signed(&one).await;
    // The lines of the checkpoints alone are enough.
    let text = one.ok(&["audit", "export"]).await;
    let kept: String =
        text.lines().filter(|line| line.starts_with("{\"checkpoint\"")).map(|line| format!("{line}\n")).collect();
    fs::write(&anchor, kept).unwrap();
    let anchor = ["--anchor", anchor.to_str().unwrap()];
    assert_eq!(by_key_alone(&database, &key, &anchor).await["faults"], json!([]));
    assert_eq!(by_key_alone(&old, &key, &[]).await["faults"], json!([]), "by itself it holds");
    let report = by_key_alone(&old, &key, &anchor).await;
    assert!(report["faults"].to_string().contains("rows were cut off"), "{report}");
}

#[tokio::test]
async fn what_is_erased_about_a_person_is_gone_from_the_log_and_the_log_still_verifies() {
    const ADA: &str = "user2@example.com";
    let mail = "[login]\nresponse_floor = \"0s\"\n[mail]\nurl = \"smtp://127.0.0.1:9\"\nfrom = \"login@example.com\"\n";
    let one = kept(mail).await;
    let mut server = one.serve_ready().await;
    // A row that knows her by the keyed hash of the address alone.
    for n in 0..8 {
        let from = format!("X-Forwarded-For: 203.0.113.{n}\r\n");
        one.post("/auth/login/request-link", &from, &json!({ "email": ADA })).await;
    }
    let limited = async || one.ok(&["audit", "export", "--event", "rate.limited"]).await;
    until("the limit is met", PATIENCE, async || limited().await.contains("address_hash").then_some(())).await;
    server.signal(Signal::TERM);
    server.exit(PATIENCE).await;
    let mine = async || one.ok(&["audit", "export", "--user", ADA]).await;
    let before = mine().await;
    assert!(before.contains("command line"), "{before}");

    let said = one.ok(&["audit", "erase", "--user", ADA]).await;
    assert!(said.contains("--apply erases them"), "{said}");
    assert_eq!(mine().await, before, "asking changes nothing");
    let said = one.ok(&["audit", "erase", "--user", ADA, "--apply", "--json"]).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(said["erased"].as_u64().unwrap() >= 3 && said["found"] == said["erased"], "{said}");
    let after = mine().await;
    for line in after.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let has_nothing = line["kind"] == "audit.erased" || line["detail"] == json!({});
        assert!(has_nothing || (line["detail"].is_null() && line["salt"] == "0".repeat(32)), "{line}");
    }
    assert!(!limited().await.contains("address_hash"), "{}", limited().await);
    let report = verified(&one, &[]).await;
    assert_eq!((&report["ok"], &report["erased"]), (&json!(true), &said["erased"]), "{report}");
    let again = one.ok(&["audit", "erase", "--user", ADA, "--apply"]).await;
    assert!(again.contains("the details of 0 rows"), "{again}");
    let wrong = one.run(&["audit", "erase", "--user", "nobody"]).await;
    assert_eq!(wrong.status.code(), Some(2));
}
