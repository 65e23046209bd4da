//! `blocklist`: tokens and subjects that are refused whatever their signature says.

use std::time::Duration;

use clap::{Args, Subcommand};
use doorward_core::{
    revocation::{Revocation, Scope},
    time::Timestamp,
};
use doorward_gate::{
    blocklist::{self, Block, is_why},
    clock::Clock,
};
use doorward_store::{Store, Unblock};
use serde_json::{Value, json};

use super::{Failure, Out, audit::parse_time, output::time};
use crate::config::{self, Config};

/// Who makes an entry, in the audit log.
const BY: &str = "command line";

/// Tokens and subjects that are refused.
#[derive(Debug, Subcommand)]
pub enum Blocklist {
    /// Refuse a token, or every token of a subject; a running server follows within a second.
    ///
    /// Entries for one name add up: it is refused until the last of them has ended, or all were removed.
    Add(Add),
    /// List what is in force.
    List,
    /// Take back every entry for a token or subject; a running server follows within a second.
    Remove(Remove),
}

/// Refuse a token or a subject.
#[derive(Debug, Args)]
pub struct Add {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    end: End,
    /// Why; shown in the list and in the audit log.
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = parse_why)]
    why: String,
}

/// When an entry ends; without either, never.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct End {
    /// How long, for example `12h` or `30d`.
    #[arg(long = "for", value_name = "DURATION", value_parser = config::parse_duration)]
    for_: Option<Duration>,
    /// Until when, for example `2027-01-31T00:00:00Z`.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
}

/// Take entries back.
#[derive(Debug, Args)]
pub struct Remove {
    #[command(flatten)]
    what: What,
    /// Why; shown in the audit log.
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = parse_why)]
    why: String,
}

/// What an entry names.
#[derive(Debug, Args)]
pub(crate) struct What {
    /// Name of the `[[issuers]]` entry.
    #[arg(long, value_name = "NAME")]
    issuer: String,
    #[command(flatten)]
    which: Which,
}

/// A token or a subject.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// One token, by its `jti`.
    #[arg(long)]
    jti: Option<String>,
    /// Every token with this `sub`.
    #[arg(long)]
    subject: Option<String>,
}

fn parse_why(text: &str) -> Result<String, String> {
    match is_why(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("longer than {} characters, or with control characters", blocklist::MAX_WHY)),
    }
}

impl What {
    fn scope(&self, config: &Config) -> Result<Scope, Failure> {
        let known: Vec<&str> = config.issuers.iter().map(|issuer| issuer.name.0.as_str()).collect();
        if !known.contains(&self.issuer.as_str()) {
            let known = if known.is_empty() { "none is configured".to_owned() } else { known.join(", ") };
            return Err(Failure::Wrong(format!("no [[issuers]] entry is named `{}`; known: {known}", self.issuer)));
        }
        let scope = match (&self.which.jti, &self.which.subject) {
            (Some(jti), _) => Scope::token(&self.issuer, jti),
            (None, Some(subject)) => Scope::subject(&self.issuer, subject),
            (None, None) => None,
        };
        scope.ok_or_else(|| Failure::Wrong("the jti or sub is empty, too long or holds control characters".to_owned()))
    }
}

/// What a scope names, for people: `token 7f3a of main`.
fn named(scope: &Scope) -> String {
    match scope {
        Scope::Token { issuer, jti } => format!("token {jti} of {issuer}"),
        Scope::Subject { issuer, subject } => format!("subject {subject} of {issuer}"),
        other => format!("{other:?}"),
    }
}

/// An entry for programs; also the form of the admin route.
pub(crate) fn shown(entry: &Revocation) -> Value {
    let (kind, issuer, name) = match &entry.entry.scope {
        Scope::Token { issuer, jti } => ("jti", issuer.as_str(), jti.as_str()),
        Scope::Subject { issuer, subject } => ("subject", issuer.as_str(), subject.as_str()),
        _ => ("", "", ""),
    };
    json!({
        "id": entry.seq,
        "issuer": issuer,
        kind: name,
        "since": rfc3339(entry.entry.at),
        "until": entry.entry.until.map(rfc3339),
        "why": entry.entry.why,
    })
}

fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).map_or_else(|_| at.as_millis().to_string(), |at| at.to_string())
}

impl Blocklist {
    pub(super) async fn run(
        &self,
        store: &Store,
        config: &Config,
        clock: &Clock,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let now = clock.now().wall;
        match self {
            Self::Add(add) => add.run(store, config, now, out).await,
            Self::List => list(store, now, out).await,
            Self::Remove(remove) => {
                let scope = remove.what.scope(config)?;
                match blocklist::remove(store, scope.clone(), &remove.why, BY, now).await? {
                    Unblock::Lifted => out.say(&json!({ "removed": true }), &format!("{} passes again", named(&scope))),
                    Unblock::NotListed => Err(Failure::Failed(format!("{} is not on the list", named(&scope)))),
                }
            }
        }
    }
}

