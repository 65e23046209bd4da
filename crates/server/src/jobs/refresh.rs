//! `refresh`: asks issuers for their keys, so that the next start has recent ones.

use super::{parts::Parts, table::Outcome};

/// Asks every issuer whose keys were not asked for lately. One that does not answer makes the run fail, after all of
/// them were asked; known keys stay in use.
pub(super) async fn run(parts: Parts) -> Outcome {
    let asked = parts.gate.issuers().refresh().await;
    let bad: Vec<String> =
        asked.iter().filter_map(|issuer| Some(format!("{}: {}", issuer.name, issuer.problem.as_ref()?))).collect();
    match bad.is_empty() {
        true => Ok(format!(
            "asked {} of {} issuers for their keys",
            asked.iter().filter(|issuer| issuer.is_asked).count(),
            asked.len()
        )),
        false => Err(bad.join("; ")),
    }
}
