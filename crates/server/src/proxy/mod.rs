//! The reverse proxy: carries a request that has been let in to its app, and the answer back.
//!
//! The caller has decided already. What is forwarded is what was judged: the same bytes of path and
//! query, less what Doorward keeps to itself, plus what the app may rely on. Bodies and trailers stream
//! both ways and are never held in memory as a whole.
//!
//! Upstreams are spoken to in HTTP/1.1, over TLS too: one framing, made anew by us, for every client.
//!
//! Not done here: the decision, the choice of the app, the identity headers' values.

mod body;
mod error;
mod headers;
mod pump;
mod tunnel;
mod upgrade;
mod upstream;

use std::{future::Future, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use doorward_core::{decision::Denial, reason::Reason, request::Scheme};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version, uri::PathAndQuery};
use http_body::Body;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    body::{BodyError, ProxyBody},
    upstream::{HostHeader, Upstream, UpstreamConfigError, UpstreamOptions},
};
use self::{
    body::{Exchange, RequestBody},
    error::denial_of,
};
use crate::idle::IdleWatch;

/// Ends a response body or a socket that is still open when it resolves; the reason goes into the close
/// frame. Typically: the session or key was revoked, or has reached its end.
pub type Until = Pin<Box<dyn Future<Output = Reason> + Send>>;

/// What the proxy needs once.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// How long an idle connection to an app is kept for the next request. Below the keep-alive limits
    /// of common app servers (Node, uvicorn: 5 s), so that we rarely write into a closing connection.
    pub pool_idle: Duration,
    /// How many idle connections are kept per app.
    pub pool_max_idle: usize,
    /// Trust anchors for `https` upstreams; `None`: those of the operating system.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self { pool_idle: Duration::from_secs(4), pool_max_idle: 128, tls: None }
    }
}

/// How one request is to be forwarded. Names are removed first and set last, so nothing that a client
/// sends, `Connection` included, takes away or adds to what is set here.
pub struct ForwardPlan<'a> {
    /// Header names to remove, besides what the proxy always removes: hop-by-hop fields, `Forwarded`,
    /// `X-Forwarded-*`, `X-Real-IP`, `X-Original-*`, `X-Rewrite-*`, `X-Doorward-*` and look-alikes.
    pub strip: &'a [HeaderName],
    /// Headers to set, replacing what was there.
    pub set: &'a [(HeaderName, HeaderValue)],
    /// Names of cookies to remove, besides Doorward's own.
    pub cookies: &'a [&'a str],
    /// Whether `Authorization` stays.
    pub keep_authorization: bool,
    /// Scheme as the client used it.
    pub scheme: Scheme,
    /// `Host` as the client used it.
    pub host: &'a HeaderValue,
    /// Client address as derived.
    pub client: IpAddr,
    /// Whether somebody was authenticated; then an answer that says nothing about caching is private.
    pub is_authenticated: bool,
    /// Ends the answer or socket early.
    pub until: Option<Until>,
}

/// The reverse proxy. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Proxy {
    closing: CancellationToken,
    sockets: TaskTracker,
}

impl Proxy {
    /// A proxy without open sockets.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many upgraded sockets are open.
    pub fn open_sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Ends every upgraded socket at its next frame boundary with close code 1001 (going away), and
    /// resolves when they are gone. For the drain at shutdown; later upgrades are ended at once.
    pub async fn close_sockets(&self) {
        self.closing.cancel();
        self.sockets.close();
        self.sockets.wait().await;
    }

