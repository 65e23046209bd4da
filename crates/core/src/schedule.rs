//! When a job is due: the five fields of a crontab line, in UTC.
//!
//! The fields are minute, hour, day of the month, month and day of the week, as POSIX `crontab` has them, with steps
//! (`*/10`), ranges, lists and English names. A moment that matches is a *slot*; it is the first instant of its minute.
//! UTC has no hour that is skipped or comes twice, so neither has a schedule.

use std::{fmt, str::FromStr};

use crate::{cutover::Day, time::Timestamp};

const MINUTE: i64 = 60;
const MINUTES_OF_DAY: i64 = 1_440;
/// Days looked through for a slot: from 29 February 2096 to the next one, 2104, with room to spare.
const FAR: i64 = 8 * 366 + 1;
/// Longest text of a schedule, in bytes.
const TEXT_MAX: usize = 256;

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduleError {
    /// There are not five fields but so many; 7 stands for any larger number.
    Fields(usize),
    /// A field cannot be read.
    Field {
        /// Which one.
        field: &'static str,
        /// The part of it, shortened.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No day has these numbers, such as 30 February.
    Never,
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fields(count) => {
                write!(f, "a schedule has five fields (minute hour day month weekday), and this has {count}")
            }
            Self::Field { field, text, why } => write!(f, "`{text}` is no {field}: {why}"),
            Self::Never => f.write_str("no day of any year matches"),
        }
    }
}

impl std::error::Error for ScheduleError {}

/// Minutes at which something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether the day of the month begins with `*`, and whether the day of the week does. POSIX: where neither does,
    /// a day matches if either field does.
    any_day: bool,
    any_weekday: bool,
}

/// A field: its name, its numbers, and what else they may be called.
struct Kind {
    name: &'static str,
    low: u32,
    high: u32,
    /// The first one means `low`.
    names: &'static [&'static str],
}

const MINUTES: Kind = Kind { name: "minute", low: 0, high: 59, names: &[] };
const HOURS: Kind = Kind { name: "hour", low: 0, high: 23, names: &[] };
const DAYS: Kind = Kind { name: "day of the month", low: 1, high: 31, names: &[] };
const MONTHS: Kind = Kind {
    name: "month",
    low: 1,
    high: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
/// 7 is Sunday as well.
const WEEKDAYS: Kind =
    Kind { name: "day of the week", low: 0, high: 7, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

impl Schedule {
    /// The latest slot that is not after `at`; `None` where the calendar has none within eight years before it.
    pub fn last(&self, at: Timestamp) -> Option<Timestamp> {
        let minute = at.as_secs().div_euclid(MINUTE);
        let (day, of_day) = (minute.div_euclid(MINUTES_OF_DAY), minute.rem_euclid(MINUTES_OF_DAY));
        (0..FAR).find_map(|back| {
            let day = day.checked_sub(back)?;
            let until = if back == 0 { of_day } else { MINUTES_OF_DAY - 1 };
            let minute = self.is_day(Day(day)).then(|| (0..=until).rev().find(|&minute| self.is_minute(minute)))??;
            slot(day, minute)
        })
    }

    /// The first slot after `at`; `None` where the calendar has none within eight years.
    pub fn next(&self, at: Timestamp) -> Option<Timestamp> {
        let minute = at.as_secs().div_euclid(MINUTE).checked_add(1)?;
        let (day, of_day) = (minute.div_euclid(MINUTES_OF_DAY), minute.rem_euclid(MINUTES_OF_DAY));
        (0..FAR).find_map(|ahead| {
            let day = day.checked_add(ahead)?;
            let from = if ahead == 0 { of_day } else { 0 };
            let mut minutes = from..MINUTES_OF_DAY;
            let minute = self.is_day(Day(day)).then(|| minutes.find(|&minute| self.is_minute(minute)))??;
            slot(day, minute)
        })
    }

    fn is_minute(&self, of_day: i64) -> bool {
        has(self.hours, of_day / 60) && has(self.minutes, of_day % 60)
    }

    fn is_day(&self, day: Day) -> bool {
        let (_, month, of_month) = day.civil();
        // The Unix epoch was a Thursday.
        let weekday = has(self.weekdays, (day.0.rem_euclid(7) + 4) % 7);
        let of_month = has(self.days, of_month);
        let is_day = match (self.any_day, self.any_weekday) {
            (false, false) => of_month || weekday,
            (true, _) | (_, true) => of_month && weekday,
        };
        is_day && has(self.months, month)
    }
}

fn has(set: u64, number: i64) -> bool {
    u32::try_from(number).ok().and_then(|number| set.checked_shr(number)).is_some_and(|set| set & 1 == 1)
}

/// `None` beyond the end of time.
fn slot(day: i64, minute: i64) -> Option<Timestamp> {
    let minutes = day.checked_mul(MINUTES_OF_DAY)?.checked_add(minute)?;
    minutes.checked_mul(MINUTE * 1000).map(Timestamp::from_millis)
}

/// The text as it was given, with one space between the fields.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    /// Reads the five fields.
    ///
    /// # Errors
    /// [`ScheduleError`].
    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let fields: Vec<&str> = text.split_ascii_whitespace().take(7).collect();
        let [minute, hour, day, month, weekday] = fields[..] else { return Err(ScheduleError::Fields(fields.len())) };
        if text.len() > TEXT_MAX {
            return Err(bad(&MINUTES, text, "a schedule has 256 characters at most"));
        }
        let weekdays = WEEKDAYS.read(weekday)?;
        let schedule = Self {
            text: fields.join(" "),
            minutes: MINUTES.read(minute)?,
            hours: HOURS.read(hour)?,
            days: DAYS.read(day)?,
            months: MONTHS.read(month)?,
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            any_day: day.starts_with('*'),
            any_weekday: weekday.starts_with('*'),
        };
        match schedule.next(Timestamp::EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never),
        }
    }
}

