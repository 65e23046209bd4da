//! `audit erase`: personal data leaves the log, the proof that nothing else changed stays.

use clap::Args;
use doorward_core::{
    audit::{AuditRow, ERASED_ROWS, EventKind, erased_rows},
    effects::Effects,
    id::{UserId, WriterId},
    ring::{Purpose, unwrap},
    user::Email,
};
use doorward_gate::{clock::Clock, flow::address_hash_under};
use doorward_store::Store;
use serde_json::{Value, json};

use super::{
    super::{Failure, Out, users::event},
    each_page, keys,
};
use crate::config::Config;

/// Rows erased in one transaction, and named by one row.
const BATCH: usize = 500;

/// Erase what the log says about a person.
#[derive(Debug, Args)]
pub struct Erase {
    /// The person's mail address, or the id of the account, also one that is no more.
    #[arg(long, value_name = "EMAIL-OR-ID", value_parser = parse_person)]
    user: Person,
    /// Do it; without, only say how many rows it would be.
    #[arg(long)]
    apply: bool,
}

/// Who is meant.
#[derive(Clone, Debug)]
enum Person {
    Id(UserId),
    Address(Email),
}

fn parse_person(text: &str) -> Result<Person, String> {
    let id = text.parse().ok().map(Person::Id);
    let known = id.or_else(|| Email::parse(text).map(Person::Address));
    known.ok_or_else(|| "neither a mail address nor the id of an account".to_owned())
}

/// What a row about the person is known by.
struct Marks {
    user: Option<UserId>,
    /// The address itself and its keyed hashes.
    words: Vec<String>,
}

impl Marks {
    async fn of(person: &Person, store: &Store, config: &Config) -> Result<Self, Failure> {
        let (user, email) = match person {
            Person::Id(id) => (Some(*id), store.user(*id).await?.map(|user| user.email)),
            Person::Address(email) => {
                (store.user_by_email(email.clone()).await?.map(|user| user.id), Some(email.clone()))
            }
        };
        let mut words = Vec::new();
        if let Some(email) = email {
            for row in store.ring(Purpose::Login).await? {
                let key = unwrap(keys::root(config)?, &row)
                    .map_err(|_| Failure::Wrong("the login keys do not open with this root secret".to_owned()))?;
                words.push(address_hash_under(&key, &email));
            }
            words.push(email.to_string());
        }
        Ok(Self { user, words })
    }

    /// Whether `row` has a detail that is about the person.
    fn fit(&self, row: &AuditRow) -> bool {
        let Some(detail) = row.detail.as_deref() else { return false };
        if row.kind == EventKind::AuditErased.as_str() {
            return false; // the record names rows and nobody
        }
        if detail == "{}" {
            return false;
        }
        let is_word = |value: &Value| value.as_str().is_some_and(|text| self.words.iter().any(|word| word == text));
        let is_named = || match serde_json::from_str(detail) {
            Ok(Value::Object(detail)) => detail.values().any(is_word),
            _ => false,
        };
        (self.user.is_some() && row.user_id == self.user) || is_named()
    }
}

impl Erase {
    pub(super) async fn run(
        &self,
        store: &Store,
        config: &Config,
        clock: &Clock,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let marks = Marks::of(&self.user, store, config).await?;
        let mut found: Vec<(WriterId, i64)> = Vec::new();
        each_page(store, |rows| {
            found.extend(rows.iter().filter(|row| marks.fit(row)).map(|row| (row.writer, row.number)));
        })
        .await?;
        if !self.apply {
            let text = format!("{} rows of the log have details about this person; --apply erases them", found.len());
            return out.say(&json!({ "found": found.len(), "erased": 0 }), &text);
        }
        let mut erased = 0;
        for rows in found.chunks(BATCH) {
            let mut record = event(EventKind::AuditErased, clock.now().wall);
            record.user_id = marks.user;
            record.detail.more.insert(ERASED_ROWS.to_owned(), erased_rows(rows));
            erased += store.erase_details(rows.to_vec(), Effects::audited(record)).await?;
        }
        let text = format!(
            "the details of {erased} rows are erased; the log verifies as before, exports and backups keep theirs"
        );
        out.say(&json!({ "found": found.len(), "erased": erased }), &text)
    }
}
