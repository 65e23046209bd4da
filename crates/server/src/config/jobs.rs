//! `[jobs]`: when Doorward does what nobody asks for.

use std::fmt;

use doorward_core::schedule::Schedule;

use super::{
    Config,
    key::settings,
    license::Provider,
    read::Reader,
    scalar::{Scalar, scalar_field},
};

settings! {
    /// When jobs run: five fields as in a crontab (minute, hour, day of the month, month, day of the week), UTC; or `off`.
    /// Replicas share one schedule: each slot is run once. After a downtime a job that missed slots runs once.
    pub struct Jobs {
        /// Deletes ended sessions, links and one-time tokens, old entries of the revocation log, old runs of jobs, names
        /// of license webhooks that were taken, and users who never proved their address.
        purge: When = default "*/10 * * * *";
        /// Sends mails that are due and that no server took, and deletes mails that were given up 30 days ago.
        outbox: When = default "*/10 * * * *";
        /// Asks every issuer for its keys and keeps them for the next start. Servers also ask by themselves, ahead of
        /// time and when a token needs it.
        refresh: When = default "5 * * * *";
        /// Signs the heads of the audit chains, if anything was written. What is cut off behind the last time does not
        /// show.
        checkpoint: When = default "*/10 * * * *";
        /// Decides on the day of the soak window whether it closes. Without it the window stays open.
        cutover: When = default "*/10 * * * *";
        /// Asks again about licenses that nobody asked about for 45 to 55 minutes, such as those of open sockets: 1,000
        /// in a run. Off without a license provider.
        license_reconcile: When = default "*/5 * * * *";
        /// Tells people by mail that a license ends: 14 and 3 days before, and when it has. Off where a license provider or
        /// `[mail]` is missing.
        license_notices: When = default "15 * * * *";
    }
}

impl Config {
    /// `[jobs]`, with those off that have nothing to work with. The host may have a license provider or a mailer of its
    /// own besides what the file says.
    pub(crate) fn effective_jobs(&self, host_has_license: bool, host_has_mail: bool) -> Jobs {
        let mut jobs = self.jobs.clone();
        let has_license = host_has_license || self.license.provider != Provider::None;
        if !has_license {
            jobs.license_reconcile = When(None);
        }
        if !has_license || !(host_has_mail || self.mail.is_some()) {
            jobs.license_notices = When(None);
        }
        jobs
    }
}

scalar_field!(When);

/// A schedule, or never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct When(pub Option<Schedule>);

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(schedule) => schedule.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl Scalar for When {
    const TYPE: &'static str = "schedule";
    const HINT: &'static str = "minute, hour, day, month and weekday as in a crontab (UTC), or `off`";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        match text.trim() {
            "off" => Ok(Self(None)),
            fields => {
                fields.parse::<Schedule>().map(|schedule| Self(Some(schedule))).map_err(|error| error.to_string())
            }
        }
    }
}
