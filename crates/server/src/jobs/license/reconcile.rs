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

use doorward_core::{
    license::{Holder, SKEW},
    time::Timestamp,
};
use doorward_gate::license::{Applied, Licenses, RefreshError};
use doorward_store::{LicenseRow, Store, StoreError};

use crate::jobs::{parts::Parts, table::Outcome};

/// How long a license may stay unconfirmed; the next run asks for it. With a run every five minutes, and the time that a
/// run takes, that is 1 h 5 min at the latest.
const UNCONFIRMED: Duration = Duration::from_secs(55 * 60);
/// By how much earlier some are asked for, so that not all come at once for ever.
const JITTER: Duration = Duration::from_secs(600);
/// Most questions of one run.
const QUESTIONS: usize = 1000;
/// Rows that are read. Licenses that get no answer stand behind all others, so that they never fill it.
const PAGE: u32 = 1000;
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest pause that the provider is given within a run, and how many of them.
const LONGEST: Duration = Duration::from_secs(5);
const WAITS: u32 = 20;
/// How long one run goes on; less than the limit of the job, so that it can say how far it came.
const BUDGET: Duration = Duration::from_secs(240);

/// One run. Gives back what it did, in words.
///
/// # Errors
/// Why it could not go on, in words: the store, or a provider that does not answer. What is known stays.
pub(crate) async fn run(parts: Parts) -> Outcome {
    let (store, clock) = (parts.gate.store(), parts.gate.clock());
    let Some(licenses) = parts.gate.licenses() else { return Ok("there is no license provider".to_owned()) };
    let begun = clock.now();
    let due = due(store, &licenses, licenses.now()).await.map_err(|error| error.to_string())?;
    let (mut asked, mut gone, mut failed, mut waits) = (0, 0, 0, 0);
    for row in due.into_iter().take(QUESTIONS) {
        if clock.now().mono.saturating_sub(begun.mono) >= BUDGET {
            return Err(format!("asked about {asked} licenses, then the time was over; the next run goes on"));
        }
        loop {
            match licenses.refresh(row.holder).await {
                // What is older than what is known confirms nothing.
                Ok(Applied::Older | Applied::Repeated) => {
                    failed += set_back(store, licenses.time().steady, row.holder).await?;
                }
                Ok(_) => asked += 1,
                Err(RefreshError::HolderGone) => gone += set_back(store, licenses.time().steady, row.holder).await?,
                // This one alone, perhaps: one license that always fails must not stand before all others.
                Err(RefreshError::Provider(_) | RefreshError::GivenUp) => {
                    failed += set_back(store, licenses.time().steady, row.holder).await?;
                }
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
        0 => Ok(format!("asked about {asked} licenses, {gone} had gone")),
        failed => Err(format!("asked about {asked} licenses, {failed} got no answer")),
    }
}

/// Lets the others go before this one, which got no answer; one such license more.
async fn set_back(store: &Store, at: Timestamp, holder: Holder) -> Result<u64, String> {
    let tried = store.license_tried(holder, at).await;
    tried.map(|()| 1).map_err(|error| format!("a license without an answer could not be set back: {error}"))
}

/// The licenses that were not confirmed for long enough, or at a time that is far from come; the oldest first, and behind them those that got no answer.
async fn due(store: &Store, licenses: &Licenses, now: Timestamp) -> Result<Vec<LicenseRow>, StoreError> {
    // Never more often than requests would ask.
    let after = UNCONFIRMED.max(licenses.cache_ttl());
    // By a clock that was ahead: nobody can tell when.
    let ahead = now.plus(SKEW);
    let mut rows = match licenses.is_per_user() {
        true => store.unconfirmed_licenses(now.minus(after.saturating_sub(JITTER)), ahead, PAGE).await?,
        // By its name: what is known of users from another provider may be older and fill the page.
        false => store.license(Holder::Installation).await?.into_iter().collect(),
    };
    rows.retain(|row| {
        (row.holder == Holder::Installation) != licenses.is_per_user()
            && (now.since(row.known.confirmed_at) >= after.saturating_sub(jitter(row.holder))
                || row.known.confirmed_at > ahead)
    });
    Ok(rows)
}

/// The same for a holder every time, spread evenly over all.
fn jitter(holder: Holder) -> Duration {
    let mut hasher = DefaultHasher::new();
    holder.hash(&mut hasher);
    Duration::from_millis(hasher.finish() % u64::try_from(JITTER.as_millis()).unwrap_or(1))
}

#[cfg(test)]
mod tests;
