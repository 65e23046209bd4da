//! What a request makes of what is known, and when somebody is asked.

use doorward_core::{
    effects::Effects,
    license::{LicenseTime, Licensed, Plan, SaidBy, Verdict, plan},
    reason::Reason,
    revocation::{NewRevocation, Scope},
};
use doorward_gate::{gate::Checked, license::Applied};
use doorward_store::{LicenseChange, LicenseEventMark};

use super::*;

#[tokio::test]
async fn the_first_request_asks_and_the_next_ones_are_decided_from_memory() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    let request = ada.get();
    assert!(matches!(world.house.check(&request), Checked::Pending(_)));
    let decision = world.house.decide(&request).await;
    let grant = decision.outcome.unwrap();
    assert_eq!(grant.license.as_ref().map(Licensed::status), Some("active"));
    assert_eq!(world.vendor.asked(), 1);
    for _ in 0..1000 {
        let checked = world.house.check(&request);
        assert!(matches!(checked, Checked::Ready(ref decision) if decision.outcome.is_ok()));
    }
    assert_eq!(world.vendor.asked(), 1);
    let question = lock(&world.vendor.0.asked)[0].clone();
    let Question { holder, license_id, subject, email, judged_at } = question;
    let wanted = (ada.holder, None, None, Some(ada.user.email), START);
    assert_eq!((holder, license_id, subject, email, judged_at), wanted);
}

#[tokio::test]
async fn every_state_of_a_license_has_its_reason_and_writing_ends_first() {
    let ended = START.minus(DAY);
    for (book, get, post) in [
        (Book::of(LicenseState::Active), None, None),
        (Book::of(LicenseState::ActiveBeyondExpiry).until(ended), None, None),
        (Book::of(LicenseState::Active).until(ended), None, Some(Reason::LicenseExpiredGrace)),
        (Book::of(LicenseState::Expired).until(ended), None, Some(Reason::LicenseExpiredGrace)),
        (
            Book::of(LicenseState::Active).until(START.minus(POLICY.grace)),
            Some(Reason::LicenseExpired),
            Some(Reason::LicenseExpired),
        ),
        (Book::of(LicenseState::Suspended), Some(Reason::LicenseSuspended), Some(Reason::LicenseSuspended)),
        (Book::of(LicenseState::Banned), Some(Reason::LicenseBanned), Some(Reason::LicenseBanned)),
        (Book::of(LicenseState::None), Some(Reason::LicenseNone), Some(Reason::LicenseNone)),
        (Book::of(LicenseState::Invalid), Some(Reason::LicenseInvalid), Some(Reason::LicenseInvalid)),
    ] {
        let world = World::new().await;
        let ada = world.person("ada@example.com").await;
        world.vendor.book(ada.holder, book.clone());
        let refused = |reason: Option<Reason>| reason.map_or(Ok(()), Err);
        assert_eq!(world.house.ask(&ada.get()).await, refused(get), "{book:?}");
        assert_eq!(world.house.ask(&ada.post()).await, refused(post), "{book:?}");
    }
}

#[tokio::test]
async fn a_pass_in_grace_says_how_many_days_are_left() {
    let world = World::new().await;
    let ada = world.person("ada@example.com").await;
    world.vendor.book(ada.holder, Book::of(LicenseState::Active).until(START.minus(DAY)));
    let grant = world.house.decide(&ada.get()).await.outcome.unwrap();
    assert_eq!(grant.license.unwrap().grace_days(), Some(6));
}

#[tokio::test]
async fn a_socket_is_no_reading() {
    let world = World::new().await;
    let ada = world.person("ada@example.com").await;
    world.vendor.book(ada.holder, Book::of(LicenseState::Active).until(START.minus(DAY)));
    let upgrade = ada
        .get()
        .with("connection", "upgrade")
        .with("upgrade", "websocket")
        .with("sec-websocket-version", "13")
        .with("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert!(upgrade.facts().is_upgrade);
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    assert_eq!(world.house.ask(&upgrade).await, Err(Reason::LicenseExpiredGrace));
}

#[tokio::test]
async fn what_else_is_wrong_with_a_request_is_found_before_anybody_is_asked() {
    let mut rule = licensed(LicenseMode::Active);
    rule.require.capability = Some("deploy".to_owned());
    let world = World::of(vec![rule], true).await;
    let ada = world.licensee(LicenseState::None).await;
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::MissingCapability));
    assert_eq!(world.vendor.asked(), 0);
}

