//! An app behind the door: its address, limits and pool of connections.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use doorward_core::decision::Denial;
use http::{HeaderValue, Uri, uri::Authority, uri::Scheme};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::sync::Semaphore;
use tower_service::Service;

use super::{OwnedSemaphorePermit, PathAndQuery, ProxyOptions, body::RequestBody, malformed, unavailable};

/// Which `Host` an app sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    #[default]
    Client,
    /// The one of its own address.
    Upstream,
}

/// How an app is reached.
#[derive(Clone, Debug)]
pub struct UpstreamOptions {
    /// Its name in the configuration; for notes to the operator.
    pub name: Arc<str>,
    /// `http://host:port` or `https://host:port`, nothing behind it.
    pub url: String,
    /// Limit for name look-up, TCP and TLS together.
    pub connect: Duration,
    /// Limit without a byte in either direction.
    pub idle: Duration,
    /// How many requests and sockets may be under way at once.
    pub max_in_flight: usize,
    /// Which `Host` it sees.
    pub host: HostHeader,
}

impl UpstreamOptions {
    /// The defaults for an app of that name and address.
    pub fn new(name: impl Into<Arc<str>>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            connect: Duration::from_secs(2),
            idle: Duration::from_secs(60),
            max_in_flight: 4096,
            host: HostHeader::Client,
        }
    }
}

/// Why an address is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamConfigError {
    /// Not an URL of the expected form.
    #[error("`{0}` is not an upstream: write http://host:port or https://host:port with nothing behind it")]
    Url(String),
    /// A limit is zero.
    #[error("{0} must be more than zero")]
    Limit(&'static str),
    /// No trust anchors for TLS.
    #[error("the system's trust anchors cannot be read ({0}); install the ca-certificates package")]
    TrustAnchors(String),
}

type PoolClient = Client<Deadline<HttpsConnector<HttpConnector>>, RequestBody>;

/// An app and its connections. Cheap to clone; clones share the pool.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    options: UpstreamOptions,
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    client: PoolClient,
    in_flight: Arc<Semaphore>,
}

impl Upstream {
    /// Prepares the connections to an app; connects to nothing yet.
    ///
    /// # Errors
    /// When the URL is not of the form `http(s)://host[:port]`, a limit is zero, or the system has no
    /// trust anchors for `https`.
    pub fn new(options: UpstreamOptions, proxy: &ProxyOptions) -> Result<Self, UpstreamConfigError> {
        let bad = || UpstreamConfigError::Url(options.url.clone());
        let url: Uri = options.url.parse().map_err(|_| bad())?;
        let parts = url.into_parts();
        let scheme =
            parts.scheme.filter(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS).ok_or_else(bad)?;
        let authority = parts.authority.filter(|authority| !authority.as_str().contains('@')).ok_or_else(bad)?;
        let is_bare = parts.path_and_query.is_none_or(|path| path == "/") && !options.url.contains('#');
        if !is_bare || authority.host().is_empty() {
            return Err(bad());
        }
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| bad())?;
        if options.connect.is_zero() || options.idle.is_zero() {
            return Err(UpstreamConfigError::Limit("a timeout"));
        }
        if options.max_in_flight == 0 || options.max_in_flight > Semaphore::MAX_PERMITS {
            return Err(UpstreamConfigError::Limit("max_in_flight"));
        }
        let connector = Deadline { inner: connector(&scheme, proxy)?, limit: options.connect };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(proxy.pool_idle)
            .pool_max_idle_per_host(proxy.pool_max_idle)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            // Only requests of which no byte was sent: the pooled connection had died before.
            .retry_canceled_requests(true)
            .set_host(false)
            .build(connector);
        let in_flight = Arc::new(Semaphore::new(options.max_in_flight));
        Ok(Self(Arc::new(Inner { options, scheme, authority, host, client, in_flight })))
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.0.options.name
    }

    pub(super) fn options(&self) -> &UpstreamOptions {
        &self.0.options
    }

    pub(super) fn client(&self) -> &PoolClient {
        &self.0.client
    }

    /// The `Host` of its own address, where that is what it sees.
    pub(super) fn own_host(&self) -> Option<&HeaderValue> {
        (self.0.options.host == HostHeader::Upstream).then_some(&self.0.host)
    }

    /// The address of `target` there. The bytes of `target` are taken over as they are.
    pub(super) fn uri(&self, target: &PathAndQuery) -> Result<Uri, Denial> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.0.scheme.clone());
        parts.authority = Some(self.0.authority.clone());
        parts.path_and_query = Some(target.clone());
        Uri::from_parts(parts).map_err(|_| malformed("the request target cannot be forwarded"))
    }

    /// Takes a place among the requests under way, waiting as long as for a connection.
    pub(super) async fn admit(&self) -> Result<OwnedSemaphorePermit, Denial> {
        let places = Arc::clone(&self.0.in_flight);
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            return Ok(place);
        }
        match tokio::time::timeout(self.0.options.connect, places.acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(unavailable(self, "too many requests are under way")),
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("options", &self.0.options).finish_non_exhaustive()
    }
}

fn connector(scheme: &Scheme, proxy: &ProxyOptions) -> Result<HttpsConnector<HttpConnector>, UpstreamConfigError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    if *scheme == Scheme::HTTP {
        // No trust anchors are read for an app that is not spoken to over TLS.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| UpstreamConfigError::TrustAnchors(error.to_string()))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        return Ok(HttpsConnector::from((http, tls)));
    }
    let builder = HttpsConnectorBuilder::new();
    let builder = match &proxy.tls {
        Some(tls) => builder.with_tls_config(rustls::ClientConfig::clone(tls)),
        None => builder
            .with_provider_and_platform_verifier(rustls::crypto::aws_lc_rs::default_provider())
            .map_err(|error| UpstreamConfigError::TrustAnchors(error.to_string()))?,
    };
    Ok(builder.https_only().enable_http1().wrap_connector(http))
}

/// A connector that gives up after a limit: name look-up, TCP and TLS together.
#[derive(Clone)]
pub(super) struct Deadline<C> {
    inner: C,
    limit: Duration,
}

impl<C> Service<Uri> for Deadline<C>
where
    C: Service<Uri, Error = Box<dyn std::error::Error + Send + Sync>>,
    C::Future: Send + 'static,
    C::Response: 'static,
{
    type Response = C::Response;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, C::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        let limit = self.limit;
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "not connected in time").into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_a_scheme_and_an_authority_and_nothing_else() {
        let with = |url: &str| Upstream::new(UpstreamOptions::new("web", url), &ProxyOptions::default());
        for url in ["http://127.0.0.1:3000", "http://app", "http://app/", "http://[::1]:8080"] {
            assert!(with(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "app:3000",
            "ftp://app",
            "http://",
            "http://u:p@app",
            "http://app/sub",
            "http://app?x",
            "http://app/#x",
            "//app",
        ] {
            assert_eq!(with(url).unwrap_err(), UpstreamConfigError::Url(url.into()), "{url}");
        }
    }

    #[test]
    fn the_bytes_of_a_target_are_taken_over_as_they_are() {
        let upstream = Upstream::new(UpstreamOptions::new("web", "http://app:1"), &ProxyOptions::default()).unwrap();
        for target in ["/", "/a%2e/%7E;x=1?q=%20+&&", "/%zz", "/?", "/A//b/../c?x?y", "/\u{e9}"] {
            let judged: PathAndQuery = target.parse().unwrap();
            let uri = upstream.uri(&judged).unwrap();
            assert_eq!(uri.path_and_query().unwrap().as_str(), target);
        }
    }
}
