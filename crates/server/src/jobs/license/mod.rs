//! What has to be done about licenses while nobody asks for them.

mod gauge;
pub(crate) mod notices;
pub(crate) mod reconcile;

use std::{sync::Arc, time::Duration};

use doorward_gate::{flow::webhook, gate::Gate};
use tokio_util::sync::CancellationToken;

pub(crate) use self::gauge::gauge;
use super::every;
use crate::http::Server;

/// How often the license file and the lease are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How many of these looks pass until notes of webhooks are read.
const HINTS: u32 = 5;
/// Notes that are younger are being worked on by whoever took the webhook.
const YOUNG: Duration = Duration::from_secs(10);
/// Notes that are worked on in one go.
const BATCH: u32 = 100;

/// Looks after the license file or lease, and after what webhooks left to do; gives the lease back at the end.
pub(crate) async fn follow(server: Arc<Server>, stop: CancellationToken) {
    let mut tick = every(LOOK);
    let mut looks = 0;
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let local = server.local_license.load_full();
        if let Some(local) = local {
            local.look_after(&server).await;
        }
        looks = (looks + 1) % HINTS;
        if looks == 0 && stop.run_until_cancelled(settle_hints(&server.gate)).await.is_none() {
            break;
        }
    }
    let local = server.local_license.load_full();
    if let Some(local) = local {
        local.release(server.gate.clock()).await;
    }
}

/// Asks about what webhooks noted and nobody settled: the provider was down, or the process that took the webhook
/// ended.
async fn settle_hints(gate: &Gate) {
    let Some(licenses) = gate.licenses() else { return };
    let until = gate.clock().now().wall.minus(YOUNG);
    let hints = match gate.store().license_hints(until, BATCH).await {
        Ok(hints) => hints,
        Err(error) => return tracing::debug!(%error, "notes of license webhooks wait for the store"),
    };
    for (holder, at) in hints {
        if let Err(error) = webhook::settle(gate, &licenses, holder, at).await {
            // The next look tries again; the provider decides how often it is really asked.
            return tracing::debug!(%error, %holder, "a note of a license webhook waits");
        }
    }
}
