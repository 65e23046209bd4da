//! What is wrong with a configuration: where, what, and what to do about it.

use std::{fmt, path::PathBuf};

use serde::Serialize;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The file as a whole: a key that is not there.
    Whole,
    /// Position in the file, both counted from 1; the column counts characters.
    File { line: usize, column: usize },
    /// An environment variable.
    Env(String),
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, unless an environment variable is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Line in it, from 1; `None` when something is absent altogether.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column in it, from 1, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The environment variable at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// The key, as in `rules[2].path`; empty for the syntax of the file.
    pub key: String,
    /// What is wrong. Never holds a secret.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    pub(crate) fn new(file: &std::path::Path, place: &Place, key: String, what: String, remedy: String) -> Self {
        let mut problem =
            Self { file: Some(file.to_owned()), line: None, column: None, variable: None, key, what, remedy };
        match place {
            Place::Whole => {}
            Place::File { line, column } => {
                problem.line = Some(*line);
                problem.column = Some(*column);
            }
            Place::Env(name) => {
                problem.file = None;
                problem.variable = Some(name.clone());
            }
        }
        problem
    }
}

/// `doorward.toml:12:8: session.idle: what` and, on a line of its own, the remedy.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(variable) = &self.variable {
            write!(f, "{variable}: ")?;
        } else if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let (Some(line), Some(column)) = (self.line, self.column) {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}\n    remedy: {}", self.what, self.remedy)
    }
}

/// Everything that is wrong with a configuration, in the order of the file, variables last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub(crate) fn sorted(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| {
            let rank = |p: &Problem| (p.variable.is_some(), p.line.is_some(), p.line, p.column);
            rank(a).cmp(&rank(b)).then_with(|| a.variable.cmp(&b.variable)).then_with(|| a.key.cmp(&b.key))
        });
        Self(problems)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        let n = self.0.len();
        write!(f, "{n} problem{} in the configuration", if n == 1 { "" } else { "s" })
    }
}

impl std::error::Error for Problems {}
