//! The audit log: rows sealed at commit, one chain for each writer, and signed checkpoints over the heads.

use std::collections::BTreeSet;

use doorward_core::{
    audit::{AuditFault, AuditReport, AuditRow, EventKind, LogVerifier, decode_heads, encode_heads},
    effects::Effects,
    id::{RingKeyId, WriterId},
};

use crate::{
    Checkpoint, Store, StoreError, WriterHead,
    memory::Tables,
    op::{Read, Write},
    sql::{DbError, Row, Sql, Value, all, statements, values},
    store::page,
};

macro_rules! audit_columns {
    () => {
        "seq, writer, number, kind, at, user_id, org_id, decision, reason, detail, salt, detail_hash, hash"
    };
}

statements! {
    INSERT_AUDIT = "INSERT INTO audit (writer, number, kind, at, user_id, org_id, decision, reason, detail, salt, \
        detail_hash, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    MOVE_HEAD = "INSERT INTO audit_writers (id, number, head, began_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (id) DO UPDATE SET number = excluded.number, head = excluded.head",
    AUDIT_TAIL = concat!("SELECT ", audit_columns!(), " FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2"),
    AUDIT_CHAIN = concat!("SELECT ", audit_columns!(),
        " FROM audit WHERE writer = $1 AND number > $2 ORDER BY number LIMIT $3"),
    WRITERS = "SELECT id, number, head FROM audit_writers ORDER BY id",
    INSERT_CHECKPOINT = "INSERT INTO audit_checkpoints (at, heads, key_id, signature) VALUES ($1, $2, $3, $4)",
    CHECKPOINTS = "SELECT at, heads, key_id, signature FROM audit_checkpoints ORDER BY seq DESC LIMIT $1",
    CHECKPOINTS_AFTER = "SELECT seq, at, heads, key_id, signature FROM audit_checkpoints WHERE seq > $1 \
        ORDER BY seq LIMIT $2",
    ERASE_DETAIL = "UPDATE audit SET detail = NULL, salt = $3 \
        WHERE writer = $1 AND number = $2 AND kind <> $4 AND detail IS NOT NULL",
}

fn read_audit(row: &mut Row) -> Result<AuditRow, DbError> {
    Ok(AuditRow {
        seq: row.column()?,
        writer: row.column()?,
        number: row.column()?,
        kind: row.column()?,
        at: row.column()?,
        user_id: row.optional()?,
        org_id: row.optional()?,
        decision: row.optional()?,
        reason: row.optional()?,
        detail: row.optional()?,
        salt: row.column()?,
        detail_hash: row.column()?,
        hash: row.column()?,
    })
}

/// Appends sealed rows of one chain and moves its head, inside a transaction.
pub(crate) async fn append_audit(sql: &mut impl Sql, rows: &[AuditRow]) -> Result<(), DbError> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let lists: Vec<[Value<'_>; 12]> = rows
        .iter()
        .map(|row| {
            [
                row.writer.into(),
                row.number.into(),
                row.kind.as_str().into(),
                row.at.into(),
                row.user_id.into(),
                row.org_id.into(),
                row.decision.into(),
                row.reason.as_deref().into(),
                row.detail.as_deref().into(),
                (&row.salt).into(),
                (&row.detail_hash).into(),
                (&row.hash).into(),
            ]
        })
        .collect();
    let head = values![last.writer, last.number, &last.hash, first.at];
    sql.each_then((&INSERT_AUDIT, &lists), (&MOVE_HEAD, head)).await
}

fn read_checkpoint(row: &mut Row) -> Result<Checkpoint, DbError> {
    let at = row.column()?;
    // Bytes that are no heads become none: then the signature does not verify, and the fault is named with its time.
    let heads = decode_heads(&row.column::<Vec<u8>>()?).unwrap_or_default();
    Ok(Checkpoint { at, heads, key: row.column()?, signature: row.column()? })
}

impl Store {
    /// Rows of the whole log with a position above `after`, in order; 1,000 at most.
    ///
    /// On PostgreSQL a row can become visible after one with a higher position, when two transactions overlap; who
    /// follows the log for completeness reads the chains ([`Store::audit_chain`]).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn audit_tail(&self, after: i64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        self.read(Tail { after, limit: page(limit) }).await
    }

    /// The heads of all chains, as the last commit of each writer left them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn audit_writers(&self) -> Result<Vec<WriterHead>, StoreError> {
        self.read(Writers).await
    }

    /// Rows of one chain with a number above `after`, in order; 1,000 at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn audit_chain(&self, writer: WriterId, after: i64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        self.read(ChainOf { writer, after, limit: page(limit) }).await
    }

    /// Keeps a signed checkpoint.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_checkpoint(&self, checkpoint: Checkpoint, effects: Effects) -> Result<(), StoreError> {
        self.write(PutCheckpoint { checkpoint }, effects).await
    }

    /// Checkpoints, newest first; 1,000 at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn checkpoints(&self, limit: u32) -> Result<Vec<Checkpoint>, StoreError> {
        self.read(Checkpoints { limit: page(limit) }).await
    }

    /// Checkpoints with a position above `after`, in order; 1,000 at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn checkpoints_after(&self, after: i64, limit: u32) -> Result<Vec<(i64, Checkpoint)>, StoreError> {
        self.read(CheckpointsAfter { after, limit: page(limit) }).await
    }

    /// Takes the details of these rows away for good, salt and all, so that their hashes tell nothing; gives back how
    /// many there were. Records of erasures are left as they are. `effects` should hold the record of this one
    /// ([`doorward_core::audit::erased_rows`]): without it the log no longer verifies.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn erase_details(&self, rows: Vec<(WriterId, i64)>, effects: Effects) -> Result<u64, StoreError> {
        self.write(EraseDetails { rows }, effects).await
    }

    /// Reads the whole log and checks every row's seal, the heads that the store keeps and those of every checkpoint,
    /// `anchors` from elsewhere included, that `trusted` lets pass: signatures are for the caller to verify, with
    /// [`Checkpoint::check`].
    ///
    /// # Errors
    /// [`StoreError`]; what is wrong with the log is in the report.
    pub async fn verify_audit(
        &self,
        anchors: &[Checkpoint],
        trusted: impl Fn(&Checkpoint) -> Result<(), &'static str>,
    ) -> Result<AuditReport, StoreError> {
        // Heads and checkpoints first: rows up to them are there to be seen, those appended meanwhile are behind them.
        let mut verifier = LogVerifier::new(&self.audit_writers().await?);
        anchors.iter().for_each(|checkpoint| verifier.anchor(checkpoint, trusted(checkpoint)));
        let mut last = 0;
        // Positions rise, so each loop ends with its table.
        loop {
            let page = self.checkpoints_after(last, 100).await?;
            let Some((seq, _)) = page.last() else { break };
            last = *seq;
            page.iter().for_each(|(_, checkpoint)| verifier.checkpoint(checkpoint, trusted(checkpoint)));
        }
        let (mut after, mut strangers) = (0, BTreeSet::new());
        loop {
            let rows = self.audit_tail(after, 1000).await?;
            let Some(row) = rows.last() else { break };
            after = row.seq;
            for row in &rows {
                if verifier.is_covered(row) {
                    verifier.row(row);
                } else {
                    strangers.insert(row.writer);
                }
            }
        }
        let mut later = 0;
        loop {
            let page = self.checkpoints_after(last, 100).await?;
            let Some((seq, _)) = page.last() else { break };
            (last, later) = (*seq, later + page.len() as u64);
        }
        let mut report = verifier.finish(later);
        // A chain that began meanwhile has its head by now.
        for head in self.audit_writers().await? {
            strangers.remove(&head.writer);
        }
        report.faults.extend(strangers.into_iter().map(|writer| AuditFault::NoHead { writer }));
        Ok(report)
    }
}

