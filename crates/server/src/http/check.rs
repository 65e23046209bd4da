//! Forward-auth: a proxy that somebody else runs asks whether a request may pass.

use std::net::IpAddr;

use axum::body::Body;
use doorward_core::{
    decision::{Decision, Denial, Permitted},
    dialect::Dialect,
    forward,
    id::DecisionId,
    reason::Reason,
    request::{RequestFacts, is_websocket_upgrade},
};
use doorward_gate::{assertion::HEADER as ASSERTION, respond as problem};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use super::{
    Server, Site, Source,
    call::{self, Call},
    entry, harden,
    respond::{self, Want},
    routes::{self, Found, Handler, Route},
};
use crate::pages;

/// nginx: the status that the client should get.
const STATUS: HeaderName = HeaderName::from_static("x-doorward-status");
/// nginx: where the client should be sent, empty if nowhere.
const REDIRECT: HeaderName = HeaderName::from_static("x-doorward-redirect");

/// `ANY /check/{dialect}`. `rest` is Envoy's original path.
pub async fn check(call: Call, dialect: Dialect, rest: &str) -> Response<Body> {
    if let Err(denial) = is_asked_by_a_proxy(&call) {
        return call.refuse(denial);
    }
    let suffix = match call.parts.uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    let (decision, want) = judge(&call, dialect, &suffix).await;
    let mut response = answer(&call, dialect, &decision, &want);
    response.extensions_mut().insert(Source::Check);
    response
}

/// Refuses a question that cannot be read, in words of the proxy that asks.
pub fn refuse(call: &Call, dialect: Dialect, denial: Denial) -> Response<Body> {
    if let Err(denial) = is_asked_by_a_proxy(call) {
        return call.refuse(denial);
    }
    let decision = call.server.gate.refuse_observed(&call.facts(), denial);
    let mut response = answer(call, dialect, &decision, &Want::Json);
    response.extensions_mut().insert(Source::Check);
    response
}

/// The dialect in which a trusted proxy asks at `path`; `None` for everything else.
pub fn asking(site: &Site, peer: IpAddr, path: &str) -> Option<Dialect> {
    match routes::find(&site.pages.base, &Method::GET, path) {
        Found::Route(Route { handler: Handler::Check(dialect), .. }, _) => {
            site.trusted.contains(peer).then_some(*dialect)
        }
        _ => None,
    }
}

/// As [`refuse`], for what the listener refuses before there is a call: a proxy passes a client's headers on.
pub fn refuse_unread(server: &Server, dialect: Dialect, denial: &Denial) -> Response<Body> {
    let decision = server.gate.refuse(denial.clone());
    entry::unread(server, denial, decision.id);
    written(&server.site().pages, dialect, decision.id, denial, &Want::Json)
}

fn is_asked_by_a_proxy(call: &Call) -> Result<(), Denial> {
    if call.site.trusted.contains(call.peer.ip()) {
        return Ok(());
    }
    Err(Denial::from(Reason::UntrustedPeer).with_note(format!("peer {}", call.peer.ip())))
}

/// Decides about the original request.
async fn judge(call: &Call, dialect: Dialect, suffix: &str) -> (Decision, Want) {
    let headers = &call.parts.headers;
    let original = match dialect.read(true, &call.parts.method, &call.client.host, suffix, headers) {
        Ok(original) => original,
        Err(denial) => return (call.server.gate.refuse_observed(&call.facts(), denial), Want::Json),
    };
    let want = Want::of(&original.method, headers, &original.target);
    let facts = RequestFacts {
        method: &original.method,
        scheme: original.scheme.unwrap_or(call.client.scheme),
        host: original.host,
        target: &original.target,
        headers,
        client: call.client.ip,
        is_upgrade: is_websocket_upgrade(&original.method, headers),
        // What the proxy that asks makes of other upgrades, such as h2c, nobody here knows.
        may_leave_http: headers.contains_key(http::header::UPGRADE),
    };
    let decision = if call.site.policy.knows_host(original.host) {
        call.server.gate.check_by(&facts, &call.site.policy).decision().await
    } else {
        call.server.gate.refuse_observed(&facts, Reason::HostUnknown.into())
    };
    (decision, want)
}

/// A grant is 200 with every identity header, empty where there is nothing: a header left out would let a
/// client's own through in some proxies. Everything else is a denial; there is no third case.
fn answer(call: &Call, dialect: Dialect, decision: &Decision, want: &Want) -> Response<Body> {
    let grant = match &decision.outcome {
        Ok(grant) => grant,
        Err(denial) => return refused(call, dialect, decision, denial, want),
    };
    let rule = decision.rule.and_then(|index| call.site.policy.rule(index));
    let Some(app) = rule.and_then(|rule| call.site.apps.get(rule.app)) else {
        let denial = Denial::from(Reason::Internal).with_note("no app behind the rule");
        return refused(call, dialect, decision, &denial, want);
    };
    let principal = grant.principal.as_ref().map(Permitted::get);
    let mut response = call::own(StatusCode::OK, "text/plain", Body::empty());
    let headers = response.headers_mut();
    let license = grant.license.as_ref();
    forward::identity_headers(principal.map(|principal| &**principal), license, decision.id).write(headers, &app.extra);
    problem::mark_grace(headers, grant);
    headers.insert(ASSERTION, HeaderValue::from_static(""));
    if let (Some(principal), Some(audience)) = (principal, &app.assertion) {
        let now = call.server.gate.clock().now();
        match call.server.assertions.for_principal(principal, license, audience, now) {
            Ok(assertion) => {
                headers.insert(ASSERTION, assertion);
            }
            Err(denial) => return refused(call, dialect, decision, &denial, want),
        }
    }
    response
}

fn refused(call: &Call, dialect: Dialect, decision: &Decision, denial: &Denial, want: &Want) -> Response<Body> {
    written(&call.site.pages, dialect, decision.id, denial, want)
}

fn written(site: &pages::Site, dialect: Dialect, id: DecisionId, denial: &Denial, want: &Want) -> Response<Body> {
    match dialect {
        Dialect::Nginx => for_nginx(site, id, denial, want),
        Dialect::Caddy | Dialect::Traefik | Dialect::Haproxy | Dialect::Envoy => {
            respond::denial(denial, id, want, site)
        }
    }
}

/// nginx turns anything but 2xx, 401 and 403 into a 500, so those carry the real answer in headers, which
/// the configuration in `deploy/` turns back.
fn for_nginx(site: &pages::Site, id: DecisionId, denial: &Denial, want: &Want) -> Response<Body> {
    let shown = denial.reason.shown();
    let is_unauthorized = shown.status() == 401;
    let status = if is_unauthorized { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
    let redirect = match want {
        Want::Page { return_to } => respond::lead(shown, &site.base, return_to).unwrap_or_default(),
        Want::Json => String::new(),
    };
    let docs = format!("{}/docs", site.base);
    let mut response = problem::problem(denial, id, &docs).map(Body::from);
    *response.status_mut() = status;
    let headers: &mut HeaderMap = response.headers_mut();
    let real = if redirect.is_empty() { shown.status() } else { StatusCode::FOUND.as_u16() };
    headers.insert(STATUS, HeaderValue::from(real));
    headers.insert(REDIRECT, HeaderValue::try_from(redirect).unwrap_or_else(|_| HeaderValue::from_static("")));
    harden::harden(headers);
    response
}
