//! What of refusals goes into the audit log: some of each kind, because whoever is refused may go on without end.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::hmac;
use doorward_core::{
    audit::{AuditEvent, EventKind},
    decision::Denial,
    effects::Effects,
    id::LinkId,
    link::{Asker, Link},
    reason::Reason,
    ring::{KeyMaterial, Purpose},
    time::Now,
    user::Email,
};
use doorward_store::Store;

use crate::{
    clock::Clock,
    rate::{Limit, LimitKey, Limiter, Quota},
    ring::Ring,
};

/// Rows about refusals of one link.
const PER_LINK: Quota = Quota::per_hour(3);
/// Rows about one limit and key.
const PER_LIMIT: Quota = Quota::per_minute(1);
/// Rows about limits, whatever the key: a flood out of many networks meets many keys.
const ALL_LIMITS: Quota = Quota::per_minute(60);
const LINKS: usize = 4096;
const KEYS: usize = 16_384;

/// Writes refusals down, throttled; says in the next row how many it left out.
#[derive(Debug)]
pub(super) struct Notes {
    store: Store,
    links: Limiter<LinkId>,
    limits: Limiter<(Limit, LimitKey)>,
    all_limits: Limiter<()>,
    left_out: AtomicU64,
}

impl Notes {
    pub(super) fn new(store: Store, clock: &Clock) -> Self {
        Self {
            store,
            links: Limiter::new(PER_LINK, LINKS, clock.clone()),
            limits: Limiter::new(PER_LIMIT, KEYS, clock.clone()),
            all_limits: Limiter::new(ALL_LIMITS, 1, clock.clone()),
            left_out: AtomicU64::new(0),
        }
    }

    /// A link or code was refused; `kind` says which of the two.
    pub(super) async fn refused(&self, kind: EventKind, link: &Link, asker: &Asker, denial: &Denial, now: Now) {
        tracing::info!(link = %link.id, user = %link.user_id, reason = denial.reason.code(), "sign-in refused");
        if self.links.check(&link.id).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut event = asker.event(kind, now.wall).about(link.user_id);
        event.reason = Some(denial.reason);
        event.detail.more.insert("link".into(), link.id.to_string().into());
        self.write(event).await;
    }

    /// A limit was met. `address` is the keyed hash of the mail address, where one was asked for.
    pub(super) async fn limited(&self, limit: Limit, key: LimitKey, asker: &Asker, address: Option<String>, now: Now) {
        tracing::info!(limit = limit.as_str(), "a rate limit was met");
        if self.limits.check(&(limit, key)).is_err() || self.all_limits.check(&()).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut event = asker.event(EventKind::RateLimited, now.wall);
        event.reason = Some(Reason::RateLimited);
        event.detail.more.insert("limit".into(), limit.as_str().into());
        if let Some(address) = address {
            event.detail.more.insert("address_hash".into(), address.into());
        }
        self.write(event).await;
    }

    async fn write(&self, mut event: AuditEvent) {
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            event.detail.more.insert("left_out".into(), left_out.into());
        }
        if let Err(error) = self.store.append(Effects::audited(event)).await {
            tracing::warn!(%error, "a refusal is not in the audit log");
        }
    }
}

/// The keyed hash under which an address goes into the audit log that may be a stranger's, or a password typed
/// into the wrong field.
///
/// # Errors
/// `store_unavailable` until the ring is loaded.
pub(super) fn address_hash(ring: &Ring, email: &Email) -> Result<String, Denial> {
    Ok(address_hash_under(ring.keys(Purpose::Login)?.current(), email))
}

/// The hash of [`Purpose::Login`]'s `key` under which the audit log knows this address; for finding its rows.
pub fn address_hash_under(key: &KeyMaterial, email: &Email) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let tag = hmac::sign(&key, format!("audit address\0{email}").as_bytes());
    tag.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
