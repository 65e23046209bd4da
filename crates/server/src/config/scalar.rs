//! The simple types of keys: text, durations, addresses, networks, dates, words, lists and maps.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use doorward_core::{client::Cidr, secret::Secret, user::Email};
use jiff::civil::Date;

use super::{
    key::{Field, Key, Section, Shape},
    problem::Place,
    read::Reader,
    tree::{self, Node, Value},
};

/// A type that is read from one text.
pub(crate) trait Scalar: Sized {
    /// For the reference.
    const TYPE: &'static str;
    /// Object of "write …".
    const HINT: &'static str;
    /// Reads it; the error says what is wrong and never repeats a secret.
    fn parse(text: &str, cx: &Reader<'_>) -> Result<Self, String>;
}

/// Reads a string, or text whose type the key decides, as a scalar.
pub(crate) fn read_scalar<T: Scalar>(node: &Node, cx: &mut Reader<'_>, key: &Key) -> Option<T> {
    let parsed = match &node.value {
        Value::String(text) | Value::Text(text) => T::parse(text, cx),
        other => Err(format!("expected a string, found {}", other.kind())),
    };
    parsed.map_err(|what| cx.problem(&node.at, what, key.remedy())).ok()
}

macro_rules! scalar_field {
    ($($Type:ty),+ $(,)?) => { $(
        impl $crate::config::key::Field for $Type {
            const TYPE: &'static str = <Self as $crate::config::scalar::Scalar>::TYPE;
            const HINT: &'static str = <Self as $crate::config::scalar::Scalar>::HINT;
            fn read(
                node: $crate::config::tree::Node,
                cx: &mut $crate::config::read::Reader<'_>,
                key: &$crate::config::key::Key,
            ) -> Option<Self> {
                $crate::config::scalar::read_scalar(&node, cx, key)
            }
        }
    )+ };
}
pub(crate) use scalar_field;

/// Gives an enum its words in the file.
macro_rules! words {
    ($Type:ty, $kind:literal: $($word:literal => $value:expr),+ $(,)?) => {
        impl $crate::config::scalar::Scalar for $Type {
            const TYPE: &'static str = $kind;
            const HINT: &'static str = concat!("one of", $(" `", $word, "`"),+);
            fn parse(text: &str, _: &$crate::config::read::Reader<'_>) -> Result<Self, String> {
                match text {
                    $($word => Ok($value),)+
                    other => Err(format!("`{}` is not one of the known words", $crate::config::scalar::shown(other))),
                }
            }
        }
        $crate::config::scalar::scalar_field!($Type);
    };
}
pub(crate) use words;

/// A value as a message may repeat it: short, printable.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

scalar_field!(String, Duration, SocketAddr, PathBuf, Date, Cidr, Mailbox);

impl Scalar for String {
    const TYPE: &'static str = "text";
    const HINT: &'static str = "a text that is not empty";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the text is empty".into());
        }
        if text.len() > 4096 || text.chars().any(char::is_control) {
            return Err("the text is longer than 4096 bytes or holds control characters".into());
        }
        Ok(text.to_owned())
    }
}

impl Scalar for Duration {
    const TYPE: &'static str = "duration";
    const HINT: &'static str = "a whole number with a unit: ms, s, m, h or d";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        parse_duration(text)
    }
}

/// A whole number with a unit: `250ms`, `90s`, `12h`, `30d`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{}` is not a duration", shown(text));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    let total = number.checked_mul(millis).filter(|total| *total <= 3650 * 86_400_000);
    total.map(Duration::from_millis).ok_or_else(|| format!("`{}` is longer than ten years", shown(text)))
}

impl Scalar for SocketAddr {
    const TYPE: &'static str = "address";
    const HINT: &'static str = "an IP address and a port";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{}` is not an IP address with a port", shown(text)))
    }
}

