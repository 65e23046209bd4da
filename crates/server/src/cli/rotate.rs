//! `keys rotate`: keys of our own.

use clap::Args;
use doorward_core::ring::Purpose;
use doorward_gate::{
    clock::Clock,
    ring::{Ring, RingError},
};
use serde_json::json;

use super::{Failure, Out, STORE_WAIT, open_store};
use crate::{config::Config, lifecycle};

/// Put a new key in the place of the current one.
#[derive(Debug, Args)]
pub struct Rotate {
    /// What the key is for: session, link, login, assertion, audit.
    #[arg(value_name = "PURPOSE", value_parser = parse_purpose)]
    purpose: Purpose,
}

fn parse_purpose(text: &str) -> Result<Purpose, String> {
    let words = Purpose::ALL.map(Purpose::as_str).join(", ");
    Purpose::parse(text).ok_or_else(|| format!("no such purpose; there are: {words}"))
}

impl Rotate {
    pub(super) async fn run(&self, config: &Config, clock: &Clock, out: &mut Out<'_>) -> Result<(), Failure> {
        let Self { purpose } = self;
        let store = open_store(config, clock)?;
        store.wait_ready(STORE_WAIT).await?;
        lifecycle::check_root(config, &store).await?;
        let root = lifecycle::root_secret(config, clock)?;
        let rotated = Ring::new(root, store.clone(), clock.clone()).rotate(*purpose).await;
        store.close().await;
        let key = rotated?;
        let effect = match purpose {
            Purpose::Session => "every session has ended; everybody signs in again",
            Purpose::Link => "links and codes that are on their way work until they end",
            Purpose::Login => "hashed addresses in the audit log are no longer comparable with older ones",
            Purpose::Assertion => {
                "apps find the new public key at /assertion/jwks; the old one stays there until the next rotation"
            }
            Purpose::Audit => "the next checkpoint is signed by it",
        };
        out.say(
            &json!({ "purpose": purpose.as_str(), "key": key.to_string() }),
            &format!("the {purpose} key is {key} now: {effect}"),
        )
    }
}

impl From<RingError> for Failure {
    fn from(error: RingError) -> Self {
        match error {
            RingError::WrongRoot { .. } => Self::Wrong(error.to_string()),
            RingError::Store(_) | RingError::Contended { .. } | RingError::Cipher { .. } => {
                Self::Failed(error.to_string())
            }
        }
    }
}
