//! What the time of an answer tells about an address.

use super::{
    RULES,
    links::now,
    magic::{ADA, ask, closed},
    statistics,
};
use crate::world::Setup;

#[tokio::test]
async fn nobody_can_time_whether_an_address_is_known() {
    const PAIRS: usize = 1000;
    // The floor is off: what is measured is the work.
    let world = closed().await;
    for n in 0..8 {
        world.user(&format!("known{n}@example.com")).await;
    }
    let mut series: [Vec<f64>; 2] = Default::default();
    for n in 0..PAIRS {
        // Interleaved, each first as often as second; from clients and to addresses within their limits and over
        // them, in both series alike.
        for kind in [n % 2, 1 - n % 2] {
            let name = if kind == 0 { "known" } else { "other" };
            let email = format!("{name}{}@example.com", n % 8);
            let mut browser = world.visitor().with("X-Forwarded-For", &format!("10.{}.{}.{kind}", n / 200, n % 200));
            let started = now();
            let answer = ask(&mut browser, &email).await;
            series[kind].push(started.elapsed().as_secs_f64() * 1e3);
            assert_eq!(answer.status, 200);
        }
    }
    let [known, unknown] = &series;
    let superiority = statistics::superiority(known, unknown);
    let z = statistics::z(superiority, PAIRS, PAIRS);
    let apart = statistics::median(known) - statistics::median(unknown);
    eprintln!(
        "FIGURE known against unknown: P(known > unknown) = {superiority:.3}, z = {z:.1}, medians {apart:.3} ms apart"
    );
    assert!((0.44..=0.56).contains(&superiority), "{superiority} z {z}");
    // A tenth of what an answer takes here: where one takes ten, half a millisecond is what chance makes.
    let usual = statistics::median(unknown);
    assert!(apart.abs() < (usual * 0.1).max(0.5), "{apart} ms of {usual} ms");
}

#[tokio::test]
async fn twenty_tries_of_each_kind_behind_the_floor_spread_by_less_than_fifty_milliseconds() {
    const TRIES: usize = 20;
    let world = Setup::of(RULES).login("response_floor = \"250ms\"").start().await;
    world.user(ADA).await;
    let mut noisy = Vec::new();
    // A machine that is busy with something else spreads everything: such a round says nothing, and is played again.
    for round in 0..5 {
        let mut series: [Vec<f64>; 2] = Default::default();
        for n in 0..TRIES {
            for kind in [n % 2, 1 - n % 2] {
                let email = if kind == 0 { ADA } else { "nobody@example.com" };
                let mut browser = world.visitor().with("X-Forwarded-For", &format!("10.{round}.{n}.{kind}"));
                let started = now();
                ask(&mut browser, email).await;
                series[kind].push(started.elapsed().as_secs_f64() * 1e3);
            }
        }
        let [known, unknown] = &series;
        assert!(known.iter().chain(unknown).all(|took| *took >= 250.0), "{series:?}");
        let spreads = [statistics::spread(known), statistics::spread(unknown)];
        let apart = (statistics::median(known) - statistics::median(unknown)).abs();
        if spreads.iter().all(|spread| *spread < 50.0) && apart < 50.0 {
            return;
        }
        noisy.push((spreads, apart));
    }
    panic!("in no round: {noisy:?}");
}
