//! The hash chain of one writer: what seals a row, and the check of a chain row by row.

use aws_lc_rs::digest::{Context, SHA256};

use super::AuditRow;

/// Hash that a chain starts from.
pub const GENESIS: [u8; 32] = [0; 32];

/// The salted hash under which `detail` enters the chain.
pub fn detail_hash(salt: &[u8; 16], detail: &str) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(b"doorward audit detail v1\0");
    context.update(salt);
    context.update(detail.as_bytes());
    finish(context)
}

/// The seal of `row`, given the seal of the row before it in the same chain.
///
/// Fields are length-prefixed, so no two rows share an encoding.
pub fn seal(previous: &[u8; 32], row: &AuditRow) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(b"doorward audit row v1\0");
    context.update(previous);
    context.update(row.writer.as_uuid().as_bytes());
    context.update(&row.number.to_be_bytes());
    context.update(&row.at.as_millis().to_be_bytes());
    text(&mut context, Some(&row.kind));
    id(&mut context, row.user_id.map(|id| id.as_uuid().into_bytes()));
    id(&mut context, row.org_id.map(|id| id.as_uuid().into_bytes()));
    id(&mut context, row.decision.map(|id| id.as_uuid().into_bytes()));
    text(&mut context, row.reason.as_deref());
    context.update(&row.detail_hash);
    finish(context)
}

fn text(context: &mut Context, value: Option<&str>) {
    match value {
        None => context.update(&[0]),
        Some(value) => {
            context.update(&[1]);
            context.update(&(value.len() as u64).to_be_bytes());
            context.update(value.as_bytes());
        }
    }
}

fn id(context: &mut Context, value: Option<[u8; 16]>) {
    match value {
        None => context.update(&[0]),
        Some(bytes) => {
            context.update(&[1]);
            context.update(&bytes);
        }
    }
}

fn finish(context: Context) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// What is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainFault {
    /// A row's number does not follow the one before it: rows are missing, or stand elsewhere.
    Gap {
        /// The number that was expected.
        expected: i64,
        /// The number found.
        found: i64,
    },
    /// A row stands in another place of the log than it was written to.
    Reordered {
        /// The row's number.
        number: i64,
    },
    /// A row's seal does not match its content.
    Altered {
        /// The row's number.
        number: i64,
    },
    /// A row's detail does not match its hash.
    DetailAltered {
        /// The row's number.
        number: i64,
    },
}

/// Verifies one chain row by row; feed rows in order of `number`.
#[derive(Clone, Debug)]
pub struct ChainVerifier {
    next: i64,
    head: [u8; 32],
    /// Position of the last row in the whole log, where it is known; it rises within a chain.
    seq: i64,
}

impl Default for ChainVerifier {
    fn default() -> Self {
        Self { next: 1, head: GENESIS, seq: 0 }
    }
}

impl ChainVerifier {
    /// Checks the next row.
    ///
    /// # Errors
    /// The first [`ChainFault`] of the row. An erased detail is no fault.
    pub fn check(&mut self, row: &AuditRow) -> Result<(), ChainFault> {
        if row.number != self.next {
            return Err(ChainFault::Gap { expected: self.next, found: row.number });
        }
        if row.seq <= self.seq {
            return Err(ChainFault::Reordered { number: row.number });
        }
        if seal(&self.head, row) != row.hash {
            return Err(ChainFault::Altered { number: row.number });
        }
        if let Some(detail) = &row.detail
            && detail_hash(&row.salt, detail) != row.detail_hash
        {
            return Err(ChainFault::DetailAltered { number: row.number });
        }
        self.next += 1;
        self.head = row.hash;
        self.seq = row.seq;
        Ok(())
    }

    /// Number and seal of the last row seen; `(0, GENESIS)` before the first.
    pub fn head(&self) -> (i64, [u8; 32]) {
        (self.next - 1, self.head)
    }
}
