//! The sockets on which Doorward listens: HTTP/1.1 and HTTP/2, plain or over TLS.
//!
//! A connection is bounded in every direction: how many there are, how long a head may take and how long
//! it may be, how long a body or a reader may stall, how long nothing may happen, how many streams. What
//! can be read in two ways is refused before the service sees it, with `request_malformed`.

mod front;
mod guard;
mod strict;
mod tls;

use std::{
    convert::Infallible, error::Error, future::poll_fn, io, net::SocketAddr, pin::pin, sync::Arc, task::Poll,
    time::Duration,
};

use doorward_core::{framing::MAX_FIELDS, request::Scheme};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service;

use self::{
    front::Front,
    guard::{Guard, Patience, Shared},
};
pub use self::{
    front::Refuse,
    tls::{Tls, TlsError},
};
use crate::idle::IdleWatch;

/// Of a connection that is told to end, how long it may take once nothing is under way any more.
const END_GRACE: Duration = Duration::from_secs(5);
/// Streams that a client opened and reset and that are still being cleared away (CVE-2023-44487).
const MAX_RESETS_PENDING: usize = 20;
/// Streams that we reset for a client's errors before its connection is ended (CVE-2025-8671).
const MAX_RESETS_BY_US: usize = 100;

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct ListenerOptions {
    /// Connections at once; further ones wait in the system's queue. Upgraded sockets count.
    pub max_connections: usize,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a request's head to its last, and from connecting to the first head.
    pub head: Duration,
    /// Without a byte in the middle of a body, or of an answer that is not read.
    pub stall: Duration,
    /// Without a request under way.
    pub idle: Duration,
    /// Longest head, target included, in bytes.
    pub max_head: usize,
    /// Streams at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// For requests under way when the listener is told to end.
    pub drain: Duration,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            stall: Duration::from_secs(60),
            idle: Duration::from_secs(75),
            max_head: 32 * 1024,
            max_streams: 128,
            drain: Duration::from_secs(30),
        }
    }
}

/// What a connection is, in the extensions of each of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// Whether it came over TLS.
    pub scheme: Scheme,
}

/// A bound socket.
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    tls: Option<Tls>,
    options: ListenerOptions,
}

impl Listener {
    /// Binds `address`; connections queue up from now on.
    ///
    /// # Errors
    /// The system's, naming the address.
    pub async fn bind(address: SocketAddr, options: ListenerOptions) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
        let socket = TcpListener::bind(address).await.map_err(named)?;
        let local = socket.local_addr().map_err(named)?;
        Ok(Self { socket, local, tls: None, options })
    }

    /// The same over TLS.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The address that was bound, with its port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves connections until `drain` is cancelled and then those under way, for as long as the options
    /// say. Failures to accept are waited out and never end it. `refuse` answers what is refused before
    /// `service` sees it; that has exactly one valid `Host`, a target in origin form and [`Connection`]
    /// in its extensions. Upgraded sockets are not waited for.
    pub async fn serve<S, B>(self, service: S, refuse: Refuse<B>, drain: CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body + Unpin + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { socket, local, tls, options } = self;
        let places = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
        let tasks = TaskTracker::new();
        let cut = CancellationToken::new();
        let server = Arc::new(Server { builder: builder(&options), options, drain: drain.clone() });
        let accepting = async {
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let (stream, peer) = accept(&socket, local).await;
                let (server, tls, cut) = (Arc::clone(&server), tls.clone(), cut.clone());
                let (service, refuse) = (service.clone(), Arc::clone(&refuse));
                tasks.spawn(async move {
                    let serving = server.serve(stream, peer, tls, service, refuse, place);
                    let _ = cut.run_until_cancelled_owned(serving).await;
                });
            }
        };
        let following = async {
            match tls.clone() {
                Some(tls) => tls.follow().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = drain.cancelled() => {}
            () = accepting => {}
            () = following => {}
        }
        drop(socket);
        tasks.close();
        if timeout(options.drain, tasks.wait()).await.is_err() {
            tracing::warn!(open = tasks.len(), %local, "connections are cut off at the end of the drain");
            cut.cancel();
            tasks.wait().await;
        }
    }
}

/// The next connection, however long the system has none to give.
async fn accept(socket: &TcpListener, local: SocketAddr) -> (TcpStream, SocketAddr) {
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(1);
    let mut pause = FIRST;
    loop {
        match socket.accept().await {
            Ok(accepted) => return accepted,
            // That connection's own failure, and nothing to wait for.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                tracing::warn!(%error, %local, "cannot accept connections, trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
            }
        }
    }
}

fn builder(options: &ListenerOptions) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // The guard keeps times and lengths of HTTP/1 heads; hyper must not be the stricter one, for it
    // cannot say why.
    builder
        .http1()
        .header_read_timeout(None)
        .max_headers(MAX_FIELDS + 1)
        .max_buf_size(options.max_head.max(16 * 1024) * 2);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_streams)
        .max_header_list_size(u32::try_from(options.max_head).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_RESETS_PENDING)
        .max_local_error_reset_streams(MAX_RESETS_BY_US)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

struct Server {
    builder: Builder<TokioExecutor>,
    options: ListenerOptions,
    drain: CancellationToken,
}

impl Server {
    async fn serve<S, B>(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<Tls>,
        service: S,
        refuse: Refuse<B>,
        place: OwnedSemaphorePermit,
    ) where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body + Unpin + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        // Without it an answer may wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
        let shared = Arc::new(Shared::default());
        let connection = Connection { peer, scheme };
        let front = Front { service, refuse, connection, shared: Arc::clone(&shared) };
        match tls {
            None => self.drive(stream, place, front, &shared).await,
            Some(tls) => match timeout(self.options.handshake, TlsAcceptor::from(tls.current()).accept(stream)).await {
                Ok(Ok(stream)) => self.drive(stream, place, front, &shared).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
            },
        }
    }

    async fn drive<T, S, B>(&self, stream: T, place: OwnedSemaphorePermit, front: Front<S, B>, shared: &Arc<Shared>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body + Unpin + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let options = &self.options;
        let peer = front.connection.peer;
        let patience = Patience { head: options.head, stall: options.stall, max_head: options.max_head };
        let io = TokioIo::new(Guard::new(stream, patience, Arc::clone(shared), place));
        let mut serving = pin!(self.builder.serve_connection_with_upgrades(io, front));
        let mut idle = IdleWatch::new(options.idle);
        let mut busy = 0u32;
        let is_idle = poll_fn(|cx| {
            // While something is under way every look sees a movement.
            busy = busy.wrapping_add(u32::from(shared.is_busy()));
            idle.poll(cx, shared.served().wrapping_add(busy))
        });
        let result = tokio::select! {
            result = serving.as_mut() => result,
            () = async { tokio::select! { () = self.drain.cancelled() => {}, () = is_idle => {} } } => {
                serving.as_mut().graceful_shutdown();
                let mut lull = IdleWatch::new(END_GRACE);
                let mut busy = 0u32;
                poll_fn(|cx| {
                    if let Poll::Ready(result) = serving.as_mut().poll(cx) {
                        return Poll::Ready(result);
                    }
                    busy = busy.wrapping_add(u32::from(shared.is_busy()));
                    lull.poll(cx, busy).map(|()| Ok(()))
                }).await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%peer, error, "a connection broke off");
        }
    }
}
