//! Whether a token or its subject is on the blocklist, read from the revocation log.

use doorward_core::{jose::Compact, revocation::Scope};
use doorward_gate::clock::Clock;
use serde_json::Value;

use super::super::super::{STORE_WAIT, open_store, output::time};
use crate::config::{Config, Issuer};

/// The entry that speaks against the token, if there is one.
pub(super) async fn look_up(
    config: &Config,
    clock: &Clock,
    issuer: &Issuer,
    text: &str,
) -> Result<Option<String>, String> {
    let claims: Value = Compact::parse(text)
        .map_err(|denial| denial.to_string())
        .and_then(|jws| serde_json::from_slice(jws.payload()).map_err(|error| error.to_string()))?;
    let claim = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
    let name = issuer.name.0.clone();
    let mut scopes: Vec<Scope> = Vec::new();
    scopes.extend(claim("jti").map(|jti| Scope::Token { issuer: name.clone(), jti }));
    scopes.extend(claim("sub").map(|subject| Scope::Subject { issuer: name, subject }));

    let store = open_store(config, clock).map_err(|_| "the store's URL cannot be used".to_owned())?;
    let found = scan(&store, &scopes, clock).await;
    store.close().await;
    found
}

async fn scan(store: &doorward_store::Store, scopes: &[Scope], clock: &Clock) -> Result<Option<String>, String> {
    store.wait_ready(STORE_WAIT).await.map_err(|error| error.to_string())?;
    let now = clock.now().wall;
    let mut against: Vec<(Scope, String)> = Vec::new();
    let mut after = 0;
    // Positions rise, so this ends with the log.
    loop {
        let page = store.revocations_after(after, 1000).await.map_err(|error| error.to_string())?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        for revocation in page {
            let entry = revocation.entry;
            match entry.scope {
                Scope::Lifted { scope } => against.retain(|(known, _)| *known != *scope),
                scope if scopes.contains(&scope) && entry.until.is_none_or(|until| now < until) => {
                    against.push((scope, format!("blocked since {} ({})", time(entry.at), entry.why)));
                }
                _ => {}
            }
        }
    }
    Ok(against.into_iter().next().map(|(_, why)| why))
}
