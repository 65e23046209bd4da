//! The jobs: one entry each. A new one is an entry here and a key of the same name in `[jobs]`.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{checkpoint, cutover, license, outbox, parts::Parts, purge, refresh};
use crate::config::{Jobs, When};

/// How a run went: what it did, or why it did not, in words for the operator.
pub(crate) type Outcome = Result<String, String>;

/// A job.
#[derive(Debug)]
pub(crate) struct Job {
    /// Its name: in `[jobs]`, on the command line, in the store, in metrics.
    pub(crate) name: &'static str,
    /// Its key.
    pub(crate) when: fn(&Jobs) -> &When,
    /// Longest time that a run may take; it is cut off then.
    pub(crate) limit: Duration,
    /// One run. It may be cut off at any point, and two runs may follow each other at once.
    pub(crate) run: fn(Parts) -> BoxFuture<'static, Outcome>,
}

const MINUTE: Duration = Duration::from_secs(60);

/// All of them, in the order of the configuration.
pub(crate) const JOBS: &[Job] = &[
    Job {
        name: "purge",
        when: |jobs| &jobs.purge,
        limit: MINUTE.saturating_mul(10),
        run: |parts| Box::pin(purge::run(parts)),
    },
    Job {
        name: "outbox",
        when: |jobs| &jobs.outbox,
        limit: MINUTE.saturating_mul(10),
        run: |parts| Box::pin(outbox::run(parts)),
    },
    Job {
        name: "refresh",
        when: |jobs| &jobs.refresh,
        limit: MINUTE.saturating_mul(5),
        run: |parts| Box::pin(refresh::run(parts)),
    },
    Job {
        name: "checkpoint",
        when: |jobs| &jobs.checkpoint,
        limit: MINUTE,
        run: |parts| Box::pin(checkpoint::run(parts)),
    },
    Job { name: "cutover", when: |jobs| &jobs.cutover, limit: MINUTE, run: |parts| Box::pin(cutover::run(parts)) },
    Job {
        name: "license_reconcile",
        when: |jobs| &jobs.license_reconcile,
        limit: MINUTE.saturating_mul(5),
        run: |parts| Box::pin(license::reconcile::run(parts)),
    },
    Job {
        name: "license_notices",
        when: |jobs| &jobs.license_notices,
        limit: MINUTE.saturating_mul(10),
        run: |parts| Box::pin(license::notices::run(parts)),
    },
];

/// The job of this name.
pub(crate) fn find(name: &str) -> Option<&'static Job> {
    JOBS.iter().find(|job| job.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_job_has_its_key_and_every_key_its_job() {
        let section =
            Config::keys().keys.iter().find(|key| key.name == "jobs").and_then(|key| (key.section)()).unwrap();
        let keys: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
        assert_eq!(JOBS.iter().map(|job| job.name).collect::<Vec<_>>(), keys);
        for key in &keys {
            let text = format!("public_url = \"http://127.0.0.1\"\n[jobs]\n{key} = \"off\"\n");
            let config = Config::parse(&text, std::path::Path::new("doorward.toml"), &Default::default()).unwrap();
            let off = JOBS.iter().filter(|job| (job.when)(&config.jobs).0.is_none()).map(|job| job.name);
            assert_eq!(off.collect::<Vec<_>>(), [*key], "the table reads the key of this name");
        }
    }
}
