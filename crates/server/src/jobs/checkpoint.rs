//! Signed checkpoints over the heads of all audit chains: without one, somebody who can write to the
//! database could cut the end off a chain together with its head, and nothing would show.

use std::{sync::Arc, time::Duration};

use doorward_core::{
    audit::{AuditEvent, EventKind},
    effects::Effects,
    jose::{Algorithm, sign::SigningKey},
    ring::{Purpose, RingKey, RootSecret, unwrap},
    time::Timestamp,
};
use doorward_gate::ring::Ring;
use doorward_store::{Checkpoint, Store, audit::checkpoint_bytes};
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

/// Checks a checkpoint's signature against the keys of the ring.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn check(checkpoint: &Checkpoint, keys: &[RingKey], root: &RootSecret) -> Result<(), &'static str> {
    let row = keys.iter().find(|row| row.id == checkpoint.key).ok_or("its key is no longer in the ring")?;
    let key = unwrap(root, row).map_err(|_| "its key does not open with this root secret")?;
    let signer = SigningKey::from_seed(key.expose()).map_err(|_| "its key is unusable")?;
    let public = signer.public_key().ok_or("its key is unusable")?;
    let bytes = checkpoint_bytes(checkpoint.at, &checkpoint.heads);
    match public.is_signature(Algorithm::EdDsa, &bytes, &checkpoint.signature) {
        true => Ok(()),
        false => Err("its signature does not verify: heads or signature were altered"),
    }
}

#[cfg(test)]
mod tests {
    use doorward_gate::clock::Clock;

    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    async fn house() -> (Store, Ring, RootSecret) {
        let root = RootSecret::parse(&[b'r'; 32]).unwrap();
        let store = Store::memory();
        let ring = Ring::new(root.clone(), store.clone(), Clock::manual(START));
        ring.load().await.unwrap();
        (store, ring, root)
    }

    #[tokio::test]
    async fn a_checkpoint_verifies_and_an_altered_head_or_another_root_does_not() {
        let (store, ring, root) = house().await;
        sign(&store, &ring, START).await.unwrap();
        let checkpoint = store.checkpoints(1).await.unwrap().remove(0);
        let keys = store.ring(Purpose::Audit).await.unwrap();
        assert_eq!(check(&checkpoint, &keys, &root), Ok(()));
        let mut altered = checkpoint.clone();
        altered.heads[0].number -= 1;
        assert!(check(&altered, &keys, &root).is_err());
        assert!(check(&checkpoint, &keys, &RootSecret::parse(&[b'x'; 32]).unwrap()).is_err());
        assert!(check(&checkpoint, &[], &root).is_err());
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