impl Add {
    async fn run(&self, store: &Store, config: &Config, now: Timestamp, out: &mut Out<'_>) -> Result<(), Failure> {
        let scope = self.what.scope(config)?;
        let until = self.end.until.or_else(|| self.end.for_.map(|after| now.plus(after)));
        if until.is_some_and(|until| until <= now) {
            return Err(Failure::Wrong("the entry would be over already; give a time that lies ahead".to_owned()));
        }
        let text = match until {
            Some(until) => format!("{} is refused until {}", named(&scope), time(until)),
            None => format!("{} is refused from now on", named(&scope)),
        };
        let block = Block { scope: scope.clone(), until, why: self.why.clone(), by: BY.to_owned() };
        blocklist::add(store, block, now).await?;
        let entry = store.blocked(scope, now).await?;
        out.say(&entry.as_ref().map(shown), &text)
    }
}

async fn list(store: &Store, now: Timestamp, out: &mut Out<'_>) -> Result<(), Failure> {
    let mut entries: Vec<Revocation> = Vec::new();
    // Each page begins after the last entry of the one before it, so this ends with the list.
    loop {
        let page = store.blocklist(now, entries.last().map_or(0, |entry| entry.seq), 1000).await?;
        if page.is_empty() {
            break;
        }
        entries.extend(page);
    }
    if out.json {
        return out.json(&entries.iter().map(shown).collect::<Vec<_>>());
    }
    if entries.is_empty() {
        return out.line("nothing is blocked; `doorward blocklist add` changes that");
    }
    let rows = entries.iter().map(|entry| {
        let until = entry.entry.until.map_or_else(|| "for ever".to_owned(), time);
        vec![named(&entry.entry.scope), time(entry.entry.at), until, entry.entry.why.clone()]
    });
    out.table(&["WHAT", "SINCE", "UNTIL", "WHY"], &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Blocklist,
    }

    fn config() -> Config {
        let text = "public_url = \"http://localhost:8080\"\n[[issuers]]\nname = \"main\"\n\
                    issuer = \"https://sso.example\"\naudiences = [\"app\"]\n\
                    keys = { jwks_url = \"https://sso.example/jwks\" }\n";
        Config::parse(text, Path::new("doorward.toml"), &Default::default()).unwrap()
    }

    async fn run(store: &Store, clock: &Clock, line: &str) -> Result<Value, Failure> {
        let line = Line::try_parse_from(["blocklist"].into_iter().chain(line.split(' ')))
            .map_err(|error| Failure::Wrong(error.to_string()))?;
        let mut bytes = Vec::new();
        line.command.run(store, &config(), clock, &mut Out::new(&mut bytes, true)).await?;
        Ok(serde_json::from_slice(&bytes).unwrap())
    }

    fn clock() -> Clock {
        Clock::manual(Timestamp::from_secs(1_800_000_000))
    }

    #[tokio::test]
    async fn what_is_added_is_listed_until_it_ends_or_is_removed() {
        let (store, clock) = (Store::memory(), clock());
        let entry = run(&store, &clock, "add --issuer main --jti 7f3a --for 2h --why stolen").await.unwrap();
        assert_eq!((&entry["jti"], &entry["until"]), (&json!("7f3a"), &json!("2027-01-15T10:00:00Z")));
        run(&store, &clock, "add --issuer main --subject ada --until 2027-02-01T00:00:00Z").await.unwrap();
        run(&store, &clock, "add --issuer main --subject bob").await.unwrap();
        let names = async |clock: &Clock| {
            let list = run(&store, clock, "list").await.unwrap();
            let name = |entry: &Value| entry["jti"].as_str().or(entry["subject"].as_str()).unwrap().to_owned();
            list.as_array().unwrap().iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(&clock).await, ["7f3a", "ada", "bob"]);
        clock.advance(Duration::from_hours(2));
        assert_eq!(names(&clock).await, ["ada", "bob"]);
        assert_eq!(run(&store, &clock, "remove --issuer main --subject bob").await.unwrap(), json!({"removed": true}));
        assert_eq!(names(&clock).await, ["ada"]);
        let again = run(&store, &clock, "remove --issuer main --subject bob").await.unwrap_err();
        assert!(matches!(again, Failure::Failed(text) if text == "subject bob of main is not on the list"));
        let rows = store.audit_tail(0, 10).await.unwrap();
        assert_eq!(rows.last().unwrap().kind, "blocklist.removed");
        assert!(rows[0].detail.as_ref().unwrap().contains("stolen"));
    }

    #[tokio::test]
    async fn an_entry_that_protects_nobody_is_refused() {
        let (store, clock) = (Store::memory(), clock());
        for line in [
            "add --issuer other --jti 1",
            "add --issuer main",
            "add --issuer main --jti 1 --subject 2",
            "add --issuer main --jti 1 --for 2h --until 2030-01-01T00:00:00Z",
            "add --issuer main --jti 1 --until 2001-01-01T00:00:00Z",
            "add --issuer main --jti 1 --for ever",
            "add --issuer main --jti=",
        ] {
            assert!(matches!(run(&store, &clock, line).await, Err(Failure::Wrong(_))), "{line}");
        }
        assert_eq!(store.last_revocation().await, Ok(0));
    }
}
