//! The rows of an import file, one line each.
//!
//! Both formats are read line by line, so a line that is broken costs no other: a quoted field of CSV (RFC 4180)
//! must end on its line, which addresses, hashes and subjects always do.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read as _},
    path::Path,
};

use clap::ValueEnum;
use doorward_core::{password::PasswordHash, secret::Secret, user::Email};
use serde::Deserialize;

/// Longest line, in bytes; no row that can be right is as long.
const LINE_MAX: usize = 16 * 1024;
/// Longest subject, in bytes.
const SUBJECT_MAX: usize = 255;

/// How the file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One JSON object on each line.
    Jsonl,
    /// Comma-separated values; the first line names the columns.
    Csv,
}

/// A row that can become a user.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) line: u64,
    pub(super) email: Email,
    pub(super) password_hash: Option<Secret<String>>,
    pub(super) pending_subject: Option<String>,
    pub(super) is_admin: bool,
}

/// Why a line cannot, and what to do. Never repeats a password hash.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Problem {
    pub(super) line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<String>,
    pub(super) problem: String,
    pub(super) remedy: &'static str,
}

/// The names of the columns, which are also the members of a JSON object.
const COLUMNS: [&str; 4] = ["email", "password_hash", "pending_subject", "admin"];

/// A row as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    email: String,
    #[serde(default)]
    password_hash: Option<String>,
    #[serde(default)]
    pending_subject: Option<String>,
    #[serde(default)]
    admin: bool,
}

/// Reads a file row by row; holds one line in memory.
pub(super) struct Rows {
    lines: BufReader<File>,
    number: u64,
    columns: Option<Vec<usize>>,
}

impl Rows {
    /// Opens the file and reads the head of CSV.
    ///
    /// # Errors
    /// What is wrong with the file as a whole, with the remedy.
    pub(super) fn open(path: &Path, format: Option<Format>) -> Result<Self, String> {
        let Some(format) = format.or_else(|| by_name(path)) else {
            return Err(format!("{}: say --format jsonl or --format csv", path.display()));
        };
        let cannot = |error: std::io::Error| format!("{}: cannot be read: {error}", path.display());
        let mut rows = Self { lines: BufReader::new(File::open(path).map_err(cannot)?), number: 0, columns: None };
        if format == Format::Csv {
            let head = match rows.line().map_err(cannot)? {
                Some(Ok(head)) => head,
                Some(Err(_)) | None => String::new(),
            };
            let columns = head_columns(&head).map_err(|problem| format!("{}: {problem}", path.display()))?;
            rows.columns = Some(columns);
        }
        Ok(rows)
    }

    /// The next row, or what is wrong with it; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub(super) fn next(&mut self) -> std::io::Result<Option<Result<Candidate, Problem>>> {
        loop {
            let Some(line) = self.line()? else { return Ok(None) };
            let line = match line {
                Ok(line) if line.trim().is_empty() => continue,
                Ok(line) => line,
                Err(what) => return Ok(Some(Err(self.problem(None, what.to_owned(), "write it anew")))),
            };
            let row = match &self.columns {
                Some(columns) => csv_row(&line, columns),
                None => json_row(&line),
            };
            return Ok(Some(match row {
                Ok(row) => self.check(row),
                Err(what) => Err(self.problem(None, what, "correct the line and run the import again")),
            }));
        }
    }

    fn problem(&self, email: Option<String>, problem: String, remedy: &'static str) -> Problem {
        Problem { line: self.number, email, problem, remedy }
    }

    /// The next line without its end. One that cannot be a row is passed over whole.
    fn line(&mut self) -> std::io::Result<Option<Result<String, &'static str>>> {
        let mut bytes = Vec::new();
        let limit = LINE_MAX as u64 + 2;
        if self.lines.by_ref().take(limit).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if bytes.len() as u64 == limit && bytes.last() != Some(&b'\n') {
            self.lines.skip_until(b'\n')?;
            return Ok(Some(Err("the line is longer than any row")));
        }
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        let Ok(text) = String::from_utf8(bytes) else { return Ok(Some(Err("the line is not UTF-8"))) };
        let text = if self.number == 1 { text.trim_start_matches('\u{feff}').to_owned() } else { text };
        Ok(Some(Ok(text)))
    }

    fn check(&self, row: Row) -> Result<Candidate, Problem> {
        let Row { email, password_hash, pending_subject, admin } = row;
        let Some(email) = Email::parse(&email) else {
            let shown = Some(email.chars().take(Email::MAX).collect());
            return Err(self.problem(shown, "not a mail address".to_owned(), "write name@example.com"));
        };
        let shown = || Some(email.to_string());
        let password_hash = password_hash.filter(|hash| !hash.is_empty()).map(Secret::new);
        if let Some(hash) = &password_hash
            && let Err(error) = PasswordHash::parse(hash.expose())
        {
            let remedy = "leave password_hash out; the person signs in by mail";
            return Err(self.problem(shown(), format!("password_hash: {error}"), remedy));
        }
        let pending_subject = pending_subject.filter(|subject| !subject.is_empty());
        if let Some(problem) = pending_subject.as_deref().and_then(subject_problem) {
            let remedy = "write the subject as the license provider has it";
            return Err(self.problem(shown(), format!("pending_subject: {problem}"), remedy));
        }
        Ok(Candidate { line: self.number, email, password_hash, pending_subject, is_admin: admin })
    }
}

