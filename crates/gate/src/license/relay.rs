//! Provider `file` with a `relay_url`: leases of license files from keygen-relay, for sites where several installations
//! share a number of licenses without a network to the outside.
//!
//! A node claims a license (`201` with the file and its key), extends the lease before it ends (`202`, without the
//! file), and gives it back at the end (`DELETE`). The files are Keygen's: they are verified like any other. A relay
//! distributes them and judges nobody, so `410` — none is free — is its one verdict.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use doorward_core::{
    license::{LicenseState, Observation},
    secret::Secret,
    time::{Now, Timestamp},
};
use futures_util::FutureExt as _;
use http::{HeaderMap, Method, StatusCode};
use reqwest::Client;
use serde::Deserialize;
use tokio::sync::Mutex as Turn;
use url::Url;

use super::{
    paper::{Expected, Paper},
    provider::{Answering, FaultKind, LicenseProvider, MAX_ANSWER, ProviderFault, Question},
};

/// Longest time for one request.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How far the relay's clock may be from ours, where its answers are signed.
const WINDOW: Duration = Duration::from_secs(300);
/// When a node without a lease tries again.
const RETRY: Duration = Duration::from_secs(30);
/// Longest lease that is believed; a longer one is extended as if it were this.
const MAX_LEASE: Duration = Duration::from_secs(24 * 3600);

/// How a relay is reached.
pub struct RelayOptions {
    /// Base address; `/v1/nodes/…` is put behind it.
    pub url: Url,
    /// This node's name at the relay.
    pub fingerprint: String,
    /// Pool to claim from.
    pub pool: Option<String>,
    /// Secret under which the relay signs its answers; with it unsigned ones are refused.
    pub secret: Option<Secret<String>>,
    /// What a file must be to count. Its license key comes with the lease.
    pub expected: Expected,
}

impl fmt::Debug for RelayOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayOptions")
            .field("url", &self.url.as_str())
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct RelayProvider(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: RelayOptions,
    node: Url,
    client: Client,
    lease: Arc<Lease>,
}

/// What a node has at a relay; it stays through changes of the configuration that are about something else.
#[derive(Debug, Default)]
struct Lease {
    state: Mutex<State>,
    /// Held by whoever talks to the relay: one that meets the half-done claim of another would give it back.
    turn: Arc<Turn<()>>,
}

#[derive(Debug, Default)]
struct State {
    paper: Option<Paper>,
    /// When to ask next; monotonic.
    due: Duration,
}

#[derive(Deserialize)]
struct Claimed {
    license_file: String,
    license_key: String,
    expires_in: u64,
}

#[derive(Deserialize)]
struct Extended {
    expires_in: u64,
}

/// An answer of the relay, whole.
struct Said {
    status: StatusCode,
    body: Vec<u8>,
    /// When, by its own clock where it signed, else by ours.
    at: Timestamp,
}

fn fault(kind: FaultKind, note: impl Into<String>) -> ProviderFault {
    ProviderFault::new(kind, note)
}

impl RelayOptions {
    /// Whether a lease that was claimed with `old` is one that these would claim.
    fn is_same_lease(&self, old: &Self) -> bool {
        let of = |options: &Self| (options.url.clone(), options.fingerprint.clone(), options.pool.clone());
        // The secret proved answers of the past.
        of(self) == of(old) && self.expected.is_same(&old.expected)
    }
}

impl RelayProvider {
    /// A provider that has no lease yet.
    ///
    /// # Errors
    /// What is wrong with the address, or why there is no HTTP client.
    pub fn new(options: RelayOptions) -> Result<Self, String> {
        Self::following(options, None)
    }

