//! Whose license counts, and what a request makes of what is known of it.

use std::{sync::Arc, time::Duration};

use doorward_core::{
    decision::Denial,
    id::OrgId,
    license::{self, Holder, Known, LicenseState, LicenseTime, Licensed, Standing},
    principal::{Authenticated, Principal, SubjectId},
    rule::Rule,
    time::{Now, Timestamp},
};
use doorward_store::StoreError;

use super::{
    Desk, Licenses,
    ask::{Cause, Landing, landed},
    held::Entry,
};
use crate::{gate::Gate, own_time::for_a_second};

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
            // The store has said within the last second that this is nobody's.
            Whose::Ask(subject) if self.strangers.has_room(&subject).is_err() => {
                Some(Look { holder: None, entry: None })
            }
            Whose::Ask(_) => None,
        }
    }

    /// What follows from it. `mono` is the monotonic time. The blocklist is not looked at.
    pub(crate) fn licensed(&self, look: &Look, time: &LicenseTime, mono: Duration) -> Licensed {
        let now = time.latest();
        let Some(holder) = look.holder else { return Licensed::nobody(now) };
        let Some(entry) = &look.entry else { return Licensed::derive(holder, None, &self.parts.policy, now) };
        let known = entry.known.clone();
        if entry.is_ahead(time) {
            let standing = Standing::UNKNOWN;
            return Licensed { holder: Some(holder), known, standing, is_blocked: false, at: now };
        }
        Licensed::derive_aged(holder, known, &self.parts.policy, now, entry.aged_at(time, mono))
    }

    /// When what is open ends by the license's own word, however long nobody confirmed it.
    pub(crate) fn stated_end(&self, look: &Look, reads: bool) -> Option<Timestamp> {
        let known = look.entry.as_ref()?.known.as_ref()?;
        let can_end = matches!(known.observation.state, LicenseState::Active | LicenseState::Expired);
        let end = known.observation.expires_at.filter(|_| can_end)?;
        Some(if reads { end.plus(self.parts.policy.grace) } else { end })
    }

    /// What a request does about knowledge that would let it pass.
    pub(crate) fn course(&self, look: &Look, time: &LicenseTime, now: Now) -> Course {
        let (Some(holder), Some(entry)) = (look.holder, &look.entry) else { return Course::Go };
        let ttl = self.parts.cache_ttl;
        let age = entry.age(time, now.mono);
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
    /// as often as it may be asked. That somebody has no license at all is known by memory only when it needs no store,
    /// or when the store has said so within the last second.
    pub(crate) fn must_confirm(&self, look: &Look, now: Now) -> bool {
        look.holder.is_some_and(|holder| self.confirmed.has_room(&holder).is_ok() || self.may_ask(holder, now))
    }
}

impl Gate {
    /// The time by which licenses are judged.
    pub(crate) fn license_time(&self, now: Now) -> LicenseTime {
        self.inner().highest.see(now)
    }

    /// Whether the clock has leapt while this process ran, and is not believed yet. One that is ahead of what was written
    /// down before the process began has more to say for it: nothing may have run for long.
    pub(crate) fn clock_leaps(&self) -> bool {
        self.inner().highest.leaps()
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
        Ok(self.licensed(&look))
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
        Ok(self.licensed(&Look { holder: Some(holder), entry: Some(entry) }))
    }

    fn licensed(&self, look: &Look) -> Licensed {
        let now = self.gate.clock().now();
        self.desk.licensed(look, &self.gate.license_time(now), now.mono)
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
        let passes = |look: &Look| license::check(Some(&self.licensed(look)), &asked.rule, asked.reads).is_ok();
        let kept = self.desk.look(&asked.principal).filter(|_| is_fresh);
        let was_kept = kept.is_some();
        let is_confirmed =
            |look: &Look| look.holder.is_none_or(|holder| self.desk.confirmed.has_room(&holder).is_err());
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
            match self.desk.course(&look, &self.time(), now) {
                Course::Go => None,
                Course::Wait => self.fly_for(holder, Cause::Old, now),
                Course::Ahead => {
                    self.ask_ahead(holder);
                    None
                }
            }
        };
        let Some(landing) = landing else { return Ok(look) };
        match for_a_second(landed(landing)).await {
            Some(Ok(_)) => match self.desk.held.entry(holder) {
                Some(entry) => Ok(Look { holder: Some(holder), entry: Some(entry) }),
                None => Ok(Look { holder: Some(holder), entry: Some(self.read_entry(holder).await?) }),
            },
            // No answer, or none in time: what is known decides.
            Some(Err(_)) | None => Ok(look),
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
        let Some(user) = user else {
            let _ = self.desk.strangers.check(&subject);
            return Ok(None);
        };
        self.desk.held.keep_link(subject.clone(), user.id);
        if self.gate.revocation_seq() != seq {
            self.desk.held.forget_link(&subject);
        }
        Ok(Some(user.id))
    }

    async fn read_entry(&self, holder: Holder) -> Result<Arc<Entry>, StoreError> {
        self.read_entry_heard(holder, None).await
    }

    /// Reads what the store knows of a holder's license, and keeps it. `heard`: what this process has just written, and
    /// when it heard so.
    pub(super) async fn read_entry_heard(
        &self,
        holder: Holder,
        heard: Option<(&Known, Now)>,
    ) -> Result<Arc<Entry>, StoreError> {
        let (store, seq) = (self.gate.store(), self.gate.revocation_seq());
        self.load_time().await?;
        let known = store.license(holder).await?.map(|row| Arc::new(row.known));
        let user = match holder.user() {
            Some(id) => store.user(id).await?,
            None => None,
        };
        let subject = user.and_then(|user| user.external_subject).map(Arc::from);
        let [jitter] = self.gate.clock().random();
        let old = self.desk.held.entry(holder).filter(|old| old.is_first_hand);
        let heard = heard.or_else(|| old.as_ref().and_then(|old| Some((old.known.as_deref()?, old.kept))));
        let first_hand = heard.filter(|(heard, _)| known.as_deref() == Some(*heard)).map(|(_, at)| at);
        let kept = first_hand.unwrap_or_else(|| self.gate.clock().now());
        let is_doubtful = first_hand.is_none() && self.time().is_behind();
        let entry = Entry { known, subject, jitter, kept, is_first_hand: first_hand.is_some(), is_doubtful };
        Ok(self.keep(holder, entry, seq))
    }

    /// Keeps what was read, or written, after the entry `seq` of the revocation log had been applied. What changed while
    /// it was on its way has found nothing to void.
    pub(super) fn keep(&self, holder: Holder, entry: Entry, seq: i64) -> Arc<Entry> {
        let entry = Arc::new(entry);
        self.desk.held.keep(holder, Arc::clone(&entry));
        if self.gate.revocation_seq() != seq {
            self.desk.held.forget(holder);
        }
        entry
    }
}
