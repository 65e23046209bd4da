//! What of the config the HTTP surface needs, resolved once; swapped whole with the policy.

use std::{sync::Arc, time::Duration};

use doorward_core::{
    client::TrustedProxies,
    credential::{CredentialKind, CredentialSet},
    forward::IdentityField,
    redirect::{RedirectPolicy, ReturnTo},
    rule::{Access, CsrfMode, LicenseMode, OnStale, PathMode, PathPattern, PatternError, Require, Rule},
};

use doorward_gate::policy::Policy;
use http::HeaderName;

use super::cookies::Cookies;
use crate::{pages, proxy::Upstream};

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
    /// Whether this is `demo`, whose pages point to the mailbox.
    pub is_demo: bool,
    /// Rules of our own routes.
    pub own_rules: OwnRules,
}

/// The rules of our own routes, by the credentials that they look at.
#[derive(Debug)]
pub struct OwnRules(Vec<(CredentialSet, Arc<Rule>)>);

impl OwnRules {
    /// The rules of every guard that a route can have.
    ///
    /// # Errors
    /// None in practice: the pattern is fixed.
    pub fn new() -> Result<Self, PatternError> {
        let session = CredentialSet::NONE.with(CredentialKind::Session);
        let any = session.with(CredentialKind::ApiKey).with(CredentialKind::Bearer);
        let rules =
            [CredentialSet::NONE, session, any].map(|kinds| own_rule(kinds).map(|rule| (kinds, Arc::new(rule))));
        rules.into_iter().collect::<Result<_, _>>().map(Self)
    }
}

impl Site {
    /// The rule that tells who calls a route that is open to all; what is not listed looks at nothing.
    pub fn optional(&self, kinds: CredentialSet) -> &Arc<Rule> {
        let found = self.own_rules.0.iter().find(|(known, _)| *known == kinds);
        found.map_or(&self.own_rules.0[0].1, |(_, rule)| rule)
    }

    /// Judges a `return_to`; what is not ours becomes `/`.
    pub fn return_to(&self, text: &str) -> ReturnTo {
        ReturnTo::parse(text, &self.redirects)
    }
}

fn own_rule(kinds: CredentialSet) -> Result<Rule, PatternError> {
    let path = PathPattern::parse("/*")?;
    Ok(Rule {
        name: "own route".into(),
        host: "".into(),
        path,
        methods: Vec::new(),
        access: Access::Credential(kinds),
        csrf: CsrfMode::Off,
        license: LicenseMode::None,
        on_stale: OnStale::Allow,
        require: Require::default(),
        app: usize::MAX,
        paths: PathMode::Strict,
        forward_authorization: false,
    })
}
