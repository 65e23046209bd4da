//! Control routes of what the testkit plays, on a listener of their own: they still answer when that is dead.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

/// Longest question.
const LIMIT: usize = 1 << 20;

/// A control listener.
pub struct Control(TcpListener);

/// A question to control routes.
#[derive(Debug)]
pub struct Order {
    method: Method,
    path: String,
    body: Bytes,
}

impl Order {
    /// What is asked for: method and path.
    pub fn route(&self) -> (&str, &str) {
        (self.method.as_str(), &self.path)
    }

    /// The body, which is JSON; without one, an empty object.
    ///
    /// # Errors
    /// [`Refusal::Bad`], with what is wrong.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let body = if self.body.is_empty() { b"{}" } else { &self.body[..] };
        serde_json::from_slice(body).map_err(|error| Refusal::Bad(error.to_string()))
    }
}

/// Why an order is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such route; these are there.
    NoRoute(&'static str),
    /// The order makes no sense.
    Bad(String),
}

impl Refusal {
    /// [`Refusal::Bad`], with what is wrong.
    #[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
    pub fn bad(why: impl ToString) -> Self {
        Self::Bad(why.to_string())
    }
}

impl Control {
    /// Binds a free port of the loopback address `ip`.
    ///
    /// # Panics
    /// If `ip` is not a loopback address, or no port can be bound: whoever reaches these routes owns what they control.
    pub async fn bind(ip: IpAddr) -> Self {
        assert!(ip.is_loopback(), "control routes are for loopback, not for {ip}");
        Self(TcpListener::bind((ip, 0)).await.unwrap())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Answers what `answer` says until dropped.
    pub async fn serve<A, F>(self, answer: A)
    where
        A: Fn(Order) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Value, Refusal>> + Send,
    {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = self.0.accept().await {
            let answer = answer.clone();
            connections.spawn(async move {
                let service = service_fn(|request| async { Ok::<_, Infallible>(reply(request, &answer).await) });
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
            });
            while connections.try_join_next().is_some() {}
        }
    }
}

async fn reply<F>(request: Request<Incoming>, answer: &impl Fn(Order) -> F) -> Response<Full<Bytes>>
where
    F: Future<Output = Result<Value, Refusal>>,
{
    let (parts, body) = request.into_parts();
    let (status, value) = match Limited::new(body, LIMIT).collect().await {
        Err(_) => (StatusCode::PAYLOAD_TOO_LARGE, json!({"error": "too large"})),
        Ok(body) => {
            let order = Order { method: parts.method, path: parts.uri.path().to_owned(), body: body.to_bytes() };
            match answer(order).await {
                Ok(value) => (StatusCode::OK, value),
                Err(Refusal::NoRoute(there)) => (StatusCode::NOT_FOUND, json!({ "error": there })),
                Err(Refusal::Bad(why)) => (StatusCode::BAD_REQUEST, json!({ "error": why })),
            }
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::wire::Wire;

    /// Asks control routes: status and document.
    pub(crate) async fn ask(control: SocketAddr, head: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        let answer =
            Wire::ask(control, format!("{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    #[tokio::test]
    #[should_panic(expected = "control routes are for loopback")]
    async fn it_is_for_loopback_only() {
        Control::bind("0.0.0.0".parse().unwrap()).await;
    }
}