/// What is wrong with a subject of the license provider.
pub(in crate::cli) fn subject_problem(subject: &str) -> Option<&'static str> {
    if subject.is_empty() {
        Some("it is empty")
    } else if subject.len() > SUBJECT_MAX {
        Some("it is longer than 255 bytes")
    } else if subject.chars().any(char::is_control) {
        Some("it has control characters")
    } else {
        None
    }
}

fn by_name(path: &Path) -> Option<Format> {
    let end = path.extension()?.to_str()?.to_ascii_lowercase();
    match end.as_str() {
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        "csv" => Some(Format::Csv),
        _ => None,
    }
}

fn json_row(line: &str) -> Result<Row, String> {
    // An array would be read as the members in their order.
    if !line.trim_start().starts_with('{') {
        return Err("not a JSON object".to_owned());
    }
    // The library's words name members and positions; a value is never part of them for the types used here.
    serde_json::from_str(line).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            format!("not a row: members are {}; email is text, admin true or false", COLUMNS.join(", "))
        }
        _ => format!("not a JSON object on one line (column {})", error.column()),
    })
}

/// Which of [`COLUMNS`] each column is.
fn head_columns(head: &str) -> Result<Vec<usize>, String> {
    let names = csv_fields(head)?;
    let index = |name: &String| COLUMNS.iter().position(|column| column == &name.trim());
    let columns: Option<Vec<usize>> = names.iter().map(index).collect();
    let expected = COLUMNS.join(",");
    let columns = columns.ok_or_else(|| format!("the first line must name the columns, out of {expected}"))?;
    let is_double = (0..columns.len()).any(|at| columns[..at].contains(&columns[at]));
    if is_double || !columns.contains(&0) {
        return Err(format!("the first line must name each column once, email among them, out of {expected}"));
    }
    Ok(columns)
}

fn csv_row(line: &str, columns: &[usize]) -> Result<Row, String> {
    let fields = csv_fields(line)?;
    if fields.len() != columns.len() {
        return Err(format!(
            "{} fields where the first line names {}; a field with a comma in it (an Argon2 hash) stands in quotes",
            fields.len(),
            columns.len()
        ));
    }
    let mut row = Row::default();
    for (field, column) in fields.into_iter().zip(columns) {
        match column {
            0 => row.email = field,
            1 => row.password_hash = Some(field),
            2 => row.pending_subject = Some(field),
            _ => {
                row.admin = match field.trim() {
                    "true" => true,
                    "false" | "" => false,
                    _ => return Err("admin is neither true nor false".to_owned()),
                }
            }
        }
    }
    Ok(row)
}

/// Takes a line of CSV apart (RFC 4180 §2, but a field ends on its line).
fn csv_fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            None => {
                rest.split_once(',').map_or((rest.to_owned(), None), |(field, after)| (field.to_owned(), Some(after)))
            }
            Some(mut quoted) => {
                let mut field = String::new();
                loop {
                    let (part, after) = quoted.split_once('"').ok_or("a quote is opened and not closed")?;
                    field.push_str(part);
                    match after.strip_prefix('"') {
                        Some(more) => {
                            field.push('"');
                            quoted = more;
                        }
                        None if after.is_empty() => break (field, None),
                        None => break (field, Some(after.strip_prefix(',').ok_or("text follows a closing quote")?)),
                    }
                }
            }
        };
        if field.contains('"') && !rest.starts_with('"') {
            return Err("a quote stands inside a field that does not begin with one".to_owned());
        }
        fields.push(field);
        match after {
            None => return Ok(fields),
            Some(after) => rest = after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_taken_apart_as_the_standard_says() {
        let fields = |line: &str| csv_fields(line).map(|fields| fields.join("|"));
        assert_eq!(fields("a,b,"), Ok("a|b|".to_owned()));
        assert_eq!(fields(r#""a,1","say ""hi""",c"#), Ok(r#"a,1|say "hi"|c"#.to_owned()));
        assert_eq!(fields(""), Ok(String::new()));
        assert_eq!(fields(r#""""#), Ok(String::new()));
        for broken in [r#""a"#, r#""a"b"#, r#"a"b"#, r#"a,"b"#] {
            assert!(fields(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn the_first_line_of_csv_names_the_columns() {
        assert_eq!(head_columns("email"), Ok(vec![0]));
        assert_eq!(head_columns("admin, email,password_hash"), Ok(vec![3, 0, 1]));
        for broken in ["", "name", "admin", "email,email", "ada@example.com,x"] {
            assert!(head_columns(broken).unwrap_err().contains("email"), "{broken}");
        }
    }
}
