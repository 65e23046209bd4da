//! `users import`: people of an older system become users here.
//!
//! Whoever exists already is passed over and never overwritten, so an import that was interrupted, or whose file was
//! corrected, is simply run again. A line that cannot be read costs no other.

mod rows;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
};

use clap::Args;
use doorward_core::{
    audit::EventKind,
    effects::Effects,
    id::UserId,
    time::Timestamp,
    user::{Email, LinkStatus, User},
};
use doorward_gate::clock::Clock;
use doorward_store::{CreateUser, NewUser, Store, StoreError};
use serde::Serialize;

pub(super) use self::rows::subject_problem;
use self::rows::{Candidate, Format, Problem, Rows};
use super::{
    Failure, Out,
    output::{printable, time},
    users::event,
};

/// Make users from a file.
#[derive(Debug, Args)]
pub struct Import {
    /// File with one person on each line: JSONL, or CSV whose first line names the columns. Members and columns are
    /// email, password_hash (bcrypt, or Argon2 in PHC form), pending_subject (at the license provider) and admin.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How the file is written; its name says so where it ends in .jsonl, .ndjson or .csv.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Make the users. Without it, nothing is written: the report says what would happen.
    #[arg(long)]
    apply: bool,
    /// Write nothing; this is the default.
    #[arg(long, conflicts_with = "apply")]
    dry_run: bool,
    /// Users that are made in one transaction.
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=500))]
    batch_size: u16,
    /// Stop after this many good rows.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
}

/// What came of an import.
#[derive(Debug, Serialize)]
struct Report {
    ran_at: String,
    finished_at: String,
    mode: &'static str,
    file: String,
    /// Rows looked at, the broken ones included.
    total: u64,
    /// Users made, or that would be made.
    created: u64,
    /// Of those, users whose subject waits for the first sign-in.
    created_pending_verify: u64,
    /// Of those, users with a password hash.
    created_with_password: u64,
    /// Rows whose address belongs to a user already; nothing about them was changed.
    skipped_existing: u64,
    errors: Vec<Problem>,
}

impl Report {
    fn made(&mut self, candidate: &Candidate) {
        self.created += 1;
        self.created_pending_verify += u64::from(candidate.pending_subject.is_some());
        self.created_with_password += u64::from(candidate.password_hash.is_some());
    }

    fn last_line(&self) -> String {
        format!(
            "[import] done mode={} total={} created={} pending={} with_password={} existing={} errors={}",
            self.mode,
            self.total,
            self.created,
            self.created_pending_verify,
            self.created_with_password,
            self.skipped_existing,
            self.errors.len()
        )
    }
}

impl Import {
    pub(super) async fn run(&self, store: &Store, clock: &Clock, out: &mut Out<'_>) -> Result<(), Failure> {
        let mut rows = Rows::open(&self.file, self.format).map_err(Failure::Wrong)?;
        let mut report = Report {
            ran_at: time(clock.now().wall),
            finished_at: String::new(),
            mode: if self.apply { "apply" } else { "dry-run" },
            file: self.file.display().to_string(),
            total: 0,
            created: 0,
            created_pending_verify: 0,
            created_with_password: 0,
            skipped_existing: 0,
            errors: Vec::new(),
        };
        let mut seen = HashMap::new();
        let progress = Progress { is_shown: !out.json && std::io::stderr().is_terminal() };
        loop {
            let batch = self.batch(&mut rows, &mut seen, &mut report)?;
            if batch.is_empty() {
                break;
            }
            if let Err(error) = self.take(store, clock, batch, &mut report).await {
                progress.end();
                return Err(Failure::Wrong(format!(
                    "{error}; {} users were made before it and stay: run the import again to go on",
                    if self.apply { report.created } else { 0 }
                )));
            }
            progress.show(&report);
        }
        progress.end();
        report.finished_at = time(clock.now().wall);
        tell(&report, out)?;
        if report.errors.is_empty() { Ok(()) } else { Err(Failure::Said(1)) }
    }

