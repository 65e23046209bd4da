//! Licenses and the executable: the job that asks about them, and the license file that is older than what is known.

use std::{fs, time::Duration};

use doorward_core::{
    effects::Effects,
    id::UserId,
    license::{Holder, Known, LicenseState, Observation},
    time::Timestamp,
    user::{Email, User},
};
use doorward_gate::clock::Clock;
use doorward_store::{LicenseChange, Store, StoreOptions};
use doorward_testkit::{
    issuer::{self, Issuer},
    license::{LicenseServer, hub},
    paper::{Account, Paper},
    process::Signal,
};
use serde_json::{Value, json};

use super::{Installation, PATIENCE, all, until};

const ROOT: &str = "[secrets]\nroot = \"only for this test, only for this test\"\n";
const HOUR: Duration = Duration::from_hours(1);

/// The store of an installation, opened beside whoever else uses it.
async fn store(installation: &Installation) -> Store {
    let data = installation.path().join("data");
    fs::create_dir_all(&data).unwrap();
    let store = Store::open("sqlite:doorward.db", StoreOptions::new(&data, [1; 32])).unwrap();
    store.wait_ready(PATIENCE).await.unwrap();
    store
}

/// Somebody linked to `subject`, whose license was active when somebody last asked, two hours ago.
async fn holds(store: &Store, email: &str, subject: &str, license: &str) -> Holder {
    let clock = Clock::system();
    let at = clock.now().wall.minus(HOUR * 2);
    let mut user = User::new(UserId::mint(at, clock.random()), Email::parse(email).unwrap(), at);
    user.email_verified = true;
    store.create_user(user.clone(), Effects::default()).await.unwrap();
    store.link_subject(user.id, subject.to_owned(), Effects::default()).await.unwrap();
    let observation = Observation {
        state: LicenseState::Active,
        license_id: Some(license.to_owned()),
        expires_at: None,
        entitlements: Default::default(),
        observed_at: at,
    };
    let (holder, known) = (Holder::User(user.id), Known { observation, confirmed_at: at });
    let change = LicenseChange { holder, expected: None, known, event: None, at };
    store.apply_license(change, Effects::default()).await.unwrap();
    holder
}

async fn state(store: &Store, holder: Holder) -> LicenseState {
    store.license(holder).await.unwrap().unwrap().known.observation.state
}

/// The details of the audit log's rows of this kind, the oldest first.
async fn audited(installation: &Installation, kind: &str) -> Vec<Value> {
    let rows = installation.run(&["audit", "tail", "-n", "1000", "--json"]).await;
    let rows: Vec<Value> = serde_json::from_slice(&rows.stdout).unwrap_or_default();
    rows.into_iter().filter(|row| row["kind"] == kind).map(|row| row["detail"].clone()).collect()
}

