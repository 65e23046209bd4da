//! `explain`: why a request, a token or a decision came out as it did.

mod decision;
mod token;
mod url;

use clap::Args;
use doorward_core::{id::DecisionId, secret::Secret, user::Email};
use doorward_gate::clock::Clock;
use http::Method;

use super::{Failure, Out, users::parse_email};
use crate::config::Config;

/// Explain what happens to a request, why a token is refused, or what a decision was.
#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    what: What,
    /// With --url: the method of the request.
    #[arg(long, value_name = "METHOD", default_value = "GET", requires = "url", value_parser = parse_method)]
    method: Method,
    /// With --url: judge the request as this user, freshly signed in. Asks the store.
    #[arg(long = "as", value_name = "EMAIL", requires = "url", value_parser = parse_email)]
    as_user: Option<Email>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// A URL or a path: how each rule fares with it. Works without a running server and without a store.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A token: each step of its verification. `-` reads it from standard input, which keeps it out of the
    /// shell's history. The token itself is never printed.
    #[arg(long, value_name = "TOKEN", value_parser = parse_secret)]
    token: Option<Secret<String>>,
    /// The id of a decision, from an answer or a log line: its rows in the audit log.
    #[arg(long, value_name = "ID")]
    decision: Option<DecisionId>,
}

fn parse_method(text: &str) -> Result<Method, String> {
    Method::from_bytes(text.as_bytes()).map_err(|_| "not a method; write GET, POST, …".to_owned())
}

fn parse_secret(text: &str) -> Result<Secret<String>, std::convert::Infallible> {
    Ok(Secret::new(text.to_owned()))
}

impl Explain {
    pub(super) async fn run(&self, config: &Config, clock: &Clock, out: &mut Out<'_>) -> Result<(), Failure> {
        match &self.what {
            What { url: Some(url), .. } => url::run(config, clock, url, &self.method, self.as_user.as_ref(), out).await,
            What { token: Some(token), .. } => token::run(config, clock, token, out).await,
            What { decision: Some(id), .. } => decision::run(config, clock, *id, out).await,
            What { url: None, token: None, decision: None } => {
                Err(Failure::Wrong("say what to explain: --url, --token or --decision".to_owned()))
            }
        }
    }
}
