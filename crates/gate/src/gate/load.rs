//! What a decision had to wait for: records of the store, and the verdict on a token.

use std::{future::Future, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use doorward_core::{
    decision::Denial,
    effects::Effects,
    id::UserId,
    legacy::{self, Names},
    session::TokenHash,
    token::Claims,
    user::User,
};
use doorward_store::LinkIdentity;

use super::Gate;
use crate::{
    external::{Asked, External},
    issuer::VerifiedToken,
    license::{self, Licenses, Look},
    rate::{ClientNet, UNKNOWN_CREDENTIALS},
    records::{KeyEntry, LegacyEntry, SessionEntry},
};

/// What has been fetched for a decision that had to wait; each part once at most.
#[derive(Default)]
pub(super) struct Loaded {
    /// The record of the credential, or the verdict on it.
    pub(super) credential: Option<LoadedCredential>,
    /// When that was asked for (monotonic).
    since: Duration,
    /// Whether the revocation log was waited for.
    pub(super) has_waited: bool,
    /// What the external set says of the subject of a token.
    pub(super) listed: Option<External>,
    /// What is known of the license.
    pub(super) license: Option<Result<Look, Denial>>,
    /// What the external set says of the license's subject.
    pub(super) license_listed: Option<External>,
}

/// A credential, as the store or its issuer answered.
#[derive(Clone)]
pub(super) enum LoadedCredential {
    Session(Result<Option<Arc<SessionEntry>>, Denial>),
    Key(Result<Option<Arc<KeyEntry>>, Denial>),
    Token(Result<Arc<VerifiedToken>, Denial>),
    Legacy(Result<Option<Arc<LegacyEntry>>, Denial>),
}

/// What is still needed.
pub(super) enum Need {
    Session(TokenHash),
    Key(TokenHash),
    Token(Pin<Box<dyn Future<Output = Result<Arc<VerifiedToken>, Denial>> + Send>>),
    /// The user behind a verified token of the old system.
    Legacy(TokenHash, Box<Claims>),
    /// What an external set says of the subject of this verified token.
    Listed(Arc<VerifiedToken>, Asked),
    /// That the revocation log is read again.
    Log,
    License(Licenses, Box<license::Asked>),
    LicenseListed(Asked),
}

impl LoadedCredential {
    /// The user that it stands for, if it does.
    fn user(&self) -> Option<UserId> {
        let principal = match self {
            Self::Session(found) => &found.as_ref().ok()?.as_ref()?.principal,
            Self::Key(found) => &found.as_ref().ok()?.as_ref()?.principal,
            Self::Legacy(found) => &found.as_ref().ok()?.as_ref()?.principal,
            Self::Token(verdict) => &verdict.as_ref().ok()?.principal,
        };
        principal.user_id
    }
}

impl Gate {
    /// Forgets a credential that was loaded before its user changed: a license may be waited for since, and a ban is heard
    /// of meanwhile. What is asked again then knows of it.
    pub(super) fn forget_outdated(&self, loaded: &mut Loaded) {
        let user = loaded.credential.as_ref().and_then(LoadedCredential::user);
        if user.is_some_and(|user| self.0.revoked.change(user, loaded.since).is_some()) {
            *loaded = Loaded { has_waited: loaded.has_waited, ..Loaded::default() };
        }
    }

    /// Fetches what is needed, besides what is there already.
    pub(super) async fn load(&self, need: Need, client: IpAddr, loaded: &mut Loaded) {
        let since = self.0.clock.now().mono;
        let credential = match need {
            Need::Token(verdict) => LoadedCredential::Token(verdict.await),
            Need::Listed(token, answer) => {
                loaded.listed = Some(External(answer.await));
                LoadedCredential::Token(Ok(token))
            }
            Need::Legacy(hash, claims) => LoadedCredential::Legacy(self.load_legacy(hash, *claims).await),
            Need::Session(hash) => LoadedCredential::Session(match self.may_look_up(&hash, client) {
                Ok(()) => self.load_session(hash).await,
                Err(denial) => Err(denial),
            }),
            Need::Key(hash) => {
                let is_known = self.0.records.key(&hash).is_some();
                LoadedCredential::Key(match if is_known { Ok(()) } else { self.has_room(client) } {
                    Ok(()) => self.load_key(hash).await,
                    Err(denial) => Err(denial),
                })
            }
            Need::Log => {
                self.catch_up().await;
                // Whatever was known before may be hours old, where the machine was suspended.
                *loaded = Loaded { has_waited: true, ..Loaded::default() };
                return;
            }
            Need::License(licenses, asked) => {
                loaded.license = Some(licenses.load(&asked, self.is_fresh(self.0.clock.now())).await);
                return;
            }
            Need::LicenseListed(answer) => {
                loaded.license_listed = Some(External(answer.await));
                return;
            }
        };
        (loaded.credential, loaded.since) = (Some(credential), since);
    }

    /// Whether the store may be asked for a session on behalf of `client`. One that is in memory always may be
    /// asked for: whoever has a session that this process knows is never held back by others behind one address.
    ///
    /// # Errors
    /// `rate_limited`, once that client has had too many looked up in vain.
    pub fn may_look_up(&self, session: &TokenHash, client: IpAddr) -> Result<(), Denial> {
        self.0.records.session(session).map_or_else(|| self.has_room(client), |_| Ok(()))
    }

    /// Counts a look-up that found nothing good.
    pub fn looked_up_in_vain(&self, client: IpAddr) {
        // One over the limit finds out with its next request.
        let _ = self.0.unknown.check(&ClientNet::of(client));
    }

    fn has_room(&self, client: IpAddr) -> Result<(), Denial> {
        let fits = self.0.unknown.has_room(&ClientNet::of(client));
        self.0.unknown.told(UNKNOWN_CREDENTIALS.0, fits).map(|_| ()).map_err(Denial::limited)
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

    async fn load_legacy(&self, hash: TokenHash, claims: Claims) -> Result<Option<Arc<LegacyEntry>>, Denial> {
        let seq = self.0.revoked.seq();
        let Some(user) = self.legacy_user(&legacy::names(&claims)).await? else {
            self.0.records.drop_legacy(&hash);
            return Ok(None);
        };
        let entry = Arc::new(LegacyEntry::new(hash, claims, &user));
        self.0.records.keep_legacy(Arc::clone(&entry));
        if self.0.revoked.seq() != seq {
            self.0.records.drop_legacy(&hash);
        }
        Ok(Some(entry))
    }

    /// The user that a token of the old system means: by local id, by the subject it was seen with before, by mail.
    ///
    /// A subject that was found by mail stays with that user: an address may pass to somebody else while tokens of
    /// its former owner live on.
    async fn legacy_user(&self, names: &Names) -> Result<Option<User>, Denial> {
        let store = &self.0.store;
        if let Some(id) = names.id
            && let Some(user) = store.user(id).await?
        {
            return Ok(Some(user));
        }
        let issuer = || legacy::ISSUER.to_owned();
        if let Some(subject) = &names.subject
            && let Some(user) = store.user_by_identity(issuer(), subject.clone()).await?
        {
            return Ok(Some(user));
        }
        let Some(email) = &names.email else { return Ok(None) };
        let Some(user) = store.user_by_email(email.clone()).await? else { return Ok(None) };
        if let Some(subject) = &names.subject {
            match store.link_identity(issuer(), subject.clone(), user.id, Effects::default()).await? {
                LinkIdentity::Linked => {}
                // Somebody was faster with another address for the same subject; who it is then is not clear.
                LinkIdentity::Taken => return Ok(None),
            }
        }
        Ok(Some(user))
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
