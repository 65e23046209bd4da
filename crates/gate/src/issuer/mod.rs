//! Issuers of tokens: their keys, fetched in the background, and the verdict on a token.
//!
//! A token whose key is known is judged at once, by a lock-free look at an immutable snapshot. Only a token
//! that may be signed with a key unknown here waits, for one fetch shared with everybody else. What may be
//! fetched when is decided by [`doorward_core::keys`].

pub(crate) mod client;
mod discovery;
mod event;
mod keeper;
mod kept;
mod probe;
mod refresh;
mod shell;
mod source;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use doorward_core::{
    decision::Denial,
    jose::JwkSet,
    keys::{KeyPolicy, KeyStatus, metadata},
    principal::{Authenticated, Principal, PrincipalKind, SubjectId},
    reason::Reason,
    time::{Now, Timestamp},
    token::{self, Claims, TokenPolicy, Verified},
    user::Email,
};
use doorward_store::Store;
use futures_util::future::BoxFuture;

use self::{
    client::Clients,
    keeper::{Definition, Keeper, Surroundings},
    kept::{Basis, Kept},
    shell::{Shell, Step},
};
pub use self::{
    event::{IssuerChange, IssuerEvent, Listener},
    probe::{Probe, ProbeError, probe},
    refresh::Refreshed,
    source::KeySource,
};
use crate::clock::Clock;

/// An issuer whose tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// Our name for it: in subjects, logs and metrics.
    pub name: String,
    /// What its tokens must look like.
    pub policy: TokenPolicy,
    /// Where its keys come from.
    pub source: KeySource,
    /// A set to begin with, before the first fetch; with a remote source only.
    pub first: Option<JwkSet>,
    /// When that set was made; absent: now. Of it and a set kept by an earlier process the newer one serves.
    pub first_made: Option<Timestamp>,
    /// How long one fetch may take.
    pub fetch_timeout: Duration,
    /// Pause between fetches that unknown keys or wrong signatures may cause.
    pub min_interval: Duration,
    /// How many verdicts that were good are kept for tokens that come again; 0: none.
    pub token_cache: usize,
    /// How long fetched keys serve while the issuer cannot be reached.
    pub max_stale: Duration,
}

impl IssuerConfig {
    /// An issuer with the defaults of the reference.
    pub fn new(name: impl Into<String>, policy: TokenPolicy, source: KeySource) -> Self {
        Self {
            name: name.into(),
            policy,
            source,
            first: None,
            first_made: None,
            token_cache: 4096,
            fetch_timeout: Duration::from_secs(5),
            min_interval: Duration::from_secs(30),
            max_stale: Duration::from_secs(24 * 3600),
        }
    }

    fn key_policy(&self) -> KeyPolicy {
        let fetched = KeyPolicy {
            min_interval: self.min_interval,
            max_stale: Some(self.max_stale),
            fetch_deadline: self.fetch_timeout + Duration::from_secs(1),
            ..KeyPolicy::fetched(self.policy.algorithms)
        };
        match &self.source {
            KeySource::Url(_) | KeySource::Discovery { .. } => fetched,
            // A file costs nobody anything, and what it says does not age.
            KeySource::File(_) => KeyPolicy { max_stale: None, min_interval: Duration::from_secs(1), ..fetched },
            KeySource::Inline(_) | KeySource::Single(_) => KeyPolicy::fixed(self.policy.algorithms),
        }
    }

    fn definition(&self) -> Definition {
        Definition {
            name: self.name.clone(),
            issuer: self.policy.issuer.clone(),
            source: self.source.clone(),
            first: self.first.clone().map(|first| (first, self.first_made)),
            policy: self.key_policy(),
            fetch_timeout: self.fetch_timeout,
        }
    }

    /// The name under which the store keeps the last good set; `None` where it keeps none.
    pub fn record(&self) -> Option<String> {
        self.definition().record()
    }

    /// What would never work.
    fn check(&self) -> Result<(), IssuerError> {
        let insecure = |url: &str| IssuerError::InsecureUrl { name: self.name.clone(), url: url.to_owned() };
        match &self.source {
            KeySource::Url(url) if !KeySource::is_allowed(url) => Err(insecure(url.as_str())),
            KeySource::Discovery { .. } => match metadata::places(&self.policy.issuer) {
                Ok(_) => Ok(()),
                Err(metadata::MetadataProblem::Insecure(url)) => Err(insecure(&url)),
                Err(_) => Err(IssuerError::NotAnIssuer { name: self.name.clone() }),
            },
            KeySource::Inline(set) if set.is_empty() => {
                Err(IssuerError::NoKeys { name: self.name.clone(), skipped: set.skipped().to_vec() })
            }
            _ => Ok(()),
        }
    }
}