/// A path; relative ones start at the folder of the configuration file.
impl Scalar for PathBuf {
    const TYPE: &'static str = "path";
    const HINT: &'static str = "a path, absolute or relative to the folder of this file";
    fn parse(text: &str, cx: &Reader<'_>) -> Result<Self, String> {
        if text.is_empty() || text.contains('\0') {
            return Err("the path is empty or holds a null byte".into());
        }
        Ok(cx.resolve(text))
    }
}

impl Scalar for Date {
    const TYPE: &'static str = "date";
    const HINT: &'static str = "a date as YYYY-MM-DD";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let bad = || format!("`{}` is not a date", shown(text));
        if text.len() != 10 {
            return Err(bad());
        }
        text.parse().map_err(|_| bad())
    }
}

impl Scalar for Cidr {
    const TYPE: &'static str = "network";
    const HINT: &'static str = "networks as address/prefix";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let network: Self = text.parse().map_err(|error| format!("`{}`: {error}", shown(text)))?;
        if network.to_string().ends_with("/0") {
            return Err(format!("`{network}` is everybody, so anyone could claim any address"));
        }
        Ok(network)
    }
}

/// A sender: an address, with or without a name before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// What mail programs show.
    pub name: Option<String>,
    /// The address.
    pub address: Email,
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} <{}>", self.address),
            None => self.address.fmt(f),
        }
    }
}

impl Scalar for Mailbox {
    const TYPE: &'static str = "sender";
    const HINT: &'static str = "a mail address, or `Name <address>`";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let bad = || format!("`{}` is not a sender", shown(text));
        let (name, address) = match text.trim().strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
            Some((name, address)) => (Some(name.trim()), address),
            None => (None, text),
        };
        let is_plain = |name: &str| !name.chars().any(|c| c.is_control() || "<>\"@,;:\\".contains(c));
        if !name.is_none_or(is_plain) {
            return Err(bad());
        }
        let name = name.filter(|name| !name.is_empty()).map(str::to_owned);
        Ok(Self { name, address: Email::parse(address).ok_or_else(bad)? })
    }
}

/// A secret of at least `MIN` characters; it may also stand in a file of its own.
#[derive(Clone, Debug)]
pub struct SecretText<const MIN: usize>(pub Secret<String>);

impl<const MIN: usize> Scalar for SecretText<MIN> {
    const TYPE: &'static str = "secret";
    const HINT: &'static str =
        if MIN >= 32 { "a secret of at least 32 characters" } else { "a secret of at least 16 characters" };
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        if text.chars().count() < MIN {
            return Err(format!("the secret is shorter than {MIN} characters"));
        }
        Ok(Self(Secret::new(text.to_owned())))
    }
}

impl<const MIN: usize> Field for SecretText<MIN> {
    const TYPE: &'static str = <Self as Scalar>::TYPE;
    const HINT: &'static str = <Self as Scalar>::HINT;
    fn read(node: Node, cx: &mut Reader<'_>, key: &Key) -> Option<Self> {
        read_scalar(&node, cx, key)
    }
}

impl Field for bool {
    const TYPE: &'static str = "boolean";
    const HINT: &'static str = "true or false";
    fn read(node: Node, cx: &mut Reader<'_>, key: &Key) -> Option<Self> {
        match &node.value {
            Value::Bool(value) => return Some(*value),
            Value::Text(text) => match text.as_str() {
                "true" | "1" => return Some(true),
                "false" | "0" => return Some(false),
                other => cx.problem(&node.at, format!("`{}` is not a boolean", shown(other)), key.remedy()),
            },
            other => cx.problem(&node.at, format!("expected true or false, found {}", other.kind()), key.remedy()),
        }
        None
    }
}

impl Field for u32 {
    const TYPE: &'static str = "integer";
    const HINT: &'static str = "a whole number";
    fn read(node: Node, cx: &mut Reader<'_>, key: &Key) -> Option<Self> {
        let number = match &node.value {
            Value::Integer(value) => Self::try_from(*value).ok(),
            Value::Text(text) => text.parse().ok(),
            other => {
                cx.problem(&node.at, format!("expected a whole number, found {}", other.kind()), key.remedy());
                return None;
            }
        };
        if number.is_none() {
            cx.problem(&node.at, "not a whole number from 0 to 4294967295", key.remedy());
        }
        number
    }
}

