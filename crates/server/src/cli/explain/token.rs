//! `explain --token`: each step of a token's verification, with the keys that were considered.

use std::io::Read as _;

use doorward_core::{
    jose::{Compact, HeaderAlgorithm, JwkSet, MAX_TOKEN_BYTES, PublicKey, Selection, Type},
    reason::Reason,
    secret::Secret,
    time::{Now, Timestamp},
    token::{self, Unverified},
};
use doorward_gate::{clock::Clock, issuer};
use serde::Serialize;
use serde_json::Value;

use super::{
    super::{
        Failure, Out, STORE_WAIT, open_store,
        output::{distance, printable, time},
    },
    url::sentence,
};
use crate::config::{Config, Issuer, KeySource, StoreUrl};

/// One step.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    /// `ok`, `fails`, `fact`, `unknown`.
    pub(super) outcome: &'static str,
    pub(super) step: &'static str,
    pub(super) detail: String,
}

/// What was found out, step by step.
#[derive(Debug, Default)]
pub(super) struct Steps(pub(super) Vec<Step>);

impl Steps {
    fn add(&mut self, outcome: &'static str, step: &'static str, detail: impl Into<String>) {
        self.0.push(Step { outcome, step, detail: printable(&detail.into()) });
    }
}

pub(super) async fn run(
    config: &Config,
    clock: &Clock,
    given: &Secret<String>,
    out: &mut Out<'_>,
) -> Result<(), Failure> {
    let text = if given.expose() == "-" { read_stdin()? } else { given.clone() };
    let text = text.expose().trim();
    let text = text.strip_prefix("Bearer ").unwrap_or(text);
    let mut steps = Steps::default();
    explain(config, &config.issuers, clock, text, &mut steps).await;
    if out.json {
        return out.json(&steps.0);
    }
    let rows = steps.0.into_iter().map(|step| vec![step.outcome.to_owned(), step.step.to_owned(), step.detail]);
    out.table(&["", "STEP", "DETAIL"], &rows.collect::<Vec<_>>())
}

fn read_stdin() -> Result<Secret<String>, Failure> {
    let mut text = String::new();
    let limit = MAX_TOKEN_BYTES as u64 + 64;
    let read = std::io::stdin().take(limit).read_to_string(&mut text);
    let text = Secret::new(text);
    read.map_err(|error| Failure::Failed(format!("cannot read the token: {error}")))?;
    Ok(text)
}

async fn explain(config: &Config, issuers: &[Issuer], clock: &Clock, text: &str, steps: &mut Steps) {
    let now = clock.now();
    if text.starts_with("dwk_") {
        steps.add(
            "fails",
            "form",
            "this is an API key, not a JWT; it is looked up by its hash, there is nothing to verify",
        );
        return;
    }
    let token = match token::parse(text) {
        Ok(token) => token,
        Err(denial) => return steps.add("fails", "form", sentence(&denial)),
    };
    steps.add("ok", "form", "a compact JWS with a JSON object as payload");
    facts(text, now.wall, steps);
    if let Some(entry) = legacy::entry(config, text) {
        return legacy::explain(config, entry, clock, text, now, steps).await;
    }
    // In the order in which a request's token is judged, so that the first refusal is the same one.
    match token.algorithm() {
        Ok(algorithm) => steps.add("ok", "algorithm", format!("{algorithm} is one that public keys verify")),
        Err(denial) => return steps.add("fails", "algorithm", sentence(&denial)),
    }
    let Some(issuer) = choose_issuer(issuers, &token, now, steps) else { return };
    match token.check_kind(&issuer.policy()) {
        Ok(()) => steps.add("ok", "type", "`typ` is one that the issuer's entry admits"),
        Err(denial) => return steps.add("fails", "type", sentence(&denial)),
    }
    let Some((set, from)) = keys_of(config, clock, issuer, steps).await else { return };
    let Some(key) = choose_key(&set, &from, &token, steps) else { return };
    match token::verify(token, key, &issuer.policy(), now) {
        Ok(_) => {
            steps.add("ok", "signature", "it is the key's");
            steps.add("ok", "claims", "issuer, audience, times and required claims are as the issuer's entry asks");
            revoked(config, clock, issuer, text, steps).await;
        }
        Err(denial) => {
            let is_signature = matches!(
                denial.reason,
                Reason::TokenBadSignature | Reason::TokenKeyMismatch | Reason::TokenAlgNotAllowed
            );
            if !is_signature {
                steps.add("ok", "signature", "it is the key's");
            }
            steps.add("fails", if is_signature { "signature" } else { "claims" }, sentence(&denial));
        }
    }
}

