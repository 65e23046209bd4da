//! One request on its way through the server.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::{Body, Bytes};
use doorward_core::{
    client,
    decision::{Decision, Denial},
    reason::Reason,
    request::{RequestFacts, is_websocket_upgrade},
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Limited};
use serde::{Serialize, de::DeserializeOwned};

use super::{Server, Site, guard, harden, respond, respond::Want};

/// Largest body that our own routes read, in bytes.
const BODY_LIMIT: usize = 16 * 1024;
/// Longest time that a body of our own routes may take.
const BODY_TIME: Duration = Duration::from_secs(10);
/// What a page's form sends.
const FORM: &str = "application/x-www-form-urlencoded";

/// The client as derived, owned.
#[derive(Clone, Debug)]
pub struct Client {
    /// Address.
    pub ip: std::net::IpAddr,
    /// Scheme that the client used.
    pub scheme: doorward_core::request::Scheme,
    /// Host that the client asked for.
    pub host: Box<str>,
}

/// A request with what was derived from it once.
#[derive(Debug)]
pub struct Call {
    /// The process.
    pub server: Arc<Server>,
    /// The site as it was when the request came; the whole request sees one version.
    pub site: Arc<Site>,
    /// Head as received.
    pub parts: Parts,
    /// Body; taken once, by whoever reads or forwards it. The lock is only there because bodies are not `Sync`.
    body: Mutex<Option<Body>>,
    /// Who is at the other end of the connection.
    pub peer: SocketAddr,
    /// Client address, scheme and host as derived.
    pub client: Client,
    /// In which form the caller can take a refusal.
    pub want: Want,
}

/// What a form or JSON body said, and which of the two it was.
#[derive(Debug)]
pub struct Sent<T> {
    /// The content.
    pub value: T,
    /// Whether a page's form sent it.
    pub is_form: bool,
}

impl Call {
    /// Derives what the request says about its client. Where a trusted proxy's headers contradict each other,
    /// the call is made of what the connection says, for the refusal that comes with it.
    pub fn new(
        server: Arc<Server>,
        site: Arc<Site>,
        parts: Parts,
        body: Body,
        peer: SocketAddr,
        scheme: doorward_core::request::Scheme,
    ) -> (Self, Result<(), Denial>) {
        let host = parts
            .uri
            .authority()
            .map(http::uri::Authority::as_str)
            .or_else(|| parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()))
            .unwrap_or_default();
        let target = parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        let want = Want::of(&parts.method, &parts.headers, target);
        let (client, derived) = match client::derive(peer.ip(), scheme, host, &parts.headers, &site.trusted) {
            Ok(client) => (Client { ip: client.ip, scheme: client.scheme, host: client.host.into() }, Ok(())),
            Err(denial) => (Client { ip: peer.ip(), scheme, host: host.into() }, Err(denial)),
        };
        (Self { client, server, site, body: Mutex::new(Some(body)), peer, parts, want }, derived)
    }

    /// The body, for the first who asks.
    pub fn take_body(&self) -> Option<Body> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Path and query, exactly as received.
    pub fn target(&self) -> &str {
        self.parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str)
    }

    /// The path, exactly as received.
    pub fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// The facts that decisions look at.
    pub fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.parts.method,
            scheme: self.client.scheme,
            host: &self.client.host,
            target: self.target(),
            headers: &self.parts.headers,
            client: self.client.ip,
            is_upgrade: is_websocket_upgrade(&self.parts.method, &self.parts.headers),
            // Our own proxy passes on WebSockets only.
            may_leave_http: false,
        }
    }

    /// Refuses without a decision of the gate: the refusal becomes one, so it is observed like any other.
    pub fn refuse(&self, denial: Denial) -> Response<Body> {
        let decision = self.server.gate.refuse_observed(&self.facts(), denial);
        self.answer(&decision)
    }

    /// The answer to a decision that is a denial.
    pub fn answer(&self, decision: &Decision) -> Response<Body> {
        match &decision.outcome {
            Err(denial) => {
                let mut response = respond::denial(denial, decision.id, &self.want, &self.site.pages);
                guard::heal(self, denial, decision.caller.as_ref(), &mut response);
                response
            }
            Ok(_) => respond::denial(&Reason::Internal.into(), decision.id, &self.want, &self.site.pages),
        }
    }

    /// Media type of the body, lower case, without parameters.
    fn content_type(&self) -> String {
        media_type(&self.parts.headers)
    }

    /// Whether a page's form was sent.
    pub fn sends_form(&self) -> bool {
        self.content_type() == FORM
    }

    /// Reads a small body whole and leaves it in place for the next reader.
    ///
    /// # Errors
    /// `payload_too_large`, `request_malformed`.
    pub async fn buffer(&self) -> Result<Bytes, Denial> {
        let bytes = read_small(self.take_body().ok_or(Reason::Internal)?).await?;
        *self.body.lock().unwrap_or_else(PoisonError::into_inner) = Some(Body::from(bytes.clone()));
        Ok(bytes)
    }

    /// The body byte for byte, of at most `limit`; whatever it says it is.
    ///
    /// # Errors
    /// `payload_too_large`, `request_malformed`.
    pub async fn raw(&self, limit: usize) -> Result<Bytes, Denial> {
        read_whole(self.take_body().ok_or(Reason::Internal)?, limit).await
    }

    /// Reads a small body as JSON or form, as its content type says.
    ///
    /// # Errors
    /// `payload_too_large`, `request_malformed`.
    pub async fn read<T: DeserializeOwned>(&self) -> Result<Sent<T>, Denial> {
        let is_form = self.sends_form();
        if !is_form && self.content_type() != "application/json" {
            return Err(Denial::from(Reason::RequestMalformed)
                .with_required("Content-Type: application/json or application/x-www-form-urlencoded"));
        }
        let bytes = self.buffer().await?;
        // The libraries' own words quote what was sent, which may be a password: they go into no log.
        let value = if is_form {
            serde_urlencoded::from_bytes(&bytes).map_err(|_| "the form lacks a field or has one too many".to_owned())
        } else if bytes.trim_ascii_start().starts_with(b"{") {
            serde_json::from_slice(&bytes).map_err(|error| {
                format!("{:?} error in the JSON, line {} column {}", error.classify(), error.line(), error.column())
            })
        } else {
            // serde would take an array for the members in the order of their definition.
            Err("the JSON is no object".to_owned())
        };
        match value {
            Ok(value) => Ok(Sent { value, is_form }),
            Err(note) => Err(Denial::from(Reason::RequestMalformed).with_note(note)),
        }
    }
}

