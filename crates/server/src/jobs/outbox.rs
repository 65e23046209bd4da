//! `outbox`: sends what waits, and forgets what nobody sent again.

use std::time::Duration;

use super::{parts::Parts, table::Outcome};

/// How long a mail that was given up is kept for the operator.
const KEPT: Duration = Duration::from_hours(30 * 24);
/// Batches that one run sends at most.
const BATCHES: usize = 100;

/// Sends what is due and no server holds, and deletes old dead letters. The sender of a running server does the first
/// as well, at once; this one is for a server that was never told, and for the command.
pub(super) async fn run(parts: Parts) -> Outcome {
    let store = parts.gate.store();
    let mut tried = 0;
    if let Some(outbox) = &parts.outbox {
        for _ in 0..BATCHES {
            match outbox.send_batch().await.map_err(|error| error.to_string())? {
                0 => break,
                batch => tried += batch,
            }
        }
    }
    let before = parts.gate.clock().now().wall.minus(KEPT);
    let removed = store.purge_dead_mails(before).await.map_err(|error| error.to_string())?;
    Ok(format!("tried {tried} mails, deleted {removed} that were given up"))
}
