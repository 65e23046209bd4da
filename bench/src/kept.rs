//! What the memory of verdicts costs and saves, with more tokens than it holds.

use std::hint::black_box;

use doorward_core::jose::JwkSet;
use doorward_gate::{
    clock::Clock,
    issuer::{IssuerConfig, Issuers, KeySource, Verdict},
};
use doorward_testkit::issuer::Issuer;

use crate::{
    Effort, house,
    process::rss,
    report::{Report, Target, median, thread_cpu},
};

/// Tokens that come again, one after the other.
const DISTINCT: usize = 100_000;

pub(crate) async fn run(report: &mut Report, effort: Effort) {
    report.table("Remembering verified tokens", "figure", "");
    let issuer = Issuer::start().await;
    let clock = Clock::system();
    let wall = clock.now().wall.as_secs();
    let issuers = |token_cache| {
        let set = JwkSet::parse(issuer.key_set().to_string().as_bytes()).unwrap();
        let config = IssuerConfig::new("main", house::token_policy(), KeySource::Inline(set));
        Issuers::new(vec![IssuerConfig { token_cache, ..config }], &clock, None).unwrap()
    };
    let mint = |number| issuer.mint(&house::claims(number, wall));
    let verify = |issuers: &Issuers, text: &str| match issuers.verify(text, clock.now()) {
        Verdict::Ready(Ok(token)) => drop(black_box(token)),
        other => panic!("{other:?}"),
    };

    // Offered first, so that no memory freed by something else hides what it takes.
    let (few, offered) = (issuers(4096), if effort.is_quick { 50_000 } else { 1_000_000 });
    let own = std::process::id();
    let before = rss(own);
    (0..20_000).for_each(|number| verify(&few, &mint(number)));
    let full = rss(own);
    (20_000..offered).for_each(|number| verify(&few, &mint(number)));
    let after = rss(own);
    let megabytes = |bytes: f64| format!("{:.1}", bytes / 1e6);
    report.row("MB for 4,096 tokens remembered, 20,000 offered", &megabytes(full - before), None, Target::None);
    let grown = after - full;
    report.absolute(&format!("MB more with {offered} offered"), &megabytes(grown), grown / 1e6, Target::Most(2.0));

    let many = issuers(DISTINCT + DISTINCT / 2);
    let tokens: Vec<String> = (0..DISTINCT).map(mint).collect();
    tokens.iter().for_each(|text| verify(&many, text));
    let rounds = if effort.is_quick { 3 } else { 15 };
    let spent = (0..rounds).map(|_| {
        let begin = thread_cpu();
        tokens.iter().for_each(|text| verify(&many, text));
        (thread_cpu() - begin).as_secs_f64() * 1e9 / DISTINCT as f64
    });
    let nanos = median(spent.collect::<Vec<_>>());
    let name = format!("ns of CPU: Issuers::verify, {DISTINCT} tokens that come again in turn");
    report.absolute(&name, &format!("{nanos:.0}"), nanos, Target::Most(1000.0));
}
