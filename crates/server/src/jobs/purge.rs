//! `purge`: deletes what is over.

use std::time::Duration;

use super::{parts::Parts, table::Outcome};

/// Longest time by which the store knows a use later than it happened: uses are written once a minute, in batches. A row
/// that is deleted ends its session everywhere, so one in use must not be.
const WRITTEN_LATE: Duration = Duration::from_secs(120);
/// How long license webhooks are remembered that were taken: longer than Keygen keeps an event that it can send again.
const REMEMBERED: Duration = Duration::from_hours(31 * 24);

/// Deletes what is over; [`doorward_store::Store::purge`] says what.
pub(super) async fn run(parts: Parts) -> Outcome {
    let gate = parts.gate;
    let now = gate.clock().now().wall;
    let idle = gate.policy().sessions.idle + WRITTEN_LATE;
    let purged = gate.store().purge(now, idle).await.map_err(|error| error.to_string())?;
    let webhooks =
        gate.store().forget_license_events(now.minus(REMEMBERED)).await.map_err(|error| error.to_string())?;
    let (sessions, links, users, runs) = (purged.sessions, purged.links, purged.users, purged.job_runs);
    Ok(format!("deleted {sessions} sessions, {links} links, {users} users, {runs} runs of jobs, {webhooks} webhooks"))
}
