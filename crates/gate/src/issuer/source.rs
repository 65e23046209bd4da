//! Where key sets come from, and how a document is fetched.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use doorward_core::{
    jose::{JwkSet, MAX_SET_BYTES, PublicKey},
    keys::{FetchProblem, metadata},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Client, Response};
use tokio::io::AsyncReadExt as _;
use url::{Origin, Url};

use super::client::Clients;

/// Longest `ETag` that is remembered, in bytes.
const MAX_ETAG: usize = 512;

/// The source of an issuer's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeySource {
    /// A JWK Set behind a URL; https, or http on loopback.
    Url(Url),
    /// A JWK Set whose place the issuer's metadata names, under its `iss` (OpenID Connect Discovery 1.0 §4, RFC
    /// 8414 §3).
    Discovery {
        /// Origins besides the issuer's own that the key set may lie on.
        origins: Vec<Origin>,
    },
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
            Self::Discovery { .. } => "discovery",
            Self::File(_) => "jwks_file",
            Self::Inline(_) => "jwks",
            Self::Single(_) => "public_key",
        }
    }

    /// Whether keys may be fetched from `url`: over https, or over http from this very machine.
    pub fn is_allowed(url: &Url) -> bool {
        metadata::is_secure(url)
    }

    /// Whether keys come over the network.
    pub const fn is_remote(&self) -> bool {
        matches!(self, Self::Url(_) | Self::Discovery { .. })
    }
}

/// What a question may add.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ask<'a> {
    /// Only if it is no longer this one (RFC 9110 §13.1.2).
    pub(super) unless: Option<&'a HeaderValue>,
    /// No cache on the way may answer by itself (RFC 9111 §5.2.1.4).
    pub(super) is_fresh: bool,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Document {
    /// `None`: it is still the one that the question named.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) max_age: Option<Duration>,
    /// How long caches on the way had kept it.
    pub(super) age: Duration,
    /// Its `ETag`. `Last-Modified` is not used: it counts seconds, and two rotations may fall into one.
    pub(super) tag: Option<HeaderValue>,
    /// The time at the other end.
    pub(super) date: Option<HeaderValue>,
}

/// Fetches a document over HTTP. The limit of [`MAX_SET_BYTES`] is counted while it arrives; the limit on time is
/// the caller's.
pub(super) async fn get(clients: &Clients, url: &Url, ask: Ask<'_>) -> Result<Document, FetchProblem> {
    let client: &Client = clients.of(url);
    let mut request = client.get(url.clone()).header(header::ACCEPT, "application/jwk-set+json, application/json");
    if let Some(tag) = ask.unless {
        request = request.header(header::IF_NONE_MATCH, tag);
    }
    if ask.is_fresh {
        request = request.header(header::CACHE_CONTROL, "no-cache");
    }
    let mut response = request.send().await.map_err(|error| problem(&error))?;
    let bytes = match response.status() {
        StatusCode::OK => Some(body(&mut response).await?),
        StatusCode::NOT_MODIFIED if ask.unless.is_some() => None,
        status if status.is_redirection() && status != StatusCode::NOT_MODIFIED => {
            return Err(FetchProblem::Redirected);
        }
        status => return Err(FetchProblem::Status(status.as_u16())),
    };
    let headers = response.headers();
    let tag = headers.get(header::ETAG).filter(|tag| tag.len() <= MAX_ETAG).cloned();
    let date = headers.get(header::DATE).cloned();
    Ok(Document { bytes, max_age: max_age(headers), age: age(headers), tag, date })
}

async fn body(response: &mut Response) -> Result<Vec<u8>, FetchProblem> {
    if response.content_length().is_some_and(|length| length > MAX_SET_BYTES as u64) {
        return Err(FetchProblem::TooLarge);
    }
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
    let lines = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let mut directives = lines.flat_map(|line| line.split(',')).map(|directive| directive.trim().to_ascii_lowercase());
    let found = directives.find_map(|directive| match directive.split_once('=') {
        Some(("max-age", value)) => seconds(value.trim_matches('"')),
        None if directive == "no-store" || directive == "no-cache" => Some(Duration::ZERO),
        _ => None,
    })?;
    Some(found.saturating_sub(age(headers)))
}

fn age(headers: &HeaderMap) -> Duration {
    headers.get(header::AGE).and_then(|age| seconds(age.to_str().ok()?)).unwrap_or_default()
}

/// Seconds as RFC 9111 §1.2.2 writes them: digits only, and more than we can hold counts as very many.
fn seconds(text: &str) -> Option<Duration> {
    const MOST: u64 = 1 << 31;
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| Duration::from_secs(text.parse().map_or(MOST, |seconds: u64| seconds.min(MOST))))
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
    Ok(Document { bytes: Some(bytes), max_age: None, age: Duration::ZERO, tag: None, date: None })
}

/// What tells one version of a file from the next: also one that was put in its place under the same time and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    modified: SystemTime,
    size: u64,
    #[cfg(unix)]
    inode: u64,
}

/// The version of a file; `None` while there is none.
pub(super) async fn version(path: &Path) -> Option<Version> {
    #[cfg(unix)]
    use std::os::unix::fs::MetadataExt as _;
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some(Version {
        modified: metadata.modified().ok()?,
        size: metadata.len(),
        #[cfg(unix)]
        inode: metadata.ino(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_publishers_limit_is_read_from_its_headers() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(http::HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(of(&[("cache-control", "public, Max-Age=300, must-revalidate")]), Some(300));
        assert_eq!(of(&[("cache-control", "public"), ("cache-control", "max-age=300")]), Some(300));
        assert_eq!(of(&[("cache-control", "max-age=300"), ("age", "100")]), Some(200));
        assert_eq!(of(&[("cache-control", "max-age=300"), ("age", "1000")]), Some(0));
        assert_eq!(of(&[("cache-control", "max-age=\"300\"")]), Some(300));
        assert_eq!(of(&[("cache-control", "max-age=1000000000000000000")]), Some(1 << 31));
        assert_eq!(of(&[("cache-control", "max-age=99999999999999999999999")]), Some(1 << 31));
        assert_eq!(of(&[("cache-control", "no-store")]), Some(0));
        assert_eq!(of(&[("cache-control", "private")]), None);
        assert_eq!(of(&[]), None);
        for nonsense in ["max-age=soon", "max-age=", "max-age=-1", "max-age=+5", "max-age=1e3"] {
            assert_eq!(of(&[("cache-control", nonsense)]), None, "{nonsense}");
        }
    }
}
