//! What runs beside the requests, and stops when its token is cancelled.
//!
//! What every process does for itself (watching the store, following the log) are the loops here. What one process does
//! for all of them at its time are the jobs of [`table`], run by [`schedule`].

pub(crate) mod checkpoint;
pub(crate) mod cutover;
pub(crate) mod license;
mod outbox;
pub(crate) mod parts;
mod purge;
mod refresh;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use doorward_core::{revocation::Scope, ring::Purpose};
use doorward_gate::{issuer::IssuerStatus, mail::outbox::Outbox, ring::Ring};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{
    http::Server,
    telemetry::{Metrics, metrics::NameLabel},
};

/// How often the store is asked whether it is there.
const PING: Duration = Duration::from_secs(1);
/// How often gauges are read.
const GAUGES: Duration = Duration::from_secs(5);

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Keeps `store_is_up`, which readiness shows, up to date.
pub(crate) async fn watch_store(server: Arc<Server>, stop: CancellationToken) {
    let mut tick = every(PING);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let is_up = server.gate.store().ping().await;
        if let Err(error) = &is_up
            && server.store_is_up.load(Ordering::Relaxed)
        {
            tracing::warn!(%error, "the store does not answer");
        }
        if is_up.is_ok() && !server.store_is_up.load(Ordering::Relaxed) {
            tracing::info!(backend = server.gate.store().backend(), "the store answers");
        }
        server.store_is_up.store(is_up.is_ok(), Ordering::Relaxed);
        server.metrics.store_up.set(i64::from(is_up.is_ok()));
    }
}

/// Reads what is measured rather than counted.
pub(crate) async fn read_gauges(server: Arc<Server>, outbox: Option<Outbox>, stop: CancellationToken) {
    let mut tick = every(GAUGES);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let metrics = &server.metrics;
        if let Ok(counts) = server.gate.store().outbox_counts().await {
            metrics.outbox_pending.set(i64::try_from(counts.pending).unwrap_or(i64::MAX));
            metrics.outbox_dead.set(i64::try_from(counts.dead).unwrap_or(i64::MAX));
        }
        if let Some(stats) = outbox.as_ref().map(Outbox::stats) {
            let outcomes = [("sent", stats.sent), ("retried", stats.retried), ("given_up", stats.given_up)];
            for (name, count) in outcomes {
                let counter = metrics.mails.get_or_create(&NameLabel { name: name.to_owned() });
                counter.inc_by(count.saturating_sub(counter.get()));
            }
        }
        metrics.blocklist_entries.set(i64::try_from(server.gate.blocklist_len()).unwrap_or(i64::MAX));
        let shared = server.shared.status();
        metrics.shared_up.set(shared.as_ref().map_or(-1, |shared| i64::from(shared.problem.is_none())));
        if let Some(shared) = shared {
            let passed = shared.asked.saturating_sub(shared.members + shared.failed);
            let answers = [("passed", passed), ("blocked", shared.members), ("unanswered", shared.failed)];
            for (name, count) in answers {
                let counter = metrics.shared_questions.get_or_create(&NameLabel { name: name.to_owned() });
                counter.inc_by(count.saturating_sub(counter.get()));
            }
        }
        license::gauge(&server.gate, metrics).await;
        let now = server.gate.clock().now();
        for issuer in server.gate.issuers().status(now) {
            show_issuer(metrics, &issuer);
        }
        metrics.policy_version.set(i64::try_from(server.gate.policy().version).unwrap_or(i64::MAX));
    }
}

fn show_issuer(metrics: &Metrics, issuer: &IssuerStatus) {
    let label = NameLabel { name: issuer.name.to_string() };
    let keys = &issuer.keys;
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    metrics.issuer_keys.get_or_create(&label).set(i64::try_from(keys.keys).unwrap_or(i64::MAX));
    metrics.issuer_keys_age.get_or_create(&label).set(keys.age.map_or(-1, seconds));
    metrics.issuer_fetches.get_or_create(&label).set(i64::try_from(keys.fetches).unwrap_or(i64::MAX));
    metrics.issuer_failures.get_or_create(&label).set(i64::from(keys.failures));
    let serves_for = if keys.keys == 0 { 0 } else { keys.serves_for.map_or(-1, seconds) };
    metrics.issuer_serves_for.get_or_create(&label).set(serves_for);
    metrics.issuer_waiters.get_or_create(&label).set(i64::try_from(issuer.waiters).unwrap_or(i64::MAX));
}

/// Loads the key ring, hands its keys out, and does both again when the revocation log says so.
pub(crate) async fn keep_ring(server: Arc<Server>, ring: Ring, stop: CancellationToken) {
    let mut entries = server.gate.revocations();
    let Some(loaded) = stop.run_until_cancelled(ring.load_until_ready()).await else { return };
    if let Err(error) = loaded {
        // Not a neighbour that is down: nobody can sign in until somebody acts. The rest goes on.
        tracing::error!(%error, "the key ring cannot be opened; sign-in stays closed");
        server.ring_is_settled.store(true, Ordering::Relaxed);
        return;
    }
    hand_out(&server, &ring);
    server.ring_is_settled.store(true, Ordering::Relaxed);
    loop {
        let Some(entry) = stop.run_until_cancelled(entries.recv()).await else { return };
        let purposes: Vec<Purpose> = match entry {
            Ok(entry) => match &entry.entry.scope {
                Scope::KeyRing { purpose } => Purpose::parse(purpose).into_iter().collect(),
                _ => continue,
            },
            Err(RecvError::Lagged(_)) => Purpose::ALL.to_vec(),
            Err(RecvError::Closed) => return,
        };
        let mut is_behind = false;
        for purpose in purposes {
            if let Err(error) = ring.reload(purpose).await {
                tracing::warn!(%error, %purpose, "the key ring could not be loaded again");
                is_behind = true;
            }
        }
        // A replica that keeps minting under a key that was rotated away would be refused by the others.
        if is_behind && stop.run_until_cancelled(ring.load_until_ready()).await.is_none() {
            return;
        }
        hand_out(&server, &ring);
    }
}

fn hand_out(server: &Server, ring: &Ring) {
    if let Ok(keys) = ring.keys(Purpose::Session) {
        server.gate.use_csrf_keys(crate::assemble::csrf_keys(&keys));
    }
    match ring.keys(Purpose::Assertion).map(|keys| server.assertions.use_keys(&keys)) {
        Ok(Ok(())) => {}
        Ok(Err(denial)) | Err(denial) => tracing::warn!(%denial, "no identity assertions can be signed"),
    }
}
