//! The check of a whole log: every chain, the heads that it must pass through, and what was erased from it.
//!
//! Rows come in the order of the log, chains mixed. What cannot be found without help from outside: that rows behind
//! the newest checkpoint were rewritten together with the heads, and that the log was put back to the state of an
//! older checkpoint as a whole. Against the second, keep a checkpoint elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{AuditRow, ChainFault, ChainVerifier, Checkpoint, EventKind, WriterHead};
use crate::{id::WriterId, time::Timestamp};

/// Name in the detail of [`EventKind::AuditErased`] under which the rows stand.
pub const ERASED_ROWS: &str = "rows";

/// The rows whose details an erasure took away, as its own detail names them: numbers by writer.
pub fn erased_rows(rows: &[(WriterId, i64)]) -> Value {
    let mut by_writer: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (writer, number) in rows {
        by_writer.entry(writer.to_string()).or_default().push(*number);
    }
    json!(by_writer)
}

/// The rows that the detail of an erasure names; what cannot be read names none.
fn named_rows(detail: &str) -> Vec<(WriterId, i64)> {
    let parsed: Map<String, Value> = serde_json::from_str(detail).unwrap_or_default();
    let Some(Value::Object(by_writer)) = parsed.get(ERASED_ROWS) else { return Vec::new() };
    let of_writer = |(writer, numbers): (&String, &Value)| {
        let writer = writer.parse::<WriterId>().ok()?;
        Some(numbers.as_array()?.iter().filter_map(Value::as_i64).map(move |n| (writer, n)).collect::<Vec<_>>())
    };
    by_writer.iter().filter_map(of_writer).flatten().collect()
}

/// What is wrong with the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditFault {
    /// A row of the chain does not hold.
    Chain {
        /// Whose chain.
        writer: WriterId,
        /// What is wrong.
        fault: ChainFault,
    },
    /// The chain ends before the head that is kept for it: rows were cut off.
    Cut {
        /// Whose chain.
        writer: WriterId,
        /// The number that the head names.
        expected: i64,
        /// The number of the last row that is there.
        found: i64,
        /// Time of the checkpoint that signed the head; `None` for the head in the store.
        signed: Option<Timestamp>,
    },
    /// The row is not the one that the head names: the chain was written anew up to here.
    Rewritten {
        /// Whose chain.
        writer: WriterId,
        /// The row's number.
        number: i64,
        /// As in [`AuditFault::Cut`].
        signed: Option<Timestamp>,
    },
    /// There are rows of a chain and no head of it.
    NoHead {
        /// Whose chain.
        writer: WriterId,
    },
    /// Details are gone, and no erasure names their rows.
    Erased {
        /// Whose chain.
        writer: WriterId,
        /// Number of the first such row.
        number: i64,
        /// How many in this chain.
        count: u64,
    },
    /// A checkpoint cannot be believed; its heads were not compared.
    Checkpoint {
        /// When it says it was made.
        at: Timestamp,
        /// Why not.
        flaw: &'static str,
    },
    /// The same of one that was kept elsewhere.
    Anchor {
        /// When it says it was made.
        at: Timestamp,
        /// Why not.
        flaw: &'static str,
    },
    /// The log says that more checkpoints were made than there are.
    CheckpointsGone {
        /// How many the log speaks of.
        expected: u64,
        /// How many there are.
        found: u64,
    },
}

/// What a check looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Chains read.
    pub writers: u64,
    /// Rows read.
    pub rows: u64,
    /// Rows whose detail was erased.
    pub erased: u64,
    /// Checkpoints of the log read and believed.
    pub checkpoints: u64,
    /// Time of the newest of those.
    pub checkpoint: Option<Timestamp>,
    /// Rows behind the newest signed head of their chain: until the next checkpoint nobody has vouched for them.
    pub unsigned: u64,
    /// What is wrong; empty when everything holds.
    pub faults: Vec<AuditFault>,
}

#[derive(Debug)]
struct Mark {
    head: WriterHead,
    signed: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Chain {
    verifier: ChainVerifier,
    fault: Option<ChainFault>,
    /// Highest signed number.
    signed: i64,
    /// Highest number of any head.
    limit: i64,
    has_head: bool,
    has_rows: bool,
    marks: Vec<Mark>,
}

impl Chain {
    fn mark(&mut self, head: WriterHead, signed: Option<Timestamp>) {
        self.has_head = true;
        self.limit = self.limit.max(head.number);
        if signed.is_some() {
            if head.number < self.signed {
                return; // whoever signed the later head has seen this one
            }
            self.signed = head.number;
            self.marks.retain(|mark| mark.signed.is_none() || mark.head.number == head.number);
        }
        if head.number > 0 && !self.marks.iter().any(|mark| mark.signed.is_some() && mark.head == head) {
            self.marks.push(Mark { head, signed });
        }
    }
}

/// Checks a log from its first row to its last. Memory grows with the number of chains and erased rows, not of rows.
#[derive(Debug, Default)]
pub struct LogVerifier {
    chains: BTreeMap<WriterId, Chain>,
    report: AuditReport,
    checkpoint_rows: u64,
    erased: BTreeSet<(WriterId, i64)>,
    named: BTreeSet<(WriterId, i64)>,
}

impl LogVerifier {
    /// A check of a log that must pass through these heads, as whoever keeps the log says.
    pub fn new(heads: &[WriterHead]) -> Self {
        let mut this = Self::default();
        for head in heads {
            this.chains.entry(head.writer).or_default().mark(*head, None);
        }
        this
    }

