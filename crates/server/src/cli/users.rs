//! `users`: who may sign in.

use clap::{Args, Subcommand};
use doorward_core::{
    audit::{AuditEvent, EventKind},
    effects::Effects,
    id::UserId,
    password::PasswordHash,
    revocation::{NewRevocation, Scope},
    secret::Secret,
    time::Timestamp,
    user::{Email, LinkStatus, User},
};
use doorward_gate::{clock::Clock, license::keygen::Enrolled};
use doorward_store::{Changed, CreateUser, NewUser, Store, Which};
use serde::Serialize;

use super::{
    Failure, Out,
    import::{Import, subject_problem},
    output::time,
    provider::Provider,
};
use crate::config::Config;

/// People who may sign in.
#[derive(Debug, Subcommand)]
pub enum Users {
    /// Make a user, who can then sign in by mail.
    Add(Add),
    /// List users.
    List,
    /// Suspend a user: sessions end at once, and no new one begins.
    Ban(One),
    /// Let a suspended user sign in again.
    Unban(One),
    /// Let a user administer this installation, or no longer. Their sessions go on.
    Admin(Admin),
    /// Make users from a file, with password hashes and subjects. Who is there already is never overwritten.
    ///
    /// Exit code 0: every row is a user; 1: some lines cannot be taken, each is named; 2: the file or the store
    /// cannot be used.
    Import(Import),
}

/// Make a user.
#[derive(Debug, Args)]
pub struct Add {
    /// Mail address.
    #[arg(value_name = "EMAIL", value_parser = parse_email)]
    email: Email,
    /// Let the user administer this installation.
    #[arg(long)]
    admin: bool,
    /// Subject at the license provider, confirmed by the first sign-in.
    #[arg(long, value_name = "SUBJECT", value_parser = parse_subject)]
    pending_subject: Option<String>,
    /// Make the user at the license provider too (`keygen`, `jwt`), or find them there by their address; the first sign-in
    /// confirms that it is the same person.
    #[arg(long, conflicts_with = "pending_subject")]
    at_provider: bool,
    /// Hash of a password of the old system: bcrypt, or Argon2 in PHC form.
    #[arg(long, value_name = "HASH", value_parser = parse_hash)]
    password_hash: Option<Secret<String>>,
}

/// One user.
#[derive(Debug, Args)]
pub struct One {
    /// Mail address.
    #[arg(value_name = "EMAIL", value_parser = parse_email)]
    email: Email,
}

/// Give or take the role of an administrator.
#[derive(Debug, Args)]
pub struct Admin {
    /// Mail address.
    #[arg(value_name = "EMAIL", value_parser = parse_email)]
    email: Email,
    /// Take the role away.
    #[arg(long)]
    revoke: bool,
}

pub(super) fn parse_email(text: &str) -> Result<Email, String> {
    Email::parse(text).ok_or_else(|| "not a mail address; write name@example.com".to_owned())
}

fn parse_subject(text: &str) -> Result<String, String> {
    subject_problem(text).map_or_else(|| Ok(text.to_owned()), |problem| Err(problem.to_owned()))
}

fn parse_hash(text: &str) -> Result<Secret<String>, String> {
    PasswordHash::parse(text).map(|_| Secret::new(text.to_owned())).map_err(|error| error.to_string())
}

/// The user with this address.
pub(super) async fn find(store: &Store, email: &Email) -> Result<User, Failure> {
    let found = store.user_by_email(email.clone()).await?;
    found.ok_or_else(|| Failure::Failed(format!("there is no user {email}; `doorward users list` shows who there is")))
}

/// An event that a command caused.
pub(super) fn event(kind: EventKind, at: Timestamp) -> AuditEvent {
    let mut event = AuditEvent::new(kind, at);
    event.detail.more.insert("by".to_owned(), "command line".into());
    event
}

/// A revocation that a command caused.
pub(super) fn revocation(scope: Scope, at: Timestamp, why: &str) -> NewRevocation {
    NewRevocation { scope, at, until: None, why: why.to_owned() }
}

#[derive(Serialize)]
struct Shown {
    id: String,
    email: String,
    admin: bool,
    email_verified: bool,
    link_status: Option<LinkStatus>,
    external_subject: Option<String>,
    candidate_subject: Option<String>,
    banned_at: Option<String>,
    created_at: String,
}

impl From<&User> for Shown {
    fn from(user: &User) -> Self {
        Self {
            id: user.id.to_string(),
            email: user.email.to_string(),
            admin: user.admin,
            email_verified: user.email_verified,
            link_status: user.link_status,
            external_subject: user.external_subject.clone(),
            candidate_subject: user.candidate_subject.clone(),
            banned_at: user.banned_at.map(time),
            created_at: time(user.created_at),
        }
    }
}

