//! The sessions of one person: what they see of them, and how they end them.

use doorward_core::{
    decision::Denial,
    id::{SessionId, UserId},
    link::Asker,
    session::{self, Session},
    time::Now,
};
use doorward_store::{End, LISTED_SESSIONS};

use crate::gate::Gate;

/// Rounds in which others are ended. The store lists a bounded number at once; sessions that begin meanwhile
/// were not meant.
const ROUNDS: usize = 16;

/// The sessions of a person.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The one last used first.
    pub sessions: Vec<Session>,
    /// Whether there are older ones besides, which are not listed.
    pub is_cut: bool,
}

/// The sessions of `user` that are not over; of very many those that began last, and `own`, the one that asks.
///
/// # Errors
/// `store_unavailable`.
pub async fn list(gate: &Gate, user: UserId, own: SessionId, now: Now) -> Result<Listed, Denial> {
    let limits = gate.policy().sessions;
    let mut sessions = gate.store().sessions_of(user).await?;
    let is_cut = match sessions.last().filter(|_| sessions.len() == LISTED_SESSIONS) {
        Some(last) => gate.store().sessions_of_after(user, None).await?.first().is_some_and(|first| first.id < last.id),
        None => false,
    };
    if is_cut && !sessions.iter().any(|session| session.id == own) {
        sessions.extend(gate.store().session_of(user, own).await?);
    }
    for session in &mut sessions {
        // A use is written within a minute or so; of those that came through here it is known at once.
        if let Some(used) = gate.last_used(&session.hash) {
            session.last_used_at = session.last_used_at.max(used);
        }
    }
    sessions.retain(|session| session::check(session, session.last_used_at, &limits, now.wall).is_ok());
    sessions.sort_by_key(|session| std::cmp::Reverse((session.last_used_at, session.id)));
    Ok(Listed { sessions, is_cut })
}

/// Ends the session `id` of `user` on the order of their session `by`. `None`: `user` has no such session, whoever
/// else may have it.
///
/// # Errors
/// `store_unavailable`: it may live on.
pub async fn revoke(
    gate: &Gate,
    user: UserId,
    by: SessionId,
    id: SessionId,
    asker: &Asker,
    now: Now,
) -> Result<Option<Session>, Denial> {
    match gate.store().session_of(user, id).await? {
        Some(session) => end(gate, &session, by, asker, now).await,
        None => Ok(None),
    }
}

/// Ends every session of `user` but `keep`, and says how many there were.
///
/// # Errors
/// `store_unavailable`: some may live on; those that ended stay ended.
pub async fn revoke_others(gate: &Gate, user: UserId, keep: SessionId, asker: &Asker, now: Now) -> Result<u64, Denial> {
    let (mut ended, mut after) = (0, None);
    for _ in 0..ROUNDS {
        let page = gate.store().sessions_of_after(user, after).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for session in page.iter().filter(|session| session.id != keep && session.created_at <= now.wall) {
            ended += u64::from(end(gate, session, keep, asker, now).await?.is_some());
        }
    }
    Ok(ended)
}

async fn end(
    gate: &Gate,
    session: &Session,
    by: SessionId,
    asker: &Asker,
    now: Now,
) -> Result<Option<Session>, Denial> {
    let effects = session::plan_revoke(session, by, asker, now.wall);
    let ended = gate.store().end_session(session.hash, effects).await?;
    gate.forget_session(&session.hash);
    match ended {
        End::Ended(session) => {
            tracing::info!(user = %session.user_id, session = %session.id, %by, "revoked by its person");
            Ok(Some(session))
        }
        End::Unknown => Ok(None),
    }
}
