//! `audit`: reading the log and proving that nobody changed it.

mod filter;

use std::collections::VecDeque;

use clap::{Args, Subcommand};
use doorward_core::{
    audit::{AuditRow, ChainFault},
    ring::Purpose,
};
use doorward_gate::clock::Clock;
use doorward_store::{Store, audit::AuditFault};
use serde_json::{Value, json};

pub(super) use self::filter::parse_time;
use self::filter::{Filter, Resolved};
use super::{
    Failure, Out,
    output::{printable, time},
};
use crate::{config::Config, jobs::checkpoint, lifecycle};

/// The audit log.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Read every chain and check each row's seal; exit code 1 where the log does not hold.
    ///
    /// Checked: seals, gaps, rows cut off behind the heads that the store and the newest checkpoint keep,
    /// and the signature of that checkpoint, for which the root secret is needed.
    Verify,
    /// Print the newest rows.
    Tail(Tail),
    /// Print rows as JSON, one a line, from the oldest on, with their seals.
    Export(Export),
}

/// Print rows as JSON, one a line.
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    filter: Filter,
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
    pub(super) async fn run(
        &self,
        store: &Store,
        config: &Config,
        clock: &Clock,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        match self {
            Self::Verify => verify(store, config, clock, out).await,
            Self::Tail(tail) => {
                let filter = tail.filter.resolve(store).await?;
                let rows = newest(store, usize::from(tail.count), &filter).await?;
                print(&rows, out)
            }
            Self::Export(export) => export.run(store, out).await,
        }
    }
}

async fn verify(store: &Store, config: &Config, clock: &Clock, out: &mut Out<'_>) -> Result<(), Failure> {
    let report = store.verify_audit().await?;
    let mut faults: Vec<String> = report.faults.iter().map(describe).collect();
    if let Some(checkpoint) = &report.checkpoint {
        // A checkpoint was signed, so there is a root secret; where it is gone, nothing can be proven with it.
        let root = lifecycle::root_secret(config, clock)?;
        let keys = store.ring(Purpose::Audit).await?;
        if let Err(flaw) = checkpoint::check(checkpoint, &keys, &root) {
            faults.push(format!("checkpoint of {}: {flaw}", time(checkpoint.at)));
        }
    }
    let checkpoint = report.checkpoint.as_ref().map(|checkpoint| time(checkpoint.at));
    if out.json {
        out.json(&json!({
            "ok": faults.is_empty(), "chains": report.writers, "rows": report.rows,
            "checkpoint": checkpoint, "faults": faults,
        }))?;
    } else {
        out.line(format!("{} rows in {} chains", report.rows, report.writers))?;
        out.line(match &checkpoint {
            Some(at) => format!("newest checkpoint: {at}; the log passes through its heads unless said below"),
            None => "no checkpoint yet: rows removed together with their chain's head would not be noticed".to_owned(),
        })?;
        for fault in &faults {
            out.line(format!("FAULT {fault}"))?;
        }
        if faults.is_empty() {
            out.line("the log holds")?;
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::Said(1)) }
}

fn describe(fault: &AuditFault) -> String {
    match fault {
        AuditFault::Chain { writer, fault } => {
            let what = match fault {
                ChainFault::Gap { expected, found } => format!("row {expected} is missing, row {found} follows"),
                ChainFault::Altered { number } => format!("row {number} was altered"),
                ChainFault::DetailAltered { number } => format!("the detail of row {number} was altered"),
            };
            format!("chain {writer}: {what}; what follows is unproven")
        }
        AuditFault::Cut { writer, expected, found } => {
            format!("chain {writer}: it ends at row {found}, and there were at least {expected}")
        }
    }
}

impl Export {
    /// Page by page, so that a long log needs no memory.
    async fn run(&self, store: &Store, out: &mut Out<'_>) -> Result<(), Failure> {
        let filter = self.filter.resolve(store).await?;
        let mut after = 0;
        // Positions rise, so this ends with the log.
        loop {
            let rows = store.audit_tail(after, 1000).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.seq;
            for row in rows.iter().filter(|row| filter.admits(row)) {
                let mut document = to_json(row);
                // What a seal covers, byte by byte: the time in full, the detail as it was written.
                document["at_millis"] = row.at.as_millis().into();
                document["detail_text"] = row.detail.clone().into();
                for (name, bytes) in [("salt", &row.salt[..]), ("detail_hash", &row.detail_hash), ("hash", &row.hash)] {
                    document[name] = hex(bytes).into();
                }
                out.line(document.to_string())?;
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
