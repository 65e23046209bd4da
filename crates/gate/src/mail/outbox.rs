//! Sends what waits in the outbox: claimed under a lease, retried with growing pauses, given up in time.

use std::{
    fmt,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use doorward_core::{
    audit::{AuditEvent, EventKind},
    effects::Effects,
    time::Timestamp,
};
use doorward_store::{ClaimedMail, Failure, Store, StoreError};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::Notify;

use super::{Mailer, SendError};
use crate::clock::Clock;

/// How often the outbox is looked at when nobody says that a mail was put in.
pub const POLL: Duration = Duration::from_secs(5);
/// How long a claimed mail is ours; longer than any attempt takes.
const LEASE: Duration = Duration::from_secs(120);
/// Mails claimed at a time: each attempt ends within a quarter of the lease, so all of them end within it.
const BATCH: u32 = 8;
/// Mails on their way at once.
const AT_ONCE: usize = 4;
/// Pause after the first failure; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Kinds of mail that open nothing: they are kept when they are given up, for the operator to try again. All others carry
/// a link or a code, and nothing of them is kept.
const NOTICES: &[&str] = &["email_changed", "license_ends"];

/// What this process has done with mails since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxStats {
    /// Handed over to the mail server.
    pub sent: u64,
    /// Attempts that failed and are tried again.
    pub retried: u64,
    /// Given up.
    pub given_up: u64,
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    retried: AtomicU64,
    given_up: AtomicU64,
}

/// The sender of one process. Replicas share the outbox: no two hold one mail at a time.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

struct Inner {
    store: Store,
    mailer: ArcSwap<Mailer>,
    /// Set until the mails that failed with the mailer of before are due.
    is_new_mailer: AtomicBool,
    clock: Clock,
    wake: Notify,
    counters: Counters,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("mailer", &**self.0.mailer.load()).finish_non_exhaustive()
    }
}

impl Outbox {
    /// A sender that does nothing until [`Outbox::run`] is polled.
    pub fn new(store: Store, mailer: Mailer, clock: Clock) -> Self {
        let mailer = ArcSwap::from_pointee(mailer);
        let (is_new_mailer, wake, counters) = (AtomicBool::new(false), Notify::new(), Counters::default());
        Self(Arc::new(Inner { store, mailer, is_new_mailer, clock, wake, counters }))
    }

    /// Hands mails over to `mailer` from now on, at once those that wait because they failed before; those that are on
    /// their way go where they went. A mailer of the same settings changes nothing: pauses are kept.
    pub fn use_mailer(&self, mailer: Mailer) {
        if self.0.mailer.load().is_same(&mailer) {
            return;
        }
        self.0.mailer.store(Arc::new(mailer));
        self.0.is_new_mailer.store(true, Ordering::Release);
        self.wake();
    }

    /// Has the outbox looked at now. Mails that this process queues wake it by themselves.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// What has been done so far.
    pub fn stats(&self) -> OutboxStats {
        let Counters { sent, retried, given_up } = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        OutboxStats { sent: read(sent), retried: read(retried), given_up: read(given_up) }
    }

