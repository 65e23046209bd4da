//! One pass over a request: find its rule, authenticate, authorize.

use std::{net::IpAddr, sync::Arc};

use doorward_core::{
    api_key,
    credential::{self, Credential},
    csrf,
    decision::{self, Action, Decision, Denial},
    legacy,
    principal::Principal,
    reason::Reason,
    request::{RequestFacts, RequestPath},
    rule::{Access, CsrfMode, OnStale, Rule},
    session::{self, TokenHash},
    time::Now,
};

use super::{
    Gate,
    licensed::Asked,
    load::{Loaded, LoadedCredential, Need},
};
use crate::{
    issuer::{Verdict, VerifiedToken},
    observe::Fault,
    policy::Policy,
    records::{KeyEntry, LegacyEntry, SessionEntry},
};

/// What authentication found out about a caller.
enum Caller {
    Session(Arc<SessionEntry>),
    Key(Arc<KeyEntry>),
    Token(Arc<VerifiedToken>),
    Legacy(Arc<LegacyEntry>),
}

/// What a record says about its bearer.
enum Judged<T> {
    Good(Arc<T>),
    Bad(Denial, Option<Arc<T>>),
    /// Memory does not know or would refuse: the store has to be asked.
    Ask,
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
        loaded: &Loaded,
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
        let caller = match self.authenticate(&credential, rule, policy, now, loaded.credential.as_ref(), facts.client) {
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
            Caller::Legacy(entry) => Arc::clone(&entry.principal),
        };
        // On every request, also for a token that was verified before; what the log says already needs no question.
        if loaded.listed.is_none()
            && let Caller::Token(token) = &caller
            && self.0.revoked.reason(&principal, now.wall).is_none()
            && let Some(answer) = self.ask_external(&principal)
        {
            return Step::Need(Need::Listed(Arc::clone(token), answer));
        }
        let asked =
            Asked { policy, rule, now, reads: Action::is_read(facts.method, facts.is_upgrade || facts.may_leave_http) };
        let crossed = self.check_csrf(facts, rule, policy, &caller);
        let outcome = match crossed.map(|()| self.authorize_licensed(&principal, asked, loaded)) {
            Ok(Step::Done(outcome)) => outcome,
            Ok(Step::Need(need)) => return Step::Need(need),
            Err(denial) => Err(denial),
        };
        // A state that is only late says nothing yet. Whether it still is, is not asked here: it may have been read anew since.
        if outcome.as_ref().is_err_and(|denial| denial.reason == Reason::SharedUnavailable)
            && !loaded.has_waited
            && !self.0.behind.is_hopeless()
        {
            return Step::Need(Need::Log);
        }
        if let (Ok(_), Caller::Session(entry)) = (&outcome, &caller) {
            self.touch(entry, now);
        }
        Step::Done(self.decision(now, policy, index, Some(principal), outcome))
    }

    /// The first step: who is it? An error carries the caller too where the credential named one.
    #[allow(clippy::type_complexity, reason = "the two halves of a refusal")]
    fn authenticate(
        &self,
        credential: &Credential<'_>,
        rule: &Rule,
        policy: &Policy,
        now: Now,
        loaded: Option<&LoadedCredential>,
        client: IpAddr,
    ) -> Step<Result<Caller, (Denial, Option<Arc<Principal>>)>> {
        match credential {
            Credential::Session(Some(token)) => self.session(token.hash(), rule, policy, now, loaded, client),
            // No token that was ever minted looks like this; the store need not be asked.
            Credential::Session(None) => Step::Done(Err((Reason::SessionUnknown.into(), None))),
            Credential::ApiKey(text) => match api_key::hash_presented(text) {
                Ok(hash) => self.api_key(hash, rule, now, loaded, client),
                Err(denial) => Step::Done(Err((denial, None))),
            },
            Credential::Bearer(text) => {
                let verdict = match loaded {
                    // It may have expired while something else was waited for.
                    Some(LoadedCredential::Token(Ok(token)))
                        if token.principal.expires_at.is_some_and(|end| now.wall >= end) =>
                    {
                        Err(Reason::TokenExpired.into())
                    }
                    Some(LoadedCredential::Token(verdict)) => verdict.clone(),
                    _ => match self.0.issuers.load().verify(text, now) {
                        Verdict::Ready(verdict) => verdict,
                        Verdict::Pending(future) => return Step::Need(Need::Token(future)),
                    },
                };
                Step::Done(verdict.map(Caller::Token).map_err(|denial| (denial, None)))
            }
            Credential::Legacy(text) => self.legacy(text, rule, policy, now, loaded),
        }
    }

    #[allow(clippy::type_complexity, reason = "see authenticate")]
    #[allow(clippy::too_many_arguments, reason = "facts of one request")]
    fn session(
        &self,
        hash: TokenHash,
        rule: &Rule,
        policy: &Policy,
        now: Now,
        loaded: Option<&LoadedCredential>,
        client: IpAddr,
    ) -> Step<Result<Caller, (Denial, Option<Arc<Principal>>)>> {
        let answer = match loaded {
            Some(LoadedCredential::Session(answer)) => Some(answer.clone()),
            _ => None,
        };
        let kept = || self.0.records.session(&hash);
        let check = |entry: &SessionEntry| match entry.is_banned {
            true => Err(Reason::UserBanned.into()),
            false => session::check(&entry.session, entry.last_used_at(), &policy.sessions, now.wall)
                .and_then(|()| self.0.records.was_over(entry).map_or(Ok(()), |reason| Err(reason.into()))),
        };
        match self.judge_record(rule, now, answer, kept, Reason::SessionUnknown, check) {
            Judged::Good(entry) => Step::Done(Ok(Caller::Session(entry))),
            Judged::Bad(denial, entry) => {
                if let Some(entry) = &entry {
                    self.0.records.note_over(entry, denial.reason);
                }
                if self.is_in_vain(&denial, client) {
                    self.0.records.drop_session(&hash);
                }
                Step::Done(Err((denial, entry.map(|entry| Arc::clone(&entry.principal)))))
            }
            Judged::Ask => Step::Need(Need::Session(hash)),
        }
    }

    #[allow(clippy::type_complexity, reason = "see authenticate")]
    fn api_key(
        &self,
        hash: TokenHash,
        rule: &Rule,
        now: Now,
        loaded: Option<&LoadedCredential>,
        client: IpAddr,
    ) -> Step<Result<Caller, (Denial, Option<Arc<Principal>>)>> {
        let answer = match loaded {
            Some(LoadedCredential::Key(answer)) => Some(answer.clone()),
            _ => None,
        };
        let kept = || self.0.records.key(&hash);
        let check = |entry: &KeyEntry| match entry.is_banned {
            true => Err(Reason::UserBanned.into()),
            false => api_key::check(&entry.key, now.wall),
        };
        match self.judge_record(rule, now, answer, kept, Reason::ApiKeyNotFound, check) {
            Judged::Good(entry) => Step::Done(Ok(Caller::Key(entry))),
            Judged::Bad(denial, entry) => {
                if self.is_in_vain(&denial, client) {
                    self.0.records.drop_key(&hash);
                }
                Step::Done(Err((denial, entry.map(|entry| Arc::clone(&entry.principal)))))
            }
            Judged::Ask => Step::Need(Need::Key(hash)),
        }
    }

    /// A token of the old system: verified anew each time, its user from memory or the store. Nothing is looked at
    /// while the soak window is closed.
    #[allow(clippy::type_complexity, reason = "see authenticate")]
    fn legacy(
        &self,
        text: &str,
        rule: &Rule,
        policy: &Policy,
        now: Now,
        loaded: Option<&LoadedCredential>,
    ) -> Step<Result<Caller, (Denial, Option<Arc<Principal>>)>> {
        let verified = self.check_window().and_then(|()| {
            let key = policy.legacy().and_then(|legacy| legacy.key.as_ref());
            // Without a secret nothing that such a token says can be proven.
            let key = key.ok_or_else(|| Denial::from(Reason::TokenBadSignature).with_note("no legacy.hs256_secret"))?;
            legacy::verify(key, text, now)
        });
        let claims = match verified {
            Ok(verified) => verified.into_inner(),
            Err(denial) => return Step::Done(Err((denial, None))),
        };
        let hash = TokenHash::of(text.as_bytes());
        let answer = match loaded {
            Some(LoadedCredential::Legacy(answer)) => Some(answer.clone()),
            _ => None,
        };
        let kept = || self.0.records.legacy(&hash);
        let check = |entry: &LegacyEntry| match entry.is_banned {
            true => Err(Reason::UserBanned.into()),
            false => Ok(()),
        };
        match self.judge_record(rule, now, answer, kept, Reason::TokenInvalidClaim, check) {
            Judged::Good(entry) => Step::Done(Ok(Caller::Legacy(entry))),
            Judged::Bad(denial, entry) => Step::Done(Err((denial, entry.map(|entry| Arc::clone(&entry.principal))))),
            Judged::Ask => Step::Need(Need::Legacy(hash, Box::new(claims))),
        }
    }

    /// Whether the store has confirmed a refusal; then the look-up counts for its client. What is dead is not kept
    /// either: it would be confirmed again without end.
    fn is_in_vain(&self, denial: &Denial, client: IpAddr) -> bool {
        let is_verdict = !denial.reason.is_fault() && denial.reason != Reason::RateLimited;
        if is_verdict {
            self.looked_up_in_vain(client);
        }
        is_verdict
    }

    /// Judges a record by the store's `answer`, or without one by what is `kept` in memory, which may say yes,
    /// never no (rule 8).
    fn judge_record<T>(
        &self,
        rule: &Rule,
        now: Now,
        answer: Option<Result<Option<Arc<T>>, Denial>>,
        kept: impl FnOnce() -> Option<Arc<T>>,
        unknown: Reason,
        check: impl FnOnce(&T) -> Result<(), Denial>,
    ) -> Judged<T> {
        let is_final = answer.is_some();
        // Set while the store cannot be asked and the rule admits old state: then the cache may say yes, and
        // its no is "cannot tell".
        let mut unconfirmed = None;
        let entry = match answer {
            Some(Ok(Some(entry))) => entry,
            Some(Ok(None)) => return Judged::Bad(unknown.into(), None),
            Some(Err(denial)) => match kept().filter(|_| rule.on_stale == OnStale::Allow) {
                Some(entry) => {
                    unconfirmed = Some(denial);
                    entry
                }
                None => return Judged::Bad(denial, None),
            },
            None => match kept() {
                // Revocations reach the cache through the log; when that is behind, the store is asked.
                Some(entry) if self.is_fresh(now) => entry,
                _ => return Judged::Ask,
            },
        };
        match check(&entry) {
            Ok(()) => Judged::Good(entry),
            Err(_) if !is_final => Judged::Ask,
            Err(denial) => Judged::Bad(unconfirmed.unwrap_or(denial), Some(entry)),
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
