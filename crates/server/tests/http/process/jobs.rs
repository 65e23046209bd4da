//! Jobs of the executable: replicas, a process that is killed, and the command beside a running server.

use std::collections::BTreeMap;

use doorward_testkit::{
    port, postgres,
    process::{Process, Signal},
    upstream::RawUpstream,
    wire::Wire,
};
use serde_json::{Value, json};

use super::{Installation, PATIENCE, all, until};

/// Those that run without a license provider.
const JOBS: [&str; 5] = ["purge", "outbox", "refresh", "checkpoint", "cutover"];
/// Those that need one.
const LICENSES: [&str; 2] = ["license_reconcile", "license_notices"];

/// All jobs at one time of the day, so that no slot comes while a test runs, unless the test runs at that minute.
fn daily() -> String {
    JOBS.map(|job| format!("{job} = \"0 0 * * *\"\n")).concat()
}

/// `jobs list` with a name.
async fn runs(installation: &Installation, job: &str) -> Vec<Value> {
    serde_json::from_str(&installation.ok(&["jobs", "list", job, "--json"]).await).unwrap()
}

async fn audited(installation: &Installation) -> Vec<Value> {
    let rows = installation.ok(&["audit", "tail", "-n", "1000", "--json"]).await;
    let rows: Vec<Value> = serde_json::from_str(&rows).unwrap();
    rows.into_iter().filter(|row| row["kind"] == "job.failed").collect()
}

/// One more server on the same folder or database, with its own ports; gives back that of metrics.
fn replica(installation: &Installation) -> (Process, u16) {
    let [http, admin] = [port::free(), port::free()];
    let mut command = installation.command(&["serve"]);
    command.env("DOORWARD__LISTEN__HTTP", format!("127.0.0.1:{http}"));
    command.env("DOORWARD__LISTEN__ADMIN", format!("127.0.0.1:{admin}"));
    (Process::start("doorward", &mut command), admin)
}

/// How many runs a server counted as done, by job.
async fn done(admin: u16) -> BTreeMap<String, u64> {
    let request = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    let text = Wire::ask((std::net::Ipv4Addr::LOCALHOST, admin).into(), request).await.text();
    let lines = text.lines().filter_map(|line| line.strip_prefix("doorward_job_runs_total{name=\""));
    let read = |line: &str| {
        let (job, rest) = line.split_once('"')?;
        let (outcome, count) = rest.split_once("} ")?;
        assert_eq!(outcome, ",outcome=\"done\"", "{text}");
        Some((job.to_owned(), count.parse().unwrap()))
    };
    lines.filter_map(read).collect()
}

