//! How people and programs authenticate: counted by method, for the metrics and for the end of the soak window.
//!
//! Counting is one relaxed addition. What was counted since the last time goes to the store once a minute and at
//! the end of the process ([`crate::jobs::cutover`]); so a process that is killed loses a minute of counts at most.

use std::sync::{Mutex, PoisonError};

use doorward_core::{credential::CredentialKind, cutover::Day, session::SignInMethod};
use doorward_store::{CountKind, MethodCount, Store, StoreError};
use prometheus_client::metrics::counter::Counter;

use super::metrics::{MethodLabel, Metrics};

const KINDS: [CredentialKind; 4] = CredentialKind::ALL;

/// The counters of a process, and what of them the store has.
#[derive(Debug)]
pub struct Methods {
    requests: [Counter; KINDS.len()],
    sign_ins: [Counter; SignInMethod::ALL.len()],
    written: Mutex<Written>,
    /// One at a time: two would write the same uses twice.
    writing: tokio::sync::Mutex<()>,
}

/// What the store has been given of each counter, and the day that what comes next belongs to.
#[derive(Debug)]
struct Written {
    requests: [u64; KINDS.len()],
    sign_ins: [u64; SignInMethod::ALL.len()],
    day: Day,
}

impl Methods {
    /// The counters of `metrics`, which begin on `today`.
    pub fn new(metrics: &Metrics, today: Day) -> Self {
        let label = |method: &str| MethodLabel { method: method.to_owned() };
        Self {
            requests: KINDS.map(|kind| metrics.authenticated.get_or_create(&label(kind.as_str())).clone()),
            sign_ins: SignInMethod::ALL.map(|method| metrics.sign_ins.get_or_create(&label(method.as_str())).clone()),
            written: Mutex::new(Written {
                requests: [0; KINDS.len()],
                sign_ins: [0; SignInMethod::ALL.len()],
                day: today,
            }),
            writing: tokio::sync::Mutex::new(()),
        }
    }

    /// A request was let in with this kind of credential.
    pub fn request(&self, kind: CredentialKind) {
        self.requests[kind as usize].inc();
    }

    /// A session began.
    pub fn signed_in(&self, method: SignInMethod) {
        self.sign_ins[method as usize].inc();
    }

    /// Adds what was counted since the last time to the store. It belongs to the day of that last time: uses of the
    /// first minute of a day may count for the one before.
    ///
    /// # Errors
    /// [`StoreError`]; the counts are kept for the next time. Where the store took them and could not say so, they
    /// count twice.
    pub async fn flush(&self, store: &Store, today: Day) -> Result<(), StoreError> {
        let _one = self.writing.lock().await;
        let requests = self.requests.each_ref().map(Counter::get);
        let sign_ins = self.sign_ins.each_ref().map(Counter::get);
        let counts = {
            let written = self.written();
            let of = |kind, methods: &[&'static str], now: &[u64], before: &[u64]| {
                let new = now.iter().zip(before).map(|(now, before)| now.saturating_sub(*before));
                let counts = methods.iter().zip(new).filter(|(_, count)| *count > 0);
                let day = written.day.0;
                counts
                    .map(|(method, count)| MethodCount { day, kind, method: (*method).to_owned(), count })
                    .collect::<Vec<_>>()
            };
            let mut counts = of(CountKind::Request, &KINDS.map(CredentialKind::as_str), &requests, &written.requests);
            let methods = SignInMethod::ALL.map(SignInMethod::as_str);
            counts.extend(of(CountKind::SignIn, &methods, &sign_ins, &written.sign_ins));
            counts
        };
        if !counts.is_empty() {
            store.add_counts(counts).await?;
        }
        *self.written() = Written { requests, sign_ins, day: today };
        Ok(())
    }

    fn written(&self) -> std::sync::MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_counted_goes_to_the_store_once_and_to_the_day_on_which_it_was_counted() {
        let (metrics, store) = (Metrics::new(), Store::memory());
        let methods = Methods::new(&metrics, Day(10));
        for _ in 0..3 {
            methods.request(CredentialKind::Legacy);
        }
        methods.signed_in(SignInMethod::Password);
        methods.flush(&store, Day(10)).await.unwrap();
        methods.flush(&store, Day(10)).await.unwrap();
        methods.request(CredentialKind::Session);
        // The day changed since it was counted.
        methods.flush(&store, Day(11)).await.unwrap();
        methods.request(CredentialKind::Session);
        methods.flush(&store, Day(11)).await.unwrap();
        let count = |day, kind, method: &str, count| MethodCount { day, kind, method: method.to_owned(), count };
        assert_eq!(
            store.counts(0).await.unwrap(),
            [
                count(10, CountKind::SignIn, "password", 1),
                count(10, CountKind::Request, "legacy", 3),
                count(10, CountKind::Request, "session", 1),
                count(11, CountKind::Request, "session", 1),
            ]
        );
        let text = metrics.render();
        assert!(text.contains("doorward_sign_ins_total{method=\"password\"} 1"), "{text}");
        assert!(text.contains("doorward_authenticated_requests_total{method=\"legacy\"} 3"), "{text}");
        assert!(text.contains("doorward_sign_ins_total{method=\"oidc\"} 0"), "{text}");
    }

    #[tokio::test]
    async fn what_the_store_could_not_take_is_kept() {
        let (metrics, closed, store) = (Metrics::new(), Store::memory(), Store::memory());
        closed.close().await;
        let methods = Methods::new(&metrics, Day(10));
        methods.signed_in(SignInMethod::Code);
        assert!(methods.flush(&closed, Day(10)).await.is_err());
        methods.signed_in(SignInMethod::Code);
        methods.flush(&store, Day(10)).await.unwrap();
        assert_eq!(store.counts(0).await.unwrap()[0].count, 2);
    }
}
