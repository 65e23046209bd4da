//! The policy: everything the file says that decisions depend on, immutable and swapped whole.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use doorward_core::{
    credential::CookieNames,
    csrf::OriginPolicy,
    jose::hs256::MacKey,
    origin::Origin,
    request::Host,
    rule::{PathMode, Rule, RuleSet},
    session::SessionLimits,
};

/// One `[apps.*]` entry, as far as decisions and identity headers need it. Where it listens is the
/// proxy's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Name in the config; metric label.
    pub name: Arc<str>,
    /// `aud` of the identity assertion.
    pub audience: Option<Arc<str>>,
    /// Whether requests carry the signed identity assertion.
    pub assertion: bool,
}

/// What the file says about the soak window.
#[derive(Clone, Debug)]
pub struct LegacyPolicy {
    /// Whether there may be a soak window at all; the ceiling of what [`crate::window`] says.
    pub allow: bool,
    /// The old system's HS256 secret; without one none of its tokens verifies.
    pub key: Option<MacKey>,
}

/// One version of the policy.
#[derive(Debug)]
pub struct Policy {
    /// Counts up with each swap; in every decision.
    pub version: u64,
    /// The apps that rules point to.
    pub apps: Vec<App>,
    /// How long sessions live.
    pub sessions: SessionLimits,
    /// Cookie names, which depend on the scheme of `public_url`.
    pub cookies: CookieNames,
    rules: RuleSet,
    path_mode: PathMode,
    origins: OriginPolicy,
    /// Sorted.
    hosts: Vec<Arc<str>>,
    legacy: Option<LegacyPolicy>,
}

impl Policy {
    /// A policy over `rules`. `origins` holds the origin of `public_url` and those allowed besides it.
    pub fn new(
        version: u64,
        rules: Vec<Rule>,
        apps: Vec<App>,
        sessions: SessionLimits,
        cookies: CookieNames,
        origins: OriginPolicy,
    ) -> Self {
        let own = Arc::from(origins.own.host());
        let hosts: BTreeSet<Arc<str>> = rules.iter().map(|rule| Arc::clone(&rule.host)).chain([own]).collect();
        let rules = RuleSet::new(rules);
        let hosts = hosts.into_iter().collect();
        Self { version, apps, sessions, cookies, path_mode: rules.path_mode(), rules, origins, hosts, legacy: None }
    }

    /// The same with a soak window. Rules admit its tokens only where they name [`CredentialKind::Legacy`].
    ///
    /// [`CredentialKind::Legacy`]: doorward_core::credential::CredentialKind::Legacy
    #[must_use]
    pub fn with_legacy(mut self, legacy: LegacyPolicy) -> Self {
        self.legacy = Some(legacy);
        self
    }

    /// What the file says about the soak window, if anything.
    pub const fn legacy(&self) -> Option<&LegacyPolicy> {
        self.legacy.as_ref()
    }

    /// The rules.
    pub const fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// The mode in which paths are parsed for these rules.
    pub const fn path_mode(&self) -> PathMode {
        self.path_mode
    }

    /// A rule by its index.
    pub fn rule(&self, index: usize) -> Option<&Rule> {
        self.rules.rules().get(index)
    }

    /// The app behind `rule`.
    pub fn app(&self, rule: &Rule) -> Option<&App> {
        self.apps.get(rule.app)
    }

    /// Whether `host` is that of the public URL or one that a rule speaks for. Ports do not count: a request
    /// with a wrong one would not have reached us.
    pub fn knows_host(&self, host: &str) -> bool {
        Host::parse(host).is_ok_and(|host| self.hosts.binary_search_by(|known| (**known).cmp(host.name())).is_ok())
    }

    /// The origins that may send changing requests to `host`: its own and the allowed ones. Cookies belong
    /// to one host, so every host that rules speak for is an origin of its own and no other host's.
    pub fn origins(&self, host: &str) -> Cow<'_, OriginPolicy> {
        match Host::parse(host) {
            Ok(host) if host.name() != self.origins.own.host() => Cow::Owned(OriginPolicy {
                own: Origin::new(self.origins.own.scheme(), &host),
                allowed: self.origins.allowed.clone(),
            }),
            _ => Cow::Borrowed(&self.origins),
        }
    }
}
