//! `audit verify`: over the store, or over a file that was exported.

use std::path::PathBuf;

use clap::Args;
use doorward_core::{
    audit::{AuditFault, AuditReport, ChainFault},
    jose::JwkSet,
    time::Timestamp,
};
use doorward_gate::clock::Clock;
use doorward_store::{Store, StoreOptions};
use serde_json::json;

use super::{
    super::{Failure, Out, STORE_WAIT, open_store, output::time},
    export, keys,
};
use crate::config::Config;

/// Check the log.
#[derive(Debug, Args)]
pub struct Verify {
    /// JWK set with the public keys of the log, as `audit public-key` prints it.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Check a whole export in place of the store.
    #[arg(long, value_name = "FILE", requires = "public_key", conflicts_with = "store")]
    export: Option<PathBuf>,
    /// URL of the store, as `store.url` has it, in place of a configuration; a relative path starts here.
    #[arg(long, value_name = "URL", requires = "public_key")]
    store: Option<String>,
    /// An older export, or lines of one, that was kept elsewhere: the log must pass through its checkpoints too.
    ///
    /// Without one, a log that was put back as a whole to the state of an older checkpoint holds.
    #[arg(long, value_name = "FILE")]
    anchor: Option<PathBuf>,
}

impl Verify {
    pub(super) async fn run(
        &self,
        load: impl Fn() -> Result<Config, Failure>,
        clock: &Clock,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let given = self.public_key.as_deref().map(keys::read).transpose()?;
        let anchors = self.anchor.as_deref().map(export::checkpoints).transpose()?.unwrap_or_default();
        if let (Some(file), Some(keys)) = (&self.export, &given) {
            let (report, unread) = export::verify(file, &anchors, keys)?;
            return say(&report, unread, out);
        }
        let (store, config) = match &self.store {
            Some(url) => (Store::open(url, StoreOptions::new(".", clock.random()))?, None),
            None => {
                let config = load()?;
                (open_store(&config, clock)?, Some(config))
            }
        };
        store.wait_ready(STORE_WAIT).await?;
        let judged = async {
            let keys = match (given, &config) {
                (Some(keys), _) => keys,
                (None, Some(config)) => keys::own(&store, config).await?,
                (None, None) => JwkSet::default(), // clap asks for the keys where it takes a URL
            };
            Ok(store.verify_audit(&anchors, |checkpoint| checkpoint.check(&keys)).await?)
        };
        let judged: Result<AuditReport, Failure> = judged.await;
        store.close().await;
        say(&judged?, Vec::new(), out)
    }
}

/// Says what was found; `unread` are faults of a file before its rows can be judged.
fn say(report: &AuditReport, unread: Vec<String>, out: &mut Out<'_>) -> Result<(), Failure> {
    let faults: Vec<String> = unread.into_iter().chain(report.faults.iter().map(describe)).collect();
    let checkpoint = report.checkpoint.map(time);
    if out.json {
        out.json(&json!({
            "ok": faults.is_empty(), "chains": report.writers, "rows": report.rows, "erased": report.erased,
            "checkpoints": report.checkpoints, "checkpoint": checkpoint, "unsigned_rows": report.unsigned,
            "faults": faults,
        }))?;
    } else {
        out.line(format!(
            "{} rows in {} chains, {} with their detail erased",
            report.rows, report.writers, report.erased
        ))?;
        out.line(match &checkpoint {
            Some(at) => format!(
                "{} checkpoints, the newest of {at}; {} rows are not covered by one yet",
                report.checkpoints, report.unsigned
            ),
            None => {
                "no checkpoint yet: rows written anew together with their chain's head would not be noticed".to_owned()
            }
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
    let head = |signed: &Option<Timestamp>| match signed {
        Some(at) => format!("the checkpoint of {}", time(*at)),
        None => "the head in the store".to_owned(),
    };
    match fault {
        AuditFault::Chain { writer, fault } => {
            let what = match fault {
                ChainFault::Gap { expected, found } => format!("row {expected} is missing, row {found} follows"),
                ChainFault::Reordered { number } => {
                    format!("row {number} stands in another place than it was written to")
                }
                ChainFault::Altered { number } => format!("row {number} was altered"),
                ChainFault::DetailAltered { number } => format!("the detail of row {number} was altered"),
            };
            format!("chain {writer}: {what}; what follows is unproven")
        }
        AuditFault::Cut { writer, expected, found, signed } => {
            format!(
                "chain {writer}: it ends at row {found}, and {} names row {expected}: rows were cut off",
                head(signed)
            )
        }
        AuditFault::Rewritten { writer, number, signed } => {
            format!("chain {writer}: row {number} is not the one that {} names: it was written anew", head(signed))
        }
        AuditFault::NoHead { writer } => format!("chain {writer}: there are rows and no head of it"),
        AuditFault::Erased { writer, number, count } => {
            format!(
                "chain {writer}: the details of {count} rows, first row {number}, are gone, and no erasure names them"
            )
        }
        AuditFault::Checkpoint { at, flaw } => format!("checkpoint of {}: {flaw}", time(*at)),
        AuditFault::Anchor { at, flaw } => format!("anchor of {}: {flaw}", time(*at)),
        AuditFault::CheckpointsGone { expected, found } => {
            format!("the log speaks of {expected} checkpoints, and there are {found}: checkpoints were deleted")
        }
    }
}