impl Field for f64 {
    const TYPE: &'static str = "number";
    const HINT: &'static str = "a number";
    fn read(node: Node, cx: &mut Reader<'_>, key: &Key) -> Option<Self> {
        match &node.value {
            Value::Float(value) => return Some(*value),
            Value::Integer(value) => return Some(*value as Self),
            Value::Text(text) => match text.parse() {
                Ok(value) => return Some(value),
                Err(_) => cx.problem(&node.at, format!("`{}` is not a number", shown(text)), key.remedy()),
            },
            other => cx.problem(&node.at, format!("expected a number, found {}", other.kind()), key.remedy()),
        }
        None
    }
}

/// A list. As a variable: a TOML array, or items with commas between them.
impl<T: Field> Field for Vec<T> {
    const TYPE: &'static str = T::TYPE;
    const HINT: &'static str = T::HINT;
    const SHAPE: Shape = match T::SHAPE {
        Shape::Table => Shape::Tables,
        _ => Shape::Value,
    };
    fn section() -> Option<&'static Section> {
        T::section()
    }
    fn read(node: Node, cx: &mut Reader<'_>, key: &Key) -> Option<Self> {
        let items = match node.value {
            Value::Array(items) => items,
            Value::Text(text) if text.trim_start().starts_with('[') => match tree::parse_value(&text, &node.at) {
                Some(Value::Array(items)) => items,
                _ => {
                    cx.problem(&node.at, "the text is not a TOML array", key.remedy());
                    return None;
                }
            },
            Value::Text(text) => split(&text, &node.at),
            other => {
                cx.problem(&node.at, format!("expected an array, found {}", other.kind()), key.remedy());
                return None;
            }
        };
        let read = |(i, item): (usize, Node)| {
            let at = item.at.clone();
            cx.enter(&format!("[{i}]"), &at, |cx| T::read(item, cx, key))
        };
        Some(items.into_iter().enumerate().filter_map(read).collect())
    }
}

fn split(text: &str, at: &Place) -> Vec<Node> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| Node { value: Value::Text(item.to_owned()), key_at: at.clone(), at: at.clone() }).collect()
}

/// A table whose keys are names of the operator's choice.
impl<T: Field> Field for BTreeMap<String, T> {
    const TYPE: &'static str = T::TYPE;
    const HINT: &'static str = T::HINT;
    const SHAPE: Shape = match T::SHAPE {
        Shape::Table => Shape::Named,
        _ => Shape::Table,
    };
    fn section() -> Option<&'static Section> {
        T::section()
    }
    fn read(node: Node, cx: &mut Reader<'_>, key: &Key) -> Option<Self> {
        let entries = cx.table(node, key).into_entries();
        let read = |(name, node): (String, Node)| {
            let at = node.at.clone();
            cx.enter(&name, &at, |cx| T::read(node, cx, key)).map(|value| (name, value))
        };
        Some(entries.into_iter().filter_map(read).collect())
    }
}

/// Any TOML value, as JSON: what a claim must equal.
impl Field for serde_json::Value {
    const TYPE: &'static str = "value";
    const HINT: &'static str = "a text, number, boolean or list";
    fn read(node: Node, _: &mut Reader<'_>, _: &Key) -> Option<Self> {
        Some(to_json(node.value))
    }
}

/// A value as JSON; text stays text.
pub(crate) fn to_json(value: Value) -> serde_json::Value {
    match value {
        Value::String(text) | Value::Text(text) => text.into(),
        Value::Integer(number) => number.into(),
        Value::Float(number) => number.into(),
        Value::Bool(value) => value.into(),
        Value::Array(items) => items.into_iter().map(|item| to_json(item.value)).collect(),
        Value::Table(entries) => entries.into_iter().map(|(name, node)| (name, to_json(node.value))).collect(),
    }
}
