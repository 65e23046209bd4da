//! The configuration: one TOML file, variables over it, every problem at once.
//!
//! Each key has one definition ([`key`]), from which its reader, its remedy and its row of
//! `docs/reference/config.md` come. Reading is pure but for the files that keys name; the environment
//! is handed in. What comes out is plain data: nothing is bound, opened or fetched.

mod apps;
mod available;
mod env;
mod headers;
mod issuers;
mod jobs;
mod key;
mod legacy;
mod license;
mod listen;
mod login;
mod mail;
mod problem;
mod read;
mod resolved;
mod root;
mod rules;
mod scalar;
mod secrets;
mod session;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod tree;
mod urls;

use std::{
    collections::BTreeMap,
    ops::Deref,
    path::{Path, PathBuf},
};

pub(crate) use self::license::is_uuid;
pub use self::{
    apps::{App, IDENTITY_FIELDS, IdentityHeader, Timeout},
    env::PREFIX,
    headers::{Headers, Hsts},
    issuers::{Alias, FirstFile, Issuer, IssuerName, KeyFile, KeySet, KeySource, Keys},
    jobs::{Jobs, When},
    key::{Key, Presence, Section, Shape},
    legacy::Legacy,
    license::{License, Provider},
    listen::{Listen, Tls},
    login::Login,
    mail::{Mail, MailUrl, SmtpUrl, Transport},
    problem::{Problem, Problems},
    resolved::ResolvedApp,
    root::{BasePath, Settings},
    rules::{Admit, MethodName, Require, Rule},
    scalar::{Mailbox, SecretText, parse_duration},
    secrets::{RootSecret, Secrets},
    session::Session,
    shared::{RedisUrl, Shared},
    store::{Store, StoreUrl},
    urls::{HostName, PublicUrl, RemoteUrl, Upstream},
};
use self::{key::Field as _, problem::Place, read::Reader};

/// Largest configuration file.
const MAX_FILE: u64 = 4 << 20;

/// A configuration without problems. Its keys are the fields of [`Settings`], reached directly.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from.
    pub file: PathBuf,
    /// The root secret, from `[secrets]`.
    pub root_secret: RootSecret,
    settings: Settings,
}

impl Deref for Config {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

impl Config {
    /// Reads `file` with `vars` over it.
    ///
    /// `vars` is the environment; names outside [`PREFIX`] are ignored.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first thing.
    pub fn load(file: &Path, vars: &BTreeMap<String, String>) -> Result<Self, Problems> {
        let whole = |what: String, remedy: &str| {
            Problems(vec![Problem::new(file, &Place::Whole, String::new(), what, remedy.into())])
        };
        match std::fs::metadata(file) {
            Ok(about) if about.len() > MAX_FILE => {
                return Err(whole(format!("the file is larger than {MAX_FILE} bytes"), "give a configuration file"));
            }
            Ok(_) => {}
            Err(error) => {
                let remedy = "give its path with --config, or write a new one with `doorward init`";
                return Err(whole(format!("cannot read the file: {error}"), remedy));
            }
        }
        let text = std::fs::read_to_string(file)
            .map_err(|error| whole(format!("cannot read the file: {error}"), "make it a readable UTF-8 text file"))?;
        Self::parse(&text, file, vars)
    }

    /// Reads `text` as the content of `file`, which need not exist; its folder is what relative paths start at.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, file: &Path, vars: &BTreeMap<String, String>) -> Result<Self, Problems> {
        let mut cx = Reader::new(file);
        let (mut tree, syntax) = tree::parse_file(text);
        for error in &syntax {
            cx.problem_for(
                &error.at,
                String::new(),
                format!("not TOML: {}", error.message),
                "correct the syntax; https://toml.io describes it".into(),
            );
        }
        let read = Settings::section().and_then(|section| {
            env::overlay(&mut tree, vars, section, &mut cx);
            Settings::read(tree, &mut cx, &root::KEY)
        });
        let resolved = read.map(|settings| {
            let root_secret = settings.check_whole(&mut cx);
            available::check(&settings, &mut cx);
            (settings, root_secret)
        });
        let mut problems = cx.into_problems();
        if !syntax.is_empty() {
            // What follows a broken line is guesswork: keep what stands elsewhere, drop what may be missing only there.
            let broken: Vec<_> = problems.iter().filter(|p| p.key.is_empty()).map(|p| p.line).collect();
            problems.retain(|p| p.key.is_empty() || (p.what != read::MISSING && !broken.contains(&p.line)));
        }
        match resolved {
            Some((settings, root_secret)) if problems.is_empty() => {
                Ok(Self { file: file.to_owned(), root_secret, settings })
            }
            _ => Err(Problems::sorted(problems)),
        }
    }

    /// The definition of every key, for references.
    pub fn keys() -> &'static Section {
        const EMPTY: Section = Section { doc: "", keys: &[] };
        Settings::section().unwrap_or(&EMPTY)
    }
}
