//! The gate as a tower layer: inside an app instead of in front of it.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use doorward_core::{
    client::{self, TrustedProxies},
    decision::{Decision, Denial},
    forward::{self, ForwardPolicy},
    principal::Principal,
    reason::Reason,
    request::{RequestFacts, Scheme, check_head, is_websocket_upgrade},
};
use http::{Extensions, HeaderMap, Request, Response, Uri, header, uri::PathAndQuery};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    gate::{Checked, Gate},
    respond,
};

/// The address of the peer that holds the connection; the host inserts it as a request extension. Without
/// one the client counts as unknown (`0.0.0.0`), and no forwarding header is believed. With the feature
/// `axum`, its `ConnectInfo<SocketAddr>` says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The verdict as the wrapped service finds it among the request's extensions.
///
/// What the request's headers said about all of this is gone: an app in here sees what an app behind the
/// proxy sees, less the headers that the proxy sets itself.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The decision; its outcome is a grant.
    pub decision: Arc<Decision>,
    /// Who is calling; `None` on a public rule.
    pub principal: Option<Arc<Principal>>,
    /// Client address as derived from the trusted proxies.
    pub client: IpAddr,
}

/// Wraps a service so that only what the rules admit reaches it, judged as the server judges before its proxy.
///
/// It belongs outermost, before anything that rewrites a request's URI or headers: what it does not see, it
/// does not judge. Whoever serves the connections must refuse what is no valid HTTP, as hyper does.
#[derive(Clone, Debug)]
pub struct GateLayer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gate: Gate,
    trusted: TrustedProxies,
    scheme: Scheme,
    docs: String,
}

impl GateLayer {
    /// A layer over `gate`. No peer is trusted to forward; the scheme is that of the public URL.
    pub fn new(gate: Gate, scheme: Scheme) -> Self {
        Self {
            shared: Arc::new(Shared {
                gate,
                trusted: TrustedProxies::default(),
                scheme,
                docs: "https://doorward.example/docs/reasons".to_owned(),
            }),
        }
    }

    /// Believes the forwarding headers of these peers.
    #[must_use]
    pub fn trusting(self, trusted: TrustedProxies) -> Self {
        self.edit(|shared| shared.trusted = trusted)
    }

    /// Where `type` in refusals points to; the reason's code is appended as fragment.
    #[must_use]
    pub fn documented_at(self, docs: impl Into<String>) -> Self {
        self.edit(|shared| shared.docs = docs.into())
    }

    fn edit(self, edit: impl FnOnce(&mut Shared)) -> Self {
        let Shared { gate, trusted, scheme, docs } = &*self.shared;
        let mut shared = Shared { gate: gate.clone(), trusted: trusted.clone(), scheme: *scheme, docs: docs.clone() };
        edit(&mut shared);
        Self { shared: Arc::new(shared) }
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = GateService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GateService { inner, shared: Arc::clone(&self.shared) }
    }
}

/// See [`GateLayer`].
#[derive(Clone, Debug)]
pub struct GateService<S> {
    inner: S,
    shared: Arc<Shared>,
}

type Answer<B, E> = Pin<Box<dyn Future<Output = Result<Response<B>, E>> + Send>>;

impl<S, B, R> Service<Request<B>> for GateService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: From<Bytes> + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Answer<R, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The clone that was polled ready must be the one that is called.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let shared = Arc::clone(&self.shared);
        let (checked, client) = shared.check(&request);
        Box::pin(async move {
            let decision = checked.decision().await;
            let grant = match &decision.outcome {
                Ok(grant) => grant,
                Err(denial) => return Ok(respond::problem(denial, decision.id, &shared.docs).map(R::from)),
            };
            let principal = grant.principal.as_ref().map(|permitted| Arc::clone(permitted.get()));
            let is_authenticated = principal.is_some();
            let grace = grant.clone();
            let mut request = request;
            shared.strip(request.headers_mut(), &decision, principal.as_deref());
            request.extensions_mut().insert(Admitted { decision: Arc::new(decision), principal, client });
            let mut response = inner.call(request).await?;
            if is_authenticated {
                forward::keep_private(response.headers_mut());
            }
            respond::mark_grace(response.headers_mut(), &grace);
            Ok(response)
        })
    }
}

impl Shared {
    /// The verdict, and the client as derived. The order of the checks is the server's, so that a request
    /// with several faults gets the same reason everywhere.
    fn check<B>(&self, request: &Request<B>) -> (Checked, IpAddr) {
        let peer = peer(request.extensions());
        let uri = uri(request);
        let authority = uri.authority().map(http::uri::Authority::as_str);
        let (method, headers) = (request.method(), request.headers());
        let host = authority.or_else(|| headers.get(header::HOST)?.to_str().ok()).unwrap_or_default();
        let facts = RequestFacts {
            method,
            scheme: self.scheme,
            host,
            target: uri.path_and_query().map_or("", PathAndQuery::as_str),
            headers,
            client: peer,
            is_upgrade: is_websocket_upgrade(method, headers),
            // The service behind this layer may take any upgrade.
            may_leave_http: headers.contains_key(header::UPGRADE),
        };
        let seen = match client::derive(peer, self.scheme, host, headers, &self.trusted) {
            Ok(seen) => seen,
            Err(denial) => return (Checked::Ready(self.gate.refuse_observed(&facts, denial)), peer),
        };
        let facts = RequestFacts { scheme: seen.scheme, host: seen.host, client: seen.ip, ..facts };
        let checked = match self.check_head(&facts, authority) {
            Ok(()) => self.gate.check(&facts),
            Err(denial) => Checked::Ready(self.gate.refuse_observed(&facts, denial)),
        };
        (checked, seen.ip)
    }

    fn check_head(&self, facts: &RequestFacts<'_>, authority: Option<&str>) -> Result<(), Denial> {
        check_head(facts.method, facts.headers, authority)?;
        if self.gate.policy().knows_host(facts.host) { Ok(()) } else { Err(Reason::HostUnknown.into()) }
    }

    /// Nobody behind the gate may be misled by a client's own headers, nor get at the credential that was used.
    fn strip(&self, headers: &mut HeaderMap, decision: &Decision, principal: Option<&Principal>) {
        let policy = self.gate.policy();
        // Under another policy the index names another rule, which may keep less secret.
        let rule = decision.rule.filter(|_| policy.version == decision.policy).and_then(|index| policy.rule(index));
        let used = principal.map(|principal| principal.authenticated.kind());
        let forward_authorization = rule.is_some_and(|rule| rule.forward_authorization);
        forward::strip(headers, &ForwardPolicy { extra: &[], used, forward_authorization });
    }
}

/// The other end of the connection, as far as the host says.
fn peer(extensions: &Extensions) -> IpAddr {
    let peer = extensions.get::<Peer>().map(|peer| peer.0);
    #[cfg(feature = "axum")]
    let peer = peer.or_else(|| crate::axum::connect_info(extensions));
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip())
}

/// The URI as the client sent it: a nested router of axum has cut its prefix off the request's own.
fn uri<B>(request: &Request<B>) -> &Uri {
    #[cfg(feature = "axum")]
    if let Some(uri) = crate::axum::original_uri(request.extensions()) {
        return uri;
    }
    request.uri()
}