impl Users {
    pub(super) async fn run(
        &self,
        store: &Store,
        config: &Config,
        clock: &Clock,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        match self {
            Self::Add(add) => add.run(store, config, clock, out).await,
            Self::List => list(store, out).await,
            Self::Ban(one) => ban(store, clock, &one.email, out).await,
            Self::Unban(one) => unban(store, clock, &one.email, out).await,
            Self::Admin(admin) => admin.run(store, clock, out).await,
            Self::Import(import) => import.run(store, clock, out).await,
        }
    }
}

impl Add {
    async fn run(&self, store: &Store, config: &Config, clock: &Clock, out: &mut Out<'_>) -> Result<(), Failure> {
        let enrolled = if self.at_provider { Some(self.enroll(store, config, clock).await?) } else { None };
        let subject = match &enrolled {
            Some(Enrolled::Created(user) | Enrolled::Known(user)) => Some(user.id.clone()),
            None => self.pending_subject.clone(),
        };
        let at = clock.now().wall;
        let user = User {
            admin: self.admin,
            link_status: subject.as_ref().map(|_| LinkStatus::PendingVerify),
            candidate_subject: subject,
            ..User::new(UserId::mint(at, clock.random()), self.email.clone(), at)
        };
        let mut created = event(EventKind::UserCreated, at).about(user.id);
        let there = match &enrolled {
            Some(Enrolled::Created(_)) => ", and at the license provider",
            Some(Enrolled::Known(_)) => ", whom the license provider knew",
            None => "",
        };
        if let Some(enrolled) = &enrolled {
            let word = if matches!(enrolled, Enrolled::Created(_)) { "created" } else { "known" };
            created.detail.more.insert("at_provider".to_owned(), word.into());
        }
        let mut effects = Effects::audited(created);
        if self.admin {
            effects.audit.push(event(EventKind::UserAdminGranted, at).about(user.id));
        }
        let new = NewUser { user: user.clone(), password_hash: self.password_hash.clone() };
        match store.create_users(vec![new], effects).await?.as_slice() {
            [CreateUser::Created] => {
                let role = if user.admin { ", who administers this installation" } else { "" };
                out.say(&Shown::from(&user), &format!("added {}{role}{there}", user.email))
            }
            _ => Err(already(&user.email)),
        }
    }

    /// The user at the provider. Not before it is clear that there is none here: nobody is made there in vain.
    async fn enroll(&self, store: &Store, config: &Config, clock: &Clock) -> Result<Enrolled, Failure> {
        let provider = Provider::of(config, clock, "leave out `--at-provider`, or set it")?;
        if store.user_by_email(self.email.clone()).await?.is_some() {
            return Err(already(&self.email));
        }
        let enrolled = provider.enroll(&self.email).await?;
        let (Enrolled::Created(user) | Enrolled::Known(user)) = &enrolled;
        match subject_problem(&user.id) {
            Some(problem) => {
                Err(Failure::Failed(format!("the provider's id of {} cannot be kept: {problem}", self.email)))
            }
            None => Ok(enrolled),
        }
    }
}

fn already(email: &Email) -> Failure {
    Failure::Failed(format!("{email} is a user already"))
}

impl Admin {
    async fn run(&self, store: &Store, clock: &Clock, out: &mut Out<'_>) -> Result<(), Failure> {
        let (user, wanted) = (find(store, &self.email).await?, !self.revoke);
        let now = if wanted { "administers this installation" } else { "is no administrator" };
        if user.admin == wanted {
            return out.say(&Shown::from(&user), &format!("{} {now} already", user.email));
        }
        let at = clock.now().wall;
        let mut granted = event(EventKind::UserAdminGranted, at).about(user.id);
        granted.detail.more.insert("admin".to_owned(), wanted.into());
        let effects = Effects::audited(granted).with_revocation(revocation(Scope::User { id: user.id }, at, "role"));
        match store.set_admin(user.id, wanted, effects).await? {
            Changed::Changed(user) => out.say(&Shown::from(&user), &format!("{} {now}", user.email)),
            Changed::Unknown => Err(Failure::Failed(format!("{} was removed meanwhile", self.email))),
        }
    }
}

