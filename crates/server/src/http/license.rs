//! `GET /profile/license`: the license that counts for whoever asks. Not license-gated: whoever is locked out must be
//! able to see why.

use std::sync::Arc;

use axum::body::Body;
use doorward_core::{
    decision::Denial,
    license::{Licensed, Verdict},
    principal::Principal,
    reason::Reason,
    time::Timestamp,
};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    call::{self, Call},
    session::rfc3339,
};
use crate::pages::ProfileLicense;

/// `GET /profile/license`.
pub async fn profile(call: &Call, caller: Option<Arc<Principal>>) -> Response<Body> {
    let found = async {
        let caller = caller.ok_or(Reason::Internal)?;
        of(call, &caller).await
    };
    match found.await {
        Ok(licensed) => call::json(StatusCode::OK, &shown(licensed.as_ref())),
        Err(denial) => call.refuse(denial),
    }
}

/// The license that counts for `caller`; `None` without a provider.
///
/// # Errors
/// `store_unavailable`.
pub(super) async fn of(call: &Call, caller: &Principal) -> Result<Option<Licensed>, Denial> {
    match call.server.gate.licenses() {
        Some(licenses) => Ok(Some(licenses.of(caller).await?)),
        None => Ok(None),
    }
}

/// When reading ends that still goes on, where it is no longer everything that goes on.
fn grace_until(licensed: &Licensed) -> Option<Timestamp> {
    licensed.standing.until.filter(|_| matches!(licensed.standing.verdict, Verdict::ReadOnly { .. }))
}

/// The same for the page.
pub(super) fn for_page(licensed: &Licensed) -> ProfileLicense {
    let known = licensed.known.as_deref();
    ProfileLicense {
        status: licensed.status(),
        expires_at: known.and_then(|known| known.observation.expires_at),
        grace_until: grace_until(licensed),
    }
}

fn shown(licensed: Option<&Licensed>) -> Value {
    let Some(licensed) = licensed else {
        return json!({
            "status": "none", "license_id": null, "checked_at": null, "expires_at": null, "grace_until": null,
            "entitlements": [],
        });
    };
    let known = licensed.known.as_deref();
    let observation = known.map(|known| &known.observation);
    let time = |at: Option<Timestamp>| at.map(rfc3339);
    json!({
        "status": licensed.status(),
        "license_id": observation.and_then(|it| it.license_id.as_deref()),
        "checked_at": time(known.map(|known| known.confirmed_at)),
        "expires_at": time(observation.and_then(|it| it.expires_at)),
        "grace_until": time(grace_until(licensed)),
        "entitlements": licensed.entitlements().into_iter().flatten().collect::<Vec<_>>(),
    })
}
