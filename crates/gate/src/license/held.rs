//! What is known of licenses, in memory: asked on every request that needs one.

use std::{sync::Arc, time::Duration};

use doorward_core::{
    id::UserId,
    license::{Holder, Known, LicenseTime, SKEW},
    principal::SubjectId,
    revocation::Scope,
    time::{Now, Timestamp},
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
    /// When it was read from the store; or when the provider said it, or was asked, where this process heard it.
    pub(super) kept: Now,
    /// Whether this process heard it: then it knows how much time has passed since, whatever became of the clock.
    pub(super) is_first_hand: bool,
    /// Whether nobody can tell how old it is, because the clock was behind when it was read: it is asked for again.
    pub(super) is_doubtful: bool,
}

impl Entry {
    /// When a provider confirmed it last.
    pub(super) fn confirmed_at(&self) -> Option<Timestamp> {
        self.known.as_ref().map(|known| known.confirmed_at)
    }

    /// How old the confirmation may be, as far as asking again goes: the most that any clock says.
    pub(super) fn age(&self, time: &LicenseTime, mono: Duration) -> Duration {
        let Some(at) = self.confirmed_at() else { return Duration::MAX };
        let passed = mono.saturating_sub(self.kept.mono);
        if self.is_first_hand {
            return time.wall.since(self.kept.wall).max(passed);
        }
        if self.is_doubtful || self.is_ahead(time) { Duration::MAX } else { time.latest().since(at).max(passed) }
    }

    /// The time by which the confirmation ages. What this process heard itself is as old as the time that has passed,
    /// also while a clock leaps; of what others wrote down only the clocks can tell.
    pub(super) fn aged_at(&self, time: &LicenseTime, mono: Duration) -> Timestamp {
        match self.confirmed_at() {
            Some(at) if self.is_first_hand => {
                let passed = mono.saturating_sub(self.kept.mono);
                let by_wall = time.wall.since(self.kept.wall);
                at.plus(time.steady.since(at).min(by_wall).max(passed))
            }
            _ => time.latest(),
        }
    }

    /// Whether it was confirmed at a time that is far from come: by a clock that was ahead, so nobody can tell when.
    pub(super) fn is_ahead(&self, time: &LicenseTime) -> bool {
        !self.is_first_hand && self.confirmed_at().is_some_and(|at| at > time.latest().plus(SKEW))
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
            // How old everything is may be another matter now.
            Scope::LicenseTime => self.entries.clear(),
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
