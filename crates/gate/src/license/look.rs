//! Whose license counts, and what a request makes of what is known of it.

use std::{sync::Arc, time::Duration};

use doorward_core::{
    decision::Denial,
    id::OrgId,
    license::{self, Holder, LicenseState, Licensed},
    principal::{Authenticated, Principal, SubjectId},
    rule::Rule,
    time::{Now, Timestamp},
};
use doorward_store::StoreError;

use super::{
    Desk, Licenses, WAIT,
    ask::{Cause, Landing, landed},
    held::Entry,
};
use crate::gate::Gate;

/// What is known for one caller.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// Whose license counts; `None`: the caller can have none.
    pub(crate) holder: Option<Holder>,
    entry: Option<Arc<Entry>>,
}

impl Look {
    /// The license's subject at the provider.
    pub(crate) fn subject(&self) -> Option<&Arc<str>> {
        self.entry.as_ref().and_then(|entry| entry.subject.as_ref())
    }
}

/// What a request does about knowledge that would let it pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// Go on.
    Go,
    /// Go on; somebody should ask meanwhile.
    Ahead,
    /// Wait for an answer, for a while.
    Wait,
}

/// Whose license counts, as far as memory knows.
enum Whose {
    Nobody,
    Holder(Holder),
    /// The store knows whom this subject belongs to, if anybody.
    Ask(SubjectId),
}

/// What the license must let pass.
pub(crate) struct Asked {
    pub(crate) principal: Arc<Principal>,
    pub(crate) rule: Rule,
    pub(crate) reads: bool,
}

impl Desk {
    fn whose(&self, principal: &Principal) -> Whose {
        if !self.parts.provider.is_per_user() {
            return Whose::Holder(Holder::Installation);
        }
        let of_owner = || {
            let org = principal.subject.subject.strip_prefix("org:").and_then(|id| id.parse::<OrgId>().ok());
            org.map_or(Whose::Nobody, |org| Whose::Holder(Holder::Org(org)))
        };
        match (&principal.authenticated, principal.user_id) {
            (_, Some(user)) => Whose::Holder(Holder::User(user)),
            (Authenticated::Bearer { .. }, None) => match self.held.link(&principal.subject) {
                Some(user) => Whose::Holder(Holder::User(user)),
                None => Whose::Ask(principal.subject.clone()),
            },
            (Authenticated::ApiKey { .. }, None) => of_owner(),
            (Authenticated::Session { .. } | Authenticated::Legacy { .. }, None) => Whose::Nobody,
        }
    }

    /// What memory knows for `principal`; `None` if the store has to be asked.
    pub(crate) fn look(&self, principal: &Principal) -> Option<Look> {
        match self.whose(principal) {
            Whose::Nobody => Some(Look { holder: None, entry: None }),
            Whose::Holder(holder) => {
                let entry = self.held.entry(holder)?;
                Some(Look { holder: Some(holder), entry: Some(entry) })
            }
            Whose::Ask(_) => None,
        }
    }

    /// What follows from it at `now`, the highest time ever seen. The blocklist is not looked at.
    pub(crate) fn licensed(&self, look: &Look, now: Timestamp) -> Licensed {
        let Some(holder) = look.holder else { return Licensed::nobody(now) };
        let known = look.entry.as_ref().and_then(|entry| entry.known.clone());
        Licensed::derive(holder, known, &self.parts.policy, now)
    }

    /// When what is open ends by the license's own word, however long nobody confirmed it.
    pub(crate) fn stated_end(&self, look: &Look, reads: bool) -> Option<Timestamp> {
        let known = look.entry.as_ref()?.known.as_ref()?;
        let can_end = matches!(known.observation.state, LicenseState::Active | LicenseState::Expired);
        let end = known.observation.expires_at.filter(|_| can_end)?;
        Some(if reads { end.plus(self.parts.policy.grace) } else { end })
    }

    /// What a request does about knowledge that would let it pass.
    pub(crate) fn course(&self, look: &Look, time: Timestamp, now: Now) -> Course {
        let (Some(holder), Some(entry)) = (look.holder, &look.entry) else { return Course::Go };
        let ttl = self.parts.cache_ttl;
        // The clock may have been set back, or have been ahead when this was confirmed.
        let kept_for = now.mono.saturating_sub(entry.kept_at);
        let age = match entry.confirmed_at() {
            Some(at) if at <= time => time.since(at).max(kept_for),
            Some(at) if at.since(time) < ttl => kept_for,
            Some(_) | None => Duration::MAX,
        };
        // Between three quarters and all of it, so that questions of many holders do not come together.
        if age < ttl / 4 * 3 + ttl / 1024 * u32::from(entry.jitter) {
            return Course::Go;
        }
        if !self.may_ask(holder, now) {
            return Course::Go;
        }
        // A provider that failed is tried, and nobody waits for that.
        if age >= ttl && self.breaker().is_closed() { Course::Wait } else { Course::Ahead }
    }

    /// How long nobody asks the provider.
    pub(crate) fn pause(&self, now: Now) -> Duration {
        self.breaker().pause(now.mono)
    }

    /// Whether a request may ask about `holder` now, or join who does.
    fn may_ask(&self, holder: Holder, now: Now) -> bool {
        self.flights.find(holder).is_some()
            || self.breaker().pause(now.mono).is_zero() && self.asked.has_room(&holder).is_ok()
    }

    /// Whether a refusal by what memory knows has to be confirmed still: by the store once a second, by the provider
    /// as often as it may be asked.
    pub(crate) fn must_confirm(&self, look: &Look, now: Now) -> bool {
        look.holder.is_none_or(|holder| self.confirmed.has_room(&holder).is_ok() || self.may_ask(holder, now))
    }
}