/// What the token says of itself; nothing of it is proven.
fn facts(text: &str, now: Timestamp, steps: &mut Steps) {
    let Ok(jws) = Compact::parse(text) else { return };
    let header = jws.header();
    let algorithm = match header.algorithm {
        HeaderAlgorithm::Signature(algorithm) => algorithm.as_str(),
        HeaderAlgorithm::Hs256 => "HS256",
        HeaderAlgorithm::Other => "unknown, or none",
    };
    let kind = match &header.kind {
        Type::Absent => "none".to_owned(),
        kind => format!("{kind:?}"),
    };
    let kid = header.key_id.as_deref().unwrap_or("none");
    steps.add("fact", "header", format!("alg {algorithm}, kid {kid}, typ {kind}"));
    let claims: Value = serde_json::from_slice(jws.payload()).unwrap_or_default();
    for (name, step) in [("iss", "iss"), ("aud", "aud"), ("sub", "sub")] {
        if let Some(value) = claims.get(name) {
            steps.add("fact", step, value.to_string());
        }
    }
    for (name, step) in [("iat", "iat"), ("nbf", "nbf"), ("exp", "exp")] {
        if let Some(seconds) = claims.get(name).and_then(Value::as_f64) {
            // Saturates for absurd values, which `verify` refuses.
            let at = Timestamp::from_millis((seconds * 1000.0) as i64);
            steps.add("fact", step, format!("{} ({})", time(at), distance(at, now)));
        }
    }
}

fn choose_issuer<'a>(issuers: &'a [Issuer], token: &Unverified<'_>, now: Now, steps: &mut Steps) -> Option<&'a Issuer> {
    let Some(claimed) = token.claimed_issuer() else {
        let detail = token.issuer_problem().map_or_else(|| "no `iss`".to_owned(), |denial| sentence(&denial));
        steps.add("fails", "issuer", detail);
        return None;
    };
    let found = issuers.iter().find(|issuer| issuer.policy().is_issuer(claimed, now.wall));
    match found {
        Some(issuer) => steps.add("ok", "issuer", format!("[[issuers]] entry `{}`", issuer.name.0)),
        None => {
            let known: Vec<_> = issuers.iter().map(|issuer| issuer.issuer.as_str()).collect();
            let known = if known.is_empty() {
                "none is configured".to_owned()
            } else {
                format!("accepted: {}", known.join(", "))
            };
            let code = Reason::TokenWrongIssuer.code();
            steps.add("fails", "issuer", format!("{code}: no [[issuers]] entry has this `iss`, byte by byte; {known}"));
        }
    }
    found
}

/// The issuer's keys now, and where they are from.
async fn keys_of(config: &Config, clock: &Clock, issuer: &Issuer, steps: &mut Steps) -> Option<(JwkSet, String)> {
    match issuer.keys.source() {
        KeySource::Given(set) => return Some((set.clone(), "the configuration".to_owned())),
        KeySource::Single(key) => {
            return Some((JwkSet::single(key.clone()), "the configuration, for every kid".to_owned()));
        }
        KeySource::Url(_) | KeySource::Discovery => {}
    }
    let gate = issuer.to_gate();
    let why = match issuer::probe(&issuer.issuer, &gate.source, gate.fetch_timeout, clock).await {
        Ok(Some(probe)) => return Some((probe.set, probe.url.to_string())),
        Ok(None) => "nothing to fetch".to_owned(),
        Err(why) => why.to_string(),
    };
    steps.add("unknown", "fetch", format!("{}: {why}; trying what is kept", issuer.issuer));
    if let Some((set, at)) = kept(config, clock, gate.record().unwrap_or_default()).await {
        return Some((set, format!("the store, fetched {} ({})", time(at), distance(at, clock.now().wall))));
    }
    if let Some(set) = issuer.keys.first_set() {
        return Some((set.clone(), "the first key set of the configuration".to_owned()));
    }
    steps.add(
        "unknown",
        "keys",
        format!("{}: no keys at hand, so the token cannot be judged", Reason::KeysUnavailable.code()),
    );
    None
}

