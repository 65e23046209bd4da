//! `doorward demo`: the main job on one machine, with an app and a mailbox; leaves nothing behind.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use axum::Router;
use clap::Args;
use doorward_gate::{
    clock::Clock,
    mail::{Mailbox, Mailer},
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Failure, Out, serve_until_stopped};
use crate::{
    config::Config,
    demo::{self, MailboxKey},
    lifecycle::{self, Host, Signals},
    telemetry::logs::{self, LogFormat},
};

/// Where people look first; another port is taken if it is not free.
const PORT: u16 = 8080;

/// Run a demo.
#[derive(Debug, Args)]
pub struct Demo {
    /// Port of the front door; without it 8080, or a free one where that is taken.
    #[arg(long)]
    port: Option<u16>,
    /// Form of the log on stderr; `RUST_LOG` sets its level.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

impl Demo {
    pub(super) fn run(&self, clock: &Clock, out: &mut Out<'_>) -> Result<(), Failure> {
        logs::start(self.log_format);
        serve_until_stopped(self.serve(clock, out))
    }

    async fn serve(&self, clock: &Clock, out: &mut Out<'_>) -> Result<(), Failure> {
        // First of all: Ctrl-C must find nothing that it leaves behind.
        let signals = Signals::listen()?;
        let folder = Folder::make(clock)?;
        let port = free_port(self.port).await?;
        let url = format!("http://127.0.0.1:{port}");
        let (app, app_at) = Aside::serve(demo::app(&url)).await?;
        let mailbox = Mailbox::new();
        let key = MailboxKey::mint(clock.random(), clock.random());
        let (mails, mails_at) = Aside::serve(demo::mailbox(mailbox.clone(), &key)).await?;

        let text = demo::config(port, app_at.port(), &folder.0);
        let config =
            Config::parse(&text, &folder.0.join("doorward.toml"), &BTreeMap::new()).map_err(Failure::Config)?;
        let mailer = Some(Mailer::Memory(mailbox));
        let host =
            Host { clock: clock.clone(), mailer, directory: None, license: None, vars: BTreeMap::new(), is_demo: true };
        let running = lifecycle::start(&config, host).await?;

        out.line("\nThe demo is running.\n")?;
        out.line(format!("  The app behind the door   {url}/"))?;
        out.line(format!("  Its mailbox               {}", key.url(&format!("http://{mails_at}"))))?;
        out.line(format!("  Metrics and health        http://{}/metrics", running.admin))?;
        out.line("\nOpen the app, sign in with any address, read the mail in the mailbox.")?;
        out.line("Ctrl-C ends it and leaves nothing behind.\n")?;
        lifecycle::serve(running, signals).await;
        drop((app, mails, folder));
        Ok(())
    }
}

/// A small server beside the front door; ends when it is dropped.
struct Aside(#[allow(dead_code, reason = "ends the server when dropped")] DropGuard);

impl Aside {
    async fn serve(router: Router) -> Result<(Self, SocketAddr), Failure> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move { axum::serve(socket, router).with_graceful_shutdown(stopped).await });
        Ok((Self(stop.drop_guard()), address))
    }
}

/// A port on loopback that nobody uses right now.
async fn free_port(wanted: Option<u16>) -> Result<u16, Failure> {
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted.unwrap_or(PORT))).await;
    let socket = match (first, wanted) {
        (Ok(socket), _) => socket,
        (Err(error), Some(port)) => {
            return Err(Failure::Failed(format!("cannot listen on port {port}: {error}; leave out --port")));
        }
        (Err(_), None) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
    };
    Ok(socket.local_addr()?.port())
}

/// The demo's data folder; removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn make(clock: &Clock) -> Result<Self, Failure> {
        let name: String = clock.random::<6>().iter().map(|byte| format!("{byte:02x}")).collect();
        let path = std::env::temp_dir().join(format!("doorward-demo-{name}"));
        make_private(&path)?;
        Ok(Self(path))
    }
}

/// For its owner only: it holds the keys of the demo.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().mode(0o700).create(path)
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "the demo's folder could not be removed");
        }
    }
}
