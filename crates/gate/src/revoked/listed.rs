//! Names of tokens or subjects with the end of each, lean enough for a million.

use std::collections::HashMap;

use doorward_core::time::Timestamp;

/// The end of what has none, in milliseconds.
const FOR_EVER: i64 = i64::MAX;

/// Names by issuer. Their number is that of the entries in force: only operators and the systems that they let in
/// add to it.
#[derive(Debug, Default)]
pub(super) struct Listed(HashMap<Box<str>, HashMap<Box<str>, i64>>);

impl Listed {
    /// Lists `name` until then, or for ever. Entries add up: a shorter one does not shorten a longer one.
    pub(super) fn insert(&mut self, issuer: &str, name: &str, until: Option<Timestamp>) {
        let end = until.map_or(FOR_EVER, Timestamp::as_millis);
        if !self.0.contains_key(issuer) {
            self.0.insert(issuer.into(), HashMap::new());
        }
        let Some(names) = self.0.get_mut(issuer) else { return };
        match names.get_mut(name) {
            Some(known) => *known = end.max(*known),
            None => drop(names.insert(name.into(), end)),
        }
    }

    /// Takes all entries for `name` back.
    pub(super) fn remove(&mut self, issuer: &str, name: &str) {
        if let Some(names) = self.0.get_mut(issuer) {
            names.remove(name);
        }
    }

    /// Whether `name` is listed at `now`.
    pub(super) fn holds(&self, issuer: &str, name: &str, now: Timestamp) -> bool {
        self.0.get(issuer).and_then(|names| names.get(name)).is_some_and(|end| now.as_millis() < *end)
    }

    /// Forgets what is over, and gives back the room that it took.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        for names in self.0.values_mut() {
            names.retain(|_, end| now.as_millis() < *end);
            if names.len() < names.capacity() / 4 {
                names.shrink_to_fit();
            }
        }
        self.0.retain(|_, names| !names.is_empty());
    }

    pub(super) fn len(&self) -> usize {
        self.0.values().map(HashMap::len).sum()
    }
}
