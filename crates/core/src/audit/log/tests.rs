use super::*;
use crate::{
    audit::{GENESIS, detail_hash, seal},
    id::{RingKeyId, UserId},
};

const AT: Timestamp = Timestamp::from_secs(1_800_000_000);

fn writer(byte: u8) -> WriterId {
    WriterId::from_uuid(uuid::Uuid::from_bytes([byte; 16]))
}

/// A log of two chains of six rows each, row by row in turn.
fn log() -> Vec<AuditRow> {
    let mut heads = [GENESIS; 2];
    let mut rows = Vec::new();
    for n in 0..12_i64 {
        let lane = usize::try_from(n % 2).unwrap();
        let detail = format!("{{\"n\":{n}}}");
        let mut row = AuditRow {
            seq: n + 1,
            writer: writer(lane as u8 + 1),
            number: n / 2 + 1,
            kind: "session.created".to_owned(),
            at: AT,
            user_id: Some(UserId::mint(AT, [n as u8; 10])),
            org_id: None,
            decision: None,
            reason: None,
            detail_hash: detail_hash(&[n as u8; 16], &detail),
            detail: Some(detail),
            salt: [n as u8; 16],
            hash: GENESIS,
        };
        row.hash = seal(&heads[lane], &row);
        heads[lane] = row.hash;
        rows.push(row);
    }
    rows
}

/// Seals the chain of `lane` anew from what the rows say now, as somebody would who can write everywhere.
fn seal_again(rows: &mut [AuditRow], lane: u8) {
    let mut head = GENESIS;
    for (row, number) in rows.iter_mut().filter(|row| row.writer == writer(lane)).zip(1..) {
        row.number = number;
        if let Some(detail) = &row.detail {
            row.detail_hash = detail_hash(&row.salt, detail);
        }
        row.hash = seal(&head, row);
        head = row.hash;
    }
}

fn heads(rows: &[AuditRow]) -> Vec<WriterHead> {
    let last = |lane: u8| rows.iter().rfind(|row| row.writer == writer(lane));
    let head = |row: &AuditRow| WriterHead { writer: row.writer, number: row.number, hash: row.hash };
    [last(1), last(2)].into_iter().flatten().map(head).collect()
}

/// The faults of `rows` against the heads in the store and those that were signed.
fn faults(rows: &[AuditRow], heads: &[WriterHead], signed: &[WriterHead]) -> Vec<AuditFault> {
    let mut verifier = LogVerifier::new(heads);
    if !signed.is_empty() {
        let key = RingKeyId::mint(AT, [0; 10]);
        verifier.checkpoint(&Checkpoint { at: AT, heads: signed.to_vec(), key, signature: Vec::new() }, Ok(()));
    }
    rows.iter().for_each(|row| verifier.row(row));
    verifier.finish(0).faults
}

#[test]
fn a_log_as_it_was_written_holds() {
    let rows = log();
    assert_eq!(faults(&rows, &heads(&rows), &heads(&rows[..8])), []);
}

#[test]
fn any_field_of_any_row_that_is_edited_is_named() {
    let rows = log();
    let edits: [fn(&mut AuditRow); 9] = [
        |row| row.kind = "session.ended".to_owned(),
        |row| row.at = Timestamp::EPOCH,
        |row| row.user_id = None,
        |row| row.org_id = Some(crate::id::OrgId::mint(AT, [9; 10])),
        |row| row.decision = Some(crate::id::DecisionId::mint(AT, [9; 10])),
        |row| row.reason = Some("no_rule".to_owned()),
        |row| row.detail = Some("{}".to_owned()),
        |row| row.salt = [0xff; 16],
        |row| row.detail_hash = [0; 32],
    ];
    for at in 0..rows.len() {
        for (n, edit) in edits.iter().enumerate() {
            let mut altered = rows.clone();
            edit(&mut altered[at]);
            let (writer, number) = (rows[at].writer, rows[at].number);
            let fault = match n {
                6 | 7 => ChainFault::DetailAltered { number },
                _ => ChainFault::Altered { number },
            };
            assert_eq!(faults(&altered, &heads(&rows), &[]), [AuditFault::Chain { writer, fault }], "{at} {n}");
        }
    }
}

#[test]
fn a_row_that_is_deleted_moved_or_swapped_is_named() {
    let rows = log();
    let (one, heads) = (writer(1), heads(&rows));
    let mut deleted = rows.clone();
    deleted.remove(4);
    let gap = ChainFault::Gap { expected: 3, found: 4 };
    assert_eq!(faults(&deleted, &heads, &[]), [AuditFault::Chain { writer: one, fault: gap }]);
    // Two rows of a chain change places, by their positions or by their numbers.
    let mut moved = rows.clone();
    (moved[4].seq, moved[6].seq) = (rows[6].seq, rows[4].seq);
    let reordered = [AuditFault::Chain { writer: one, fault: ChainFault::Reordered { number: 4 } }];
    assert_eq!(faults(&moved, &heads, &[]), reordered, "read in the order of their numbers");
    moved.sort_by_key(|row| row.seq);
    let reordered = [AuditFault::Chain { writer: one, fault: ChainFault::Reordered { number: 3 } }];
    assert_eq!(faults(&moved, &heads, &[]), reordered, "read in the order of their positions");
    let mut swapped = rows.clone();
    (swapped[4].number, swapped[6].number) = (4, 3);
    assert_eq!(faults(&swapped, &heads, &[]), reordered);
    // Into the other chain.
    let mut adopted = rows.clone();
    adopted[4].writer = writer(2);
    assert!(!faults(&adopted, &heads, &[]).is_empty());
}

