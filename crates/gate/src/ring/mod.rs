//! The ring of our own keys, loaded from the store and kept at hand.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use doorward_core::{
    audit::{AuditEvent, EventKind},
    decision::Denial,
    effects::Effects,
    id::RingKeyId,
    reason::Reason,
    revocation::{NewRevocation, Scope},
    ring::{KeyMaterial, KeySet, KeyState, Purpose, RingKey, RootSecret, WrapFault, wrap},
    time::Timestamp,
};
use doorward_store::{AddKey, Store, StoreError, Which};
use tokio::sync::Mutex;

use crate::clock::Clock;

mod root;

pub use root::{RootError, load_root};

/// How long a reader that was cut off may still need the entry of a rotation.
const ENTRY_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Longest pause between two attempts to load.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why the ring could not be loaded or changed.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The store does not answer; the same call can succeed later.
    #[error("the key ring cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The keys in the store were wrapped by another root secret. Waiting does not help.
    #[error(
        "the {purpose} key in the store does not open with this root secret ({fault:?}); put the root file back that \
         was in use when the keys were made (secrets.root_file), it is the same for every replica"
    )]
    WrongRoot {
        /// The first purpose that did not open.
        purpose: Purpose,
        /// What exactly.
        fault: WrapFault,
    },
    /// Other processes changed the ring each time we tried.
    #[error("the {purpose} ring was changed by another process at the same time; try again")]
    Contended {
        /// The purpose.
        purpose: Purpose,
    },
    /// The cipher refused to work.
    #[error("a new {purpose} key could not be wrapped")]
    Cipher {
        /// The purpose.
        purpose: Purpose,
    },
}

/// The keys of every purpose, as a handle that is cheap to clone.
///
/// Readers take an immutable [`KeySet`]; loading and rotating swap it whole.
#[derive(Clone)]
pub struct Ring(Arc<Inner>);