/// Why issuers cannot be set up: misconfiguration, found at start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssuerError {
    /// The URL is neither https nor on loopback.
    #[error("issuer {name:?}: keys must come over https, or over http from loopback, not from {url}")]
    InsecureUrl {
        /// The issuer.
        name: String,
        /// The URL.
        url: String,
    },
    /// There is nothing that metadata could be looked for under.
    #[error("issuer {name:?}: discovery needs an `issuer` that is an https URL without query and fragment")]
    NotAnIssuer {
        /// The issuer.
        name: String,
    },
    /// The set given inline has no usable key.
    #[error("issuer {name:?}: the key set holds no usable key{}", list(.skipped))]
    NoKeys {
        /// The issuer.
        name: String,
        /// Why its keys are not used.
        skipped: Vec<doorward_core::jose::Skipped>,
    },
    /// Two issuers answer to one name or one `iss`.
    #[error("issuer {name:?}: another issuer has the same name or `issuer`")]
    Duplicate {
        /// The second one.
        name: String,
    },
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(#[from] reqwest::Error),
}

fn list(skipped: &[doorward_core::jose::Skipped]) -> String {
    skipped.iter().map(|key| format!("; {key}")).collect()
}

/// A verified token, with what is needed to decide on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    /// Our name of its issuer.
    pub issuer: Arc<str>,
    /// Its claims.
    pub claims: Arc<Claims>,
    /// Whom it stands for. `user_id` is not known here: that is a matter of linked identities.
    pub principal: Arc<Principal>,
    /// What the verdict rests on, where it may be kept.
    basis: Option<Basis>,
}

/// The verdict on a token, or the promise of one.
pub enum Verdict {
    /// Now.
    Ready(Result<Arc<VerifiedToken>, Denial>),
    /// After a fetch; bounded in time. Dropping it does not stop the fetch.
    Pending(BoxFuture<'static, Result<Arc<VerifiedToken>, Denial>>),
}

impl Verdict {
    /// Waits where it is still to come.
    ///
    /// # Errors
    /// The refusal.
    pub async fn wait(self) -> Result<Arc<VerifiedToken>, Denial> {
        match self {
            Self::Ready(verdict) => verdict,
            Self::Pending(verdict) => verdict.await,
        }
    }
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(verdict) => f.debug_tuple("Ready").field(verdict).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}

/// The state of one issuer, for health page and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerStatus {
    /// Our name of it.
    pub name: Arc<str>,
    /// `iss`.
    pub issuer: String,
    /// The kind of source: `jwks_url`, `discovery`, `jwks_file`, `jwks`, `public_key`.
    pub source: &'static str,
    /// Where its keys come from; with discovery, once that is known.
    pub address: Option<String>,
    /// Its keys.
    pub keys: KeyStatus,
    /// How many requests wait for a key.
    pub waiters: usize,
}

/// What issuers need from their host.
#[derive(Clone, Debug)]
pub struct IssuerParts {
    /// Time and randomness.
    pub clock: Clock,
    /// Keeps the last good set of every fetched issuer for the next process.
    pub store: Option<Store>,
    /// Hears of events.
    pub listener: Listener,
}

/// All issuers. A cheap handle; background work ends with the last one.
#[derive(Clone)]
pub struct Issuers(Arc<[Arc<Shell>]>);

impl Issuers {
    /// Sets issuers up. Nothing is fetched yet: call [`Issuers::start`].
    ///
    /// With a `store`, the last good set of every fetched issuer is kept for the next process.
    ///
    /// # Errors
    /// Misconfiguration; an issuer that cannot be reached is none.
    pub fn new(configs: Vec<IssuerConfig>, clock: &Clock, store: Option<&Store>) -> Result<Self, IssuerError> {
        let parts = IssuerParts { clock: clock.clone(), store: store.cloned(), listener: Listener::default() };
        Self::following(configs, parts, None)
    }

    /// As [`Issuers::new`], in place of `old` ones. An issuer whose keys are defined as before goes on with its keys, the
    /// budget of its fetches and what is under way; one that is the same altogether also with its kept verdicts. The
    /// background work of issuers that are gone ends with the last handle on `old`.
    ///
    /// # Errors
    /// As [`Issuers::new`].
    pub fn following(configs: Vec<IssuerConfig>, parts: IssuerParts, old: Option<&Self>) -> Result<Self, IssuerError> {
        let IssuerParts { clock, store, listener } = parts;
        let around = Surroundings { clock, clients: Clients::new()?, store, listener };
        let old: &[Arc<Shell>] = old.map_or(&[], |old| &old.0);
        let mut shells: Vec<Arc<Shell>> = Vec::with_capacity(configs.len());
        for config in configs {
            let is_taken = |shell: &Arc<Shell>| {
                shell.config.name == config.name || shell.config.policy.issuer == config.policy.issuer
            };
            if shells.iter().any(is_taken) {
                return Err(IssuerError::Duplicate { name: config.name });
            }
            config.check()?;
            if let Some(same) = old.iter().find(|shell| shell.config == config) {
                shells.push(Arc::clone(same));
                continue;
            }
            let definition = config.definition();
            let keys = match old.iter().find(|shell| shell.keys.definition == definition) {
                Some(same) => Arc::clone(&same.keys),
                None => Arc::new(Keeper::new(definition, around.clone())),
            };
            shells.push(Arc::new(Shell { kept: Kept::new(config.token_cache), config, keys }));
        }
        Ok(Self(shells.into()))
    }

