//! Members of a token that no standard check looks at: kept as text, read when somebody asks.

use std::{borrow::Cow, fmt, ops::Range};

use serde_json::{Map, Value};

use crate::jose::{Member as Read, read_object};

/// Members of a JSON object, kept as they were written. Each is well-formed and no name is there twice; a value is
/// built only when it is asked for.
#[derive(Clone, Default)]
pub struct Members {
    /// The object; behind it names that were written with escapes, without them.
    text: String,
    members: Vec<Member>,
}

#[derive(Clone, Debug)]
struct Member {
    name: Range<u32>,
    value: Range<u32>,
}

impl Members {
    /// The value of a member.
    pub fn get(&self, name: &str) -> Option<Value> {
        // Numbers at the very edge of what fits may be read differently by two readers: then it is as if not there.
        self.raw(name).and_then(|value| serde_json::from_str(value).ok())
    }

    /// The value of a member as it was written: JSON without white space around it.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.members.iter().find(|member| self.slice(&member.name) == name).map(|member| self.slice(&member.value))
    }

    /// The value of a member that is a string.
    pub fn str(&self, name: &str) -> Option<Cow<'_, str>> {
        let raw = self.raw(name)?;
        let inside = raw.strip_prefix('"')?.strip_suffix('"')?;
        if inside.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inside)) }
    }

    /// All members, their values built.
    pub fn to_map(&self) -> Map<String, Value> {
        let names = self.members.iter().map(|member| self.slice(&member.name));
        names.filter_map(|name| Some((name.to_owned(), self.get(name)?))).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn slice(&self, range: &Range<u32>) -> &str {
        &self.text[range.start as usize..range.end as usize]
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.members.iter().map(|it| (self.slice(&it.name), self.slice(&it.value)))).finish()
    }
}

/// Equal where the values are, however they were written.
impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.to_map() == other.to_map()
    }
}

impl Eq for Members {}

impl From<Map<String, Value>> for Members {
    /// Empty for an object that a token could not hold: nested too deep, or longer than 4 GB.
    fn from(members: Map<String, Value>) -> Self {
        let text = Value::Object(members).to_string();
        let mut collector = Collector::default();
        let read = read_object(&text, |member| {
            collector.add(&member);
            Ok(())
        });
        if read.is_ok() { collector.finish(text) } else { Self::default() }
    }
}

/// Collects members while the object is read.
#[derive(Debug, Default)]
pub(super) struct Collector {
    members: Vec<Member>,
    /// Names that were written with escapes, one behind the other.
    names: String,
    /// Which members those are, with where the name begins in `names`.
    escaped: Vec<(usize, usize)>,
}

impl Collector {
    pub(super) fn add(&mut self, member: &Read<'_>) {
        if self.members.is_empty() {
            self.members.reserve(8);
        }
        if let Cow::Owned(name) = &member.name {
            self.escaped.push((self.members.len(), self.names.len()));
            self.names.push_str(name);
        }
        self.members.push(Member {
            name: range(member.name_at, member.name.len()),
            value: range(member.value_at, member.value.text.len()),
        });
    }

    /// `text` is what was read.
    pub(super) fn finish(mut self, mut text: String) -> Members {
        let end = text.len();
        text.push_str(&self.names);
        for (member, at) in self.escaped {
            let name = &mut self.members[member].name;
            *name = range(end + at, name.len());
        }
        Members { text, members: self.members }
    }
}

/// A token has at most 16,384 bytes; what lies beyond 4 GB in a text of our own is as if not there.
fn range(start: usize, length: usize) -> Range<u32> {
    match (u32::try_from(start), u32::try_from(start + length)) {
        (Ok(start), Ok(end)) => start..end,
        _ => 0..0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn members(text: &str) -> Members {
        let mut collector = Collector::default();
        read_object(text, |member| {
            collector.add(&member);
            Ok(())
        })
        .unwrap();
        collector.finish(text.to_owned())
    }

    #[test]
    fn a_member_is_found_by_its_name_however_it_was_written() {
        let members = members(r#" {"a\u0062" : "x", "c":[1, {"d":null}],"\u00e9":"\u0041\n" , "e": 1.50 } "#);
        assert_eq!((members.len(), members.get("ab")), (4, Some(json!("x"))));
        assert_eq!(members.get("c"), Some(json!([1, {"d": null}])));
        assert_eq!(members.str("é").as_deref(), Some("A\n"));
        assert_eq!((members.raw("e"), members.str("e")), (Some("1.50"), None));
        assert_eq!((members.raw("a"), members.raw("d"), members.raw("")), (None, None, None));
    }

    #[test]
    fn values_count_and_not_how_they_were_written() {
        let map = |value: Value| Members::from(value.as_object().unwrap().clone());
        assert_eq!(members(r#"{"a":"\u0041","b":[ 1 ]}"#), map(json!({"b": [1], "a": "A"})));
        assert_ne!(members(r#"{"a":1}"#), map(json!({"a": 2})));
        assert_ne!(members("{}"), map(json!({"a": null})));
        assert_eq!(map(json!({"a": {"b": "ü\n"}})).to_map(), json!({"a": {"b": "ü\n"}}).as_object().unwrap().clone());
    }
}
