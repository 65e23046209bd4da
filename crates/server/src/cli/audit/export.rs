//! `audit export`, and reading such a file again: first the heads, then the checkpoints, then the rows.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read as _},
    path::Path,
};

use clap::Args;
use doorward_core::{
    audit::{AuditReport, AuditRow, Checkpoint, LogVerifier, WriterHead},
    jose::JwkSet,
    time::Timestamp,
};
use doorward_store::Store;
use serde_json::{Value, json};

use super::{
    super::{Failure, Out},
    Filter, hex, to_json,
};

/// Longest line that is read; a row is far below, a checkpoint has 150 bytes for each chain.
const LINE: u64 = 16 * 1024 * 1024;
/// Faults of lines that are named; the rest are counted.
const NAMED: usize = 20;

/// Print rows as JSON, one a line.
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    pub(super) filter: Filter,
}

impl Export {
    /// Page by page, so that a long log needs no memory.
    pub(super) async fn run(&self, store: &Store, out: &mut Out<'_>) -> Result<(), Failure> {
        let filter = self.filter.resolve(store).await?;
        // Up to the heads everything can be seen already; of what is appended meanwhile, perhaps only the later half.
        let mut covered = None;
        if self.filter.is_empty() {
            let heads = store.audit_writers().await?;
            let mut verifier = LogVerifier::new(&heads);
            out.line(json!({ "export": { "version": 1, "heads": heads_json(&heads) } }).to_string())?;
            let mut after = 0;
            // Positions rise, so each loop ends with its table.
            loop {
                let page = store.checkpoints_after(after, 100).await?;
                let Some((seq, _)) = page.last() else { break };
                after = *seq;
                for (_, checkpoint) in &page {
                    verifier.checkpoint(checkpoint, Ok(()));
                    out.line(checkpoint_json(checkpoint).to_string())?;
                }
            }
            covered = Some(verifier);
        }
        let mut after = 0;
        loop {
            let rows = store.audit_tail(after, 1000).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.seq;
            let is_covered = |row: &&AuditRow| covered.as_ref().is_none_or(|verifier| verifier.is_covered(row));
            for row in rows.iter().filter(is_covered).filter(|row| filter.admits(row)) {
                out.line(row_json(row).to_string())?;
            }
        }
    }
}

/// A row with what its seal covers, byte by byte: the time in full, the detail as it was written.
pub(super) fn row_json(row: &AuditRow) -> Value {
    let mut document = to_json(row);
    document["at_millis"] = row.at.as_millis().into();
    document["detail_text"] = row.detail.clone().into();
    for (name, bytes) in [("salt", &row.salt[..]), ("detail_hash", &row.detail_hash), ("hash", &row.hash)] {
        document[name] = hex(bytes).into();
    }
    document
}

fn heads_json(heads: &[WriterHead]) -> Value {
    let head = |head: &WriterHead| json!({ "writer": head.writer, "number": head.number, "hash": hex(&head.hash) });
    heads.iter().map(head).collect()
}

fn checkpoint_json(checkpoint: &Checkpoint) -> Value {
    json!({ "checkpoint": {
        "at_millis": checkpoint.at.as_millis(),
        "key": checkpoint.key,
        "heads": heads_json(&checkpoint.heads),
        "signature": hex(&checkpoint.signature),
    } })
}

/// A line of an export.
enum Line {
    Heads(Vec<WriterHead>),
    Checkpoint(Checkpoint),
    Row(Box<AuditRow>),
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    let text = value.as_str()?;
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|n| u8::try_from(n).ok())).collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn fixed<const N: usize>(value: &Value) -> Option<[u8; N]> {
    bytes(value)?.try_into().ok()
}

fn id<T: std::str::FromStr>(value: &Value) -> Option<T> {
    value.as_str()?.parse().ok()
}

