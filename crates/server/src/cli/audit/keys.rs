//! The public halves of the keys that sign checkpoints.

use std::{fs, path::Path};

use clap::Args;
use doorward_core::{
    jose::{JwkSet, sign::SigningKey},
    ring::{Purpose, RingKey, RootSecret, unwrap},
};
use doorward_store::Store;
use serde_json::{Value, json};

use super::super::{Failure, Out};
use crate::config::{self, Config};

/// Print the public keys of the audit log.
#[derive(Debug, Args)]
pub struct PublicKey {}

impl PublicKey {
    pub(super) async fn run(&self, store: &Store, config: &Config, out: &mut Out<'_>) -> Result<(), Failure> {
        out.json(&document(store, config).await?)
    }
}

async fn document(store: &Store, config: &Config) -> Result<Value, Failure> {
    let keys = store.ring(Purpose::Audit).await?;
    if keys.is_empty() {
        return Ok(json!({ "keys": [] })); // no server has run yet, and there is no root secret either
    }
    public_audit_keys(&keys, root(config)?).map_err(Failure::Failed)
}

/// The root secret that has made the keys there are; never a new one.
pub(super) fn root(config: &Config) -> Result<&RootSecret, Failure> {
    match &config.root_secret {
        config::RootSecret::Given(root) => Ok(root),
        config::RootSecret::MakeAt(path) => {
            Err(Failure::Wrong(format!("{} is gone, and the keys in the store need it; put it back", path.display())))
        }
    }
}

/// The keys as this installation's root secret opens them.
pub(super) async fn own(store: &Store, config: &Config) -> Result<JwkSet, Failure> {
    let document = document(store, config).await?.to_string();
    JwkSet::parse(document.as_bytes()).map_err(|problem| Failure::Failed(format!("the audit keys: {problem}")))
}

/// The keys in a file that [`PublicKey`] printed.
pub(super) fn read(file: &Path) -> Result<JwkSet, Failure> {
    let wrong = |what: String| Failure::Wrong(format!("--public-key {}: {what}", file.display()));
    let document = fs::read(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let keys = JwkSet::parse(&document).map_err(|problem| wrong(problem.to_string()))?;
    match keys.len() {
        0 => Err(wrong("holds no usable key; `doorward audit public-key` prints them".to_owned())),
        _ => Ok(keys),
    }
}

/// A JWK set of every key of the audit ring, the retired ones too: they signed older checkpoints.
///
/// # Errors
/// The key that does not open with this root secret.
pub(crate) fn public_audit_keys(keys: &[RingKey], root: &RootSecret) -> Result<Value, String> {
    let public = |row: &RingKey| {
        let key =
            unwrap(root, row).map_err(|_| format!("the audit key {} does not open with this root secret", row.id))?;
        let signer =
            SigningKey::from_seed(key.expose()).map_err(|_| format!("the audit key {} is unusable", row.id))?;
        Ok(signer.public_jwk(&row.id.to_string()))
    };
    Ok(json!({ "keys": keys.iter().map(public).collect::<Result<Vec<_>, String>>()? }))
}
