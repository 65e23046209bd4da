//! `doorward serve`: until it is told to stop.

use std::{pin::pin, sync::Arc, time::Duration};

use clap::Args;
use doorward_gate::{clock::Clock, flow::first_admin::invite};
use doorward_store::Readiness;
use futures_util::future::{Either, select};

use super::{Failure, Out, serve_until_stopped, variables};
use crate::{
    config::Config,
    http::{Server, first_admin},
    lifecycle::{self, Host, Signals, StartError},
    telemetry::logs::{self, LogFormat},
};

/// Between two attempts to reach the store.
const PAUSE: Duration = Duration::from_secs(1);

/// Serve.
#[derive(Debug, Args)]
pub struct Serve {
    /// Form of the log on stderr; `RUST_LOG` sets its level.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

impl Serve {
    pub(super) fn run(&self, config: &Config, clock: &Clock, out: &mut Out<'_>) -> Result<(), Failure> {
        logs::start(self.log_format);
        let host = Host {
            clock: clock.clone(),
            mailer: None,
            directory: None,
            license: None,
            vars: variables(),
            is_demo: false,
        };
        serve_until_stopped(async {
            let signals = Signals::listen()?;
            let running = lifecycle::start(config, host).await?;
            let server = Arc::clone(&running.server);
            let serving = pin!(lifecycle::serve(running, signals));
            // On this thread, which holds the standard output.
            let inviting = pin!(invite_first_admin(&server, out));
            if let Either::Right((invited, serving)) = select(serving, inviting).await {
                if let Err(error) = invited {
                    tracing::warn!(?error, "the address for the first administrator could not be printed");
                }
                serving.await;
            }
            Ok(())
        })
    }
}

/// Prints a one-time address while there is no administrator; once per start, nowhere else. Waits for the store.
async fn invite_first_admin(server: &Server, out: &mut Out<'_>) -> Result<(), Failure> {
    let (store, clock) = (server.gate.store(), server.gate.clock());
    let token = loop {
        // An error of the channel is the end of the store, and with it of this process.
        if store.ready().wait_for(|state| *state == Readiness::Ready).await.is_err() {
            return Ok(());
        }
        match invite(store, clock).await {
            Ok(Some(token)) => break token,
            Ok(None) => return Ok(()),
            Err(error) => tracing::debug!(%error, "the first administrator waits for the store"),
        }
        tokio::time::sleep(PAUSE).await;
    };
    let site = server.site();
    out.line("This installation has no administrator. Whoever opens this address within 24 hours becomes one:\n")?;
    out.line(format!("  {}{}{}?token={}\n", site.redirects.own, site.pages.base, first_admin::PATH, token.expose()))?;
    out.line("It works once. `doorward users add --admin EMAIL` makes an administrator without it.")
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Bind { .. } => Self::Failed(error.to_string()),
            StartError::Misconfigured(text) => Self::Wrong(text),
        }
    }
}
