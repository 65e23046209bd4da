//! Fetching a key set once, for commands. A running server has its own, cached way.

use std::time::Duration;

use doorward_core::{jose::JwkSet, keys::FetchProblem};
use url::Url;

use super::{
    IssuerError, KeySource,
    client::Clients,
    discovery,
    source::{self, Ask},
};
use crate::clock::Clock;

/// A key set as its issuer publishes it now.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Where it was found.
    pub url: Url,
    /// The document, byte by byte.
    pub document: Vec<u8>,
    /// The same, read. It may hold no usable key.
    pub set: JwkSet,
    /// The time at the other end, as its `Date` header says it (RFC 9110 §6.6.1).
    pub date: Option<String>,
}

/// Fetches the key set of `issuer` from a remote `source` once, past all caches, with the limits that a server keeps.
/// `None` for a source that is not remote.
///
/// # Errors
/// What a server would note as the reason of a failed fetch.
pub async fn probe(
    issuer: &str,
    source: &KeySource,
    timeout: Duration,
    clock: &Clock,
) -> Result<Option<Probe>, ProbeError> {
    let clients = Clients::new().map_err(IssuerError::from)?;
    let fetch = async {
        let url = match source {
            KeySource::Url(url) if !KeySource::is_allowed(url) => {
                return Err(FetchProblem::Unreachable("neither https nor on loopback".to_owned()));
            }
            KeySource::Url(url) => url.clone(),
            KeySource::Discovery { origins } => {
                let known = discovery::find(&clients, issuer, origins, None, true, clock.now()).await?;
                known.key_set().clone()
            }
            _ => return Ok(None),
        };
        let document = source::get(&clients, &url, Ask { unless: None, is_fresh: true }).await?;
        let bytes = document.bytes.unwrap_or_default();
        let set = JwkSet::parse(&bytes).map_err(FetchProblem::Set)?;
        let date = document.date.and_then(|date| Some(date.to_str().ok()?.to_owned()));
        Ok(Some(Probe { url, document: bytes, set, date }))
    };
    Ok(tokio::time::timeout(timeout, fetch).await.unwrap_or(Err(FetchProblem::TimedOut))?)
}

/// Why a probe gave no set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The issuer did not give one.
    #[error(transparent)]
    Fetch(#[from] FetchProblem),
    /// There is no way to ask.
    #[error(transparent)]
    Setup(#[from] IssuerError),
}
