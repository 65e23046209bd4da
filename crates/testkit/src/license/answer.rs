//! The license server's listener: answers, signed, in good and in bad shape.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use super::{
    Fault, Shared,
    route::{self, Asked, Reply},
    sign::{Algorithm, http_date, signature_header},
    state::Heard,
};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Longest question.
const LIMIT: usize = 1 << 20;
/// What is sent at once of a body without end.
const ENDLESS_PART: usize = 256 * 1024;
const JSON_API: &str = "application/vnd.api+json";

/// An answer as it was sent.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Recorded {
    fn set(&mut self, name: &str, value: Option<String>) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.extend(value.map(|value| (name.to_owned(), value)));
    }

    fn response(self) -> Response<Body> {
        let mut response = plain(self.status, JSON_API, self.body);
        for (name, value) in self.headers {
            let name = HeaderName::try_from(name).unwrap();
            response.headers_mut().insert(name, HeaderValue::try_from(value).unwrap());
        }
        response
    }
}

/// Answers until the handle is aborted; every connection ends with it.
pub(super) fn serve(listener: TcpListener, shared: &Arc<Shared>) -> JoinHandle<()> {
    // The server must not keep itself alive: its handle is in what it shares.
    let shared = Arc::downgrade(shared);
    tokio::spawn(async move {
        // Dropped with this task, and all connections with it.
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).ok();
            let shared = shared.clone();
            connections.spawn(async move {
                let service = service_fn(|request| {
                    let shared = shared.upgrade();
                    async move {
                        match shared {
                            Some(shared) => answer(request, &shared).await,
                            None => Ok(page(503)),
                        }
                    }
                });
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
            });
            while connections.try_join_next().is_some() {}
        }
    })
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, LIMIT).collect().await else { return Ok(page(413)) };
    let field = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let asked = Asked {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().trim_start_matches('/').split('/').map(decode).collect(),
        query: parts.uri.query().map(pairs).unwrap_or_default(),
        authorization: field("authorization"),
        version: field("keygen-version"),
        body: serde_json::from_slice(&body.to_bytes()).ok(),
    };
    let host = field("host").unwrap_or_default();
    shared.state.lock().unwrap().hear(Heard {
        method: asked.method.clone(),
        target: target.clone(),
        host: host.clone(),
        version: asked.version.clone(),
        has_credential: asked.authorization.is_some(),
        body: asked.body.clone(),
    });
    let (fault, public_host) = {
        let controls = shared.controls.lock().unwrap();
        (controls.fault.clone(), controls.public_host.clone())
    };
    match &fault {
        Some(Fault::Page(status)) => return Ok(page(*status)),
        Some(Fault::TooMany(seconds)) => return Ok(too_many(*seconds)),
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::Slow(pause)) => sleep(*pause).await,
        Some(Fault::Endless) => return Ok(endless()),
        Some(Fault::Redirect(to)) => return Ok(redirect(to)),
        _ => {}
    }
    let host = host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host).to_owned();
    if let Some(public) = public_host {
        if field("x-forwarded-proto").as_deref() != Some("https") {
            return Ok(redirect(&format!("https://{host}{target}")));
        }
        if host != public {
            return Ok(page(403));
        }
    }
    let algorithm = wanted(field("keygen-accept-signature").as_deref());
    Ok(signed(shared, &asked, (&target, &host), algorithm, fault.as_ref()))
}

fn signed(
    shared: &Shared,
    asked: &Asked,
    (target, host): (&str, &str),
    algorithm: Algorithm,
    fault: Option<&Fault>,
) -> Response<Body> {
    let now = shared.now();
    let mut controls = shared.controls.lock().unwrap();
    let question = format!("{} {target}", asked.method);
    if fault == Some(&Fault::Replay)
        && let Some(recorded) = controls.recorded.get(&question)
    {
        return recorded.clone().response();
    }
    let mut reply = match fault {
        Some(Fault::Refuse(status, code)) => Reply::error(*status, code),
        Some(Fault::OtherShape) => Reply { status: 200, body: json!({"data": {"type": "tokens"}}), is_signed: true },
        _ => {
            let mut state = shared.state.lock().unwrap();
            route::answer(&mut state, asked, &shared.keys, controls.mint.as_ref(), now)
        }
    };
    if fault == Some(&Fault::WrongNonce)
        && let Some(nonce) = reply.body.pointer_mut("/meta/nonce")
    {
        *nonce = Value::from(nonce.as_u64().unwrap_or_default() ^ 1);
    }
    let body = reply.body.to_string();
    let keys = if fault == Some(&Fault::WrongKey) { &shared.other_keys } else { &shared.keys };
    let headers = if reply.is_signed {
        keys.headers(algorithm, (&asked.method, target, host), now, body.as_bytes())
    } else {
        vec![("Date".to_owned(), http_date(now))]
    };
    let mut answer = Recorded { status: reply.status, headers, body: body.into() };
    answer.set("Keygen-Version", Some("1.7".to_owned()));
    answer.set("Keygen-Edition", Some("CE".to_owned()));
    match fault {
        None => {
            controls.recorded.insert(question, answer.clone());
        }
        Some(Fault::Unsigned) => answer.set("Keygen-Signature", None),
        Some(Fault::EmptySignature) => {
            answer.set("Keygen-Signature", Some(signature_header(super::ACCOUNT, algorithm, "")));
        }
        Some(Fault::OtherAccount) => {
            let header = answer.headers.iter().find(|(name, _)| name == "Keygen-Signature").unwrap().1.clone();
            let other = "5c1f0c1e-0000-4000-8000-0000000000ff";
            answer.set("Keygen-Signature", Some(header.replace(super::ACCOUNT, other)));
        }
        Some(Fault::Tampered) => {
            let mut body = answer.body.to_vec();
            body.push(b' ');
            answer.body = body.into();
        }
        Some(Fault::RewrittenDate) => answer.set("Date", Some(http_date(now + 3_600_000))),
        _ => {}
    }
    answer.response()
}

/// `Keygen-Accept-Signature: algorithm="…"`.
fn wanted(header: Option<&str>) -> Algorithm {
    let is_named = |algorithm: &&Algorithm| {
        header.is_some_and(|header| header.contains(&format!("algorithm=\"{}\"", algorithm.as_str())))
    };
    Algorithm::ALL.iter().find(is_named).copied().unwrap_or(Algorithm::Ed25519)
}

fn plain(status: u16, kind: &str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    let status = StatusCode::from_u16(status).unwrap();
    Response::builder().status(status).header(header::CONTENT_TYPE, kind).body(body).unwrap()
}

fn page(status: u16) -> Response<Body> {
    plain(status, "text/html", "<!doctype html><title>Something in front of the license server</title>")
}

fn too_many(seconds: u64) -> Response<Body> {
    let body = json!({"errors": [{"title": "Too many requests", "detail": "slow down", "code": "TOO_MANY_REQUESTS"}]});
    let mut response = plain(429, JSON_API, body.to_string());
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn redirect(to: &str) -> Response<Body> {
    let mut response = plain(301, "text/html", "moved");
    response.headers_mut().insert(header::LOCATION, to.parse().unwrap());
    response
}

fn endless() -> Response<Body> {
    let part = Bytes::from(vec![b' '; ENDLESS_PART]);
    let parts = stream::repeat(part).then(|part| async move {
        sleep(Duration::from_millis(10)).await;
        Ok(Frame::data(part))
    });
    let body = StreamBody::new(parts).boxed_unsync();
    Response::builder().header(header::CONTENT_TYPE, JSON_API).body(body).unwrap()
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}

/// Takes `%XX` back.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
