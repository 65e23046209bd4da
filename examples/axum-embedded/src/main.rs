//! ```sh
//! export ISSUER=https://sso.example.com/realms/main
//! export JWKS_URL=https://sso.example.com/realms/main/protocol/openid-connect/certs
//! export AUDIENCE=app
//! cargo run -p axum-embedded
//! curl -i http://127.0.0.1:3000/public                                  # 200
//! curl -i http://127.0.0.1:3000/api/me                                  # 401 and why
//! curl -i http://127.0.0.1:3000/api/me -H "Authorization: Bearer …"     # 200 and who
//! ```
//!
//! Instead of `JWKS_URL`, `JWKS` takes the key set itself. `LISTEN` and `HOST` say where (`127.0.0.1:3000`) and
//! under which name (`127.0.0.1`) it is reached. Without any of them it starts all the same, with an issuer
//! on loopback that is not there: every token then gets 503 `keys_unavailable`, and `/public` works.

use std::{env, net::SocketAddr};

use anyhow::Context as _;
use axum_embedded::{Door, Keys, Settings};
use doorward_core::jose::JwkSet;
use doorward_gate::clock::Clock;
use tokio::{net::TcpListener, sync::oneshot};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let door = Door::new(&settings()?, Clock::system())?;

    // The gate's work runs beside the server and ends after it.
    let (stop, stopped) = oneshot::channel::<()>();
    let (app, work) = door.open(async {
        // Told to, or everybody who could tell is gone.
        let _ = stopped.await;
    });
    let work = tokio::spawn(work);

    let listener = TcpListener::bind(var("LISTEN", "127.0.0.1:3000")).await.context("LISTEN")?;
    say(listener.local_addr()?);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app).with_graceful_shutdown(interrupted()).await?;

    drop(stop);
    work.await?;
    Ok(())
}

fn settings() -> anyhow::Result<Settings> {
    let keys = match env::var("JWKS") {
        Ok(text) => Keys::Inline(
            JwkSet::parse(text.as_bytes()).map_err(|error| anyhow::anyhow!("JWKS is no key set: {error}"))?,
        ),
        Err(_) => Keys::Url(var("JWKS_URL", "http://127.0.0.1:9000/jwks.json").parse().context("JWKS_URL")?),
    };
    Ok(Settings {
        host: var("HOST", "127.0.0.1"),
        issuer: var("ISSUER", "http://127.0.0.1:9000"),
        audience: var("AUDIENCE", "app"),
        keys,
    })
}

fn var(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

#[allow(clippy::print_stdout, reason = "the one line that a person looks for")]
fn say(address: SocketAddr) {
    println!("listening on http://{address}; /public is open, /api/me wants a token");
}

async fn interrupted() {
    // Without a handler for Ctrl-C the system's own ends the process, which is as good here.
    let _ = tokio::signal::ctrl_c().await;
}
