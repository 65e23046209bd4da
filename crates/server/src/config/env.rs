//! Environment variables over the file: `DOORWARD__SECTION__KEY`.

use std::collections::BTreeMap;

use super::{
    key::{Section, Shape},
    problem::Place,
    read::Reader,
    tree::{Node, Value},
};

/// What the name of every overriding variable begins with.
pub const PREFIX: &str = "DOORWARD__";

/// Lays `vars` over `root`. Names outside [`PREFIX`] are not looked at; which keys exist is judged
/// later, when the tree is read, so a misspelt variable is refused like a misspelt key.
pub(crate) fn overlay(root: &mut Node, vars: &BTreeMap<String, String>, section: &Section, cx: &mut Reader<'_>) {
    for (name, value) in vars {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let parts: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
        let at = Place::Env(name.clone());
        if parts.iter().any(String::is_empty) {
            cx.problem_for(
                &at,
                String::new(),
                "the variable's name does not spell a key".into(),
                "write DOORWARD__SECTION__KEY, for example DOORWARD__SESSION__IDLE=60m".into(),
            );
            continue;
        }
        if let Err((what, remedy)) = set(root, &parts, value, &at, section) {
            cx.problem_for(&at, parts.join("."), what, remedy);
        }
    }
}

type Refusal = (String, String);

fn set(root: &mut Node, parts: &[String], text: &str, at: &Place, section: &Section) -> Result<(), Refusal> {
    let mut node = root;
    let mut section = Some(section);
    let mut is_name = false;
    for part in parts {
        let Value::Table(table) = &mut node.value else {
            return Err((
                "another value already stands where this variable would need a table".into(),
                "give the table as a whole or its keys one by one, not both".into(),
            ));
        };
        let existing = table.keys().find(|key| spelling(key) == *part).cloned();
        let name = existing.unwrap_or_else(|| part.clone());
        if is_name {
            is_name = false; // a name in a map of tables: `web` in [apps.web]
        } else if let Some(key) = section.and_then(|section| section.keys.iter().find(|key| key.name == name)) {
            if key.shape == Shape::Tables {
                return Err((
                    format!("`{}` is an array of tables, which variables do not reach", key.name),
                    "change it in the file".into(),
                ));
            }
            is_name = key.shape == Shape::Named;
            section = (key.section)();
        } else {
            section = None;
        }
        node = table.entry(name).or_insert_with(|| Node {
            value: Value::Table(BTreeMap::new()),
            key_at: at.clone(),
            at: at.clone(),
        });
    }
    *node = Node { value: Value::Text(text.to_owned()), key_at: at.clone(), at: at.clone() };
    Ok(())
}

/// A key as a variable spells it.
fn spelling(key: &str) -> String {
    key.to_ascii_lowercase().replace('-', "_")
}