async fn two_replicas(store: &str) {
    let installation = Installation::with(&format!(
        "{store}[secrets]\nroot = \"only for this test, only for this test\"\n[jobs]\n{}",
        daily()
    ));
    let servers = [replica(&installation), replica(&installation)];
    let mut last = BTreeMap::new();
    until("every job has run", PATIENCE, async || {
        // Commands need the tables that the servers make.
        let listed = installation.run(&["jobs", "list", "--json"]).await;
        let listed: Vec<Value> = serde_json::from_str(&String::from_utf8_lossy(&listed.stdout)).ok()?;
        last = listed.into_iter().map(|job| (job["name"].as_str().unwrap().to_owned(), job)).collect();
        assert_eq!(
            LICENSES.map(|job| last[job]["schedule"].as_str().unwrap()),
            ["off"; 2],
            "nobody is asked about licenses"
        );
        JOBS.iter().all(|job| last[*job]["last_run"]["outcome"] == "done").then_some(())
    })
    .await;
    let mut stored = BTreeMap::new();
    for job in JOBS {
        let runs = runs(&installation, job).await;
        assert!(runs.iter().all(|run| run["attempts"] == 1 && run["outcome"] == "done"), "{runs:?}");
        assert!(runs.iter().all(|run| run["started_at"].is_string() && run["finished_at"].is_string()), "{runs:?}");
        stored.insert(job.to_owned(), runs.len() as u64);
        assert!(last[job]["next"].as_str().unwrap().ends_with("T00:00:00Z"), "{last:?}");
        assert!(last[job]["last_success"].is_string(), "{last:?}");
    }
    // One slot, or two if midnight has just come.
    assert!(stored.values().all(|count| (1..=2).contains(count)), "{stored:?}");
    // A run is counted after it was written down.
    until("the two servers together have run each slot once", PATIENCE, async || {
        let mut sum = BTreeMap::new();
        for (_, admin) in &servers {
            for (job, count) in done(*admin).await {
                *sum.entry(job).or_insert(0) += count;
            }
        }
        assert!(sum.iter().all(|(job, count)| stored[job] >= *count), "{sum:?} of {stored:?}");
        (sum == stored).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_servers_on_one_sqlite_file_run_the_slot_that_both_find_due_once() {
    two_replicas("").await;
}

#[tokio::test]
async fn two_servers_on_one_postgresql_run_the_slot_that_both_find_due_once() {
    let Some(server) = postgres::shared() else { return };
    two_replicas(&format!("[store]\nurl = \"{}\"\n", server.database())).await;
}

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_of_a_run_leaves_a_row_that_says_so_and_the_next_one_runs_it_again() {
    // It never hangs up by itself, however long the commands beside the run take.
    let silent = RawUpstream::with(|mut conversation| async move {
        conversation.request().await;
        std::future::pending::<()>().await;
    })
    .await;
    let issuer = format!(
        "[[issuers]]\nname = \"main\"\nissuer = \"https://sso.example\"\naudiences = [\"app\"]\n\
         keys = {{ jwks_url = \"{}/keys\", fetch_timeout = \"60s\" }}\n",
        silent.url()
    );
    let installation = Installation::with(&format!("[jobs]\n{}{issuer}", daily()));
    let mut server = installation.serve_ready().await;
    let (slot, _) = until("the run has begun", PATIENCE, async || {
        runs(&installation, "refresh").await.first().map(|run| run["scheduled_for"].clone())
    })
    .await;
    server.signal(Signal::KILL);
    server.exit(PATIENCE).await;
    let run_of = async || {
        let of_slot = |run: &Value| run["scheduled_for"] == slot;
        runs(&installation, "refresh").await.into_iter().find(of_slot).unwrap()
    };
    let left = run_of().await;
    assert_eq!((&left["outcome"], &left["finished_at"]), (&json!("running"), &Value::Null), "its lease has not ended");
    // Six minutes pass.
    let database = rusqlite::Connection::open(installation.path().join("data/doorward.db")).unwrap();
    // One row, unless midnight came in between.
    let ended = database.execute("UPDATE job_runs SET lease_until = 1 WHERE job = 'refresh'", []).unwrap();
    assert!((1..=2).contains(&ended), "{ended}");
    drop(database);
    assert_eq!(run_of().await["outcome"], "lost");
    installation.configure(&format!("[jobs]\n{}", daily()));
    let server = installation.serve_ready().await;
    let again = until("the slot is run again", PATIENCE, async || {
        let run = run_of().await;
        (run["outcome"] != "lost" && run["outcome"] != "running").then_some(run)
    });
    let (again, _) = again.await;
    // Where midnight came in between, the old slot is only written down.
    assert!(["done", "failed"].contains(&again["outcome"].as_str().unwrap()), "{again}");
    let lost = audited(&installation).await;
    assert!((1..=ended).contains(&lost.len()), "{lost:?}");
    assert!(lost[0].to_string().contains("refresh") && lost[0].to_string().contains("lost"), "{lost:?}");
    drop(server);
}

#[tokio::test]
async fn a_command_runs_a_job_beside_a_running_server_and_says_how_it_went() {
    let dead = format!("http://127.0.0.1:{}/keys", port::free());
    let installation = Installation::with(&format!(
        "[jobs]\n{}[[issuers]]\nname = \"main\"\nissuer = \"https://sso.example\"\naudiences = [\"app\"]\n\
         keys = {{ jwks_url = \"{dead}\" }}\n",
        JOBS.map(|job| format!("{job} = \"off\"\n")).concat()
    ));
    let _server = installation.serve_ready().await;
    let never = installation.ok(&["jobs", "list"]).await;
    assert_eq!(
        never.matches("never").count(),
        (JOBS.len() + LICENSES.len()) * 3,
        "all jobs are off, and none has run:\n{never}"
    );
    for job in ["purge", "outbox", "checkpoint", "cutover"] {
        let said: Value = serde_json::from_str(&installation.ok(&["jobs", "run", job, "--json"]).await).unwrap();
        assert_eq!((&said["job"], &said["outcome"]), (&json!(job), &json!("done")));
        let [run] = &runs(&installation, job).await[..] else { panic!("one run of {job}") };
        assert_eq!((&run["outcome"], &run["attempts"], &run["error"]), (&json!("done"), &json!(1), &Value::Null));
    }
    for job in LICENSES {
        assert!(installation.ok(&["jobs", "run", job]).await.contains("there is no license provider"));
    }
    assert!(installation.ok(&["audit", "verify"]).await.contains(" checkpoints, the newest of 20"));

    let failed = installation.run(&["jobs", "run", "refresh"]).await;
    assert_eq!(failed.status.code(), Some(1), "{}", all(&failed));
    assert!(all(&failed).contains("refresh failed: main: "), "{}", all(&failed));
    let failed = installation.run(&["jobs", "run", "refresh", "--json"]).await;
    let said: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!((failed.status.code(), &said["outcome"]), (Some(1), &json!("failed")));
    let [newest, _] = &runs(&installation, "refresh").await[..] else { panic!("two runs") };
    assert!(newest["error"].as_str().unwrap().starts_with("main: "), "{newest}");
    let table = installation.ok(&["jobs", "list"]).await;
    let line = table.lines().find(|line| line.starts_with("refresh")).unwrap();
    assert!(line.contains("off") && line.contains("failed") && line.contains("main: "), "{line}");
    assert_eq!(audited(&installation).await.len(), 2);

    let unknown = installation.run(&["jobs", "run", "everything"]).await;
    assert_eq!(unknown.status.code(), Some(2));
    assert!(all(&unknown).contains("possible values: purge, outbox"), "{}", all(&unknown));
}

#[tokio::test]
async fn a_schedule_that_cannot_be_read_names_its_key_and_a_remedy() {
    let installation =
        Installation::with("[jobs]\npurge = \"61 * * * *\"\noutbox = \"daily\"\nclean = \"* * * * *\"\n");
    let ended = installation.run(&["check"]).await;
    let said = all(&ended);
    assert_eq!(ended.status.code(), Some(2), "{said}");
    for part in [
        "jobs.purge: `61` is no minute: the number is too small or too large",
        "jobs.outbox: a schedule has five fields (minute hour day month weekday), and this has 1",
        "jobs.clean: unknown key",
        "`outbox = \"*/10 * * * *\"`",
        "or `off`",
    ] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
}