struct Inner {
    root: RootSecret,
    store: Store,
    clock: Clock,
    sets: [ArcSwapOption<KeySet>; Purpose::ALL.len()],
    /// One load at a time, so an older answer never replaces a newer one.
    loading: Mutex<()>,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

/// Whether the store holds keys of any purpose: they open with the root secret that they were made with, and no other.
///
/// # Errors
/// [`StoreError`].
pub async fn has_keys(store: &Store) -> Result<bool, StoreError> {
    for purpose in Purpose::ALL {
        if !store.ring(purpose).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Ring {
    /// A ring that knows no key yet; see [`Ring::load_until_ready`].
    pub fn new(root: RootSecret, store: Store, clock: Clock) -> Self {
        let sets = std::array::from_fn(|_| ArcSwapOption::empty());
        Self(Arc::new(Inner { root, store, clock, sets, loading: Mutex::new(()) }))
    }

    /// The keys of `purpose`: the current one mints, all accepted ones verify.
    ///
    /// # Errors
    /// `store_unavailable` while the ring has not been loaded.
    pub fn keys(&self, purpose: Purpose) -> Result<Arc<KeySet>, Denial> {
        self.slot(purpose)
            .load_full()
            .ok_or_else(|| Denial::from(Reason::StoreUnavailable).with_note("the key ring is not loaded yet"))
    }

    /// Whether every purpose has its keys.
    pub fn is_ready(&self) -> bool {
        self.0.sets.iter().all(|set| set.load().is_some())
    }

    /// Loads every purpose, making the keys that are missing.
    ///
    /// # Errors
    /// The first [`RingError`]; what was loaded before it stays.
    pub async fn load(&self) -> Result<(), RingError> {
        for purpose in Purpose::ALL {
            self.reload(purpose).await?;
        }
        Ok(())
    }

    /// Loads every purpose, trying again while the store is down; drop the future to stop.
    ///
    /// # Errors
    /// What waiting does not mend: [`RingError::WrongRoot`], [`RingError::Cipher`].
    pub async fn load_until_ready(&self) -> Result<(), RingError> {
        let mut pause = Duration::from_millis(50);
        loop {
            match self.load().await {
                Ok(()) => return Ok(()),
                Err(error @ (RingError::WrongRoot { .. } | RingError::Cipher { .. })) => return Err(error),
                Err(error @ (RingError::Store(_) | RingError::Contended { .. })) => {
                    tracing::warn!(%error, "key ring: trying again");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Loads one purpose again; called when the revocation log says [`Scope::KeyRing`].
    ///
    /// # Errors
    /// [`RingError`]; the keys that were loaded stay in use.
    pub async fn reload(&self, purpose: Purpose) -> Result<(), RingError> {
        let _one_at_a_time = self.0.loading.lock().await;
        // Two rounds always suffice for a first key: whoever loses the race finds the winner's key.
        for _ in 0..3 {
            let rows = self.0.store.ring(purpose).await?;
            let set = KeySet::open(&self.0.root, &rows).map_err(|fault| RingError::WrongRoot { purpose, fault })?;
            if let Some(set) = set {
                self.slot(purpose).store(Some(Arc::new(set)));
                return Ok(());
            }
            let key = self.mint(purpose)?;
            let event = event(purpose, key.id, None, key.created_at);
            if self.0.store.add_ring_key(key, None, Effects::audited(event)).await? == AddKey::Added {
                tracing::info!(%purpose, "key ring: made the first key");
            }
        }
        Err(RingError::Contended { purpose })
    }

    /// Makes a new current key; the old one still verifies, the one before it no longer does.
    ///
    /// Rotating [`Purpose::Session`] also ends every session (B79). Every running process follows the
    /// revocation log and loads the ring again.
    ///
    /// # Errors
    /// [`RingError`]. After an error of the store in the middle the key may be rotated and some sessions may live
    /// on as rows; no cache accepts them, and calling again ends them.
    pub async fn rotate(&self, purpose: Purpose) -> Result<RingKeyId, RingError> {
        // With no key yet, the first one is made; then there is something to rotate.
        self.reload(purpose).await?;
        let rows = self.0.store.ring(purpose).await?;
        let current = rows.iter().find(|row| row.state == KeyState::Current).map(|row| row.id);
        let key = self.mint(purpose)?;
        let (id, at) = (key.id, key.created_at);
        let mut effects = Effects::audited(event(purpose, id, current, at))
            .with_revocation(entry(Scope::KeyRing { purpose: purpose.as_str().to_owned() }, at));
        if purpose == Purpose::Session {
            effects = effects.with_revocation(entry(Scope::AllSessions, at));
        }
        if self.0.store.add_ring_key(key, current, effects).await? == AddKey::Lost {
            return Err(RingError::Contended { purpose });
        }
        self.reload(purpose).await?;
        if purpose == Purpose::Session {
            // Those that began since end as well; a process that read one of them meanwhile hears of it.
            let at = self.0.clock.now().wall;
            let mut ended = AuditEvent::new(EventKind::SessionRevoked, at);
            ended.detail.more.insert("which".into(), "all".into());
            ended.detail.more.insert("why".into(), "session key rotated".into());
            let effects = Effects::audited(ended).with_revocation(entry(Scope::AllSessions, at));
            self.0.store.end_sessions(Which::All, effects).await?;
        }
        Ok(id)
    }

    fn slot(&self, purpose: Purpose) -> &ArcSwapOption<KeySet> {
        // `Purpose` has no fields and `sets` one slot for each: the discriminant is in range.
        &self.0.sets[purpose as usize]
    }

    fn mint(&self, purpose: Purpose) -> Result<RingKey, RingError> {
        let clock = &self.0.clock;
        let at = clock.now().wall;
        let key = KeyMaterial::mint(RingKeyId::mint(at, clock.random()), clock.random());
        let wrapped = wrap(&self.0.root, purpose, &key, clock.random()).ok_or(RingError::Cipher { purpose })?;
        Ok(RingKey { id: key.id, purpose, wrapped, created_at: at, state: KeyState::Current })
    }
}

fn entry(scope: Scope, at: Timestamp) -> NewRevocation {
    NewRevocation { scope, at, until: Some(at.plus(ENTRY_LIFE)), why: "key_rotated".to_owned() }
}

fn event(purpose: Purpose, key: RingKeyId, replaces: Option<RingKeyId>, at: Timestamp) -> AuditEvent {
    let mut event = AuditEvent::new(EventKind::KeyRotated, at);
    event.detail.more.insert("purpose".into(), purpose.as_str().into());
    event.detail.more.insert("key".into(), key.to_string().into());
    if let Some(old) = replaces {
        event.detail.more.insert("replaces".into(), old.to_string().into());
    }
    event
}

#[cfg(test)]
mod tests;
