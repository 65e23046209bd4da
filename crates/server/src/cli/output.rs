//! What commands print: lines and tables for people, JSON for programs.

use std::io::Write;

use doorward_core::time::Timestamp;
use serde::Serialize;

use super::Failure;

/// Where a command prints to.
pub(crate) struct Out<'a> {
    to: &'a mut dyn Write,
    /// Whether JSON is wanted.
    pub(crate) json: bool,
}

impl<'a> Out<'a> {
    pub(crate) fn new(to: &'a mut dyn Write, json: bool) -> Self {
        Self { to, json }
    }

    /// A line for people.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        Ok(writeln!(self.to, "{}", text.as_ref())?)
    }

    /// Text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.to.write_all(text.as_bytes())?)
    }

    /// A document for programs.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Failed(error.to_string()))?;
        self.line(text)
    }

    /// JSON or a sentence, as wanted.
    pub(crate) fn say(&mut self, value: &impl Serialize, text: &str) -> Result<(), Failure> {
        if self.json { self.json(value) } else { self.line(text) }
    }

    /// A table with aligned columns.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain(head.get(column).map(|cell| cell.chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let render = |cells: &mut dyn Iterator<Item = &str>| {
            let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.line(render(&mut head.iter().copied()))?;
        rows.iter().try_for_each(|row| self.line(render(&mut row.iter().map(String::as_str))))
    }
}

/// Text of others without what a terminal would act on.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A time for people: UTC, to the second.
pub(crate) fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis())
        .map_or_else(|_| at.as_millis().to_string(), |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// How far `at` is from `now`: `in 4m 10s`, `3h 2m ago`.
pub(crate) fn distance(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        format!("in {}", span(at.since(now).as_secs()))
    } else {
        format!("{} ago", span(now.since(at).as_secs()))
    }
}

/// The two largest units of a number of seconds.
fn span(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, size)| seconds >= *size).unwrap_or(3);
    let mut rest = seconds;
    let parts = units[first..].iter().take(2).map(|(name, size)| {
        let count = rest / size;
        rest %= size;
        (count, name)
    });
    let parts: Vec<_> = parts.collect();
    let shown: Vec<_> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count}{name}")).collect();
    if shown.is_empty() { "0s".to_owned() } else { shown.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_have_two_units_at_most() {
        let now = Timestamp::from_secs(1_800_000_000);
        for (seconds, text) in
            [(0, "0s ago"), (59, "in 59s"), (60, "in 1m"), (3_725, "in 1h 2m"), (-90_000, "1d 1h ago")]
        {
            assert_eq!(distance(Timestamp::from_secs(1_800_000_000 + seconds), now), text);
        }
    }

    #[test]
    fn a_table_is_aligned_and_prints_no_control_characters() {
        let mut bytes = Vec::new();
        let rows = [vec!["a\u{1b}[31m".to_owned(), "x".to_owned()], vec!["long name".to_owned(), "y".to_owned()]];
        Out::new(&mut bytes, false).table(&["NAME", "B"], &rows).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), "NAME       B\na\u{fffd}[31m     x\nlong name  y\n");
    }
}
