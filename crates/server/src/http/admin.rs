//! The admin listener: metrics and the deep view of health. Never on the public port (A78).

mod blocklist;
mod mails;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use axum::body::Body;
use doorward_core::{
    csrf::{self, OriginPolicy},
    decision::Denial,
    origin::Origin,
    reason::Reason,
    request::{Host, RequestFacts, Scheme},
    secret::Secret,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, header, request::Parts};
use subtle::ConstantTimeEq as _;

use super::{Server, call, health, respond, respond::Want};
use crate::{cutover, jobs, listener::Connection};

/// What the admin listener serves.
pub const ROUTES: &[(&str, &str)] = &[
    ("GET /metrics", "Prometheus metrics"),
    ("GET /admin/cutover", "The soak window: state, legacy share, what was counted by method and day"),
    ("GET /healthz", "Liveness"),
    ("GET /healthz/deep", "Every neighbour with its state; 503 if one is not well"),
    ("GET /blocklist", "Blocked tokens and subjects: `{entries, next}`; `?after=` an `id`, `?limit=` up to 1000"),
    ("POST /blocklist", "Block: `{issuer, jti}` or `{issuer, subject}`, with `for` or `until`, and `why`; 201"),
    ("GET /mails", "Mails that were given up, the newest first: `{mails}`, 1000 at most"),
    (
        "POST /mails/retry",
        "Try one again: `{id}`; `{queued}`. 404 if it was not given up; 400 if its text was not kept",
    ),
    ("DELETE /blocklist", "Take back: `{issuer, jti}` or `{issuer, subject}`, with `why`; `{removed}`"),
];

/// Answers one request of the admin listener.
pub async fn handle(server: &Arc<Server>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let token = server.admin_token.load_full();
    answer(server, token.as_deref(), &parts, body).await.unwrap_or_else(|denial| {
        let connection = parts.extensions.get::<Connection>();
        let facts = RequestFacts {
            method: &parts.method,
            scheme: scheme(&parts),
            host: host(&parts),
            target: parts.uri.path(),
            headers: &parts.headers,
            client: connection.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |connection| connection.peer.ip()),
            is_upgrade: false,
            may_leave_http: false,
        };
        let decision = server.gate.refuse_observed(&facts, denial.clone());
        respond::denial(&denial, decision.id, &Want::Json, &server.site().pages)
    })
}

async fn answer(
    server: &Arc<Server>,
    token: Option<&Secret<String>>,
    parts: &Parts,
    body: Body,
) -> Result<Response<Body>, Denial> {
    // Without a token only the address protects it, and a page from elsewhere whose name points to loopback
    // (DNS rebinding) would share that.
    if token.is_none() && !is_by_address(host(parts)) {
        return Err(Reason::HostUnknown.into());
    }
    // Liveness says nothing that needs protection.
    if parts.uri.path() != "/healthz"
        && let Some(token) = token
    {
        match bearer(&parts.headers) {
            None => return Err(Reason::NoCredential.into()),
            Some(given) if !bool::from(given.as_bytes().ct_eq(token.expose().as_bytes())) => {
                return Err(Reason::ApiKeyNotFound.into());
            }
            Some(_) => {}
        }
    }
    let is_safe = matches!(parts.method, Method::GET | Method::HEAD);
    if !is_safe {
        // A page of another site could send a form here; it cannot send JSON, and it cannot hide where it is from.
        csrf::check_origin(&parts.headers, &own_origin(parts)?)?;
    }
    match parts.uri.path() {
        "/blocklist" => blocklist::answer(server, parts, body).await,
        "/mails/retry" => mails::again(server, parts, body).await,
        _ if !is_safe => Err(Reason::MethodNotAllowed.into()),
        "/healthz" => Ok(health::healthz()),
        "/healthz/deep" => Ok(health::deep(server)),
        "/mails" => mails::list(server).await,
        "/admin/cutover" => {
            // Not ended by a caller who goes away: what the store took would be counted once more.
            let counted = Arc::clone(server);
            let _ = tokio::spawn(async move { jobs::cutover::flush(&counted).await }).await;
            let now = server.gate.clock().now().wall;
            let report = cutover::report(server.gate.store(), server.site().legacy.as_ref(), now).await;
            report.map(|report| call::json(StatusCode::OK, &report)).map_err(|error| {
                Denial::from(Reason::StoreUnavailable).with_note(format!("no report on the soak window: {error}"))
            })
        }
        "/metrics" => Ok(call::own(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Body::from(server.metrics.render()),
        )),
        _ => Err(Reason::NotFound.into()),
    }
}

fn host(parts: &Parts) -> &str {
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    authority.or_else(|| parts.headers.get(header::HOST)?.to_str().ok()).unwrap_or_default()
}

fn scheme(parts: &Parts) -> Scheme {
    parts.extensions.get::<Connection>().map_or(Scheme::Http, |connection| connection.scheme)
}

/// This listener as an origin, under the name that it was called by.
fn own_origin(parts: &Parts) -> Result<OriginPolicy, Denial> {
    let host = Host::parse(host(parts))?;
    Ok(OriginPolicy { own: Origin::new(scheme(parts), &host), allowed: Vec::new() })
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
