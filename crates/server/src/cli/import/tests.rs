//! Files that are good, broken, repeated and interrupted.

use std::fs;

use doorward_store::Changed;
use serde_json::Value;
use tempfile::TempDir;

use super::*;

const BCRYPT: &str = "$2b$10$abcdefghijklmnopqrstuuN8H0Q7Vv3Xq1dA0G1yJ6u8m1rC2wJ3K";
const ARGON2: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$MTIzNDU2Nzg5MDEyMzQ1Ng$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";

struct Desk {
    dir: TempDir,
    store: Store,
}

impl Desk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), store: Store::memory() }
    }

    /// Imports `content` and gives back the report and the exit code.
    async fn import(&self, name: &str, content: impl AsRef<[u8]>, change: impl FnOnce(&mut Import)) -> (Value, u8) {
        let file = self.dir.path().join(name);
        fs::write(&file, content).unwrap();
        let mut import = Import { file, format: None, apply: true, dry_run: false, batch_size: 500, limit: None };
        change(&mut import);
        let mut bytes = Vec::new();
        let outcome = import.run(&self.store, &Clock::system(), &mut Out::new(&mut bytes, true)).await;
        let code = match outcome {
            Ok(()) => 0,
            Err(Failure::Said(code)) => code,
            Err(Failure::Wrong(text)) => return (text.into(), 2),
            Err(other) => panic!("{other:?}"),
        };
        (serde_json::from_slice(&bytes).unwrap(), code)
    }

    async fn user(&self, email: &str) -> Option<User> {
        self.store.user_by_email(Email::parse(email).unwrap()).await.unwrap()
    }

    async fn hash(&self, email: &str) -> Option<String> {
        let found = self.store.password(Email::parse(email).unwrap()).await.unwrap();
        found.map(|(_, hash)| hash.expose().clone())
    }

    async fn events(&self) -> Vec<String> {
        self.store.audit_tail(0, 1000).await.unwrap().into_iter().map(|row| row.kind).collect()
    }
}

fn counts(report: &Value) -> [u64; 4] {
    ["total", "created", "skipped_existing"]
        .map(|name| report[name].as_u64().unwrap())
        .into_iter()
        .chain([report["errors"].as_array().unwrap().len() as u64])
        .collect::<Vec<_>>()
        .try_into()
        .unwrap()
}

fn good() -> String {
    format!(
        "{{\"email\":\"Ada@Example.com\",\"password_hash\":\"{BCRYPT}\"}}\n\n\
         {{\"email\":\"bert@example.com\",\"pending_subject\":\"sub-1\",\"admin\":true}}\r\n\
         {{\"email\":\"cora@example.com\",\"password_hash\":null}}"
    )
}

#[tokio::test]
async fn a_file_is_looked_at_first_and_taken_with_apply() {
    let desk = Desk::new();
    let (report, code) = desk.import("people.jsonl", good(), |import| import.apply = false).await;
    assert_eq!((counts(&report), code, &report["mode"]), ([3, 3, 0, 0], 0, &"dry-run".into()));
    assert_eq!((desk.user("ada@example.com").await, desk.events().await), (None, vec![]), "nothing was written");

    let (report, code) = desk.import("people.jsonl", good(), |_| {}).await;
    assert_eq!((counts(&report), code, &report["mode"]), ([3, 3, 0, 0], 0, &"apply".into()));
    assert_eq!((&report["created_pending_verify"], &report["created_with_password"]), (&1.into(), &1.into()));
    assert_eq!(desk.hash("ada@example.com").await.as_deref(), Some(BCRYPT));
    let bert = desk.user("bert@example.com").await.unwrap();
    assert!(bert.admin && !bert.email_verified);
    assert_eq!((bert.link_status, bert.candidate_subject.as_deref()), (Some(LinkStatus::PendingVerify), Some("sub-1")));
    assert_eq!(desk.events().await, ["user.imported"; 3]);
}

