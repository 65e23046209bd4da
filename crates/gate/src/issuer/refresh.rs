//! Asking issuers for their keys because it is time, not because a token needs one.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::{Issuers, keeper::Keeper};

/// Keys that were asked for this recently, here or by another process, are not asked for again.
const YOUNG: Duration = Duration::from_secs(30 * 60);

/// What became of one issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// Our name of it.
    pub name: Arc<str>,
    /// Whether it was asked; not if its keys are young.
    pub is_asked: bool,
    /// Why its last answer could not be used, if it could not. Known keys stay in use.
    pub problem: Option<String>,
}

impl Issuers {
    /// Asks every issuer with keys behind a URL whose keys are older than half an hour, all at once and each within its
    /// limit on time, and keeps the answers in the store for the next process.
    ///
    /// A token that needs a key is served meanwhile as ever. The question counts in the budget of fetches, as every
    /// one does; who was asked by somebody else in the meantime is not asked.
    pub async fn refresh(&self) -> Vec<Refreshed> {
        let mut keepers: Vec<&Arc<Keeper>> = Vec::new();
        for shell in self.0.iter().filter(|shell| shell.config.source.is_remote()) {
            if !keepers.iter().any(|known| Arc::ptr_eq(known, &shell.keys)) {
                keepers.push(&shell.keys);
            }
        }
        join_all(keepers.into_iter().map(|keeper| keeper.refresh(YOUNG))).await
    }
}