    /// The next good rows; broken ones go into the report.
    fn batch(
        &self,
        rows: &mut Rows,
        seen: &mut HashMap<Email, u64>,
        report: &mut Report,
    ) -> Result<Vec<Candidate>, Failure> {
        let mut batch = Vec::new();
        while batch.len() < usize::from(self.batch_size) {
            if self.limit.is_some_and(|limit| seen.len() as u64 >= limit) {
                break;
            }
            let next = rows.next().map_err(|error| Failure::Wrong(format!("{}: {error}", self.file.display())))?;
            let Some(row) = next else { break };
            report.total += 1;
            match row {
                Ok(candidate) => match seen.get(&candidate.email) {
                    Some(line) => report.errors.push(Problem {
                        line: candidate.line,
                        email: Some(candidate.email.to_string()),
                        problem: format!("the address is on line {line} already"),
                        remedy: "keep the row that is right; the first one was taken",
                    }),
                    None => {
                        seen.insert(candidate.email.clone(), candidate.line);
                        batch.push(candidate);
                    }
                },
                Err(problem) => report.errors.push(problem),
            }
        }
        Ok(batch)
    }

    /// Makes the users of a batch that are not there yet, in one transaction.
    async fn take(
        &self,
        store: &Store,
        clock: &Clock,
        batch: Vec<Candidate>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let mut left = Vec::with_capacity(batch.len());
        for candidate in batch {
            match store.user_by_email(candidate.email.clone()).await? {
                Some(_) => report.skipped_existing += 1,
                None => left.push(candidate),
            }
        }
        // All or none are made. Somebody who was made meanwhile is left out of the next round, so each round is
        // shorter than the one before.
        while self.apply && !left.is_empty() {
            let at = clock.now().wall;
            let (users, effects) = plan(&left, clock, at);
            let outcomes = store.create_users(users, effects).await?;
            if outcomes.iter().all(|outcome| *outcome == CreateUser::Created) {
                break;
            }
            let before = left.len();
            let mut outcomes = outcomes.into_iter();
            left.retain(|_| outcomes.next() == Some(CreateUser::Created));
            report.skipped_existing += (before - left.len()) as u64;
        }
        for candidate in &left {
            report.made(candidate);
        }
        Ok(())
    }
}

/// The users that candidates become, with an audit row each.
fn plan(candidates: &[Candidate], clock: &Clock, at: Timestamp) -> (Vec<NewUser>, Effects) {
    let mut effects = Effects::default();
    let users = candidates.iter().map(|candidate| {
        let user = User {
            admin: candidate.is_admin,
            link_status: candidate.pending_subject.as_ref().map(|_| LinkStatus::PendingVerify),
            candidate_subject: candidate.pending_subject.clone(),
            ..User::new(UserId::mint(at, clock.random()), candidate.email.clone(), at)
        };
        let mut event = event(EventKind::UserImported, at).about(user.id);
        event.detail.more.insert("line".into(), candidate.line.into());
        event.detail.more.insert("admin".into(), candidate.is_admin.into());
        event.detail.more.insert("password".into(), candidate.password_hash.is_some().into());
        event.detail.more.insert("pending_subject".into(), candidate.pending_subject.is_some().into());
        effects.audit.push(event);
        NewUser { user, password_hash: candidate.password_hash.clone() }
    });
    (users.collect(), effects)
}

fn tell(report: &Report, out: &mut Out<'_>) -> Result<(), Failure> {
    if out.json {
        return out.json(report);
    }
    for Problem { line, email, problem, remedy } in &report.errors {
        let who = email.as_ref().map(|email| format!(" ({})", printable(email))).unwrap_or_default();
        out.line(format!("line {line}{who}: {}; {remedy}", printable(problem)))?;
    }
    if report.mode == "dry-run" {
        out.line("nothing was written; --apply makes the users")?;
    }
    out.line(report.last_line())
}

/// A line on the terminal that is written anew after each batch.
struct Progress {
    is_shown: bool,
}

impl Progress {
    fn show(&self, report: &Report) {
        if self.is_shown {
            // A terminal that is gone is no reason to stop.
            let _ = write!(
                std::io::stderr(),
                "\r{} rows, {} made, {} there already, {} broken",
                report.total,
                report.created,
                report.skipped_existing,
                report.errors.len()
            );
        }
    }

    fn end(&self) {
        if self.is_shown {
            let _ = writeln!(std::io::stderr());
        }
    }
}
