//! The keys at the top of the file, and the checks that look at more than one section.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use doorward_core::ring::RootSecret as Root;

use super::{
    apps::App,
    headers::Headers,
    issuers::Issuer,
    jobs::Jobs,
    key::{Key, Presence, Shape, settings},
    legacy::Legacy,
    license::License,
    listen::Listen,
    login::Login,
    mail::Mail,
    read::Reader,
    rules::Rule,
    scalar::{Scalar, scalar_field, shown},
    secrets::{RootSecret, Secrets},
    session::Session,
    shared::Shared,
    store::Store,
    urls::PublicUrl,
};

settings! {
    /// The keys at the top of the file.
    pub struct Settings {
        /// Where people reach this installation. http is for loopback only; requests for other hosts get 421.
        public_url: PublicUrl = required "https://app.example.com";
        /// Path under which Doorward's own routes live.
        base_path: BasePath = default "/auth";
        /// Folder for the database and what Doorward makes itself.
        data_dir: PathBuf = default "./data";
        /// Whether to serve the paths of the hub that Doorward replaces as well.
        compat_paths: bool = default false;
        /// Where Doorward listens.
        listen: Listen = table {};
        /// The root secret.
        secrets: Secrets = table {};
        /// The database.
        store: Store = table {};
        /// Redis.
        shared: Shared = optional { url = "redis://127.0.0.1:6379" };
        /// Sessions.
        session: Session = table {};
        /// Mail.
        mail: Mail = optional { url = "smtp://127.0.0.1:1025", from = "login@example.com" };
        /// Sign-in.
        login: Login = table {};
        /// Security headers of our own answers.
        headers: Headers = table {};
        /// The soak window of a migration.
        legacy: Legacy = optional { allow = false };
        /// Issuers of tokens.
        issuers: Vec<Issuer> = default [];
        /// License provider.
        license: License = table {};
        /// When jobs run.
        jobs: Jobs = table {};
        /// Apps by name.
        apps: BTreeMap<String, App> = default {};
        /// Rules, in the order in which they are tried.
        rules: Vec<Rule> = default [];
    }
}

const REMEDY: &str = "give 32 or more random characters (`openssl rand -hex 32`)";

/// The file as a whole, as if it were a key.
pub(super) static KEY: Key = Key {
    name: "",
    kind: "table",
    hint: "a table",
    presence: Presence::Table,
    or_file: false,
    doc: "",
    shape: Shape::Table,
    section: <Settings as super::key::Field>::section,
};

scalar_field!(BasePath);

/// The path under which our own routes live: `/auth`. Never ends in a slash, never the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasePath(String);

impl BasePath {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for BasePath {
    const TYPE: &'static str = "path";
    const HINT: &'static str = "a path of plain segments, such as /auth";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let is_plain = |segment: &str| {
            !segment.is_empty()
                && !matches!(segment, "." | "..")
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
        };
        match text.strip_prefix('/') {
            Some("") => Err("our own routes outrank the rules, so at the root they would hide the apps".into()),
            Some(rest) if text.len() <= 128 && rest.split('/').all(is_plain) => Ok(Self(text.to_owned())),
            _ => Err(format!("`{}` is not a path of plain segments", shown(text))),
        }
    }
}

impl Settings {
    /// What no section can judge alone. Gives the root secret back, for which the store matters.
    pub(super) fn check_whole(&self, cx: &mut Reader<'_>) -> RootSecret {
        self.check_apps(cx);
        self.check_issuers(cx);
        if self.headers.hsts.is_some() && !self.public_url.is_https() {
            let what = "`public_url` is http, and browsers take this header over https alone";
            cx.problem_in("headers.hsts", what, "remove it, or make `public_url` https");
        }
        self.root_secret(cx)
    }

    fn check_apps(&self, cx: &mut Reader<'_>) {
        let is_name = |name: &str| {
            (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        for name in self.apps.keys().filter(|name| !is_name(name)) {
            cx.problem_in(
                &format!("apps.{name}"),
                "not a name for an app",
                "use letters, digits, `-` and `_`, 64 at most",
            );
        }
        for (i, rule) in self.rules.iter().enumerate() {
            if let Some(name) = rule.app.as_deref().filter(|name| !self.apps.contains_key(*name)) {
                let known: Vec<_> = self.apps.keys().map(String::as_str).collect();
                let remedy = if known.is_empty() {
                    format!("add [apps.{}] with its `upstream`", shown(name))
                } else {
                    format!("add [apps.{}], or name one of {}", shown(name), known.join(", "))
                };
                cx.problem_in(&format!("rules[{i}].app"), format!("there is no app `{}`", shown(name)), remedy);
            }
        }
    }

    fn check_issuers(&self, cx: &mut Reader<'_>) {
        let mut names = BTreeSet::new();
        let mut issuers = BTreeSet::new();
        for (i, issuer) in self.issuers.iter().enumerate() {
            if !names.insert(issuer.name.0.as_str()) {
                let what = format!("a second issuer is called `{}`", issuer.name.0);
                cx.problem_in(&format!("issuers[{i}].name"), what, "choose another name");
            }
            let own = std::iter::once(("issuer".to_owned(), &issuer.issuer));
            let aliases = issuer.aliases.iter().enumerate();
            let aliases = aliases.map(|(n, alias)| (format!("aliases[{n}].issuer"), &alias.issuer));
            for (name, value) in own.chain(aliases) {
                if !issuers.insert(value) {
                    let what = "another entry accepts this `iss` already, so its keys would be ambiguous";
                    cx.problem_in(&format!("issuers[{i}].{name}"), what, "keep it in one entry");
                }
            }
        }
        if let Some(name) = &self.license.issuer
            && !names.contains(name.as_str())
        {
            let what = format!("there is no issuer `{}`", shown(name));
            cx.problem_in("license.issuer", what, "name an [[issuers]] entry");
        }
    }

    fn root_secret(&self, cx: &mut Reader<'_>) -> RootSecret {
        let nowhere = RootSecret::MakeAt(self.data_dir.join("root.key"));
        if let Some(root) = &self.secrets.root {
            return Root::parse(root.0.expose().as_bytes()).map_or_else(
                |error| {
                    cx.problem_in("secrets.root", error.to_string(), REMEDY);
                    nowhere
                },
                RootSecret::Given,
            );
        }
        let is_shared = self.store.url.is_shared();
        let path = match &self.secrets.root_file {
            Some(path) => path.clone(),
            None if is_shared => {
                cx.problem_in(
                    "secrets.root_file",
                    "with PostgreSQL the root secret must be given: replicas that invent their own cannot read each other's keys",
                    "write 32 or more random characters to a file (`openssl rand -hex 32`) and name it in `root_file`",
                );
                return nowhere;
            }
            None => self.data_dir.join("root.key"),
        };
        if !is_shared && !path.exists() {
            return RootSecret::MakeAt(path);
        }
        match cx.read_file(&path) {
            Ok(text) => match Root::parse(text.as_bytes()) {
                Ok(root) => RootSecret::Given(root),
                Err(error) => {
                    cx.problem_in("secrets.root_file", format!("{}: {error}", path.display()), REMEDY);
                    nowhere
                }
            },
            Err(what) => {
                cx.problem_in("secrets.root_file", what, format!("make {} a readable file", path.display()));
                nowhere
            }
        }
    }
}