#[tokio::test]
async fn a_rule_that_asks_for_no_license_asks_nobody() {
    let world = World::of(vec![licensed(LicenseMode::None)], true).await;
    let ada = world.licensee(LicenseState::None).await;
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    assert_eq!(world.vendor.asked(), 0);
}

#[tokio::test]
async fn shortly_before_its_time_an_answer_is_asked_for_again_and_nobody_waits() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    world.advance(TTL / 4 * 3 - Duration::from_millis(1)).await;
    assert!(matches!(world.house.check(&ada.get()), Checked::Ready(_)));
    settle(&world.house.gate).await;
    assert_eq!(world.vendor.asked(), 1, "it is young enough");
    world.advance(TTL / 4 - Duration::from_millis(1)).await;
    assert!(matches!(world.house.check(&ada.get()), Checked::Ready(_)));
    settle(&world.house.gate).await;
    assert_eq!(world.vendor.asked(), 2);
    // For holders in use it never gets old.
    for _ in 0..50 {
        world.advance(TTL - Duration::from_millis(200)).await;
        assert!(matches!(world.house.check(&ada.get()), Checked::Ready(_)));
        settle(&world.house.gate).await;
    }
    assert_eq!(world.vendor.asked(), 52);
}

#[tokio::test]
async fn what_is_older_than_its_time_is_asked_for_and_the_answer_counts() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    world.vendor.book(ada.holder, Book::of(LicenseState::Suspended));
    world.advance(TTL / 2).await;
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    world.advance(TTL / 2).await;
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseSuspended));
}

#[tokio::test]
async fn a_hundred_requests_ask_one_question() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    let requests: Vec<Asked> = (0..100).map(|_| ada.get()).collect();
    let pending: Vec<Checked> = requests.iter().map(|request| world.house.check(request)).collect();
    let decisions = futures_util::future::join_all(pending.into_iter().map(Checked::decision)).await;
    assert!(decisions.iter().all(|decision| decision.outcome.is_ok()));
    assert_eq!(world.vendor.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn sixteen_questions_are_under_way_at_once_at_most() {
    let world = World::new().await;
    world.vendor.take(Duration::from_millis(1));
    let mut people = Vec::new();
    for n in 0..60 {
        let person = world.person(&format!("u{n}@example.com")).await;
        world.vendor.book(person.holder, Book::of(LicenseState::Active));
        people.push(person);
    }
    let answers = people.iter().map(|person| async { world.house.ask(&person.get()).await });
    assert!(futures_util::future::join_all(answers).await.iter().all(Result::is_ok));
    assert_eq!(world.vendor.asked(), 60);
    assert_eq!(world.vendor.0.most_under_way.load(Ordering::SeqCst), 16);
}

#[tokio::test]
async fn whoever_has_just_paid_gets_in_and_whoever_has_not_does_not_flood_the_vendor() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::None).await;
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseNone));
    assert_eq!(world.vendor.asked(), 1);
    for _ in 0..100 {
        assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseNone));
    }
    assert_eq!(world.vendor.asked(), 1, "refusals ask once in thirty seconds");
    world.vendor.book(ada.holder, Book::of(LicenseState::Active));
    world.advance(Duration::from_secs(30)).await;
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    assert_eq!(world.vendor.asked(), 2);
}

