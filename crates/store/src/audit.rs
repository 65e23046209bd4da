//! The audit log: rows sealed at commit, one chain for each writer, and signed checkpoints over the heads.

use doorward_core::{
    audit::{AuditRow, ChainFault, ChainVerifier},
    effects::Effects,
    id::{RingKeyId, WriterId},
    time::Timestamp,
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
    sql.each(&INSERT_AUDIT, &lists).await?;
    sql.execute(&MOVE_HEAD, values![last.writer, last.number, &last.hash, first.at]).await?;
    Ok(())
}

/// The bytes that a checkpoint's signature covers: time and heads, in the order of their writers.
///
/// Every head has one length, so no two lists share an encoding.
pub fn checkpoint_bytes(at: Timestamp, heads: &[WriterHead]) -> Vec<u8> {
    let mut sorted = heads.to_vec();
    sorted.sort_unstable_by_key(|head| head.writer);
    let mut bytes = b"doorward audit checkpoint v1\0".to_vec();
    bytes.extend_from_slice(&at.as_millis().to_be_bytes());
    bytes.extend_from_slice(&encode_heads(&sorted));
    bytes
}

const HEAD_BYTES: usize = 16 + 8 + 32;

fn encode_heads(heads: &[WriterHead]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(heads.len() * HEAD_BYTES);
    for head in heads {
        bytes.extend_from_slice(head.writer.as_uuid().as_bytes());
        bytes.extend_from_slice(&head.number.to_be_bytes());
        bytes.extend_from_slice(&head.hash);
    }
    bytes
}

fn decode_heads(bytes: &[u8]) -> Option<Vec<WriterHead>> {
    let chunks = bytes.chunks_exact(HEAD_BYTES);
    if !chunks.remainder().is_empty() {
        return None;
    }
    chunks
        .map(|chunk| {
            let (writer, rest) = chunk.split_first_chunk::<16>()?;
            let (number, hash) = rest.split_first_chunk::<8>()?;
            Some(WriterHead {
                writer: WriterId::from_uuid(uuid::Uuid::from_bytes(*writer)),
                number: i64::from_be_bytes(*number),
                hash: hash.try_into().ok()?,
            })
        })
        .collect()
}

fn read_checkpoint(row: &mut Row) -> Result<Checkpoint, DbError> {
    let at = row.column()?;
    let heads = decode_heads(&row.column::<Vec<u8>>()?)
        .ok_or_else(|| DbError::Fault("audit_checkpoints.heads is damaged".to_owned()))?;
    Ok(Checkpoint { at, heads, key: row.column()?, signature: row.column()? })
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
    /// The chain ends before, or elsewhere than, the head that the store or a checkpoint keeps: rows were cut off.
    Cut {
        /// Whose chain.
        writer: WriterId,
        /// The number that the head names.
        expected: i64,
        /// The number of the last row that is there.
        found: i64,
    },
}

/// What [`Store::verify_audit`] looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Chains read.
    pub writers: u64,
    /// Rows read.
    pub rows: u64,
    /// What is wrong; empty when everything holds.
    pub faults: Vec<AuditFault>,
    /// The newest checkpoint, whose heads were compared. Its signature is for the caller to verify, over
    /// [`checkpoint_bytes`].
    pub checkpoint: Option<Checkpoint>,
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

    /// Reads every chain and checks each row's seal, the heads that the store keeps and those of the newest
    /// checkpoint. Not checked here: the checkpoint's signature.
    ///
    /// # Errors
    /// [`StoreError`]; what is wrong with the log is in the report.
    pub async fn verify_audit(&self) -> Result<AuditReport, StoreError> {
        let mut report =
            AuditReport { checkpoint: self.checkpoints(1).await?.into_iter().next(), ..AuditReport::default() };
        // Heads first: rows that are appended meanwhile are beyond them, never missing.
        let mut heads = self.audit_writers().await?;
        let signed = report.checkpoint.as_ref().map(|checkpoint| checkpoint.heads.clone()).unwrap_or_default();
        for head in &signed {
            if !heads.iter().any(|known| known.writer == head.writer) {
                heads.push(*head);
            }
        }
        for head in heads {
            let marks: Vec<WriterHead> =
                signed.iter().filter(|mark| mark.writer == head.writer).copied().chain([head]).collect();
            report.writers += 1;
            self.verify_chain(head.writer, marks, &mut report).await?;
        }
        Ok(report)
    }

    /// Reads one chain to its end; `marks` are heads that it must pass through.
    async fn verify_chain(
        &self,
        writer: WriterId,
        mut marks: Vec<WriterHead>,
        report: &mut AuditReport,
    ) -> Result<(), StoreError> {
        let mut verifier = ChainVerifier::default();
        loop {
            let (number, _) = verifier.head();
            let rows = self.audit_chain(writer, number, 1000).await?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                report.rows += 1;
                if let Err(fault) = verifier.check(row) {
                    report.faults.push(AuditFault::Chain { writer, fault });
                    return Ok(()); // everything behind the first fault is unproven
                }
                marks.retain(|mark| mark.number != row.number || mark.hash != row.hash);
            }
        }
        let (found, _) = verifier.head();
        let cut = marks.iter().filter(|mark| mark.number > 0).map(|mark| mark.number).max();
        report.faults.extend(cut.map(|expected| AuditFault::Cut { writer, expected, found }));
        Ok(())
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