#[tokio::test]
async fn the_reconciliation_that_a_command_runs_finds_what_no_request_and_no_webhook_told() {
    for is_hub in [false, true] {
        let server = LicenseServer::start(|| issuer::control::now() * 1000).await;
        let toml = if is_hub { hub::answer_with(&server, Issuer::start().await) } else { server.toml() };
        let installation = Installation::with(&format!("{ROOT}{toml}"));
        let store = store(&installation).await;
        let mut holders = Vec::new();
        for name in ["ada", "bob"] {
            let email = format!("{name}@example.com");
            let subject = server.user(&email);
            let license = server.license(&subject);
            holders.push((holds(&store, &email, &subject, &license).await, license));
        }
        let (ada, bob) = (holders[0].clone(), holders[1].clone());
        server.suspend(&ada.1);

        let said = installation.ok(&["jobs", "run", "license_reconcile"]).await;
        assert_eq!(said, "license_reconcile: asked about 2 licenses, 0 had gone\n");
        let states = (state(&store, ada.0).await, state(&store, bob.0).await);
        assert_eq!(states, (LicenseState::Suspended, LicenseState::Active));
        let changed = audited(&installation, "license.changed").await;
        let [row] = &changed[..] else { panic!("one license changed: {changed:?}") };
        assert_eq!(
            (&row["old"], &row["new"], &row["license_id"]),
            (&json!("active"), &json!("suspended"), &json!(ada.1))
        );
        let said = installation.ok(&["jobs", "run", "license_reconcile"]).await;
        assert_eq!(said, "license_reconcile: asked about 0 licenses, 0 had gone\n", "they were confirmed just now");

        // A provider that is away: the command fails and says so, and what is known stays.
        let subject = server.user("carol@example.com");
        let license = server.license(&subject);
        let carol = holds(&store, "carol@example.com", &subject, &license).await;
        server.die().await;
        let failed = installation.run(&["jobs", "run", "license_reconcile", "--json"]).await;
        assert_eq!(failed.status.code(), Some(1), "{}", all(&failed));
        let said: Value = serde_json::from_slice(&failed.stdout).unwrap();
        let text = said["text"].as_str().unwrap();
        assert!(said["outcome"] == "failed" && text.contains("1 got no answer"), "{said}");
        assert_eq!(state(&store, carol).await, LicenseState::Active);
        let runs: Vec<Value> =
            serde_json::from_str(&installation.ok(&["jobs", "list", "license_reconcile", "--json"]).await).unwrap();
        let outcomes: Vec<_> = runs.iter().map(|run| run["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["failed", "done", "done"]);
        server.revive().await;
        let said = installation.ok(&["jobs", "run", "license_reconcile"]).await;
        assert_eq!(said, "license_reconcile: asked about 1 licenses, 0 had gone\n");
        store.close().await;
    }
}

#[tokio::test]
async fn an_older_file_of_another_license_is_refused_with_the_remedy_and_counts_once_the_newer_one_is_forgotten() {
    let account = Account::generate();
    let license = format!(
        "[license]\nprovider = \"file\"\npath = \"license.lic\"\npublic_keys = [\"{}\"]\n",
        account.public_key()
    );
    let installation = Installation::with(&format!("{ROOT}{license}"));
    let put = |id: &str, days: i64| {
        let issued = Timestamp::from_secs(issuer::control::now() - days * 86_400).as_millis();
        let (place, unfinished) = (installation.path().join("license.lic"), installation.path().join("license.tmp"));
        fs::write(&unfinished, account.file(&Paper::new(id, issued))).unwrap();
        fs::rename(unfinished, place).unwrap();
    };
    let until_known = async |id: &str| {
        let what = format!("the license {id} counts");
        until(&what, PATIENCE, async || {
            let changed = audited(&installation, "license.changed").await;
            let last = changed.last()?;
            (last["new"] == "active" && last["license_id"] == id).then_some(())
        })
        .await
    };
    let until_refused = async |count: usize| {
        let (refused, _) = until("the file is refused", PATIENCE, async || {
            let refused = audited(&installation, "license.file_refused").await;
            (refused.len() == count).then_some(refused)
        })
        .await;
        refused.last().unwrap()["why"].as_str().unwrap().to_owned()
    };

    put("lic-new", 3);
    let mut server = installation.serve_ready().await;
    until_known("lic-new").await;
    put("lic-old", 10);
    let why = until_refused(1).await;
    for part in [
        "license.lic: ",
        "lic-old in it was issued before the one in use, lic-new",
        "check the license out again",
        "`doorward license forget`",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    server.signal(Signal::TERM);
    server.exit(PATIENCE).await;

    // Whoever starts now has only the old file, and is told the same.
    let server = installation.serve_ready().await;
    assert_eq!(until_refused(2).await, why, "{}", server.output());
    let said = installation.ok(&["license", "forget"]).await;
    assert_eq!(said, "forgot the license lic-new; what lies in its place counts now\n");
    until_known("lic-old").await;
    let changed = audited(&installation, "license.changed").await;
    let forgotten = &changed[changed.len() - 2];
    assert_eq!(
        (&forgotten["old"], &forgotten["new"], &forgotten["by"]),
        (&json!("active"), &Value::Null, &json!("command line"))
    );
    drop(server);
    assert_eq!(
        installation.ok(&["license", "forget"]).await,
        "forgot the license lic-old; what lies in its place counts now\n"
    );
    assert_eq!(installation.ok(&["license", "forget"]).await, "nothing is known of a license\n");
}
