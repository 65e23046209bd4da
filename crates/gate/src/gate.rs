//! The gate: `authenticate`, `authorize`, and `check`, which is both.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use doorward_core::{
    api_key,
    credential::{self, Credential},
    csrf::{self, CsrfKey, CsrfKeys},
    decision::{self, Action, Decision, Denial, Grant, Snapshot},
    id::DecisionId,
    principal::Principal,
    reason::Reason,
    request::{RequestFacts, RequestPath},
    rule::{Access, CsrfMode, Rule},
    secret::Secret,
    session::{self, TokenHash},
    time::Now,
};
use doorward_store::Store;
use tokio::sync::mpsc;

use crate::{
    clock::Clock,
    issuer::{Issuers, Verdict, VerifiedToken},
    observe::{Fault, Observe},
    owned::OwnedFacts,
    policy::Policy,
    records::{KeyEntry, Records, SessionEntry},
    revoked::Revoked,
};

/// Touches waiting to be written; more than this are dropped and counted.
const TOUCH_QUEUE: usize = 8192;

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
    pub(crate) revoked: Revoked,
    pub(crate) revocations: tokio::sync::broadcast::Sender<Arc<doorward_core::revocation::Revocation>>,
    pub(crate) observer: Box<dyn Observe>,
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
    pub policy: Policy,
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

/// What authentication found out about a caller.
enum Caller {
    Session(Arc<SessionEntry>),
    Key(Arc<KeyEntry>),
    Token(Arc<VerifiedToken>),
}

/// What has been fetched for a decision that had to wait.
enum Loaded {
    Session(Result<Option<Arc<SessionEntry>>, Denial>),
    Key(Result<Option<Arc<KeyEntry>>, Denial>),
    Token(Result<Arc<VerifiedToken>, Denial>),
}

/// What is still needed.
enum Need {
    Session(TokenHash),
    Key(TokenHash),
    Token(Pin<Box<dyn Future<Output = Result<Arc<VerifiedToken>, Denial>> + Send>>),
}

/// A step that either ends or needs something.
enum Step<T> {
    Done(T),
    Need(Need),
}

/// Which rule judges: one of the policy by its path, or the fixed one of a route of our own.
enum Judge {
    Policy,
    Own(Arc<Rule>),
}

