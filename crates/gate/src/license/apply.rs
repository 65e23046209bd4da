//! From an observation to the store.

use std::{sync::Arc, time::Duration};

use doorward_core::{
    audit::{AuditEvent, EventKind},
    effects::Effects,
    license::{Holder, Known, LicenseState, Observation, Plan, plan},
    revocation::{NewRevocation, Scope},
    time::Timestamp,
};
use doorward_store::{ApplyLicense, LicenseChange, LicenseEventMark, StoreError};

use super::{Applied, Desk, Licenses, held::Entry};

/// How often a change is planned anew because somebody else was faster.
const TRIES: usize = 8;
/// What was confirmed later by so much was so by a clock that was ahead.
const AHEAD: Duration = Duration::from_secs(600);
/// How long a change stays in the revocation log: whoever did not read it for so long has forgotten what it held.
const SPREADS_FOR: Duration = Duration::from_hours(24);

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
        let store = self.gate.store();
        self.gate.inner().highest.load(store).await?;
        for _ in 0..TRIES {
            let expected = store.license(holder).await?.map(|row| row.known);
            let at = self.now();
            let (known, applied, effects) = match plan(expected.as_ref(), observation.clone(), at) {
                Plan::Older => return Ok(Applied::Older),
                Plan::Confirmed(known) => (known, Applied::Confirmed, Effects::default()),
                Plan::Changed { old, new } => {
                    let applied = Applied::Changed { old, new: new.observation.state };
                    let effects = self.effects(holder, old, &new, at);
                    (new, applied, effects)
                }
            };
            let change = LicenseChange { holder, expected, known: known.clone(), event: event.clone(), at };
            match store.apply_license(change, effects).await? {
                ApplyLicense::Repeated => return Ok(Applied::Repeated),
                ApplyLicense::Changed => {}
                ApplyLicense::Applied => {
                    if matches!(applied, Applied::Changed { .. }) {
                        self.gate.follow().await;
                    }
                    self.desk.learn(holder, known, self.gate.clock().now().mono);
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

impl Desk {
    /// Takes over what was just written, or read, unless something newer is known already.
    pub(super) fn learn(&self, holder: Holder, known: Known, mono: Duration) {
        let Some(old) = self.held.entry(holder) else { return };
        // What is newer only by a clock that was far ahead is not newer.
        if old.confirmed_at().is_some_and(|at| at > known.confirmed_at && at.since(known.confirmed_at) < AHEAD) {
            return;
        }
        let known = Some(Arc::new(known));
        let entry = Entry { known, subject: old.subject.clone(), jitter: old.jitter, kept_at: mono };
        self.held.keep(holder, Arc::new(entry));
    }

    /// Takes over the holder's subject at the provider.
    pub(super) fn learn_subject(&self, holder: Holder, subject: Option<&str>) {
        let Some(old) = self.held.entry(holder).filter(|old| old.subject.as_deref() != subject) else { return };
        let subject = subject.map(Arc::from);
        let entry = Entry { known: old.known.clone(), subject, jitter: old.jitter, kept_at: old.kept_at };
        self.held.keep(holder, Arc::new(entry));
    }
}