#[test]
fn an_end_that_is_cut_off_shows_against_the_head_and_with_it_against_the_signature() {
    let rows = log();
    let cut = rows[..10].to_vec();
    let expected = |writer, signed| AuditFault::Cut { writer, expected: 6, found: 5, signed };
    let [one, two] = [writer(1), writer(2)];
    assert_eq!(faults(&cut, &heads(&rows), &[]), [expected(one, None), expected(two, None)]);
    assert_eq!(faults(&cut, &heads(&cut), &[]), [], "together with its heads nothing shows");
    let signed = [expected(one, Some(AT)), expected(two, Some(AT))];
    assert_eq!(faults(&cut, &heads(&cut), &heads(&rows)), signed, "unless they were signed");
    let one_alone: Vec<_> = rows.iter().filter(|row| row.writer == one).cloned().collect();
    let gone = AuditFault::Cut { writer: two, expected: 6, found: 0, signed: Some(AT) };
    assert_eq!(faults(&one_alone, &heads(&one_alone), &heads(&rows)), [gone], "a whole chain is gone");
    assert_eq!(faults(&rows, &heads(&rows)[..1], &[]), [AuditFault::NoHead { writer: two }]);
}

#[test]
fn a_chain_that_is_sealed_anew_shows_against_the_signature() {
    let rows = log();
    for at in (0..8).step_by(2) {
        let mut rewritten = rows.clone();
        rewritten[at].kind = "session.ended".to_owned();
        seal_again(&mut rewritten, 1);
        assert_eq!(faults(&rewritten, &heads(&rewritten), &[]), [], "the seals alone are nobody's secret");
        let expected = AuditFault::Rewritten { writer: writer(1), number: 4, signed: Some(AT) };
        assert_eq!(faults(&rewritten, &heads(&rewritten), &heads(&rows[..8])), [expected]);
    }
    let mut behind = rows.clone();
    behind[10].kind = "session.ended".to_owned();
    seal_again(&mut behind, 1);
    let mut verifier = LogVerifier::new(&heads(&behind));
    let signed = Checkpoint { at: AT, heads: heads(&rows[..8]), key: RingKeyId::mint(AT, [0; 10]), signature: vec![] };
    verifier.checkpoint(&signed, Ok(()));
    behind.iter().for_each(|row| verifier.row(row));
    let report = verifier.finish(0);
    assert_eq!((report.faults, report.unsigned), (vec![], 4), "not found, and the report says for how many rows");
}

#[test]
fn a_detail_may_be_gone_where_an_erasure_names_its_row() {
    let mut rows = log();
    rows[10].kind = EventKind::AuditErased.as_str().to_owned();
    rows[10].detail = Some(json!({ ERASED_ROWS: erased_rows(&[(writer(1), 2), (writer(2), 1)]) }).to_string());
    seal_again(&mut rows, 1);
    let heads = heads(&rows);
    for at in [1, 2] {
        rows[at].detail = None;
        rows[at].salt = [0; 16];
    }
    let mut verifier = LogVerifier::new(&heads);
    rows.iter().for_each(|row| verifier.row(row));
    let report = verifier.finish(0);
    assert_eq!((report.erased, report.faults), (2, vec![]));
    rows[4].detail = None;
    rows[6].detail = None;
    let unnamed = AuditFault::Erased { writer: writer(1), number: 3, count: 2 };
    assert_eq!(faults(&rows, &heads, &[]), [unnamed]);
    rows[10].detail = None;
    assert_eq!(faults(&rows, &heads, &[]).len(), 2, "the record of an erasure is not erased");
}

#[test]
fn a_checkpoint_that_cannot_be_believed_or_is_gone_is_named() {
    let mut rows = log();
    rows[3].kind = EventKind::AuditCheckpoint.as_str().to_owned();
    seal_again(&mut rows, 2);
    let heads = heads(&rows);
    assert_eq!(faults(&rows, &heads, &[]), [AuditFault::CheckpointsGone { expected: 1, found: 0 }]);
    let forged = Checkpoint { at: AT, heads: vec![], key: RingKeyId::mint(AT, [0; 10]), signature: vec![] };
    let mut verifier = LogVerifier::new(&heads);
    verifier.checkpoint(&forged, Err("forged"));
    rows.iter().for_each(|row| verifier.row(row));
    assert_eq!(verifier.finish(0).faults, [AuditFault::Checkpoint { at: AT, flaw: "forged" }]);
}
