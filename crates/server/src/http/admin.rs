//! The admin listener: metrics and the deep view of health. Never on the public port (A78).

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use axum::body::Body;
use doorward_core::{
    decision::Denial,
    reason::Reason,
    request::{Host, RequestFacts, Scheme},
    secret::Secret,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use subtle::ConstantTimeEq as _;

use super::{Server, call, health, respond, respond::Want};
use crate::{cutover, jobs, listener::Connection};

/// What the admin listener serves.
pub const ROUTES: &[(&str, &str)] = &[
    ("/metrics", "Prometheus metrics"),
    ("/admin/cutover", "The soak window: state, legacy share, what was counted by method and day"),
    ("/healthz", "Liveness"),
    ("/healthz/deep", "Every neighbour with its state; 503 if one is not well"),
];

/// Answers one request of the admin listener; none of them has a body that is read.
pub async fn handle(server: &Arc<Server>, token: Option<&Secret<String>>, request: &Request<()>) -> Response<Body> {
    let host = host(request);
    let refuse = |reason: Reason| {
        let denial = Denial::from(reason);
        let connection = request.extensions().get::<Connection>();
        let facts = RequestFacts {
            method: request.method(),
            scheme: connection.map_or(Scheme::Http, |connection| connection.scheme),
            host,
            target: request.uri().path(),
            headers: request.headers(),
            client: connection.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |connection| connection.peer.ip()),
            is_upgrade: false,
        };
        let decision = server.gate.refuse_observed(&facts, denial.clone());
        respond::denial(&denial, decision.id, &Want::Json, &server.site().pages)
    };
    // Without a token only the address protects it, and a page from elsewhere whose name points to loopback
    // (DNS rebinding) would share that.
    if token.is_none() && !is_by_address(host) {
        return refuse(Reason::HostUnknown);
    }
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
        "/admin/cutover" => {
            jobs::cutover::flush(server).await;
            let now = server.gate.clock().now().wall;
            match cutover::report(server.gate.store(), server.site().legacy.as_ref(), now).await {
                Ok(report) => call::json(StatusCode::OK, &report),
                Err(error) => {
                    tracing::debug!(%error, "no report on the soak window");
                    refuse(Reason::StoreUnavailable)
                }
            }
        }
        "/metrics" => call::own(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Body::from(server.metrics.render()),
        ),
        _ => refuse(Reason::NotFound),
    }
}

fn host(request: &Request<()>) -> &str {
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    authority.or_else(|| request.headers().get(header::HOST)?.to_str().ok()).unwrap_or_default()
}

/// Whether `host` is an address or the name of loopback, which nobody else can point to us.
fn is_by_address(host: &str) -> bool {
    Host::parse(host).is_ok_and(|host| {
        let name = host.name();
        name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_somebody_else_could_point_here_is_none_of_ours() {
        for own in ["127.0.0.1:8081", "[::1]:8081", "localhost", "LOCALHOST:1", "10.0.0.7"] {
            assert!(is_by_address(own), "{own}");
        }
        for foreign in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8081", "", "a b"] {
            assert!(!is_by_address(foreign), "{foreign}");
        }
    }
}
