//! `mail`: mails that were given up.

use std::time::Duration;

use clap::{Args, Subcommand};
use doorward_core::{
    audit::{AuditEvent, EventKind},
    effects::Effects,
    id::MailId,
    time::Timestamp,
};
use doorward_gate::clock::Clock;
use doorward_store::{DeadMail, RetryMail, Store, StoreError};
use serde_json::{Value, json};

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
                let id = retry.id;
                match self::retry(store, id, clock.now().wall, "command").await? {
                    RetryMail::Queued => out.say(&json!({ "queued": id }), &format!("{id} is in the outbox again")),
                    RetryMail::Empty => Err(Failure::Failed(format!("{id} was not kept; its link is asked for again"))),
                    RetryMail::Unknown => Err(Failure::Failed(format!("{id} is not a mail that was given up"))),
                }
            }
        }
    }
}

/// Puts a mail that was given up back into the outbox, with its row in the audit log, which names no person.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn retry(store: &Store, id: MailId, now: Timestamp, by: &str) -> Result<RetryMail, StoreError> {
    let mut event = AuditEvent::new(EventKind::MailRetried, now);
    event.detail.more.insert("mail".into(), id.to_string().into());
    event.detail.more.insert("by".into(), by.into());
    store.retry_mail(id, now, now.plus(WORTH), Effects::audited(event)).await
}

/// A mail that was given up, for programs.
pub(crate) fn shown(mail: &DeadMail) -> Value {
    json!({
        "id": mail.id, "to": mail.to.as_str(), "kind": mail.kind, "written": time(mail.created_at),
        "attempts": mail.attempts, "error": mail.error, "can_be_tried_again": mail.whole,
    })
}

async fn list(store: &Store, out: &mut Out<'_>) -> Result<(), Failure> {
    let mails = store.dead_mails(1000).await?;
    if out.json {
        return out.json(&mails.iter().map(shown).collect::<Vec<_>>());
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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use doorward_core::{effects::NewMail, user::Email};

    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Mail,
    }

    async fn run(store: &Store, line: &str, json: bool) -> Result<String, Failure> {
        let line = Line::try_parse_from(["mail"].into_iter().chain(line.split(' ')))
            .map_err(|error| Failure::Wrong(error.to_string()))?;
        let mut bytes = Vec::new();
        line.command.run(store, &Clock::manual(START), &mut Out::new(&mut bytes, json)).await?;
        Ok(String::from_utf8(bytes).unwrap())
    }

    async fn dead(store: &Store, number: u8, failure: doorward_store::Failure) -> MailId {
        let id = MailId::mint(START, [number; 10]);
        let mail = NewMail {
            id,
            to: Email::parse("ada@example.com").unwrap(),
            kind: "email_changed",
            subject: "s".into(),
            text: "t".into(),
            html: "h".into(),
            created_at: START,
            give_up_at: START,
        };
        store.append(Effects::default().with_mail(mail)).await.unwrap();
        store.claim_mail(START, WORTH, 10).await.unwrap();
        store.mail_failed(id, 1, failure, "550 \u{1b}[31mno".to_owned(), Effects::default()).await.unwrap();
        id
    }

    #[tokio::test]
    async fn dead_letters_are_listed_and_one_that_was_kept_is_tried_again_once_and_audited() {
        let store = Store::memory();
        assert_eq!(run(&store, "list", false).await.unwrap(), "no mail was given up\n");
        let kept = dead(&store, 1, doorward_store::Failure::Park).await;
        let gone = dead(&store, 2, doorward_store::Failure::GiveUp).await;
        let table = run(&store, "list", false).await.unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].starts_with(&gone.to_string()) && lines[1].contains("  no     550"), "{table}");
        assert!(lines[2].starts_with(&kept.to_string()) && lines[2].contains("  yes    550"), "{table}");
        assert!(!table.contains('\u{1b}'), "{table}");
        let listed: Value = serde_json::from_str(&run(&store, "list", true).await.unwrap()).unwrap();
        assert_eq!((&listed[1]["id"], &listed[1]["can_be_tried_again"]), (&json!(kept), &json!(true)));

        let queued: Value = serde_json::from_str(&run(&store, &format!("retry {kept}"), true).await.unwrap()).unwrap();
        assert_eq!(queued, json!({ "queued": kept }));
        let failed = async |id: MailId| match run(&store, &format!("retry {id}"), false).await {
            Err(Failure::Failed(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(failed(kept).await, format!("{kept} is not a mail that was given up"));
        assert_eq!(failed(gone).await, format!("{gone} was not kept; its link is asked for again"));
        assert!(matches!(run(&store, "retry x", false).await, Err(Failure::Wrong(_))));
        let claimed = store.claim_mail(START, WORTH, 10).await.unwrap();
        assert_eq!((claimed.len(), claimed[0].mail.id, claimed[0].mail.text.as_str()), (1, kept, "t"));
        let rows = store.audit_tail(0, 10).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.kind.as_str()).collect::<Vec<_>>(), ["mail.retried"]);
        let detail = rows[0].detail.as_deref().unwrap();
        assert!(detail.contains(&kept.to_string()) && !detail.contains('@'), "{detail}");
    }
}
