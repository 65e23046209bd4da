//! Sessions and API keys in memory, so that a hit costs no store.
//!
//! A cached record may say yes, never no (rule 8): whoever would refuse because of one asks the store first.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use doorward_core::{
    api_key::{ApiKey, KeyOwner},
    id::UserId,
    principal::{Authenticated, Principal, PrincipalKind, SubjectId},
    reason::Reason,
    revocation::Scope,
    session::{Session, TokenHash},
    time::Timestamp,
    token::Claims,
    user::User,
};
use quick_cache::sync::Cache;

/// A session is written as used at most this often.
pub(crate) const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// A session with its principal.
#[derive(Debug)]
pub struct SessionEntry {
    /// The record as read.
    pub session: Session,
    /// Who it makes the caller.
    pub principal: Arc<Principal>,
    /// Whether its user is banned.
    pub is_banned: bool,
    last_used: AtomicI64,
    last_written: AtomicI64,
}

impl SessionEntry {
    /// From what the store returned.
    pub fn new(session: Session, user: &User) -> Self {
        let principal = Arc::new(Principal {
            kind: PrincipalKind::User,
            subject: SubjectId::local(user.id),
            user_id: Some(user.id),
            email: user.email_verified.then(|| user.email.clone()),
            org_id: session.org_id,
            authenticated: Authenticated::Session {
                id: session.id,
                method: session.method,
                authenticated_at: session.authenticated_at,
                created_at: session.created_at,
            },
            expires_at: Some(session.expires_at),
        });
        let used = session.last_used_at.as_millis();
        Self {
            session,
            principal,
            is_banned: user.banned_at.is_some(),
            last_used: AtomicI64::new(used),
            last_written: AtomicI64::new(used),
        }
    }

    /// When it was last used, as far as this process knows.
    pub fn last_used_at(&self) -> Timestamp {
        Timestamp::from_millis(self.last_used.load(Ordering::Relaxed))
    }

