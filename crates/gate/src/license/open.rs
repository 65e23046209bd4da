//! What is open and lives by a license: sockets, and answers on their way.
//!
//! Of our own sockets single messages are refused and the socket stays (B56). Into a socket between a client and an
//! app we cannot look: it may change anything, so it needs what a changing request needs, and ends with a reason when
//! that is lost. An answer to a request that only reads goes on through a grace.

use std::{sync::Arc, time::Duration};

use doorward_core::{license, principal::Principal, reason::Reason, rule::LicenseMode};
use tokio::sync::broadcast::error::RecvError;

use super::look::{Asked, Course};
use crate::{external::ASK_AGAIN, gate::Gate, policy::Policy};

/// Longest pause between two looks: time passes, and what is known gets old.
const LONGEST: Duration = Duration::from_secs(60);

impl Gate {
    /// Completes with the reason when the license that counts for `principal` would no longer let pass what the rule
    /// of `policy` at this index admitted: it is revoked, over, or its subject blocked. `reads` as in
    /// [`license::check`].
    ///
    /// Not knowing ends nothing that was admitted before the end that its license states, and the grace for what only
    /// reads. What changed since is not missed, however late this is first polled.
    pub fn license_lost(
        &self,
        principal: Arc<Principal>,
        policy: Arc<Policy>,
        rule: usize,
        reads: bool,
    ) -> impl Future<Output = Reason> + Send + use<> {
        let gate = self.clone();
        let mut entries = self.revocations();
        async move {
            let Some(rule) = policy.rule(rule).filter(|rule| license::is_asked(rule)) else {
                return std::future::pending().await;
            };
            // The decision that admitted it asked the external set.
            let mut asked_set = gate.clock().now().mono;
            loop {
                let wait = match gate.look_again(&principal, rule, reads, &mut asked_set).await {
                    Ok(wait) => wait,
                    Err(reason) => return reason,
                };
                match tokio::time::timeout(wait, entries.recv()).await {
                    Ok(Ok(_) | Err(RecvError::Lagged(_))) | Err(_) => {}
                    // The gate is gone, and this with it.
                    Ok(Err(RecvError::Closed)) => return std::future::pending().await,
                }
            }
        }
    }

    /// How long what is open may stay before somebody looks again.
    ///
    /// # Errors
    /// Why it may not.
    async fn look_again(
        &self,
        principal: &Arc<Principal>,
        rule: &doorward_core::rule::Rule,
        reads: bool,
        asked_set: &mut Duration,
    ) -> Result<Duration, Reason> {
        let Some(licenses) = self.licenses() else { return Ok(LONGEST) };
        let now = self.clock().now();
        let judge = |look: &super::Look| {
            let licensed = self.licensed(&licenses.desk, look, self.clock().now());
            license::check(Some(&licensed), rule, reads).map(|()| licensed).map_err(|denial| denial.reason)
        };
        let kept = licenses
            .desk
            .look(principal)
            .filter(|look| judge(look).is_ok() && licenses.desk.course(look, &licenses.time(), now) == Course::Go);
        let look = match kept {
            Some(look) => look,
            None => {
                let asked = Asked { principal: Arc::clone(principal), rule: rule.clone(), reads };
                match licenses.load(&asked, self.is_fresh(now)).await {
                    Ok(look) => look,
                    Err(_) => return Ok(LONGEST),
                }
            }
        };
        let mut wait = match judge(&look) {
            Ok(licensed) => licensed.standing.until.map_or(LONGEST, |until| until.since(licensed.at).min(LONGEST)),
            // Not knowing ends nothing; the end that the license states itself does.
            Err(Reason::LicenseUnknown) => match licenses.desk.stated_end(&look, reads) {
                Some(end) if rule.license != LicenseMode::None && licenses.now() >= end => {
                    return Err(Reason::LicenseExpired);
                }
                _ => LONGEST,
            },
            Err(reason) => return Err(reason),
        };
        if let Some(subject) = look.subject() {
            if now.mono.saturating_sub(*asked_set) >= ASK_AGAIN {
                *asked_set = now.mono;
                if let Some(answer) = self.ask_external_about(subject)
                    && answer.await == Ok(true)
                {
                    return Err(Reason::LicenseBlocked);
                }
            }
            if self.inner().external.load().is_some() {
                wait = wait.min(ASK_AGAIN);
            }
        }
        Ok(wait.max(Duration::from_millis(1)))
    }
}
