//! The observer that the server gives its gate: metrics, one log line and one audit row a refusal.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use doorward_core::{
    audit::{AuditDetail, AuditEvent, EventKind},
    decision::Decision,
    request::RequestFacts,
    revocation::Revocation,
};
use doorward_gate::{
    clock::Clock,
    observe::{Fault, Observe},
};

use super::{audit, audit::AuditQueue, metrics::Metrics};

/// Longest piece of a request that reaches a log or an audit row, in characters.
const CUT: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Observer {
    metrics: Arc<Metrics>,
    audit: Arc<AuditQueue>,
    clock: Clock,
}

impl Observer {
    /// An observer that writes to these.
    pub fn new(metrics: Arc<Metrics>, audit: Arc<AuditQueue>, clock: Clock) -> Self {
        Self { metrics, audit, clock }
    }
}

impl Observe for Observer {
    fn decided(&self, facts: &RequestFacts<'_>, decision: &Decision, app: &str) {
        let Err(denial) = &decision.outcome else {
            self.metrics.decided(Ok(()), app);
            return;
        };
        self.metrics.decided(Err(denial.reason), app);
        let path = path(facts.target);
        let method = decision.caller.as_ref().map_or("-", |caller| caller.authenticated.as_str());
        let note = denial.detail().and_then(|detail| detail.note.as_deref()).unwrap_or_default();
        tracing::info!(
            reason = denial.reason.code(),
            decision = %decision.id,
            app,
            role = method,
            client = %facts.client,
            http.method = %cut(facts.method.as_str()),
            http.host = %cut(facts.host),
            http.path = %path,
            note = cut(note),
            "auth fail"
        );
        let mut hasher = DefaultHasher::new();
        match &decision.caller {
            Some(caller) => caller.subject.hash(&mut hasher),
            None => facts.client.hash(&mut hasher),
        }
        if !self.audit.is_due(denial.reason, hasher.finish(), self.clock.now()) {
            return;
        }
        self.audit.push(AuditEvent {
            kind: EventKind::RequestRefused,
            at: decision.at,
            user_id: decision.caller.as_ref().and_then(|caller| caller.user_id),
            org_id: decision.caller.as_ref().and_then(|caller| caller.org_id),
            decision: Some(decision.id),
            reason: Some(denial.reason),
            detail: AuditDetail {
                ip: Some(facts.client),
                user_agent: None,
                more: audit::more([
                    ("method", cut(facts.method.as_str()).into()),
                    ("host", cut(facts.host).into()),
                    ("path", path.into()),
                    ("note", cut(note).into()),
                ]),
            },
        });
    }

    fn revoked(&self, entry: &Revocation) {
        self.metrics.revocations.inc();
        self.metrics.revocation_seq.set(entry.seq);
    }

    fn fault(&self, fault: Fault<'_>) {
        let (name, error) = match fault {
            Fault::RevocationTail(error) => ("revocation_tail", error),
            Fault::TouchDropped => ("touch_dropped", ""),
            Fault::TouchFailed(error) => ("touch_failed", error),
        };
        self.metrics.fault(name);
        tracing::debug!(fault = name, error, "background fault");
    }
}

/// The path without its query, which may hold a token.
fn path(target: &str) -> String {
    cut(target.split(['?', '#']).next().unwrap_or_default())
}

/// At most [`CUT`] characters, controls replaced: nothing of a request can forge a log line (A147).
fn cut(text: &str) -> String {
    text.chars().take(CUT).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
