//! The first inputs: whatever in `vectors/` is a token, a document of keys, a payload or a part of a request.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// Longer ones teach nothing more and slow everything down.
const MAX_SEED: usize = 12_000;

/// Writes the first inputs of `target` into the folder that `DOORWARD_FUZZ_SEEDS` names, where it is set.
///
/// # Panics
/// Where the vectors cannot be read, the folder not be written, or there is not one input.
pub fn seed(target: &str) {
    let Some(folder) = env::var_os("DOORWARD_FUZZ_SEEDS").map(PathBuf::from) else { return };
    let mut found = BTreeSet::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors"), &mut |value| harvest(target, value, &mut found));
    assert!(!found.is_empty(), "vectors/ holds nothing for {target}");
    fs::create_dir_all(&folder).unwrap();
    for (number, seed) in found.iter().enumerate() {
        fs::write(folder.join(format!("vector-{number:04}")), seed).unwrap();
    }
}

fn walk(folder: &Path, visit: &mut impl FnMut(&Value)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, visit);
        } else if path.extension().is_some_and(|kind| kind == "json") {
            every(&serde_json::from_slice(&fs::read(&path).unwrap()).unwrap(), visit);
        }
    }
}

/// Visits a value and everything in it.
fn every(value: &Value, visit: &mut impl FnMut(&Value)) {
    visit(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| every(item, visit)),
        Value::Object(members) => members.values().for_each(|member| every(member, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn harvest(target: &str, value: &Value, found: &mut BTreeSet<Vec<u8>>) {
    let mut add = |seed: Vec<u8>| {
        if seed.len() <= MAX_SEED {
            found.insert(seed);
        }
    };
    let text = value.as_str().unwrap_or_default();
    let parts: Vec<&str> = text.split('.').collect();
    match target {
        "jws" if parts.len() == 3 && text.starts_with("ey") => add(text.into()),
        "claims" if parts.len() == 3 && text.starts_with("ey") => {
            if let Ok(payload) = URL_SAFE_NO_PAD.decode(parts[1]) {
                add(payload);
            }
        }
        "jwk_set" if value["keys"].is_array() => add(value.to_string().into()),
        "jwk_set" if value["kty"].is_string() => add(format!("{{\"keys\":[{value}]}}").into()),
        "request" if value.is_object() => {
            let member = |name: &str| value[name].as_str().or(value["request"][name].as_str()).unwrap_or_default();
            let lines = [member("target"), member("cookie"), member("return_to")];
            if lines.iter().any(|line| !line.is_empty()) {
                add(lines.join("\n").into());
            }
        }
        _ => {}
    }
}
