//! How the provider fares, for metrics and the admin listener.

use std::time::Duration;

use doorward_core::{license::LicenseTime, time::Timestamp};

use super::{FaultKind, Licenses, ProviderFault};

/// Whether the provider is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It answered last time.
    Closed,
    /// It failed; nobody asks for so long.
    Open(Duration),
    /// It failed; the next question is a trial.
    Trial,
}

/// How the provider fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LicenseStatus {
    /// Its name.
    pub provider: &'static str,
    /// Whether every user has a license of their own.
    pub is_per_user: bool,
    /// Whether it is asked.
    pub breaker: BreakerState,
    /// When it answered last, by our clock.
    pub answered_at: Option<Timestamp>,
    /// What went wrong last, and when.
    pub last_fault: Option<(Timestamp, ProviderFault)>,
    /// Questions that were asked since it was set.
    pub questions: u64,
    /// Answers.
    pub answers: u64,
    /// Faults, in the order of [`FaultKind::ALL`].
    pub faults: [u64; FaultKind::ALL.len()],
    /// Questions that are under way or wait for their turn.
    pub under_way: usize,
    /// Holders in memory.
    pub held: usize,
    /// The times by which licenses are judged.
    pub time: LicenseTime,
}

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) questions: u64,
    pub(super) answers: u64,
    pub(super) faults: [u64; FaultKind::ALL.len()],
    pub(super) answered_at: Option<Timestamp>,
    pub(super) last_fault: Option<(Timestamp, ProviderFault)>,
}

impl Tally {
    pub(super) fn failed(&mut self, at: Timestamp, fault: &ProviderFault) {
        self.faults[fault.kind as usize] += 1;
        self.last_fault = Some((at, fault.clone()));
    }
}

impl Licenses {
    /// How the provider fares.
    pub fn status(&self) -> LicenseStatus {
        let now = self.gate.clock().now().mono;
        let breaker = {
            let breaker = self.desk.breaker();
            match (breaker.is_closed(), breaker.pause(now)) {
                (true, _) => BreakerState::Closed,
                (false, Duration::ZERO) => BreakerState::Trial,
                (false, pause) => BreakerState::Open(pause),
            }
        };
        let tally = self.desk.tally();
        LicenseStatus {
            provider: self.provider(),
            is_per_user: self.is_per_user(),
            breaker,
            answered_at: tally.answered_at,
            last_fault: tally.last_fault.clone(),
            questions: tally.questions,
            answers: tally.answers,
            faults: tally.faults,
            under_way: self.desk.flights.len(),
            held: self.desk.held.len(),
            time: self.time(),
        }
    }
}
