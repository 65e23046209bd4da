//! `explain --url --as`: the license that counts, as the store knows it. Nobody is asked.

use std::sync::Arc;

use doorward_core::{
    license::{Holder, LicensePolicy, Licensed, Verdict},
    reason::Reason,
    revocation::Scope,
    time::Timestamp,
    user::User,
};
use doorward_gate::license::highest_time;
use doorward_store::{Store, StoreError};
use serde_json::{Value, json};

use crate::{
    cli::output::{distance, printable, time},
    config::{self, Provider},
};

/// The license that counts for `user`; `None` without a provider.
pub(super) async fn of(
    license: &config::License,
    store: &Store,
    user: &User,
    now: Timestamp,
) -> Result<Option<Licensed>, StoreError> {
    let holder = match license.provider {
        Provider::None => return Ok(None),
        Provider::File => Holder::Installation,
        Provider::Keygen | Provider::Jwt => Holder::User(user.id),
    };
    let known = store.license(holder).await?.map(|row| Arc::new(row.known));
    let policy = LicensePolicy { trust_for: license.trust_for, grace: license.grace };
    let highest = highest_time(store).await?.map_or(now, |highest| highest.max(now));
    let mut licensed = Licensed::derive(holder, known, &policy, highest);
    if let (Some(issuer), Some(subject)) = (&license.issuer, &user.external_subject)
        && let Some(scope) = Scope::subject(issuer, subject)
    {
        licensed.is_blocked = store.blocked(scope, now).await?.is_some();
    }
    Ok(Some(licensed))
}

/// The verdict in a word, and the reason where it is not the best.
fn verdict(licensed: &Licensed) -> (&'static str, Option<Reason>) {
    match licensed.standing.verdict {
        _ if licensed.is_blocked => ("deny", Some(Reason::LicenseBlocked)),
        Verdict::Allow => ("allow", None),
        Verdict::ReadOnly { reason } => ("read_only", Some(reason)),
        Verdict::Deny { reason } => ("deny", Some(reason)),
    }
}

/// What people are told of it.
pub(super) fn lines(licensed: &Licensed, now: Timestamp) -> Vec<(&'static str, String)> {
    let at = |at: Timestamp| format!("{} ({})", time(at), distance(at, now));
    let whose = match licensed.holder {
        Some(Holder::Installation) => "the installation's",
        Some(Holder::User(_)) => "the user's own",
        Some(Holder::Org(_)) => "the organisation's",
        None => "nobody's",
    };
    let mut lines = vec![("license", format!("{whose}: {}", licensed.status()))];
    if let Some(known) = licensed.known.as_deref() {
        let observation = &known.observation;
        lines.push(("said", format!("{}, confirmed {}", observation.state.as_str(), at(known.confirmed_at))));
        lines.extend(observation.expires_at.map(|end| ("ends", at(end))));
        lines.extend(observation.license_id.as_deref().map(|id| ("id", printable(id))));
    } else {
        lines.push(("said", "nothing is known: no provider has said anything yet".to_owned()));
    }
    let until = licensed.standing.until.map(|until| format!(" until {}", at(until))).unwrap_or_default();
    lines.push((
        "so",
        match verdict(licensed) {
            ("allow", _) => format!("everything passes{until}"),
            ("read_only", Some(reason)) => format!("reading passes{until}, the rest is {}", reason.code()),
            (_, Some(reason)) => format!("nothing passes: {}", reason.code()),
            (word, None) => word.to_owned(),
        },
    ));
    lines
}

/// The same for programs.
pub(super) fn to_json(licensed: &Licensed) -> Value {
    let known = licensed.known.as_deref();
    let observation = known.map(|known| &known.observation);
    let (verdict, reason) = verdict(licensed);
    json!({
        "holder": licensed.holder.map(|holder| holder.to_string()),
        "status": licensed.status(),
        "state": observation.map(|it| it.state.as_str()),
        "license_id": observation.and_then(|it| it.license_id.as_deref()),
        "expires_at": observation.and_then(|it| it.expires_at).map(time),
        "confirmed_at": known.map(|known| time(known.confirmed_at)),
        "entitlements": licensed.entitlements().into_iter().flatten().collect::<Vec<_>>(),
        "verdict": verdict,
        "reason": reason.map(Reason::code),
        "until": licensed.standing.until.map(time),
    })
}
