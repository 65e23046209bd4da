//! `/first-admin`: whoever runs the server becomes its first administrator.

use axum::body::Body;
use doorward_core::{
    decision::Denial,
    reason::Reason,
    session::{OpaqueToken, TokenHash},
};
use doorward_gate::flow::first_admin::{self, ClaimInput};
use http::{Response, StatusCode};
use serde::Deserialize;

use super::{
    call::{self, Call},
    login,
    respond::Want,
    session,
};
use crate::pages;

/// Path below `base_path`.
pub const PATH: &str = "/first-admin";

/// Query of the page.
#[derive(Debug, Default, Deserialize)]
struct Query {
    #[serde(default)]
    token: String,
}

/// Body of the form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimBody {
    #[serde(default)]
    token: String,
    email: String,
}

/// What made-up tokens cost the store is bounded like that of made-up sessions.
fn may_look_up(call: &Call, token: &str) -> Result<(), Denial> {
    let hash = OpaqueToken::parse(token).map_or_else(|| TokenHash::of(token.as_bytes()), |token| token.hash());
    call.server.gate.may_look_up(&hash, call.client.ip)
}

/// Refuses, and counts a token that nobody made.
fn refuse(call: &Call, denial: Denial) -> Response<Body> {
    if denial.reason == Reason::LinkInvalid {
        call.server.gate.looked_up_in_vain(call.client.ip);
    }
    call.refuse(denial)
}

/// `GET /first-admin?token=`: a page; consumes nothing.
pub async fn page(call: &Call) -> Response<Body> {
    let query = call.parts.uri.query().unwrap_or_default();
    let Query { token } = serde_urlencoded::from_str(query).unwrap_or_default();
    if let Err(denial) = may_look_up(call, &token) {
        return call.refuse(denial);
    }
    match first_admin::peek(call.server.gate.store(), &token, call.server.gate.clock().now()).await {
        Ok(_) => {
            let page = pages::FirstAdmin { token: &token };
            call::page(StatusCode::OK, pages::first_admin(&call.site.pages, &page))
        }
        Err(denial) => refuse(call, denial),
    }
}

/// `POST /first-admin`: makes the administrator and begins the session, in one transaction.
pub async fn claim(call: Call) -> Response<Body> {
    let sent = match call.read::<ClaimBody>().await {
        Ok(sent) => sent,
        Err(denial) => return call.refuse(denial),
    };
    // Asked before anything is consumed: a session without its CSRF value would be a burnt token.
    if call.server.gate.csrf_keys().is_none() {
        return call.refuse(Denial::from(Reason::StoreUnavailable).with_note("the session key ring is not loaded yet"));
    }
    if let Err(denial) = may_look_up(&call, &sent.value.token) {
        return call.refuse(denial);
    }
    let now = call.server.gate.clock().now();
    let replaces = session::presented(&call);
    let input = ClaimInput {
        token: sent.value.token,
        email: sent.value.email,
        absolute: call.server.gate.policy().sessions.absolute,
        return_to: format!("{}/whoami", call.site.pages.base),
        replaces,
        asker: login::asker(&call),
    };
    let signed_in = match first_admin::claim(call.server.gate.store(), call.server.gate.clock(), input, now).await {
        Ok(signed_in) => signed_in,
        Err(denial) => return refuse(&call, denial),
    };
    if let Some(old) = replaces {
        call.server.gate.forget_session(&old);
    }
    let csrf = call.server.csrf_value(&signed_in.session.hash).unwrap_or_default();
    let mut response = match (sent.is_form, &call.want) {
        (true, _) | (_, Want::Page { .. }) => call::see_other(&signed_in.return_to),
        (false, Want::Json) => call::ok(),
    };
    let age = signed_in.session.expires_at.since(now.wall);
    call.site.cookies.sign_in(response.headers_mut(), &signed_in.token, &csrf, age);
    response
}
