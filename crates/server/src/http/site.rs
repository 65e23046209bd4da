//! What of the config the HTTP surface needs, resolved once; swapped whole with the policy.

use std::{sync::Arc, time::Duration};

use doorward_core::{
    client::TrustedProxies,
    credential::{CredentialKind, CredentialSet},
    cutover::Ceiling,
    forward::IdentityField,
    redirect::{RedirectPolicy, ReturnTo},
    rule::{Access, CsrfMode, LicenseMode, OnStale, PathMode, PathPattern, PatternError, Require, Rule},
};

use doorward_gate::policy::Policy;
use http::HeaderName;

use super::{
    cookies::Cookies,
    harden::Configured,
    routes::{Guard, ROUTES, Route},
};
use crate::{config::Jobs, pages, proxy::Upstream};

/// An app as the proxy needs it.
#[derive(Debug)]
pub struct SiteApp {
    /// Where it listens.
    pub upstream: Upstream,
    /// Further names under which it expects parts of the identity.
    pub extra: Vec<(IdentityField, HeaderName)>,
    /// The names alone; stripped from requests alike.
    pub extra_names: Vec<HeaderName>,
    /// Audience of the identity assertion, where it is switched on.
    pub assertion: Option<Arc<str>>,
    /// Whether Doorward speaks CORS for it.
    pub cors: bool,
    /// Whether its answers get security headers that it does not set itself.
    pub harden: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Site {
    /// The policy that it belongs to: requests are judged by it, so that what is looked up here by the rule
    /// of a decision is what the rule meant, also while both are swapped.
    pub policy: Arc<Policy>,
    /// What pages need; holds `base_path`.
    pub pages: pages::Site,
    /// Where a `return_to` may lead.
    pub redirects: RedirectPolicy,
    /// Peers whose forwarding headers are believed and who may ask `/check`.
    pub trusted: TrustedProxies,
    /// Apps, in the order of the policy.
    pub apps: Vec<SiteApp>,
    /// Our cookies.
    pub cookies: Cookies,
    /// `login.response_floor`.
    pub response_floor: Duration,
    /// `login.link_ttl`.
    pub link_ttl: Duration,
    /// How long the code of the same mail works: `login.code_ttl`, never longer than the link.
    pub code_ttl: Duration,
    /// Whether this is `demo`, whose pages point to the mailbox.
    pub is_demo: bool,
    /// Security headers that the configuration decides.
    pub headers: Configured,
    /// Rules of our own routes.
    pub own_rules: OwnRules,
    /// What the file says about the soak window, if anything.
    pub legacy: Option<Ceiling>,
    /// When jobs run.
    pub jobs: Jobs,
}

/// The rules of our own routes: those of the table, and those that only say who is calling.
#[derive(Debug)]
pub struct OwnRules(Vec<(OwnKey, Arc<Rule>)>);

/// What the rule of a route of our own depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OwnKey {
    kinds: CredentialSet,
    csrf: CsrfMode,
    recent_auth: bool,
    on_stale: OnStale,
}

impl OwnKey {
    /// Who is calling a route that is open to all: old state is no reason to say "cannot tell".
    fn optional(kinds: CredentialSet) -> Self {
        Self { kinds, csrf: CsrfMode::Off, recent_auth: false, on_stale: OnStale::Allow }
    }

    fn required(route: &Route, kinds: CredentialSet) -> Self {
        Self { kinds, csrf: route.csrf, recent_auth: route.recent_auth, on_stale: OnStale::Deny }
    }
}

impl OwnRules {
    /// The rules of every guard that a route has.
    ///
    /// # Errors
    /// None in practice: the pattern is fixed.
    pub fn new(has_soak_window: bool) -> Result<Self, PatternError> {
        let mut keys = vec![OwnKey::optional(CredentialSet::NONE)];
        for route in ROUTES {
            let key = match route.guard {
                Guard::Open | Guard::Peer | Guard::Signed => continue,
                Guard::Optional(kinds) => OwnKey::optional(kinds),
                Guard::Required(kinds) => OwnKey::required(route, kinds),
            };
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let rule = |key| Ok((key, Arc::new(own_rule(key, has_soak_window)?)));
        keys.into_iter().map(rule).collect::<Result<_, _>>().map(Self)
    }

    fn find(&self, key: OwnKey) -> Option<&Arc<Rule>> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, rule)| rule)
    }
}

impl Site {
    /// The rule that tells who calls a route that is open to all; what is not listed looks at nothing.
    pub fn optional(&self, kinds: CredentialSet) -> &Arc<Rule> {
        self.own_rules.find(OwnKey::optional(kinds)).unwrap_or(&self.own_rules.0[0].1)
    }

    /// The rule of a route that asks for a credential; `None` for the others.
    pub fn required(&self, route: &Route) -> Option<&Arc<Rule>> {
        match route.guard {
            Guard::Required(kinds) => self.own_rules.find(OwnKey::required(route, kinds)),
            Guard::Open | Guard::Optional(_) | Guard::Peer | Guard::Signed => None,
        }
    }

    /// Judges a `return_to`; what is not ours becomes `/`.
    pub fn return_to(&self, text: &str) -> ReturnTo {
        ReturnTo::parse(text, &self.redirects)
    }
}

fn own_rule(key: OwnKey, has_soak_window: bool) -> Result<Rule, PatternError> {
    // Without a soak window a token of the old system is a token like any other, from no issuer.
    let kinds = CredentialKind::ALL.into_iter().filter(|kind| key.kinds.contains(*kind));
    let kinds = kinds.filter(|kind| has_soak_window || *kind != CredentialKind::Legacy);
    let path = PathPattern::parse("/*")?;
    Ok(Rule {
        name: "own route".into(),
        host: "".into(),
        path,
        methods: Vec::new(),
        access: Access::Credential(kinds.fold(CredentialSet::NONE, CredentialSet::with)),
        csrf: key.csrf,
        license: LicenseMode::None,
        on_stale: key.on_stale,
        require: Require { recent_auth: key.recent_auth, ..Require::default() },
        app: usize::MAX,
        paths: PathMode::Strict,
        forward_authorization: false,
    })
}