    /// Forwards `request` to `upstream` and returns its answer as soon as its head is there.
    ///
    /// # Errors
    /// `upstream_unavailable` when the app cannot be reached, breaks off or answers nonsense;
    /// `upstream_timeout` when it does not accept in time or no byte moves for the idle limit;
    /// `request_malformed` when the client's own body breaks, or a WebSocket handshake is not one;
    /// what `until` says if it resolves before the answer.
    pub async fn forward<B>(
        &self,
        mut request: Request<B>,
        upstream: &Upstream,
        mut plan: ForwardPlan<'_>,
    ) -> Result<Response<ProxyBody>, Denial>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let permit = upstream.admit().await?;
        let handshake = upgrade::Handshake::of(&request)?;
        let client_side = handshake.as_ref().map(|_| hyper::upgrade::on(&mut request));
        let is_head = request.method() == http::Method::HEAD;

        let (mut parts, body) = request.into_parts();
        let target = parts.uri.path_and_query().filter(|target| target.as_str().starts_with('/'));
        let target = target.ok_or_else(|| malformed("the request target is not in origin form"))?;
        parts.uri = upstream.uri(target)?;
        parts.version = Version::HTTP_11;
        headers::to_upstream(&mut parts.headers, &plan, upstream, handshake.is_some());

        let exchange = Arc::new(Exchange::default());
        let body = RequestBody::new(body, &exchange, plan.strip);
        let answer = upstream.client().request(Request::from_parts(parts, body));
        let answer = wait(answer, &exchange, upstream.options().idle, plan.until.as_mut()).await?;
        let mut answer = answer.map_err(|error| denial_of(&error, &exchange, upstream))?;
        // Nothing has been said yet, so whoever may no longer read this still gets a refusal, not a cut.
        if let Some(reason) = plan.until.as_mut().and_then(FutureExt::now_or_never) {
            return Err(reason.into());
        }

        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let (Some(handshake), Some(client_side)) = (handshake, client_side) else {
                return Err(unavailable(upstream, "it switched protocols unasked"));
            };
            handshake.accepts(&answer).map_err(|problem| unavailable(upstream, problem))?;
            let app_side = hyper::upgrade::on(&mut answer);
            let (mut parts, _) = answer.into_parts();
            headers::from_upstream(&mut parts.headers, plan.is_authenticated);
            upgrade::mark_switching(&mut parts.headers);
            let ends = tunnel::Ends { client: client_side, app: app_side };
            let limits = tunnel::Limits { idle: upstream.options().idle, closing: self.closing.clone() };
            self.sockets.spawn(tunnel::run(ends, limits, plan.until, permit));
            return Ok(Response::from_parts(parts, ProxyBody::empty()));
        }
        let (mut parts, body) = answer.into_parts();
        headers::from_upstream(&mut parts.headers, plan.is_authenticated);
        let body = match is_head || body.is_end_stream() {
            // The declared length of an answer to HEAD stays in its headers.
            true => ProxyBody::empty(),
            false => ProxyBody::new(body, exchange, upstream.options().idle, plan.until, permit),
        };
        Ok(Response::from_parts(parts, body))
    }
}

/// Waits for `answer` while bytes move or `idle` has not passed, and `until` is quiet.
async fn wait<F: Future>(
    answer: F,
    exchange: &Exchange,
    idle: Duration,
    mut until: Option<&mut Until>,
) -> Result<F::Output, Denial> {
    let mut answer = std::pin::pin!(answer);
    let mut watch = IdleWatch::new(idle);
    std::future::poll_fn(|cx| {
        if let std::task::Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return std::task::Poll::Ready(Ok(answer));
        }
        if let Some(until) = until.as_mut()
            && let std::task::Poll::Ready(reason) = until.as_mut().poll(cx)
        {
            return std::task::Poll::Ready(Err(Denial::from(reason)));
        }
        watch.poll(cx, exchange.moves()).map(|()| Err(Denial::from(Reason::UpstreamTimeout).with_note("no answer")))
    })
    .await
}

fn malformed(note: &str) -> Denial {
    Denial::from(Reason::RequestMalformed).with_note(note)
}

fn unavailable(upstream: &Upstream, problem: &str) -> Denial {
    Denial::from(Reason::UpstreamUnavailable).with_note(format!("{}: {problem}", upstream.name()))
}
