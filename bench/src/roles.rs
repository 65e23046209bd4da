//! The servers under test. Each is this very executable, started again as a process of its own.

use std::{env, io, process::ExitCode};

use axum::Router;
use bytes::Bytes;
use doorward_core::{credential::CredentialKind, request::Scheme};
use doorward_gate::{clock::Clock, tower::GateLayer};
use doorward_store::Store;
use http::{Request, Response, Uri, header, uri::Authority};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::net::{TcpListener, TcpStream};

use crate::{house, outage};

/// Names the role; without it this is the bench.
pub(crate) const VARIABLE: &str = "BENCH_ROLE";
/// The key set of the issuer, for roles that judge tokens.
pub(crate) const KEYS: &str = "BENCH_KEYS";
/// The address of the app, for the bare proxy.
pub(crate) const APP: &str = "BENCH_APP";

/// Plays a role until the process is killed.
pub(crate) fn play(role: &str) -> ExitCode {
    if role == "doorward" {
        return doorward::cli::run();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if role == "crowd" {
        runtime.block_on(outage::crowd());
        return ExitCode::SUCCESS;
    }
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("listening {}", listener.local_addr().unwrap());
        match role {
            "plain" => axum::serve(listener, app()).await.unwrap(),
            "session" => axum::serve(listener, guarded(CredentialKind::Session).await).await.unwrap(),
            "bearer" => axum::serve(listener, guarded(CredentialKind::Bearer).await).await.unwrap(),
            "app" => each(listener, |stream| http1::Builder::new().serve_connection(stream, service_fn(answer))).await,
            "bare" => bare(listener).await,
            other => panic!("no role {other}"),
        }
    });
    ExitCode::SUCCESS
}

fn app() -> Router {
    Router::new().fallback(|| async { "ok" })
}

/// The same app inside a gate that one person has a session with.
async fn guarded(kind: CredentialKind) -> Router {
    let (store, clock) = (Store::memory(), Clock::system());
    let user = house::user(&store).await;
    println!("cookie {}", house::sign_in(&store, &user, &clock).await);
    let keys = serde_json::from_str(&env::var(KEYS).unwrap()).unwrap();
    let gate = house::gate(store, house::issuers(&keys, &clock), &clock, kind).await;
    app().layer(GateLayer::new(gate, Scheme::Http))
}

async fn each<F>(listener: TcpListener, serve: impl Fn(TokioIo<TcpStream>) -> F)
where
    F: Future<Output = hyper::Result<()>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(serve(TokioIo::new(stream)));
    }
}

/// The app behind the proxies.
async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, io::Error> {
    Ok(Response::new(Full::from("ok")))
}

/// A proxy that does nothing but pass on: the least that one made of hyper can cost.
async fn bare(listener: TcpListener) {
    let app: Authority = env::var(APP).unwrap().parse().unwrap();
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> =
        Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
    each(listener, |stream| {
        let (client, app) = (client.clone(), app.clone());
        let pass = service_fn(move |mut request: Request<Incoming>| {
            let mut uri = std::mem::take(request.uri_mut()).into_parts();
            uri.scheme = Some(http::uri::Scheme::HTTP);
            uri.authority = Some(app.clone());
            *request.uri_mut() = Uri::from_parts(uri).unwrap();
            request.headers_mut().remove(header::CONNECTION);
            client.request(request)
        });
        async move { http1::Builder::new().serve_connection(stream, pass).await }
    })
    .await;
}
