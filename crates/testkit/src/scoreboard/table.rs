//! The scores of several verifiers side by side, in Markdown.

use std::fmt::Write as _;

use super::{Case, Score};

/// A column: a verifier's name, and its scores in the order of the cases.
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its scores.
    pub scores: Vec<Score>,
}

/// The table, and below it every finding.
///
/// # Panics
/// If a column's scores are not those of the cases.
pub fn markdown(cases: &[Case], columns: &[Column]) -> String {
    let mut text = String::new();
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    writeln!(text, "| | expected | {} |\n|---|---|{}", names.join(" | "), "---|".repeat(columns.len())).unwrap();
    let totals: Vec<_> = columns
        .iter()
        .map(|column| {
            format!("**{} of {}**", column.scores.iter().filter(|score| score.is_green()).count(), cases.len())
        })
        .collect();
    writeln!(text, "| **as expected** | | {} |", totals.join(" | ")).unwrap();
    let mut group = "";
    for (index, case) in cases.iter().enumerate() {
        if case.group != group {
            group = case.group;
            writeln!(text, "| **{group}** | |{}", " |".repeat(columns.len())).unwrap();
        }
        let cells: Vec<_> = columns.iter().map(|column| cell(case, &column.scores[index])).collect();
        writeln!(text, "| {} | {} | {} |", case.title, case.expected, cells.join(" | ")).unwrap();
    }
    for column in columns {
        writeln!(text, "\n## Red cells: {}\n", column.name).unwrap();
        let red: Vec<_> = cases.iter().zip(&column.scores).filter(|(_, score)| !score.is_green()).collect();
        if red.is_empty() {
            writeln!(text, "None.").unwrap();
        }
        for (case, score) in red {
            writeln!(text, "- `{}` ({}): {}", case.id, case.title, score.findings.join("; ")).unwrap();
        }
    }
    text
}

fn cell(case: &Case, score: &Score) -> String {
    assert_eq!(case.id, score.id);
    let fetches = score.fetches;
    if score.is_green() { format!("✓ {fetches}") } else { format!("✗ {fetches}") }
}
