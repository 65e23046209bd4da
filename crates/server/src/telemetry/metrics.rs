//! Prometheus metrics. Label values come from the config and the reason table only, never from a request.

use std::sync::{Arc, atomic::AtomicI64};

use arc_swap::ArcSwap;
use doorward_core::reason::Reason;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Labels of `doorward_decisions_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DecisionLabels {
    /// `allow` or `deny`.
    pub outcome: &'static str,
    /// Reason code, `-` on a grant.
    pub reason: &'static str,
    /// App in the config, `-` without one.
    pub app: String,
}

/// One label that names something in the config or the code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NameLabel {
    /// The name.
    pub name: String,
}

/// How a run of a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct JobLabels {
    /// The job; from the code.
    pub name: &'static str,
    /// `done`, `failed`, `lost`.
    pub outcome: &'static str,
}

/// A method of authentication.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MethodLabel {
    /// Its name; from the code.
    pub method: String,
}

/// What a provider said of a license.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabel {
    /// Its word; from the code.
    pub state: &'static str,
}

/// A metric for the generated reference.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// Name as scraped.
    pub name: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Labels.
    pub labels: &'static str,
    /// What it counts.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($field:ident: $type:ty = $name:literal $scraped:literal $kind:literal [$labels:literal] $help:literal;)+) => {
        /// All metrics of a process.
        #[derive(Debug)]
        pub struct Metrics {
            $(#[doc = $help] pub $field: $type,)+
            registry: Registry,
            /// The counters of grants by app, so that counting one allocates and locks nothing.
            granted: ArcSwap<Vec<(Box<str>, Counter)>>,
        }

        /// The metrics in order of their registration, for the reference.
        pub const DESCRIBED: &[Described] =
            &[$(Described { name: $scraped, kind: $kind, labels: $labels, help: $help },)+];

        impl Metrics {
            fn with_histogram(duration: Histogram) -> Self {
                let mut registry = Registry::default();
                $(
                    let $field: $type = Build::build(&duration);
                    registry.register($name, $help, $field.clone());
                )+
                Self { $($field,)+ registry, granted: ArcSwap::default() }
            }
        }
    };
}

trait Build: Sized {
    fn build(histogram: &Histogram) -> Self;
}
impl<T: Clone + std::hash::Hash + Eq> Build for Family<T, Counter> {
    fn build(_: &Histogram) -> Self {
        Self::default()
    }
}
impl<T: Clone + std::hash::Hash + Eq> Build for Family<T, Gauge> {
    fn build(_: &Histogram) -> Self {
        Self::default()
    }
}
impl Build for Family<NameLabel, Histogram> {
    fn build(_: &Histogram) -> Self {
        Self::new_with_constructor(|| Histogram::new([0.01, 0.1, 1.0, 10.0, 60.0, 600.0]))
    }
}
impl Build for Counter {
    fn build(_: &Histogram) -> Self {
        Self::default()
    }
}
impl Build for Gauge<i64, AtomicI64> {
    fn build(_: &Histogram) -> Self {
        Self::default()
    }
}
impl Build for Histogram {
    fn build(histogram: &Histogram) -> Self {
        histogram.clone()
    }
}

metrics! {
    decisions: Family<DecisionLabels, Counter> = "doorward_decisions" "doorward_decisions_total" "counter"
        ["outcome, reason, app"] "Decisions by outcome, reason and app";
    requests: Counter = "doorward_http_requests" "doorward_http_requests_total" "counter"
        [""] "HTTP requests that reached the front door";
    duration: Histogram = "doorward_http_request_duration_seconds" "doorward_http_request_duration_seconds"
        "histogram" [""] "Time from a request's head to its response's head";
    authenticated: Family<MethodLabel, Counter> = "doorward_authenticated_requests"
        "doorward_authenticated_requests_total" "counter"
        ["method"] "Requests that were let in, by the kind of credential: session, api_key, bearer, legacy";
    sign_ins: Family<MethodLabel, Counter> = "doorward_sign_ins" "doorward_sign_ins_total" "counter"
        ["method"] "Sessions that began, by how people proved who they are: magic_link, code, oidc, password";
    faults: Family<NameLabel, Counter> = "doorward_faults" "doorward_faults_total" "counter"
        ["name"] "Faults that no request waited for: revocation_tail, touch_dropped, touch_failed, highest_time, \
         audit_dropped, audit_failed";
    audit_left_out: Family<NameLabel, Counter> = "doorward_audit_left_out" "doorward_audit_left_out_total" "counter"
        ["name"] "Refusals that got no row in the audit log, by reason, because the caller had one for it within a \
         minute; a later row says how many";
    revocations: Counter = "doorward_revocations_applied" "doorward_revocations_applied_total" "counter"
        [""] "Entries of the revocation log applied in this process";
    revocation_seq: Gauge = "doorward_revocation_seq" "doorward_revocation_seq" "gauge"
        [""] "Position of the last entry of the revocation log applied in this process";
    blocklist_entries: Gauge = "doorward_blocklist_entries" "doorward_blocklist_entries" "gauge"
        [""] "Blocked tokens and subjects held in memory";
    shared_up: Gauge = "doorward_shared_up" "doorward_shared_up" "gauge"
        [""] "1 while the shared blocklist can be asked, 0 while not; -1 without one";
    shared_questions: Family<NameLabel, Counter> = "doorward_shared_questions" "doorward_shared_questions_total"
        "counter" ["name"] "Questions to the shared blocklist by answer: passed, blocked, unanswered";
    outbox_pending: Gauge = "doorward_outbox_pending" "doorward_outbox_pending" "gauge"
        [""] "Mails waiting in the outbox";
    outbox_dead: Gauge = "doorward_outbox_dead" "doorward_outbox_dead" "gauge"
        [""] "Mails that were given up";
    mails: Family<NameLabel, Counter> = "doorward_mails" "doorward_mails_total" "counter"
        ["name"] "Mails by outcome: sent, retried, given_up";
    issuer_keys: Family<NameLabel, Gauge> = "doorward_issuer_keys" "doorward_issuer_keys" "gauge"
        ["name"] "Usable keys by issuer";
    issuer_keys_age: Family<NameLabel, Gauge> = "doorward_issuer_keys_age_seconds"
        "doorward_issuer_keys_age_seconds" "gauge"
        ["name"] "Seconds since an issuer's keys were last fetched; -1 before the first time";
    issuer_fetches: Family<NameLabel, Gauge> = "doorward_issuer_fetches" "doorward_issuer_fetches" "gauge"
        ["name"] "Key fetches by issuer since the start";
    issuer_failures: Family<NameLabel, Gauge> = "doorward_issuer_fetch_failures" "doorward_issuer_fetch_failures"
        "gauge" ["name"] "Key fetches by issuer that failed since the last good one; while it is not 0, known keys serve";
    issuer_serves_for: Family<NameLabel, Gauge> = "doorward_issuer_keys_serve_seconds"
        "doorward_issuer_keys_serve_seconds" "gauge"
        ["name"] "Seconds for which an issuer's keys would still serve without a good fetch; 0 without usable keys, -1 for \
         keys that do not age";
    issuer_waiters: Family<NameLabel, Gauge> = "doorward_issuer_waiters" "doorward_issuer_waiters" "gauge"
        ["name"] "Requests that wait for a key by issuer";
    issuer_key_changes: Family<NameLabel, Counter> = "doorward_issuer_key_changes"
        "doorward_issuer_key_changes_total" "counter"
        ["name"] "Keys that an issuer replaced under their old kid";
    licenses: Family<StateLabel, Gauge> = "doorward_licenses" "doorward_licenses" "gauge"
        ["state"] "Licenses that are known, by what their provider said: active, active_beyond_expiry, expired, suspended, \
         banned, none, invalid";
    license_provider_up: Gauge = "doorward_license_provider_up" "doorward_license_provider_up" "gauge"
        [""] "1 while the license provider answers, 0 while it is left alone after a failure; -1 without one";
    license_time_ahead: Gauge = "doorward_license_time_ahead_seconds" "doorward_license_time_ahead_seconds" "gauge"
        [""] "By how many seconds the highest time, by which licenses are judged, is ahead of the clock; less than 0 while a \
         clock that leapt ahead is not believed, also for ten minutes after nothing ran for a while";
    license_questions: Family<NameLabel, Counter> = "doorward_license_questions" "doorward_license_questions_total"
        "counter" ["name"] "Questions to the license provider by outcome: answered, unavailable, untrusted, misconfigured";
    license_files: Family<NameLabel, Counter> = "doorward_license_files" "doorward_license_files_total" "counter"
        ["name"] "License files that were put in place, by what became of them: taken, refused";
    job_runs: Family<JobLabels, Counter> = "doorward_job_runs" "doorward_job_runs_total" "counter"
        ["name, outcome"] "Runs of jobs in this process by outcome: done, failed; lost: begun by a process that never \
         said how it ended, and found by this one";
    job_last_success: Family<NameLabel, Gauge> = "doorward_job_last_success_timestamp_seconds"
        "doorward_job_last_success_timestamp_seconds" "gauge"
        ["name"] "When a run of the job last ended well, in whichever process, in seconds since the Unix epoch";
    job_duration: Family<NameLabel, Histogram> = "doorward_job_duration_seconds" "doorward_job_duration_seconds"
        "histogram" ["name"] "Time that runs of the job took in this process";
    store_up: Gauge = "doorward_store_up" "doorward_store_up" "gauge"
        [""] "1 while the store answers";
    policy_version: Gauge = "doorward_policy_version" "doorward_policy_version" "gauge"
        [""] "Version of the policy in force";
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Fresh metrics in a registry of their own; nothing global.
    pub fn new() -> Self {
        Self::with_histogram(Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0]))
    }

    /// Counts one decision.
    pub fn decided(&self, outcome: Result<(), Reason>, app: &str) {
        let Err(reason) = outcome else {
            return self.granted(app);
        };
        let labels = DecisionLabels { outcome: "deny", reason: reason.code(), app: app.to_owned() };
        self.decisions.get_or_create(&labels).inc();
    }

    fn granted(&self, app: &str) {
        if let Some((_, counter)) = self.granted.load().iter().find(|(name, _)| **name == *app) {
            counter.inc();
            return;
        }
        // Once for each app in the config. A clone of a counter counts in the same place, so it does not
        // matter if two threads get here at once.
        let labels = DecisionLabels { outcome: "allow", reason: "-", app: app.to_owned() };
        let counter = self.decisions.get_or_create(&labels).clone();
        counter.inc();
        self.granted.rcu(|known| {
            let others = known.iter().filter(|(name, _)| **name != *app).cloned();
            others.chain([(app.into(), counter.clone())]).collect::<Vec<_>>()
        });
    }

    /// Counts one fault.
    pub fn fault(&self, name: &'static str) {
        self.faults.get_or_create(&NameLabel { name: name.to_owned() }).inc();
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing into a string cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

/// Shared metrics.
pub type SharedMetrics = Arc<Metrics>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_described_metric_is_scraped_under_its_name() {
        let metrics = Metrics::new();
        metrics.decided(Err(Reason::NoRule), "web");
        for app in ["web", "-", "web", "web"] {
            metrics.decided(Ok(()), app);
        }
        metrics.fault("touch_dropped");
        // A family without a member is not written.
        let label = NameLabel { name: "main".to_owned() };
        metrics.mails.get_or_create(&label).inc();
        metrics.audit_left_out.get_or_create(&label).inc();
        metrics.shared_questions.get_or_create(&label).inc();
        for family in [&metrics.authenticated, &metrics.sign_ins] {
            family.get_or_create(&MethodLabel { method: "session".to_owned() }).inc();
        }
        metrics.issuer_key_changes.get_or_create(&label).inc();
        metrics.license_questions.get_or_create(&label).inc();
        metrics.license_files.get_or_create(&label).inc();
        metrics.licenses.get_or_create(&StateLabel { state: "active" }).set(1);
        metrics.job_runs.get_or_create(&JobLabels { name: "purge", outcome: "done" }).inc();
        metrics.job_duration.get_or_create(&label).observe(0.5);
        let gauges = [
            &metrics.issuer_keys,
            &metrics.issuer_keys_age,
            &metrics.issuer_fetches,
            &metrics.issuer_failures,
            &metrics.issuer_serves_for,
            &metrics.issuer_waiters,
            &metrics.job_last_success,
        ];
        for family in gauges {
            family.get_or_create(&label).set(1);
        }
        let text = metrics.render();
        for metric in DESCRIBED {
            let family = metric.name.trim_end_matches("_total");
            assert!(text.contains(&format!("# HELP {family} ")), "{family} in\n{text}");
        }
        assert!(text.contains(r#"doorward_decisions_total{outcome="deny",reason="no_rule",app="web"} 1"#), "{text}");
        assert!(text.contains(r#"doorward_decisions_total{outcome="allow",reason="-",app="web"} 3"#), "{text}");
        assert!(text.contains(r#"doorward_decisions_total{outcome="allow",reason="-",app="-"} 1"#), "{text}");
    }
}