struct Tail {
    after: i64,
    limit: i64,
}

impl Read for Tail {
    type Out = Vec<AuditRow>;
    const NAME: &'static str = "audit_tail";

    fn memory(&self, tables: &Tables) -> Result<Vec<AuditRow>, DbError> {
        let rows = tables.audit.iter().filter(|row| row.seq > self.after);
        Ok(rows.take(usize::try_from(self.limit).unwrap_or(0)).cloned().collect())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<AuditRow>, DbError> {
        all(sql.rows(&AUDIT_TAIL, values![self.after, self.limit]).await?, read_audit)
    }
}

struct Writers;

impl Read for Writers {
    type Out = Vec<WriterHead>;
    const NAME: &'static str = "audit_writers";

    fn memory(&self, tables: &Tables) -> Result<Vec<WriterHead>, DbError> {
        let chain = &tables.chain;
        let head = WriterHead { writer: chain.writer, number: chain.number, hash: chain.head };
        Ok(if chain.number == 0 { Vec::new() } else { vec![head] })
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<WriterHead>, DbError> {
        all(sql.rows(&WRITERS, &[]).await?, |row| {
            Ok(WriterHead { writer: row.column()?, number: row.column()?, hash: row.column()? })
        })
    }
}

struct ChainOf {
    writer: WriterId,
    after: i64,
    limit: i64,
}

impl Read for ChainOf {
    type Out = Vec<AuditRow>;
    const NAME: &'static str = "audit_chain";