    /// Takes a checkpoint, which the log must pass through if `flaw` says nothing against it. All come before the rows.
    pub fn checkpoint(&mut self, checkpoint: &Checkpoint, verdict: Result<(), &'static str>) {
        if let Err(flaw) = verdict {
            self.report.faults.push(AuditFault::Checkpoint { at: checkpoint.at, flaw });
            return;
        }
        self.report.checkpoints += 1;
        self.mark(checkpoint);
    }

    /// The same for one that was kept elsewhere, so that a log put back as a whole shows.
    pub fn anchor(&mut self, checkpoint: &Checkpoint, verdict: Result<(), &'static str>) {
        match verdict {
            Ok(()) => self.mark(checkpoint),
            Err(flaw) => self.report.faults.push(AuditFault::Anchor { at: checkpoint.at, flaw }),
        }
    }

    fn mark(&mut self, checkpoint: &Checkpoint) {
        self.report.checkpoint = self.report.checkpoint.max(Some(checkpoint.at));
        for head in &checkpoint.heads {
            self.chains.entry(head.writer).or_default().mark(*head, Some(checkpoint.at));
        }
    }

    /// Whether a row is not behind the heads. In a log that is being written to, others are left out: of those, one
    /// may be seen before the one it follows.
    pub fn is_covered(&self, row: &AuditRow) -> bool {
        self.chains.get(&row.writer).is_some_and(|chain| row.number <= chain.limit)
    }

    /// Checks the next row of the log.
    pub fn row(&mut self, row: &AuditRow) {
        self.report.rows += 1;
        let chain = self.chains.entry(row.writer).or_default();
        chain.has_rows = true;
        if let Some(fault) = &mut chain.fault {
            // Not gone, then, but in another place.
            if matches!(fault, ChainFault::Gap { expected, .. } if *expected == row.number) {
                *fault = ChainFault::Reordered { number: row.number };
            }
            return;
        }
        if let Err(fault) = chain.verifier.check(row) {
            chain.fault = Some(fault);
            return;
        }
        let faults = &mut self.report.faults;
        chain.marks.retain(|Mark { head, signed }| {
            if head.number != row.number {
                return true;
            }
            if head.hash != row.hash {
                faults.push(AuditFault::Rewritten { writer: row.writer, number: row.number, signed: *signed });
            }
            false
        });
        match &row.detail {
            Some(detail) if row.kind == EventKind::AuditErased.as_str() => self.named.extend(named_rows(detail)),
            Some(_) => {}
            None => {
                self.erased.insert((row.writer, row.number));
            }
        }
        self.checkpoint_rows += u64::from(row.kind == EventKind::AuditCheckpoint.as_str());
    }

    /// The verdict. `later` is how many checkpoints were made while rows were read.
    pub fn finish(self, later: u64) -> AuditReport {
        let Self { chains, mut report, checkpoint_rows, erased, named } = self;
        let mut is_whole = true;
        let unbelieved = report.faults.iter().filter(|fault| matches!(fault, AuditFault::Checkpoint { .. })).count();
        for (writer, chain) in chains {
            report.writers += 1;
            let (found, _) = chain.verifier.head();
            report.unsigned += u64::try_from(found - chain.signed).unwrap_or(0);
            if let Some(fault) = chain.fault {
                is_whole = false;
                report.faults.push(AuditFault::Chain { writer, fault }); // everything behind it is unproven
                continue;
            }
            if chain.has_rows && !chain.has_head {
                report.faults.push(AuditFault::NoHead { writer });
            }
            if let Some(Mark { head, signed }) = chain.marks.iter().max_by_key(|mark| (mark.head.number, mark.signed)) {
                is_whole = false;
                let (expected, signed) = (head.number, *signed);
                report.faults.push(AuditFault::Cut { writer, expected, found, signed });
            }
        }
        report.erased = erased.len() as u64;
        // What names an erasure may stand in the part that is missing.
        if is_whole {
            let mut unnamed: BTreeMap<WriterId, (i64, u64)> = BTreeMap::new();
            for (writer, number) in erased.difference(&named) {
                unnamed.entry(*writer).or_insert((*number, 0)).1 += 1;
            }
            let fault = |(writer, (number, count))| AuditFault::Erased { writer, number, count };
            report.faults.extend(unnamed.into_iter().map(fault));
        }
        let found = report.checkpoints + unbelieved as u64 + later;
        if checkpoint_rows > found {
            report.faults.push(AuditFault::CheckpointsGone { expected: checkpoint_rows, found });
        }
        report
    }
}

#[cfg(test)]
mod tests;
