//! The connection to a license server: where it goes, what is sent along, what is not followed.

use std::{fmt, time::Duration};

use doorward_core::{keys::metadata, secret::Secret};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::{Client, redirect};
use serde_json::Value;
use url::{Position, Url};

use super::{
    provider::{ASK_TIMEOUT, MAX_ANSWER},
    trouble::Trouble,
};
use crate::issuer::client::Pinned;

/// Longest `Retry-After` that is honoured.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);
/// Characters of a segment of a path or of a value in a query that stay as they are (RFC 3986 §2.3).
const PLAIN: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a license server is, and how it knows us.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its origin. Plain http carries the token in the clear: the configuration allows it on loopback, or when told to.
    pub url: Url,
    /// The host that it answers for, where `url` has another one; it is then told that the request came over TLS.
    pub host: Option<String>,
    /// Bearer token.
    pub token: Secret<String>,
}

/// A connection to one license server, and to no other place.
#[derive(Clone)]
pub(super) struct Connection {
    client: Client,
    url: Url,
    /// `Host` and the scheme as a proxy in front would have told it.
    disguise: Option<HeaderValue>,
    /// The host without port, as it is signed.
    pub(super) host: String,
    authorization: HeaderValue,
}

/// An answer, as it came.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// A value for a place in a URL.
pub(super) fn encode(text: &str) -> impl fmt::Display {
    percent_encoding::utf8_percent_encode(text, PLAIN)
}

impl Connection {
    /// # Errors
    /// Where TLS cannot be set up, or the token or the host is none.
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, ConnectionError> {
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            // HTTP/2 has no `Host` that could differ from where the connection goes.
            .http1_only()
            .user_agent(concat!("doorward/", env!("CARGO_PKG_VERSION")))
            .pool_idle_timeout(Duration::from_secs(20))
            .connect_timeout(ASK_TIMEOUT)
            .dns_resolver(std::sync::Arc::new(Pinned));
        if metadata::is_local(&endpoint.url) {
            builder = builder.no_proxy();
        }
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {}", endpoint.token.expose())).map_err(|_| ConnectionError::Token)?;
        authorization.set_sensitive(true);
        let disguise = endpoint.host.as_deref().map(HeaderValue::from_str).transpose();
        let host = match &endpoint.host {
            // A port is no part of what is signed.
            Some(host) => host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host),
            None => endpoint.url.host_str().unwrap_or_default(),
        };
        Ok(Self {
            client: builder.build()?,
            host: host.to_ascii_lowercase(),
            url: endpoint.url.clone(),
            disguise: disguise.map_err(|_| ConnectionError::Host)?,
            authorization,
        })
    }

    /// Sends a question to `target`, path and query with what they carry encoded. The limit on size is counted while
    /// the answer arrives; the limit on time is the caller's.
    pub(super) async fn send(
        &self,
        method: Method,
        target: &str,
        headers: &[(&'static str, String)],
        body: Option<&Value>,
    ) -> Result<Reply, Trouble> {
        let url = self.url.join(target).map_err(|_| Trouble::Unaskable)?;
        // A name such as `..` would lead elsewhere, and the signature is over what was really sent.
        if url[Position::BeforePath..Position::AfterQuery] != *target || url.origin() != self.url.origin() {
            return Err(Trouble::Unaskable);
        }
        let mut request = self
            .client
            .request(method, url)
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(header::ACCEPT, JSON_API);
        if let Some(host) = &self.disguise {
            request = request.header(header::HOST, host.clone()).header("x-forwarded-proto", "https");
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, JSON_API).body(body.to_string());
        }
        let mut response = request.send().await.map_err(|error| trouble(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| trouble(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Trouble::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, headers, body })
    }
}

const JSON_API: &str = "application/vnd.api+json";

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("url", &self.url.as_str()).field("host", &self.host).finish_non_exhaustive()
    }
}

impl Reply {
    /// What stands for itself, whoever wrote it: limits, failures and redirects say nothing about a license.
    pub(super) fn failure(&self) -> Option<Trouble> {
        let retry_after = || {
            let value = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?;
            Some(Duration::from_secs(value.parse().ok()?).min(MAX_RETRY_AFTER))
        };
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => Some(Trouble::Limited { retry_after: retry_after() }),
            status if status.is_server_error() => {
                Some(Trouble::Down { status: status.as_u16(), retry_after: retry_after() })
            }
            status if status.is_redirection() => {
                let to = self.headers.get(header::LOCATION).and_then(|to| Url::parse(to.to_str().ok()?).ok());
                let to = to.map_or_else(|| "another path".to_owned(), |to| to.origin().ascii_serialization());
                Some(Trouble::Redirected { to })
            }
            _ => None,
        }
    }

    /// The body as text; what is none reads as nothing.
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }
}

fn trouble(error: &reqwest::Error) -> Trouble {
    if error.is_timeout() {
        return Trouble::TimedOut;
    }
    // The cause behind the cause says what happened: refused, unknown name, bad certificate.
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Trouble::Unreachable(cause.to_string())
}

/// Why there is no way to ask a license server: misconfiguration, found at start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The token has characters that no header can carry.
    #[error("license.token: a header cannot carry it")]
    Token,
    /// The same, of the host.
    #[error("license.host: no host name")]
    Host,
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(#[from] reqwest::Error),
}
