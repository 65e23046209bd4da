//! The gate: `authenticate`, `authorize`, and `check`, which is both.

mod attempt;
mod licensed;
mod load;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use doorward_core::{
    csrf::{CsrfKey, CsrfKeys},
    decision::{self, Decision, Denial, Grant},
    id::DecisionId,
    principal::{Authenticated, Principal},
    reason::Reason,
    request::RequestFacts,
    rule::Rule,
    secret::Secret,
    session::TokenHash,
    time::Now,
};
use doorward_store::{Readiness, Store};
use tokio::sync::{mpsc, watch};

use self::{
    attempt::{Judge, Step},
    load::{Loaded, Need},
};
use crate::{
    behind::Behind,
    clock::Clock,
    external::ExternalSet,
    issuer::Issuers,
    license::{Desk, Highest},
    observe::Observe,
    owned::OwnedFacts,
    policy::Policy,
    rate::{ClientNet, Limiter, UNKNOWN_CREDENTIALS},
    records::{Records, SessionEntry},
    revoked::Revoked,
    window::WindowState,
};

/// What one decision may have to wait for: its credential's record or verdict, the external set, the license, and the
/// external set about its subject; the revocation log, or a change of the user, and then all of them anew.
const NEEDS: usize = 13;

/// Touches waiting to be written; more than this are dropped and counted.
pub(crate) const TOUCH_QUEUE: usize = 8192;

/// Clients whose look-ups in vain are counted.
const UNKNOWN_CLIENTS: usize = 65_536;

/// A verdict, at once or after somebody was asked.
pub enum Checked {
    /// Decided from memory.
    Ready(Decision),
    /// The store or an issuer is being asked.
    Pending(Pin<Box<dyn Future<Output = Decision> + Send>>),
}

impl Checked {
    /// Waits if it must.
    pub async fn decision(self) -> Decision {
        match self {
            Self::Ready(decision) => decision,
            Self::Pending(decision) => decision.await,
        }
    }
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(decision) => f.debug_tuple("Ready").field(decision).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}

/// The gate. A cheap handle; clones share everything.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("policy", &self.0.policy.load().version).finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) clock: Clock,
    pub(crate) policy: ArcSwap<Policy>,
    pub(crate) issuers: ArcSwap<Issuers>,
    pub(crate) store: Store,
    pub(crate) records: Records,
    /// Look-ups in vain, by client.
    unknown: Limiter<ClientNet>,
    pub(crate) revoked: Revoked,
    /// Tells when the store was connected again.
    pub(crate) store_state: Mutex<watch::Receiver<Readiness>>,
    /// How often it was, as far as was noticed.
    pub(crate) connects: AtomicU64,
    /// After how many of these the log was recognized.
    pub(crate) recognized: AtomicU64,
    /// Held while a page of the revocation log is applied; nothing is waited for meanwhile.
    pub(crate) applying: Mutex<()>,
    pub(crate) behind: Behind,
    pub(crate) external: ArcSwapOption<ExternalSet>,
    pub(crate) licenses: ArcSwapOption<Desk>,
    pub(crate) highest: Highest,
    pub(crate) revocations: tokio::sync::broadcast::Sender<Arc<doorward_core::revocation::Revocation>>,
    pub(crate) observer: Box<dyn Observe>,
    pub(crate) window: WindowState,
    csrf_keys: ArcSwap<KnownKeys>,
    touches: mpsc::Sender<(TokenHash, doorward_core::time::Timestamp)>,
    ids: Ids,
}

/// Keys for CSRF values: those of the ring, or before it is loaded random ones that nothing was ever made with.
struct KnownKeys {
    keys: Arc<CsrfKeys>,
    are_loaded: bool,
}

/// Decision ids: names, not secrets, so a counter behind a random start is enough.
struct Ids {
    start: [u8; 4],
    next: AtomicU64,
}

impl Ids {
    fn mint(&self, now: Now) -> DecisionId {
        let count = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut random = [0; 10];
        random[..6].copy_from_slice(&count[2..]);
        random[6..].copy_from_slice(&self.start);
        DecisionId::mint(now.wall, random)
    }
}

