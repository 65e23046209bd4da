//! The gate inside an app: tower layer and axum extractors.

use std::{
    convert::Infallible,
    future::{Ready, poll_fn, ready},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{Extension, Router, body::Body, extract::ConnectInfo, routing::any};
use bytes::Bytes;
use doorward_core::{
    client::TrustedProxies,
    credential::{CookieNames, CredentialKind, CredentialSet},
    csrf::OriginPolicy,
    jose::JwkSet,
    origin::Origin,
    request::Scheme,
    rule::{Access, Rule},
    session::SessionLimits,
    time::Timestamp,
};
use doorward_gate::{
    axum::{Caller, Verdict},
    clock::Clock,
    gate::{Gate, GateParts},
    issuer::{IssuerConfig, Issuers, KeySource},
    observe::Unobserved,
    policy::Policy,
    tower::{Admitted, GateLayer, Peer},
};
use doorward_store::Store;
use doorward_testkit::issuer::Issuer;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower_layer::Layer as _;
use tower_service::Service;

use crate::issuer::{START, policy as token_policy};

/// `/public/*` is open, `/keep/*` leaves the token to the app, everything else asks for a token or session.
async fn gate(issuer: &Issuer) -> Gate {
    let clock = Clock::manual(Timestamp::from_secs(START));
    let store = Store::memory();
    let kinds = CredentialSet::NONE.with(CredentialKind::Bearer).with(CredentialKind::Session);
    let rule = |path, access| Rule::new("app.example", path, access).unwrap();
    let closed = Access::Credential(kinds);
    let keep = Rule { forward_authorization: true, ..rule("/keep/*", closed) };
    let hour = std::time::Duration::from_secs(3600);
    let policy = Policy::new(
        1,
        vec![rule("/public/*", Access::Public), keep, rule("/*", closed)],
        vec![],
        SessionLimits { idle: hour, absolute: hour, recent_auth: hour },
        CookieNames::SECURE,
        OriginPolicy { own: Origin::parse("https://app.example").unwrap(), allowed: vec![] },
    );
    let keys = KeySource::Inline(JwkSet::parse(issuer.key_set().to_string().as_bytes()).unwrap());
    let config = IssuerConfig::new("main", token_policy(&issuer.url()), keys);
    let issuers = Issuers::new(vec![config], &clock, Some(&store)).unwrap();
    let observer = Box::new(Unobserved);
    let (gate, _task) =
        Gate::new(GateParts { clock, store, issuers, policy: policy.into(), observer, cache_capacity: 100 });
    gate.follow().await;
    gate
}

fn token(issuer: &Issuer) -> String {
    format!("Bearer {}", issuer.mint(&issuer.claims("app", START)))
}

fn request(target: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let request = Request::builder().uri(target).header("host", "app.example");
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(Body::empty()).unwrap()
}

async fn ask<S, E>(service: &S, request: Request<Body>) -> (StatusCode, HeaderMap, String)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = E> + Clone,
    E: std::fmt::Debug,
{
    let mut service = service.clone();
    poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
    let (parts, body) = service.call(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

/// Says what it was told.
async fn tell(caller: Option<Caller>, verdict: Verdict, admitted: Extension<Admitted>, headers: HeaderMap) -> String {
    let headers: Vec<_> = headers.iter().map(|(name, value)| [name.as_str(), value.to_str().unwrap()]).collect();
    let caller = caller.map(|caller| caller.0.subject.to_string());
    let client = admitted.client.to_string();
    json!({ "caller": caller, "rule": verdict.0.rule, "client": client, "headers": headers }).to_string()
}

fn app(gate: Gate) -> Router {
    let inner = Router::new().route("/{*path}", any(tell));
    let strict = Router::new().route("/caller", any(async |caller: Caller| caller.0.subject.to_string()));
    Router::new().nest("/public", strict.clone()).nest("/api", strict).fallback(tell).nest("/in", inner).layer(
        GateLayer::new(gate, Scheme::Https)
            .trusting(TrustedProxies::new(vec!["10.0.0.1".parse().unwrap()]))
            .documented_at("https://app.example/reasons"),
    )
}

#[tokio::test]
async fn a_denial_is_a_problem_document_and_the_service_is_not_called() {
    let issuer = Issuer::start().await;
    let called = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&called);
    let router = Router::new().fallback(move || {
        count.fetch_add(1, Ordering::SeqCst);
        async { "in" }
    });
    let service = GateLayer::new(gate(&issuer).await, Scheme::Https).documented_at("/reasons").layer(router);
    let expired = json!({"iss": issuer.url(), "sub": "s", "aud": "app", "exp": START - 100});
    let expired = format!("Bearer {}", issuer.mint(&expired));
    for (target, headers, status, reason) in [
        ("/api/me", vec![], 401, "no_credential"),
        ("/api/me", vec![("authorization", &*expired)], 401, "token_expired"),
        ("/api//me", vec![], 400, "request_malformed"),
        ("/public/%2e%2e/api", vec![], 400, "request_malformed"),
        ("/public/x", vec![("x-http-method-override", "DELETE")], 400, "request_malformed"),
        ("/public/x", vec![("host", "app.example")], 400, "request_malformed"),
        ("http://other.example/public/x", vec![], 400, "request_malformed"),
    ] {
        let (got, headers, body) = ask(&service, request(target, &headers)).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((got.as_u16(), body["reason"].as_str()), (status, Some(reason)), "{target}");
        assert_eq!(body["type"], format!("/reasons#{reason}"));
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["x-doorward-reason"], reason);
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["x-doorward-decision"], body["decision_id"].as_str().unwrap());
        assert!(status != 401 || headers.contains_key("www-authenticate"), "{target}");
    }
    let mut elsewhere = request("/public/x", &[]);
    elsewhere.headers_mut().insert("host", "other.example".parse().unwrap());
    assert_eq!(ask(&service, elsewhere).await.0, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(called.load(Ordering::SeqCst), 0);
    assert_eq!(ask(&service, request("/public/x", &[])).await.2, "in");
    assert_eq!(called.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn handlers_learn_who_calls_and_nothing_that_the_client_says_about_it() {
    let issuer = Issuer::start().await;
    let app = app(gate(&issuer).await);
    let bearer = token(&issuer);
    let headers = [
        ("authorization", &*bearer),
        ("x-doorward-subject", "admin"),
        ("x_doorward_email", "admin@example.com"),
        ("http_x-doorward-org", "1"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-original-url", "/admin"),
        ("cookie", "theme=dark; __Host-doorward_csrf=x"),
    ];
    let (status, answer, body) = ask(&app, request("/api/x", &headers)).await;
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, told["caller"].as_str()), (StatusCode::OK, Some("main|subject-1")));
    assert_eq!(told["rule"], 2);
    assert_eq!(told["headers"], json!([["host", "app.example"], ["cookie", "theme=dark"]]));
    assert_eq!(answer["cache-control"], "private");

    let (_, answer, body) = ask(&app, request("/public/x", &headers)).await;
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((told["caller"].as_str(), told["rule"].as_i64()), (None, Some(0)));
    // A public rule looks at no credential, so what is there is the app's business.
    let authorization = json!(["authorization", bearer]);
    assert_eq!(told["headers"], json!([["host", "app.example"], authorization, ["cookie", "theme=dark"]]));
    assert!(!answer.contains_key("cache-control"));

    let (_, _, body) = ask(&app, request("/keep/x", &headers[..1])).await;
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["headers"], json!([["host", "app.example"], authorization]));
}

#[tokio::test]
async fn a_caller_is_never_made_up() {
    let issuer = Issuer::start().await;
    let app = app(gate(&issuer).await);
    let bearer = [("authorization", &*token(&issuer))];
    assert_eq!(ask(&app, request("/api/caller", &bearer)).await.2, "main|subject-1");
    // The rule is public, so nobody was authenticated, whatever was sent along.
    assert_eq!(ask(&app, request("/public/caller", &bearer)).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    let without = Router::new().route("/", any(async |_: Caller| "in")).route("/v", any(async |_: Verdict| "in"));
    for target in ["/", "/v"] {
        assert_eq!(ask(&without, request(target, &bearer)).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    }
    let optional = Router::new().route("/", any(async |caller: Option<Caller>| caller.is_none().to_string()));
    assert_eq!(ask(&optional, request("/", &bearer)).await.2, "true");
}

#[tokio::test]
async fn the_client_is_derived_from_trusted_peers_only_and_whoever_is_unknown_is_not_trusted() {
    let issuer = Issuer::start().await;
    let app = app(gate(&issuer).await);
    let from = |peer: Option<&str>| {
        let mut request = request("/public/x", &[("x-forwarded-for", "6.6.6.6")]);
        if let Some(peer) = peer {
            request.extensions_mut().insert(Peer(peer.parse().unwrap()));
        }
        request
    };
    let mut by_axum = from(None);
    by_axum.extensions_mut().insert(ConnectInfo::<SocketAddr>("10.0.0.1:9".parse().unwrap()));
    for (request, client) in [
        (from(Some("10.0.0.1:9")), "6.6.6.6"),
        (from(Some("10.0.0.2:9")), "10.0.0.2"),
        (from(None), "0.0.0.0"),
        (by_axum, "6.6.6.6"),
    ] {
        let told: Value = serde_json::from_str(&ask(&app, request).await.2).unwrap();
        assert_eq!(told["client"], client);
    }
}

#[tokio::test]
async fn inside_a_nested_router_the_whole_path_is_judged() {
    let issuer = Issuer::start().await;
    let layer = GateLayer::new(gate(&issuer).await, Scheme::Https);
    // Without its prefix `/admin/public/x` would look like the open `/public/x`.
    let inner = Router::new().fallback(async || "in").layer(layer);
    let app = Router::new().nest("/admin", inner.clone()).nest("/public", inner);
    assert_eq!(ask(&app, request("/admin/public/x", &[])).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&app, request("/public/x", &[])).await.2, "in");
}

/// Takes one call per time that it was found ready, as tower's contract allows it to insist.
#[derive(Debug)]
struct Insists {
    is_ready: bool,
    polled: usize,
}

impl Clone for Insists {
    fn clone(&self) -> Self {
        Self { is_ready: false, polled: 0 }
    }
}

impl Service<Request<()>> for Insists {
    type Response = Response<Bytes>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Bytes>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.polled += 1;
        // The first time it is busy.
        if self.polled == 1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called without having been ready");
        ready(Ok(Response::new(Bytes::from_static(b"in"))))
    }
}

#[tokio::test]
async fn the_service_that_was_found_ready_is_the_one_that_is_called() {
    let issuer = Issuer::start().await;
    let inner = Insists { is_ready: false, polled: 0 };
    let mut service = GateLayer::new(gate(&issuer).await, Scheme::Https).layer(inner);
    for target in ["/public/a", "/api/denied", "/public/b"] {
        let mut pendings = 0;
        poll_fn(|cx| {
            let polled = service.poll_ready(cx);
            pendings += usize::from(polled.is_pending());
            polled
        })
        .await
        .unwrap();
        assert_eq!(pendings, 1, "{target}: backpressure of the service is felt in front of the gate");
        let request = Request::builder().uri(target).header("host", "app.example").body(()).unwrap();
        let response = service.call(request).await.unwrap();
        assert_eq!(response.status() == StatusCode::OK, target.starts_with("/public"), "{target}");
    }
}
