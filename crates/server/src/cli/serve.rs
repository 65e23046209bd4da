//! `doorward serve`: until it is told to stop.

use clap::Args;
use doorward_gate::clock::Clock;

use super::{Failure, serve_until_stopped, variables};
use crate::{
    config::Config,
    lifecycle::{self, Host, Signals, StartError},
    telemetry::logs::{self, LogFormat},
};

/// Serve.
#[derive(Debug, Args)]
pub struct Serve {
    /// Form of the log on stderr; `RUST_LOG` sets its level.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

impl Serve {
    pub(super) fn run(&self, config: &Config, clock: &Clock) -> Result<(), Failure> {
        logs::start(self.log_format);
        let host = Host { clock: clock.clone(), mailer: None, vars: variables(), is_demo: false };
        serve_until_stopped(async {
            let signals = Signals::listen()?;
            let running = lifecycle::start(config, host).await?;
            lifecycle::serve(running, signals).await;
            Ok(())
        })
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Bind { .. } => Self::Failed(error.to_string()),
            StartError::Misconfigured(text) => Self::Wrong(text),
        }
    }
}
