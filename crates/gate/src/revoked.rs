//! What the revocation log says, in memory: asked on every request, fed by the tail.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use doorward_core::{
    decision::Freshness,
    id::{ApiKeyId, SessionId, UserId},
    principal::{Authenticated, Principal},
    reason::Reason,
    revocation::{LIFTED_FOR, NewRevocation, Revocation, Scope},
    time::{Now, Timestamp},
};

mod listed;

use self::listed::Listed;

/// How old the state may be and still count as fresh.
pub(crate) const FRESH_FOR: Duration = Duration::from_secs(2);

/// Whoever could not read the log for so long may have missed entries that took others back, which are in it for
/// [`LIFTED_FOR`] only.
const CUT_OFF: Duration = Duration::from_secs(LIFTED_FOR.as_secs() / 2);

/// By how much the clock of whoever purges the log may be ahead.
const PURGE_SKEW: Duration = Duration::from_secs(3600);

/// How long a change of a user is remembered. Whoever holds something open looks within moments of each
/// entry; this bounds the memory, not the promise.
const USERS_FOR: Duration = Duration::from_secs(600);

/// What a change of a user means to what they hold open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// They may not be here any more.
    Banned,
    /// Another role or address, or a ban that was lifted: who they were when they came is out of date.
    Other,
}

/// What is revoked. Reads take a short shared lock that no I/O ever holds.
#[derive(Debug, Default)]
pub(crate) struct Revoked {
    state: RwLock<State>,
    /// Last entry applied.
    seq: AtomicI64,
    /// Monotonic milliseconds of the last successful read, plus one; zero before the first.
    read_at: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Each with the end of the entry.
    sessions: HashMap<SessionId, Option<Timestamp>>,
    api_keys: HashMap<ApiKeyId, Option<Timestamp>>,
    /// Sessions of the user that began at or before the first time are over.
    user_sessions: HashMap<UserId, (Timestamp, Option<Timestamp>)>,
    all_sessions: Option<Timestamp>,
    /// Users that changed, with the monotonic time at which this process heard of it.
    users: HashMap<UserId, (Duration, Change)>,
    /// Users whose sessions all ended, with the monotonic time at which this process heard of it last.
    ends: HashMap<UserId, Duration>,
    /// When it heard last that the sessions of everybody ended.
    end_of_all: Option<Duration>,
    /// The last entry that was ever applied, also where the log is read again.
    heard: i64,
    /// The last entry applied.
    last: Option<Revocation>,
    /// By `jti`.
    tokens: Listed,
    /// By `sub`.
    subjects: Listed,
    /// What the log says from its start on, while it is read again; until that is done, all of the above counts.
    anew: Option<Box<State>>,
}

impl Revoked {
    /// Position of the last entry applied; the tail reads on from here.
    pub(crate) fn seq(&self) -> i64 {
        self.seq.load(Ordering::Acquire)
    }

    /// Applies entries in order, as they were read after the one at `after`, and says up to which number they are no
    /// news. `None`, and nothing is done, where that is no longer the last one: somebody else read on meanwhile, and
    /// what was taken back since must not be brought back.
    pub(crate) fn apply(&self, after: i64, entries: &[Revocation], now: Now) -> Option<i64> {
        let mut state = self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.seq() != after {
            return None;
        }
        let heard = state.heard;
        for entry in entries {
            if let Some(anew) = &mut state.anew {
                anew.apply(entry);
            }
            state.apply(entry);
            state.note_end(entry, now);
        }
        if let Some(last) = entries.last() {
            state.heard = state.heard.max(last.seq);
            state.last = Some(last.clone());
            self.seq.store(last.seq, Ordering::Release);
        }
        Some(heard)
    }

