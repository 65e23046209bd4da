//! A mail API over HTTP: `POST /v1/messages/send` with `X-API-Key`.
//!
//! The body is one JSON object: `from`, `to`, `subject`, `text`, `html`, all strings. Each mail carries its id as
//! `Idempotency-Key`, the same on every attempt, so that an attempt whose answer was lost is not sent twice by an API
//! that keeps the key.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use doorward_core::{secret::Secret, time::Timestamp};
use doorward_store::Mail;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Client, Response, redirect};
use serde_json::json;
use url::{Host, Url};

use super::{MailConfigError, SEND_TIMEOUT, SendError};

/// Longest wait for a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the words that come with a refusal.
const SAY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest part of an answer that is read, in bytes. What an API has to say is shorter.
const ANSWER_MAX: usize = 16 * 1024;
/// Longest part of it that is shown, in characters.
const SHOWN_MAX: usize = 200;
/// Longest pause that an API may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

const URL_REMEDY: &str =
    "write the part of the address before /v1/messages/send: https://mail.example.com; http is for loopback only";

/// A client of one mail API.
#[derive(Clone)]
pub struct HttpMailer(Arc<Inner>);

struct Inner {
    client: Client,
    endpoint: Url,
    /// Marked as sensitive: it prints as nothing.
    key: HeaderValue,
    from: String,
}

impl fmt::Debug for HttpMailer {
    /// The API's address; never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpMailer").field("endpoint", &self.0.endpoint.as_str()).finish_non_exhaustive()
    }
}

impl HttpMailer {
    /// A client of the API below `base`. Nothing is connected yet.
    ///
    /// # Errors
    /// [`MailConfigError`], naming the key.
    pub fn new(base: &str, api_key: &Secret<String>, from: &str) -> Result<Self, MailConfigError> {
        let bad = |problem: String| MailConfigError { key: "url", problem, remedy: URL_REMEDY };
        let mut endpoint = Url::parse(base).map_err(|error| bad(format!("not a URL: {error}")))?;
        let is_local = is_loopback(&endpoint);
        if endpoint.scheme() != "https" && !(endpoint.scheme() == "http" && is_local) {
            return Err(bad("the key and the mails would travel without TLS".to_owned()));
        }
        let has_more = !endpoint.username().is_empty()
            || endpoint.password().is_some()
            || endpoint.query().is_some()
            || endpoint.fragment().is_some();
        if has_more {
            return Err(bad("has a user, a password, a query or a fragment".to_owned()));
        }
        let path = format!("{}/v1/messages/send", endpoint.path().trim_end_matches('/'));
        endpoint.set_path(&path);
        let mut key = HeaderValue::from_str(api_key.expose()).map_err(|_| MailConfigError {
            key: "api_key",
            problem: "holds characters that no header can carry".to_owned(),
            remedy: "give the key as the provider shows it, without line breaks",
        })?;
        key.set_sensitive(true);
        let builder = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("doorward/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(20));
        // What is sent to this machine goes round no proxy of the environment.
        let builder = if is_local { builder.no_proxy() } else { builder };
        let client = builder.build().map_err(|error| bad(format!("the HTTP client cannot be set up: {error}")))?;
        Ok(Self(Arc::new(Inner { client, endpoint, key, from: from.to_owned() })))
    }

    /// Whether the other one hands mails to the same API in the same way.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let (one, other) = (&self.0, &other.0);
        one.endpoint == other.endpoint && one.key == other.key && one.from == other.from
    }

    /// Sends one mail, within [`SEND_TIMEOUT`]. `now` is for a `Retry-After` that is a date.
    pub(super) async fn send(&self, mail: &Mail, now: Timestamp) -> Result<(), SendError> {
        let body = json!({
            "from": self.0.from,
            "to": mail.to.as_str(),
            "subject": mail.subject,
            "text": mail.text,
            "html": mail.html,
        });
        let (status, headers, said) = self.post(body.to_string(), Some(mail.id.to_string())).await?;
        if status.is_success() {
            return Ok(());
        }
        Err(SendError {
            is_permanent: is_about_the_mail(status),
            note: self.note(status, &said),
            retry_after: retry_after(&headers, now),
        })
    }

    /// Asks for a mail without anything in it: an API that takes our key complains about the rest.
    pub(super) async fn ping(&self) -> Result<(), SendError> {
        let (status, _, said) = self.post("{}".to_owned(), None).await?;
        if status.is_success() || is_about_the_mail(status) {
            return Ok(());
        }
        Err(SendError::temporary(self.note(status, &said)))
    }