    /// As [`RelayProvider::new`], in place of an `old` one. It goes on with the old one's lease if that is of the same node
    /// at the same relay and what its file must be is the same: the relay does not hand the file out a second time, and
    /// whoever gives a lease back to get it may see somebody else take it. The relay is asked at once.
    ///
    /// # Errors
    /// As [`RelayProvider::new`].
    pub fn following(options: RelayOptions, old: Option<&Self>) -> Result<Self, String> {
        let mut node = options.url.clone();
        match node.path_segments_mut() {
            // `push` encodes what a path cannot hold.
            Ok(mut path) => {
                path.pop_if_empty().extend(["v1", "nodes", options.fingerprint.as_str()]);
            }
            Err(()) => return Err("the address has no path".to_owned()),
        }
        let client = client().map_err(|error| error.to_string())?;
        let lease = old.filter(|old| options.is_same_lease(&old.0.options)).map(|old| Arc::clone(&old.0.lease));
        let inner = Inner { options, node, client, lease: lease.unwrap_or_default() };
        inner.state().due = Duration::ZERO;
        Ok(Self(Arc::new(inner)))
    }

    /// Whether a relay answers at `health`, its `/v1/health`.
    ///
    /// # Errors
    /// What it met instead, in words.
    pub async fn health(health: Url) -> Result<(), String> {
        let answer = client().map_err(|error| error.to_string())?.get(health).send().await;
        match answer.map(|answer| answer.status()) {
            Ok(StatusCode::OK) => Ok(()),
            Ok(status) => Err(format!("it answered {status}")),
            Err(error) => Err(error.without_url().to_string()),
        }
    }

    /// Whether the lease has to be extended now, or another try for one is due.
    pub fn is_due(&self, now: Now) -> bool {
        self.0.state().due <= now.mono
    }

    /// Gives the lease back, if there is one; tells whether there was. Nothing is tried twice: a relay that does not
    /// hear of it takes the lease back when it ends.
    pub async fn release(&self, now: Now) -> bool {
        let _turn = self.0.lease.turn.lock().await;
        let had_one = std::mem::take(&mut *self.0.state()).paper.is_some();
        if had_one && let Err(fault) = self.0.send(Method::DELETE, now).await {
            tracing::debug!(%fault, "the lease of a license ends by itself");
        }
        had_one
    }
}