    /// The last entry applied; `None` where reading begins at the start of the log.
    pub(crate) fn last(&self) -> Option<Revocation> {
        self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner).last.clone()
    }

    /// Begins at the start of the log again if it could not be read for [`CUT_OFF`].
    pub(crate) fn begin_anew_if_cut_off(&self, now: Now) {
        let read_at = self.read_at.load(Ordering::Acquire);
        if read_at == 0 || now.mono.saturating_sub(Duration::from_millis(read_at - 1)) < CUT_OFF {
            return;
        }
        let mut state = self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.anew.is_none() {
            self.begin(&mut state);
        }
    }

    /// Begins at the start of the log again, where `last` is not in it any more. Its time may have come, and it was purged:
    /// then the rest is no news. Otherwise the log is another one, and its numbers mean something else.
    pub(crate) fn begin_without(&self, last: &Revocation, now: Timestamp) {
        let mut state = self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.last.as_ref() != Some(last) {
            return;
        }
        self.begin(&mut state);
        if last.entry.until.is_none_or(|until| until > now.plus(PURGE_SKEW)) {
            state.heard = 0;
        }
    }

    fn begin(&self, state: &mut State) {
        (state.anew, state.last) = (Some(Box::default()), None);
        self.seq.store(0, Ordering::Release);
    }

    /// Notes that the log ended with the entry at `end` when asked at `now`. Not to be said while more is to come:
    /// what is revoked further on would pass for good. False, and nothing is done, where another entry is the last
    /// one by now.
    pub(crate) fn caught_up(&self, end: i64, now: Now) -> bool {
        let mut guard = self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.seq() != end {
            return false;
        }
        if let Some(mut anew) = guard.anew.take() {
            // These are noted as they are heard of, and are not in the log.
            anew.users = std::mem::take(&mut guard.users);
            anew.ends = std::mem::take(&mut guard.ends);
            (anew.end_of_all, anew.heard, anew.last) = (guard.end_of_all, guard.heard, guard.last.take());
            *guard = *anew;
        }
        let millis = u64::try_from(now.mono.as_millis()).unwrap_or(u64::MAX - 1);
        self.read_at.fetch_max(millis + 1, Ordering::AcqRel);
        true
    }

    /// Forgets entries whose time is over, so memory is bounded by what is in force.
    pub(crate) fn sweep(&self, at: Now) {
        let now = at.wall;
        let mut guard = self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let state = &mut *guard;
        let alive = |until: &Option<Timestamp>| until.is_none_or(|until| until > now);
        state.sessions.retain(|_, until| alive(until));
        state.api_keys.retain(|_, until| alive(until));
        state.user_sessions.retain(|_, (_, until)| alive(until));
        let is_recent = |applied: Duration| at.mono.saturating_sub(applied) < USERS_FOR;
        state.users.retain(|_, (applied, _)| is_recent(*applied));
        state.ends.retain(|_, applied| is_recent(*applied));
        state.tokens.sweep(now);
        state.subjects.sweep(now);
    }

    /// Whether the state was read within [`FRESH_FOR`].
    pub(crate) fn freshness(&self, now: Now) -> Freshness {
        let read_at = self.read_at.load(Ordering::Acquire);
        let age = now.mono.saturating_sub(Duration::from_millis(read_at.saturating_sub(1)));
        if read_at > 0 && age <= FRESH_FOR { Freshness::Fresh } else { Freshness::Stale }
    }

    /// Notes that `user` changed, and `why` as the log says. To be said once no cache holds the old record any
    /// more, so whoever was admitted by it began earlier than `now`.
    pub(crate) fn changed(&self, user: UserId, why: &str, now: Now) {
        let mut state = self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = state.users.get(&user).map_or(Change::Other, |(_, change)| *change);
        let change = match why {
            NewRevocation::BAN => Change::Banned,
            NewRevocation::UNBAN => Change::Other,
            // A ban is not lifted by another role or address.
            _ => before,
        };
        state.users.insert(user, (now.mono, change));
    }

    /// How `user` changed since (monotonic), or at that very moment.
    pub(crate) fn change(&self, user: UserId, since: Duration) -> Option<Change> {
        let state = self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.users.get(&user).filter(|(applied, _)| *applied >= since).map(|(_, change)| *change)
    }

    /// Whether this process heard since (monotonic), or at that very moment, that all sessions of `user` ended. Whose
    /// session began before by a clock that is ahead, or while the command was on its way, has no other sign of it.
    pub(crate) fn has_ended(&self, user: Option<UserId>, since: Duration) -> bool {
        let state = self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let of_user = user.and_then(|user| state.ends.get(&user).copied());
        of_user.max(state.end_of_all).is_some_and(|heard| heard >= since)
    }

    /// Entries of the blocklist in memory; those whose time is over count until the next sweep.
    pub(crate) fn blocklist_len(&self) -> usize {
        let state = self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.tokens.len() + state.subjects.len()
    }

    /// Why `principal` is revoked, if it is.
    pub(crate) fn reason(&self, principal: &Principal, now: Timestamp) -> Option<Reason> {
        let state = self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &principal.authenticated {
            Authenticated::Session { id, created_at, .. } => {
                let over = holds(&state.sessions, id, now)
                    || state.all_sessions.is_some_and(|at| *created_at <= at)
                    || principal
                        .user_id
                        .and_then(|user| state.user_sessions.get(&user))
                        .is_some_and(|(at, _)| created_at <= at);
                over.then_some(Reason::SessionRevoked)
            }
            Authenticated::ApiKey { id, .. } => holds(&state.api_keys, id, now).then_some(Reason::ApiKeyRevoked),
            // A token of the old system is what a session is here, so what ends all sessions of its user ends it:
            // those issued at or before that moment, and those that do not say when.
            Authenticated::Legacy { claims }
                if principal
                    .user_id
                    .and_then(|user| state.user_sessions.get(&user).map(|(at, _)| *at))
                    .max(state.all_sessions)
                    .is_some_and(|end| claims.issued_at.is_none_or(|issued| issued <= end)) =>
            {
                Some(Reason::TokenRevoked)
            }
            Authenticated::Bearer { claims } | Authenticated::Legacy { claims } => {
                let issuer = &*principal.subject.issuer;
                let token = claims.id.as_deref().is_some_and(|jti| state.tokens.holds(issuer, jti, now));
                let subject = || state.subjects.holds(issuer, &principal.subject.subject, now);
                (token || subject()).then_some(Reason::TokenRevoked)
            }
        }
    }
}

