//! Reads the tree into the structs and collects what is wrong, all of it.
//!
//! A bad value never stops the reading: the problem is recorded and the key's default or example
//! stands in, so that what depends on it is still looked at. Only one problem is kept per key, so a
//! stand-in cannot cause a second one. A configuration with problems is never handed out.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{
    key::{Field, Key, Section},
    problem::{Place, Problem},
    tree::{self, Node, Value},
};

/// Largest file that a `*_file` key may name; secrets, keys and key sets are far smaller.
pub(crate) const MAX_FILE: u64 = 1 << 20;

/// What is said of a required key that is not there.
pub(crate) const MISSING: &str = "the key is missing";

/// The entries of a table that nobody has asked for yet.
pub(crate) struct Entries {
    entries: BTreeMap<String, Node>,
    at: Place,
}

impl Entries {
    /// What is left of them.
    pub(crate) fn into_entries(self) -> BTreeMap<String, Node> {
        self.entries
    }
}

enum Taken {
    Absent,
    Bad,
    Found(Node),
}

/// Reads one configuration.
pub(crate) struct Reader<'a> {
    file: &'a Path,
    dir: PathBuf,
    path: String,
    places: BTreeMap<String, Place>,
    problems: Vec<Problem>,
    muted: u32,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(file: &'a Path) -> Self {
        let dir = file.parent().map(Path::to_owned).unwrap_or_default();
        Self { file, dir, path: String::new(), places: BTreeMap::new(), problems: Vec::new(), muted: 0 }
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// `path` as the configuration means it: relative to the folder of its file.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    // ── problems ──────────────────────────────────────────────────────────────

    /// Records a problem of `key` (a full path) at `at`.
    pub(crate) fn problem_for(&mut self, at: &Place, key: String, what: String, remedy: String) {
        if self.muted == 0 && (key.is_empty() || self.problems.iter().all(|problem| problem.key != key)) {
            self.problems.push(Problem::new(self.file, at, key, what, remedy));
        }
    }

    /// Records a problem of the key being read.
    pub(crate) fn problem(&mut self, at: &Place, what: impl Into<String>, remedy: impl Into<String>) {
        self.problem_for(at, self.path.clone(), what.into(), remedy.into());
    }

    /// Records a problem of `name` in the table being read; for checks after reading. A path such as
    /// `keys.jwks_url` reaches deeper, an empty one means the table itself. Nothing is recorded where a
    /// value at or below it was bad already: what is missing then may be only that value.
    pub(crate) fn problem_in(&mut self, name: &str, what: impl Into<String>, remedy: impl Into<String>) {
        let key = join(&self.path, name);
        let is_below = |other: &str| other.strip_prefix(&key).is_some_and(|rest| rest.starts_with(['.', '[']));
        if self.problems.iter().any(|problem| is_below(&problem.key)) {
            return;
        }
        let mut found = key.as_str();
        let place = loop {
            if let Some(place) = self.places.get(found) {
                break place.clone();
            }
            match found.rfind(['.', '[']) {
                Some(cut) => found = &found[..cut],
                None => break Place::Whole,
            }
        };
        self.problem_for(&place, key, what.into(), remedy.into());
    }

    /// Records a problem unless `low <= value <= high`.
    pub(crate) fn check_range<T: PartialOrd + Copy>(
        &mut self,
        name: &str,
        value: T,
        (low, low_text): (T, &str),
        (high, high_text): (T, &str),
    ) {
        if value < low || value > high {
            self.problem_in(
                name,
                format!("the value is outside {low_text} to {high_text}"),
                format!("choose a value from {low_text} to {high_text}"),
            );
        }
    }

    // ── tables ────────────────────────────────────────────────────────────────

    /// The entries of a table; anything else is a problem and reads as an empty one.
    pub(crate) fn table(&mut self, node: Node, key: &Key) -> Entries {
        let at = node.at.clone();
        let value = match node.value {
            Value::Text(text) => tree::parse_value(&text, &at).unwrap_or(Value::Text(text)),
            value => value,
        };
        match value {
            Value::Table(entries) => Entries { entries, at: node.key_at },
            other => {
                self.problem(&at, format!("expected a table, found {}", other.kind()), key.remedy());
                Entries { entries: BTreeMap::new(), at }
            }
        }
    }

    /// Refuses what is left in a table after all its keys were read.
    pub(crate) fn refuse_rest(&mut self, table: Entries, section: &Section) {
        for (name, node) in table.entries {
            let near = section
                .keys
                .iter()
                .map(|key| (distance(key.name, &name), key.name))
                .min()
                .filter(|(distance, _)| *distance <= 2);
            let remedy = match near {
                Some((_, near)) => format!("did you mean `{near}`?"),
                None => {
                    let names: Vec<_> = section.keys.iter().map(|key| key.name).collect();
                    format!("remove it; known here: {}", names.join(", "))
                }
            };
            let key = join(&self.path, &name);
            self.problem_for(&node.key_at, key, "unknown key".into(), remedy);
        }
    }

    /// Runs `read` with `segment` appended to the path of the key being read.
    pub(crate) fn enter<T>(&mut self, segment: &str, at: &Place, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.path.len();
        self.path = join(&self.path, segment);
        if self.muted == 0 {
            self.places.insert(self.path.clone(), at.clone());
        }
        let result = read(self);
        self.path.truncate(before);
        result
    }

    fn take(&mut self, table: &mut Entries, key: &Key) -> Taken {
        let direct = table.entries.remove(key.name);
        if !key.or_file {
            return direct.map_or(Taken::Absent, Taken::Found);
        }
        let file_key = format!("{}_file", key.name);
        match (direct, table.entries.remove(&file_key)) {
            (None, None) => Taken::Absent,
            (Some(node), None) => Taken::Found(node),
            (Some(_), Some(node)) => {
                let what = format!("both `{}` and `{file_key}` are given", key.name);
                let full = join(&self.path, key.name);
                self.problem_for(&node.key_at, full, what, "keep one of the two".into());
                Taken::Bad
            }
            (None, Some(node)) => self.enter(&file_key, &node.at.clone(), |cx| {
                let Some(path) = cx.path_text(&node, &file_key) else { return Taken::Bad };
                match cx.read_file(&path) {
                    Ok(text) => Taken::Found(Node { value: Value::Text(text), ..node }),
                    Err(what) => {
                        cx.problem(&node.at, what, format!("make {} a readable file", path.display()));
                        Taken::Bad
                    }
                }
            }),
        }
    }

    fn path_text(&mut self, node: &Node, name: &str) -> Option<PathBuf> {
        match &node.value {
            Value::String(text) | Value::Text(text) if !text.is_empty() => Some(self.resolve(text)),
            other => {
                let what = format!("expected the path of a file, found {}", other.kind());
                self.problem(&node.at, what, format!("write a path, for example `{name} = \"./{name}\"`"));
                None
            }
        }
    }

    /// The content of a small text file, without the line break at its end.
    ///
    /// # Errors
    /// What is wrong with the file, for a [`Problem`].
    #[allow(clippy::unused_self, reason = "all reading goes through the reader")]
    pub(crate) fn read_file(&self, path: &Path) -> Result<String, String> {
        let shown = path.display();
        let file = std::fs::File::open(path).map_err(|error| format!("cannot open {shown}: {error}"))?;
        let mut text = String::new();
        file.take(MAX_FILE + 1)
            .read_to_string(&mut text)
            .map_err(|error| format!("cannot read {shown} as text: {error}"))?;
        if text.len() as u64 > MAX_FILE {
            return Err(format!("{shown} is larger than {MAX_FILE} bytes"));
        }
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
        Ok(text)
    }

    // ── keys ──────────────────────────────────────────────────────────────────

    fn read_node<T: Field>(&mut self, node: Node, key: &Key) -> Option<T> {
        let at = node.at.clone();
        self.enter(key.name, &at, |cx| T::read(node, cx, key))
    }

    /// The value that stands in where there is none or a bad one.
    fn stand_in<T: Field>(&mut self, key: &Key) -> Option<T> {
        let value = tree::parse_value(key.example(), &Place::Whole)?;
        self.muted += 1;
        let read = T::read(Node { value, key_at: Place::Whole, at: Place::Whole }, self, key);
        self.muted -= 1;
        read
    }

    /// A key that must be there.
    pub(crate) fn required<T: Field>(&mut self, table: &mut Entries, key: &Key) -> Option<T> {
        match self.take(table, key) {
            Taken::Found(node) => {
                if let Some(value) = self.read_node(node, key) {
                    return Some(value);
                }
            }
            Taken::Absent => {
                let full = join(&self.path, key.name);
                self.problem_for(&table.at.clone(), full, MISSING.into(), key.remedy());
            }
            Taken::Bad => {}
        }
        self.stand_in(key)
    }

    /// A key with a default.
    pub(crate) fn or_default<T: Field>(&mut self, table: &mut Entries, key: &Key) -> Option<T> {
        match self.take(table, key) {
            Taken::Found(node) => self.read_node(node, key).or_else(|| self.stand_in(key)),
            Taken::Absent | Taken::Bad => self.stand_in(key),
        }
    }

    /// A key that may be absent. The outer `Option` is always there; it keeps the three alike.
    pub(crate) fn optional<T: Field>(&mut self, table: &mut Entries, key: &Key) -> Option<Option<T>> {
        Some(match self.take(table, key) {
            Taken::Found(node) => self.read_node(node, key),
            Taken::Absent | Taken::Bad => None,
        })
    }

    /// A table that reads as empty when absent.
    pub(crate) fn section<T: Field>(&mut self, table: &mut Entries, key: &Key) -> Option<T> {
        let at = table.at.clone();
        let node = match self.take(table, key) {
            Taken::Found(node) => node,
            Taken::Absent | Taken::Bad => Node { value: Value::Table(BTreeMap::new()), key_at: at.clone(), at },
        };
        self.read_node(node, key)
    }
}

fn join(path: &str, segment: &str) -> String {
    if path.is_empty() || segment.is_empty() || segment.starts_with('[') {
        format!("{path}{segment}")
    } else {
        format!("{path}.{segment}")
    }
}

/// Edit distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
