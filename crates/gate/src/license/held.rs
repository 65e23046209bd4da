//! What is known of licenses, in memory: asked on every request that needs one.

use std::{sync::Arc, time::Duration};

use doorward_core::{
    id::UserId,
    license::{Holder, Known},
    principal::SubjectId,
    revocation::Scope,
    time::Timestamp,
};
use quick_cache::sync::Cache;

/// What is known of one holder's license.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The newest observation; `None` where the store has none.
    pub(crate) known: Option<Arc<Known>>,
    /// The user's subject at the provider, for the blocklist.
    pub(crate) subject: Option<Arc<str>>,
    /// Spreads the questions of many holders over time, and those of replicas.
    pub(super) jitter: u8,
    /// When it was confirmed, or read, by the monotonic clock: it ages also while the other one was set back.
    pub(super) kept_at: Duration,
}

impl Entry {
    /// When a provider confirmed it last.
    pub(super) fn confirmed_at(&self) -> Option<Timestamp> {
        self.known.as_ref().map(|known| known.confirmed_at)
    }
}

/// The caches, bounded.
#[derive(Debug)]
pub(super) struct Held {
    entries: Cache<Holder, Arc<Entry>>,
    /// Which user a subject of an issuer belongs to. Only subjects that do: a "nobody" is asked for again.
    links: Cache<SubjectId, UserId>,
}

impl Held {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: Cache::new(capacity), links: Cache::new(capacity) }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn entry(&self, holder: Holder) -> Option<Arc<Entry>> {
        self.entries.get(&holder)
    }

    pub(super) fn keep(&self, holder: Holder, entry: Arc<Entry>) {
        self.entries.insert(holder, entry);
    }

    pub(super) fn forget(&self, holder: Holder) {
        self.entries.remove(&holder);
    }

    /// Drops everything about a holder who is gone.
    pub(super) fn forget_holder(&self, holder: Holder) {
        self.entries.remove(&holder);
        if let Some(gone) = holder.user() {
            self.links.retain(|_, user| *user != gone);
        }
    }

    pub(super) fn link(&self, subject: &SubjectId) -> Option<UserId> {
        self.links.get(subject)
    }

    pub(super) fn keep_link(&self, subject: SubjectId, user: UserId) {
        self.links.insert(subject, user);
    }

    pub(super) fn forget_link(&self, subject: &SubjectId) {
        self.links.remove(subject);
    }

    /// Drops what `scope` voids.
    pub(super) fn void(&self, scope: &Scope) {
        match scope {
            Scope::License { holder } => {
                self.entries.remove(holder);
            }
            // Their subject or address may be another now.
            Scope::User { id } => {
                self.entries.remove(&Holder::User(*id));
                self.links.retain(|_, user| user != id);
            }
            Scope::Lifted { scope } => self.void(scope),
            Scope::Session { .. }
            | Scope::UserSessions { .. }
            | Scope::AllSessions
            | Scope::ApiKey { .. }
            | Scope::Token { .. }
            | Scope::Subject { .. }
            | Scope::KeyRing { .. } => {}
        }
    }
}
