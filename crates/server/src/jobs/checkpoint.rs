//! Signed checkpoints over the heads of all audit chains: without one, somebody who can write to the
//! database could cut the end off a chain together with its head, and nothing would show.

use std::{sync::Arc, time::Duration};

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

use super::every;
use crate::http::Server;

/// How often the heads are signed; what is cut off later than the last time would not show.
const EVERY: Duration = Duration::from_secs(600);

/// Signs the heads now and then while anything was written, and once more at the end.
pub(crate) async fn run(server: Arc<Server>, ring: Ring, stop: CancellationToken) {
    let mut tick = every(EVERY);
    loop {
        let goes_on = stop.run_until_cancelled(tick.tick()).await.is_some();
        let now = server.gate.clock().now().wall;
        if let Err(error) = sign(server.gate.store(), &ring, now).await {
            tracing::debug!(error, "no audit checkpoint this time");
        }
        if !goes_on {
            return;
        }
    }
}

/// Signs the heads of all chains, unless nothing was written since the last time.
async fn sign(store: &Store, ring: &Ring, at: Timestamp) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let keys = ring.keys(Purpose::Audit).map_err(|denial| text(&denial))?;
    let heads = store.audit_writers().await.map_err(|error| text(&error))?;
    let last = store.checkpoints(1).await.map_err(|error| text(&error))?.into_iter().next();
    // A checkpoint is a row of the log itself, so one alone is no news.
    let written = |heads: &[doorward_store::WriterHead]| heads.iter().map(|head| head.number).sum::<i64>();
    if last.is_some_and(|last| written(&heads) <= written(&last.heads) + 1) {
        return Ok(());
    }
    let key = SigningKey::from_seed(keys.current().expose()).map_err(|error| text(&error))?;
    let signature = key.sign(&checkpoint_bytes(at, &heads));
    let checkpoint = Checkpoint { at, heads, key: keys.current().id, signature };
    let event = AuditEvent::new(EventKind::AuditCheckpoint, at);
    store.put_checkpoint(checkpoint, Effects::audited(event)).await.map_err(|error| text(&error))
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
