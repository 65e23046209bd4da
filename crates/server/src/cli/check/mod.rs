//! `check`: the doctor. Looks at the configuration and every neighbour, and says what to do.

mod license;
mod local;
mod neighbours;

use doorward_gate::clock::Clock;
use serde::Serialize;
use serde_json::json;

use super::{Failure, Out};
use crate::config::Config;

/// How something fares. The worst of all decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// Works; the operator may want to know.
    Note,
    /// A neighbour is down: exit code 1.
    Down,
    /// The configuration is wrong: exit code 2.
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) name: String,
    pub(super) status: Status,
    pub(super) detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), status: Status::Ok, detail: detail.into(), remedy: None }
    }

    pub(super) fn bad(
        status: Status,
        name: impl Into<String>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), status, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

pub(super) async fn run(config: Result<Config, Failure>, clock: &Clock, out: &mut Out<'_>) -> Result<(), Failure> {
    let config = match config {
        Ok(config) => config,
        Err(Failure::Config(problems)) if out.json => {
            out.json(&json!({ "ok": false, "problems": problems }))?;
            return Err(Failure::Said(2));
        }
        Err(failure) => return Err(failure),
    };
    let mut findings = vec![Finding::ok("configuration", config.file.display().to_string())];
    findings.extend(local::look(&config, clock));
    findings.extend(neighbours::look(&config, clock).await);
    report(&findings, out)
}

fn report(findings: &[Finding], out: &mut Out<'_>) -> Result<(), Failure> {
    let worst = findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok);
    if out.json {
        out.json(&json!({ "ok": worst < Status::Down, "findings": findings }))?;
    } else {
        let rows = findings.iter().map(|finding| {
            let word = match finding.status {
                Status::Ok => "ok",
                Status::Note => "note",
                Status::Down => "DOWN",
                Status::Wrong => "WRONG",
            };
            vec![word.to_owned(), finding.name.clone(), finding.detail.clone()]
        });
        out.table(&["", "WHAT", "FOUND"], &rows.collect::<Vec<_>>())?;
        let remedies = findings.iter().filter_map(|finding| Some((finding, finding.remedy.as_ref()?)));
        for (finding, remedy) in remedies {
            out.line(format!("{}: {remedy}", finding.name))?;
        }
    }
    match worst {
        Status::Ok | Status::Note => Ok(()),
        Status::Down => Err(Failure::Said(1)),
        Status::Wrong => Err(Failure::Said(2)),
    }
}

#[cfg(test)]
mod tests;
