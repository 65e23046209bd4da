//! `GET /session`, `GET /whoami`, `POST /logout`.

use axum::body::Body;
use doorward_core::{
    credential::{self, Credential, CredentialSet},
    decision::{Decision, Denial},
    principal::Authenticated,
    reason::Reason,
    session::TokenHash,
    time::Timestamp,
    user::Email,
};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    call::{self, Call},
    license, login,
    respond::Want,
    routes::Guard,
};
use crate::pages;

/// A time as RFC 3339, UTC.
pub fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).map_or_else(|_| String::new(), |at| at.to_string())
}

/// Who is calling a route that is open to all.
///
/// # Errors
/// Faults and `rate_limited` only: a credential that does not hold makes the caller anonymous here, but "cannot
/// tell now" is not "nobody".
pub async fn caller(call: &Call, guard: Guard) -> Result<Decision, Denial> {
    let rule = match guard {
        Guard::Optional(kinds) => call.site.optional(kinds),
        // Those of a route that asks for a credential were judged before its handler.
        Guard::Open | Guard::Required(_) | Guard::Peer | Guard::Signed => call.site.optional(CredentialSet::NONE),
    };
    let decision = call.server.gate.peek(&call.facts(), rule).await;
    match &decision.outcome {
        Err(denial) if denial.reason.is_fault() || denial.reason == Reason::RateLimited => Err(denial.clone()),
        _ => Ok(decision),
    }
}

/// The hash of the session cookie that this request carries, whatever it is worth.
pub fn presented(call: &Call) -> Option<TokenHash> {
    find(call).ok().flatten()
}

fn find(call: &Call) -> Result<Option<TokenHash>, Denial> {
    let kinds = CredentialSet::NONE.with(credential::CredentialKind::Session);
    Ok(match credential::find(&call.parts.headers, kinds, &call.site.cookies.names)? {
        Some(Credential::Session(token)) => token.map(|token| token.hash()),
        _ => None,
    })
}

/// `GET /session`.
pub async fn session(call: Call, guard: Guard) -> Response<Body> {
    let decision = match caller(&call, guard).await {
        Ok(decision) => decision,
        Err(denial) => return call.refuse(denial),
    };
    let Some(hash) = decision.outcome.is_ok().then(|| presented(&call)).flatten() else {
        return call::json(StatusCode::OK, &json!({ "authenticated": false }));
    };
    let entry = match call.server.gate.session_record(hash).await {
        Ok(Some(entry)) => entry,
        Ok(None) => return call::json(StatusCode::OK, &json!({ "authenticated": false })),
        Err(denial) => return call.refuse(denial),
    };
    let Some(csrf) = call.server.csrf_value(&entry.session.hash) else {
        return call.refuse(Denial::from(Reason::StoreUnavailable).with_note("the session key ring is not loaded yet"));
    };
    let limits = call.server.gate.policy().sessions;
    let session = &entry.session;
    let mut response = call::json(
        StatusCode::OK,
        &json!({
            "authenticated": true,
            "user": {
                "id": session.user_id.to_string(),
                "email": entry.principal.email.as_ref().map(Email::as_str),
            },
            "method": session.method,
            "csrf_token": csrf,
            "created_at": rfc3339(session.created_at),
            "authenticated_at": rfc3339(session.authenticated_at),
            "idle_expires_at": rfc3339(entry.last_used_at().plus(limits.idle)),
            "expires_at": rfc3339(session.expires_at),
        }),
    );
    // A browser that lost its CSRF cookie gets it back here (G13).
    let now = call.server.gate.clock().now().wall;
    call.site.cookies.csrf(response.headers_mut(), &csrf, session.expires_at.since(now));
    response
}

/// `GET /whoami`.
pub async fn whoami(call: Call, guard: Guard) -> Response<Body> {
    let decision = match caller(&call, guard).await {
        Ok(decision) => decision,
        Err(denial) => return call.refuse(denial),
    };
    if let (Want::Page { .. }, Ok(_)) = (&call.want, &decision.outcome)
        && let Some(page) = profile(&call).await
    {
        return page;
    }
    let mut answer = json!({
        "authenticated": decision.outcome.is_ok(),
        "client": {
            "address": call.client.ip.to_string(),
            "scheme": call.client.scheme.as_str(),
            "host": &*call.client.host,
        },
    });
    match (&decision.outcome, &decision.caller) {
        (Ok(_), Some(principal)) => {
            answer["subject"] = principal.subject.to_string().into();
            answer["issuer"] = (*principal.subject.issuer).into();
            answer["method"] = principal.authenticated.as_str().into();
            answer["email"] = principal.email.as_ref().map_or(Value::Null, |email| email.as_str().into());
            if let Authenticated::ApiKey { capabilities, .. } = &principal.authenticated {
                answer["capabilities"] = json!(capabilities);
            }
        }
        (Err(denial), _) if denial.reason != Reason::NoCredential => {
            answer["reason"] = denial.reason.shown().code().into();
        }
        _ => {}
    }
    call::json(StatusCode::OK, &answer)
}

async fn profile(call: &Call) -> Option<Response<Body>> {
    let entry = call.server.gate.session_record(presented(call)?).await.ok()??;
    let limits = call.server.gate.policy().sessions;
    // A store that is away hides the license, not the page.
    let license = license::of(call, &entry.principal).await.ok().flatten();
    let html = pages::profile(
        &call.site.pages,
        &pages::Profile {
            email: entry.principal.email.as_ref(),
            subject: &entry.principal.subject,
            method: entry.session.method,
            created_at: entry.session.created_at,
            authenticated_at: entry.session.authenticated_at,
            idle_expires_at: entry.last_used_at().plus(limits.idle),
            expires_at: entry.session.expires_at,
            client: Some(call.client.ip),
            license: license.as_ref().map(license::for_page),
        },
    );
    Some(call::page(StatusCode::OK, html))
}

/// `POST /logout`: 200 or 303 only once the row is gone.
pub async fn logout(call: Call) -> Response<Body> {
    // Two session cookies: neither may live on behind an answer that says it is over.
    let presented = match find(&call) {
        Ok(presented) => presented,
        Err(denial) => return call.refuse(denial),
    };
    if let Some(hash) = presented {
        let now = call.server.gate.clock().now();
        if let Err(denial) = call.server.gate.may_look_up(&hash, call.client.ip) {
            return call.refuse(denial);
        }
        match call.server.sign_in.sign_out(hash, login::asker(&call), now).await {
            Ok(Some(_)) => {}
            Ok(None) => call.server.gate.looked_up_in_vain(call.client.ip),
            Err(denial) => return call.refuse(denial),
        }
        call.server.gate.forget_session(&hash);
    }
    let mut response = match call.want {
        // Reloading the page it leads to asks nothing to be posted again.
        Want::Page { .. } => call::see_other(&format!("{}/login?{}", call.site.pages.base, login::SIGNED_OUT)),
        Want::Json => call::ok(),
    };
    call.site.cookies.sign_out(response.headers_mut());
    response
}
