//! `audit`: reading the log and proving that nobody changed it.

mod erase;
mod export;
mod filter;
mod keys;
mod verify;

use std::collections::VecDeque;

use clap::{Args, Subcommand};
use doorward_core::audit::AuditRow;
use doorward_gate::clock::Clock;
use doorward_store::Store;
use serde_json::{Value, json};

pub(super) use self::filter::parse_time;
#[cfg(test)]
pub(crate) use self::keys::public_audit_keys;
use self::{
    erase::Erase,
    export::Export,
    filter::{Filter, Resolved},
    keys::PublicKey,
    verify::Verify,
};
use super::{
    Failure, Out,
    output::{printable, time},
    wait_for, with_store,
};
use crate::config::Config;

/// The audit log.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Read every chain and check each row's seal and every checkpoint; exit code 1 where the log does not hold.
    ///
    /// Found are rows that were edited, deleted, moved or cut off, chains that were sealed anew up to the newest
    /// checkpoint, checkpoints that were forged or are gone, and details that were erased without a record. With
    /// --public-key it needs no root secret, and with --store or --export no configuration either.
    Verify(Verify),
    /// Print the public keys that checkpoints are verified with, as a JWK set; for somebody who verifies elsewhere.
    PublicKey(PublicKey),
    /// Print the newest rows.
    Tail(Tail),
    /// Print rows as JSON, one a line, from the oldest on, with their seals.
    ///
    /// A whole export, one without a filter, also has heads and checkpoints and can be verified by itself.
    Export(Export),
    /// Erase what the log says about a person beyond that something happened; the log still verifies.
    ///
    /// Addresses, devices and everything else in the details go; time, event, reason and the random id of the account
    /// stay, and a row says which details were erased. Exports and backups are not reached.
    Erase(Erase),
}

/// Print the newest rows.
#[derive(Debug, Args)]
pub struct Tail {
    /// How many rows.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20)]
    count: u16,
    #[command(flatten)]
    filter: Filter,
}

impl Audit {
    pub(super) fn run(
        &self,
        load: impl Fn() -> Result<Config, Failure>,
        clock: &Clock,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        match self {
            Self::Verify(verify) => wait_for(verify.run(load, clock, out)),
            Self::PublicKey(key) => {
                let config = load()?;
                with_store(&config, clock, async |store| key.run(store, &config, out).await)
            }
            Self::Tail(tail) => with_store(&load()?, clock, async |store| {
                let filter = tail.filter.resolve(store).await?;
                let rows = newest(store, usize::from(tail.count), &filter).await?;
                print(&rows, out)
            }),
            Self::Export(export) => with_store(&load()?, clock, async |store| export.run(store, out).await),
            Self::Erase(erase) => {
                let config = load()?;
                with_store(&config, clock, async |store| erase.run(store, &config, clock, out).await)
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The last `count` rows of the log that the filter admits, oldest first.
async fn newest(store: &Store, count: usize, filter: &Resolved<'_>) -> Result<Vec<AuditRow>, Failure> {
    let mut kept: VecDeque<AuditRow> = VecDeque::new();
    each_page(store, |rows| {
        kept.extend(rows.into_iter().filter(|row| filter.admits(row)));
        kept.drain(..kept.len().saturating_sub(count));
    })
    .await?;
    Ok(kept.into())
}

/// Reads the whole log page by page. Positions rise, so this ends with the log.
pub(super) async fn each_page(store: &Store, mut see: impl FnMut(Vec<AuditRow>)) -> Result<(), Failure> {
    let mut after = 0;
    loop {
        let rows = store.audit_tail(after, 1000).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.seq;
        see(rows);
    }
}

/// Prints rows for people or programs.
pub(super) fn print(rows: &[AuditRow], out: &mut Out<'_>) -> Result<(), Failure> {
    if out.json {
        return out.json(&rows.iter().map(to_json).collect::<Vec<_>>());
    }
    for row in rows {
        let mut line = format!("{} {}", time(row.at), row.kind);
        if let Some(user) = row.user_id {
            line.push_str(&format!(" user={user}"));
        }
        if let Some(reason) = &row.reason {
            line.push_str(&format!(" reason={reason}"));
        }
        if let Some(decision) = row.decision {
            line.push_str(&format!(" decision={decision}"));
        }
        match row.detail.as_deref() {
            None => line.push_str(" (detail erased)"),
            Some("{}") => {}
            Some(detail) => line.push_str(&format!(" {}", printable(detail))),
        }
        out.line(line)?;
    }
    Ok(())
}

fn to_json(row: &AuditRow) -> Value {
    let detail = row.detail.as_deref().and_then(|detail| serde_json::from_str::<Value>(detail).ok());
    json!({
        "seq": row.seq, "writer": row.writer, "number": row.number, "kind": row.kind, "at": time(row.at),
        "user_id": row.user_id, "org_id": row.org_id, "decision": row.decision, "reason": row.reason, "detail": detail,
    })
}

#[cfg(test)]
mod tests;
