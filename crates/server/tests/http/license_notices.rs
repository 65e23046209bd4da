//! People are told by mail that a license ends, once for each step; and licenses that nobody asks for are asked for.

use std::{sync::Arc, time::Duration};

use doorward_core::{
    effects::Effects,
    id::UserId,
    license::{Holder, LicenseState, Observation},
    time::Timestamp,
    user::{Email, User},
};
use doorward_gate::license::LicenseProvider;
use doorward_store::{CreateUser, JobOutcome};
use doorward_testkit::{
    paper::{Account, Paper},
    wire::Wire,
};

use crate::{
    door::until,
    webhooks::{Told, active},
    world::{NOW, Setup, World},
};

const RULES: &str = "[[rules]]\npath = \"/*\"\nallow = [\"session\"]\napp = \"web\"\n";
const JOBS: &str = "license_reconcile = \"*/5 * * * *\"\nlicense_notices = \"0 * * * *\"";
const DAY: Duration = Duration::from_hours(24);

async fn world(provider: &Arc<Told>) -> World {
    // Nothing is asked again by itself here: what is told stays what is known.
    let license = "[license]\ntrust_for = \"90d\"\n";
    let provider = Arc::clone(provider) as Arc<dyn LicenseProvider>;
    Setup::of(&format!("{RULES}{license}")).license(provider).jobs(JOBS).start().await
}

