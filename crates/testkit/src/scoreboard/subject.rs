//! The verifier under test: a process that answers "verify this token".

use std::{path::PathBuf, process::Command, time::Duration};

use super::{gateway::Gateway, lines::Lines};

/// Longest wait for one answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Longest wait until a process is there, or gone.
pub(super) const START: Duration = Duration::from_mins(1);

/// What a verifier is told about the issuer.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `iss`.
    pub issuer: String,
    /// Address of the key set.
    pub jwks_url: String,
    /// `aud`.
    pub audience: String,
    /// Algorithms that tokens may use.
    pub algorithms: Vec<&'static str>,
    /// Tolerance between clocks.
    pub clock_tolerance: Duration,
    /// Shortest time between fetches that unknown keys may cause; `None`: its default.
    pub min_interval: Option<Duration>,
    /// How long keys may be used without being confirmed; `None`: its default.
    pub max_stale: Option<Duration>,
    /// How long keys need no confirmation; `None`: its default.
    pub fresh_for: Option<Duration>,
    /// A folder that survives a restart.
    pub state: PathBuf,
}

/// What a verifier says to a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is good.
    Accepted,
    /// It is not; with the verifier's word for why.
    Refused(String),
    /// It cannot say now; with its word for why.
    Unavailable(String),
    /// No answer in time, or a dead process.
    Silent,
}

/// How a verifier is started.
#[derive(Clone, Debug)]
pub enum Launcher {
    /// A program that reads `ID TOKEN` lines and answers `ID accept`, `ID refuse WHY` or `ID unavailable WHY`, in any order.
    ///
    /// What it should know is in its environment: `ISSUER`, `JWKS_URL`, `AUDIENCE`, `ALGORITHMS` (comma-separated),
    /// `CLOCK_TOLERANCE`, `MIN_INTERVAL`, `MAX_STALE`, `FRESH_FOR` (milliseconds, the last three absent for its defaults)
    /// and `STATE` (a folder that survives a restart). It prints `ready` when it reads.
    Lines(Vec<String>),
    /// A program that serves HTTP at `LISTEN` (from its environment, which also has the above), and lets
    /// `Authorization: Bearer` pass (2xx), refuses it (401, 403, 400), or cannot say (anything else).
    Gateway(Vec<String>),
    /// The executable of Doorward, as a reverse proxy with a rule for bearer tokens.
    Doorward(PathBuf),
}

/// A running verifier. Dropping it ends its process.
pub(super) enum Subject {
    Lines(Lines),
    Gateway(Gateway),
}

impl Launcher {
    /// Starts it, and waits until it answers.
    pub(super) async fn start(&self, setup: &Setup) -> Subject {
        match self {
            Self::Lines(words) => Subject::Lines(Lines::start(command(words, setup)).await),
            Self::Gateway(words) => Subject::Gateway(Gateway::start(command(words, setup)).await),
            Self::Doorward(program) => Subject::Gateway(Gateway::doorward(program, setup).await),
        }
    }
}

impl Subject {
    pub(super) async fn verify(&self, token: &str) -> Verdict {
        match self {
            Self::Lines(lines) => lines.verify(token).await,
            Self::Gateway(gateway) => gateway.verify(token).await,
        }
    }

    pub(super) fn process_id(&self) -> u32 {
        match self {
            Self::Lines(lines) => lines.process_id(),
            Self::Gateway(gateway) => gateway.process_id(),
        }
    }

    /// Ends it and waits for that.
    pub(super) async fn stop(self) {
        match self {
            Self::Lines(lines) => drop(lines),
            Self::Gateway(gateway) => gateway.stop().await,
        }
    }
}

fn command(words: &[String], setup: &Setup) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    let milliseconds = |duration: Duration| duration.as_millis().to_string();
    for (name, value) in [
        ("ISSUER", Some(setup.issuer.clone())),
        ("JWKS_URL", Some(setup.jwks_url.clone())),
        ("AUDIENCE", Some(setup.audience.clone())),
        ("ALGORITHMS", Some(setup.algorithms.join(","))),
        ("CLOCK_TOLERANCE", Some(milliseconds(setup.clock_tolerance))),
        ("MIN_INTERVAL", setup.min_interval.map(milliseconds)),
        ("MAX_STALE", setup.max_stale.map(milliseconds)),
        ("FRESH_FOR", setup.fresh_for.map(milliseconds)),
        ("STATE", Some(setup.state.display().to_string())),
    ] {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}
