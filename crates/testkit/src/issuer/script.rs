//! What an issuer does by itself, and when.
//!
//! A script is JSON: `{"about": "…", "algorithm": "EdDSA", "steps": [{"seconds": 5, "do": {"rotate": "abrupt"}}]}`. Steps happen one
//! after the other. `seconds` waits that long after the step before; `fetches` and `minted` wait until so many answers
//! of the key set or tokens were given; a step with none of them happens at once. What can be done is an [`Action`],
//! the same that the control routes take.

use std::{fs, io, path::Path, time::Duration};

use serde::Deserialize;
use serde_json::Value;
use tokio::time::sleep;

use super::{Etag, Fault, Issuer, Poison, Rotation, key::Algorithm};

/// How often a step looks whether its time has come.
const LOOK: Duration = Duration::from_millis(10);

/// Something to do.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// See [`Issuer::rotate`].
    Rotate(Rotation),
    /// See [`Issuer::add_key`].
    AddKey(Algorithm),
    /// See [`Issuer::fault`].
    Fault(Fault),
    /// Mends whatever [`Action::Fault`] broke.
    Mend,
    /// Keeps changes of the keys back; see [`Issuer::freeze`].
    Freeze,
    /// Publishes what was kept back.
    Thaw,
    /// See [`Issuer::poison`].
    Poison(Poison),
    /// See [`Issuer::publish`].
    Publish(Value),
    /// See [`Issuer::header`].
    Header(String, String),
    /// See [`Issuer::etag`].
    Etag(Etag),
    /// See [`Issuer::skew`].
    Skew(i64),
    /// See [`Issuer::die`].
    Die,
    /// See [`Issuer::revive`].
    Revive,
}

/// One step.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Seconds after the step before.
    #[serde(default)]
    pub seconds: f64,
    /// Answers of the key set, all in all.
    #[serde(default)]
    pub fetches: u64,
    /// Tokens, all in all.
    #[serde(default)]
    pub minted: u64,
    /// What happens then.
    #[serde(rename = "do")]
    pub action: Action,
}

/// A whole script.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// What it plays.
    pub about: String,
    /// The kind of its keys.
    #[serde(default = "ed25519")]
    pub algorithm: Algorithm,
    /// What it does.
    #[serde(default)]
    pub steps: Vec<Step>,
}

fn ed25519() -> Algorithm {
    Algorithm::EdDsa
}

/// The scripts that are built in.
const NAMED: &str = include_str!("scripts.json");

impl Script {
    /// The built-in scripts with their names.
    ///
    /// # Panics
    /// Never: a test reads them.
    pub fn named() -> Vec<(String, Self)> {
        let scripts: serde_json::Map<String, Value> = serde_json::from_str(NAMED).unwrap();
        scripts.into_iter().map(|(name, script)| (name, serde_json::from_value(script).unwrap())).collect()
    }

    /// A built-in script, or else a file.
    ///
    /// # Errors
    /// A file that cannot be read or is no script.
    pub fn find(name: &str) -> io::Result<Self> {
        if let Some((_, script)) = Self::named().into_iter().find(|(known, _)| known == name) {
            return Ok(script);
        }
        Ok(serde_json::from_slice(&fs::read(Path::new(name))?)?)
    }
}

impl Issuer {
    /// Does it.
    pub async fn perform(&self, action: Action) {
        match action {
            Action::Rotate(rotation) => self.rotate(rotation),
            Action::AddKey(algorithm) => self.add_key(algorithm),
            Action::Fault(fault) => self.fault(Some(fault)),
            Action::Mend => self.fault(None),
            Action::Freeze => self.freeze(true),
            Action::Thaw => self.freeze(false),
            Action::Poison(poison) => self.poison(poison),
            Action::Publish(member) => self.publish(member),
            Action::Header(name, value) => self.header(&name, &value),
            Action::Etag(etag) => self.etag(etag),
            Action::Skew(seconds) => self.skew(seconds),
            Action::Die => self.0.die().await,
            Action::Revive => self.0.revive().await,
        }
    }

    /// Follows the script to its end, beside everything else.
    pub async fn follow(&self, script: Script) {
        for step in script.steps {
            sleep(Duration::from_secs_f64(step.seconds)).await;
            while self.hits() < step.fetches || self.minted() < step.minted {
                sleep(LOOK).await;
            }
            self.perform(step.action).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_script_can_be_read_and_says_what_it_plays() {
        let named = Script::named();
        assert!(named.len() > 15, "{}", named.len());
        for (name, script) in &named {
            assert!(script.about.ends_with('.'), "{name}: {}", script.about);
        }
        assert!(Script::find("rotation").is_ok());
        assert!(Script::find("no-such-script").is_err());
    }

    #[tokio::test]
    async fn steps_wait_for_what_they_name() {
        let issuer = Issuer::start().await;
        let script = r#"{"about": "A test.", "steps": [
            {"minted": 2, "do": {"rotate": "abrupt"}},
            {"do": {"header": ["x-step", "2"]}}
        ]}"#;
        let script: Script = serde_json::from_str(script).unwrap();
        let first = issuer.key_id();
        let claims = issuer.claims("app", 0);
        let minting = async {
            issuer.mint(&claims);
            tokio::task::yield_now().await;
            assert_eq!(issuer.key_id(), first, "one token is not two");
            issuer.mint(&claims);
        };
        tokio::join!(issuer.follow(script), minting);
        assert_ne!(issuer.key_id(), first);
    }
}
