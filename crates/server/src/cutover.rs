//! The soak window of this installation: what the file and the store say, what was counted, what follows from it.
//! The command, the admin listener and the job all read it here.

use std::collections::BTreeMap;

use doorward_core::{
    cutover::{self, Ceiling, Count, Counted, Day, Plan, STATE, Share, Step, Window},
    time::Timestamp,
};
use doorward_store::{CountKind, MethodCount, SetState, Store, StoreError};
use serde::Serialize;

use crate::http::session::rfc3339;

/// How many days a report goes back, today included.
const SHOWN: i64 = 30;

/// Why the soak window cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CutoverError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state in the store is none that this release can read.
    #[error("the state of the soak window in the store cannot be read: {0}")]
    Unreadable(serde_json::Error),
    /// What was asked for cannot be.
    #[error("{0}")]
    Refused(&'static str),
    /// Somebody else changed it at the same time.
    #[error("somebody else changed the soak window at the same time; try again")]
    Raced,
}

/// The window in force, and the version of the state that it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub(crate) window: Window,
    version: i64,
}

/// Reads the window in force.
///
/// # Errors
/// [`CutoverError`].
pub(crate) async fn read(store: &Store, ceiling: &Ceiling) -> Result<Current, CutoverError> {
    let state = store.state(STATE.to_owned()).await?;
    let stored = state.as_ref().map(|state| state.value.parse::<Window>());
    let stored = stored.transpose().map_err(CutoverError::Unreadable)?;
    let window = Window::in_force(stored.as_ref(), ceiling);
    Ok(Current { window, version: state.map_or(0, |state| state.version) })
}

/// Writes `step`, which was planned from `current`.
///
/// # Errors
/// [`CutoverError`].
pub(crate) async fn write(store: &Store, current: &Current, step: Step, at: Timestamp) -> Result<Window, CutoverError> {
    let text = step.window.to_text().map_err(CutoverError::Unreadable)?;
    match store.set_state(STATE.to_owned(), current.version, text, at, step.effects).await? {
        SetState::Set => Ok(step.window),
        SetState::Changed => Err(CutoverError::Raced),
    }
}

/// Decides about the window, if today is the day: what the job does. Gives back the window in force afterwards.
///
/// # Errors
/// [`CutoverError`]; nothing was changed.
pub(crate) async fn decide(store: &Store, ceiling: &Ceiling, now: Timestamp) -> Result<Window, CutoverError> {
    let current = read(store, ceiling).await?;
    let counts = store.counts(Day::of(now).plus(-cutover::DAYS).0).await?;
    let step = match cutover::plan(&current.window, core(&counts), ceiling, now) {
        Plan::Stay => return Ok(current.window),
        Plan::Close(step) | Plan::Extend(step) => step,
    };
    tracing::info!(open = step.window.open, closes_on = %step.window.closes_on, why = step.window.why, "soak window");
    write(store, &current, step, now).await
}

fn core(counts: &[MethodCount]) -> impl Iterator<Item = Count<'_>> {
    counts.iter().map(|one| Count {
        day: Day(one.day),
        kind: match one.kind {
            CountKind::SignIn => Counted::SignIn,
            CountKind::Request => Counted::Request,
        },
        method: &one.method,
        count: one.count,
    })
}

/// A share, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct ShownShare {
    pub(crate) legacy: u64,
    pub(crate) total: u64,
    pub(crate) ratio: f64,
}

impl From<Share> for ShownShare {
    fn from(share: Share) -> Self {
        Self { legacy: share.legacy, total: share.total, ratio: share.ratio() }
    }
}

/// One day.
#[derive(Debug, Serialize)]
pub(crate) struct ShownDay {
    pub(crate) day: String,
    pub(crate) sign_ins: ByMethod,
    pub(crate) requests: ByMethod,
    pub(crate) share: ShownShare,
}

/// Everything about the soak window, for `cutover status` and `GET /admin/cutover`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether the file has a `[legacy]` section.
    pub(crate) configured: bool,
    /// `legacy.allow`.
    pub(crate) allowed: bool,
    /// Whether credentials of the old system are accepted now.
    pub(crate) open: bool,
    /// The day on which that is decided; none in a closed window.
    pub(crate) closes_on: Option<String>,
    /// `legacy.cutover_on`.
    pub(crate) cutover_on: Option<String>,
    pub(crate) threshold: Option<f64>,
    pub(crate) extend_by_days: Option<i64>,
    /// Who decided: `file`, `job`, `operator`.
    pub(crate) by: Option<cutover::By>,
    pub(crate) why: Option<String>,
    pub(crate) decided_at: Option<String>,
    /// The legacy share of the seven whole days before today.
    pub(crate) share: ShownShare,
    /// What the decision would be if it were taken today: `close`, `extend`; `none` in a closed window.
    pub(crate) decision: &'static str,
    /// The last days on which anything was counted, newest first.
    pub(crate) days: Vec<ShownDay>,
}

/// Reads what there is to know.
///
/// # Errors
/// [`CutoverError`].
pub(crate) async fn report(store: &Store, ceiling: Option<&Ceiling>, now: Timestamp) -> Result<Report, CutoverError> {
    let today = Day::of(now);
    let counts = store.counts(today.plus(1 - SHOWN).0).await?;
    let window = match ceiling {
        Some(ceiling) => Some((ceiling, read(store, ceiling).await?.window)),
        None => None,
    };
    let is_open = window.as_ref().is_some_and(|(ceiling, window)| window.is_open(ceiling));
    let decision = window.as_ref().map_or("none", |(ceiling, window)| {
        let due = Window { closes_on: today, ..window.clone() };
        match cutover::plan(&due, core(&counts), ceiling, now) {
            Plan::Stay => "none",
            Plan::Close(_) => "close",
            Plan::Extend(_) => "extend",
        }
    });
    Ok(Report {
        configured: ceiling.is_some(),
        allowed: ceiling.is_some_and(|ceiling| ceiling.allow),
        open: is_open,
        closes_on: window.as_ref().filter(|_| is_open).map(|(_, window)| window.closes_on.to_string()),
        cutover_on: ceiling.map(|ceiling| ceiling.cutover_on.to_string()),
        threshold: ceiling.map(|ceiling| ceiling.threshold),
        extend_by_days: ceiling.map(Ceiling::days),
        by: window.as_ref().map(|(_, window)| window.by),
        why: window.as_ref().map(|(_, window)| window.why.clone()),
        decided_at: window.as_ref().and_then(|(_, window)| window.decided_at).map(rfc3339),
        share: cutover::share(core(&counts), today).into(),
        decision,
        days: days(&counts),
    })
}

/// Uses by method.
type ByMethod = BTreeMap<String, u64>;

fn days(counts: &[MethodCount]) -> Vec<ShownDay> {
    let mut days: BTreeMap<i64, (ByMethod, ByMethod)> = BTreeMap::new();
    for one in counts {
        let (sign_ins, requests) = days.entry(one.day).or_default();
        let methods = match one.kind {
            CountKind::SignIn => sign_ins,
            CountKind::Request => requests,
        };
        methods.insert(one.method.clone(), one.count);
    }
    let shown = days.into_iter().rev().map(|(day, (sign_ins, requests))| ShownDay {
        day: Day(day).to_string(),
        sign_ins,
        requests,
        share: Share::of(core(counts).filter(|one| one.day == Day(day))).into(),
    });
    shown.collect()
}
