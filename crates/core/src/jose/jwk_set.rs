//! A set of public keys (RFC 7517 §5), and which of them a token means.

use std::{fmt, sync::Arc};

use serde_json::Value;

use super::{
    algorithm::Algorithm,
    json::StrictValue,
    jwk::Jwk,
    public_key::{KeyProblem, PublicKey},
};

/// Largest document that is read as a set.
pub const MAX_SET_BYTES: usize = 512 * 1024;
/// Most keys that are read of a set.
pub const MAX_KEYS: usize = 1024;

/// Why a document is not a set of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetProblem {
    /// Above [`MAX_SET_BYTES`].
    TooLarge,
    /// Not JSON, a name twice in one object, or nested too deep; with the reader's words.
    Malformed(String),
    /// No array `keys`.
    NoKeys,
    /// More than [`MAX_KEYS`].
    TooMany(usize),
}

impl fmt::Display for SetProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "is larger than {MAX_SET_BYTES} bytes"),
            Self::Malformed(why) => write!(f, "is not strict JSON: {why}"),
            Self::NoKeys => f.write_str("is not a JWK Set: it has no array `keys`"),
            Self::TooMany(count) => write!(f, "holds {count} keys, more than {MAX_KEYS}"),
        }
    }
}

impl std::error::Error for SetProblem {}

/// A key of the document that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its place in `keys`, from 0.
    pub index: usize,
    /// Its `kid`, where it is a string.
    pub id: Option<Box<str>>,
    /// Why.
    pub problem: KeyProblem,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "keys[{}] (kid {id:?}) {}", self.index, self.problem),
            None => write!(f, "keys[{}] {}", self.index, self.problem),
        }
    }
}

/// What a set says to the `kid` and algorithm of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection<'a> {
    /// This key.
    Key(&'a Arc<PublicKey>),
    /// There is a key of that id, for another algorithm or another purpose.
    Mismatch,
    /// There is none; or the token names none and not exactly one key fits.
    Unknown,
}

/// The usable keys of one issuer. Never holds two keys that one token could mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwkSet {
    /// Sorted by id; keys without one come first.
    keys: Vec<(Option<Box<str>>, Arc<PublicKey>)>,
    skipped: Vec<Skipped>,
    is_single: bool,
}

impl JwkSet {
    /// Reads a set. A key that cannot be used is skipped and reported in [`JwkSet::skipped`]; it never
    /// discards the others.
    ///
    /// # Errors
    /// Where the document as a whole cannot be read.
    pub fn parse(document: &[u8]) -> Result<Self, SetProblem> {
        if document.len() > MAX_SET_BYTES {
            return Err(SetProblem::TooLarge);
        }
        let StrictValue(document) =
            serde_json::from_slice(document).map_err(|error| SetProblem::Malformed(error.to_string()))?;
        let keys = document.get("keys").and_then(Value::as_array).ok_or(SetProblem::NoKeys)?;
        if keys.len() > MAX_KEYS {
            return Err(SetProblem::TooMany(keys.len()));
        }
        let mut found = Vec::with_capacity(keys.len());
        let mut skipped = Vec::new();
        for (index, value) in keys.iter().enumerate() {
            match Jwk::parse(value) {
                Ok(jwk) => found.push((index, jwk)),
                Err(problem) => {
                    let id = value.get("kid").and_then(Value::as_str).map(Into::into);
                    skipped.push(Skipped { index, id, problem });
                }
            }
        }
        found.sort_by(|(_, one), (_, other)| one.id.cmp(&other.id));
        let keys = without_duplicates(found, &mut skipped);
        skipped.sort_by_key(|skipped| skipped.index);
        Ok(Self { keys, skipped, is_single: false })
    }

    /// A set of one key that answers to every `kid`: it was given by hand, so there is nothing to choose.
    pub fn single(key: PublicKey) -> Self {
        Self { keys: vec![(None, Arc::new(key))], skipped: Vec::new(), is_single: true }
    }

