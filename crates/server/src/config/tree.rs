//! The file as a tree of values that remember where they stand.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::problem::Place;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The value.
    pub(crate) value: Value,
    /// Where its key stands.
    pub(crate) key_at: Place,
    /// Where the value stands.
    pub(crate) at: Place,
}

/// A value as written.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A string of the file.
    String(String),
    /// An integer.
    Integer(i64),
    /// A float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// Text whose type the key decides: an environment variable, the content of a `*_file`, a TOML date.
    Text(String),
    /// An array.
    Array(Vec<Node>),
    /// A table.
    Table(BTreeMap<String, Node>),
}

impl Value {
    /// The word for a message; values themselves stay out of messages where they may be secret.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Bool(_) => "a boolean",
            Self::Text(_) => "text",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

/// A mistake in the syntax of the file.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    /// What.
    pub(crate) message: String,
    /// Where.
    pub(crate) at: Place,
}

/// Reads TOML. What could be read comes back even where something could not.
pub(crate) fn parse_file(text: &str) -> (Node, Vec<SyntaxError>) {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let errors = errors
        .iter()
        .map(|error| SyntaxError {
            message: error.message().lines().next().unwrap_or("not TOML").to_owned(),
            at: error.span().map_or(Place::Whole, |span| lines.place(span.start)),
        })
        .collect();
    let root =
        Node { value: convert_table(table.get_ref(), &|at| lines.place(at)), key_at: Place::Whole, at: Place::Whole };
    (root, errors)
}

/// Reads one TOML value: a default, an example, or an environment variable that holds an array or table.
pub(crate) fn parse_value(text: &str, at: &Place) -> Option<Value> {
    let value = DeValue::parse(text).ok()?;
    Some(convert(value.get_ref(), &|_| at.clone()))
}

fn convert(value: &DeValue<'_>, place: &dyn Fn(usize) -> Place) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Text(number.to_string()),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => Value::Text(number.to_string()),
        },
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(value) => Value::Text(value.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| Node {
                    value: convert(item.get_ref(), place),
                    key_at: place(item.span().start),
                    at: place(item.span().start),
                })
                .collect(),
        ),
        DeValue::Table(table) => convert_table(table, place),
    }
}

fn convert_table(table: &DeTable<'_>, place: &dyn Fn(usize) -> Place) -> Value {
    Value::Table(
        table
            .iter()
            .map(|(key, value)| {
                let node = Node {
                    value: convert(value.get_ref(), place),
                    key_at: place(key.span().start),
                    at: place(value.span().start),
                };
                (key.get_ref().to_string(), node)
            })
            .collect(),
    )
}

/// Byte offsets to lines and columns.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |text| text.chars().count()) + 1;
        Place::File { line, column }
    }
}
