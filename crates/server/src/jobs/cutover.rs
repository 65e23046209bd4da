//! Follows the state of the soak window, decides about it on its day, and writes the method counts.
//!
//! The state is one row, read twice a second where the file has a `[legacy]` section: so a command in another
//! process, a decision of a replica and the own one are the same case, and all of them are followed within a second.

use std::{sync::Arc, time::Duration};

use doorward_core::cutover::{Ceiling, Day};
use doorward_gate::window;
use tokio_util::sync::CancellationToken;

use super::every;
use crate::{
    cutover::{self, CutoverError},
    http::Server,
};

/// How often the state is read.
const FOLLOW: Duration = Duration::from_millis(500);
/// How often counts are written.
const FLUSH: Duration = Duration::from_secs(60);
/// How often it is learnt what password hashes cost here.
const LEARN: Duration = Duration::from_secs(600);
/// How long a decision that failed waits for the next try.
const RETRY: Duration = Duration::from_secs(60);

/// Writes the method counts now and then, and once more at the end.
pub(crate) async fn count(server: Arc<Server>, stop: CancellationToken) {
    let mut tick = every(FLUSH);
    loop {
        let goes_on = stop.run_until_cancelled(tick.tick()).await.is_some();
        flush(&server).await;
        if !goes_on {
            return;
        }
    }
}

/// Writes the method counts of this process.
pub(crate) async fn flush(server: &Server) {
    let today = Day::of(server.gate.clock().now().wall);
    if let Err(error) = server.methods.flush(server.gate.store(), today).await {
        tracing::debug!(%error, "method counts wait for the store");
    }
}

/// Follows the state and decides on its day.
pub(crate) async fn follow(server: Arc<Server>, stop: CancellationToken) {
    let mut tick = every(FOLLOW);
    let (mut learn_at, mut decide_at) = (Duration::ZERO, Duration::ZERO);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let Some(ceiling) = server.site().legacy else { continue };
        let now = server.gate.clock().now();
        match look(&server, &ceiling, now.mono >= decide_at).await {
            Ok(()) => {}
            Err(error) => {
                decide_at = now.mono.saturating_add(RETRY);
                report(&error);
            }
        }
        if server.gate.window() == window::Window::Open && now.mono >= learn_at {
            match server.passwords.learn_costs().await {
                Ok(()) => learn_at = now.mono.saturating_add(LEARN),
                Err(error) => tracing::debug!(%error, "what password hashes cost is not known yet"),
            }
        }
    }
}

/// Reads the state, decides if it is time, and tells the gate.
async fn look(server: &Server, ceiling: &Ceiling, may_decide: bool) -> Result<(), CutoverError> {
    let store = server.gate.store();
    let now = server.gate.clock().now().wall;
    let mut window = cutover::read(store, ceiling).await?.window;
    let mut outcome = Ok(());
    if may_decide && window.is_open(ceiling) && Day::of(now) >= window.closes_on {
        flush(server).await;
        match cutover::decide(store, ceiling, now).await {
            Ok(decided) => window = decided,
            // Another replica decided; the next look finds out what.
            Err(CutoverError::Raced) => {}
            Err(error) => outcome = Err(error),
        }
    }
    server.gate.use_window(if window.is_open(ceiling) { window::Window::Open } else { window::Window::Closed });
    outcome
}

/// A store that is down is said elsewhere; what it holds and nobody can read needs somebody.
fn report(error: &CutoverError) {
    match error {
        CutoverError::Store(error) => tracing::debug!(%error, "the state of the soak window is not known"),
        error => tracing::error!(%error, "the soak window stays as it is"),
    }
}
