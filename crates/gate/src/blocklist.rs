//! Blocking tokens and subjects, and taking it back: entries of the revocation log, with their audit rows.
//!
//! The functions act through the store, as a command in another process does; every gate over the same store follows
//! within a second. The methods of [`Gate`] do the same and are in force in their own process when they return.

use doorward_core::{
    audit::{AuditEvent, EventKind},
    decision::Denial,
    effects::Effects,
    reason::Reason,
    revocation::{NewRevocation, Revocation, Scope},
    time::Timestamp,
};
use doorward_store::{Store, StoreError, Unblock};

use crate::gate::Gate;

/// Longest reason that an entry may carry, in characters.
pub const MAX_WHY: usize = 200;

/// An entry about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// A token or a subject ([`Scope::token`], [`Scope::subject`]).
    pub scope: Scope,
    /// When it ends; `None` for ever.
    pub until: Option<Timestamp>,
    /// Why, for the operator.
    pub why: String,
    /// Who made it, for the audit log: `command line`, `admin`, a name of the host's.
    pub by: String,
}

/// Whether `text` can be the reason of an entry: at most [`MAX_WHY`] characters, none of them a control.
pub fn is_why(text: &str) -> bool {
    text.chars().count() <= MAX_WHY && !text.contains(char::is_control)
}

/// Blocks what `block` names. An entry that is there already stays: the longer one counts.
///
/// Not checked here: whether an issuer of that name is configured.
///
/// # Errors
/// [`StoreError`].
pub async fn add(store: &Store, block: Block, now: Timestamp) -> Result<(), StoreError> {
    let event = event(EventKind::BlocklistAdded, &block.scope, &block.why, &block.by, now);
    let entry = NewRevocation { scope: block.scope, at: now, until: block.until, why: block.why };
    store.append(Effects::audited(event).with_revocation(entry)).await
}

/// Takes back what blocks `scope`.
///
/// # Errors
/// [`StoreError`].
pub async fn remove(store: &Store, scope: Scope, why: &str, by: &str, now: Timestamp) -> Result<Unblock, StoreError> {
    let event = event(EventKind::BlocklistRemoved, &scope, why, by, now);
    let entry = NewRevocation::lifting(scope.clone(), now, why);
    store.unblock(scope, now, Effects::audited(event).with_revocation(entry)).await
}

fn event(kind: EventKind, scope: &Scope, why: &str, by: &str, now: Timestamp) -> AuditEvent {
    let mut event = AuditEvent::new(kind, now);
    let named = match scope {
        Scope::Token { issuer, jti } => [("issuer", issuer), ("jti", jti)],
        Scope::Subject { issuer, subject } => [("issuer", issuer), ("subject", subject)],
        _ => return event,
    };
    for (name, value) in named {
        event.detail.more.insert(name.to_owned(), value.as_str().into());
    }
    event.detail.more.insert("why".to_owned(), why.into());
    event.detail.more.insert("by".to_owned(), by.into());
    event
}

impl Gate {
    /// Blocks a token or a subject. When this returns, this process refuses it; every other one does within a second.
    ///
    /// # Errors
    /// `request_malformed` if the entry names neither, an issuer that is not configured, or a reason that is too
    /// long; `store_unavailable`.
    pub async fn block(&self, block: Block) -> Result<(), Denial> {
        self.check_scope(&block.scope)?;
        if !is_why(&block.why) {
            return Err(malformed("a reason without control characters"));
        }
        add(self.store(), block, self.clock().now().wall).await?;
        self.follow().await;
        Ok(())
    }

    /// Takes back what blocks `scope`; `false` if nothing does.
    ///
    /// # Errors
    /// `store_unavailable`; `request_malformed` if `scope` names no token or subject.
    pub async fn unblock(&self, scope: Scope, why: &str, by: &str) -> Result<bool, Denial> {
        if !scope.is_blocklist() || !is_why(why) {
            return Err(malformed("a token or a subject, and a short reason"));
        }
        let outcome = remove(self.store(), scope, why, by, self.clock().now().wall).await?;
        self.follow().await;
        Ok(outcome == Unblock::Lifted)
    }

    /// Entries in force with a number above `after`, in order; 1,000 at most.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn blocklist(&self, after: i64, limit: u32) -> Result<Vec<Revocation>, Denial> {
        Ok(self.store().blocklist(self.clock().now().wall, after, limit).await?)
    }

    /// Entries that this process holds in memory.
    pub fn blocklist_len(&self) -> usize {
        self.inner().revoked.blocklist_len()
    }

    fn check_scope(&self, scope: &Scope) -> Result<(), Denial> {
        let (Scope::Token { issuer, .. } | Scope::Subject { issuer, .. }) = scope else {
            return Err(malformed("a token or a subject"));
        };
        let now = self.clock().now();
        // An entry for an issuer that is not there would look like protection and be none.
        let is_known = self.issuers().status(now).iter().any(|known| *known.name == **issuer);
        if is_known { Ok(()) } else { Err(malformed("the name of a configured issuer")) }
    }
}

fn malformed(required: &str) -> Denial {
    Denial::from(Reason::RequestMalformed).with_required(required)
}
