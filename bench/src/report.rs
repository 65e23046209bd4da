//! The report: tables as they stand in `docs/performance.md`.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// Prints as it goes and counts what was missed.
pub(crate) struct Report {
    start: Instant,
    met: usize,
    missed: Vec<String>,
}

/// What a figure is held against.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// Not more than this.
    Most(f64),
    /// Not less than this.
    Least(f64),
    /// For comparison only.
    None,
}

impl Report {
    pub(crate) fn begin() -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let model = model.map_or("unknown", |(_, name)| name.trim());
        println!("{cores} cores, {model}; load before: {}", load());
        Self { start: Instant::now(), met: 0, missed: Vec::new() }
    }

    /// Begins a table.
    pub(crate) fn table(&self, title: &str, unit: &str, ratio: &str) {
        println!("\n## {title}\n\n| | {unit} | {ratio} | target | |\n|---|---|---|---|---|");
    }

    /// A figure and what it is held against: `judged`, or for want of a ratio the figure itself.
    pub(crate) fn row(&mut self, name: &str, figure: &str, judged: Option<f64>, target: Target) {
        let shown = judged.map(|judged| format!("{judged:.2}")).unwrap_or_default();
        self.judged(name, figure, &shown, judged, target);
    }

    /// A figure that is held against its target by itself.
    pub(crate) fn absolute(&mut self, name: &str, figure: &str, value: f64, target: Target) {
        self.judged(name, figure, "", Some(value), target);
    }

    fn judged(&mut self, name: &str, figure: &str, shown: &str, value: Option<f64>, target: Target) {
        let (text, is_met) = match target {
            Target::Most(most) => (format!("≤ {most}"), value.map(|value| value <= most)),
            Target::Least(least) => (format!("≥ {least}"), value.map(|value| value >= least)),
            Target::None => (String::new(), None),
        };
        let verdict = match is_met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        match is_met {
            Some(true) => self.met += 1,
            Some(false) => self.missed.push(name.to_owned()),
            None => {}
        }
        println!("| {name} | {figure} | {shown} | {text} | {verdict} |");
    }

    /// Says that something was not measured.
    pub(crate) fn skipped(&self, what: &str, why: &str) {
        println!("| {what} | NOT MEASURED: {why} | | | |");
    }

    pub(crate) fn end(self) {
        println!("\n{} targets met, {} missed", self.met, self.missed.len());
        for name in &self.missed {
            println!("- missed: {name}");
        }
        println!("load after: {}; took {:.0} s", load(), self.start.elapsed().as_secs_f64());
    }
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

/// The middle value.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// Median of what one row cost in relation to another, turn by turn.
pub(crate) fn ratio(of: &[f64], to: &[f64]) -> f64 {
    median(of.iter().zip(to).map(|(of, to)| of / to))
}
