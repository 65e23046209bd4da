//! The end of the soak window: when credentials of the old system are no longer accepted (B78).
//!
//! The file is the ceiling: `allow = false` closes, whatever was decided before. Below it the store holds the
//! state, a [`Window`]. On the day that the window is to close, [`plan`] looks at how much of what people did in
//! the seven days before was done with credentials of the old system, and closes the window or gives it another
//! while; what it decided and why is in the state and in the audit log.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    audit::{AuditEvent, EventKind},
    effects::Effects,
    time::Timestamp,
};

/// Name of the state in the store.
pub const STATE: &str = "cutover";
/// How many whole days before the decision are looked at.
pub const DAYS: i64 = 7;

const SECONDS_OF_DAY: i64 = 86_400;

/// A day, UTC: days since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(pub i64);

impl Day {
    /// The day of a moment.
    pub const fn of(at: Timestamp) -> Self {
        Self(at.as_secs().div_euclid(SECONDS_OF_DAY))
    }

    /// When it begins.
    pub const fn begins(self) -> Timestamp {
        Timestamp::from_secs(self.0.saturating_mul(SECONDS_OF_DAY))
    }

    /// Year, month and day of the month in the proleptic Gregorian calendar.
    ///
    /// Counted in eras of 400 years from 1 March of the year 0, so that the leap day ends a year.
    pub(crate) fn civil(self) -> (i64, i64, i64) {
        const ERA: i64 = 146_097;
        let shifted = self.0.saturating_add(719_468);
        let (era, day) = (shifted.div_euclid(ERA), shifted.rem_euclid(ERA));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let of_year = day - (365 * year + year / 4 - year / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        (year + era * 400 + i64::from(month <= 2), month, day)
    }

    /// `days` later; saturates.
    #[must_use]
    pub const fn plus(self, days: i64) -> Self {
        Self(self.0.saturating_add(days))
    }
}

/// `2026-12-31`.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Successful sign-ins.
    SignIn,
    /// Requests that were let in.
    Request,
}

/// How often a method was used on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<'a> {
    /// The day.
    pub day: Day,
    /// What was counted.
    pub kind: Counted,
    /// `magic_link`, `code`, `password`, … of sign-ins; `session`, `api_key`, `bearer`, `legacy` of requests.
    pub method: &'a str,
    /// How often.
    pub count: u64,
}

/// A part of a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Sign-ins and bearer requests with credentials of the old system.
    pub legacy: u64,
    /// All sign-ins and bearer requests.
    pub total: u64,
}

impl Share {
    /// The legacy share of `counts`.
    ///
    /// Of one pool: every successful sign-in and every request with a bearer token, of an issuer or of the old
    /// system. Requests with sessions and API keys are no part of it.
    pub fn of<'a>(counts: impl IntoIterator<Item = Count<'a>>) -> Self {
        let mut share = Self::default();
        for one in counts {
            let (is_legacy, is_counted) = match one.kind {
                Counted::SignIn => (one.method == "password", true),
                Counted::Request => (one.method == "legacy", matches!(one.method, "bearer" | "legacy")),
            };
            if is_counted {
                share.total = share.total.saturating_add(one.count);
            }
            if is_legacy {
                share.legacy = share.legacy.saturating_add(one.count);
            }
        }
        share
    }

    /// From 0 to 1; 0 where nothing happened.
    #[allow(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
    pub fn ratio(self) -> f64 {
        if self.total == 0 { 0.0 } else { self.legacy as f64 / self.total as f64 }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} % ({} of {})", self.ratio() * 100.0, self.legacy, self.total)
    }
}

/// The legacy share of `counts` over the [`DAYS`] whole days before `day`; the day itself is not over.
pub fn share<'a>(counts: impl IntoIterator<Item = Count<'a>>, day: Day) -> Share {
    let days = day.plus(-DAYS)..day;
    Share::of(counts.into_iter().filter(|one| days.contains(&one.day)))
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceiling {
    /// Whether there may be a soak window at all.
    pub allow: bool,
    /// The day on which it closes at first.
    pub cutover_on: Day,
    /// The share below which it closes.
    pub threshold: f64,
    /// By how much it is extended; counts in whole days, one at least.
    pub extend_by: Duration,
}

impl Ceiling {
    /// `extend_by` in days, rounded up.
    pub fn days(&self) -> i64 {
        days(self.extend_by)
    }
}

/// Whole days, rounded up, one at least.
pub fn days(span: Duration) -> i64 {
    i64::try_from(span.as_secs().div_ceil(SECONDS_OF_DAY.unsigned_abs())).unwrap_or(i64::MAX).max(1)
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Nobody yet: it is as the file says.
    File,
    /// The job.
    Job,
    /// The operator, by a command.
    Operator,
}

/// The soak window as the store holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Whether credentials of the old system are accepted.
    pub open: bool,
    /// The day on which that is decided anew.
    pub closes_on: Day,
    /// `cutover_on` of the file when this was decided. Another date in the file takes the place of an extension.
    pub cutover_on: Day,
    /// Who decided.
    pub by: By,
    /// Why, for the operator.
    pub why: String,
    /// When it was decided; nothing was as long as the file alone speaks.
    pub decided_at: Option<Timestamp>,
}

