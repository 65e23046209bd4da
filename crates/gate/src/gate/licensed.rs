//! The second step, with what has to be looked at beyond memory: the license, and who else may block its subject.

use std::sync::Arc;

use doorward_core::{
    decision::{self, Action, Denial, Freshness, Grant, Snapshot},
    license::{self, Licensed},
    principal::Principal,
    reason::Reason,
    rule::{OnStale, Rule},
    time::Now,
};

use super::{
    Gate,
    attempt::Step,
    load::{Loaded, Need},
};
use crate::{
    external::External,
    license::{self as licenses, Course, Desk, Licenses, Look},
    policy::Policy,
};

/// What the second step judges besides the principal.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) policy: &'a Policy,
    pub(super) rule: &'a Rule,
    pub(super) now: Now,
    pub(super) reads: bool,
}

impl Gate {
    /// The second step alone: may `principal` do what `rule` guards? The license counts as far as memory knows it, and
    /// no request is taken for one that only reads.
    ///
    /// Not looked at: the external set of blocked subjects, which has to be waited for.
    ///
    /// # Errors
    /// Those of [`decision::authorize`].
    pub fn authorize(
        &self,
        principal: Arc<Principal>,
        rule: &Rule,
        policy: &Policy,
        now: Now,
    ) -> Result<Grant, Denial> {
        let asked = Asked { policy, rule, now, reads: false };
        let licensed = self.desk(rule).and_then(|desk| Some(self.licensed(&desk, &desk.look(&principal)?, now)));
        self.authorize_as(principal, asked, licensed.as_ref(), &[])
    }

    /// The second step of a request, or what it needs still. Whatever else refuses comes first: nobody is asked about
    /// a license in vain.
    pub(super) fn authorize_licensed(
        &self,
        principal: &Arc<Principal>,
        asked: Asked<'_>,
        loaded: &Loaded,
    ) -> Step<Result<Grant, Denial>> {
        let listed = loaded.listed.as_ref();
        let Some(desk) = self.desk(asked.rule) else {
            return Step::Done(self.authorize_as(Arc::clone(principal), asked, None, &[listed]));
        };
        // Set where the store could not be asked: then memory may say yes, and its no is "cannot tell".
        let mut unconfirmed = None;
        let look = match &loaded.license {
            Some(Ok(look)) => Some(look.clone()),
            Some(Err(denial)) => {
                unconfirmed = Some(denial.clone());
                desk.look(principal).filter(|_| asked.rule.on_stale == OnStale::Allow)
            }
            None => desk.look(principal),
        };
        let licensed = look.as_ref().map(|look| self.licensed(&desk, look, asked.now));
        let externals = [listed, loaded.license_listed.as_ref()];
        let outcome = self.authorize_as(Arc::clone(principal), asked, licensed.as_ref(), &externals);
        // Nobody asks a provider that is left alone: to come back before that is in vain.
        let pause = desk.pause(asked.now).as_secs();
        let outcome = match outcome {
            Err(denial) if denial.reason == Reason::LicenseUnknown && pause > 0 => {
                Err(denial.with_retry_after(u32::try_from(pause).unwrap_or(u32::MAX)))
            }
            outcome => outcome,
        };
        let is_about_license = outcome.as_ref().is_err_and(|denial| denial.reason.is_license());
        if let Some(denial) = unconfirmed {
            return Step::Done(if is_about_license { Err(denial) } else { outcome });
        }
        let waits = match &look {
            _ if loaded.license.is_some() => false,
            None => is_about_license,
            Some(look) if is_about_license => desk.must_confirm(look, asked.now),
            Some(look) if outcome.is_ok() => match desk.course(look, &self.license_time(asked.now), asked.now) {
                Course::Wait => true,
                // The revocation log brings the changes of others; when it is behind, the store is asked.
                _ if !self.is_fresh(asked.now) => true,
                Course::Go => false,
                Course::Ahead => {
                    if let Some(holder) = look.holder {
                        Licenses::at(self, &desk).ask_ahead(holder);
                    }
                    false
                }
            },
            Some(_) => false,
        };
        if waits {
            let asked =
                licenses::Asked { principal: Arc::clone(principal), rule: asked.rule.clone(), reads: asked.reads };
            return Step::Need(Need::License(Licenses::at(self, &desk), Box::new(asked)));
        }
        if outcome.is_ok()
            && loaded.license_listed.is_none()
            && let Some(answer) = look.as_ref().and_then(Look::subject).and_then(|subject| {
                // The question about a token's own subject was asked already.
                let is_asked = listed.is_some() && *subject == principal.subject.subject;
                if is_asked { None } else { self.ask_external_about(subject) }
            })
        {
            return Step::Need(Need::LicenseListed(answer));
        }
        Step::Done(outcome)
    }

    /// Who knows about licenses, if `rule` asks about them and anybody does.
    fn desk(&self, rule: &Rule) -> Option<Arc<Desk>> {
        if license::is_asked(rule) { self.0.licenses.load_full() } else { None }
    }

    /// What follows from what is known, and whether our blocklist names the license's subject.
    pub(crate) fn licensed(&self, desk: &Desk, look: &Look, now: Now) -> Licensed {
        let mut licensed = desk.licensed(look, &self.license_time(now), now.mono);
        if let (Some(issuer), Some(subject)) = (desk.issuer(), look.subject()) {
            licensed.is_blocked = self.0.revoked.blocks_subject(issuer, subject, now.wall);
        }
        licensed
    }

    /// The core's verdict over a snapshot of everything that memory knows, with what external sets said where they
    /// were asked: of the token's subject, and of the license's.
    fn authorize_as(
        &self,
        principal: Arc<Principal>,
        asked: Asked<'_>,
        licensed: Option<&Licensed>,
        externals: &[Option<&External>],
    ) -> Result<Grant, Denial> {
        let Asked { policy, rule, now, reads } = asked;
        let of_token = externals.first().copied().flatten();
        let of_license = externals.get(1).copied().flatten();
        let mut freshness = self.0.revoked.freshness(now);
        for external in [of_token, of_license].into_iter().flatten() {
            if freshness == Freshness::Fresh {
                freshness = external.freshness();
            }
        }
        let blocked;
        let license = match (licensed, of_license) {
            (Some(licensed), Some(External(Ok(true)))) => {
                blocked = Licensed { is_blocked: true, ..licensed.clone() };
                Some(&blocked)
            }
            (licensed, _) => licensed,
        };
        let listed = self.0.revoked.reason(&principal, now.wall);
        let snapshot = Snapshot { freshness, revoked: listed.or_else(|| of_token.and_then(External::reason)), license };
        let action = Action { rule, recent_auth: policy.sessions.recent_auth, reads };
        decision::authorize(principal, &action, &snapshot, now.wall).map_err(|denial| {
            if denial.reason != Reason::SharedUnavailable {
                return denial;
            }
            match (of_token, of_license) {
                (Some(External(Err(note))), _) | (_, Some(External(Err(note)))) => {
                    denial.with_note(format!("the shared blocklist cannot be asked: {note}"))
                }
                _ => denial.with_note("the revocation log was not read lately"),
            }
        })
    }
}