/// A relay is on this network, so no proxy comes between; it redirects nobody.
fn client() -> Result<Client, reqwest::Error> {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .user_agent(concat!("doorward/", env!("CARGO_PKG_VERSION")))
        .build()
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.lease.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, method: Method, now: Now) -> Result<Said, ProviderFault> {
        let unreachable = |error: reqwest::Error| fault(FaultKind::Unavailable, error.without_url().to_string());
        let mut request = self.client.request(method, self.node.clone());
        if let Some(pool) = &self.options.pool {
            request = request.header("Relay-Pool", pool);
        }
        let mut response = request.send().await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(fault(FaultKind::Unavailable, format!("its answer is longer than {MAX_ANSWER} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let at = match &self.options.secret {
            Some(secret) => signed_at(secret, &headers, &body, now.wall)?,
            None => now.wall,
        };
        Ok(Said { status, body, at })
    }

    async fn answer(&self, now: Now, judged_at: Timestamp) -> Result<Observation, ProviderFault> {
        let answered = self.claim(now, judged_at).await;
        let mut state = self.state();
        match &answered {
            Ok((_, until)) => state.due = now.mono.saturating_add(*until),
            Err(_) => state.due = now.mono.saturating_add(RETRY),
        }
        answered.map(|(observation, _)| observation)
    }

    /// The license, and in how long to ask again. Files end by `judged_at`.
    async fn claim(&self, now: Now, judged_at: Timestamp) -> Result<(Observation, Duration), ProviderFault> {
        let said = self.send(Method::PUT, now).await?;
        let held = self.state().paper.clone().filter(|paper| !paper.is_over(judged_at));
        let said = match (said.status, held) {
            (StatusCode::ACCEPTED, Some(paper)) => {
                let Extended { expires_in } = parse(&said.body)?;
                return Ok((Observation { observed_at: said.at, ..paper.observation }, half(expires_in)));
            }
            // It was claimed before and the relay extends nothing: the lease is still ours.
            (StatusCode::CONFLICT, Some(paper)) => {
                return Ok((Observation { observed_at: said.at, ..paper.observation }, RETRY));
            }
            // A claim of an earlier process of ours, of which we have no file: give it back and claim anew.
            (StatusCode::ACCEPTED | StatusCode::CONFLICT, None) => {
                self.send(Method::DELETE, now).await?;
                self.send(Method::PUT, now).await?
            }
            _ => said,
        };
        match said.status {
            StatusCode::CREATED => self.take(&said, judged_at),
            StatusCode::GONE => {
                self.state().paper = None;
                let nothing = Observation {
                    state: LicenseState::None,
                    license_id: None,
                    expires_at: None,
                    entitlements: Default::default(),
                    observed_at: said.at,
                };
                Ok((nothing, RETRY))
            }
            StatusCode::BAD_REQUEST => Err(fault(FaultKind::Misconfigured, "it does not know `license.relay_pool`")),
            status => Err(fault(FaultKind::Unavailable, format!("it answered {status}"))),
        }
    }

    fn take(&self, said: &Said, judged_at: Timestamp) -> Result<(Observation, Duration), ProviderFault> {
        let untrusted = |note: String| fault(FaultKind::Untrusted, note);
        let claimed: Claimed = parse(&said.body)?;
        let file = STANDARD.decode(&claimed.license_file).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let file = file.ok_or_else(|| untrusted("`license_file` is no text in base64".to_owned()))?;
        let license_key = Some(Secret::new(claimed.license_key));
        let expected = Expected { license_key, ..self.options.expected.clone() };
        let paper = Paper::read(&file, &expected, judged_at).map_err(|why| untrusted(why.to_string()))?;
        if paper.is_over(judged_at) {
            return Err(untrusted("the file of the lease has ended: give the relay a new one".to_owned()));
        }
        // Several files take turns here; what counts is when the relay handed this one out.
        let observation = Observation { observed_at: said.at, ..paper.observation.clone() };
        self.state().paper = Some(paper);
        Ok((observation, half(claimed.expires_in)))
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ProviderFault> {
    serde_json::from_slice(body)
        .map_err(|_| fault(FaultKind::Untrusted, "its answer is not in the form of keygen-relay"))
}

/// Leases are extended at half their time, so that one lost request does not end them.
fn half(expires_in: u64) -> Duration {
    (Duration::from_secs(expires_in).min(MAX_LEASE) / 2).max(Duration::from_secs(1))
}

/// Verifies `Relay-Signature: t=…,v1=…`, HMAC-SHA256 over `{t}.{body}`; gives back when it was made.
fn signed_at(
    secret: &Secret<String>,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<Timestamp, ProviderFault> {
    let untrusted = |note: &str| fault(FaultKind::Untrusted, note);
    let mut values = headers.get_all("relay-signature").iter();
    let header = match (values.next().map(|value| value.to_str()), values.next()) {
        (Some(Ok(header)), None) => header,
        (None, _) => return Err(untrusted("its answer is not signed; give it `license.relay_secret`")),
        _ => return Err(untrusted("its signature is malformed")),
    };
    let parts = header.split_once(",v1=").and_then(|(t, tag)| Some((t.strip_prefix("t=")?, decode_hex(tag)?)));
    let (t, tag) = parts.ok_or_else(|| untrusted("its signature is malformed"))?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let message = [t.as_bytes(), b".", body].concat();
    hmac::verify(&key, &message, &tag).map_err(|_| untrusted("its signature does not fit"))?;
    let at = t.parse().map(Timestamp::from_secs).map_err(|_| untrusted("its signature is malformed"))?;
    if at.since(now) > WINDOW || now.since(at) > WINDOW {
        return Err(untrusted("its clock and ours are more than five minutes apart"));
    }
    Ok(at)
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    (digits.len() == 64).then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

impl LicenseProvider for RelayProvider {
    fn name(&self) -> &'static str {
        "relay"
    }

    fn ask(&self, question: Question, now: Now) -> Answering {
        let inner = Arc::clone(&self.0);
        async move {
            let turn = Arc::clone(&inner.lease.turn).lock_owned().await;
            // Whoever asks may lose patience, and must not leave the lease given back and not claimed again.
            let asked = tokio::spawn(async move {
                let answered = inner.answer(now, question.judged_at).await;
                drop(turn);
                answered
            });
            asked.await.unwrap_or_else(|error| Err(fault(FaultKind::Unavailable, error.to_string())))
        }
        .boxed()
    }

    fn is_per_user(&self) -> bool {
        false
    }
}
