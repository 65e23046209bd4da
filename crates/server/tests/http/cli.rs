//! The built executable: what commands print, what they leave behind, how they end.

mod license;
mod provider;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

const CONFIG: &str = r#"
public_url = "http://localhost:8080"
[apps.web]
upstream = "http://127.0.0.1:9"
[[rules]]
path = "/api/*"
methods = ["GET"]
allow = ["session"]
app = "web"
"#;

/// A folder with a configuration, and the executable run in it.
struct Installation(TempDir);

impl Installation {
    fn with(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("doorward.toml"), config).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.current_dir(self.path()).args(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DOORWARD_") {
                command.env_remove(name);
            }
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(&self.command(arguments).output().unwrap())
    }
}

/// How a command ended and what it said.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

#[test]
fn a_wrong_configuration_ends_with_two_and_names_every_problem() {
    let installation = Installation::with("base_path = \"/\"\n[session]\nidle = \"soon\"\nidel = \"5m\"\n");
    for arguments in [&["check"][..], &["users", "list"], &["explain", "--url", "/"]] {
        let ended = installation.run(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        for part in [
            "doorward.toml: public_url: the key is missing",
            "doorward.toml:1:13: base_path: ",
            "doorward.toml:3:8: session.idle: `soon` is not a duration",
            "doorward.toml:4:1: session.idel: unknown key\n    remedy: did you mean `idle`?",
            "4 problems in the configuration",
        ] {
            assert!(ended.stderr.contains(part), "{part} in\n{}", ended.stderr);
        }
    }
    let ended = installation.run(&["check", "--json"]);
    assert_eq!((ended.code, ended.json()["problems"].as_array().map(Vec::len)), (Some(2), Some(4)));
    assert!(!installation.path().join("data").exists(), "a refused start made files");
}

#[test]
fn a_missing_file_says_how_to_get_one() {
    let installation = Installation::with(CONFIG);
    let ended = installation.run(&["users", "list", "--config", "elsewhere.toml"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("elsewhere.toml") && ended.stderr.contains("doorward init"), "{}", ended.stderr);
}

#[test]
fn a_wrong_command_line_ends_with_two() {
    let installation = Installation::with(CONFIG);
    for arguments in [
        &["frobnicate"][..],
        &["users", "add", "not-an-address"],
        &["sessions", "revoke"],
        &["sessions", "revoke", "--all", "--user", "ada@example.com"],
        &["explain"],
    ] {
        assert_eq!(installation.run(arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn variables_override_the_file() {
    let installation = Installation::with(CONFIG);
    let overridden =
        installation.command(&["check", "--json"]).env("DOORWARD__SESSION__IDLE", "soon").output().unwrap();
    let problems = Ended::of(&overridden).json();
    assert_eq!(problems["problems"][0]["variable"], "DOORWARD__SESSION__IDLE");
}

#[test]
fn init_makes_a_file_that_the_other_commands_take() {
    let installation = Installation::with(CONFIG);
    let ended = installation.run(&["init", "--config", "new.toml", "--public-url", "https://app.example.com"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("doorward check --config new.toml"), "{}", ended.stdout);
    let explained = installation.run(&["explain", "--config", "new.toml", "--url", "/x", "--json"]).json();
    assert_eq!(explained["outcome"]["admits"], "session");
    assert_eq!(installation.run(&["init", "--config", "new.toml"]).code, Some(1), "it must not overwrite");
}

#[test]
fn users_live_in_the_store_from_one_command_to_the_next() {
    let installation = Installation::with(CONFIG);
    let run = |arguments: &[&str]| installation.run(arguments);
    let added = run(&["users", "add", "Ada@Example.com", "--admin", "--json"]);
    assert_eq!(added.code, Some(0), "{added:?}");
    assert_eq!(added.json()["email"], "ada@example.com");
    assert_eq!(run(&["users", "add", "ada@example.com"]).code, Some(1), "a second user with the address");

    assert_eq!(run(&["users", "ban", "ada@example.com"]).code, Some(0));
    let listed = run(&["users", "list", "--json"]).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert!(listed[0]["banned_at"].is_string());
    let explained = run(&["explain", "--url", "/api/x", "--as", "ada@example.com", "--json"]).json();
    assert_eq!(explained["as"]["reason"], "user_banned");

    assert_eq!(run(&["users", "unban", "ada@example.com"]).code, Some(0));
    let explained = run(&["explain", "--url", "/api/x", "--as", "ada@example.com", "--json"]).json();
    assert_eq!(explained["as"]["kind"], "allowed");
    assert_eq!(run(&["sessions", "revoke", "--user", "ada@example.com"]).code, Some(0));
    assert_eq!(run(&["sessions", "revoke", "--user", "nobody@example.com"]).code, Some(1));

    let verified = run(&["audit", "verify", "--json"]);
    assert_eq!((verified.code, &verified.json()["ok"]), (Some(0), &true.into()), "{verified:?}");
    let kinds: Vec<String> = run(&["audit", "tail", "--json"])
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["user.created", "user.admin_granted", "user.banned", "user.unbanned", "session.revoked"]);
    assert_eq!(run(&["audit", "tail", "-n", "1", "--json"]).json().as_array().map(Vec::len), Some(1));
}

#[test]
fn a_changed_audit_row_is_found() {
    let installation = Installation::with(CONFIG);
    assert_eq!(installation.run(&["users", "add", "ada@example.com"]).code, Some(0));
    let database = rusqlite::Connection::open(installation.path().join("data/doorward.db")).unwrap();
    let changed = database.execute("UPDATE audit SET detail = replace(detail, 'command', 'Command')", []).unwrap();
    assert_eq!(changed, 1);
    drop(database);
    let verified = installation.run(&["audit", "verify"]);
    assert_eq!(verified.code, Some(1), "{verified:?}");
    assert!(verified.stdout.contains("the detail of row 1 was altered"), "{}", verified.stdout);
}

#[test]
fn explaining_a_url_needs_no_store() {
    let installation = Installation::with(CONFIG);
    let ended = installation.run(&["explain", "--url", "http://localhost:8080/api/x", "--method", "DELETE"]);
    assert_eq!(ended.code, Some(0));
    assert!(ended.stdout.contains("403 rule_denies"), "{}", ended.stdout);
    assert!(!installation.path().join("data").exists(), "explain made a store");
}

#[test]
fn a_token_may_come_on_standard_input() {
    use std::io::Write as _;
    let installation = Installation::with(CONFIG);
    let mut child = installation
        .command(&["explain", "--token", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"not a token\n").unwrap();
    let ended = Ended::of(&child.wait_with_output().unwrap());
    assert!(ended.stdout.contains("token_malformed"), "{ended:?}");
}

#[test]
fn docs_prints_a_page_and_names_those_there_are() {
    let installation = Installation::with(CONFIG);
    let page = installation.run(&["docs", "config"]);
    assert!(page.code == Some(0) && page.stdout.contains("# Configuration"), "{}", page.stdout);
    let unknown = installation.run(&["docs", "nothing"]);
    assert!(unknown.code == Some(2) && unknown.stderr.contains("there are reasons, config, "), "{}", unknown.stderr);
    assert_eq!(installation.run(&["docs", "--write", "out"]).code, Some(0));
    assert!(installation.path().join("out/reasons.md").exists());
}
