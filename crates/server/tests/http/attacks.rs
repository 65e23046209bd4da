//! `docs/attacks.md` keeps its word: each number once, each with a test that exists or a reason.

use std::{collections::BTreeSet, fs, path::Path};

/// The rows that must be there.
const ROWS: [std::ops::RangeInclusive<u32>; 2] = [50..=94, 100..=153];

pub(crate) fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                sources(&path, text);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_attack_has_a_test_that_exists_or_a_reason_why_it_cannot_happen() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let table = fs::read_to_string(root.join("docs/attacks.md")).unwrap();
    let mut code = String::new();
    sources(&root.join("crates"), &mut code);
    let mut seen = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| A")) {
        // A `|` inside a cell is written `\|`.
        let cells: Vec<_> = row.split(" | ").collect();
        assert_eq!(cells.len(), 4, "{row}");
        let number: u32 = cells[0].trim_start_matches("| A").trim().parse().unwrap();
        assert!(seen.insert(number), "A{number} stands twice");
        let cover = cells[3].trim_end_matches('|').trim();
        if let Some(reason) = cover.strip_prefix("not applicable: ") {
            assert!(reason.split(' ').count() >= 6, "A{number}: {reason:?} is no reason");
            continue;
        }
        let named: Vec<_> = cover.split('`').skip(1).step_by(2).filter(|name| name.contains('_')).collect();
        assert!(!named.is_empty(), "A{number} names no test");
        for name in named {
            let test = name.rsplit("::").next().unwrap();
            assert!(code.contains(&format!("fn {test}(")), "A{number} names {name}, which does not exist");
        }
    }
    let missing: Vec<_> = ROWS.into_iter().flatten().filter(|row| !seen.contains(row)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}
