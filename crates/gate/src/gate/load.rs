//! What a decision had to wait for: records of the store, and the verdict on a token.

use std::{future::Future, pin::Pin, sync::Arc};

use doorward_core::{decision::Denial, session::TokenHash};

use super::Gate;
use crate::{
    issuer::VerifiedToken,
    records::{KeyEntry, SessionEntry},
};

/// What has been fetched for a decision that had to wait.
pub(super) enum Loaded {
    Session(Result<Option<Arc<SessionEntry>>, Denial>),
    Key(Result<Option<Arc<KeyEntry>>, Denial>),
    Token(Result<Arc<VerifiedToken>, Denial>),
}

/// What is still needed.
pub(super) enum Need {
    Session(TokenHash),
    Key(TokenHash),
    Token(Pin<Box<dyn Future<Output = Result<Arc<VerifiedToken>, Denial>> + Send>>),
}

impl Gate {
    pub(super) async fn load(&self, need: Need) -> Loaded {
        match need {
            Need::Token(verdict) => Loaded::Token(verdict.await),
            Need::Session(hash) => Loaded::Session(self.load_session(hash).await),
            Need::Key(hash) => Loaded::Key(self.load_key(hash).await),
        }
    }

    pub(super) async fn load_session(&self, hash: TokenHash) -> Result<Option<Arc<SessionEntry>>, Denial> {
        let seq = self.0.revoked.seq();
        let Some((session, user)) = self.0.store.session(hash).await? else {
            self.0.records.drop_session(&hash);
            return Ok(None);
        };
        let entry = Arc::new(SessionEntry::new(session, &user));
        // A use that this process knows of and the store does not yet must not be lost.
        if let Some(known) = self.0.records.session(&hash) {
            entry.carry_over(&known);
        }
        self.0.records.keep_session(Arc::clone(&entry));
        // What was revoked while the row was on its way has found nothing to void.
        if self.0.revoked.seq() != seq {
            self.0.records.drop_session(&hash);
        }
        Ok(Some(entry))
    }

    async fn load_key(&self, hash: TokenHash) -> Result<Option<Arc<KeyEntry>>, Denial> {
        let seq = self.0.revoked.seq();
        let Some((key, owner)) = self.0.store.api_key(hash).await? else {
            self.0.records.drop_key(&hash);
            return Ok(None);
        };
        let entry = Arc::new(KeyEntry::new(key, owner.as_ref()));
        self.0.records.keep_key(Arc::clone(&entry));
        if self.0.revoked.seq() != seq {
            self.0.records.drop_key(&hash);
        }
        Ok(Some(entry))
    }
}
