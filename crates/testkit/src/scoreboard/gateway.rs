//! A gateway under test, asked over HTTP.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::{sleep, timeout};

use super::subject::{PATIENCE, START, Setup, Verdict};
use crate::{
    port,
    process::{Process, Signal},
    upstream::EchoApp,
};

/// The running gateway, with the app behind it.
pub(super) struct Gateway {
    process: Process,
    address: SocketAddr,
    client: Client<HttpConnector, Empty<Bytes>>,
    _app: Option<EchoApp>,
}

impl Gateway {
    /// Starts a program that listens where `LISTEN` says.
    pub(super) async fn start(mut command: Command) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
        command.env("LISTEN", address.to_string());
        let process = Process::start("the gateway", &mut command);
        let gateway = Self::at(process, address, None);
        assert!(port::opens(address, START).await, "its port stays closed:\n{}", gateway.process.output());
        gateway
    }

    /// Starts Doorward, and waits until it is ready.
    pub(super) async fn doorward(program: &Path, setup: &Setup) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
        let app = EchoApp::start().await;
        fs::write(setup.state.join("doorward.toml"), config(address, &app.url(), setup)).unwrap();
        let mut command = Command::new(program);
        command.current_dir(&setup.state).arg("serve");
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("DOORWARD_") || name == "RUST_LOG" {
                command.env_remove(&*name);
            }
        }
        let process = Process::start("doorward", &mut command);
        let gateway = Self::at(process, address, Some(app));
        let ready = async {
            while gateway.status("/readyz", None).await != Some(StatusCode::OK) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let is_ready = timeout(START, ready).await.is_ok();
        assert!(is_ready, "it did not get ready:\n{}", gateway.process.output());
        gateway
    }

    fn at(process: Process, address: SocketAddr, app: Option<EchoApp>) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { process, address, client, _app: app }
    }

    pub(super) async fn verify(&self, token: &str) -> Verdict {
        match timeout(PATIENCE, self.ask("/api/thing", Some(token))).await.ok().flatten() {
            Some((status, _)) if status.is_success() => Verdict::Accepted,
            Some((status, why)) if matches!(status.as_u16(), 400 | 401 | 403 | 431) => Verdict::Refused(why),
            Some((_, why)) => Verdict::Unavailable(why),
            None => Verdict::Silent,
        }
    }

    async fn status(&self, path: &str, token: Option<&str>) -> Option<StatusCode> {
        self.ask(path, token).await.map(|(status, _)| status)
    }

    async fn ask(&self, path: &str, token: Option<&str>) -> Option<(StatusCode, String)> {
        let mut request = Request::get(format!("http://{}{path}", self.address));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = self.client.request(request.body(Empty::new()).unwrap()).await.ok()?;
        let status = answer.status();
        let reason = answer.headers().get("x-doorward-reason").and_then(|value| value.to_str().ok());
        let why = reason.map_or_else(|| status.to_string(), |reason| format!("{} {reason}", status.as_u16()));
        answer.into_body().collect().await.ok()?;
        Some((status, why))
    }

    pub(super) fn process_id(&self) -> u32 {
        self.process.id()
    }

    pub(super) async fn stop(mut self) {
        self.process.signal(Signal::TERM);
        self.process.exit(START).await;
    }
}

fn config(address: SocketAddr, app: &str, setup: &Setup) -> String {
    let seconds = |name: &str, value: Option<Duration>| {
        value.map(|value| format!(", {name} = \"{}s\"", value.as_secs())).unwrap_or_default()
    };
    let algorithms: Vec<_> = setup.algorithms.iter().map(|name| format!("{name:?}")).collect();
    format!(
        r#"public_url = "http://{address}"
[listen]
http = "{address}"
admin = "127.0.0.1:0"
[apps.web]
upstream = "{app}"
[[rules]]
path = "/api/*"
allow = ["bearer"]
app = "web"
[[issuers]]
name = "evil"
issuer = "{issuer}"
audiences = ["{audience}"]
algorithms = [{algorithms}]
clock_tolerance = "{tolerance}s"
keys = {{ jwks_url = "{jwks_url}"{min_interval}{max_stale} }}
"#,
        issuer = setup.issuer,
        audience = setup.audience,
        algorithms = algorithms.join(", "),
        tolerance = setup.clock_tolerance.as_secs(),
        jwks_url = setup.jwks_url,
        min_interval = seconds("min_interval", setup.min_interval),
        max_stale = seconds("max_stale", setup.max_stale),
    )
}
