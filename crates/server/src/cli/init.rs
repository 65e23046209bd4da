//! `init`: a minimal configuration to begin with.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write as _},
    path::Path,
};

use clap::Args;

use super::{Failure, Out};
use crate::config::{Config, Key, Presence, Section};

/// Write a minimal configuration.
#[derive(Debug, Args)]
pub struct Init {
    /// Where people reach this installation.
    #[arg(long, value_name = "URL", default_value = "http://localhost:8080")]
    public_url: String,
    /// Where the app listens that Doorward stands in front of.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3000")]
    upstream: String,
}

impl Init {
    pub(super) fn run(&self, file: &Path, out: &mut Out<'_>) -> Result<(), Failure> {
        let text = self.render();
        // What is written must be accepted: the addresses come from the command line.
        Config::parse(&text, file, &super::variables()).map_err(Failure::Config)?;
        let shown = file.display();
        let opened = OpenOptions::new().write(true).create_new(true).open(file);
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Failure::Failed(format!(
                "{shown} is there already and stays as it is; choose another file with --config"
            )),
            _ => Failure::Failed(format!("cannot write {shown}: {error}")),
        })?;
        let named = if file == Path::new("doorward.toml") { String::new() } else { format!(" --config {shown}") };
        out.line(format!("{shown} written. What next:"))?;
        out.line("  1. set [mail] to your mail server, and [apps.web] to your app")?;
        out.line(format!("  2. doorward check{named}            says what is missing"))?;
        out.line(format!("  3. doorward users add{named} EMAIL  makes a user who may sign in"))?;
        out.line(format!("  4. doorward serve{named}"))
    }

    fn render(&self) -> String {
        let keys = Config::keys();
        let mut text = String::from(
            "# Doorward. Every key: `doorward docs config`, or docs/reference/config.md.\n\
             # Problems, all at once: `doorward check`.\n\n",
        );
        let top = Lines(keys);
        top.set(&mut text, "public_url", &quoted(&self.public_url));
        top.default(&mut text, "data_dir");
        section(&mut text, keys, "listen", |lines, text| lines.default(text, "http"));
        section(&mut text, keys, "session", |lines, text| {
            lines.default(text, "idle");
            lines.default(text, "absolute");
        });
        section(&mut text, keys, "mail", |lines, text| {
            lines.set(text, "url", "\"smtp://127.0.0.1:1025\"");
            lines.set(text, "from", "\"Doorward <login@example.com>\"");
        });
        section(&mut text, keys, "login", |lines, text| lines.default(text, "allow_sign_up"));
        text.push_str("\n[apps.web]\n");
        if let Some(app) = inner(keys, "apps") {
            Lines(app).set(&mut text, "upstream", &quoted(&self.upstream));
        }
        text.push_str("\n# The first rule whose path matches decides; what no rule matches is denied.\n[[rules]]\n");
        if let Some(rule) = inner(keys, "rules") {
            Lines(rule).set(&mut text, "path", "\"/*\"");
            Lines(rule).set(&mut text, "allow", "[\"session\"]");
            Lines(rule).set(&mut text, "app", "\"web\"");
        }
        text
    }
}

fn quoted(text: &str) -> String {
    // JSON strings are TOML basic strings but for DEL, which no accepted URL holds.
    serde_json::Value::from(text).to_string()
}

fn inner(section: &Section, name: &str) -> Option<&'static Section> {
    section.keys.iter().find(|key| key.name == name).and_then(|key| (key.section)())
}

fn section(text: &mut String, keys: &Section, name: &str, fill: impl FnOnce(&Lines<'_>, &mut String)) {
    if let Some(section) = inner(keys, name) {
        text.push_str(&format!("\n[{name}]\n"));
        fill(&Lines(section), text);
    }
}

/// Writes keys of a section, each under its own text.
struct Lines<'a>(&'a Section);

impl Lines<'_> {
    fn key(&self, name: &str) -> Option<&Key> {
        self.0.keys.iter().find(|key| key.name == name)
    }

    fn set(&self, text: &mut String, name: &str, value: &str) {
        if let Some(key) = self.key(name) {
            for line in key.doc.trim().lines() {
                text.push_str(&format!("# {}\n", line.trim()));
            }
            text.push_str(&format!("{name} = {value}\n"));
        }
    }

    fn default(&self, text: &mut String, name: &str) {
        if let Some(Presence::Default(value)) = self.key(name).map(|key| key.presence) {
            self.set(text, name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init(public_url: &str) -> Init {
        Init { public_url: public_url.to_owned(), upstream: "http://127.0.0.1:3000".to_owned() }
    }

    #[test]
    fn what_init_writes_is_accepted_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("doorward.toml");
        let mut bytes = Vec::new();
        init("https://app.example.com").run(&file, &mut Out::new(&mut bytes, false)).unwrap();
        let config = Config::load(&file, &Default::default()).unwrap();
        assert_eq!(config.public_url.origin(), "https://app.example.com");
        assert_eq!(config.rules.len(), 1);
        assert!(std::fs::read_to_string(&file).unwrap().contains("# A session ends this long after its last use.\n"));

        let before = std::fs::read(&file).unwrap();
        let again = init("http://localhost").run(&file, &mut Out::new(&mut bytes, false));
        assert!(matches!(again, Err(Failure::Failed(text)) if text.contains("stays as it is")));
        assert_eq!(std::fs::read(&file).unwrap(), before);
    }

    #[test]
    fn init_writes_nothing_that_serve_would_refuse() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("doorward.toml");
        let refused = init("http://app.example.com").run(&file, &mut Out::new(&mut Vec::new(), false));
        assert!(matches!(refused, Err(Failure::Config(_))));
        assert!(!file.exists());
    }
}
