//! The admin listener: metrics and the deep view of health. Never on the public port (A78).

use std::sync::Arc;

use axum::body::Body;
use doorward_core::{decision::Denial, reason::Reason, secret::Secret};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use subtle::ConstantTimeEq as _;

use super::{Server, call, health, respond, respond::Want};

/// What the admin listener serves.
pub const ROUTES: &[(&str, &str)] = &[
    ("/metrics", "Prometheus metrics"),
    ("/healthz", "Liveness"),
    ("/healthz/deep", "Every neighbour with its state; 503 if one is not well"),
];

/// Answers one request of the admin listener.
pub fn handle(server: &Arc<Server>, token: Option<&Secret<String>>, request: &Request<Body>) -> Response<Body> {
    let refuse = |reason: Reason| {
        let denial = Denial::from(reason);
        let decision = server.gate.refuse(denial.clone());
        respond::denial(&denial, decision.id, &Want::Json, &server.site().pages)
    };
    // Liveness says nothing that needs protection.
    if request.uri().path() != "/healthz"
        && let Some(token) = token
    {
        match bearer(request.headers()) {
            None => return refuse(Reason::NoCredential),
            Some(given) if !bool::from(given.as_bytes().ct_eq(token.expose().as_bytes())) => {
                return refuse(Reason::ApiKeyNotFound);
            }
            Some(_) => {}
        }
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return refuse(Reason::MethodNotAllowed);
    }
    match request.uri().path() {
        "/healthz" => health::healthz(),
        "/healthz/deep" => health::deep(server),
        "/metrics" => call::own(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Body::from(server.metrics.render()),
        ),
        _ => refuse(Reason::NotFound),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
