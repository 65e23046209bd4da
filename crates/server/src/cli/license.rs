//! `license`: is this license key or file genuine, and what does it allow?

mod clock;
mod forget;
mod validate;

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use clap::{Args, Subcommand};
use doorward_core::{
    keygen::{
        AccountKeys, Algorithm, Document, FileKind, License as Held, LicenseFile, MAX_FILE_BYTES, Problem, Scheme,
        Sealed, verify_key,
    },
    license::{Known, LicensePolicy, Standing, Verdict, derive},
    secret::Secret,
    time::Timestamp,
};
use doorward_gate::clock::Clock;
use serde_json::{Map, Value};

use super::{
    Failure, Out,
    output::{distance, printable, time},
    wait_for, with_store,
};
use crate::config::Config;

/// Licenses.
#[derive(Debug, Subcommand)]
pub enum License {
    /// Verify a license key or a license file with the keys of `[license]`; asks nobody.
    ///
    /// Exit code 0: genuine and usable; 1: forged, for somebody else, or over.
    Verify(Verify),
    /// Show the time by which licenses are judged, which a clock that is set back does not move; or begin it anew.
    ///
    /// For after a clock that was far ahead: set the clocks of all servers first, or they lead it astray again. It is
    /// audited.
    Clock(clock::Clock),
    /// Ask the provider of `[license]` about one license now: `keygen` and `jwt`. Nothing is written down.
    ///
    /// Keygen tells its webhook endpoints of it (`license.validation.*`), and a license whose time begins with its first
    /// validation begins. Exit code 0: usable; 1: not usable, or the provider is down; 2: the provider's answer is not
    /// believed, or it refuses us.
    Validate(validate::Validate),
    /// Forget what is known of the license of this installation (provider `file`), so that the file in its place counts
    /// however old it is. Without this, no license takes the place of one that was issued later.
    Forget,
}

/// Verify a license key or a license file.
#[derive(Debug, Args)]
pub struct Verify {
    /// A license file, a file that holds a license key, or a license key; `-` reads standard input.
    #[arg(value_name = "KEY-OR-FILE")]
    subject: String,
    /// How the policy makes its license keys; default: `license.scheme`.
    #[arg(long, value_name = "SCHEME", value_parser = parse_scheme)]
    scheme: Option<Scheme>,
    /// A file with the license key that opens an encrypted license file.
    #[arg(long, value_name = "FILE")]
    license_key_file: Option<std::path::PathBuf>,
    /// The machine's fingerprint, for a machine file.
    #[arg(long, value_name = "TEXT", default_value = "")]
    fingerprint: String,
}

fn parse_scheme(text: &str) -> Result<Scheme, String> {
    Scheme::parse(text).ok_or_else(|| {
        let names: Vec<&str> = Scheme::ALL.iter().map(|scheme| scheme.as_str()).collect();
        format!("no scheme of Keygen's; one of {}", names.join(", "))
    })
}

/// What was verified, in parts for people and programs.
#[derive(Default)]
struct Report {
    json: Map<String, Value>,
    lines: Vec<(&'static str, String)>,
}

impl Report {
    fn say(&mut self, name: &'static str, text: impl Into<String>) {
        let text = printable(&text.into());
        self.json.insert(name.replace(' ', "_"), text.clone().into());
        self.lines.push((name, text));
    }

    fn time(&mut self, name: &'static str, at: Timestamp, now: Timestamp) {
        self.json.insert(name.replace(' ', "_"), time(at).into());
        self.lines.push((name, format!("{} ({})", time(at), distance(at, now))));
    }

    fn print(&self, out: &mut Out<'_>) -> Result<(), Failure> {
        if out.json {
            return out.json(&self.json);
        }
        self.lines.iter().try_for_each(|(name, text)| out.line(format!("{name:<14}{text}")))
    }
}

impl License {
    pub(super) fn run(&self, config: &Config, clock: &Clock, out: &mut Out<'_>) -> Result<(), Failure> {
        match self {
            Self::Verify(verify) => verify.run(config, clock.now().wall, out),
            Self::Clock(command) => with_store(config, clock, async |store| command.run(store, clock, out).await),
            Self::Validate(validate) => wait_for(validate.run(config, clock, out)),
            Self::Forget => with_store(config, clock, async |store| forget::run(store, config, clock, out).await),
        }
    }
}

impl Verify {
    fn run(&self, config: &Config, now: Timestamp, out: &mut Out<'_>) -> Result<(), Failure> {
        let keys = config.license.account_keys();
        if keys.is_empty() {
            return Err(Failure::Wrong("license.public_keys is empty: pin the keys of the account".to_owned()));
        }
        let text = read(&self.subject)?;
        let mut report = Report::default();
        let outcome = if text.trim_start().starts_with("-----BEGIN ") {
            self.file(&text, &keys, config, now, &mut report)
        } else {
            let scheme = self.scheme.unwrap_or(config.license.scheme);
            key(&text, scheme, &keys, &mut report)
        };
        if let Err(problem) = &outcome {
            report.say("verdict", format!("not genuine or not for us: {problem}"));
        }
        report.json.insert("genuine".to_owned(), outcome.is_ok().into());
        report.print(out)?;
        if outcome.is_ok_and(|is_usable| is_usable) { Ok(()) } else { Err(Failure::Said(1)) }
    }

