//! Which rows of the log are meant.

use clap::Args;
use doorward_core::{
    audit::{AuditRow, EventKind},
    id::UserId,
    reason::Reason,
    time::Timestamp,
    user::Email,
};
use doorward_store::Store;

use super::super::{
    Failure,
    users::{find, parse_email},
};

/// Only rows that every option given admits.
#[derive(Debug, Default, Args)]
pub(crate) struct Filter {
    /// Only this event, for example `session.created`.
    #[arg(long, value_name = "EVENT", value_parser = parse_event)]
    event: Option<EventKind>,
    /// Only rows about this person.
    #[arg(long, value_name = "EMAIL", value_parser = parse_email)]
    user: Option<Email>,
    /// Only refusals for this reason, for example `token_expired`.
    #[arg(long, value_name = "REASON", value_parser = parse_reason)]
    reason: Option<String>,
    /// Only rows of this time or later, for example `2027-01-31T00:00:00Z`.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Only rows before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
}

fn parse_event(text: &str) -> Result<EventKind, String> {
    EventKind::parse(text).ok_or_else(|| {
        let known: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        format!("no such event; known: {}", known.join(", "))
    })
}

fn parse_reason(text: &str) -> Result<String, String> {
    match Reason::ALL.iter().any(|reason| reason.code() == text) {
        true => Ok(text.to_owned()),
        false => Err("no such reason; `doorward docs reasons` lists them".to_owned()),
    }
}

pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    let at: jiff::Timestamp = text.parse().map_err(|_| "not a time; write 2027-01-31T00:00:00Z".to_owned())?;
    Ok(Timestamp::from_millis(at.as_millisecond()))
}

impl Filter {
    /// Whether it admits every row.
    pub(super) fn is_empty(&self) -> bool {
        let Self { event, user, reason, since, until } = self;
        event.is_none() && user.is_none() && reason.is_none() && since.is_none() && until.is_none()
    }

    /// The filter with its person looked up.
    pub(super) async fn resolve(&self, store: &Store) -> Result<Resolved<'_>, Failure> {
        let user = match &self.user {
            Some(email) => Some(find(store, email).await?.id),
            None => None,
        };
        Ok(Resolved { filter: self, user })
    }
}

/// A filter that can be asked.
pub(super) struct Resolved<'a> {
    filter: &'a Filter,
    user: Option<UserId>,
}

impl Resolved<'_> {
    pub(super) fn admits(&self, row: &AuditRow) -> bool {
        let Filter { event, reason, since, until, .. } = self.filter;
        event.is_none_or(|event| row.kind == event.as_str())
            && self.user.is_none_or(|user| row.user_id == Some(user))
            && reason.as_ref().is_none_or(|reason| row.reason.as_ref() == Some(reason))
            && since.is_none_or(|since| row.at >= since)
            && until.is_none_or(|until| row.at < until)
    }
}
