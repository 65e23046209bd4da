//! Effects: what is committed together with a change, and the hash chain that seals its audit rows.

use aws_lc_rs::digest::{Context, SHA256};
use doorward_core::{
    audit::{self, AuditDetail, AuditEvent, AuditRow, GENESIS},
    effects::Effects,
    id::WriterId,
};

use crate::{
    audit::append_audit,
    outbox::enqueue_mail,
    revocations::append_revocation,
    sql::{DbError, Lock, Sql},
};

/// The head of one writer's chain. A copy is kept until the transaction has committed.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) writer: WriterId,
    pub(crate) number: i64,
    pub(crate) head: [u8; 32],
    salt_seed: [u8; 32],
}

impl Chain {
    /// A new chain. `seed` are the random bytes of this start, `lane` tells its writers apart.
    pub(crate) fn new(seed: &[u8; 32], lane: u64) -> Self {
        let id = derive(seed, b"doorward audit writer v1\0", lane);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&id[..16]);
        Self {
            writer: WriterId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid()),
            number: 0,
            head: GENESIS,
            salt_seed: derive(seed, b"doorward audit salts v1\0", lane),
        }
    }

    /// Seals the next row. `seq` is for the store to fill in.
    pub(crate) fn seal(&mut self, event: &AuditEvent) -> Result<AuditRow, DbError> {
        let detail = detail_json(&event.detail)?;
        let number = self.number + 1;
        let mut salt = [0; 16];
        // The seed never leaves this process: once detail and salt are erased, the hash cannot be tried against guesses.
        salt.copy_from_slice(&derive(&self.salt_seed, b"salt\0", number.unsigned_abs())[..16]);
        let mut row = AuditRow {
            seq: 0,
            writer: self.writer,
            number,
            kind: event.kind.as_str().to_owned(),
            at: event.at,
            user_id: event.user_id,
            org_id: event.org_id,
            decision: event.decision,
            reason: event.reason.map(|reason| reason.code().to_owned()),
            detail_hash: audit::detail_hash(&salt, &detail),
            detail: Some(detail),
            salt,
            hash: [0; 32],
        };
        row.hash = audit::seal(&self.head, &row);
        self.number = number;
        self.head = row.hash;
        Ok(row)
    }
}

fn detail_json(detail: &AuditDetail) -> Result<String, DbError> {
    serde_json::to_string(detail).map_err(|error| DbError::Fault(format!("an audit detail is no JSON: {error}")))
}

fn derive(seed: &[u8; 32], label: &[u8], number: u64) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(label);
    context.update(seed);
    context.update(&number.to_be_bytes());
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// Writes the effects inside the transaction of the change. On an error the caller takes its copy of `chain` back.
///
/// The revocation log comes last: its lock is held until the commit, so nothing else waits behind it.
pub(crate) async fn write_effects(sql: &mut impl Sql, chain: &mut Chain, effects: &Effects) -> Result<(), DbError> {
    for mail in &effects.outbox {
        enqueue_mail(sql, mail).await?;
    }
    if !effects.audit.is_empty() {
        let rows: Vec<AuditRow> = effects.audit.iter().map(|event| chain.seal(event)).collect::<Result<_, _>>()?;
        append_audit(sql, &rows).await?;
    }
    if !effects.revocations.is_empty() {
        sql.lock(Lock::Revocations).await?;
        for entry in &effects.revocations {
            append_revocation(sql, entry).await?;
        }
    }
    Ok(())
}