    fn file(
        &self,
        text: &str,
        keys: &AccountKeys,
        config: &Config,
        now: Timestamp,
        report: &mut Report,
    ) -> Result<bool, Problem> {
        let is_machine = text.trim_start().starts_with("-----BEGIN MACHINE FILE");
        let kind = if is_machine { FileKind::Machine } else { FileKind::License };
        report.say("kind", if is_machine { "machine file" } else { "license file" });
        let pinned = Algorithm::ALL.iter().filter(|algorithm| keys.has(**algorithm));
        let allowed: Vec<(Sealed, Algorithm)> =
            pinned.flat_map(|algorithm| [(Sealed::Plain, *algorithm), (Sealed::Encrypted, *algorithm)]).collect();
        let file = LicenseFile::verify(text, kind, &allowed, keys)?;
        report.say("signature", format!("fits, {}", file.algorithm.as_str()));
        let license_key = match &self.license_key_file {
            Some(path) => read_file(path).map(|text| Some(Secret::new(text.trim().to_owned()))),
            None => Ok(None),
        };
        let license_key = license_key.map_err(|_| Problem::NotOpened)?;
        let document = file.open(license_key.as_ref(), &self.fingerprint)?;
        let license = Held::of_document(&document)?;
        describe(&license, &document, now, report);
        for (what, wanted, found) in [
            ("account", &config.license.account, &license.account),
            ("product", &config.license.product, &license.product),
        ] {
            if wanted.is_some() && found.is_some() && wanted != found {
                report.say("for", format!("another {what} than license.{what}"));
                return Ok(false);
            }
        }
        if document.issued > now {
            report.say("verdict", "issued in the future: this clock or that of the issuer is wrong");
            return Ok(false);
        }
        if document.expires_at.is_some_and(|end| end <= now) {
            report.say("verdict", "the file has ended: fetch a new one");
            return Ok(false);
        }
        let policy = LicensePolicy { trust_for: config.license.trust_for, grace: config.license.grace };
        let known = Known { observation: license.observe(document.issued), confirmed_at: now };
        let standing = derive(Some(&known), &policy, now, now);
        report.say("verdict", verdict(&standing, now));
        Ok(!matches!(standing.verdict, Verdict::Deny { .. }))
    }
}

fn key(text: &str, scheme: Scheme, keys: &AccountKeys, report: &mut Report) -> Result<bool, Problem> {
    report.say("kind", "license key");
    report.say("scheme", scheme.as_str());
    let data = verify_key(text, scheme, keys)?;
    report.say("signature", "fits");
    report.say("says", String::from_utf8_lossy(&data));
    report.say("verdict", "genuine; renewal, suspension and revocation are not in a key, ask the server for those");
    Ok(true)
}

fn describe(license: &Held, document: &Document, now: Timestamp, report: &mut Report) {
    report.say("license", license.id.as_str());
    for (name, text) in [("account", &license.account), ("product", &license.product), ("owner", &license.owner)] {
        if let Some(text) = text {
            report.say(name, text.as_str());
        }
    }
    if let Some(status) = &license.status {
        report.say("status", format!("{status}, when the file was issued"));
    }
    report.time("issued", document.issued, now);
    if let Some(end) = document.expires_at {
        report.time("file ends", end, now);
    }
    match license.expires_at {
        Some(end) => report.time("expires", end, now),
        None => report.say("expires", "never"),
    }
    let entitlements: Vec<&str> = license.entitlements.iter().map(String::as_str).collect();
    report.say("entitlements", if entitlements.is_empty() { "none".to_owned() } else { entitlements.join(", ") });
}

fn verdict(standing: &Standing, now: Timestamp) -> String {
    let until = standing.until.map(|at| format!(" until {} ({})", time(at), distance(at, now))).unwrap_or_default();
    match standing.verdict {
        Verdict::Allow => format!("usable{until}"),
        Verdict::ReadOnly { reason } => format!("reading only{until}: {}", reason.code()),
        Verdict::Deny { reason } => format!("refused: {}", reason.code()),
    }
}

/// The text behind `subject`: standard input, a file, or itself.
fn read(subject: &str) -> Result<String, Failure> {
    if subject == "-" {
        let mut text = String::new();
        let limit = MAX_FILE_BYTES as u64 + 1;
        let read = io::stdin().lock().take(limit).read_to_string(&mut text);
        read.map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
        return Ok(text);
    }
    let path = Path::new(subject);
    if path.is_file() { read_file(path) } else { Ok(subject.to_owned()) }
}

fn read_file(path: &Path) -> Result<String, Failure> {
    let failed = |what: String| Failure::Failed(format!("{}: {what}", path.display()));
    let size = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > MAX_FILE_BYTES as u64 {
        return Err(failed(format!("longer than {MAX_FILE_BYTES} bytes")));
    }
    fs::read_to_string(path).map_err(|error| failed(error.to_string()))
}