#[tokio::test]
async fn an_import_that_is_run_again_goes_on_and_overwrites_nothing() {
    let desk = Desk::new();
    let limited = |import: &mut Import| (import.batch_size, import.limit) = (1, Some(2));
    let (report, code) = desk.import("people.jsonl", good(), limited).await;
    assert_eq!((counts(&report), code), ([2, 2, 0, 0], 0));
    let ada = desk.user("ada@example.com").await.unwrap();
    let banned = desk.store.set_banned(ada.id, Some(ada.created_at), Effects::default()).await;
    let Ok(Changed::Changed(banned)) = banned else { panic!("{banned:?}") };

    let other = good().replace(BCRYPT, ARGON2);
    let (report, code) = desk.import("people.jsonl", other, |_| {}).await;
    assert_eq!((counts(&report), code), ([3, 1, 2, 0], 0));
    assert_eq!(desk.user("ada@example.com").await, Some(banned));
    assert_eq!(desk.hash("ada@example.com").await.as_deref(), Some(BCRYPT));
    assert_eq!(desk.events().await, ["user.imported"; 3]);
}

#[tokio::test]
async fn csv_says_its_columns_and_quotes_what_has_commas() {
    let desk = Desk::new();
    let csv = format!(
        "\u{feff}pending_subject,email,password_hash,admin\nsub,ada@example.com,\"{ARGON2}\",\n,bert@example.com,,true\n"
    );
    let (report, code) = desk.import("people.csv", csv, |_| {}).await;
    assert_eq!((counts(&report), code), ([2, 2, 0, 0], 0), "{report}");
    assert_eq!(desk.hash("ada@example.com").await.as_deref(), Some(ARGON2));
    assert_eq!(desk.user("ada@example.com").await.unwrap().candidate_subject.as_deref(), Some("sub"));
    assert!(desk.user("bert@example.com").await.unwrap().admin);
}

#[tokio::test]
async fn a_bad_line_is_named_with_its_remedy_and_costs_no_other() {
    let desk = Desk::new();
    let mut lines: Vec<Vec<u8>> = [
        r#"{"email":"ada@example.com"}"#,
        r#"{"email":"not an address"}"#,
        r#"{"email":"x1@example.com","password_hash":"secret-md5-hash"}"#,
        r#"{"email":"x2@example.com","mail":"x"}"#,
        r#"{"email":"x3@example.com""#,
        r#"{"email":"x4@example.com","pending_subject":"a\u0007b"}"#,
        r#"{"email":"ADA@example.com","admin":true}"#,
        r#"["x5@example.com"]"#,
    ]
    .map(|line| line.as_bytes().to_vec())
    .into();
    lines.push(b"{\"email\":\"x6@example.com\xff\"}".to_vec());
    lines.push(format!("{{\"email\":\"x7@example.com\",\"x\":\"{}\"}}", "y".repeat(100_000)).into());
    lines.push(br#"{"email":"zoe@example.com"}"#.to_vec());
    let (report, code) = desk.import("people.ndjson", lines.join(&b'\n'), |_| {}).await;
    assert_eq!((counts(&report), code), ([11, 2, 0, 9], 1), "{report:#}");
    let errors = report["errors"].as_array().unwrap();
    let named: Vec<u64> = errors.iter().map(|error| error["line"].as_u64().unwrap()).collect();
    assert_eq!(named, [2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert!(errors.iter().all(|error| !error["remedy"].as_str().unwrap().is_empty()));
    assert!(errors[5]["problem"].as_str().unwrap().contains("line 1 already"), "{report:#}");
    assert!(!report.to_string().contains("secret-md5-hash"), "a hash is never repeated");
    assert!(desk.user("zoe@example.com").await.is_some());
    assert!(!desk.user("ada@example.com").await.unwrap().admin, "the first row was taken");
}

#[tokio::test]
async fn a_file_that_is_none_is_fatal() {
    let desk = Desk::new();
    for (name, content, said) in [
        ("people.txt", "x", "--format"),
        ("people.csv", "name,mail\n", "email,password_hash,pending_subject,admin"),
        ("empty.csv", "", "email"),
    ] {
        let (text, code) = desk.import(name, content, |_| {}).await;
        assert!(code == 2 && text.as_str().unwrap().contains(said), "{name}: {text}");
    }
    let gone = desk.dir.path().join("gone.jsonl");
    let (text, code) = desk.import("x.jsonl", "", |import| import.file = gone).await;
    assert!(code == 2 && text.as_str().unwrap().contains("gone.jsonl: cannot be read"), "{text}");
    desk.store.close().await;
    let (text, code) = desk.import("people.jsonl", good(), |_| {}).await;
    assert!(code == 2 && text.as_str().unwrap().contains("run the import again"), "{text}");
}
