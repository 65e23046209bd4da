//! Where key sets come from, and how one is fetched.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use doorward_core::{
    jose::{JwkSet, MAX_SET_BYTES, PublicKey},
    keys::FetchProblem,
};
use http::{HeaderMap, header};
use reqwest::{Client, Response, redirect};
use tokio::io::AsyncReadExt as _;
use url::{Host, Url};

/// How many redirects within the origin are followed.
const MAX_REDIRECTS: usize = 3;

/// The source of an issuer's keys.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KeySource {
    /// A JWK Set behind a URL; https, or http on loopback.
    Url(Url),
    /// A file with a JWK Set, read again when it changes.
    File(PathBuf),
    /// A set given once and for all.
    Inline(JwkSet),
    /// A single key that answers to every `kid`.
    Single(PublicKey),
}

impl KeySource {
    /// The word for it in status and logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Url(_) => "jwks_url",
            Self::File(_) => "jwks_file",
            Self::Inline(_) => "jwks",
            Self::Single(_) => "public_key",
        }
    }

    /// Whether keys may be fetched from `url`: over https, or over http from this very machine.
    pub fn is_allowed(url: &Url) -> bool {
        match url.scheme() {
            "https" => url.has_host(),
            "http" => match url.host() {
                Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
                Some(Host::Ipv4(address)) => address.is_loopback(),
                Some(Host::Ipv6(address)) => address.is_loopback(),
                None => false,
            },
            _ => false,
        }
    }
}

/// A document as it came.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) bytes: Vec<u8>,
    pub(super) max_age: Option<Duration>,
}

/// The client for all issuers. It follows redirects only within the origin, decodes no compression, and
/// sends no cookies or credentials.
pub(super) fn client() -> Result<Client, reqwest::Error> {
    let within_origin = redirect::Policy::custom(|attempt| {
        let is_same = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
        if is_same && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
    });
    Client::builder()
        .redirect(within_origin)
        .user_agent(concat!("doorward/", env!("CARGO_PKG_VERSION")))
        .pool_idle_timeout(Duration::from_secs(20))
        .build()
}

/// Fetches a set over HTTP, within `timeout` from the first byte of the request to the last of the answer.
pub(super) async fn get(client: &Client, url: &Url, timeout: Duration) -> Result<Document, FetchProblem> {
    let request = client.get(url.clone()).header(header::ACCEPT, "application/jwk-set+json, application/json");
    let mut response = request.timeout(timeout).send().await.map_err(|error| problem(&error))?;
    let status = response.status();
    if status.is_redirection() {
        return Err(FetchProblem::Redirected);
    }
    if status != http::StatusCode::OK {
        return Err(FetchProblem::Status(status.as_u16()));
    }
    let max_age = max_age(response.headers());
    let bytes = body(&mut response).await?;
    Ok(Document { bytes, max_age })
}

async fn body(response: &mut Response) -> Result<Vec<u8>, FetchProblem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| problem(&error))? {
        if bytes.len() + chunk.len() > MAX_SET_BYTES {
            return Err(FetchProblem::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn problem(error: &reqwest::Error) -> FetchProblem {
    if error.is_timeout() {
        return FetchProblem::TimedOut;
    }
    // The cause behind the cause says what happened: refused, unknown name, bad certificate.
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    FetchProblem::Unreachable(cause.to_string())
}

/// `max-age` less `Age` (RFC 9111 §4.2); nothing to keep counts as zero.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::CACHE_CONTROL)?.to_str().ok()?;
    let mut directives = text.split(',').map(|directive| directive.trim().to_ascii_lowercase());
    let seconds = |text: &str| text.trim_matches('"').parse::<u64>().ok();
    let found = directives.find_map(|directive| match directive.split_once('=') {
        Some(("max-age", value)) => seconds(value),
        None if directive == "no-store" || directive == "no-cache" => Some(0),
        _ => None,
    })?;
    let age = headers.get(header::AGE).and_then(|age| seconds(age.to_str().ok()?)).unwrap_or(0);
    Some(Duration::from_secs(found.saturating_sub(age)))
}

/// Reads a set from a file.
pub(super) async fn read(path: &Path) -> Result<Document, FetchProblem> {
    let unreadable = |error: io::Error| FetchProblem::Unreachable(error.to_string());
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut bytes = Vec::new();
    let limit = MAX_SET_BYTES as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).await.map_err(unreadable)?;
    if bytes.len() > MAX_SET_BYTES {
        return Err(FetchProblem::TooLarge);
    }
    Ok(Document { bytes, max_age: None })
}

/// What tells one version of a file from the next.
pub(super) async fn version(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for (url, is_allowed) in [
            ("https://issuer.example/jwks", true),
            ("http://127.0.0.1:8080/jwks", true),
            ("http://[::1]/jwks", true),
            ("http://localhost/jwks", true),
            ("http://issuer.example/jwks", false),
            ("http://localhost.example/jwks", false),
            ("http://169.254.169.254/", false),
            ("file:///etc/passwd", false),
            ("ftp://127.0.0.1/", false),
            ("data:application/json,{}", false),
        ] {
            assert_eq!(KeySource::is_allowed(&Url::parse(url).unwrap()), is_allowed, "{url}");
        }
    }

    #[test]
    fn the_publishers_limit_is_read_from_its_headers() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
            max_age(&headers.collect()).map(|age| age.as_secs())
        };
        assert_eq!(of(&[("cache-control", "public, Max-Age=300, must-revalidate")]), Some(300));
        assert_eq!(of(&[("cache-control", "max-age=300"), ("age", "100")]), Some(200));
        assert_eq!(of(&[("cache-control", "no-store")]), Some(0));
        assert_eq!(of(&[("cache-control", "private")]), None);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("cache-control", "max-age=soon")]), None);
    }
}
