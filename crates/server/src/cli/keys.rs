//! `keys`: an issuer's keys as a file, for a start without the issuer; and our own, in [`rotate`](super::rotate).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use doorward_core::{jose::KeyProblem, keys::metadata};
use doorward_gate::{
    clock::Clock,
    issuer::{self, KeySource, Probe},
};
use serde_json::json;
use url::Url;

use super::{Failure, Out, rotate::Rotate};
use crate::config::Config;

/// How long a fetch from an issuer that is not in the configuration may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Keys.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Write the keys that an issuer publishes into a file, for `first` or `jwks_file`.
    ///
    /// Exit code 0: written, or skipped because the issuer is on this machine; 1: not written, and what was there
    /// stays. The file is replaced whole or not at all.
    Fetch(Fetch),
    /// Put a new key of our own in the place of the current one; running servers follow within a second.
    ///
    /// The key before still verifies what it made, the one before that no longer does. A new session key also ends
    /// every session of everybody.
    Rotate(Rotate),
}

/// Write the keys that an issuer publishes into a file.
#[derive(Debug, Args)]
pub struct Fetch {
    /// Name of an issuer in the configuration, or its URL, which needs no configuration.
    #[arg(value_name = "ISSUER")]
    issuer: String,
    /// The file; by default the one that the issuer's `first` names, else standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Fetch also from an issuer on this machine, which is skipped otherwise.
    #[arg(long)]
    allow_loopback: bool,
}

/// What is to be fetched.
struct Wanted {
    issuer: String,
    source: KeySource,
    timeout: Duration,
    first: Option<PathBuf>,
}

impl Keys {
    pub(super) async fn run(
        &self,
        load: impl FnOnce() -> Result<Config, Failure>,
        clock: &Clock,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        match self {
            Self::Fetch(fetch) => fetch.run(load, clock, out).await,
            Self::Rotate(rotate) => rotate.run(&load()?, clock, out).await,
        }
    }
}

impl Fetch {
    async fn run(
        &self,
        load: impl FnOnce() -> Result<Config, Failure>,
        clock: &Clock,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let wanted = self.wanted(load)?;
        let file = self.out.clone().or(wanted.first.clone());
        if !self.allow_loopback && is_on_this_machine(&wanted) {
            let text = format!(
                "{} is on this machine: skipped, nothing is written (--allow-loopback fetches it)",
                self.issuer
            );
            return out.say(&json!({ "issuer": wanted.issuer, "skipped": "loopback" }), &text);
        }
        let failed = |why: String| {
            let kept = if file.is_some() { "; the file stays as it was" } else { "" };
            Failure::Failed(format!("{}: {why}{kept}", wanted.issuer))
        };
        let probe = issuer::probe(&wanted.issuer, &wanted.source, wanted.timeout, clock)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let probe = probe.ok_or_else(|| {
            Failure::Wrong(format!(
                "issuer {} has no keys to fetch: its source is {}",
                self.issuer,
                wanted.source.as_str()
            ))
        })?;
        check(&probe).map_err(failed)?;
        let Some(file) = &file else { return out.text(&String::from_utf8_lossy(&probe.document)) };
        replace(file, &probe.document, clock)
            .map_err(|error| failed(format!("cannot write {}: {error}", file.display())))?;
        let shown = json!({
            "issuer": wanted.issuer,
            "url": probe.url.as_str(),
            "file": file,
            "keys": probe.set.len(),
            "skipped": probe.set.skipped().iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        out.say(&shown, &format!("{} keys of {} written to {}", probe.set.len(), probe.url, file.display()))
    }

    fn wanted(&self, load: impl FnOnce() -> Result<Config, Failure>) -> Result<Wanted, Failure> {
        if Url::parse(&self.issuer).is_ok_and(|url| url.has_host()) {
            metadata::places(&self.issuer).map_err(|problem| Failure::Wrong(format!("{}: {problem}", self.issuer)))?;
            let source = KeySource::Discovery { origins: Vec::new() };
            return Ok(Wanted { issuer: self.issuer.clone(), source, timeout: TIMEOUT, first: None });
        }
        let config = load()?;
        let Some(found) = config.issuers.iter().find(|issuer| issuer.name.0 == self.issuer) else {
            let known: Vec<_> = config.issuers.iter().map(|issuer| issuer.name.0.as_str()).collect();
            let known = if known.is_empty() { "none is configured".to_owned() } else { known.join(", ") };
            return Err(Failure::Wrong(format!("there is no issuer `{}`; there are: {known}", self.issuer)));
        };
        Ok(Wanted {
            issuer: found.issuer.clone(),
            source: found.to_gate().source,
            timeout: found.keys.fetch_timeout,
            first: found.keys.first.as_ref().map(|first| first.path.clone()),
        })
    }
}

fn is_on_this_machine(wanted: &Wanted) -> bool {
    match &wanted.source {
        KeySource::Url(url) => metadata::is_local(url),
        KeySource::Discovery { .. } => Url::parse(&wanted.issuer).is_ok_and(|url| metadata::is_local(&url)),
        _ => false,
    }
}

/// A file that a server could not start from, or that holds a secret, is none.
fn check(probe: &Probe) -> Result<(), String> {
    let skipped = probe.set.skipped();
    if skipped.iter().any(|key| key.problem == KeyProblem::Private) {
        return Err(format!("{} publishes a private key", probe.url));
    }
    if probe.set.is_empty() {
        let why: Vec<_> = skipped.iter().map(ToString::to_string).collect();
        return Err(format!(
            "{} publishes no usable key{}{}",
            probe.url,
            if why.is_empty() { "" } else { ": " },
            why.join("; ")
        ));
    }
    if std::str::from_utf8(&probe.document).is_err() {
        return Err(format!("{} is not text", probe.url));
    }
    Ok(())
}

/// Puts `content` where `path` is, whole or not at all, also past a power cut.
fn replace(path: &Path, content: &[u8], clock: &Clock) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".new-{:016x}", u64::from_be_bytes(clock.random())));
    let draft = PathBuf::from(draft);
    let written = write_new(&draft, content).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // Nothing is left to be done if even this fails.
        let _ = fs::remove_file(&draft);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
