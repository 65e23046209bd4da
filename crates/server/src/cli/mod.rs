//! The command line: what is asked for, who does it, what it prints, how it ends.
//!
//! Commands act through the store, like any other process; a running server follows the revocation log.

mod audit;
pub(crate) mod blocklist;
mod check;
mod cutover;
mod demo;
mod docs;
mod explain;
mod import;
mod init;
mod jobs;
mod keys;
mod license;
pub(crate) mod mail;
mod output;
mod provider;
mod rotate;
mod serve;
mod sessions;
mod users;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use doorward_gate::clock::Clock;
use doorward_store::{Store, StoreConfigError, StoreError, StoreOptions};

#[cfg(test)]
pub(crate) use self::audit::public_audit_keys;
pub(crate) use self::output::Out;
use crate::config::{Config, PREFIX, Problems};

/// How long a command waits for the store.
const STORE_WAIT: Duration = Duration::from_secs(10);

/// The front door of a self-hosted product.
#[derive(Debug, Parser)]
#[command(name = "doorward", version, max_term_width = 100)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Configuration file.
    #[arg(long, global = true, value_name = "FILE", env = "DOORWARD_CONFIG", default_value = "doorward.toml")]
    pub config: PathBuf,
    /// Print JSON where the command prints data.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a minimal configuration; an existing file is never overwritten.
    Init(init::Init),
    /// Serve: sign people in, judge requests, carry them to their apps.
    ///
    /// SIGTERM and SIGINT drain and end it, SIGHUP reads the configuration again.
    Serve(serve::Serve),
    /// Run a demo on this machine: an app behind the door, and a mailbox for its mails.
    Demo(demo::Demo),
    /// Look at the configuration and every neighbour, and say what to do about each failure.
    ///
    /// Exit code 0: fine; 1: a neighbour is down; 2: the configuration is wrong.
    Check,
    /// Explain what happens to a request, why a token is refused, or what a decision was.
    Explain(explain::Explain),
    /// People who may sign in.
    #[command(subcommand)]
    Users(users::Users),
    /// Sessions.
    #[command(subcommand)]
    Sessions(sessions::Sessions),
    /// Licenses.
    #[command(subcommand)]
    License(license::License),
    /// The end of the soak window.
    #[command(subcommand)]
    Cutover(cutover::Cutover),
    /// Keys: of issuers, at deploy time, and our own.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Mails that were given up.
    #[command(subcommand)]
    Mail(mail::Mail),
    /// What Doorward does by itself: cleaning up, signing, deciding.
    #[command(subcommand)]
    Jobs(jobs::Jobs),
    /// Tokens and subjects that are refused.
    #[command(subcommand)]
    Blocklist(blocklist::Blocklist),
    /// The audit log.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Print or write the reference pages.
    Docs(docs::Docs),
}

/// Why a command did not do what was asked; decides the exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The configuration is wrong: exit code 2.
    Config(Problems),
    /// What was asked for cannot be right: exit code 2.
    Wrong(String),
    /// A neighbour is down, or the thing asked for is not there: exit code 1.
    Failed(String),
    /// Everything is said already.
    Said(u8),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Config(_) | Self::Wrong(_) => 2,
            Self::Failed(_) => 1,
            Self::Said(code) => *code,
        })
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // `doorward … | head` is no failure of ours.
            io::ErrorKind::BrokenPipe => Self::Said(0),
            _ => Self::Failed(format!("cannot write the output: {error}")),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<StoreConfigError> for Failure {
    fn from(error: StoreConfigError) -> Self {
        Self::Wrong(format!("store.url: {error}"))
    }
}

/// Parses the command line of this process and does what it says.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let mut stdout = io::stdout().lock();
    let outcome = execute(&cli, &mut stdout).and_then(|()| Ok(stdout.flush()?));
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    let text = match &failure {
        Failure::Config(problems) => problems.to_string(),
        Failure::Wrong(text) | Failure::Failed(text) => text.clone(),
        Failure::Said(_) => String::new(),
    };
    if !text.is_empty() {
        // Nothing is left to be done if even this cannot be said.
        let _ = writeln!(io::stderr(), "doorward: {text}");
    }
    failure.exit_code()
}

fn execute(cli: &Cli, stdout: &mut dyn io::Write) -> Result<(), Failure> {
    let out = &mut Out::new(stdout, cli.global.json);
    let clock = Clock::system();
    let load = || Config::load(&cli.global.config, &variables()).map_err(Failure::Config);
    match &cli.command {
        Command::Init(init) => init.run(&cli.global.config, out),
        Command::Serve(serve) => serve.run(&load()?, &clock, out),
        Command::Demo(demo) => demo.run(&clock, out),
        Command::Docs(docs) => docs.run(out),
        Command::Check => wait_for(check::run(load(), &clock, out)),
        Command::License(license) => license.run(&load()?, &clock, out),
        Command::Explain(explain) => wait_for(explain.run(&load()?, &clock, out)),
        Command::Users(users) => {
            let config = load()?;
            let outcome = with_store(&config, &clock, async |store| users.run(store, &config, &clock, out).await);
            // Whoever runs an import in a script tells "some rows are broken" from "it did not run" by the code.
            outcome.map_err(|failure| match (users, failure) {
                (users::Users::Import(_), Failure::Failed(text)) => Failure::Wrong(text),
                (_, failure) => failure,
            })
        }
        Command::Sessions(sessions) => {
            with_store(&load()?, &clock, async |store| sessions.run(store, &clock, out).await)
        }
        Command::Cutover(cutover) => {
            let config = load()?;
            with_store(&config, &clock, async |store| cutover.run(store, &config, &clock, out).await)
        }
        Command::Keys(keys) => wait_for(keys.run(load, &clock, out)),
        Command::Mail(mail) => with_store(&load()?, &clock, async |store| mail.run(store, &clock, out).await),
        Command::Jobs(jobs) => {
            let config = load()?;
            with_store(&config, &clock, async |store| jobs.run(store, &config, &clock, out).await)
        }
        Command::Blocklist(blocklist) => {
            let config = load()?;
            with_store(&config, &clock, async |store| blocklist.run(store, &config, &clock, out).await)
        }
        Command::Audit(audit) => audit.run(load, &clock, out),
    }
}

/// The variables that override the configuration.
fn variables() -> BTreeMap<String, String> {
    let all = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    all.filter(|(name, _)| name.starts_with(PREFIX)).collect()
}

fn wait_for<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    runtime.block_on(work)
}

/// Like [`wait_for`], on all cores.
fn serve_until_stopped(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(work);
    // What still runs was told to end; a stuck thread must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

/// Opens the store, waits until it can be used, and lets go of it in order.
fn with_store(
    config: &Config,
    clock: &Clock,
    work: impl AsyncFnOnce(&Store) -> Result<(), Failure>,
) -> Result<(), Failure> {
    wait_for(async {
        let store = open_store(config, clock)?;
        store.wait_ready(STORE_WAIT).await?;
        let outcome = work(&store).await;
        store.close().await;
        outcome
    })
}

fn open_store(config: &Config, clock: &Clock) -> Result<Store, Failure> {
    Ok(Store::open(&config.store.url.expose(), StoreOptions::new(&config.data_dir, clock.random()))?)
}