    /// Sends until `stop` is ready; the batch that is under way is finished first, within two minutes.
    ///
    /// A store or mail server that is down is waited for.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut changed = self.0.store.changed();
        loop {
            let seen = changed.borrow_and_update().mails;
            let is_more_due = self.send_batch().await.map(|tried| tried > 0).unwrap_or_else(|error| {
                tracing::warn!(%error, "outbox: trying again");
                false
            });
            if is_more_due {
                if stop.as_mut().now_or_never().is_some() {
                    return;
                }
                continue;
            }
            tokio::select! {
                () = &mut stop => return,
                () = self.0.wake.notified() => {}
                // Other changes do not count: each look at the outbox is a write for the store to order.
                is_open = async { changed.wait_for(|changes| changes.mails != seen).await.is_ok() } => {
                    if !is_open {
                        return;
                    }
                }
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Sends some of what is due now; gives back how many mails were tried, 0 when nothing is due.
    ///
    /// # Errors
    /// [`StoreError`] if the outbox cannot be read or written. A mail that was sent but not written down as
    /// such is sent again after its lease, under the same `Message-ID`.
    pub async fn send_batch(&self) -> Result<usize, StoreError> {
        let Inner { store, is_new_mailer, clock, .. } = &*self.0;
        if is_new_mailer.swap(false, Ordering::AcqRel)
            && let Err(error) = store.retry_mails_now(clock.now().wall).await
        {
            is_new_mailer.store(true, Ordering::Release);
            return Err(error);
        }
        let mails = store.claim_mail(clock.now().wall, LEASE, BATCH).await?;
        let tried = mails.len();
        let outcomes: Vec<Result<(), StoreError>> =
            stream::iter(mails).map(|mail| self.attempt(mail)).buffer_unordered(AT_ONCE).collect().await;
        outcomes.into_iter().collect::<Result<(), StoreError>>()?;
        Ok(tried)
    }

    async fn attempt(&self, claimed: ClaimedMail) -> Result<(), StoreError> {
        let Inner { store, mailer, clock, counters, .. } = &*self.0;
        let ClaimedMail { mail, attempts } = claimed;
        let outcome = if clock.now().wall >= mail.give_up_at {
            // Nobody wants a link that has expired.
            Err(SendError::permanent("too late to be of use".to_owned()))
        } else {
            mailer.load_full().send(&mail, clock.now().wall).await
        };
        let error = match outcome {
            Ok(()) => {
                tracing::info!(mail = %mail.id, kind = %mail.kind, attempts, "mail sent");
                counters.sent.fetch_add(1, Ordering::Relaxed);
                store.mail_sent(mail.id, Effects::default()).await?;
                return Ok(());
            }
            Err(error) => error,
        };
        let now = clock.now().wall;
        let at = now.plus(pause(attempts, clock.random()).max(error.retry_after.unwrap_or_default()));
        if error.is_permanent || at >= mail.give_up_at {
            tracing::error!(mail = %mail.id, kind = %mail.kind, attempts, %error, "mail given up");
            counters.given_up.fetch_add(1, Ordering::Relaxed);
            let effects = Effects::audited(given_up(&mail.id.to_string(), &mail.kind, attempts, now));
            let failure = if NOTICES.contains(&&*mail.kind) { Failure::Park } else { Failure::GiveUp };
            store.mail_failed(mail.id, attempts, failure, error.note, effects).await?;
        } else {
            tracing::warn!(mail = %mail.id, kind = %mail.kind, attempts, %error, "mail not sent, trying again");
            counters.retried.fetch_add(1, Ordering::Relaxed);
            store.mail_failed(mail.id, attempts, Failure::Retry { at }, error.note, Effects::default()).await?;
        }
        Ok(())
    }
}

/// The pause after the attempt of that number: 5 s doubling to 10 min, a quarter of it up or down at
/// random so that mails do not come back in step.
fn pause(attempts: i64, random: [u8; 2]) -> Duration {
    let doublings = u32::try_from(attempts.clamp(1, 16) - 1).unwrap_or(0);
    let middle = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    let share = f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX);
    middle.mul_f64(0.75 + share / 2.0)
}

/// Neither address nor error text: the first is a person's, the second is the mail server's and is kept with the mail.
fn given_up(mail: &str, kind: &str, attempts: i64, at: Timestamp) -> AuditEvent {
    let mut event = AuditEvent::new(EventKind::MailGivenUp, at);
    event.detail.more.insert("mail".into(), mail.into());
    event.detail.more.insert("kind".into(), kind.into());
    event.detail.more.insert("attempts".into(), attempts.into());
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_ten_minutes_and_spread() {
        let middle = |attempts| (pause(attempts, [0, 0]) + pause(attempts, [255, 255])) / 2;
        assert_eq!([1, 2, 3, 7].map(|n| middle(n).as_secs()), [5, 10, 20, 320]);
        for attempts in [8, 16, 1_000_000, i64::MAX, i64::MIN] {
            assert!(pause(attempts, [255, 255]) <= LONGEST_PAUSE.mul_f64(1.26), "{attempts}");
        }
        assert_eq!(pause(1, [0, 0]), Duration::from_millis(3_750));
    }
}
