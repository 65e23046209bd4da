//! What the route table asks for, checked before a handler sees the request.

use std::sync::Arc;

use axum::body::Body;
use doorward_core::{
    csrf,
    decision::{Denial, Permitted},
    principal::Principal,
    reason::Reason,
    rule::CsrfMode,
};
use http::{HeaderValue, Method, Response};

use super::{call::Call, respond::Want, routes::Route};

/// Field of a form that stands for the header `X-CSRF-Token`: a page without script cannot set headers.
pub const CSRF_FIELD: &str = "csrf_token";

/// Checks `route`'s policy. Gives the caller back where the route asks for one.
///
/// # Errors
/// The finished answer to a refusal.
pub async fn admit(call: &mut Call, route: &Route) -> Result<Option<Arc<Principal>>, Box<Response<Body>>> {
    let is_safe = matches!(call.parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
    if let Want::Page { return_to } = &mut call.want
        && !route.back.is_empty()
        && !is_safe
    {
        *return_to = format!("{}{}", call.site.pages.base, route.back);
    }
    let Some(rule) = call.site.required(route).cloned() else {
        if route.csrf == CsrfMode::Off || is_safe {
            return Ok(None);
        }
        // No session decides here, so there is none that a token could belong to.
        let policy = call.site.policy.origins(&call.client.host);
        let checked = csrf::check_origin(&call.parts.headers, &policy);
        return checked.map(|()| None).map_err(|denial| Box::new(call.refuse(denial)));
    };
    if route.csrf == CsrfMode::Token && !is_safe {
        take_form_token(call).await.map_err(|denial| Box::new(call.refuse(denial)))?;
    }
    let decision = call.server.gate.check_route(&call.facts(), &rule).decision().await;
    match &decision.outcome {
        Ok(grant) => match grant.principal.as_ref().map(Permitted::get) {
            Some(principal) => Ok(Some(Arc::clone(principal))),
            None => Err(Box::new(call.refuse(Reason::Internal.into()))),
        },
        Err(_) => Err(Box::new(call.answer(&decision))),
    }
}

/// Lets the field of a form stand for the header, where the header is not there. It is judged like the header:
/// by the gate, if a session authenticated.
async fn take_form_token(call: &mut Call) -> Result<(), Denial> {
    if call.parts.headers.contains_key(&csrf::HEADER) || !call.sends_form() {
        return Ok(());
    }
    let body = call.buffer().await?;
    let mut tokens = url::form_urlencoded::parse(&body).filter(|(name, _)| name == CSRF_FIELD);
    if let (Some((_, token)), None) = (tokens.next(), tokens.next())
        && let Ok(token) = HeaderValue::try_from(&*token)
    {
        call.parts.headers.insert(csrf::HEADER, token);
    }
    Ok(())
}

/// Gives a browser whose CSRF cookie is missing or another session's the right one back, so that it can repeat
/// what was refused for want of the token (G13). The request itself stays refused.
pub fn heal(call: &Call, denial: &Denial, caller: Option<&Arc<Principal>>, response: &mut Response<Body>) {
    if !matches!(denial.reason, Reason::CsrfMissing | Reason::CsrfMismatch) {
        return;
    }
    let Some(end) = caller.and_then(|caller| caller.expires_at) else { return };
    let Some(value) = super::session::presented(call).and_then(|hash| call.server.csrf_value(&hash)) else { return };
    let known = doorward_core::credential::cookie::value(&call.parts.headers, call.site.cookies.names.csrf);
    if !known.is_ok_and(|known| known == Some(value.as_bytes())) {
        let now = call.server.gate.clock().now().wall;
        call.site.cookies.csrf(response.headers_mut(), &value, end.since(now));
    }
}
