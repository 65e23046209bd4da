//! What a changed file changes only at the next start, so that the log can name it.

use doorward_core::{ring::RootSecret, secret::Secret};

use crate::config::{self, Config};

/// What a running server was opened with.
#[derive(Debug)]
pub(super) struct Fixed {
    named: [(&'static str, String); 5],
    /// With its password.
    store: Secret<String>,
    root: RootSecret,
}

impl Fixed {
    /// Of a server that was opened by `config`, and with the root secret that it led to.
    pub(super) fn new(config: &Config, root: RootSecret) -> Self {
        Self { named: named(config), store: Secret::new(config.store.url.expose()), root }
    }

    /// The names of what is other than it was. A root secret that is not there is another one: the next start does not
    /// have this one.
    pub(super) fn changed(&self, config: &Config) -> Vec<&'static str> {
        let both = self.named.iter().zip(named(config));
        let mut changed: Vec<_> = both.filter(|(was, is)| was.1 != is.1).map(|(was, _)| was.0).collect();
        if *self.store.expose() != config.store.url.expose() {
            changed.push("store.url");
        }
        let has_root = matches!(&config.root_secret, config::RootSecret::Given(root) if root.is_same(&self.root));
        if !has_root {
            changed.push(if config.secrets.root.is_some() { "secrets.root" } else { "secrets.root_file" });
        }
        changed
    }
}

fn named(config: &Config) -> [(&'static str, String); 5] {
    let listen = &config.listen;
    let https = listen.tls.as_ref().map(|tls| (listen.https, &tls.cert_file, &tls.key_file));
    [
        ("public_url", config.public_url.origin()),
        ("data_dir", config.data_dir.display().to_string()),
        ("listen.http", listen.http.to_string()),
        ("listen.https", format!("{https:?}")),
        ("listen.admin", listen.admin.to_string()),
    ]
}
