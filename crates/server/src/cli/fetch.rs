//! Fetching a key set once, for `check` and `explain`. The server has its own, cached way.

use std::time::Duration;

use doorward_core::{
    jose::{JwkSet, MAX_SET_BYTES},
    time::Timestamp,
};
use url::Url;

/// A fetched key set.
pub(super) struct Fetched {
    /// The set.
    pub(super) set: JwkSet,
    /// The time at the other end, from its `Date` header.
    pub(super) their_time: Option<Timestamp>,
}

/// How many redirects are followed, each within the origin; as the server does.
const MAX_REDIRECTS: usize = 3;

/// Gets a key set: redirects only within its origin, at most `timeout` and [`MAX_SET_BYTES`].
pub(super) async fn key_set(url: &Url, timeout: Duration) -> Result<Fetched, String> {
    let redirects = reqwest::redirect::Policy::custom(|attempt| {
        let is_same = attempt.previous().first().is_none_or(|first| first.origin() == attempt.url().origin());
        if !is_same || attempt.previous().len() > MAX_REDIRECTS {
            return attempt.error("redirects elsewhere, or too often");
        }
        attempt.follow()
    });
    let client = reqwest::Client::builder()
        .redirect(redirects)
        .timeout(timeout)
        .user_agent(concat!("doorward/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| causes(&error))?;
    let request = client.get(url.clone()).header(http::header::ACCEPT, "application/jwk-set+json, application/json");
    let mut response = request.send().await.map_err(|error| causes(&error))?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("answers {}", response.status()));
    }
    let date = response.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
    let their_time = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let their_time = their_time.map(|at| Timestamp::from_millis(at.timestamp().as_millisecond()));
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| causes(&error))? {
        if body.len() + chunk.len() > MAX_SET_BYTES {
            return Err(format!("answers with more than {MAX_SET_BYTES} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    let set = JwkSet::parse(&body).map_err(|problem| format!("its answer {problem}"))?;
    Ok(Fetched { set, their_time })
}

/// An error with what it rests on, in one line.
fn causes(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    // Causes nest a few levels; the bound keeps a cycle from mattering.
    for _ in 0..6 {
        let Some(cause) = source else { break };
        text = cause.to_string();
        source = cause.source();
    }
    text
}