/// Waits for the run of this job for this very moment, by whichever process.
async fn ran(world: &World, job: &str) {
    let now = world.clock.now().wall;
    for _ in 0..2000 {
        let runs = world.store().job_runs(Some(job.to_owned()), 1).await.unwrap();
        if runs.first().is_some_and(|run| run.scheduled_for == now && run.outcome == Some(JobOutcome::Done)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{job} was not run");
}

/// Subjects of the mails to this address that say that a license ends.
fn told(world: &World, email: &str) -> Vec<String> {
    let mails = world.mailbox.mails();
    let to = mails.iter().filter(|mail| mail.to.as_str() == email && mail.subject.contains("license"));
    to.map(|mail| mail.subject.clone()).collect()
}

#[tokio::test]
async fn a_user_is_told_14_and_3_days_before_and_when_the_license_has_ended_once_each() {
    let provider = Arc::new(Told::default());
    let world = world(&provider).await;
    world.browser("ada@example.com").await;
    let ada = world.store().users(None, 10).await.unwrap().remove(0);
    world.store().link_subject(ada.id, "s1".to_owned(), Effects::default()).await.unwrap();
    let end = Timestamp::from_secs(NOW).plus(DAY * 20);
    let known = Observation { expires_at: Some(end), ..active("lic-1") };
    provider.say("s1", Some(known.clone()));
    world.gate().licenses().unwrap().observe(Holder::User(ada.id), known, None).await.unwrap();

    let other = world.replica().await;
    let mut expected: Vec<&str> = Vec::new();
    for (days, subject) in [
        (5, None),
        (1, Some("Your license for app.example ends in 14 days")),
        (5, None),
        (6, Some("Your license for app.example ends in 3 days")),
        (2, None),
        (1, Some("Your license for app.example has ended")),
        (1, None),
    ] {
        world.advance(DAY * days).await;
        ran(&world, "license_notices").await;
        if let Some(subject) = subject {
            expected.push(subject);
            until(subject, || told(&world, "ada@example.com").len() >= expected.len()).await;
        }
        assert_eq!(told(&world, "ada@example.com"), expected);
    }
    // A renewed license is another matter, also for whoever was told of the old one's end.
    let renewed = Observation { expires_at: Some(end.plus(DAY * 12)), ..active("lic-1") };
    provider.say("s1", Some(renewed));
    world.gate().licenses().unwrap().refresh(Holder::User(ada.id)).await.unwrap();
    world.advance(Duration::from_hours(1)).await;
    until("the new end is told", || told(&world, "ada@example.com").len() == 4).await;
    let rows = world.store().audit_tail(0, 1000).await.unwrap();
    assert_eq!(rows.iter().filter(|row| row.kind == "license.notice_sent").count(), 4);
    other.stop().await;
}

/// A user in the store, changed before they are made.
async fn made(world: &World, email: &str, change: impl FnOnce(&mut User)) {
    let at = world.clock.now().wall;
    let mut user = User::new(UserId::mint(at, world.clock.random()), Email::parse(email).unwrap(), at);
    user.email_verified = true;
    change(&mut user);
    assert_eq!(world.store().create_user(user, Effects::default()).await, Ok(CreateUser::Created));
}

#[tokio::test]
async fn administrators_are_told_of_the_license_of_the_installation_14_and_3_days_before_and_when_it_has_ended() {
    let account = Account::generate();
    let license = format!(
        "[license]\nprovider = \"file\"\npath = \"license.lic\"\ntrust_for = \"90d\"\npublic_keys = [\"{}\"]\n",
        account.public_key()
    );
    let world = Setup::of(&format!("{RULES}{license}")).jobs(JOBS).start().await;
    let file = |days: i64| {
        let paper =
            Paper { expiry: Some((NOW + days * 86_400) * 1000), ..Paper::new("lic-1", (NOW - 40 + days) * 1000) };
        std::fs::write(world.folder().join("license.lic"), account.file(&paper)).unwrap();
    };
    file(20);
    made(&world, "root@example.com", |user| user.admin = true).await;
    made(&world, "second@example.com", |user| user.admin = true).await;
    made(&world, "unproven@example.com", |user| (user.admin, user.email_verified) = (true, false)).await;
    made(&world, "banned@example.com", |user| (user.admin, user.banned_at) = (true, Some(user.created_at))).await;
    made(&world, "user@example.com", |_| {}).await;
    let metrics = || world.server().metrics.render();
    until("the license is known", || metrics().contains("doorward_licenses{state=\"active\"} 1")).await;

    let other = world.replica().await;
    let mut expected: Vec<&str> = Vec::new();
    let admins = ["root@example.com", "second@example.com"];
    for (days, subject) in [
        (5, None),
        (1, Some("The license of app.example ends in 14 days")),
        (11, Some("The license of app.example ends in 3 days")),
        (2, None),
        (1, Some("The license of app.example has ended")),
        (1, None),
    ] {
        world.advance(DAY * days).await;
        ran(&world, "license_notices").await;
        if let Some(subject) = subject {
            expected.push(subject);
            until(subject, || admins.iter().all(|admin| told(&world, admin).len() >= expected.len())).await;
        }
        for admin in admins {
            assert_eq!(told(&world, admin), expected, "{admin}");
        }
    }
    let mails = world.mailbox.mails();
    assert!(mails.iter().all(|mail| admins.contains(&mail.to.as_str())), "{mails:?}");
    assert!(mails.iter().all(|mail| mail.text.contains("lic-1") && mail.text.contains("4 February 2027")), "{mails:?}");

    // A file that was renewed has a new end, and begins anew.
    file(30);
    until("the new file is taken", || metrics().contains("doorward_license_files_total{name=\"taken\"} 2")).await;
    world.advance(Duration::from_hours(1)).await;
    until("the new end is told", || told(&world, admins[0]).len() == 4).await;
    let rows = world.store().audit_tail(0, 1000).await.unwrap();
    assert_eq!(rows.iter().filter(|row| row.kind == "license.notice_sent").count(), 4, "one for all administrators");
    other.stop().await;
}

#[tokio::test]
async fn a_license_that_nobody_asks_about_is_asked_about_within_the_stated_time() {
    let provider = Arc::new(Told::default());
    let world = world(&provider).await;
    let licenses = world.gate().licenses().unwrap();
    let mut holders = Vec::new();
    for number in 0..5 {
        let user = world.user(&format!("user{number}@example.com")).await;
        let subject = format!("s{number}");
        world.store().link_subject(user.id, subject.clone(), Effects::default()).await.unwrap();
        licenses.observe(Holder::User(user.id), active("lic-1"), None).await.unwrap();
        holders.push((Holder::User(user.id), subject));
    }
    // Banned upstream, and no event tells of it.
    for (_, subject) in &holders {
        provider.say(subject, Some(Observation { state: LicenseState::Banned, ..active("lic-1") }));
    }
    world.advance(Duration::from_secs(3600 + 300)).await;
    let banned = async || {
        let mut count = 0;
        for (holder, _) in &holders {
            let known = world.store().license(*holder).await.unwrap().unwrap().known;
            count += usize::from(known.observation.state == LicenseState::Banned);
        }
        count
    };
    for _ in 0..1000 {
        if banned().await == holders.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(banned().await, holders.len());
    assert_eq!(provider.asked(), holders.len(), "once each");
}

#[tokio::test]
async fn metrics_show_whether_the_provider_answers_and_how_questions_went() {
    let provider = Arc::new(Told::default());
    let world = world(&provider).await;
    let user = world.user("ada@example.com").await;
    world.store().link_subject(user.id, "s1".to_owned(), Effects::default()).await.unwrap();
    let licenses = world.gate().licenses().unwrap();
    provider.say("s1", Some(active("lic-1")));
    licenses.refresh(Holder::User(user.id)).await.unwrap();
    until_metrics(&world, 1, [("answered", 1), ("unavailable", 0), ("untrusted", 0), ("misconfigured", 0)]).await;
    provider.say("s1", None);
    licenses.refresh(Holder::User(user.id)).await.unwrap_err();
    until_metrics(&world, 0, [("answered", 1), ("unavailable", 1), ("untrusted", 0), ("misconfigured", 0)]).await;
}

/// Waits until the gauge and the counters of license questions have these values.
async fn until_metrics(world: &World, is_up: u8, questions: [(&str, u64); 4]) {
    let mut expected = vec![format!("doorward_license_provider_up {is_up}")];
    expected
        .extend(questions.map(|(name, count)| format!("doorward_license_questions_total{{name=\"{name}\"}} {count}")));
    let mut text = String::new();
    for _ in 0..1000 {
        let ask = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        text = Wire::ask(world.running.admin, ask).await.text();
        if expected.iter().all(|line| text.lines().any(|found| found == line)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{expected:?} in\n{text}");
}
