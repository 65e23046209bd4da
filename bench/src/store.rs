//! What the store takes: durable sign-ins, and looking up a session that is not in memory.

use std::{env, path::Path, sync::Arc, time::Instant};

use doorward_core::{
    audit::{AuditEvent, EventKind},
    effects::Effects,
    session::TokenHash,
    user::User,
};
use doorward_store::{
    Consume, Store, StoreOptions,
    conformance::{START, link, plan},
};
use doorward_testkit::postgres::{self, Fsync};
use futures_util::future::join_all;

use crate::{
    Effort, house,
    report::{Report, Target, median},
};

const WAITERS: usize = 64;
/// Sign-ins of one turn.
const TURN: usize = WAITERS * 16;
/// Sessions that SQLite holds when they are looked up; they fit into no cache of its own.
const SESSIONS: usize = 1_000_000;

pub(crate) async fn run(report: &mut Report, effort: Effort) {
    report.table("The store", "median (best)", "");
    let folder = disk();
    let options = || StoreOptions::new(folder.path(), [7; 32]);
    let sqlite = Store::open("sqlite:figures.db", options()).unwrap();
    let sessions = if effort.is_quick { 0 } else { SESSIONS };
    measure(report, &sqlite, effort, sessions, (Target::Least(5_000.0), Target::Most(20.0))).await;
    let Some(server) = postgres::own(Fsync::On) else {
        return report.skipped("PostgreSQL", "it is missing");
    };
    let postgres = Store::open(&server.database(), options()).unwrap();
    measure(report, &postgres, effort, 0, (Target::Least(3_000.0), Target::None)).await;
}

/// A folder beside this executable: on a disk, where `/tmp` may be memory.
pub(crate) fn disk() -> tempfile::TempDir {
    let beside = env::current_exe().unwrap();
    tempfile::tempdir_in(beside.parent().unwrap_or(Path::new("."))).unwrap()
}

/// `sessions`: how many there must be at least before they are looked up.
async fn measure(report: &mut Report, store: &Store, effort: Effort, sessions: usize, targets: (Target, Target)) {
    store.wait_ready(std::time::Duration::from_secs(30)).await.unwrap();
    // One person each: sign-ins of one and the same person wait for each other on that person's row.
    let users = join_all((0..WAITERS).map(|_| house::user(store))).await;
    let turns = if effort.is_quick { 4 } else { 40 };
    let (mut hashes, mut rates): (Vec<TokenHash>, Vec<f64>) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        let (made, rate) = sign_in(store, &users, TURN).await;
        rates.push(rate);
        hashes.extend(made);
    }
    let best = rates.iter().copied().fold(0.0, f64::max);
    let rate = median(rates);
    let name = format!("{}: sign-ins per second, on disk when answered, {WAITERS} at a time", store.backend());
    report.absolute(&name, &format!("{rate:.0} ({best:.0})"), rate, targets.0);
    while hashes.len() < sessions {
        hashes.extend(sign_in(store, &users, TURN * 16).await.0);
    }

    let mut took = Vec::new();
    for hash in hashes.iter().cycle().step_by(7919).take(if effort.is_quick { 1_000 } else { 10_000 }) {
        let begin = Instant::now();
        assert!(store.session(*hash).await.unwrap().is_some());
        took.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    let best = took.iter().copied().fold(f64::MAX, f64::min);
    let micros = median(took);
    let name = format!("{}: µs to look a session up among {}, one at a time", store.backend(), hashes.len());
    report.absolute(&name, &format!("{micros:.1} ({best:.1})"), micros, targets.1);

    let hashes: Arc<[TokenHash]> = hashes.into();
    let begin = Instant::now();
    let readers = (0..WAITERS).map(|reader| {
        let (store, hashes) = (store.clone(), Arc::clone(&hashes));
        tokio::spawn(async move {
            for hash in hashes.iter().skip(reader).step_by(WAITERS) {
                assert!(store.session(*hash).await.unwrap().is_some());
            }
        })
    });
    join_all(readers).await.into_iter().for_each(|done| done.unwrap());
    let micros = begin.elapsed().as_secs_f64() * 1e6 / hashes.len() as f64;
    let name = format!("{}: the same, {WAITERS} at a time, µs each", store.backend());
    report.absolute(&name, &format!("{micros:.1}"), micros, Target::None);
    store.close().await;
}

/// Signs `count` times somebody in, one at a time for each user; their sessions, and how many a second that were.
async fn sign_in(store: &Store, users: &[User], count: usize) -> (Vec<TokenHash>, f64) {
    let links: Vec<_> = (0..count).map(|number| link(&users[number % users.len()])).collect();
    join_all(links.iter().map(|link| store.put_link(link.clone(), Effects::default()))).await;
    let waiters = users.iter().enumerate().map(|(waiter, user)| {
        let links = &links;
        async move {
            let mut mine = Vec::with_capacity(count / users.len());
            for link in links.iter().skip(waiter).step_by(users.len()) {
                let plan = plan(link, user);
                mine.push(plan.session.hash);
                let effects = Effects::audited(AuditEvent::new(EventKind::SessionCreated, START).about(user.id));
                assert_eq!(store.consume_link(plan, effects).await, Ok(Consume::Consumed));
            }
            mine
        }
    });
    let begin = Instant::now();
    let made = join_all(waiters).await;
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    (made.into_iter().flatten().collect(), rate)
}
