//! `explain --decision`: what the audit log says about one decision.

use doorward_core::{audit::AuditRow, id::DecisionId, reason::Reason};
use doorward_gate::clock::Clock;

use super::super::{
    Failure, Out, STORE_WAIT,
    audit::{each_page, print},
    open_store,
};
use crate::config::Config;

pub(super) async fn run(config: &Config, clock: &Clock, id: DecisionId, out: &mut Out<'_>) -> Result<(), Failure> {
    let store = open_store(config, clock)?;
    store.wait_ready(STORE_WAIT).await?;
    let mut found: Vec<AuditRow> = Vec::new();
    let looked = each_page(&store, |rows| found.extend(rows.into_iter().filter(|row| row.decision == Some(id)))).await;
    store.close().await;
    looked?;
    if found.is_empty() {
        return Err(Failure::Failed(format!(
            "the audit log has no row about decision {id}: grants leave none, and refusals one per reason, caller and \
             minute; the server's log has every decision"
        )));
    }
    print(&found, out)?;
    if !out.json {
        for reason in found.iter().filter_map(|row| Reason::parse(row.reason.as_deref()?)) {
            out.line(format!("{}: {} {}", reason.code(), reason.text(), reason.remedy().text()))?;
        }
    }
    Ok(())
}