    /// The key that a token with this `kid` and algorithm means.
    ///
    /// Keys are never tried one after the other: a token without `kid` is only accepted where exactly one
    /// key fits its algorithm.
    pub fn select(&self, id: Option<&str>, algorithm: Algorithm) -> Selection<'_> {
        let candidates = match id {
            Some(_) if self.is_single => &self.keys[..],
            Some(id) => self.of_id(id),
            None => &self.keys[..],
        };
        let mut fitting = candidates.iter().filter(|(_, key)| key.algorithms().contains(algorithm));
        match (fitting.next(), fitting.next()) {
            (Some((_, key)), None) => Selection::Key(key),
            (Some(_), Some(_)) => Selection::Unknown,
            (None, _) if !candidates.is_empty() && (id.is_some() || self.is_single) => Selection::Mismatch,
            (None, _) if id.is_some_and(|id| self.is_for_something_else(id)) => Selection::Mismatch,
            (None, _) => Selection::Unknown,
        }
    }

    fn of_id(&self, id: &str) -> &[(Option<Box<str>>, Arc<PublicKey>)] {
        let start = self.keys.partition_point(|(known, _)| known.as_deref() < Some(id));
        let length = self.keys[start..].partition_point(|(known, _)| known.as_deref() == Some(id));
        &self.keys[start..start + length]
    }

    fn is_for_something_else(&self, id: &str) -> bool {
        let is_it = |skipped: &&Skipped| skipped.id.as_deref() == Some(id);
        self.skipped.iter().filter(is_it).any(|skipped| skipped.problem == KeyProblem::NotForSigning)
    }

    /// The usable keys with their ids.
    pub fn keys(&self) -> impl Iterator<Item = (Option<&str>, &PublicKey)> {
        self.keys.iter().map(|(id, key)| (id.as_deref(), &**key))
    }

    /// The keys of the document that are not used, in its order.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// How many usable keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key is usable.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The ids under which `newer` holds other material than this set, for the same algorithm.
    pub fn changed_under_same_id<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = &'a str> {
        self.keys.iter().filter_map(|(id, old)| {
            let id = id.as_deref()?;
            let is_replaced = |(_, new): &(Option<Box<str>>, Arc<PublicKey>)| {
                new.algorithms().overlaps(old.algorithms()) && new.thumbprint() != old.thumbprint()
            };
            newer.of_id(id).iter().any(is_replaced).then_some(id)
        })
    }
}

