//! Signed checkpoints: what a signature over the heads of all chains covers, and its check.

use crate::{
    id::{RingKeyId, WriterId},
    jose::{Algorithm, JwkSet, Selection},
    time::Timestamp,
};

/// The newest row of a chain, or the row that a checkpoint saw as the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterHead {
    /// Whose chain.
    pub writer: WriterId,
    /// Number of its last row.
    pub number: i64,
    /// Seal of its last row.
    pub hash: [u8; 32],
}

/// A signature over the heads of all chains at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// When.
    pub at: Timestamp,
    /// The heads, sorted by writer.
    pub heads: Vec<WriterHead>,
    /// Key of the ring that signed.
    pub key: RingKeyId,
    /// Signature over [`checkpoint_bytes`]; nothing but [`Checkpoint::check`] verifies it.
    pub signature: Vec<u8>,
}

impl Checkpoint {
    /// Verifies the signature with the public keys of the installation.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self, keys: &JwkSet) -> Result<(), &'static str> {
        let id = self.key.to_string();
        let Selection::Key(key) = keys.select(Some(&id), Algorithm::EdDsa) else {
            return Err("it was signed by a key that is not among the public keys");
        };
        match key.is_signature(Algorithm::EdDsa, &checkpoint_bytes(self.at, &self.heads), &self.signature) {
            true => Ok(()),
            false => Err("its signature does not verify: time, heads or signature were altered"),
        }
    }
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

/// Heads as bytes, in the order given.
pub fn encode_heads(heads: &[WriterHead]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(heads.len() * HEAD_BYTES);
    for head in heads {
        bytes.extend_from_slice(head.writer.as_uuid().as_bytes());
        bytes.extend_from_slice(&head.number.to_be_bytes());
        bytes.extend_from_slice(&head.hash);
    }
    bytes
}

/// Reads heads back; `None` for bytes that [`encode_heads`] does not write.
pub fn decode_heads(bytes: &[u8]) -> Option<Vec<WriterHead>> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::jose::sign::SigningKey;

    #[test]
    fn a_signature_holds_for_its_time_and_heads_and_key_alone() {
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let id = RingKeyId::mint(Timestamp::EPOCH, [1; 10]);
        let set = |id: RingKeyId| {
            JwkSet::parse(json!({ "keys": [key.public_jwk(&id.to_string())] }).to_string().as_bytes()).unwrap()
        };
        let head =
            WriterHead { writer: WriterId::from_uuid(uuid::Uuid::from_bytes([2; 16])), number: 9, hash: [3; 32] };
        let at = Timestamp::from_secs(1_800_000_000);
        let signature = key.sign(&checkpoint_bytes(at, &[head]));
        let good = Checkpoint { at, heads: vec![head], key: id, signature };
        assert_eq!(good.check(&set(id)), Ok(()));
        let altered = [
            Checkpoint { at: Timestamp::from_secs(1_800_000_001), ..good.clone() },
            Checkpoint { heads: vec![WriterHead { number: 8, ..head }], ..good.clone() },
            Checkpoint { heads: vec![], ..good.clone() },
            Checkpoint { signature: vec![0; 64], ..good.clone() },
            Checkpoint { key: RingKeyId::mint(Timestamp::EPOCH, [2; 10]), ..good.clone() },
        ];
        for checkpoint in altered {
            assert!(checkpoint.check(&set(id)).is_err(), "{checkpoint:?}");
        }
        assert!(good.check(&set(RingKeyId::mint(Timestamp::EPOCH, [9; 10]))).is_err());
        assert_eq!(decode_heads(&encode_heads(&[head, head])), Some(vec![head, head]));
        assert_eq!(decode_heads(&[0; 57]), None);
    }
}