    /// Begins to fetch keys in the background: now, ahead of time, and again after failures. Returns at once; for
    /// issuers that were started already nothing happens.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(&self) {
        for shell in self.0.iter() {
            shell.keys.start();
        }
    }

    /// Judges a token: whose it is, whether its key is that issuer's, signature, type and claims.
    ///
    /// Not judged: whether it was revoked, and what its subject may do.
    pub fn verify(&self, text: &str, now: Now) -> Verdict {
        if let Some(token) = self.0.iter().find_map(|shell| shell.kept.find(text, &shell.keys.snapshot, now)) {
            return Verdict::Ready(Ok(token));
        }
        let (shell, token) = match self.choose(text, now) {
            Ok(chosen) => chosen,
            Err(denial) => return Verdict::Ready(Err(denial)),
        };
        let mut failed = match shell.verify_known(token, now) {
            Ok(verdict) => {
                return Verdict::Ready(verdict.map(|(claims, set)| {
                    let token = shell.verified(claims, Some(set));
                    shell.kept.keep(text, &token);
                    token
                }));
            }
            Err(failed) => failed,
        };
        // Subscribed before the question: what is reported in between is not missed.
        let changes = shell.keys.changes.subscribe();
        match shell.ask(text, now, None, &mut failed) {
            Step::Done(verdict) => Verdict::Ready(verdict.map(|claims| shell.verified(claims, None))),
            Step::Wait(until, era) => {
                let (shell, text) = (Arc::clone(shell), text.to_owned());
                Verdict::Pending(Box::pin(async move {
                    let verdict = Arc::clone(&shell).wait(text, now, until, era, failed, changes).await;
                    verdict.map(|claims| shell.verified(claims, None))
                }))
            }
        }
    }

    /// The issuer that a token says it comes from.
    fn choose<'t>(&self, text: &'t str, now: Now) -> Result<(&Arc<Shell>, token::Unverified<'t>), Denial> {
        let token = token::parse(text)?;
        token.algorithm()?;
        let Some(issuer) = token.claimed_issuer() else {
            return Err(token.issuer_problem().unwrap_or_else(|| Reason::TokenWrongIssuer.into()));
        };
        let shell = self.0.iter().find(|shell| shell.policy().is_issuer(issuer, now.wall));
        let shell = shell.ok_or_else(|| Denial::from(Reason::TokenWrongIssuer))?;
        token.check_kind(shell.policy())?;
        Ok((shell, token))
    }

    /// The state of every issuer.
    pub fn status(&self, now: Now) -> Vec<IssuerStatus> {
        let status = |shell: &Arc<Shell>| IssuerStatus {
            name: Arc::clone(&shell.keys.name),
            issuer: shell.config.policy.issuer.clone(),
            source: shell.config.source.as_str(),
            address: shell.keys.address(),
            keys: shell.keys.status(now),
            waiters: shell.keys.waiters.load(Ordering::Relaxed),
        };
        self.0.iter().map(status).collect()
    }

    /// The age of the keys of the issuer with this name, if they serve only because its last fetch failed.
    pub fn outage(&self, name: &str, now: Now) -> Option<Duration> {
        let shell = self.0.iter().find(|shell| *shell.keys.name == *name)?;
        shell.keys.snapshot.load().as_ref()?.outage(now)
    }
}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|shell| &shell.keys.name)).finish()
    }
}

impl Shell {
    /// The proof, put into the shape that decisions are made on; with the set that held the key, where it is to be kept.
    fn verified(&self, claims: Verified<Claims>, set: Option<Arc<JwkSet>>) -> Arc<VerifiedToken> {
        let claims = Arc::new(claims.into_inner());
        let subject = claims.subject.as_deref().unwrap_or_default();
        let is_verified = claims.more.raw("email_verified") == Some("true");
        let email = claims.more.str("email").filter(|_| is_verified);
        let times = kept::times(&claims, self.policy());
        let principal = Principal {
            kind: PrincipalKind::Service,
            subject: SubjectId { issuer: Arc::clone(&self.keys.name), subject: subject.into() },
            user_id: None,
            email: email.and_then(|email| Email::parse(&email)),
            org_id: None,
            authenticated: Authenticated::Bearer { claims: Arc::clone(&claims) },
            // With everything that may end it and within the tolerance that let it in: a request must not be
            // cut off for an end that did not count when it was admitted.
            expires_at: times.map_or(claims.expires_at, |(_, until)| Some(until)),
        };
        let basis = set.zip(times).map(|(set, times)| Basis { set, times });
        Arc::new(VerifiedToken { issuer: Arc::clone(&self.keys.name), claims, principal: Arc::new(principal), basis })
    }
}
