//! The configuration as the rest of the server wants it.

use std::{collections::BTreeSet, sync::Arc};

use super::{Config, apps::App, urls::Upstream};

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
}
