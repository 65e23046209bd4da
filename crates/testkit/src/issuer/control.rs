//! Control routes, on a listener of their own: they still answer when the issuer is dead.
//!
//! - `POST /mint` with `{"claims": {…}, "header": {…}, "audience": "app", "age": 0, "forge": "none"}`, each optional,
//!   answers `{"token": "…"}`. Claims replace the good ones, null removes.
//! - `POST /do` with an [`Action`] does it.
//! - `GET /stats` counts fetches and tokens.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    Forgery, Issuer,
    answer::{Body, plain},
    script::Action,
};

/// Longest question.
const LIMIT: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mint {
    #[serde(default = "empty")]
    claims: Value,
    #[serde(default = "empty")]
    header: Value,
    #[serde(default = "app")]
    audience: String,
    #[serde(default)]
    age: usize,
    forge: Option<Forgery>,
}

fn empty() -> Value {
    json!({})
}

fn app() -> String {
    "app".to_owned()
}

/// A control listener.
pub struct Control(TcpListener);

impl Control {
    /// Binds a free port of the loopback address `ip`.
    ///
    /// # Panics
    /// If `ip` is not a loopback address, or no port can be bound: whoever reaches these routes owns the issuer.
    pub async fn bind(ip: IpAddr) -> Self {
        assert!(ip.is_loopback(), "control routes are for loopback, not for {ip}");
        Self(TcpListener::bind((ip, 0)).await.unwrap())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Answers for `issuer` until dropped.
    pub async fn serve(self, issuer: Arc<Issuer>) {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = self.0.accept().await {
            let issuer = Arc::clone(&issuer);
            connections.spawn(async move {
                let service = service_fn(|request| {
                    let issuer = Arc::clone(&issuer);
                    async move { Ok::<_, std::convert::Infallible>(answer(request, &issuer).await) }
                });
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
            });
            while connections.try_join_next().is_some() {}
        }
    }
}

async fn answer(request: Request<Incoming>, issuer: &Issuer) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, LIMIT).collect().await else {
        return said(StatusCode::PAYLOAD_TOO_LARGE, &json!({"error": "too large"}));
    };
    let body = body.to_bytes();
    let done = match (&parts.method, parts.uri.path()) {
        (&Method::POST, "/mint") => read::<Mint>(if body.is_empty() { b"{}" } else { &body }).and_then(|mint| {
            if mint.age < issuer.key_count() { Ok(token(issuer, &mint)) } else { Err("not so many keys".to_owned()) }
        }),
        (&Method::POST, "/do") => match read::<Action>(&body) {
            Ok(action) => {
                issuer.perform(action).await;
                Ok(json!({"done": true}))
            }
            Err(problem) => Err(problem),
        },
        (&Method::GET, "/stats") => Ok(json!({
            "fetches": issuer.hits(),
            "discoveries": issuer.discoveries(),
            "minted": issuer.minted(),
            "alive": issuer.is_alive(),
            "kid": issuer.key_id(),
        })),
        _ => return said(StatusCode::NOT_FOUND, &json!({"error": "POST /mint, POST /do, GET /stats"})),
    };
    match done {
        Ok(value) => said(StatusCode::OK, &value),
        Err(problem) => said(StatusCode::BAD_REQUEST, &json!({ "error": problem })),
    }
}

fn read<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn token(issuer: &Issuer, mint: &Mint) -> Value {
    let mut claims = issuer.claims(&mint.audience, now());
    for (name, value) in mint.claims.as_object().into_iter().flatten() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    let token = match &mint.forge {
        Some(forgery) => issuer.forge(forgery, &claims),
        None => issuer.mint_by(mint.age, &mint.header, &claims),
    };
    json!({ "token": token })
}

/// Seconds since the Unix epoch.
#[allow(clippy::disallowed_methods, reason = "an issuer has a clock of its own")]
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn said(status: StatusCode, value: &Value) -> Response<Body> {
    plain(status, "application/json", value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Wire;

    async fn ask(control: SocketAddr, head: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        let answer =
            Wire::ask(control, format!("{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    #[tokio::test]
    async fn it_mints_does_and_counts_also_while_the_issuer_is_dead() {
        let issuer = Arc::new(Issuer::start().await);
        let control = Control::bind("127.0.0.1".parse().unwrap()).await;
        let address = control.address();
        let server = tokio::spawn(control.serve(Arc::clone(&issuer)));

        let (status, minted) = ask(address, "POST /mint", r#"{"claims": {"sub": "ann", "iat": null}}"#).await;
        assert_eq!(status, 200);
        assert_eq!(minted["token"].as_str().unwrap().split('.').count(), 3);
        let (_, forged) = ask(address, "POST /mint", r#"{"forge": {"kid": "../../etc/passwd"}}"#).await;
        assert!(forged["token"].is_string(), "{forged}");

        let before = issuer.key_id();
        assert_eq!(ask(address, "POST /do", r#"{"rotate": "abrupt"}"#).await.0, 200);
        assert_ne!(issuer.key_id(), before);
        assert_eq!(ask(address, "POST /do", r#""die""#).await.0, 200);
        let (_, stats) = ask(address, "GET /stats", "").await;
        assert_eq!((&stats["minted"], &stats["alive"]), (&json!(2), &json!(false)));
        assert_eq!(ask(address, "POST /do", r#""revive""#).await.0, 200);
        assert!(issuer.is_alive());

        assert_eq!(ask(address, "POST /do", r#""dance""#).await.0, 400);
        assert_eq!(ask(address, "POST /mint", r#"{"age": 7}"#).await.0, 400);
        assert_eq!(ask(address, "GET /", "").await.0, 404);
        server.abort();
    }

    #[tokio::test]
    #[should_panic(expected = "control routes are for loopback")]
    async fn it_is_for_loopback_only() {
        Control::bind("0.0.0.0".parse().unwrap()).await;
    }
}
