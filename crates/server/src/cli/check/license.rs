//! The license provider: whether it answers us, and can be believed.

use doorward_gate::{
    clock::Clock,
    issuer::Issuers,
    license::{
        FaultKind,
        keygen::{Inspection, KeygenProvider},
        trouble::Trouble,
    },
};

use super::{Finding, Status};
use crate::{
    config::{Config, Issuer},
    license,
};

/// Seconds that two clocks may be apart without a word; from 300 on nothing is believed.
const SKEW: u64 = 30;

pub(super) async fn keygen(config: &Config, clock: &Clock) -> Finding {
    let name = name(config);
    match license::keygen(&config.license, clock) {
        Ok(provider) => inspected(name, &provider).await,
        Err(error) => unusable(name, &error),
    }
}

async fn inspected(name: String, provider: &KeygenProvider) -> Finding {
    let found = match provider.inspect().await {
        Ok(found) => found,
        Err(trouble) => return troubled(name, &trouble),
    };
    let Inspection { edition, skew, differing, knows_product } = found;
    if !knows_product {
        let detail = "there is no product with the id in `license.product`, or the token is that of another one";
        return Finding::bad(Status::Wrong, name, detail, "correct `license.product`, or use its token");
    }
    if !differing.is_empty() {
        let named: Vec<&str> = differing.iter().map(|algorithm| algorithm.as_str()).collect();
        let detail = format!("its account shows other keys than are pinned: {}", named.join(", "));
        let remedy = "find out who changed them, then pin the account's keys in `license.public_keys`";
        return Finding::bad(Status::Wrong, name, detail, remedy);
    }
    if skew.unsigned_abs() > SKEW {
        let side = if skew > 0 { "ahead of" } else { "behind" };
        let detail = format!("its clock is {} s {side} ours; beyond 300 s nothing is believed", skew.unsigned_abs());
        return Finding::bad(Status::Note, name, detail, "set both clocks, for example with NTP");
    }
    let edition = edition.map(|edition| format!(" ({edition})")).unwrap_or_default();
    Finding::ok(name, format!("answers, signed with a pinned key{edition}"))
}

pub(super) async fn jwt(config: &Config, clock: &Clock) -> Finding {
    let name = name(config);
    let issuers = Issuers::new(config.issuers.iter().map(Issuer::to_gate).collect(), clock, None);
    let provider =
        match issuers.map_err(anyhow::Error::from).and_then(|issuers| license::jwt(&config.license, &issuers, clock)) {
            Ok(provider) => provider,
            Err(error) => return unusable(name, &error),
        };
    match provider.inspect().await {
        Ok(()) => Finding::ok(name, "answers"),
        Err(trouble) => troubled(name, &trouble),
    }
}

fn name(config: &Config) -> String {
    let url = config.license.api_url.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("license provider {url}")
}

fn unusable(name: String, error: &anyhow::Error) -> Finding {
    Finding::bad(Status::Wrong, name, error.to_string(), "see [license] in `doorward docs config`")
}

fn troubled(name: String, trouble: &Trouble) -> Finding {
    let status = match trouble.kind() {
        FaultKind::Unavailable => Status::Down,
        FaultKind::Untrusted | FaultKind::Misconfigured => Status::Wrong,
    };
    Finding::bad(status, name, trouble.to_string(), trouble.remedy())
}
