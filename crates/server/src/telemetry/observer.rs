//! The observer that the server gives its gate: metrics, one log line and one audit row a refusal.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use doorward_core::{
    audit::{AuditDetail, AuditEvent, EventKind},
    credential::CredentialKind,
    decision::{Decision, Grant, Permitted},
    id::UserId,
    request::RequestFacts,
    revocation::Revocation,
};
use doorward_gate::{
    clock::Clock,
    observe::{Fault, Observe},
    rate::{ClientNet, Limiter, Quota},
};

use super::{audit, audit::AuditQueue, methods::Methods, metrics::Metrics};

/// Longest piece of a request that reaches a log or an audit row, in characters.
const CUT: usize = 256;
/// Users of tokens of the old system that are remembered.
const LEGACY_USERS: usize = 10_000;

/// See the module.
#[derive(Debug)]
pub struct Observer {
    metrics: Arc<Metrics>,
    audit: Arc<AuditQueue>,
    methods: Arc<Methods>,
    clock: Clock,
    /// How often the use of a token of the old system is written down, by user.
    legacy: Limiter<UserId>,
}

impl Observer {
    /// An observer that writes to these.
    pub fn new(metrics: Arc<Metrics>, audit: Arc<AuditQueue>, methods: Arc<Methods>, clock: Clock) -> Self {
        let legacy = Limiter::new(Quota::per_hour(1), LEGACY_USERS, clock.clone());
        Self { metrics, audit, methods, clock, legacy }
    }

    fn granted(&self, facts: &RequestFacts<'_>, decision: &Decision, grant: &Grant) {
        let Some(principal) = grant.principal.as_ref().map(Permitted::get) else { return };
        let kind = principal.authenticated.kind();
        self.methods.request(kind);
        if kind != CredentialKind::Legacy {
            return;
        }
        let Some(user) = principal.user_id.filter(|user| self.legacy.check(user).is_ok()) else { return };
        let mut event = AuditEvent::new(EventKind::LegacyUsed, decision.at).about(user);
        event.decision = Some(decision.id);
        event.detail.ip = Some(facts.client);
        event.detail.more = audit::more([("method", kind.as_str().into())]);
        self.audit.push(event);
    }
}

impl Observe for Observer {
    fn decided(&self, facts: &RequestFacts<'_>, decision: &Decision, app: &str) {
        let denial = match &decision.outcome {
            Ok(grant) => {
                self.metrics.decided(Ok(()), app);
                if let Some(age) = decision.keys_age {
                    tracing::debug!(decision = %decision.id, keys_age = age.as_secs(), app, "granted by keys of an outage");
                }
                return self.granted(facts, decision, grant);
            }
            Err(denial) => denial,
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
            keys_age = decision.keys_age.map(|age| age.as_secs()),
            "auth fail"
        );
        let mut hasher = DefaultHasher::new();
        match &decision.caller {
            Some(caller) => caller.subject.hash(&mut hasher),
            // A whole /64 is one caller: it would have a row a minute for each of its addresses otherwise.
            None => ClientNet::of(facts.client).hash(&mut hasher),
        }
        let user_id = decision.caller.as_ref().and_then(|caller| caller.user_id);
        self.audit.refused(denial.reason, hasher.finish(), user_id, self.clock.now(), || AuditEvent {
            kind: EventKind::RequestRefused,
            at: decision.at,
            user_id,
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
            Fault::HighestTime(error) => ("highest_time", error),
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
