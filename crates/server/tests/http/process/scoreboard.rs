//! The executable's own column of `docs/issuer-scoreboard.md`: every situation but those that take a minute.

use doorward_testkit::scoreboard::{self, Launcher};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn against_the_evil_issuer_all_is_as_expected() {
    let mut cases = scoreboard::all();
    cases.retain(|case| !case.is_slow);
    assert!(cases.len() >= 80, "{}", cases.len());
    let scores = scoreboard::play(&cases, &Launcher::Doorward(env!("CARGO_BIN_EXE_doorward").into())).await;
    let red: Vec<_> = scores.iter().filter(|score| !score.is_green()).collect();
    assert!(red.is_empty(), "{red:#?}");
}