impl Window {
    /// The window in force: what the store holds, under what the file says now.
    ///
    /// Nothing in the store: open until `cutover_on`. Another `cutover_on` than the one that the state was decided
    /// under replaces the date of an open window; a closed one stays closed. Whether the file allows a window at all
    /// is for [`Window::is_open`].
    pub fn in_force(stored: Option<&Self>, ceiling: &Ceiling) -> Self {
        let date = ceiling.cutover_on;
        match stored {
            Some(window) if !window.open || window.cutover_on == date => window.clone(),
            _ => Self {
                open: true,
                closes_on: date,
                cutover_on: date,
                by: By::File,
                why: "as `legacy.cutover_on` says".to_owned(),
                decided_at: None,
            },
        }
    }

    /// Whether credentials of the old system are accepted.
    pub const fn is_open(&self, ceiling: &Ceiling) -> bool {
        ceiling.allow && self.open
    }

    /// As text for the store.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

impl FromStr for Window {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

/// What is to be done about a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing today.
    Stay,
    /// It closes.
    Close(Step),
    /// It stays open for another while.
    Extend(Step),
}

/// A change of the state, with the audit row that says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The window afterwards.
    pub window: Window,
    /// What commits with it.
    pub effects: Effects,
}

/// Decides about `window` (the one in force) at `now`.
///
/// Before its day, and where it is closed or not allowed, there is nothing to do. From that day on it closes if
/// the legacy share of the seven whole days before is below the threshold, or nothing at all was done with
/// credentials of the old system; else it is extended, counted from that day or from today, whichever is later,
/// so that a server that was off for a month does not decide four times.
pub fn plan<'a>(
    window: &Window,
    counts: impl IntoIterator<Item = Count<'a>>,
    ceiling: &Ceiling,
    now: Timestamp,
) -> Plan {
    let today = Day::of(now);
    if !window.is_open(ceiling) || today < window.closes_on {
        return Plan::Stay;
    }
    let share = share(counts, today);
    let limit = ceiling.threshold * 100.0;
    if share.legacy == 0 || share.ratio() < ceiling.threshold {
        let why = format!("the legacy share of the last {DAYS} days is {share}, below {limit:.2} %");
        let closed = Window { open: false, ..decided(ceiling, window.closes_on, By::Job, why, now) };
        return Plan::Close(step(closed, EventKind::CutoverClosed, Some(share), now));
    }
    let until = window.closes_on.max(today).plus(ceiling.days());
    let why = format!("the legacy share of the last {DAYS} days is {share}, not below {limit:.2} %");
    let extended = decided(ceiling, until, By::Job, why, now);
    Plan::Extend(step(extended, EventKind::CutoverExtended, Some(share), now))
}

/// Extends an open window by the operator's wish.
///
/// # Errors
/// Why that cannot be, in words.
pub fn plan_extend(window: &Window, ceiling: &Ceiling, days: i64, now: Timestamp) -> Result<Step, &'static str> {
    if !ceiling.allow {
        return Err("the file does not allow a soak window: `legacy.allow` is false");
    }
    if !window.open {
        return Err("the soak window is closed; `doorward cutover rollback` opens it again");
    }
    let until = window.closes_on.max(Day::of(now)).plus(days.max(1));
    let extended = decided(ceiling, until, By::Operator, "extended by a command".to_owned(), now);
    Ok(step(extended, EventKind::CutoverExtended, None, now))
}

/// Opens a closed window again, for as long as an extension lasts.
///
/// # Errors
/// Why that cannot be, in words.
pub fn plan_rollback(window: &Window, ceiling: &Ceiling, now: Timestamp) -> Result<Step, &'static str> {
    if !ceiling.allow {
        return Err("the file does not allow a soak window: set `legacy.allow` first");
    }
    if window.open {
        return Err("the soak window is open; there is nothing to take back");
    }
    let until = window.closes_on.max(Day::of(now)).plus(ceiling.days());
    let opened = decided(ceiling, until, By::Operator, "the cutover was taken back by a command".to_owned(), now);
    Ok(step(opened, EventKind::CutoverRolledBack, None, now))
}

/// The window after a decision, open.
fn decided(ceiling: &Ceiling, closes_on: Day, by: By, why: String, now: Timestamp) -> Window {
    Window { open: true, closes_on, cutover_on: ceiling.cutover_on, by, why, decided_at: Some(now) }
}

fn step(window: Window, kind: EventKind, share: Option<Share>, now: Timestamp) -> Step {
    let mut event = AuditEvent::new(kind, now);
    let more = &mut event.detail.more;
    more.insert("why".into(), window.why.as_str().into());
    more.insert("closes_on".into(), window.closes_on.to_string().into());
    if let Some(share) = share {
        more.insert("legacy".into(), share.legacy.into());
        more.insert("total".into(), share.total.into());
    }
    Step { window, effects: Effects::audited(event) }
}

#[cfg(test)]
mod tests;
