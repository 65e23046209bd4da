//! The issuer's public listener: key set and discovery, in good and in bad shape.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use super::{
    fault::{self, Fault},
    state::{Etag, Shared},
};

type Body = UnsyncBoxBody<Bytes, io::Error>;

const JWK_SET: &str = "application/jwk-set+json";
/// What is sent at once of a document without end; ten of them a second.
const ENDLESS_PART: usize = 1_600_000;
/// What [`Fault::GzipBomb`] unpacks to.
const BOMB: usize = 64 << 20;

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
                            None => Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "gone")),
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
    Ok(match request.uri().path() {
        "/jwks.json" => key_set(request.headers(), shared).await,
        "/moved/jwks.json" => plain(StatusCode::OK, JWK_SET, shared.state.lock().unwrap().set().to_string()),
        "/.well-known/openid-configuration" | "/.well-known/oauth-authorization-server" => discovery(shared),
        _ => plain(StatusCode::NOT_FOUND, "text/plain", "not found"),
    })
}

/// OpenID Connect Discovery 1.0 §3, RFC 8414 §2: as much as a verifier needs.
fn discovery(shared: &Shared) -> Response<Body> {
    let mut state = shared.state.lock().unwrap();
    state.discoveries += 1;
    let origin = format!("http://{}", shared.address);
    let document = json!({
        "issuer": origin,
        "jwks_uri": format!("{origin}/jwks.json"),
        "authorization_endpoint": format!("{origin}/authorize"),
        "token_endpoint": format!("{origin}/token"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [state.keys[0].algorithm.as_str()],
    });
    plain(StatusCode::OK, "application/json", document.to_string())
}

async fn key_set(asked: &HeaderMap, shared: &Shared) -> Response<Body> {
    let (fault, headers, tag, is_lying, document, before) = {
        let mut state = shared.state.lock().unwrap();
        state.hits += 1;
        let document = state.set().to_string();
        let before = state.before.as_ref().map_or_else(|| document.clone(), ToString::to_string);
        let is_lying = state.etag == Etag::Lying;
        (state.fault.clone(), state.headers.clone(), state.tag(), is_lying, document, before)
    };
    let known = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_unchanged = known.is_some_and(|known| is_lying || tag.as_deref() == Some(known));
    let mut response = match fault {
        None if is_unchanged => plain(StatusCode::NOT_MODIFIED, JWK_SET, ""),
        None => plain(StatusCode::OK, JWK_SET, document),
        Some(fault) => broken(fault, shared, document, before).await,
    };
    let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in headers.chain(tag.as_deref().map(|tag| ("etag", tag))) {
        let (name, value) = (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        response.headers_mut().insert(name, value);
    }
    response
}

async fn broken(fault: Fault, shared: &Shared, document: String, before: String) -> Response<Body> {
    let redirect = |to: &str| {
        let mut response = plain(StatusCode::FOUND, "text/plain", "over there");
        response.headers_mut().insert(header::LOCATION, to.parse().unwrap());
        response
    };
    match fault {
        Fault::Status(status) => plain(StatusCode::from_u16(status).unwrap(), "text/plain", "no"),
        Fault::Slow(pause) => {
            sleep(pause).await;
            plain(StatusCode::OK, JWK_SET, shared.state.lock().unwrap().set().to_string())
        }
        Fault::Drip => {
            let bytes = stream::iter(document.into_bytes()).then(|byte| async move {
                sleep(Duration::from_secs(1)).await;
                Ok(Frame::data(Bytes::copy_from_slice(&[byte])))
            });
            streamed(StreamBody::new(bytes).boxed_unsync())
        }
        Fault::Silent => std::future::pending().await,
        Fault::CutOff => {
            let half = Bytes::copy_from_slice(&document.as_bytes()[..document.len() / 2]);
            let parts = [Ok(Frame::data(half)), Err(io::Error::other("cut off"))];
            // The pause lets the half get out before the connection goes.
            let parts = stream::iter(parts).then(|part| async move {
                sleep(Duration::from_millis(20)).await;
                part
            });
            let mut response = streamed(StreamBody::new(parts).boxed_unsync());
            response.headers_mut().insert(header::CONTENT_LENGTH, document.len().into());
            response
        }
        Fault::Garbage => plain(StatusCode::OK, JWK_SET, document[..document.len() / 2].to_owned()),
        Fault::NotASet => plain(StatusCode::OK, JWK_SET, "{\"error\":\"try again\"}"),
        Fault::Empty => plain(StatusCode::OK, JWK_SET, "{\"keys\":[]}"),
        Fault::Html => plain(StatusCode::OK, "text/html", "<!doctype html><title>Sign in</title>"),
        Fault::WrongType => plain(StatusCode::OK, "text/plain", document),
        Fault::Redirect(to) => redirect(&to),
        Fault::Moved => redirect("/moved/jwks.json"),
        Fault::RedirectLoop => redirect("/jwks.json"),
        Fault::Large(bytes) => plain(StatusCode::OK, JWK_SET, " ".repeat(bytes)),
        Fault::Endless => {
            let part = Bytes::from(vec![b' '; ENDLESS_PART]);
            let parts = stream::repeat(part).then(|part| async move {
                sleep(Duration::from_millis(100)).await;
                Ok(Frame::data(part))
            });
            streamed(StreamBody::new(parts).boxed_unsync())
        }
        Fault::GzipBomb => {
            let mut response = plain(StatusCode::OK, JWK_SET, fault::gzip_bomb(BOMB, document.as_bytes()));
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        }
        Fault::Stale => {
            let mut response = plain(StatusCode::OK, JWK_SET, before);
            response.headers_mut().insert(header::AGE, HeaderValue::from_static("3600"));
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=86400"));
            response
        }
        Fault::NotModified => plain(StatusCode::NOT_MODIFIED, JWK_SET, ""),
    }
}

fn plain(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).header(header::CONTENT_TYPE, kind).body(body).unwrap()
}

fn streamed(body: Body) -> Response<Body> {
    Response::builder().header(header::CONTENT_TYPE, JWK_SET).body(body).unwrap()
}
