//! The executable's own column of `docs/issuer-scoreboard.md`: every situation but those that take a minute.

use doorward_testkit::scoreboard::{self, Launcher};

/// What is not as it should be; `docs/issuer-scoreboard.md` says why.
const RED: [&str; 1] = ["stale-cdn"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn against_the_evil_issuer_all_is_as_expected_but_what_the_scoreboard_owns_up_to() {
    let mut cases = scoreboard::all();
    cases.retain(|case| !case.is_slow);
    assert!(cases.len() >= 80, "{}", cases.len());
    let scores = scoreboard::play(&cases, &Launcher::Doorward(env!("CARGO_BIN_EXE_doorward").into())).await;
    let red: Vec<_> = scores.iter().filter(|score| !score.is_green()).collect();
    let names: Vec<_> = red.iter().map(|score| score.id.as_str()).collect();
    assert_eq!(names, RED, "{red:#?}");
}
