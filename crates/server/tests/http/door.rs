//! The listener and the proxy with a service between them that lets everybody in: what is tested here is
//! how bytes come in and go out.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use doorward::{
    listener::{Connection, Listener, ListenerOptions, Tls},
    proxy::{ForwardPlan, Proxy, ProxyOptions, Upstream, UpstreamOptions},
};
use doorward_core::{decision::Denial, reason::Reason};
use http::{HeaderName, HeaderValue, Request, Response, header::HOST};
use hyper::body::Incoming;
use tokio::{net::TcpStream, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

/// A running door. Dropping it stops it.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) proxy: Proxy,
    pub(crate) drain: CancellationToken,
    pub(crate) running: JoinHandle<()>,
    seen: Arc<AtomicUsize>,
    revoke: watch::Sender<Option<Reason>>,
}

/// What a test changes of a door.
pub(crate) struct Setup {
    pub(crate) listener: ListenerOptions,
    pub(crate) upstream: UpstreamOptions,
    pub(crate) tls: Option<Tls>,
}

impl Setup {
    pub(crate) fn of(url: impl Into<String>) -> Self {
        Self { listener: ListenerOptions::default(), upstream: UpstreamOptions::new("web", url), tls: None }
    }

    pub(crate) async fn start(self) -> Door {
        let options = ProxyOptions::default();
        let upstream = Upstream::new(self.upstream, &options).unwrap();
        let mut listener = Listener::bind("127.0.0.1:0".parse().unwrap(), self.listener).await.unwrap();
        if let Some(tls) = self.tls {
            listener = listener.with_tls(tls);
        }
        let address = listener.local_addr();
        let (revoke, revoked) = watch::channel(None);
        let (proxy, drain, seen) = (Proxy::new(), CancellationToken::new(), Arc::default());
        let service = LetIn { upstream, proxy: proxy.clone(), seen: Arc::clone(&seen), revoked };
        let running = tokio::spawn(listener.serve(service, Arc::new(|denial, _: &_, _| refuse(denial)), drain.clone()));
        Door { address, proxy, drain, running, seen, revoke }
    }
}

impl Door {
    /// With the defaults, before an upstream.
    pub(crate) async fn before(url: impl Into<String>) -> Self {
        Setup::of(url).start().await
    }

    /// How many requests the service saw.
    pub(crate) fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    /// Ends everything that is open, for that reason.
    pub(crate) fn revoke(&self, reason: Reason) {
        self.revoke.send_replace(Some(reason));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.drain.cancel();
        self.running.abort();
    }
}

/// Waits, with a bound, until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("did not come to pass: {what}");
}

/// A plain connection to `address`.
pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

#[allow(clippy::needless_pass_by_value, reason = "the listener hands it over")]
fn refuse(denial: Denial) -> Response<Body> {
    let builder = Response::builder().status(denial.reason.status());
    builder.header("x-doorward-reason", denial.reason.code()).body(Body::from(denial.to_string())).unwrap()
}

#[derive(Clone)]
struct LetIn {
    upstream: Upstream,
    proxy: Proxy,
    seen: Arc<AtomicUsize>,
    revoked: watch::Receiver<Option<Reason>>,
}

impl Service<Request<Incoming>> for LetIn {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            this.seen.fetch_add(1, Ordering::SeqCst);
            let connection = *request.extensions().get::<Connection>().unwrap();
            let host = request.headers().get(HOST).unwrap().clone();
            let set = [(HeaderName::from_static("x-doorward-subject"), HeaderValue::from_static("u1"))];
            let strip = [HeaderName::from_static("remote-user")];
            let mut revoked = this.revoked;
            let plan = ForwardPlan {
                strip: &strip,
                set: &set,
                cookies: &[],
                keep_authorization: false,
                scheme: connection.scheme,
                host: &host,
                client: connection.peer.ip(),
                is_authenticated: true,
                until: Some(Box::pin(async move {
                    let reason = revoked.wait_for(Option::is_some).await.map(|reason| *reason);
                    match reason {
                        Ok(Some(reason)) => reason,
                        _ => std::future::pending().await,
                    }
                })),
            };
            Ok(match this.proxy.forward(request, &this.upstream, plan).await {
                Ok(response) => response.map(Body::new),
                Err(denial) => refuse(denial),
            })
        })
    }
}