/// `None` outside for a value of another kind; `None` inside for null.
fn optional<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Option<T>> {
    if value.is_null() { Some(None) } else { read(value).map(Some) }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn parse_heads(value: &Value) -> Option<Vec<WriterHead>> {
    let head = |head: &Value| {
        Some(WriterHead { writer: id(&head["writer"])?, number: head["number"].as_i64()?, hash: fixed(&head["hash"])? })
    };
    value.as_array()?.iter().map(head).collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let document: Value = serde_json::from_str(line).ok()?;
    if let Some(export) = document.get("export") {
        return parse_heads(&export["heads"]).filter(|_| export["version"] == 1).map(Line::Heads);
    }
    let at = |value: &Value| value["at_millis"].as_i64().map(Timestamp::from_millis);
    if let Some(checkpoint) = document.get("checkpoint") {
        let heads = parse_heads(&checkpoint["heads"])?;
        let signature = bytes(&checkpoint["signature"])?;
        return Some(Line::Checkpoint(Checkpoint {
            at: at(checkpoint)?,
            heads,
            key: id(&checkpoint["key"])?,
            signature,
        }));
    }
    let row = AuditRow {
        seq: document["seq"].as_i64()?,
        writer: id(&document["writer"])?,
        number: document["number"].as_i64()?,
        kind: text(&document["kind"])?,
        at: at(&document)?,
        user_id: optional(&document["user_id"], id)?,
        org_id: optional(&document["org_id"], id)?,
        decision: optional(&document["decision"], id)?,
        reason: optional(&document["reason"], text)?,
        detail: optional(&document["detail_text"], text)?,
        salt: fixed(&document["salt"])?,
        detail_hash: fixed(&document["detail_hash"])?,
        hash: fixed(&document["hash"])?,
    };
    // What stands there for people must say the same as what is sealed, and nothing more.
    (row_json(&row) == document).then(|| Line::Row(Box::new(row)))
}

/// Hands every line to `see`, with its number from 1; `None` for one that is no line of an export.
fn each_line(file: &Path, mut see: impl FnMut(u64, Option<Line>)) -> Result<(), Failure> {
    let wrong = |error: std::io::Error| Failure::Wrong(format!("{}: cannot be read: {error}", file.display()));
    let mut reader = BufReader::new(File::open(file).map_err(wrong)?);
    for number in 1.. {
        let mut line = Vec::new();
        if reader.by_ref().take(LINE).read_until(b'\n', &mut line).map_err(wrong)? == 0 {
            break;
        }
        see(number, str::from_utf8(&line).ok().and_then(parse_line));
    }
    Ok(())
}

/// The checkpoints in a file.
pub(super) fn checkpoints(file: &Path) -> Result<Vec<Checkpoint>, Failure> {
    let mut found = Vec::new();
    each_line(file, |_, line| {
        if let Some(Line::Checkpoint(checkpoint)) = line {
            found.push(checkpoint);
        }
    })?;
    match found.is_empty() {
        true => Err(Failure::Wrong(format!("--anchor {}: there is no checkpoint in it", file.display()))),
        false => Ok(found),
    }
}

/// Checks a whole export; beside the report, what is wrong with lines of the file.
pub(super) fn verify(
    file: &Path,
    anchors: &[Checkpoint],
    keys: &JwkSet,
) -> Result<(AuditReport, Vec<String>), Failure> {
    let mut verifier: Option<LogVerifier> = None;
    let (mut faults, mut more, mut has_rows) = (Vec::new(), 0_u64, false);
    let mut fault = |what: String| if faults.len() < NAMED { faults.push(what) } else { more += 1 };
    each_line(file, |number, line| match (line, &mut verifier) {
        (Some(Line::Heads(heads)), None) => {
            let mut new = LogVerifier::new(&heads);
            anchors.iter().for_each(|checkpoint| new.anchor(checkpoint, checkpoint.check(keys)));
            verifier = Some(new);
        }
        (Some(Line::Checkpoint(checkpoint)), Some(verifier)) if !has_rows => {
            verifier.checkpoint(&checkpoint, checkpoint.check(keys));
        }
        (Some(Line::Row(row)), Some(verifier)) => {
            has_rows = true;
            verifier.row(&row);
        }
        (None, _) => fault(format!("line {number} is no line of an export, or says something else than it seals")),
        (Some(_), _) => fault(format!("line {number} does not belong where it stands")),
    })?;
    let Some(verifier) = verifier else {
        return Err(Failure::Wrong(format!(
            "{} is no whole export: it was made with a filter, or its first line is missing",
            file.display()
        )));
    };
    if more > 0 {
        faults.push(format!("and {more} more lines"));
    }
    Ok((verifier.finish(0), faults))
}
