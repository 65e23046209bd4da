//! What is measured about licenses.

use doorward_core::license::LicenseState;
use doorward_gate::{
    gate::Gate,
    license::{BreakerState, FaultKind},
};

use crate::telemetry::{
    Metrics,
    metrics::{NameLabel, StateLabel},
};

/// Reads how many licenses there are in each state, and how their provider fares.
pub(crate) async fn gauge(gate: &Gate, metrics: &Metrics) {
    let Some(licenses) = gate.licenses() else {
        metrics.license_provider_up.set(-1);
        return;
    };
    if let Ok(counts) = gate.store().license_counts().await {
        for &state in LicenseState::ALL {
            let count = counts.iter().find(|(known, _)| *known == state).map_or(0, |(_, count)| *count);
            let gauge = metrics.licenses.get_or_create(&StateLabel { state: state.as_str() });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
    let status = licenses.status();
    metrics.license_provider_up.set(i64::from(status.breaker == BreakerState::Closed));
    let ahead = status.time.steady.as_millis() - status.time.wall.as_millis();
    metrics.license_time_ahead.set(ahead / 1000);
    let faults = FaultKind::ALL.iter().map(|kind| (kind.as_str(), status.faults[*kind as usize]));
    for (name, count) in [("answered", status.answers)].into_iter().chain(faults) {
        let counter = metrics.license_questions.get_or_create(&NameLabel { name: name.to_owned() });
        counter.inc_by(count.saturating_sub(counter.get()));
    }
}
