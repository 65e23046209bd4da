//! The place of an issuer's key set, as its metadata names it.
//!
//! Metadata is asked for again when it is ten minutes old and keys are to be fetched, and at once after a fetch of
//! keys failed. While it cannot be had the known place stays; metadata that is there and wrong is not worked round.

use std::time::Duration;

use doorward_core::{
    keys::{
        FetchProblem,
        metadata::{self, MetadataProblem},
    },
    time::Now,
};
use http::HeaderValue;
use url::{Origin, Url};

use super::{
    client::Clients,
    source::{self, Ask},
};

/// How long metadata is relied on without a question.
const FRESH: Duration = Duration::from_secs(600);

/// Metadata that was good.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Which of the two places it was found at.
    place: usize,
    key_set: Url,
    tag: Option<HeaderValue>,
    /// When it was asked for, monotonic.
    asked: Duration,
}

impl Known {
    /// Where the key set is.
    pub(super) fn key_set(&self) -> &Url {
        &self.key_set
    }
}

/// Finds the key set of `issuer`. `is_suspect`: the last fetch of keys failed, so the place may have changed.
pub(super) async fn find(
    clients: &Clients,
    issuer: &str,
    origins: &[Origin],
    known: Option<&Known>,
    is_suspect: bool,
    now: Now,
) -> Result<Known, FetchProblem> {
    if let Some(known) = known
        && !is_suspect
        && now.mono.saturating_sub(known.asked) < FRESH
    {
        return Ok(known.clone());
    }
    match ask(clients, issuer, origins, known, is_suspect, now).await {
        Ok(found) => Ok(found),
        Err(wrong @ FetchProblem::Discovery(_)) => Err(wrong),
        // Not there at the moment; the key set may be.
        Err(problem) => known.cloned().ok_or_else(|| FetchProblem::Discovery(problem.to_string())),
    }
}

async fn ask(
    clients: &Clients,
    issuer: &str,
    origins: &[Origin],
    known: Option<&Known>,
    is_suspect: bool,
    now: Now,
) -> Result<Known, FetchProblem> {
    let wrong = |problem: MetadataProblem| FetchProblem::Discovery(problem.to_string());
    let places = metadata::places(issuer).map_err(wrong)?;
    let first = known.map_or(0, |known| known.place);
    let mut missing = FetchProblem::Status(404);
    for place in [first, 1 - first] {
        let of_place = known.filter(|known| known.place == place);
        let unless = of_place.filter(|_| !is_suspect).and_then(|known| known.tag.as_ref());
        match source::get(clients, &places[place], Ask { unless, is_fresh: is_suspect }).await {
            Ok(document) => {
                let key_set = match (&document.bytes, of_place) {
                    (Some(bytes), _) => metadata::parse_key_set_url(bytes, issuer, origins).map_err(wrong)?,
                    (None, Some(known)) => known.key_set.clone(),
                    (None, None) => return Err(FetchProblem::Unmatched),
                };
                let tag = document.tag.or_else(|| of_place.and_then(|known| known.tag.clone()));
                return Ok(Known { place, key_set, tag, asked: now.mono });
            }
            // This issuer does not keep it there.
            Err(problem @ FetchProblem::Status(400..500)) => missing = problem,
            Err(problem) => return Err(problem),
        }
    }
    Err(missing)
}