async fn list(store: &Store, out: &mut Out<'_>) -> Result<(), Failure> {
    let mut users: Vec<User> = Vec::new();
    // Each page begins after the last id of the one before it, so this ends with the users.
    loop {
        let page = store.users(users.last().map(|user| user.id), 1000).await?;
        if page.is_empty() {
            break;
        }
        users.extend(page);
    }
    if out.json {
        return out.json(&users.iter().map(Shown::from).collect::<Vec<_>>());
    }
    if users.is_empty() {
        return out.line("no users yet; `doorward users add EMAIL` makes one");
    }
    let rows = users.iter().map(|user| {
        let state = match user.banned_at {
            Some(at) => format!("banned since {}", time(at)),
            None if user.email_verified => "active".to_owned(),
            None => "never signed in".to_owned(),
        };
        let role = if user.admin { "admin" } else { "user" };
        vec![user.email.to_string(), role.to_owned(), state, time(user.created_at)]
    });
    out.table(&["EMAIL", "ROLE", "STATE", "MADE"], &rows.collect::<Vec<_>>())
}

async fn ban(store: &Store, clock: &Clock, email: &Email, out: &mut Out<'_>) -> Result<(), Failure> {
    let user = find(store, email).await?;
    let at = clock.now().wall;
    let banned_at = user.banned_at.unwrap_or(at);
    let effects = Effects::audited(event(EventKind::UserBanned, at).about(user.id))
        .with_revocation(revocation(Scope::User { id: user.id }, at, NewRevocation::BAN))
        .with_revocation(revocation(Scope::UserSessions { id: user.id }, at, NewRevocation::BAN));
    let Changed::Changed(user) = store.set_banned(user.id, Some(banned_at), effects).await? else {
        return Err(Failure::Failed(format!("{email} was removed meanwhile")));
    };
    // From here on nobody gets in; this removes the rows and is repeated by banning again.
    let ended = store.end_sessions(Which::User(user.id), Effects::default()).await?;
    out.say(&Shown::from(&user), &format!("banned {email}; {ended} sessions ended"))
}

