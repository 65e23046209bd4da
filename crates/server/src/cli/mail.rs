//! `mail`: mails that were given up.

use std::time::Duration;

use clap::{Args, Subcommand};
use doorward_core::{effects::Effects, id::MailId};
use doorward_gate::clock::Clock;
use doorward_store::{RetryMail, Store};
use serde_json::json;

use super::{Failure, Out, output::time};

/// How long a mail that is tried again is worth sending.
const WORTH: Duration = Duration::from_hours(24);

/// Mails that were given up.
#[derive(Debug, Subcommand)]
pub enum Mail {
    /// List the mails that were given up, the newest first, with what the last attempt met.
    List,
    /// Put a mail back into the outbox, where it is tried for a day.
    ///
    /// Sign-in links are not kept once they are given up: they are asked for again.
    Retry(Retry),
}

/// Try a mail again.
#[derive(Debug, Args)]
pub struct Retry {
    /// Its id, as the list shows it.
    #[arg(value_name = "ID")]
    id: MailId,
}

impl Mail {
    pub(super) async fn run(&self, store: &Store, clock: &Clock, out: &mut Out<'_>) -> Result<(), Failure> {
        match self {
            Self::List => list(store, out).await,
            Self::Retry(retry) => {
                let (id, now) = (retry.id, clock.now().wall);
                match store.retry_mail(id, now, now.plus(WORTH), Effects::default()).await? {
                    RetryMail::Queued => out.say(&json!({ "queued": id }), &format!("{id} is in the outbox again")),
                    RetryMail::Empty => Err(Failure::Failed(format!("{id} was not kept; its link is asked for again"))),
                    RetryMail::Unknown => Err(Failure::Failed(format!("{id} is not a mail that was given up"))),
                }
            }
        }
    }
}

async fn list(store: &Store, out: &mut Out<'_>) -> Result<(), Failure> {
    let mails = store.dead_mails(1000).await?;
    if out.json {
        let shown = mails.iter().map(|mail| {
            json!({
                "id": mail.id, "to": mail.to.as_str(), "kind": mail.kind, "written": time(mail.created_at),
                "attempts": mail.attempts, "error": mail.error, "can_be_tried_again": mail.whole,
            })
        });
        return out.json(&shown.collect::<Vec<_>>());
    }
    if mails.is_empty() {
        return out.line("no mail was given up");
    }
    let rows = mails.iter().map(|mail| {
        let error = mail.error.clone().unwrap_or_default();
        let again = if mail.whole { "yes" } else { "no" }.to_owned();
        vec![mail.id.to_string(), mail.to.to_string(), mail.kind.clone(), time(mail.created_at), again, error]
    });
    out.table(&["ID", "TO", "KIND", "WRITTEN", "AGAIN", "ERROR"], &rows.collect::<Vec<_>>())
}
