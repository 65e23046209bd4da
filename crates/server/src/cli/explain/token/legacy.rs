//! A token of the old system: whether the soak window is open, whether the secret signed it, whom it means.

use doorward_core::{
    jose::Compact,
    legacy::{self, Names},
    reason::Reason,
    time::Now,
    user::User,
};
use doorward_gate::clock::Clock;
use doorward_store::{Store, StoreError};
use serde_json::Value;

use super::{
    super::{
        super::{STORE_WAIT, open_store},
        url::sentence,
    },
    Steps, store_exists,
};
use crate::{
    config::{Config, Legacy},
    cutover,
};

/// The entry of the configuration, if a rule that admits legacy tokens would take this for one.
pub(super) fn entry<'c>(config: &'c Config, text: &str) -> Option<&'c Legacy> {
    let jws = Compact::parse(text).ok()?;
    let claims: Value = serde_json::from_slice(jws.payload()).ok()?;
    let is_one = claims.get("iss").is_none() && legacy::is_kind(&jws.header().kind);
    config.legacy.as_ref().filter(|_| is_one)
}

pub(super) async fn explain(config: &Config, entry: &Legacy, clock: &Clock, text: &str, now: Now, steps: &mut Steps) {
    steps.add("fact", "kind", "a token of the old system: no `iss`; judged where a rule allows `legacy`");
    let closed = |why: &str| format!("{}: {why}", Reason::LegacyLoginDisabled.code());
    if !entry.allow {
        return steps.add("fails", "window", closed("the file says `legacy.allow = false`"));
    }
    let store = store_exists(config).then(|| open_store(config, clock).ok()).flatten();
    let store = match store {
        Some(store) if store.wait_ready(STORE_WAIT).await.is_ok() => Some(store),
        Some(_) | None => None,
    };
    let is_open = window(store.as_ref(), entry, &closed, steps).await;
    if is_open && let Some(names) = verify(entry, text, now, steps) {
        user(store.as_ref(), &names, steps).await;
    }
    if let Some(store) = store {
        store.close().await;
    }
}

/// Whether the window is open, as far as that can be told.
async fn window(store: Option<&Store>, entry: &Legacy, closed: &impl Fn(&str) -> String, steps: &mut Steps) -> bool {
    let ceiling = entry.ceiling();
    let Some(store) = store else {
        steps.add("unknown", "window", "there is no store to ask; the file allows one");
        return true;
    };
    match cutover::read(store, &ceiling).await {
        Ok(current) if current.window.is_open(&ceiling) => {
            steps.add("ok", "window", format!("open; it is decided about on {}", current.window.closes_on));
            true
        }
        Ok(current) => {
            steps.add("fails", "window", closed(&current.window.why));
            false
        }
        Err(error) => {
            steps.add("unknown", "window", error.to_string());
            true
        }
    }
}

fn verify(entry: &Legacy, text: &str, now: Now, steps: &mut Steps) -> Option<Names> {
    let Some(key) = entry.policy().key else {
        let code = Reason::TokenBadSignature.code();
        steps.add("fails", "signature", format!("{code}: there is no `legacy.hs256_secret`, so nothing can be proven"));
        return None;
    };
    match legacy::verify(&key, text, now) {
        Ok(verified) => {
            steps.add("ok", "signature", "HS256 with `legacy.hs256_secret`");
            steps.add("ok", "claims", "times and names are as they must be");
            Some(legacy::names(verified.get()))
        }
        Err(denial) => {
            let is_signature = matches!(
                denial.reason,
                Reason::TokenBadSignature | Reason::TokenAlgNotAllowed | Reason::TokenMalformed
            );
            if !is_signature {
                steps.add("ok", "signature", "HS256 with `legacy.hs256_secret`");
            }
            steps.add("fails", if is_signature { "signature" } else { "claims" }, sentence(&denial));
            None
        }
    }
}

async fn user(store: Option<&Store>, names: &Names, steps: &mut Steps) {
    let Some(store) = store else { return steps.add("unknown", "user", "there is no store to ask") };
    match find(store, names).await {
        Ok(Some((by, user))) if user.banned_at.is_some() => {
            steps.add("fails", "user", format!("{}: {}, found by {by}", Reason::UserBanned.code(), user.email));
        }
        Ok(Some((by, user))) => steps.add("ok", "user", format!("{}, found by {by}", user.email)),
        Ok(None) => {
            steps.add("fails", "user", format!("{}: it names nobody here", Reason::TokenInvalidClaim.code()));
        }
        Err(error) => steps.add("unknown", "user", error.to_string()),
    }
}

/// In the order of a request; nothing is remembered.
async fn find(store: &Store, names: &Names) -> Result<Option<(&'static str, User)>, StoreError> {
    if let Some(id) = names.id
        && let Some(user) = store.user(id).await?
    {
        return Ok(Some(("local id", user)));
    }
    if let Some(subject) = &names.subject
        && let Some(user) = store.user_by_identity(legacy::ISSUER.to_owned(), subject.clone()).await?
    {
        return Ok(Some(("a subject seen before", user)));
    }
    let Some(email) = &names.email else { return Ok(None) };
    Ok(store.user_by_email(email.clone()).await?.map(|user| ("mail address", user)))
}