    fn memory(&self, tables: &Tables) -> Result<Vec<AuditRow>, DbError> {
        let rows = tables.audit.iter().filter(|row| row.writer == self.writer && row.number > self.after);
        Ok(rows.take(usize::try_from(self.limit).unwrap_or(0)).cloned().collect())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<AuditRow>, DbError> {
        all(sql.rows(&AUDIT_CHAIN, values![self.writer, self.after, self.limit]).await?, read_audit)
    }
}

struct PutCheckpoint {
    checkpoint: Checkpoint,
}

impl Write for PutCheckpoint {
    type Out = ();
    const NAME: &'static str = "put_checkpoint";

    fn memory(&self, tables: &mut Tables) -> Result<(), DbError> {
        tables.checkpoints.push(self.checkpoint.clone());
        Ok(())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<(), DbError> {
        let Checkpoint { at, heads, key, signature } = &self.checkpoint;
        let (heads, key): (_, RingKeyId) = (encode_heads(heads), *key);
        sql.execute(&INSERT_CHECKPOINT, values![*at, heads.as_slice(), key, signature.as_slice()]).await?;
        Ok(())
    }
}

struct Checkpoints {
    limit: i64,
}

impl Read for Checkpoints {
    type Out = Vec<Checkpoint>;
    const NAME: &'static str = "checkpoints";

    fn memory(&self, tables: &Tables) -> Result<Vec<Checkpoint>, DbError> {
        Ok(tables.checkpoints.iter().rev().take(usize::try_from(self.limit).unwrap_or(0)).cloned().collect())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<Checkpoint>, DbError> {
        all(sql.rows(&CHECKPOINTS, values![self.limit]).await?, read_checkpoint)
    }
}

struct CheckpointsAfter {
    after: i64,
    limit: i64,
}

impl Read for CheckpointsAfter {
    type Out = Vec<(i64, Checkpoint)>;
    const NAME: &'static str = "checkpoints_after";

    fn memory(&self, tables: &Tables) -> Result<Vec<(i64, Checkpoint)>, DbError> {
        let numbered = (1..).zip(tables.checkpoints.iter().cloned()).filter(|(seq, _)| *seq > self.after);
        Ok(numbered.take(usize::try_from(self.limit).unwrap_or(0)).collect())
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<Vec<(i64, Checkpoint)>, DbError> {
        let rows = sql.rows(&CHECKPOINTS_AFTER, values![self.after, self.limit]).await?;
        all(rows, |row| Ok((row.column()?, read_checkpoint(row)?)))
    }
}

/// In place of a salt that was erased with its detail.
const NO_SALT: [u8; 16] = [0; 16];

struct EraseDetails {
    rows: Vec<(WriterId, i64)>,
}

impl Write for EraseDetails {
    type Out = u64;
    const NAME: &'static str = "erase_details";

    fn commits(erased: &u64) -> bool {
        *erased > 0
    }

    fn memory(&self, tables: &mut Tables) -> Result<u64, DbError> {
        let wanted: BTreeSet<_> = self.rows.iter().copied().collect();
        let mut erased = 0;
        for row in tables.audit.iter_mut().filter(|row| wanted.contains(&(row.writer, row.number))) {
            if row.detail.is_some() && row.kind != EventKind::AuditErased.as_str() {
                (row.detail, row.salt) = (None, NO_SALT);
                erased += 1;
            }
        }
        Ok(erased)
    }

    async fn sql(&self, sql: &mut impl Sql) -> Result<u64, DbError> {
        let kept = EventKind::AuditErased.as_str();
        let lists: Vec<[Value<'_>; 4]> = self
            .rows
            .iter()
            .map(|(writer, number)| [(*writer).into(), (*number).into(), (&NO_SALT).into(), kept.into()])
            .collect();
        sql.each(&ERASE_DETAIL, &lists).await
    }
}
