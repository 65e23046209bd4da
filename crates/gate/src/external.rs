//! A set of blocked subjects that another system keeps, asked live for every request with a bearer.
//!
//! The revocation log is ours and in memory; such a set is neither. It can be down or slow: then it has said nothing,
//! and the rule's `on_stale` decides (G30).

use std::{fmt, sync::Arc, time::Duration};

use doorward_core::{
    decision::Freshness,
    principal::{Authenticated, Principal},
    reason::Reason,
};
use futures_util::future::BoxFuture;

use crate::gate::Gate;

/// How often the subject of something that a bearer holds open is asked for again: nobody tells us of changes.
pub(crate) const ASK_AGAIN: Duration = Duration::from_secs(10);

/// The answer on its way: whether the subject is blocked, or why the set cannot tell, for the operator.
pub type Asked = BoxFuture<'static, Result<bool, String>>;

/// A set of blocked subjects that somebody else keeps. What is not known to be in it is not blocked by it.
pub trait BlockedSubjects: fmt::Debug + Send + Sync + 'static {
    /// Asks for `subject`, the `sub` of a token. The answer must be bounded in time: requests wait for it.
    fn contains(&self, subject: Arc<str>) -> Asked;
}

/// Held in a box of known size, so that it can be swapped.
#[derive(Debug)]
pub(crate) struct ExternalSet(pub(crate) Box<dyn BlockedSubjects>);

/// What the set said.
#[derive(Clone, Debug)]
pub(crate) struct External(pub(crate) Result<bool, String>);

impl External {
    pub(crate) fn freshness(&self) -> Freshness {
        if self.0.is_ok() { Freshness::Fresh } else { Freshness::Stale }
    }

    pub(crate) fn reason(&self) -> Option<Reason> {
        (self.0 == Ok(true)).then_some(Reason::TokenRevoked)
    }
}

impl Gate {
    /// Asks `set` from now on, or no set. Requests under way finish under the old one.
    pub fn use_blocked_subjects(&self, set: Option<Box<dyn BlockedSubjects>>) {
        self.inner().external.store(set.map(|set| Arc::new(ExternalSet(set))));
    }

    /// The question about `principal`, if there is a set and it speaks about such a caller.
    pub(crate) fn ask_external(&self, principal: &Principal) -> Option<Asked> {
        match principal.authenticated {
            Authenticated::Bearer { .. } => self.ask_external_about(&principal.subject.subject),
            Authenticated::Session { .. } | Authenticated::ApiKey { .. } | Authenticated::Legacy { .. } => None,
        }
    }

    /// The question about a subject, if there is a set.
    pub(crate) fn ask_external_about(&self, subject: &Arc<str>) -> Option<Asked> {
        let set = self.inner().external.load();
        set.as_ref().map(|set| set.0.contains(Arc::clone(subject)))
    }
}

#[cfg(feature = "redis")]
impl BlockedSubjects for doorward_store::shared::SharedSet {
    fn contains(&self, subject: Arc<str>) -> Asked {
        let set = self.clone();
        Box::pin(async move { Self::contains(&set, &subject).await.map_err(|error| error.note) })
    }
}