    /// Takes over uses that `known`, an older copy, knows of and the store may not yet.
    pub fn carry_over(&self, known: &Self) {
        self.last_used.fetch_max(known.last_used.load(Ordering::Relaxed), Ordering::Relaxed);
        self.last_written.fetch_max(known.last_written.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Notes a use; true if it is time to write it down, for one caller only.
    pub fn touch(&self, now: Timestamp) -> bool {
        self.last_used.fetch_max(now.as_millis(), Ordering::Relaxed);
        let written = self.last_written.load(Ordering::Relaxed);
        now.since(Timestamp::from_millis(written)) >= TOUCH_EVERY
            && self
                .last_written
                .compare_exchange(written, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// An API key with its principal.
#[derive(Debug)]
pub(crate) struct KeyEntry {
    /// The record as read.
    pub(crate) key: ApiKey,
    /// Who it makes the caller.
    pub(crate) principal: Arc<Principal>,
    /// Whether the user who owns it is banned, or gone.
    pub(crate) is_banned: bool,
}

impl KeyEntry {
    /// From what the store returned.
    pub(crate) fn new(key: ApiKey, owner: Option<&User>) -> Self {
        let (subject, user_id) = match &key.owner {
            KeyOwner::User(id) => (SubjectId::local(*id), Some(*id)),
            KeyOwner::Org(id) => {
                (SubjectId { issuer: SubjectId::LOCAL.into(), subject: format!("org:{id}").into() }, None)
            }
            KeyOwner::Service(name) => {
                (SubjectId { issuer: SubjectId::LOCAL.into(), subject: format!("service:{name}").into() }, None)
            }
        };
        let principal = Arc::new(Principal {
            kind: PrincipalKind::Agent,
            subject,
            user_id,
            email: owner.filter(|user| user.email_verified).map(|user| user.email.clone()),
            org_id: key.org_id,
            authenticated: Authenticated::ApiKey { id: key.id, capabilities: key.capabilities.clone() },
            expires_at: key.expires_at,
        });
        // A user's key without its user is nobody's.
        let is_banned = match &key.owner {
            KeyOwner::User(_) => owner.is_none_or(|user| user.banned_at.is_some()),
            KeyOwner::Org(_) | KeyOwner::Service(_) => false,
        };
        Self { key, principal, is_banned }
    }

    fn owner(&self) -> Option<UserId> {
        self.principal.user_id
    }
}

/// The user behind a token of the old system, for one very token.
#[derive(Debug)]
pub(crate) struct LegacyEntry {
    /// Who it makes the caller.
    pub(crate) principal: Arc<Principal>,
    /// Whether the user is banned.
    pub(crate) is_banned: bool,
    hash: TokenHash,
    user: UserId,
}

impl LegacyEntry {
    /// The entry for the token hashed as `hash`, with these verified claims.
    pub(crate) fn new(hash: TokenHash, claims: Claims, user: &User) -> Self {
        let principal = Arc::new(Principal {
            kind: PrincipalKind::User,
            subject: SubjectId::local(user.id),
            user_id: Some(user.id),
            // What we know ourselves; the token's own claim proves nothing about the address.
            email: user.email_verified.then(|| user.email.clone()),
            org_id: None,
            expires_at: claims.expires_at,
            authenticated: Authenticated::Legacy { claims: Arc::new(claims) },
        });
        Self { principal, is_banned: user.banned_at.is_some(), hash, user: user.id }
    }
}

/// How a session was found over.
#[derive(Clone, Copy, Debug)]
struct Over {
    last_used: Timestamp,
    reason: Reason,
}

/// The caches, bounded.
#[derive(Debug)]
pub(crate) struct Records {
    sessions: Cache<TokenHash, Arc<SessionEntry>>,
    /// Sessions that were found over by the clock, with the last use that was known then: a clock that is set back brings
    /// none of them back.
    over: Cache<TokenHash, Over>,
    has_over: AtomicBool,
    keys: Cache<TokenHash, Arc<KeyEntry>>,
    legacy: Cache<TokenHash, Arc<LegacyEntry>>,
}

impl Records {
    /// Caches for up to `capacity` records each.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            sessions: Cache::new(capacity),
            over: Cache::new(capacity),
            has_over: AtomicBool::new(false),
            keys: Cache::new(capacity),
            legacy: Cache::new(capacity),
        }
    }

    /// Notes that a session was found over, if that is what `reason` says.
    pub(crate) fn note_over(&self, entry: &SessionEntry, reason: Reason) {
        if matches!(reason, Reason::SessionIdle | Reason::SessionExpiredAbsolute) {
            let over = Over { last_used: entry.last_used_at(), reason };
            self.over.insert(entry.session.hash, over);
            self.has_over.store(true, Ordering::Relaxed);
        }
    }

    /// Why a session was found over before, if it was and has not been used since. Another process may know of a use of
    /// which nobody knew here; past its absolute end no use counts.
    pub(crate) fn was_over(&self, entry: &SessionEntry) -> Option<Reason> {
        // The usual case costs no look-up.
        let over = self.has_over.load(Ordering::Relaxed).then(|| self.over.get(&entry.session.hash)).flatten()?;
        let holds = over.reason == Reason::SessionExpiredAbsolute || entry.last_used_at() <= over.last_used;
        holds.then_some(over.reason)
    }

    /// A session, if in memory.
    pub(crate) fn session(&self, hash: &TokenHash) -> Option<Arc<SessionEntry>> {
        self.sessions.get(hash)
    }

    /// A key, if in memory.
    pub(crate) fn key(&self, hash: &TokenHash) -> Option<Arc<KeyEntry>> {
        self.keys.get(hash)
    }

    /// The user behind a token of the old system, if in memory.
    pub(crate) fn legacy(&self, hash: &TokenHash) -> Option<Arc<LegacyEntry>> {
        self.legacy.get(hash)
    }

    /// Keeps the user behind a token of the old system.
    pub(crate) fn keep_legacy(&self, entry: Arc<LegacyEntry>) {
        self.legacy.insert(entry.hash, entry);
    }

    /// Drops a token of the old system.
    pub(crate) fn drop_legacy(&self, hash: &TokenHash) {
        self.legacy.remove(hash);
    }

    /// Keeps a session just read.
    pub(crate) fn keep_session(&self, entry: Arc<SessionEntry>) {
        self.sessions.insert(entry.session.hash, entry);
    }

    /// Keeps a key just read.
    pub(crate) fn keep_key(&self, entry: Arc<KeyEntry>) {
        self.keys.insert(entry.key.hash, entry);
    }

    /// Drops a session that ended.
    pub(crate) fn drop_session(&self, hash: &TokenHash) {
        self.sessions.remove(hash);
    }

    /// Drops a key that is gone.
    pub(crate) fn drop_key(&self, hash: &TokenHash) {
        self.keys.remove(hash);
    }

    /// Drops all that was read from the store.
    pub(crate) fn clear(&self) {
        self.sessions.clear();
        self.keys.clear();
        self.legacy.clear();
    }

    /// Drops what `scope` voids.
    pub(crate) fn void(&self, scope: &Scope) {
        match scope {
            Scope::Session { id } => self.sessions.retain(|_, entry| entry.session.id != *id),
            Scope::UserSessions { id } => self.sessions.retain(|_, entry| entry.session.user_id != *id),
            Scope::AllSessions => self.sessions.clear(),
            Scope::User { id } => {
                self.sessions.retain(|_, entry| entry.session.user_id != *id);
                self.keys.retain(|_, entry| entry.owner() != Some(*id));
                self.legacy.retain(|_, entry| entry.user != *id);
            }
            Scope::ApiKey { id } => self.keys.retain(|_, entry| entry.key.id != *id),
            Scope::Lifted { scope } => self.void(scope),
            Scope::Token { .. }
            | Scope::Subject { .. }
            | Scope::License { .. }
            | Scope::LicenseTime
            | Scope::KeyRing { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests;
