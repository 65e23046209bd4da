//! Whether a token or its subject is blocked: by our own list in the store, by the set that somebody else writes.

use doorward_core::{jose::Compact, revocation::Scope};
use doorward_gate::clock::Clock;
use doorward_store::shared::SharedSet;
use serde_json::Value;

use super::super::super::{STORE_WAIT, open_store, output::time};
use crate::config::{Config, Issuer};

/// What a token is blocked by.
pub(super) struct Names {
    jti: Option<String>,
    subject: Option<String>,
}

impl Names {
    /// Those of a token.
    pub(super) fn of(text: &str) -> Self {
        let claims: Value =
            Compact::parse(text).ok().and_then(|jws| serde_json::from_slice(jws.payload()).ok()).unwrap_or_default();
        let claim = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        Self { jti: claim("jti"), subject: claim("sub") }
    }
}

/// The entry of our own list that speaks against the token, if there is one.
pub(super) async fn look_up(
    config: &Config,
    clock: &Clock,
    issuer: &Issuer,
    names: &Names,
) -> Result<Option<String>, String> {
    let name = issuer.name.0.as_str();
    let token = names.jti.as_deref().and_then(|jti| Scope::token(name, jti));
    let subject = names.subject.as_deref().and_then(|subject| Scope::subject(name, subject));
    let store = open_store(config, clock).map_err(|_| "the store's URL cannot be used".to_owned())?;
    let found = async {
        store.wait_ready(STORE_WAIT).await?;
        for scope in [token, subject].into_iter().flatten() {
            if let Some(found) = store.blocked(scope, clock.now().wall).await? {
                return Ok(Some(found.entry));
            }
        }
        Ok::<_, doorward_store::StoreError>(None)
    };
    let found = found.await;
    store.close().await;
    let found = found.map_err(|error| error.to_string())?;
    Ok(found.map(|entry| {
        let what = if matches!(entry.scope, Scope::Token { .. }) { "the token" } else { "the subject" };
        let until = entry.until.map_or_else(|| "for ever".to_owned(), |until| format!("until {}", time(until)));
        format!("{what} is blocked since {} {until} ({})", time(entry.at), entry.why)
    }))
}

/// Whether the shared set holds the token's subject; `None` where there is no such set.
pub(super) async fn ask_shared(config: &Config, names: &Names) -> Option<Result<bool, String>> {
    let shared = config.shared.as_ref()?;
    let (set, subject) = (shared.blocklist_set.as_ref()?, names.subject.as_ref()?);
    Some(SharedSet::contains_once(shared.url.0.expose(), set, subject).await.map_err(|error| error.to_string()))
}
