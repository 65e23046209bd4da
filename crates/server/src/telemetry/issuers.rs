//! What happens to issuers' keys, as metrics and audit rows.

use std::sync::Arc;

use doorward_core::audit::{AuditEvent, EventKind};
use doorward_gate::issuer::{IssuerChange, IssuerEvent, Listener};

use super::{
    audit::{self, AuditQueue},
    metrics::{Metrics, NameLabel},
};

/// Hears of events. How often a stranger can cause one is bounded by the budget of fetches.
pub(crate) fn listener(metrics: &Arc<Metrics>, queue: &Arc<AuditQueue>) -> Listener {
    let (metrics, queue) = (Arc::clone(metrics), Arc::clone(queue));
    Listener::new(move |event: IssuerEvent| {
        let issuer = ("issuer", (&*event.issuer).into());
        let (kind, more) = match event.what {
            IssuerChange::KeyChanged { kid } => {
                let label = NameLabel { name: event.issuer.to_string() };
                metrics.issuer_key_changes.get_or_create(&label).inc();
                // Published by the issuer, not by a stranger; still cut.
                let kid: String = kid.chars().take(256).collect();
                (EventKind::IssuerKeyChanged, audit::more([issuer, ("kid", kid.into())]))
            }
            IssuerChange::FetchedForToken { is_in_use } => {
                (EventKind::IssuerKeysFetched, audit::more([issuer, ("in_use", is_in_use.into())]))
            }
        };
        let mut row = AuditEvent::new(kind, event.at.wall);
        row.detail.more = more;
        queue.push(row);
    })
}
