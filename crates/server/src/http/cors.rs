//! CORS (Fetch, "CORS protocol"): what pages of `login.allowed_origins` may do and read with a person's cookies.
//!
//! An origin is on the list by its exact name, or it gets nothing; there is no wildcard. Cookies are
//! `SameSite=Lax`, so a page of another *site* sends none: an allowed origin shares the registrable domain of
//! `public_url`.

use axum::body::Body;
use doorward_core::{origin::Origin, request::RequestPath};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::{Site, call::Call, harden};

/// What our own routes read.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static("Content-Type, Authorization, X-CSRF-Token");
/// What tells a program why it was refused and when to come back.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "X-Doorward-Reason, X-Doorward-Decision, WWW-Authenticate, Retry-After, RateLimit, RateLimit-Policy, X-License-Grace",
);
/// Seconds for which a browser keeps the answer to a preflight.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// The `Origin` of a request, if it is one that may read our answers.
pub fn allowed(headers: &HeaderMap, site: &Site) -> Option<HeaderValue> {
    let mut values = headers.get_all(header::ORIGIN).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let origin = Origin::parse(value.to_str().ok()?)?;
    site.redirects.allowed.contains(&origin).then(|| value.clone())
}

/// The answer to a preflight for an address that answers `methods`; `None` if it is none, or not from an
/// allowed origin.
pub fn preflight(call: &Call, methods: &[&str]) -> Option<Response<Body>> {
    let headers = &call.parts.headers;
    let origin = allowed(headers, &call.site).filter(|_| is_preflight(call))?;
    let mut names: Vec<&str> = methods.to_vec();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    answer(&origin, HeaderValue::try_from(names.join(", ")).ok()?, REQUEST_HEADERS)
}

/// The answer to a preflight for an app that Doorward speaks for. What the rule does not admit is refused when
/// the request itself comes; headers are the app's to understand, so all that are asked for are admitted.
pub fn preflight_for_app(call: &Call) -> Option<Response<Body>> {
    if !is_preflight(call) {
        return None;
    }
    let headers = &call.parts.headers;
    let origin = allowed(headers, &call.site)?;
    let path = RequestPath::parse(call.target(), call.site.policy.path_mode()).ok()?;
    let index = call.site.policy.rules().match_path(&call.client.host, &path).ok()?;
    let rule = call.site.policy.rule(index)?;
    call.site.apps.get(rule.app).filter(|app| app.cors)?;
    let methods = match rule.methods.is_empty() {
        true => headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?.clone(),
        false => HeaderValue::try_from(rule.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")).ok()?,
    };
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    answer(&origin, methods, asked.filter(is_list_of_names).unwrap_or(REQUEST_HEADERS))
}

fn is_preflight(call: &Call) -> bool {
    call.parts.method == Method::OPTIONS && call.parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Whether a value that goes back holds nothing but header names.
fn is_list_of_names(value: &HeaderValue) -> bool {
    let is_name = |name: &str| HeaderName::from_bytes(name.trim().as_bytes()).is_ok();
    value.to_str().is_ok_and(|names| names.len() <= 1024 && names.split(',').all(is_name))
}

fn answer(origin: &HeaderValue, methods: HeaderValue, names: HeaderValue) -> Option<Response<Body>> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    let vary = "Access-Control-Request-Method, Access-Control-Request-Headers";
    headers.insert(header::VARY, HeaderValue::from_static(vary));
    harden::harden(headers);
    Some(response)
}

/// Lets a page of `origin` read this answer; also says to caches that it depends on who asked.
pub fn mark(headers: &mut HeaderMap, origin: Option<&HeaderValue>) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    let Some(origin) = origin else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    // Several lines are one list, and an app may expose more of its own.
    headers.append(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}