/// Drops every key that shares its id and an algorithm with another one (RFC 7517 §4.5 wants distinct ids,
/// and allows one id for keys of different types). The very same key published twice counts once.
fn without_duplicates(
    mut sorted: Vec<(usize, Jwk)>,
    skipped: &mut Vec<Skipped>,
) -> Vec<(Option<Box<str>>, Arc<PublicKey>)> {
    sorted.dedup_by(|(_, later), (_, earlier)| later == earlier);
    let clashes = |one: &Jwk, other: &Jwk| {
        one.id.is_some() && one.id == other.id && one.key.algorithms().overlaps(other.key.algorithms())
    };
    let is_doubled: Vec<bool> = sorted
        .chunk_by(|(_, one), (_, other)| one.id == other.id)
        .flat_map(|group| {
            group.iter().enumerate().map(move |(at, (_, jwk))| {
                group.iter().enumerate().any(|(other_at, (_, other))| at != other_at && clashes(jwk, other))
            })
        })
        .collect();
    let mut keys = Vec::with_capacity(sorted.len());
    for ((index, jwk), is_doubled) in sorted.into_iter().zip(is_doubled) {
        if is_doubled {
            skipped.push(Skipped { index, id: jwk.id, problem: KeyProblem::DuplicateKid });
        } else {
            keys.push((jwk.id, Arc::new(jwk.key)));
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ONE: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const TWO: &str = "7OF4BKZnPUfhSHSZ8JKFVXQKNV1l_jr-sNs62ISvQos";
    const X: &str = "eZWDLehINXoAPu3kXrGPlmWhQn5YNKi3OcKur20AsTo";
    const Y: &str = "PeLX_fXmmrzymKEOpBEr2VUt6w0SO7uM7SXMeGkKjss";

    fn ed(kid: &str, x: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x})
    }

    fn set(keys: &Value) -> JwkSet {
        JwkSet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn one_bad_key_is_reported_and_the_others_are_used() {
        let keys = set(&json!([{"kty": "AKP", "kid": "pq"}, ed("a", ONE), ed("b", ""), 7]));
        assert_eq!(keys.len(), 1);
        assert!(matches!(keys.select(Some("a"), Algorithm::EdDsa), Selection::Key(_)));
        assert_eq!(keys.select(Some("b"), Algorithm::EdDsa), Selection::Unknown);
        let report: Vec<_> = keys.skipped().iter().map(ToString::to_string).collect();
        assert_eq!(report[1], "keys[2] (kid \"b\") member `x` is missing or malformed");
        assert_eq!(report.len(), 3);
    }

    #[test]
    fn one_id_for_two_keys_of_one_algorithm_is_no_key_at_all() {
        let keys = set(&json!([ed("a", ONE), ed("a", TWO), ed("b", ONE)]));
        assert_eq!(keys.select(Some("a"), Algorithm::EdDsa), Selection::Unknown);
        assert!(matches!(keys.select(Some("b"), Algorithm::EdDsa), Selection::Key(_)));
        assert_eq!(keys.skipped().len(), 2);
    }

    #[test]
    fn one_id_for_keys_of_different_types_is_told_apart_by_the_algorithm() {
        let keys = set(&json!([ed("a", ONE), {"kty": "EC", "crv": "P-256", "kid": "a", "x": X, "y": Y}]));
        assert!(matches!(keys.select(Some("a"), Algorithm::EdDsa), Selection::Key(_)));
        assert!(matches!(keys.select(Some("a"), Algorithm::Es256), Selection::Key(_)));
        assert_eq!(keys.select(Some("a"), Algorithm::Rs256), Selection::Mismatch);
    }

    #[test]
    fn the_same_key_published_twice_counts_once() {
        let keys = set(&json!([ed("a", ONE), ed("a", ONE)]));
        assert!(matches!(keys.select(Some("a"), Algorithm::EdDsa), Selection::Key(_)));
    }

    #[test]
    fn without_kid_exactly_one_key_must_fit() {
        let one = set(&json!([ed("a", ONE), {"kty": "EC", "crv": "P-256", "kid": "c", "x": X, "y": Y}]));
        assert!(matches!(one.select(None, Algorithm::EdDsa), Selection::Key(_)));
        assert_eq!(one.select(None, Algorithm::Rs256), Selection::Unknown);
        let two = set(&json!([ed("a", ONE), ed("b", TWO)]));
        assert_eq!(two.select(None, Algorithm::EdDsa), Selection::Unknown);
    }

    #[test]
    fn a_single_key_answers_to_every_kid_but_only_to_its_algorithm() {
        let key = set(&json!([ed("a", ONE)])).keys().next().unwrap().1.clone();
        let single = JwkSet::single(key);
        assert!(matches!(single.select(Some("whatever"), Algorithm::EdDsa), Selection::Key(_)));
        assert!(matches!(single.select(None, Algorithm::EdDsa), Selection::Key(_)));
        assert_eq!(single.select(None, Algorithm::Es256), Selection::Mismatch);
    }

    #[test]
    fn a_document_that_is_no_set_is_refused_whole() {
        assert_eq!(JwkSet::parse(b"{}"), Err(SetProblem::NoKeys));
        assert_eq!(JwkSet::parse(b"[]"), Err(SetProblem::NoKeys));
        assert!(matches!(JwkSet::parse(b"<html>"), Err(SetProblem::Malformed(_))));
        assert!(matches!(JwkSet::parse(br#"{"keys":[],"keys":[]}"#), Err(SetProblem::Malformed(_))));
        assert_eq!(JwkSet::parse(&vec![b' '; MAX_SET_BYTES + 1]), Err(SetProblem::TooLarge));
        let many = format!(r#"{{"keys":[{}0]}}"#, "0,".repeat(MAX_KEYS));
        assert_eq!(JwkSet::parse(many.as_bytes()), Err(SetProblem::TooMany(MAX_KEYS + 1)));
    }

    #[test]
    fn new_material_under_an_old_id_is_noticed() {
        let old = set(&json!([ed("a", ONE), ed("b", ONE)]));
        let new = set(&json!([ed("a", TWO), ed("b", ONE), ed("c", TWO)]));
        assert_eq!(old.changed_under_same_id(&new).collect::<Vec<_>>(), ["a"]);
        assert_eq!(new.changed_under_same_id(&new).count(), 0);
    }
}