impl Gate {
    /// The time by which licenses are judged.
    pub(crate) fn license_time(&self, wall: Timestamp) -> Timestamp {
        self.inner().highest.see(wall)
    }
}

impl Licenses {
    /// What is known of the license that counts for `principal`, from memory or the store. Nobody is asked, and the
    /// blocklist is not looked at.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn of(&self, principal: &Principal) -> Result<Licensed, StoreError> {
        let look = match self.desk.look(principal) {
            Some(look) => look,
            None => self.read(principal).await?,
        };
        Ok(self.desk.licensed(&look, self.now()))
    }

    /// What is known of a holder's license, from memory or the store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn standing(&self, holder: Holder) -> Result<Licensed, StoreError> {
        let entry = match self.desk.held.entry(holder) {
            Some(entry) => entry,
            None => self.read_entry(holder).await?,
        };
        Ok(self.desk.licensed(&Look { holder: Some(holder), entry: Some(entry) }, self.now()))
    }

    /// Begins a question that nobody waits for.
    pub(crate) fn ask_ahead(&self, holder: Holder) {
        let _ = self.fly(holder, Cause::Old);
    }

    /// What a request needs that memory could not let pass, or not without asking.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub(crate) async fn load(&self, asked: &Asked, is_fresh: bool) -> Result<Look, Denial> {
        let now = self.gate.clock().now();
        let passes = |look: &Look| {
            let licensed = self.desk.licensed(look, self.now());
            license::check(Some(&licensed), &asked.rule, asked.reads).is_ok()
        };
        let kept = self.desk.look(&asked.principal).filter(|_| is_fresh);
        let was_kept = kept.is_some();
        let is_confirmed =
            |look: &Look| look.holder.is_some_and(|holder| self.desk.confirmed.has_room(&holder).is_err());
        let look = match kept {
            Some(look) if passes(&look) => look,
            // The store has confirmed this refusal within the last second.
            Some(look) if is_confirmed(&look) => look,
            _ => {
                let look = self.read(&asked.principal).await?;
                // Only a store that answered has confirmed anything.
                if let Some(holder) = look.holder.filter(|_| was_kept) {
                    let _ = self.desk.confirmed.check(&holder);
                }
                look
            }
        };
        let Some(holder) = look.holder else { return Ok(look) };
        let landing = if !passes(&look) {
            self.fly_for(holder, Cause::News, now)
        } else {
            match self.desk.course(&look, self.now(), now) {
                Course::Go => None,
                Course::Wait => self.fly_for(holder, Cause::Old, now),
                Course::Ahead => {
                    self.ask_ahead(holder);
                    None
                }
            }
        };
        let Some(landing) = landing else { return Ok(look) };
        match tokio::time::timeout(WAIT, landed(landing)).await {
            Ok(Ok(_)) => match self.desk.held.entry(holder) {
                Some(entry) => Ok(Look { holder: Some(holder), entry: Some(entry) }),
                None => Ok(Look { holder: Some(holder), entry: Some(self.read_entry(holder).await?) }),
            },
            // No answer, or none in time: what is known decides.
            Ok(Err(_)) | Err(_) => Ok(look),
        }
    }

    fn fly_for(&self, holder: Holder, cause: Cause, now: Now) -> Option<Landing> {
        if !self.desk.may_ask(holder, now) {
            return None;
        }
        self.fly(holder, cause).ok()
    }

    /// Reads what the store knows for `principal`, and keeps it.
    async fn read(&self, principal: &Principal) -> Result<Look, StoreError> {
        let holder = match self.desk.whose(principal) {
            Whose::Holder(holder) => Some(holder),
            Whose::Nobody => None,
            Whose::Ask(subject) => self.linked(subject).await?.map(Holder::User),
        };
        let Some(holder) = holder else { return Ok(Look { holder: None, entry: None }) };
        Ok(Look { holder: Some(holder), entry: Some(self.read_entry(holder).await?) })
    }

    /// The user whom a subject of an issuer belongs to.
    async fn linked(&self, subject: SubjectId) -> Result<Option<doorward_core::id::UserId>, StoreError> {
        let (store, seq) = (self.gate.store(), self.gate.revocation_seq());
        let (issuer, name) = (subject.issuer.to_string(), subject.subject.to_string());
        let mut user = store.user_by_identity(issuer, name.clone()).await?;
        if user.is_none() && self.issuer() == Some(&*subject.issuer) {
            user = store.user_by_subject(name).await?;
        }
        let Some(user) = user else { return Ok(None) };
        self.desk.held.keep_link(subject.clone(), user.id);
        if self.gate.revocation_seq() != seq {
            self.desk.held.forget_link(&subject);
        }
        Ok(Some(user.id))
    }

    async fn read_entry(&self, holder: Holder) -> Result<Arc<Entry>, StoreError> {
        let (store, seq) = (self.gate.store(), self.gate.revocation_seq());
        self.gate.inner().highest.load(store).await?;
        let known = store.license(holder).await?.map(|row| Arc::new(row.known));
        let user = match holder.user() {
            Some(id) => store.user(id).await?,
            None => None,
        };
        let subject = user.and_then(|user| user.external_subject).map(Arc::from);
        let [jitter] = self.gate.clock().random();
        // While the clock is behind, nobody can tell how old the row is: it is asked for again.
        let now = self.gate.clock().now();
        let unknown_age = if now.wall < self.now() { self.cache_ttl() } else { Duration::ZERO };
        let kept_at = now.mono.saturating_sub(unknown_age);
        let entry = Arc::new(Entry { known, subject, jitter, kept_at });
        self.desk.held.keep(holder, Arc::clone(&entry));
        // What changed while the row was on its way has found nothing to void.
        if self.gate.revocation_seq() != seq {
            self.desk.held.forget(holder);
        }
        Ok(entry)
    }
}
