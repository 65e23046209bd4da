//! A server that gets no time: stopped as the lid of a laptop, a paused virtual machine or a starved host stops it.

use std::time::Duration;

use doorward_testkit::{issuer::Issuer, process::Signal, upstream::EchoApp};
use futures_util::{FutureExt as _, future::join_all};

use super::{
    Installation,
    issuer_keys::{bearer, rest},
    reason,
};

/// Longer than the revocation state may be old.
const STOPPED: Duration = Duration::from_millis(2500);
/// Requests that wait for it meanwhile.
const WAITING: usize = 100;
/// How often it is stopped, at most.
const ROUNDS: usize = 4;

#[tokio::test]
async fn a_server_that_was_stopped_for_seconds_refuses_nobody_who_waited_for_it() {
    let (app, issuer) = (EchoApp::start().await, Issuer::start().await);
    let installation = Installation::with(&rest(&app, &issuer, &format!("jwks_url = \"{}\"", issuer.jwks_url())));
    let mut server = installation.serve_ready().await;
    let bearer = bearer(&issuer);
    assert_eq!(installation.judged("/api/x", &bearer).await.status, 200);
    // One round in which everybody is let in proves it: a server that refused after a pause would do so in each. On a
    // machine that is starved besides, the log may be late for the second that a request waits for it.
    let mut refused_in = Vec::new();
    for _ in 0..ROUNDS {
        server.signal(Signal::STOP);
        let asked = (0..WAITING).map(|_| installation.get("/api/x", &bearer));
        // Time itself is what this is about: the server hears nothing, and its clock goes on.
        let (answers, ()) =
            tokio::join!(join_all(asked), tokio::time::sleep(STOPPED).inspect(|()| server.signal(Signal::CONT)));
        let refused = answers.iter().filter(|answer| answer.status != 200);
        let refused: Vec<_> = refused.map(|answer| format!("{:?}", reason(answer))).collect();
        if refused.is_empty() {
            return;
        }
        refused_in.push((refused.len(), refused[0].clone()));
    }
    panic!("of {WAITING}, in every round: {refused_in:?}");
}