impl Kind {
    /// The numbers of a field as bits.
    fn read(&self, text: &str) -> Result<u64, ScheduleError> {
        text.split(',').try_fold(0, |set, part| Ok(set | self.part(part)?))
    }

    /// `*`, `7`, `1-5`, each with `/2` behind it.
    fn part(&self, part: &str) -> Result<u64, ScheduleError> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(self.digits(step, part)?)),
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.low, self.high),
            Some((from, to)) => (self.number(from, part)?, self.number(to, part)?),
            // `5/10` is read by some programs as `5-59/10` and by others as `5`.
            None if step.is_some() => return Err(bad(self, part, "a step needs a range or `*` before it")),
            None => {
                let number = self.number(range, part)?;
                (number, number)
            }
        };
        if from > to {
            return Err(bad(self, part, "the range ends before it begins"));
        }
        match step.unwrap_or(1) {
            0 => Err(bad(self, part, "a step of nothing")),
            step => Ok((from..=to).step_by(step as usize).fold(0, |set, number| set | 1 << number)),
        }
    }

    fn number(&self, text: &str, part: &str) -> Result<u32, ScheduleError> {
        if let Some(place) = self.names.iter().position(|name| text.eq_ignore_ascii_case(name)) {
            return Ok(self.low + u32::try_from(place).unwrap_or(0));
        }
        let number = self.digits(text, part)?;
        if (self.low..=self.high).contains(&number) {
            return Ok(number);
        }
        Err(bad(self, part, "the number is too small or too large"))
    }

    fn digits(&self, text: &str, part: &str) -> Result<u32, ScheduleError> {
        let is_short = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_short.then(|| text.parse().ok()).flatten();
        number.ok_or_else(|| bad(self, part, "neither a number nor a known name"))
    }
}

fn bad(kind: &Kind, text: &str, why: &'static str) -> ScheduleError {
    let text = text.chars().take(20).flat_map(char::escape_debug).collect();
    ScheduleError::Field { field: kind.name, text, why }
}

#[cfg(test)]
mod tests;
