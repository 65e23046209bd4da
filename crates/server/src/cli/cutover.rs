//! `cutover`: the end of the soak window.

use std::time::Duration;

use clap::{Args, Subcommand};
use doorward_core::cutover::{self, Window};
use doorward_gate::clock::Clock;
use doorward_store::Store;
use serde_json::json;

use super::{Failure, Out};
use crate::{
    config::Config,
    cutover::{CutoverError, Report, ShownDay, read, report, write},
};

/// The end of the soak window.
#[derive(Debug, Subcommand)]
pub enum Cutover {
    /// Say whether credentials of the old system are accepted, until when, and how much they are used.
    Status,
    /// Keep an open window open for longer; a running server follows within a second.
    Extend(Extend),
    /// Open a closed window again, as far as the file allows one; a running server follows within a second.
    Rollback,
}

/// Keep an open window open for longer.
#[derive(Debug, Args)]
pub struct Extend {
    /// By how many days; `legacy.extend_by` when absent.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=366))]
    days: Option<u16>,
}

impl From<CutoverError> for Failure {
    fn from(error: CutoverError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Cutover {
    pub(super) async fn run(
        &self,
        store: &Store,
        config: &Config,
        clock: &Clock,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let now = clock.now().wall;
        let ceiling = config.legacy.as_ref().map(crate::config::Legacy::ceiling);
        let needed =
            || ceiling.ok_or_else(|| Failure::Failed("the configuration has no soak window: add [legacy]".to_owned()));
        let days = |days: i64| Duration::from_secs(days.unsigned_abs() * 86_400);
        let window = match self {
            Self::Status => return show(&report(store, ceiling.as_ref(), now).await?, out),
            Self::Extend(extend) => {
                let ceiling = needed()?;
                let current = read(store, &ceiling).await?;
                let by = extend.days.map_or(ceiling.extend_by, |by| days(by.into()));
                let step = cutover::plan_extend(&current.window, &ceiling, cutover::days(by), now)
                    .map_err(CutoverError::Refused)?;
                write(store, &current, step, now).await?
            }
            Self::Rollback => {
                let ceiling = needed()?;
                let current = read(store, &ceiling).await?;
                let step = cutover::plan_rollback(&current.window, &ceiling, now).map_err(CutoverError::Refused)?;
                write(store, &current, step, now).await?
            }
        };
        said(&window, out)
    }
}

fn said(window: &Window, out: &mut Out<'_>) -> Result<(), Failure> {
    let closes_on = window.closes_on.to_string();
    let text = format!("the soak window is open until {closes_on}");
    out.say(&json!({ "open": window.open, "closes_on": closes_on, "why": window.why }), &text)
}

fn show(report: &Report, out: &mut Out<'_>) -> Result<(), Failure> {
    if out.json {
        return out.json(report);
    }
    let state = match (report.configured, report.allowed, &report.closes_on) {
        (false, ..) => "no [legacy] section: credentials of the old system are not looked at".to_owned(),
        (_, false, _) => "closed: `legacy.allow` is false".to_owned(),
        (.., Some(day)) => format!("open; decided on {day}"),
        (.., None) => "closed".to_owned(),
    };
    out.line(format!("soak window      {state}"))?;
    if let Some(why) = &report.why {
        let at = report.decided_at.as_deref().unwrap_or("-");
        out.line(format!("why              {why} ({at})"))?;
    }
    let share = &report.share;
    out.line(format!("legacy share     {:.2} % ({} of {})", share.ratio * 100.0, share.legacy, share.total))?;
    if let Some(threshold) = report.threshold {
        out.line(format!(
            "threshold        {:.2} %; today the decision would be: {}",
            threshold * 100.0,
            report.decision
        ))?;
    }
    if report.days.is_empty() {
        return Ok(());
    }
    out.line("")?;
    let row = |day: &ShownDay| {
        let methods = |counts: &std::collections::BTreeMap<String, u64>| {
            counts.iter().map(|(method, count)| format!("{method} {count}")).collect::<Vec<_>>().join(", ")
        };
        let ratio = format!("{:.2} %", day.share.ratio * 100.0);
        vec![day.day.clone(), ratio, methods(&day.sign_ins), methods(&day.requests)]
    };
    out.table(&["DAY", "LEGACY", "SIGN-INS", "REQUESTS"], &report.days.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use doorward_core::{cutover::STATE, time::Timestamp};
    use serde_json::Value;

    use super::*;

    fn config(lines: &str) -> Config {
        let text = format!("public_url = \"http://localhost:8080\"\n{lines}");
        Config::parse(&text, Path::new("doorward.toml"), &Default::default()).unwrap()
    }

    async fn run(command: Cutover, store: &Store, config: &Config, clock: &Clock) -> Result<Value, String> {
        let mut bytes = Vec::new();
        match command.run(store, config, clock, &mut Out::new(&mut bytes, true)).await {
            Ok(()) => Ok(serde_json::from_slice(&bytes).unwrap()),
            Err(Failure::Failed(text)) => Err(text),
            Err(other) => panic!("{other:?}"),
        }
    }

    const LEGACY: &str = "[legacy]\nallow = true\ncutover_on = \"2027-01-20\"\n";

    #[tokio::test]
    async fn a_window_is_extended_closed_and_taken_back_within_what_the_file_allows() {
        let store = Store::memory();
        let clock = Clock::manual(Timestamp::from_secs(1_800_000_000)); // 2027-01-15
        let config = config(LEGACY);
        let status = run(Cutover::Status, &store, &config, &clock).await.unwrap();
        assert_eq!(
            (&status["open"], &status["closes_on"], &status["by"]),
            (&true.into(), &"2027-01-20".into(), &"file".into())
        );
        let extended = run(Cutover::Extend(Extend { days: Some(3) }), &store, &config, &clock).await.unwrap();
        assert_eq!(extended["closes_on"], "2027-01-23");
        let extended = run(Cutover::Extend(Extend { days: None }), &store, &config, &clock).await.unwrap();
        assert_eq!(extended["closes_on"], "2027-01-30");
        assert!(run(Cutover::Rollback, &store, &config, &clock).await.unwrap_err().contains("open"));
        // Nobody used anything of the old system: on its day it closes.
        clock.advance(Duration::from_secs(15 * 86_400));
        let ceiling = config.legacy.as_ref().unwrap().ceiling();
        assert!(!crate::cutover::decide(&store, &ceiling, clock.now().wall).await.unwrap().open);
        assert!(
            run(Cutover::Extend(Extend { days: None }), &store, &config, &clock)
                .await
                .unwrap_err()
                .contains("rollback")
        );
        let status = run(Cutover::Status, &store, &config, &clock).await.unwrap();
        assert_eq!(
            (&status["open"], &status["closes_on"], &status["by"]),
            (&false.into(), &Value::Null, &"job".into())
        );
        let back = run(Cutover::Rollback, &store, &config, &clock).await.unwrap();
        assert_eq!((&back["open"], &back["closes_on"]), (&true.into(), &"2027-02-06".into()));
        let kinds: Vec<String> = store.audit_tail(0, 10).await.unwrap().into_iter().map(|row| row.kind).collect();
        let mut kinds = kinds;
        kinds.sort();
        assert_eq!(kinds, ["cutover.closed", "cutover.extended", "cutover.extended", "cutover.rolled_back"]);
    }

    #[tokio::test]
    async fn what_the_file_forbids_no_command_opens() {
        let (store, clock) = (Store::memory(), Clock::manual(Timestamp::from_secs(1_800_000_000)));
        let forbidden = config("[legacy]\nallow = false\ncutover_on = \"2027-01-20\"\n");
        assert!(run(Cutover::Rollback, &store, &forbidden, &clock).await.unwrap_err().contains("legacy.allow"));
        assert!(run(Cutover::Extend(Extend { days: None }), &store, &forbidden, &clock).await.is_err());
        assert_eq!(run(Cutover::Status, &store, &forbidden, &clock).await.unwrap()["open"], false);
        let absent = config("");
        assert!(run(Cutover::Rollback, &store, &absent, &clock).await.unwrap_err().contains("[legacy]"));
        assert_eq!(run(Cutover::Status, &store, &absent, &clock).await.unwrap()["configured"], false);
        assert_eq!(store.state(STATE.to_owned()).await.unwrap(), None);
    }
}