impl Revoked {
    /// Whether the blocklist names this subject.
    pub(crate) fn blocks_subject(&self, issuer: &str, subject: &str, now: Timestamp) -> bool {
        let state = self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.subjects.holds(issuer, subject, now)
    }
}

impl State {
    fn apply(&mut self, entry: &Revocation) {
        let until = entry.entry.until;
        match &entry.entry.scope {
            Scope::Session { id } => {
                self.sessions.insert(*id, until);
            }
            Scope::UserSessions { id } => {
                let slot = self.user_sessions.entry(*id).or_insert((entry.entry.at, until));
                slot.0 = slot.0.max(entry.entry.at);
                // The longer of the two ends; `None` is for ever.
                slot.1 = slot.1.zip(until).map(|(a, b)| a.max(b));
            }
            Scope::AllSessions => self.all_sessions = self.all_sessions.max(Some(entry.entry.at)),
            Scope::ApiKey { id } => {
                self.api_keys.insert(*id, until);
            }
            Scope::Token { issuer, jti } => {
                self.tokens.insert(issuer, jti, until);
            }
            Scope::Subject { issuer, subject } => {
                self.subjects.insert(issuer, subject, until);
            }
            Scope::Lifted { scope } => self.lift(scope),
            // These void caches; they forbid nothing by themselves.
            Scope::User { .. } | Scope::License { .. } | Scope::LicenseTime | Scope::KeyRing { .. } => {}
        }
    }

    /// Notes when an end of sessions that have no entries of their own was heard of.
    fn note_end(&mut self, entry: &Revocation, now: Now) {
        match &entry.entry.scope {
            _ if entry.seq <= self.heard => {}
            Scope::UserSessions { id } => drop(self.ends.insert(*id, now.mono)),
            Scope::AllSessions => self.end_of_all = Some(now.mono),
            _ => {}
        }
    }

    fn lift(&mut self, scope: &Scope) {
        match scope {
            Scope::Session { id } => {
                self.sessions.remove(id);
            }
            Scope::ApiKey { id } => {
                self.api_keys.remove(id);
            }
            Scope::Token { issuer, jti } => self.tokens.remove(issuer, jti),
            Scope::Subject { issuer, subject } => self.subjects.remove(issuer, subject),
            Scope::UserSessions { .. }
            | Scope::AllSessions
            | Scope::User { .. }
            | Scope::License { .. }
            | Scope::LicenseTime
            | Scope::KeyRing { .. }
            | Scope::Lifted { .. } => {}
        }
    }
}

fn is_in_force(until: Option<Timestamp>, now: Timestamp) -> bool {
    until.is_none_or(|until| now < until)
}

fn holds<K: Eq + Hash>(map: &HashMap<K, Option<Timestamp>>, key: &K, now: Timestamp) -> bool {
    map.get(key).is_some_and(|until| is_in_force(*until, now))
}

#[cfg(test)]
mod tests;