    async fn post(&self, body: String, id: Option<String>) -> Result<(StatusCode, HeaderMap, Vec<u8>), SendError> {
        let Inner { client, endpoint, key, .. } = &*self.0;
        let mut request = client
            .post(endpoint.clone())
            .header("X-API-Key", key.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json");
        if let Some(id) = id {
            request = request.header("Idempotency-Key", id);
        }
        let exchange = async {
            let mut response = request.body(body).send().await?;
            // A mail that was taken is taken, whatever else the API has to say, or never ends saying.
            let said = match response.status().is_success() {
                true => Vec::new(),
                false => tokio::time::timeout(SAY_TIMEOUT, beginning(&mut response)).await.unwrap_or_default(),
            };
            Ok((response.status(), response.headers().clone(), said))
        };
        match tokio::time::timeout(SEND_TIMEOUT, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(SendError::temporary(format!("{}: {}", self.server(), cause(&error)))),
            Err(_) => Err(SendError::temporary(format!("{} did not answer in time", self.server()))),
        }
    }

    fn server(&self) -> &str {
        self.0.endpoint.host_str().unwrap_or_default()
    }

    fn note(&self, status: StatusCode, said: &[u8]) -> String {
        let what = match status.as_u16() {
            300..=399 => " (redirects are not followed)",
            401 | 403 => " (it does not take this key)",
            404 | 405 => " (there is no such API at this address)",
            _ => "",
        };
        let said = String::from_utf8_lossy(said);
        let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_MAX).collect();
        let said = said.trim();
        let colon = if said.is_empty() { "" } else { ": " };
        format!("{} answered {}{what}{colon}{said}", self.server(), status.as_u16())
    }
}

/// Whether trying again is pointless. Refusals of our key or address are not about the mail: the operator can mend that
/// while it waits. Neither are 408, 409 (another attempt is under way, RFC 9110 §15.5.10), 425 and 429.
fn is_about_the_mail(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 404 | 405 | 407 | 408 | 409 | 425 | 429)
}

/// The beginning of an answer's body; what is behind it is left where it is, and the connection with it. A body that
/// breaks off takes nothing from the status.
async fn beginning(response: &mut Response) -> Vec<u8> {
    let mut said = Vec::new();
    while said.len() < ANSWER_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        said.extend_from_slice(&chunk[..chunk.len().min(ANSWER_MAX - said.len())]);
    }
    said
}

/// RFC 9110 §10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let after = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let since_epoch = httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).ok()?).since(now)
        }
    };
    Some(after.min(RETRY_AFTER_MAX))
}

/// What happened: refused, unknown name, bad certificate. The URL in the outer error is known already.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(v4)) => v4.is_loopback(),
        Some(Host::Ipv6(v6)) => v6.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = "Example <login@example.com>";

    fn of(base: &str, key: &str) -> Result<HttpMailer, MailConfigError> {
        HttpMailer::new(base, &Secret::new(key.to_owned()), FROM)
    }

    #[test]
    fn the_key_travels_over_tls_or_stays_on_this_machine_and_is_never_printed() {
        for (base, endpoint) in [
            ("https://mail.example.com", "https://mail.example.com/v1/messages/send"),
            ("https://mail.example.com/api/", "https://mail.example.com/api/v1/messages/send"),
            ("http://127.0.0.1:1", "http://127.0.0.1:1/v1/messages/send"),
            ("http://[::1]:1", "http://[::1]:1/v1/messages/send"),
            ("http://localhost", "http://localhost/v1/messages/send"),
        ] {
            let mailer = of(base, "geheim").unwrap();
            assert_eq!(mailer.0.endpoint.as_str(), endpoint);
            assert!(!format!("{mailer:?} {:?}", mailer.0.key).contains("geheim"));
        }
        for base in [
            "http://mail.example.com",
            "http://127.0.0.1.example.com",
            "smtp://mail.example.com",
            "https://user:geheim@mail.example.com",
            "https://mail.example.com?key=geheim",
            "https://mail.example.com#x",
            "mail.example.com",
        ] {
            let error = of(base, "geheim").unwrap_err();
            assert_eq!(error.key, "url", "{base}");
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
        let error = of("https://mail.example.com", "geheim\nX-Evil: 1").unwrap_err();
        assert_eq!(error.key, "api_key");
        assert!(!error.to_string().contains("geheim"), "{error}");
    }

    #[test]
    fn a_pause_is_a_number_or_a_date_and_an_hour_at_most() {
        let now = Timestamp::from_secs(1_800_000_000); // Fri, 15 Jan 2027 08:00:00 GMT
        for (text, expected) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("999999999", Some(3600)),
            ("Fri, 15 Jan 2027 08:01:00 GMT", Some(60)),
            ("Fri, 15 Jan 2027 07:00:00 GMT", Some(0)),
            ("Fri, 15 Jan 2100 07:00:00 GMT", Some(3600)),
            ("soon", None),
            ("-1", None),
            ("99999999999999999999999", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn only_a_refusal_of_the_mail_itself_is_final() {
        let is_final = |code: &u16| is_about_the_mail(StatusCode::from_u16(*code).unwrap());
        let all: Vec<u16> = (300..600).filter(is_final).collect();
        assert!([400, 410, 413, 415, 422].iter().all(|code| all.contains(code)));
        let temporary = [301, 302, 307, 401, 403, 404, 405, 407, 408, 409, 425, 429, 500, 502, 503, 504];
        assert!(temporary.iter().all(|code| !all.contains(code)), "{all:?}");
    }
}