impl Gate {
    /// A gate over `parts`. [`Gate::run`] keeps it up to date and must be spawned by the host.
    pub fn new(parts: GateParts) -> (Self, GateTask) {
        let (touches, touched) = mpsc::channel(TOUCH_QUEUE);
        let (revocations, _) = tokio::sync::broadcast::channel(1024);
        let nobodys = CsrfKeys { current: CsrfKey::new(&Secret::new(parts.clock.random())), previous: None };
        let gate = Self(Arc::new(Inner {
            ids: Ids { start: parts.clock.random(), next: AtomicU64::new(0) },
            clock: parts.clock,
            policy: ArcSwap::from_pointee(parts.policy),
            issuers: ArcSwap::from_pointee(parts.issuers),
            store: parts.store,
            records: Records::new(parts.cache_capacity),
            revoked: Revoked::default(),
            revocations,
            observer: parts.observer,
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
    pub fn swap(&self, policy: Policy, issuers: Issuers) {
        self.0.policy.store(Arc::new(policy));
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

    /// Judges a request by the rules of the policy.
    pub fn check(&self, facts: &RequestFacts<'_>) -> Checked {
        self.judge(facts, Judge::Policy)
    }

    /// Judges a request to a route of the host's own, by that route's rule.
    pub fn check_route(&self, facts: &RequestFacts<'_>, rule: &Arc<Rule>) -> Checked {
        self.judge(facts, Judge::Own(Arc::clone(rule)))
    }

    /// Judges as [`Gate::check`], but is not observed: for `explain`, pages and probes.
    pub async fn peek(&self, facts: &RequestFacts<'_>, rule: &Arc<Rule>) -> Decision {
        let policy = self.policy();
        let now = self.0.clock.now();
        let mut loaded = None;
        loop {
            match self.attempt(facts, &Judge::Own(Arc::clone(rule)), &policy, now, loaded) {
                Step::Done(decision) => return decision,
                Step::Need(need) => loaded = Some(self.load(need).await),
            }
        }
    }

    /// As [`Gate::refuse`], and observed: for refusals of the host's own routes.
    pub fn refuse_observed(&self, facts: &RequestFacts<'_>, denial: Denial) -> Decision {
        let decision = self.refuse(denial);
        self.0.observer.decided(facts, &decision, "-");
        decision
    }

    /// A session in memory. Says nothing about whether it is still good.
    pub fn known_session(&self, hash: &TokenHash) -> Option<Arc<SessionEntry>> {
        self.0.records.session(hash)
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

    fn judge(&self, facts: &RequestFacts<'_>, judge: Judge) -> Checked {
        let now = self.0.clock.now();
        let policy = self.0.policy.load();
        match self.attempt(facts, &judge, &policy, now, None) {
            Step::Done(decision) => {
                self.observe(facts, &policy, &decision);
                Checked::Ready(decision)
            }
            Step::Need(need) => {
                let gate = self.clone();
                let policy = Arc::clone(&policy);
                let facts = OwnedFacts::of(facts);
                Checked::Pending(Box::pin(async move {
                    let loaded = gate.load(need).await;
                    // Time has passed while waiting; limits are judged by the time of the answer.
                    let now = gate.0.clock.now();
                    let facts = facts.as_facts();
                    let decision = match gate.attempt(&facts, &judge, &policy, now, Some(loaded)) {
                        Step::Done(decision) => decision,
                        // What was loaded answers the one question that can be asked.
                        Step::Need(_) => gate.decision(now, &policy, None, None, Err(Reason::Internal.into())),
                    };
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
        Decision { id: self.0.ids.mint(now), at: now.wall, policy: policy.version, rule, caller, outcome }
    }

    /// One pass. With `loaded` it never needs anything more.
    fn attempt(
        &self,
        facts: &RequestFacts<'_>,
        judge: &Judge,
        policy: &Policy,
        now: Now,
        loaded: Option<Loaded>,
    ) -> Step<Decision> {
        let (index, rule) = match judge {
            Judge::Own(rule) => (None, &**rule),
            Judge::Policy => match find_rule(facts, policy) {
                Ok((index, rule)) => (Some(index), rule),
                Err((index, denial)) => return Step::Done(self.decision(now, policy, index, None, Err(denial))),
            },
        };
        let Access::Credential(kinds) = rule.access else {
            return Step::Done(self.decision(now, policy, index, None, decision::admit_public(rule)));
        };
        let credential = match credential::find(facts.headers, kinds, &policy.cookies) {
            Ok(Some(credential)) => credential,
            Ok(None) => {
                return Step::Done(self.decision(now, policy, index, None, Err(Reason::NoCredential.into())));
            }
            Err(denial) => return Step::Done(self.decision(now, policy, index, None, Err(denial))),
        };
        let caller = match self.authenticate(&credential, policy, now, loaded) {
            Step::Done(Ok(caller)) => caller,
            Step::Done(Err((denial, caller))) => {
                return Step::Done(self.decision(now, policy, index, caller, Err(denial)));
            }
            Step::Need(need) => return Step::Need(need),
        };
        let principal = match &caller {
            Caller::Session(entry) => Arc::clone(&entry.principal),
            Caller::Key(entry) => Arc::clone(&entry.principal),
            Caller::Token(token) => Arc::clone(&token.principal),
        };
        let outcome = self
            .check_csrf(facts, rule, policy, &caller)
            .and_then(|()| self.authorize(Arc::clone(&principal), rule, policy, now));
        if let (Ok(_), Caller::Session(entry)) = (&outcome, &caller) {
            self.touch(entry, now);
        }
        Step::Done(self.decision(now, policy, index, Some(principal), outcome))
    }

    /// The second step alone: may `principal` do what `rule` guards?
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
        let snapshot =
            Snapshot { freshness: self.0.revoked.freshness(now), revoked: self.0.revoked.reason(&principal, now.wall) };
        let action = Action { rule, recent_auth: policy.sessions.recent_auth };
        decision::authorize(principal, &action, &snapshot, now.wall)
    }

    /// The first step: who is it? An error carries the caller too where the credential named one.
    #[allow(clippy::type_complexity, reason = "the two halves of a refusal")]
    fn authenticate(
        &self,
        credential: &Credential<'_>,
        policy: &Policy,
        now: Now,
        loaded: Option<Loaded>,
    ) -> Step<Result<Caller, (Denial, Option<Arc<Principal>>)>> {
        match credential {
            Credential::Session(Some(token)) => self.session(token.hash(), policy, now, loaded),
            // No token that was ever minted looks like this; the store need not be asked.
            Credential::Session(None) => Step::Done(Err((Reason::SessionUnknown.into(), None))),
            Credential::ApiKey(text) => match api_key::hash_presented(text) {
                Ok(hash) => self.api_key(hash, now, loaded),
                Err(denial) => Step::Done(Err((denial, None))),
            },
            Credential::Bearer(text) => {
                let verdict = match loaded {
                    Some(Loaded::Token(verdict)) => verdict,
                    _ => match self.0.issuers.load().verify(text, now) {
                        Verdict::Ready(verdict) => verdict,
                        Verdict::Pending(future) => return Step::Need(Need::Token(future)),
                    },
                };
                Step::Done(verdict.map(Caller::Token).map_err(|denial| (denial, None)))
            }
            // The config refuses to open the soak window while there is nothing that judges its tokens.
            Credential::Legacy(_) => Step::Done(Err((Reason::TokenWrongIssuer.into(), None))),
        }
    }

    #[allow(clippy::type_complexity, reason = "see authenticate")]
    fn session(
        &self,
        hash: TokenHash,
        policy: &Policy,
        now: Now,
        loaded: Option<Loaded>,
    ) -> Step<Result<Caller, (Denial, Option<Arc<Principal>>)>> {
        let is_final = loaded.is_some();
        let entry = match loaded {
            Some(Loaded::Session(Ok(Some(entry)))) => entry,
            Some(Loaded::Session(Ok(None))) => return Step::Done(Err((Reason::SessionUnknown.into(), None))),
            Some(Loaded::Session(Err(denial))) => return Step::Done(Err((denial, None))),
            _ => match self.0.records.session(&hash) {
                // Revocations reach the cache through the log; when that is behind, the store is asked.
                Some(entry) if self.is_fresh(now) => entry,
                _ => return Step::Need(Need::Session(hash)),
            },
        };
        let verdict = if entry.is_banned {
            Err(Denial::from(Reason::UserBanned))
        } else {
            session::check(&entry.session, entry.last_used_at(), &policy.sessions, now.wall)
        };
        match verdict {
            Ok(()) => Step::Done(Ok(Caller::Session(entry))),
            Err(_) if !is_final => Step::Need(Need::Session(hash)),
            Err(denial) => Step::Done(Err((denial, Some(Arc::clone(&entry.principal))))),
        }
    }

    #[allow(clippy::type_complexity, reason = "see authenticate")]
    fn api_key(
        &self,
        hash: TokenHash,
        now: Now,
        loaded: Option<Loaded>,
    ) -> Step<Result<Caller, (Denial, Option<Arc<Principal>>)>> {
        let is_final = loaded.is_some();
        let entry = match loaded {
            Some(Loaded::Key(Ok(Some(entry)))) => entry,
            Some(Loaded::Key(Ok(None))) => return Step::Done(Err((Reason::ApiKeyNotFound.into(), None))),
            Some(Loaded::Key(Err(denial))) => return Step::Done(Err((denial, None))),
            _ => match self.0.records.key(&hash) {
                Some(entry) if self.is_fresh(now) => entry,
                _ => return Step::Need(Need::Key(hash)),
            },
        };
        let verdict =
            if entry.is_banned { Err(Denial::from(Reason::UserBanned)) } else { api_key::check(&entry.key, now.wall) };
        match verdict {
            Ok(()) => Step::Done(Ok(Caller::Key(entry))),
            Err(_) if !is_final => Step::Need(Need::Key(hash)),
            Err(denial) => Step::Done(Err((denial, Some(Arc::clone(&entry.principal))))),
        }
    }

    /// Whether the revocation state is recent enough to rely on.
    pub fn is_fresh(&self, now: Now) -> bool {
        self.0.revoked.freshness(now) == decision::Freshness::Fresh
    }

    async fn load(&self, need: Need) -> Loaded {
        match need {
            Need::Token(verdict) => Loaded::Token(verdict.await),
            Need::Session(hash) => Loaded::Session(self.load_session(hash).await),
            Need::Key(hash) => Loaded::Key(self.load_key(hash).await),
        }
    }

    async fn load_session(&self, hash: TokenHash) -> Result<Option<Arc<SessionEntry>>, Denial> {
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

    /// Cross-site protection, decided by the credential that really authenticated (G12).
    fn check_csrf(
        &self,
        facts: &RequestFacts<'_>,
        rule: &Rule,
        policy: &Policy,
        caller: &Caller,
    ) -> Result<(), Denial> {
        let Caller::Session(entry) = caller else { return Ok(()) };
        let known = self.0.csrf_keys.load();
        if rule.csrf == CsrfMode::Token && !known.are_loaded {
            return Err(Denial::from(Reason::StoreUnavailable).with_note("the session key ring is not loaded yet"));
        }
        csrf::check(facts, rule.csrf, &entry.session.hash, &known.keys, &policy.origins(facts.host))
    }

    fn touch(&self, entry: &SessionEntry, now: Now) {
        if entry.touch(now.wall) && self.0.touches.try_send((entry.session.hash, now.wall)).is_err() {
            self.0.observer.fault(Fault::TouchDropped);
        }
    }
}

/// Finds the rule of the policy that judges `facts`; a refusal names the rule where there is one.
fn find_rule<'p>(facts: &RequestFacts<'_>, policy: &'p Policy) -> Result<(usize, &'p Rule), (Option<usize>, Denial)> {
    let path = RequestPath::parse(facts.target, policy.path_mode()).map_err(|denial| (None, denial))?;
    let rules = policy.rules();
    let index = rules.match_path(facts.host, &path).map_err(|denial| (None, denial))?;
    rules.check_method(index, facts.method).map_err(|denial| (Some(index), denial))?;
    let rule = policy.rule(index).ok_or_else(|| (None, Reason::NoRule.into()))?;
    Ok((index, rule))
}

/// The background half of a gate; see [`crate::tail`].
#[derive(Debug)]
pub struct GateTask {
    pub(crate) touched: mpsc::Receiver<(TokenHash, doorward_core::time::Timestamp)>,
}
