//! From an observation to the store.

use std::{sync::Arc, time::Duration};

use doorward_core::{
    audit::{AuditEvent, EventKind},
    effects::Effects,
    license::{Holder, Known, LicenseState, LicenseTime, Observation, Plan, SKEW, SaidBy, plan},
    revocation::{NewRevocation, Scope},
    time::{Now, Timestamp},
};
use doorward_store::{ApplyLicense, LicenseChange, LicenseEventMark, StoreError};

use super::{Applied, Licenses, held::Entry};

/// How often a change is planned anew because somebody else was faster.
const TRIES: usize = 8;
/// How long a change stays in the revocation log: whoever did not read it for so long has forgotten what it held.
const SPREADS_FOR: Duration = Duration::from_hours(24);

/// What a provider said.
pub(super) struct Heard {
    pub(super) observation: Observation,
    /// Whose time it bears.
    pub(super) by: SaidBy,
    /// When it came; or when it was asked for, where it is an answer.
    pub(super) now: Now,
    /// The same, as licenses are judged.
    pub(super) time: LicenseTime,
    /// The webhook that brought it, where one did.
    pub(super) event: Option<LicenseEventMark>,
    /// What was known when it was asked for; `None` where nobody asked.
    pub(super) before: Option<Option<Known>>,
}

impl Licenses {
    /// Writes down what a provider said of a holder's license. `event` names the webhook that brought it, where one
    /// did: it is taken once.
    ///
    /// An older observation never wins. A change is audited, and in force in this process when this returns; what is
    /// open and lives by that license is told.
    ///
    /// Not checked here: whether the observation is genuine.
    ///
    /// # Errors
    /// [`StoreError`]; a user who does not exist is a fault.
    pub async fn observe(
        &self,
        holder: Holder,
        observation: Observation,
        event: Option<LicenseEventMark>,
    ) -> Result<Applied, StoreError> {
        self.load_time().await?;
        let now = self.gate.clock().now();
        let time = self.gate.license_time(now);
        self.take(holder, Heard { observation, by: SaidBy::Provider, now, time, event, before: None }).await
    }

    pub(super) async fn take(&self, holder: Holder, heard: Heard) -> Result<Applied, StoreError> {
        let (store, at) = (self.gate.store(), heard.time.latest());
        for _ in 0..TRIES {
            let seq = self.gate.revocation_seq();
            let expected = store.license(holder).await?.map(|row| row.known);
            if heard.by == SaidBy::OwnClock && heard.before.as_ref().is_some_and(|before| *before != expected) {
                // Somebody else was heard since it was asked for, and it has no time of its own.
                if let Some(known) = expected {
                    self.learn(holder, known, None, seq);
                }
                return Ok(Applied::Older);
            }
            let planned = plan(expected.as_ref(), heard.observation.clone(), heard.by, &heard.time);
            let (known, applied, effects) = match planned {
                Plan::Older => return Ok(Applied::Older),
                Plan::Confirmed(known) => (known, Applied::Confirmed, Effects::default()),
                Plan::Changed { old, new } => {
                    let applied = Applied::Changed { old, new: new.observation.state };
                    let effects = self.effects(holder, old, &new, at);
                    (new, applied, effects)
                }
            };
            let event = heard.event.clone();
            let change = LicenseChange { holder, expected, known: known.clone(), event, at };
            match store.apply_license(change, effects).await? {
                ApplyLicense::Repeated => return Ok(Applied::Repeated),
                ApplyLicense::Changed => {}
                ApplyLicense::Applied if applied == Applied::Confirmed => {
                    self.learn(holder, known, Some(heard.now), seq);
                    return Ok(applied);
                }
                ApplyLicense::Applied => {
                    let is_held = self.desk.held.entry(holder).is_some();
                    self.gate.follow().await;
                    // Also where the log could not be read.
                    self.desk.held.forget(holder);
                    if is_held && let Err(error) = self.read_entry_heard(holder, Some((&known, heard.now))).await {
                        tracing::debug!(%error, %holder, "what is known of a license is read by the next request");
                    }
                    return Ok(applied);
                }
            }
        }
        let note = format!("what is known of {holder} changed {TRIES} times while it was to be written");
        Err(StoreError::Fault { op: "apply_license", note })
    }

    fn effects(&self, holder: Holder, old: Option<LicenseState>, new: &Known, at: Timestamp) -> Effects {
        let mut event = AuditEvent::new(EventKind::LicenseChanged, at);
        event.user_id = holder.user();
        let Observation { state, expires_at, license_id, .. } = &new.observation;
        let more = &mut event.detail.more;
        more.insert("holder".to_owned(), holder.to_string().into());
        more.insert("old".to_owned(), old.map(LicenseState::as_str).into());
        more.insert("new".to_owned(), state.as_str().into());
        more.insert("provider".to_owned(), self.provider().into());
        if let Some(end) = expires_at {
            more.insert("expires_at".to_owned(), end.as_secs().into());
        }
        if let Some(id) = license_id {
            more.insert("license_id".to_owned(), id.as_str().into());
        }
        let scope = Scope::License { holder };
        let until = Some(at.plus(SPREADS_FOR));
        Effects::audited(event).with_revocation(NewRevocation { scope, at, until, why: "license".to_owned() })
    }
}

impl Licenses {
    /// Takes over what was just confirmed, at `heard` where this process heard it, or read; `seq` is from before that.
    /// Something newer that is known already stays.
    pub(super) fn learn(&self, holder: Holder, known: Known, heard: Option<Now>, seq: i64) {
        let Some(old) = self.desk.held.entry(holder) else { return };
        // What is newer only by a clock that was far ahead is not newer.
        if old.confirmed_at().is_some_and(|at| at > known.confirmed_at && at.since(known.confirmed_at) < SKEW) {
            return;
        }
        let entry = Entry {
            known: Some(Arc::new(known)),
            subject: old.subject.clone(),
            jitter: old.jitter,
            kept: heard.unwrap_or_else(|| self.gate.clock().now()),
            is_first_hand: heard.is_some(),
            is_doubtful: false,
        };
        self.keep(holder, entry, seq);
    }

    /// Takes over the holder's subject at the provider, read after `seq`.
    pub(super) fn learn_subject(&self, holder: Holder, subject: Option<&str>, seq: i64) {
        let Some(old) = self.desk.held.entry(holder).filter(|old| old.subject.as_deref() != subject) else { return };
        let Entry { known, jitter, kept, is_first_hand, is_doubtful, .. } = &*old;
        let (known, subject) = (known.clone(), subject.map(Arc::from));
        let (jitter, kept, is_first_hand, is_doubtful) = (*jitter, *kept, *is_first_hand, *is_doubtful);
        let entry = Entry { known, subject, jitter, kept, is_first_hand, is_doubtful };
        self.keep(holder, entry, seq);
    }
}

#[cfg(test)]
mod tests;