/// What the host hands in.
pub struct GateParts {
    /// Time and randomness.
    pub clock: Clock,
    /// Sessions, keys and the revocation log.
    pub store: Store,
    /// Who may issue tokens.
    pub issuers: Issuers,
    /// The policy.
    pub policy: Arc<Policy>,
    /// Who looks on.
    pub observer: Box<dyn Observe>,
    /// Sessions and API keys to keep in memory, each.
    pub cache_capacity: usize,
}

impl fmt::Debug for GateParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateParts").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate over `parts`. [`Gate::run`] keeps it up to date and must be spawned by the host.
    pub fn new(parts: GateParts) -> (Self, GateTask) {
        let (touches, touched) = mpsc::channel(TOUCH_QUEUE);
        let (revocations, _) = tokio::sync::broadcast::channel(1024);
        let store_state = Mutex::new(parts.store.ready());
        let nobodys = CsrfKeys { current: CsrfKey::new(&Secret::new(parts.clock.random())), previous: None };
        let gate = Self(Arc::new(Inner {
            unknown: Limiter::new(UNKNOWN_CREDENTIALS.1, UNKNOWN_CLIENTS, parts.clock.clone()),
            ids: Ids { start: parts.clock.random(), next: AtomicU64::new(0) },
            clock: parts.clock,
            policy: ArcSwap::new(parts.policy),
            issuers: ArcSwap::from_pointee(parts.issuers),
            store: parts.store,
            records: Records::new(parts.cache_capacity),
            revoked: Revoked::default(),
            applying: Mutex::default(),
            store_state,
            connects: AtomicU64::new(0),
            recognized: AtomicU64::new(0),
            behind: Behind::default(),
            external: ArcSwapOption::empty(),
            licenses: ArcSwapOption::empty(),
            highest: Highest::default(),
            revocations,
            observer: parts.observer,
            window: WindowState::default(),
            csrf_keys: ArcSwap::from_pointee(KnownKeys { keys: Arc::new(nobodys), are_loaded: false }),
            touches,
        }));
        (gate, GateTask { touched })
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// The clock that this gate was given.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The store behind it.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.0.policy.load_full()
    }

    /// The issuers in force.
    pub fn issuers(&self) -> Arc<Issuers> {
        self.0.issuers.load_full()
    }

    /// Swaps policy and issuers; requests under way finish under the old ones.
    pub fn swap(&self, policy: Arc<Policy>, issuers: Issuers) {
        self.0.policy.store(policy);
        self.0.issuers.store(Arc::new(issuers));
    }

    /// Gives the keys that CSRF values are checked against; until then rules with `csrf = "token"` answer
    /// `store_unavailable`, because the keys come from the store.
    pub fn use_csrf_keys(&self, keys: CsrfKeys) {
        self.0.csrf_keys.store(Arc::new(KnownKeys { keys: Arc::new(keys), are_loaded: true }));
    }

    /// The keys that CSRF values are made with.
    pub fn csrf_keys(&self) -> Option<Arc<CsrfKeys>> {
        let known = self.0.csrf_keys.load();
        known.are_loaded.then(|| Arc::clone(&known.keys))
    }

    /// Drops a session from memory at once, ahead of the revocation log.
    pub fn forget_session(&self, hash: &TokenHash) {
        self.0.records.drop_session(hash);
    }

    /// Judges a request by the rules of the policy in force.
    pub fn check(&self, facts: &RequestFacts<'_>) -> Checked {
        self.judge(facts, Judge::Policy, &self.0.policy.load())
    }

    /// Judges as [`Gate::check`], by the very policy that the host keeps with other parts of its
    /// configuration: so what it looks up by the decision's rule is of the same version.
    pub fn check_by(&self, facts: &RequestFacts<'_>, policy: &Arc<Policy>) -> Checked {
        self.judge(facts, Judge::Policy, policy)
    }

    /// Judges a request to a route of the host's own, by that route's rule.
    pub fn check_route(&self, facts: &RequestFacts<'_>, rule: &Arc<Rule>) -> Checked {
        self.judge(facts, Judge::Own(Arc::clone(rule)), &self.0.policy.load())
    }

    /// Judges as [`Gate::check`], but is not observed: for `explain`, pages and probes.
    pub async fn peek(&self, facts: &RequestFacts<'_>, rule: &Arc<Rule>) -> Decision {
        let (policy, judge) = (self.policy(), Judge::Own(Arc::clone(rule)));
        match self.attempt(facts, &judge, &policy, self.0.clock.now(), &Loaded::default()) {
            Step::Done(decision) => decision,
            Step::Need(need) => self.wait(facts, &judge, &policy, need).await,
        }
    }

    /// Asks for what the decision needs, until there is one.
    async fn wait(&self, facts: &RequestFacts<'_>, judge: &Judge, policy: &Policy, mut need: Need) -> Decision {
        let mut loaded = Loaded::default();
        for round in 0..NEEDS {
            self.load(need, facts.client, &mut loaded).await;
            // Whose user changes all the time is judged by what was loaded last.
            if round < NEEDS / 2 {
                self.forget_outdated(&mut loaded);
            }
            // Time has passed while waiting; limits are judged by the time of the answer.
            match self.attempt(facts, judge, policy, self.0.clock.now(), &loaded) {
                Step::Done(decision) => return decision,
                Step::Need(next) => need = next,
            }
        }
        // What was loaded answers every question that can be asked.
        self.decision(self.0.clock.now(), policy, None, None, Err(Reason::Internal.into()))
    }

    /// As [`Gate::refuse`], and observed: for refusals of the host's own routes.
    pub fn refuse_observed(&self, facts: &RequestFacts<'_>, denial: Denial) -> Decision {
        let decision = self.refuse(denial);
        self.0.observer.decided(facts, &decision, "-");
        decision
    }

    /// The record of a session, from memory or the store. Says nothing about whether it is still good.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn session_record(&self, hash: TokenHash) -> Result<Option<Arc<SessionEntry>>, Denial> {
        match self.0.records.session(&hash) {
            Some(entry) => Ok(Some(entry)),
            None => self.load_session(hash).await,
        }
    }

    /// When this process saw a session used last; `None` where memory does not have it.
    pub fn last_used(&self, hash: &TokenHash) -> Option<doorward_core::time::Timestamp> {
        self.0.records.session(hash).map(|entry| entry.last_used_at())
    }

    /// Position of the last entry of the revocation log that was applied.
    pub fn revocation_seq(&self) -> i64 {
        self.0.revoked.seq()
    }

    /// A decision that refuses before there are facts to judge, such as a forwarding header that lies.
    pub fn refuse(&self, denial: Denial) -> Decision {
        let now = self.0.clock.now();
        self.decision(now, &self.policy(), None, None, Err(denial))
    }

    fn judge(&self, facts: &RequestFacts<'_>, judge: Judge, policy: &Arc<Policy>) -> Checked {
        let now = self.0.clock.now();
        match self.attempt(facts, &judge, policy, now, &Loaded::default()) {
            Step::Done(decision) => {
                self.observe(facts, policy, &decision);
                Checked::Ready(decision)
            }
            Step::Need(need) => {
                let gate = self.clone();
                let policy = Arc::clone(policy);
                let facts = OwnedFacts::of(facts);
                Checked::Pending(Box::pin(async move {
                    let facts = facts.as_facts();
                    let decision = gate.wait(&facts, &judge, &policy, need).await;
                    gate.observe(&facts, &policy, &decision);
                    decision
                }))
            }
        }
    }

    fn observe(&self, facts: &RequestFacts<'_>, policy: &Policy, decision: &Decision) {
        let app = decision.rule.and_then(|index| policy.app(policy.rule(index)?));
        self.0.observer.decided(facts, decision, app.map_or("-", |app| &app.name));
    }

    fn decision(
        &self,
        now: Now,
        policy: &Policy,
        rule: Option<usize>,
        caller: Option<Arc<Principal>>,
        outcome: Result<Grant, Denial>,
    ) -> Decision {
        let bearer = caller.as_ref().filter(|caller| matches!(caller.authenticated, Authenticated::Bearer { .. }));
        let keys_age = bearer.and_then(|caller| self.0.issuers.load().outage(&caller.subject.issuer, now));
        Decision { id: self.0.ids.mint(now), at: now.wall, policy: policy.version, rule, caller, keys_age, outcome }
    }

    /// Whether the revocation state is recent enough to rely on.
    pub fn is_fresh(&self, now: Now) -> bool {
        self.0.revoked.freshness(now) == decision::Freshness::Fresh
    }
}

/// The background half of a gate; see [`crate::tail`].
#[derive(Debug)]
pub struct GateTask {
    pub(crate) touched: mpsc::Receiver<(TokenHash, doorward_core::time::Timestamp)>,
}
