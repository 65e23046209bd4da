//! Prints what one operation costs here: `cargo run --release -p doorward-store --example figures --features
//! sqlite,postgres,conformance [URL]`. Without a URL: SQLite in a folder beside this one, removed at the end.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement, not a product"
)]

use std::time::{Duration, Instant};

use doorward_core::{audit::AuditEvent, audit::EventKind, effects::Effects, session::TokenHash};
use doorward_store::{
    Consume, Store, StoreOptions,
    conformance::{START, link, plan, user},
};
use futures_util::future::join_all;

const WAITERS: usize = 64;
const SESSIONS: usize = 20_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = std::env::temp_dir().join(format!("doorward-figures-{}", std::process::id()));
    let url = std::env::args().nth(1).unwrap_or_else(|| "sqlite:figures.db".to_owned());
    let begin = Instant::now();
    let store = Store::open(&url, StoreOptions::new(&folder, [7; 32])).unwrap();
    store.wait_ready(Duration::from_secs(30)).await.unwrap();
    println!("{}: open and migrate {:?}", store.backend(), begin.elapsed());
    let user = user();
    store.create_user(user.clone(), Effects::default()).await.unwrap();

    let mut hashes: Vec<TokenHash> = Vec::new();
    let mut spent = Duration::ZERO;
    while hashes.len() < SESSIONS {
        let links: Vec<_> = (0..WAITERS * 8).map(|_| link(&user)).collect();
        join_all(links.iter().map(|link| store.put_link(link.clone(), Effects::default()))).await;
        let begin = Instant::now();
        let waiters = (0..WAITERS).map(|waiter| {
            let (store, links, user) = (&store, &links, &user);
            async move {
                let mut mine = Vec::new();
                for link in links.iter().skip(waiter).step_by(WAITERS) {
                    let plan = plan(link, user);
                    mine.push(plan.session.hash);
                    let effects = Effects::audited(AuditEvent::new(EventKind::SessionCreated, START).about(user.id));
                    assert_eq!(store.consume_link(plan, effects).await, Ok(Consume::Consumed));
                }
                mine
            }
        });
        hashes.extend(join_all(waiters).await.into_iter().flatten());
        spent += begin.elapsed();
    }
    let rate = hashes.len() as f64 / spent.as_secs_f64();
    println!("sign-ins (consume, session, audit; durable), {WAITERS} waiters: {rate:.0}/s");

    for round in 0..3 {
        let begin = Instant::now();
        for hash in hashes.iter().cycle().skip(round * 1000).step_by(7).take(5000) {
            store.session(*hash).await.unwrap().unwrap();
        }
        println!("session look-up, one at a time: {:?}", begin.elapsed() / 5000);
    }
    let begin = Instant::now();
    let readers = (0..WAITERS).map(|reader| {
        let (store, hashes) = (store.clone(), hashes.clone());
        tokio::spawn(async move {
            for hash in hashes.iter().skip(reader).step_by(WAITERS) {
                store.session(*hash).await.unwrap().unwrap();
            }
        })
    });
    join_all(readers).await;
    println!("session look-up, {WAITERS} at a time: {:?}", begin.elapsed() / u32::try_from(hashes.len()).unwrap());
    let begin = Instant::now();
    let touches = hashes.iter().map(|hash| (*hash, START.plus(Duration::from_secs(60)))).collect();
    store.touch_sessions(touches).await.unwrap();
    println!("touch, batched: {:?}", begin.elapsed() / u32::try_from(hashes.len()).unwrap());
    store.close().await;
    std::fs::remove_dir_all(folder).ok();
}
