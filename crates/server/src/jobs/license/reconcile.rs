//! Asks again about licenses that nobody has asked about for a while.
//!
//! Some changes are told by nobody: a provider has no event for a ban, a changed policy or what is deleted along with
//! something else, and a webhook that could not be delivered may never come. Licenses in use are asked for every
//! `cache_ttl` by the requests that need them; this finds the others: those of open sockets and streams, and of people
//! who will be back.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use doorward_core::license::Holder;
use doorward_gate::{gate::Gate, license::RefreshError};

/// How long a license may stay unconfirmed; with the next run it is asked for.
pub(crate) const UNCONFIRMED: Duration = Duration::from_secs(3600);
/// By how much earlier some are asked for, so that not all come at once for ever.
const JITTER: Duration = Duration::from_secs(600);
/// Most questions of one run.
const QUESTIONS: usize = 1000;
/// Rows that are read at once.
const PAGE: u32 = 1000;
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest pause that the provider is given within a run, and how many of them.
const LONGEST: Duration = Duration::from_secs(5);
const WAITS: u32 = 20;
/// How long webhooks are remembered that were taken: longer than Keygen keeps an event that it can send again.
const REMEMBERED: Duration = Duration::from_hours(31 * 24);

/// One run. Gives back what it did, in words.
///
/// # Errors
/// Why it could not go on, in words: the store, or a provider that does not answer. What is known stays.
pub(crate) async fn run(gate: &Gate) -> Result<String, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let now = gate.clock().now().wall;
    let forgotten = gate.store().forget_license_events(now.minus(REMEMBERED)).await.map_err(|error| words(&error))?;
    let Some(licenses) = gate.licenses() else { return Ok("there is no license provider".to_owned()) };
    // Never more often than requests would ask.
    let after = UNCONFIRMED.max(licenses.cache_ttl());
    let rows = gate.store().unconfirmed_licenses(now.minus(after.saturating_sub(JITTER)), PAGE).await;
    let rows = rows.map_err(|error| words(&error))?;
    let due = rows.iter().filter(|row| {
        let counts = if licenses.is_per_user() {
            row.holder != Holder::Installation
        } else {
            row.holder == Holder::Installation
        };
        counts && now.since(row.known.confirmed_at) >= after.saturating_sub(jitter(row.holder))
    });
    let (mut asked, mut gone, mut failed, mut waits) = (0, 0, 0, 0);
    for row in due.take(QUESTIONS) {
        loop {
            match licenses.refresh(row.holder).await {
                Ok(_) => asked += 1,
                Err(RefreshError::HolderGone) => gone += 1,
                // This one alone, perhaps: one license that always fails must not stand before all others.
                Err(RefreshError::Provider(_) | RefreshError::GivenUp) => failed += 1,
                Err(RefreshError::Paused(pause)) if pause <= LONGEST && waits < WAITS => {
                    waits += 1;
                    tokio::time::sleep(pause).await;
                    continue;
                }
                // The provider as a whole: the rest waits for the next run.
                Err(error @ (RefreshError::Paused(_) | RefreshError::Busy | RefreshError::Store(_))) => {
                    return Err(format!("asked about {asked} licenses, then stopped: {error}"));
                }
            }
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    match failed {
        0 => Ok(format!("asked about {asked} licenses, {gone} had gone; forgot {forgotten} webhooks")),
        failed => Err(format!("asked about {asked} licenses, {failed} got no answer")),
    }
}

/// The same for a holder every time, spread evenly over all.
fn jitter(holder: Holder) -> Duration {
    let mut hasher = DefaultHasher::new();
    holder.hash(&mut hasher);
    Duration::from_millis(hasher.finish() % u64::try_from(JITTER.as_millis()).unwrap_or(1))
}