#[tokio::test]
async fn a_refusal_from_memory_is_confirmed_by_the_store() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Suspended).await;
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseSuspended));
    // Another process writes that the license is fine; its entry in the log is not read here yet.
    let known = world.house.store.license(ada.holder).await.unwrap().unwrap().known;
    world.advance(Duration::from_secs(1)).await;
    let now = world.house.clock.now().wall;
    let said = Book::of(LicenseState::Active).said_at(now);
    let Plan::Changed { new, .. } = plan(Some(&known), said, SaidBy::Provider, &LicenseTime::at(now)) else {
        panic!("it says something else")
    };
    let change = LicenseChange { holder: ada.holder, expected: Some(known), known: new, event: None, at: now };
    world.house.store.apply_license(change, Effects::default()).await.unwrap();
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    assert_eq!(world.vendor.asked(), 1, "and the vendor was not needed for it");
}

#[tokio::test]
async fn a_change_is_in_force_here_at_once_and_elsewhere_with_the_next_look_at_the_log() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    let replica = House::unread(world.house.store.clone(), vec![licensed(LicenseMode::ActiveOrGraceRead)]);
    replica.gate.use_licenses(Some(parts(&world.vendor)));
    replica.gate.follow().await;
    assert_eq!(replica.ask(&ada.get()).await, Ok(()));
    assert_eq!(world.vendor.asked(), 1, "what one process learnt another need not ask");

    let at = world.house.clock.now().wall.plus(Duration::from_millis(1));
    let suspended = Book::of(LicenseState::Suspended).said_at(at);
    world.vendor.book(ada.holder, Book::of(LicenseState::Suspended));
    let mark = LicenseEventMark { id: Some("event-1".to_owned()), seq: None };
    let applied = world.licenses().observe(ada.holder, suspended.clone(), Some(mark.clone())).await.unwrap();
    let (old, new) = (Some(LicenseState::Active), LicenseState::Suspended);
    assert_eq!(applied, Applied::Changed { old, new });
    let again = world.licenses().observe(ada.holder, suspended, Some(mark)).await.unwrap();
    assert_eq!(again, Applied::Repeated);
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseSuspended));
    assert_eq!(replica.ask(&ada.get()).await, Ok(()), "it has not looked yet");
    replica.gate.follow().await;
    assert_eq!(replica.ask(&ada.get()).await, Err(Reason::LicenseSuspended));

    let older = Book::of(LicenseState::Active).said_at(START.minus(DAY));
    assert_eq!(world.licenses().observe(ada.holder, older, None).await.unwrap(), Applied::Older);
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseSuspended));
}

#[tokio::test]
async fn every_change_is_audited_with_old_and_new_state_and_a_confirmation_is_not() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    let licenses = world.licenses();
    let first = licenses.refresh(ada.holder).await.unwrap();
    assert_eq!(first, Applied::Changed { old: None, new: LicenseState::Active });
    assert_eq!(licenses.refresh(ada.holder).await.unwrap(), Applied::Confirmed);
    world.vendor.book(ada.holder, Book::of(LicenseState::Banned));
    licenses.refresh(ada.holder).await.unwrap();
    let rows = world.house.store.audit_tail(0, 100).await.unwrap();
    let rows: Vec<_> = rows.iter().filter(|row| row.kind == "license.changed").collect();
    let details: Vec<serde_json::Value> =
        rows.iter().map(|row| serde_json::from_str(row.detail.as_deref().unwrap()).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.user_id == Some(ada.user.id)));
    let states: Vec<_> = details.iter().map(|detail| (detail["old"].clone(), detail["new"].clone())).collect();
    assert!(states.contains(&(serde_json::Value::Null, "active".into())), "{states:?}");
    assert!(states.contains(&("active".into(), "banned".into())), "{states:?}");
}

#[tokio::test]
async fn while_the_log_is_behind_the_rule_decides_whether_memory_counts() {
    let stale_passes = Rule { on_stale: doorward_core::rule::OnStale::Allow, ..licensed(LicenseMode::Active) };
    for (rule, verdict) in [(licensed(LicenseMode::Active), Err(Reason::SharedUnavailable)), (stale_passes, Ok(()))] {
        let world = World::of(vec![rule], true).await;
        let ada = world.licensee(LicenseState::Active).await;
        assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
        world.house.clock.advance(Duration::from_secs(3));
        assert_eq!(world.house.ask(&ada.get()).await, verdict);
    }
}

