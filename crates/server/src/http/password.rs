//! `POST /login/password`: signing in with a password of the old system, while the soak window is open.

use axum::body::Body;
use doorward_core::{decision::Denial, reason::Reason, secret::Secret};
use doorward_gate::{flow::password::PasswordInput, respond as problem};
use http::{Response, StatusCode};
use serde::Deserialize;

use super::{
    call::{self, Call},
    login,
    respond::Want,
    session,
};
use crate::pages;

/// Body of `POST /login/password`. Has no `Debug`: it holds a password.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordBody {
    email: String,
    password: String,
    #[serde(default)]
    return_to: Option<String>,
}

/// `POST /login/password`.
pub async fn sign_in(call: Call) -> Response<Body> {
    if let Err(denial) = call.server.gate.check_window() {
        return call.refuse(denial);
    }
    let sent = match call.read::<PasswordBody>().await {
        Ok(sent) => sent,
        Err(denial) => return call.refuse(denial),
    };
    // Asked before anything is done: a session without its CSRF value would be of no use.
    if call.server.gate.csrf_keys().is_none() {
        return call.refuse(Denial::from(Reason::StoreUnavailable).with_note("the session key ring is not loaded yet"));
    }
    let PasswordBody { email, password, return_to } = sent.value;
    let to = call.site.return_to(return_to.as_deref().unwrap_or("/"));
    let now = call.server.gate.clock().now();
    let replaces = session::presented(&call);
    let input = PasswordInput {
        email: email.clone(),
        password: Secret::new(password.into_bytes()),
        replaces,
        return_to: to.as_str().to_owned(),
        absolute: call.server.gate.policy().sessions.absolute,
        asker: login::asker(&call),
    };
    // The file as it is when it is asked, not as it was when this request came.
    let ceiling = || call.server.site().legacy;
    let signed_in = match call.server.passwords.sign_in(input, ceiling, now).await {
        Ok(signed_in) => signed_in,
        Err(denial) if sent.is_form && denial.reason == Reason::PasswordInvalid => {
            return again(&call, &denial, &email, to.as_str());
        }
        Err(denial) => return call.refuse(denial),
    };
    call.server.methods.signed_in(signed_in.session.method);
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

/// The login page again, with what was wrong; a refusal like any other for logs, metrics and headers.
fn again(call: &Call, denial: &Denial, email: &str, return_to: &str) -> Response<Body> {
    let decision = call.server.gate.refuse_observed(&call.facts(), denial.clone());
    let page = pages::Login { return_to, email, ended: Some(denial.reason), with_password: true };
    let mut response = call::page(StatusCode::UNAUTHORIZED, pages::login(&call.site.pages, &page));
    problem::mark(response.headers_mut(), denial, decision.id);
    response
}
