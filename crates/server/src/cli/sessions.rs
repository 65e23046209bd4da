//! `sessions`: ending them.

use clap::{Args, Subcommand};
use doorward_core::{audit::EventKind, effects::Effects, revocation::Scope, user::Email};
use doorward_gate::clock::Clock;
use doorward_store::{Store, Which};
use serde_json::json;

use super::{
    Failure, Out,
    users::{event, find, parse_email, revocation},
};

/// Sessions.
#[derive(Debug, Subcommand)]
pub enum Sessions {
    /// End sessions; a running server follows within a second.
    Revoke(Revoke),
}

/// End sessions.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Revoke {
    /// All sessions of this user.
    #[arg(long, value_name = "EMAIL", value_parser = parse_email)]
    user: Option<Email>,
    /// All sessions of everybody.
    #[arg(long)]
    all: bool,
}

impl Sessions {
    pub(super) async fn run(&self, store: &Store, clock: &Clock, out: &mut Out<'_>) -> Result<(), Failure> {
        let Self::Revoke(revoke) = self;
        let user = match &revoke.user {
            Some(email) => Some((find(store, email).await?.id, email)),
            None => None,
        };
        // Only now: who signs in while the user is looked for is one of those that are meant.
        let at = clock.now().wall;
        let event = event(EventKind::SessionRevoked, at);
        let (event, which, scope, whose) = match user {
            Some((id, email)) => (event.about(id), Which::User(id), Scope::UserSessions { id }, email.to_string()),
            None => (event, Which::All, Scope::AllSessions, "everybody".to_owned()),
        };
        let effects = Effects::audited(event).with_revocation(revocation(scope, at, "command"));
        let ended = store.end_sessions(which, effects).await?;
        out.say(&json!({ "ended": ended }), &format!("{ended} sessions of {whose} ended"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn revoking_reaches_the_log_also_where_no_session_is_stored() {
        let store = Store::memory();
        let command = Sessions::Revoke(Revoke { user: None, all: true });
        let mut bytes = Vec::new();
        command.run(&store, &Clock::system(), &mut Out::new(&mut bytes, true)).await.unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap().replace(char::is_whitespace, ""), "{\"ended\":0}");
        let log = store.revocations_after(0, 10).await.unwrap();
        assert_eq!(log.into_iter().map(|entry| entry.entry.scope).collect::<Vec<_>>(), [Scope::AllSessions]);
        assert_eq!(store.audit_tail(0, 10).await.unwrap()[0].kind, "session.revoked");
    }
}