#[tokio::test]
async fn a_clock_that_is_moved_back_brings_no_license_back_also_not_after_a_restart() {
    let world = World::new().await;
    let ada = world.person("ada@example.com").await;
    world.vendor.book(ada.holder, Book::of(LicenseState::Active).until(START.plus(DAY)));
    assert_eq!(world.house.ask(&ada.post()).await, Ok(()));
    world.advance(DAY * 2).await;
    assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseExpiredGrace));
    world.house.clock.set_wall(START);
    assert_eq!(world.house.ask(&ada.post()).await, Err(Reason::LicenseExpiredGrace));
    // The process ends in order, and another one begins with the clock as it is now.
    let mut house = world.house;
    let task = house.task.take().unwrap();
    house.gate.run(task, async {}).await;
    let next = House::unread(house.store.clone(), vec![licensed(LicenseMode::ActiveOrGraceRead)]);
    next.gate.use_licenses(Some(parts(&world.vendor)));
    next.gate.follow().await;
    assert_eq!(next.ask(&ada.post()).await, Err(Reason::LicenseExpiredGrace));
    let standing = next.gate.licenses().unwrap().standing(ada.holder).await.unwrap().standing;
    assert!(matches!(standing.verdict, Verdict::ReadOnly { .. }));
}

#[tokio::test]
async fn an_entitlement_is_asked_for_by_name_and_comes_with_the_next_answer() {
    let mut rule = licensed(LicenseMode::Active);
    rule.require.entitlements = vec!["SSO".to_owned()];
    let world = World::of(vec![rule], true).await;
    let ada = world.licensee(LicenseState::Active).await;
    let denial = world.house.decide(&ada.get()).await.outcome.unwrap_err();
    assert_eq!(denial.reason, Reason::LicenseEntitlementMissing);
    assert_eq!(denial.detail().unwrap().required.as_deref(), Some("SSO"));
    world.vendor.book(ada.holder, Book::of(LicenseState::Active).with("SSO"));
    world.advance(Duration::from_secs(30)).await;
    let grant = world.house.decide(&ada.get()).await.outcome.unwrap();
    assert_eq!(grant.license.unwrap().entitlements().map(BTreeSet::len), Some(1));
}

#[tokio::test]
async fn a_user_who_changed_is_read_again() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
    world.house.store.link_subject(ada.user.id, "kg-1".to_owned(), Effects::default()).await.unwrap();
    let blocked = |subject: &str| Scope::Subject { issuer: "main".to_owned(), subject: subject.to_owned() };
    world.house.revoke(blocked("kg-1")).await;
    let entry: NewRevocation = world.house.revocation(Scope::User { id: ada.user.id });
    world.house.store.append(Effects::default().with_revocation(entry)).await.unwrap();
    world.house.gate.follow().await;
    assert_eq!(world.house.ask(&ada.get()).await, Err(Reason::LicenseBlocked));
    world.house.revoke(Scope::Lifted { scope: Box::new(blocked("kg-1")) }).await;
    world.house.gate.follow().await;
    assert_eq!(world.house.ask(&ada.get()).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_ban_that_is_heard_of_while_the_license_is_asked_about_keeps_its_user_out() {
    let world = World::new().await;
    let ada = world.licensee(LicenseState::Active).await;
    world.vendor.take(Duration::from_millis(500));
    let request = ada.get();
    let mut decision = std::pin::pin!(world.house.decide(&request));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut decision).await.is_err());
    assert_eq!(world.vendor.asked(), 1, "the key was read, and the license is asked about");
    world.house.ban(&ada.user).await;
    world.house.gate.follow().await;
    assert_eq!(decision.await.outcome.unwrap_err().reason, Reason::UserBanned);
}
