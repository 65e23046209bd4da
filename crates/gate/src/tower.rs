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
    decision::Decision,
    forward,
    principal::Principal,
    reason::Reason,
    request::{RequestFacts, Scheme, is_websocket_upgrade},
};
use http::{HeaderMap, HeaderName, Request, Response, header};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    gate::{Checked, Gate},
    respond,
};

/// The address of the peer that holds the connection; the host inserts it as a request extension. Without
/// one the client counts as unknown (`0.0.0.0`), and no forwarding header is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The verdict as the wrapped service finds it among the request's extensions.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The decision; its outcome is a grant.
    pub decision: Arc<Decision>,
    /// Who is calling; `None` on a public rule.
    pub principal: Option<Arc<Principal>>,
}

/// Wraps a service so that only what the rules admit reaches it.
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
        let checked = shared.check(&request);
        Box::pin(async move {
            let decision = checked.decision().await;
            match &decision.outcome {
                Ok(grant) => {
                    let principal = grant.principal.as_ref().map(|permitted| Arc::clone(permitted.get()));
                    let mut request = request;
                    strip_identity(request.headers_mut());
                    request.extensions_mut().insert(Admitted { decision: Arc::new(decision), principal });
                    inner.call(request).await
                }
                Err(denial) => Ok(respond::problem(denial, decision.id, &shared.docs).map(R::from)),
            }
        })
    }
}

/// Nobody behind the gate may be misled by a client's own identity headers.
fn strip_identity(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers.keys().filter(|name| forward::is_ours(name)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

impl Shared {
    fn check<B>(&self, request: &Request<B>) -> Checked {
        let peer = request
            .extensions()
            .get::<Peer>()
            .map_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), |peer| peer.0);
        let host = request
            .uri()
            .authority()
            .map(http::uri::Authority::as_str)
            .or_else(|| request.headers().get(header::HOST).and_then(|host| host.to_str().ok()))
            .unwrap_or_default();
        let seen = client::derive(peer.ip(), self.scheme, host, request.headers(), &self.trusted);
        let seen = match seen {
            Ok(seen) => seen,
            Err(denial) => return Checked::Ready(self.gate.refuse(denial)),
        };
        let Some(target) = request.uri().path_and_query() else {
            return Checked::Ready(self.gate.refuse(Reason::RequestMalformed.into()));
        };
        self.gate.check(&RequestFacts {
            method: request.method(),
            scheme: seen.scheme,
            host: seen.host,
            target: target.as_str(),
            headers: request.headers(),
            client: seen.ip,
            is_upgrade: is_websocket_upgrade(request.method(), request.headers()),
        })
    }
}
