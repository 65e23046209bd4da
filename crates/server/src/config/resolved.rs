//! The configuration as the rest of the server wants it.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use doorward_core::{
    client::TrustedProxies,
    credential::CredentialKind,
    rule::{Access, LicenseMode, PathMode, Require, Rule},
};

use super::{Config, apps::App, license::Provider, urls::Upstream};

/// An app that rules lead to, named or written into a rule.
#[derive(Clone, Debug)]
pub struct ResolvedApp {
    /// Its name; the address itself where a rule has an `upstream` of its own. Metric label.
    pub name: Arc<str>,
    /// Audience of its assertion.
    pub audience: String,
    /// Its settings.
    pub app: App,
}

/// Where there is a soak window, tokens of the old system stand in for sessions.
fn in_soak_window(access: Access, has_window: bool) -> Access {
    match access {
        Access::Credential(kinds) if has_window && kinds.contains(CredentialKind::Session) => {
            Access::Credential(kinds.with(CredentialKind::Legacy))
        }
        access => access,
    }
}

impl Config {
    /// All apps: the named ones in the order of their names, then those of rules' own `upstream`s, each
    /// address once. A [`doorward_core::rule::Rule::app`] is an index into this list.
    pub fn resolved_apps(&self) -> Vec<ResolvedApp> {
        let named = self.apps.iter().map(|(name, app)| ResolvedApp {
            name: name.as_str().into(),
            audience: app.audience.clone().unwrap_or_else(|| name.clone()),
            app: app.clone(),
        });
        let unnamed = self.own_upstreams().into_iter().map(|upstream| ResolvedApp {
            name: upstream.to_string().into(),
            audience: upstream.to_string(),
            app: App::at(upstream.clone()),
        });
        named.chain(unnamed).collect()
    }

    fn own_upstreams(&self) -> Vec<&Upstream> {
        let unique: BTreeSet<_> = self.rules.iter().filter_map(|rule| rule.upstream.as_ref()).collect();
        unique.into_iter().collect()
    }

    /// The hosts that are answered for: that of `public_url` and those of the rules. Others get 421.
    pub fn hosts(&self) -> BTreeSet<String> {
        let rules = self.rules.iter().filter_map(|rule| rule.host.as_ref()).map(|host| host.as_str().to_owned());
        rules.chain([self.public_url.host().to_owned()]).collect()
    }

    /// The rules as the core judges by them, in their order.
    pub fn core_rules(&self) -> Vec<Rule> {
        let apps = self.resolved_apps();
        let position = |wanted: &str| apps.iter().position(|app| &*app.name == wanted);
        let rules = self.rules.iter().enumerate().map(|(i, rule)| {
            // Reading proved that one of the two is there and that the app exists. Were it otherwise the
            // rule would lead nowhere: dropping it could let a later, laxer one decide.
            let own = rule.upstream.as_ref().map(Upstream::to_string);
            let app = own.as_deref().or(rule.app.as_deref()).and_then(position).unwrap_or(usize::MAX);
            let host = rule.host.as_ref().map_or(self.public_url.host(), |host| host.as_str());
            Rule {
                name: format!("rules[{i}] {}", rule.path.as_str()).into(),
                host: host.into(),
                path: rule.path.clone(),
                methods: rule.methods.iter().map(|method| method.0.clone()).collect(),
                access: in_soak_window(rule.access(), self.legacy.is_some()),
                csrf: rule.csrf,
                license: rule.license.unwrap_or(match self.license.provider {
                    Provider::None => LicenseMode::None,
                    _ if rule.is_public() => LicenseMode::None,
                    _ => LicenseMode::ActiveOrGraceRead,
                }),
                on_stale: rule.on_stale,
                require: Require {
                    capability: rule.require.capability.clone(),
                    scopes: rule.require.scopes.clone(),
                    claims: rule.require.claims.clone(),
                    entitlements: rule.require.entitlements.clone(),
                    recent_auth: rule.require.recent_auth,
                },
                app,
                paths: apps.get(app).map_or(PathMode::Strict, |app| app.app.paths),
                forward_authorization: rule.forward_authorization,
            }
        });
        rules.collect()
    }

    /// The keys that reach beyond this machine; `demo` refuses to start with any.
    pub fn beyond_loopback(&self) -> Vec<&'static str> {
        let listen = &self.listen;
        let is_open = |address: Option<SocketAddr>| address.is_some_and(|address| !address.ip().is_loopback());
        let keys = [
            ("public_url", !self.public_url.is_loopback()),
            ("listen.http", is_open(Some(listen.http))),
            ("listen.https", is_open(listen.https)),
            ("listen.admin", is_open(Some(listen.admin))),
        ];
        keys.into_iter().filter(|(_, reaches)| *reaches).map(|(key, _)| key).collect()
    }

    /// The peers that may speak for others.
    pub fn trusted_proxies(&self) -> TrustedProxies {
        TrustedProxies::new(self.listen.trusted_proxies.clone())
    }
}