async fn unban(store: &Store, clock: &Clock, email: &Email, out: &mut Out<'_>) -> Result<(), Failure> {
    let user = find(store, email).await?;
    if user.banned_at.is_none() {
        return out.say(&Shown::from(&user), &format!("{email} is not banned"));
    }
    let at = clock.now().wall;
    let effects = Effects::audited(event(EventKind::UserUnbanned, at).about(user.id)).with_revocation(revocation(
        Scope::User { id: user.id },
        at,
        NewRevocation::UNBAN,
    ));
    match store.set_banned(user.id, None, effects).await? {
        Changed::Changed(user) => out.say(&Shown::from(&user), &format!("{email} may sign in again")),
        Changed::Unknown => Err(Failure::Failed(format!("{email} was removed meanwhile"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(store: &Store, command: Users) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        let text = "public_url = \"http://127.0.0.1\"\n";
        let config = Config::parse(text, std::path::Path::new("doorward.toml"), &Default::default()).unwrap();
        command.run(store, &config, &Clock::system(), &mut Out::new(&mut bytes, false)).await?;
        Ok(String::from_utf8(bytes).unwrap())
    }

    fn email(text: &str) -> Email {
        Email::parse(text).unwrap()
    }

    fn add(text: &str) -> Users {
        Users::Add(Add {
            email: email(text),
            admin: false,
            pending_subject: None,
            at_provider: false,
            password_hash: None,
        })
    }

    fn one(text: &str) -> One {
        One { email: email(text) }
    }

    #[tokio::test]
    async fn adding_twice_says_so_and_leaves_one_user_and_one_audit_row() {
        let store = Store::memory();
        run(&store, add("Ada@Example.com")).await.unwrap();
        let again = run(&store, add("ada@example.com")).await;
        assert!(matches!(again, Err(Failure::Failed(text)) if text == "ada@example.com is a user already"));
        assert!(run(&store, Users::List).await.unwrap().contains("ada@example.com  user  never signed in"));
        let kinds: Vec<_> = store.audit_tail(0, 10).await.unwrap().into_iter().map(|row| row.kind).collect();
        assert_eq!(kinds, ["user.created"]);
    }

    #[tokio::test]
    async fn an_administrator_with_a_hash_and_a_subject_is_made_in_one_go() {
        let hash = "$2b$10$abcdefghijklmnopqrstuuN8H0Q7Vv3Xq1dA0G1yJ6u8m1rC2wJ3K";
        let store = Store::memory();
        let command = Users::Add(Add {
            email: email("ada@example.com"),
            admin: true,
            pending_subject: Some("sub".to_owned()),
            at_provider: false,
            password_hash: Some(parse_hash(hash).unwrap()),
        });
        run(&store, command).await.unwrap();
        let (user, kept) = store.password(email("ada@example.com")).await.unwrap().unwrap();
        assert_eq!(
            (user.admin, user.link_status, kept.expose().as_str()),
            (true, Some(LinkStatus::PendingVerify), hash)
        );
        let kinds: Vec<_> = store.audit_tail(0, 10).await.unwrap().into_iter().map(|row| row.kind).collect();
        assert_eq!(kinds, ["user.created", "user.admin_granted"]);
        for bad in ["plain text", "$1$md5crypt$x", "$2b$31$abcdefghijklmnopqrstuuN8H0Q7Vv3Xq1dA0G1yJ6u8m1rC2wJ3K"] {
            let refused = parse_hash(bad).unwrap_err();
            assert!(!refused.is_empty() && !refused.contains(bad), "{refused}");
        }
        assert!(parse_subject("").is_err() && parse_subject("a\nb").is_err());
    }

    #[tokio::test]
    async fn a_ban_and_its_end_reach_the_revocation_log() {
        let store = Store::memory();
        run(&store, add("ada@example.com")).await.unwrap();
        run(&store, Users::Ban(one("ada@example.com"))).await.unwrap();
        let user = find(&store, &email("ada@example.com")).await.unwrap();
        assert!(user.banned_at.is_some());
        let scopes = |entries: Vec<doorward_core::revocation::Revocation>| {
            entries.into_iter().map(|entry| entry.entry.scope).collect::<Vec<_>>()
        };
        let after_ban = scopes(store.revocations_after(0, 10).await.unwrap());
        assert_eq!(after_ban, [Scope::User { id: user.id }, Scope::UserSessions { id: user.id }]);

        run(&store, Users::Unban(one("ada@example.com"))).await.unwrap();
        assert_eq!(find(&store, &email("ada@example.com")).await.unwrap().banned_at, None);
        let after_unban = scopes(store.revocations_after(0, 10).await.unwrap());
        assert_eq!(after_unban.last(), Some(&Scope::User { id: user.id }));
        assert_eq!(run(&store, Users::Unban(one("ada@example.com"))).await.unwrap(), "ada@example.com is not banned\n");
        let kinds: Vec<_> = store.audit_tail(0, 10).await.unwrap().into_iter().map(|row| row.kind).collect();
        assert_eq!(kinds, ["user.created", "user.banned", "user.unbanned"]);
    }

    #[tokio::test]
    async fn the_role_is_given_and_taken_once_each_and_both_are_on_record() {
        let store = Store::memory();
        run(&store, add("ada@example.com")).await.unwrap();
        let role = |revoke| Users::Admin(Admin { email: email("ada@example.com"), revoke });
        let steps = [
            (false, "ada@example.com administers this installation\n", true),
            (false, "ada@example.com administers this installation already\n", true),
            (true, "ada@example.com is no administrator\n", false),
            (true, "ada@example.com is no administrator already\n", false),
        ];
        for (revoke, said, is_admin) in steps {
            assert_eq!(run(&store, role(revoke)).await.unwrap(), said);
            assert_eq!(find(&store, &email("ada@example.com")).await.unwrap().admin, is_admin);
        }
        let rows = store.audit_tail(0, 10).await.unwrap();
        let granted: Vec<_> = rows.iter().filter(|row| row.kind == "user.admin_granted").collect();
        let details: Vec<_> = granted.iter().filter_map(|row| row.detail.as_deref()).collect();
        assert_eq!(details, [r#"{"admin":true,"by":"command line"}"#, r#"{"admin":false,"by":"command line"}"#]);
        let entries = store.revocations_after(0, 10).await.unwrap();
        assert!(entries.len() == 2 && entries.iter().all(|entry| matches!(entry.entry.scope, Scope::User { .. })));
        let nobody = Users::Admin(Admin { email: email("nobody@example.com"), revoke: false });
        assert!(run(&store, nobody).await.is_err());
    }

    #[tokio::test]
    async fn a_stranger_is_not_found() {
        let unknown = run(&Store::memory(), Users::Ban(one("nobody@example.com"))).await;
        assert!(matches!(unknown, Err(Failure::Failed(text)) if text.contains("no user nobody@example.com")));
    }

    #[tokio::test]
    async fn the_list_goes_on_past_one_page() {
        let store = Store::memory();
        for n in 0..1001 {
            run(&store, add(&format!("user{n}@example.com"))).await.unwrap();
        }
        assert_eq!(run(&store, Users::List).await.unwrap().lines().count(), 1002);
    }
}