async fn read_small(body: Body) -> Result<Bytes, Denial> {
    read_whole(body, BODY_LIMIT).await
}

async fn read_whole(body: Body, limit: usize) -> Result<Bytes, Denial> {
    match tokio::time::timeout(BODY_TIME, Limited::new(body, limit).collect()).await {
        Err(_) => Err(Denial::from(Reason::RequestMalformed).with_note("the body took too long")),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Reason::PayloadTooLarge.into()),
        Ok(Err(error)) => Err(Denial::from(Reason::RequestMalformed).with_note(error.to_string())),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

/// A small body that says it is JSON; not yet looked at.
///
/// # Errors
/// `request_malformed` for another content type, which a form of another site could send; `payload_too_large`.
pub async fn read_json(headers: &HeaderMap, body: Body) -> Result<Bytes, Denial> {
    if media_type(headers) != "application/json" {
        return Err(Denial::from(Reason::RequestMalformed).with_required("Content-Type: application/json"));
    }
    read_small(body).await
}

fn media_type(headers: &HeaderMap) -> String {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// A JSON answer of our own.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    let body = serde_json::to_vec(value).unwrap_or_default();
    own(status, "application/json", Body::from(body))
}

/// `{"ok":true}`.
pub fn ok() -> Response<Body> {
    own(StatusCode::OK, "application/json", Body::from(r#"{"ok":true}"#))
}

/// A page of our own.
pub fn page(status: StatusCode, html: String) -> Response<Body> {
    own(status, "text/html; charset=utf-8", Body::from(html))
}

/// Any answer of our own, with the security headers.
pub fn own(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    harden::harden(response.headers_mut());
    response
}

/// 303 to a local target that was validated before (303: whatever was posted is not sent again, RFC 9700 §4.12).
pub fn see_other(target: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let location = HeaderValue::try_from(target).unwrap_or_else(|_| HeaderValue::from_static("/"));
    response.headers_mut().insert(header::LOCATION, location);
    harden::harden(response.headers_mut());
    response
}
