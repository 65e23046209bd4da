//! JSON (RFC 8259) as a credential may use it: UTF-8, no name twice in any object, bounded depth.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// How deep arrays and objects may nest.
pub const MAX_DEPTH: u8 = 32;

/// A JSON value in which no object names a member twice and nothing nests deeper than [`MAX_DEPTH`].
///
/// A duplicate is where two readers of one document disagree (RFC 7519 §4); none is accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct StrictValue(pub Value);

impl<'de> Deserialize<'de> for StrictValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Strict { depth: MAX_DEPTH }.deserialize(deserializer).map(StrictValue)
    }
}

/// Reads one value with `depth` levels left below it.
#[derive(Clone, Copy)]
struct Strict {
    depth: u8,
}

impl Strict {
    fn below<E: Error>(self) -> Result<Self, E> {
        self.depth.checked_sub(1).map(|depth| Self { depth }).ok_or_else(|| E::custom("nested too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate names")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(below)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.insert(name, map.next_value_seed(below)?).is_some() {
                return Err(A::Error::custom("a name appears twice in one object"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Value, String> {
        serde_json::from_slice::<StrictValue>(text.as_bytes()).map(|value| value.0).map_err(|error| error.to_string())
    }

    #[test]
    fn duplicates_are_refused_at_every_depth_and_through_escapes() {
        assert!(parse(r#"{"a":{"b":[{"c":1}]}}"#).is_ok());
        for bad in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":1,"b":2}}"#, r#"[{"a":[{"b":1,"b":2}]}]"#, r#"{"a":1,"\u0061":1}"#]
        {
            assert!(parse(bad).is_err_and(|error| error.contains("twice")), "{bad}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(usize::from(MAX_DEPTH))).is_ok());
        assert!(parse(&nested(usize::from(MAX_DEPTH) + 1)).is_err());
    }

    #[test]
    fn what_is_not_exactly_one_json_text_is_refused() {
        for bad in ["", "{}x", "\u{feff}{}", "{a:1}", "{\"a\":NaN}", "{\"a\":1e400}", "{\"a\":1,}", "\"\\ud800\""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
