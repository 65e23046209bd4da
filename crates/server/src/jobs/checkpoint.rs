//! Signed checkpoints over the heads of all audit chains: without one, somebody who can write to the
//! database could cut the end off a chain together with its head, and nothing would show.

use std::sync::Arc;

use doorward_core::{
    audit::{AuditEvent, Checkpoint, EventKind, checkpoint_bytes},
    effects::Effects,
    jose::sign::SigningKey,
    ring::Purpose,
    time::Timestamp,
};
use doorward_gate::ring::Ring;
use doorward_store::Store;
use tokio_util::sync::CancellationToken;

use super::{parts::Parts, table::Outcome};
use crate::http::Server;

/// Signs the heads if anything was written. A command has its keys read here.
pub(super) async fn run(parts: Parts) -> Outcome {
    let Parts { gate, ring, .. } = parts;
    if ring.keys(Purpose::Audit).is_err() {
        ring.reload(Purpose::Audit).await.map_err(|error| error.to_string())?;
    }
    let is_news = sign(gate.store(), &ring, gate.clock().now().wall).await?;
    Ok(if is_news { "signed the heads of all chains" } else { "nothing was written since the last time" }.to_owned())
}

/// Signs once more when the process ends, so that what it wrote last is covered.
pub(crate) async fn at_the_end(server: Arc<Server>, ring: Ring, stop: CancellationToken) {
    stop.cancelled().await;
    if let Err(error) = sign(server.gate.store(), &ring, server.gate.clock().now().wall).await {
        tracing::debug!(error, "no audit checkpoint at the end");
    }
}

/// Signs the heads of all chains, unless nothing was written since the last time; whether it did.
async fn sign(store: &Store, ring: &Ring, at: Timestamp) -> Result<bool, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let keys = ring.keys(Purpose::Audit).map_err(|denial| text(&denial))?;
    let heads = store.audit_writers().await.map_err(|error| text(&error))?;
    let last = store.checkpoints(1).await.map_err(|error| text(&error))?.into_iter().next();
    // A checkpoint is a row of the log itself, so one alone is no news.
    let written = |heads: &[doorward_store::WriterHead]| heads.iter().map(|head| head.number).sum::<i64>();
    if last.is_some_and(|last| written(&heads) <= written(&last.heads) + 1) {
        return Ok(false);
    }
    let key = SigningKey::from_seed(keys.current().expose()).map_err(|error| text(&error))?;
    let signature = key.sign(&checkpoint_bytes(at, &heads));
    let checkpoint = Checkpoint { at, heads, key: keys.current().id, signature };
    let event = AuditEvent::new(EventKind::AuditCheckpoint, at);
    store.put_checkpoint(checkpoint, Effects::audited(event)).await.map_err(|error| text(&error))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use doorward_core::{jose::JwkSet, ring::RootSecret};
    use doorward_gate::clock::Clock;

    use super::*;
    use crate::cli::public_audit_keys;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    async fn house() -> (Store, Ring, RootSecret) {
        let root = RootSecret::parse(&[b'r'; 32]).unwrap();
        let store = Store::memory();
        let ring = Ring::new(root.clone(), store.clone(), Clock::manual(START));
        ring.load().await.unwrap();
        (store, ring, root)
    }

    #[tokio::test]
    async fn a_checkpoint_verifies_with_the_public_keys_and_not_under_another_root() {
        let (store, ring, root) = house().await;
        sign(&store, &ring, START).await.unwrap();
        let checkpoint = store.checkpoints(1).await.unwrap().remove(0);
        let keys = store.ring(Purpose::Audit).await.unwrap();
        let set = JwkSet::parse(public_audit_keys(&keys, &root).unwrap().to_string().as_bytes()).unwrap();
        assert_eq!(checkpoint.check(&set), Ok(()));
        let mut altered = checkpoint.clone();
        altered.heads[0].number -= 1;
        assert!(altered.check(&set).is_err());
        assert!(public_audit_keys(&keys, &RootSecret::parse(&[b'x'; 32]).unwrap()).is_err());
        // Keys that were rotated away go on verifying what they signed.
        for _ in 0..3 {
            ring.rotate(Purpose::Audit).await.unwrap();
        }
        let keys = store.ring(Purpose::Audit).await.unwrap();
        let set = JwkSet::parse(public_audit_keys(&keys, &root).unwrap().to_string().as_bytes()).unwrap();
        assert_eq!((checkpoint.check(&set), set.len()), (Ok(()), 4));
    }

    #[tokio::test]
    async fn nothing_is_signed_again_until_something_is_written() {
        let (store, ring, _) = house().await;
        sign(&store, &ring, START).await.unwrap();
        sign(&store, &ring, START).await.unwrap();
        assert_eq!(store.checkpoints(10).await.unwrap().len(), 1);
        store.append(Effects::audited(AuditEvent::new(EventKind::ServerStarted, START))).await.unwrap();
        sign(&store, &ring, START).await.unwrap();
        assert_eq!(store.checkpoints(10).await.unwrap().len(), 2);
    }
}
