//! One pass over a request: find its rule, authenticate, authorize.

use std::sync::Arc;

use doorward_core::{
    api_key,
    credential::{self, Credential},
    csrf,
    decision::{self, Action, Decision, Denial, Grant, Snapshot},
    principal::Principal,
    reason::Reason,
    request::{RequestFacts, RequestPath},
    rule::{Access, CsrfMode, OnStale, Rule},
    session::{self, TokenHash},
    time::Now,
};

use super::{
    Gate,
    load::{Loaded, Need},
};
use crate::{
    issuer::{Verdict, VerifiedToken},
    observe::Fault,
    policy::Policy,
    records::{KeyEntry, SessionEntry},
};

/// What authentication found out about a caller.
enum Caller {
    Session(Arc<SessionEntry>),
    Key(Arc<KeyEntry>),
    Token(Arc<VerifiedToken>),
}

/// A step that either ends or needs something.
pub(super) enum Step<T> {
    Done(T),
    Need(Need),
}

/// Which rule judges: one of the policy by its path, or the fixed one of a route of our own.
pub(super) enum Judge {
    Policy,
    Own(Arc<Rule>),
}

impl Gate {
    /// One pass. With `loaded` it never needs anything more.
    pub(super) fn attempt(
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
        let caller = match self.authenticate(&credential, rule, policy, now, loaded) {
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
        rule: &Rule,
        policy: &Policy,
        now: Now,
        loaded: Option<Loaded>,
    ) -> Step<Result<Caller, (Denial, Option<Arc<Principal>>)>> {
        match credential {
            Credential::Session(Some(token)) => self.session(token.hash(), rule, policy, now, loaded),
            // No token that was ever minted looks like this; the store need not be asked.
            Credential::Session(None) => Step::Done(Err((Reason::SessionUnknown.into(), None))),
            Credential::ApiKey(text) => match api_key::hash_presented(text) {
                Ok(hash) => self.api_key(hash, rule, now, loaded),
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
        rule: &Rule,
        policy: &Policy,
        now: Now,
        loaded: Option<Loaded>,
    ) -> Step<Result<Caller, (Denial, Option<Arc<Principal>>)>> {
        let is_final = loaded.is_some();
        // Set while the store cannot be asked and the rule admits old state: then the cache may say yes, and
        // its no is "cannot tell".
        let mut unconfirmed = None;
        let entry = match loaded {
            Some(Loaded::Session(Ok(Some(entry)))) => entry,
            Some(Loaded::Session(Ok(None))) => return Step::Done(Err((Reason::SessionUnknown.into(), None))),
            Some(Loaded::Session(Err(denial))) => {
                unconfirmed = Some(denial.clone());
                match self.0.records.session(&hash).filter(|_| rule.on_stale == OnStale::Allow) {
                    Some(entry) => entry,
                    None => return Step::Done(Err((denial, None))),
                }
            }
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
            Err(denial) => Step::Done(Err((unconfirmed.unwrap_or(denial), Some(Arc::clone(&entry.principal))))),
        }
    }

    #[allow(clippy::type_complexity, reason = "see authenticate")]
    fn api_key(
        &self,
        hash: TokenHash,
        rule: &Rule,
        now: Now,
        loaded: Option<Loaded>,
    ) -> Step<Result<Caller, (Denial, Option<Arc<Principal>>)>> {
        let is_final = loaded.is_some();
        // Set while the store cannot be asked and the rule admits old state: then the cache may say yes, and
        // its no is "cannot tell".
        let mut unconfirmed = None;
        let entry = match loaded {
            Some(Loaded::Key(Ok(Some(entry)))) => entry,
            Some(Loaded::Key(Ok(None))) => return Step::Done(Err((Reason::ApiKeyNotFound.into(), None))),
            Some(Loaded::Key(Err(denial))) => {
                unconfirmed = Some(denial.clone());
                match self.0.records.key(&hash).filter(|_| rule.on_stale == OnStale::Allow) {
                    Some(entry) => entry,
                    None => return Step::Done(Err((denial, None))),
                }
            }
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
            Err(denial) => Step::Done(Err((unconfirmed.unwrap_or(denial), Some(Arc::clone(&entry.principal))))),
        }
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
