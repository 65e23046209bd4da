//! Follows the state of the soak window, decides about it on its day (the job `cutover`), and writes the method counts.
//!
//! The state is one row, read twice a second where the file has a `[legacy]` section: so a command in another
//! process, a decision of a replica and the own one are the same case, and all of them are followed within a second.

use std::{sync::Arc, time::Duration};

use doorward_core::cutover::{Ceiling, Day};
use doorward_gate::window;
use tokio_util::sync::CancellationToken;

use super::{every, parts::Parts, table::Outcome};
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

/// Follows the state.
pub(crate) async fn follow(server: Arc<Server>, stop: CancellationToken) {
    let mut tick = every(FOLLOW);
    let mut learn_at = Duration::ZERO;
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let Some(ceiling) = server.site().legacy else { continue };
        if let Err(error) = look(&server, &ceiling).await {
            report(&error);
        }
        let now = server.gate.clock().now();
        if server.gate.window() == window::Window::Open && now.mono >= learn_at {
            match server.passwords.learn_costs().await {
                Ok(()) => learn_at = now.mono.saturating_add(LEARN),
                Err(error) => tracing::debug!(%error, "what password hashes cost is not known yet"),
            }
        }
    }
}

/// Reads the state and tells the gate.
async fn look(server: &Server, ceiling: &Ceiling) -> Result<(), CutoverError> {
    let window = cutover::read(server.gate.store(), ceiling).await?.window;
    server.gate.use_window(if window.is_open(ceiling) { window::Window::Open } else { window::Window::Closed });
    Ok(())
}

/// Decides, if the day of the window has come. Every process follows within a second.
pub(super) async fn run(parts: Parts) -> Outcome {
    let Some(ceiling) = &parts.legacy else { return Ok("there is no soak window".to_owned()) };
    let store = parts.gate.store();
    let now = parts.gate.clock().now().wall;
    let words = |error: CutoverError| error.to_string();
    let before = cutover::read(store, ceiling).await.map_err(words)?.window;
    if !before.is_open(ceiling) {
        return Ok("the window is closed".to_owned());
    }
    if Day::of(now) < before.closes_on {
        return Ok(format!("nothing is decided before {}", before.closes_on));
    }
    if let Some(methods) = &parts.methods {
        methods.flush(store, Day::of(now)).await.map_err(|error| error.to_string())?;
    }
    let window = match cutover::decide(store, ceiling, now).await {
        Ok(window) => window,
        // An operator was faster; the next run looks at what they did.
        Err(CutoverError::Raced) => return Ok("somebody else changed the window at the same time".to_owned()),
        Err(error) => return Err(words(error)),
    };
    Ok(match window.is_open(ceiling) {
        true => format!("the window stays open until {}", window.closes_on),
        false => "the window is closed from now on".to_owned(),
    })
}

/// A store that is down is said elsewhere; what it holds and nobody can read needs somebody.
fn report(error: &CutoverError) {
    match error {
        CutoverError::Store(error) => tracing::debug!(%error, "the state of the soak window is not known"),
        error => tracing::error!(%error, "the soak window stays as it is"),
    }
}