/// The last good key set that a server has put into the store.
async fn kept(config: &Config, clock: &Clock, record: String) -> Option<(JwkSet, Timestamp)> {
    if !store_exists(config) {
        return None;
    }
    let store = open_store(config, clock).ok()?;
    let kept = match store.wait_ready(STORE_WAIT).await {
        Ok(()) => store.issuer_keys(record).await.ok().flatten(),
        Err(_) => None,
    };
    store.close().await;
    let (document, at) = kept?;
    Some((JwkSet::parse(document.as_bytes()).ok()?, at))
}

/// Explaining must not make a database.
fn store_exists(config: &Config) -> bool {
    match &config.store.url {
        StoreUrl::Sqlite(path) => config.data_dir.join(path).exists(),
        StoreUrl::Postgres(_) => true,
    }
}

fn choose_key<'a>(set: &'a JwkSet, from: &str, token: &Unverified<'_>, steps: &mut Steps) -> Option<&'a PublicKey> {
    steps.add("ok", "keys", format!("{} usable, from {from}", set.len()));
    for (id, key) in set.keys() {
        steps.add("fact", "key", format!("kid {}, for {:?}", id.unwrap_or("none"), key.algorithms()));
    }
    for skipped in set.skipped() {
        steps.add("fact", "key", format!("not used: {skipped}"));
    }
    let algorithm = token.algorithm().ok()?;
    match set.select(token.key_id(), algorithm) {
        Selection::Key(key) => {
            steps.add("ok", "key", format!("kid {} fits", token.key_id().unwrap_or("none")));
            Some(key)
        }
        Selection::Mismatch => {
            let code = Reason::TokenKeyMismatch.code();
            steps.add("fails", "key", format!("{code}: the key of that kid is not for {algorithm}"));
            None
        }
        Selection::Unknown => {
            let code = Reason::TokenUnknownKey.code();
            let what = match token.key_id() {
                Some(_) => "no key of that kid is published",
                None => "the token names no kid, and not exactly one key fits its algorithm",
            };
            steps.add("fails", "key", format!("{code}: {what}"));
            None
        }
    }
}

/// Looks the token and its subject up in the revocation log.
async fn revoked(config: &Config, clock: &Clock, issuer: &Issuer, text: &str, steps: &mut Steps) {
    let names = blocklist::Names::of(text);
    match blocklist::ask_shared(config, &names).await {
        None => {}
        Some(Ok(false)) => steps.add("ok", "shared", "the subject is not in the shared blocklist"),
        Some(Ok(true)) => {
            steps.add("fails", "shared", format!("{}: the shared blocklist holds it", Reason::TokenRevoked.code()));
        }
        Some(Err(why)) => steps.add("unknown", "shared", format!("{why}; the rule's `on_stale` decides")),
    }
    if !store_exists(config) {
        return steps.add("unknown", "revoked", "there is no store yet to ask");
    }
    match blocklist::look_up(config, clock, issuer, &names).await {
        Ok(None) => steps.add("ok", "revoked", "neither the token nor its subject is on the blocklist"),
        Ok(Some(why)) => steps.add("fails", "revoked", format!("{}: {why}", Reason::TokenRevoked.code())),
        Err(why) => steps.add("unknown", "revoked", why),
    }
}

mod blocklist;
mod legacy;

#[cfg(test)]
mod tests;
