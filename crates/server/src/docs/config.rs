//! `config.md`: every key, from its one definition.

use std::fmt::Write as _;

use super::{cell, head};
use crate::config::{Config, Key, PREFIX, Presence, Section, Shape};

pub(super) fn page() -> String {
    let mut page = head("Configuration");
    let _ = write!(
        page,
        "One TOML file, `doorward.toml`. Unknown keys stop the start, and all problems are reported at once\n\
         (`doorward check`). Relative paths start at the folder of the file.\n\n\
         Each key can also be given as a variable: `{PREFIX}SECTION__KEY`, for example\n\
         `{PREFIX}SESSION__IDLE=60m`; lists as a TOML array or with commas. Arrays of tables (`[[…]]`) can only be\n\
         written in the file. Where \"or file\" is said, `KEY_file` may name a file that holds the value instead; giving\n\
         both is an error. Durations are a whole number with a unit: `ms`, `s`, `m`, `h`, `d`.\n",
    );
    section(&mut page, Config::keys(), "", "Top of the file");
    page
}

fn section(page: &mut String, section_: &Section, path: &str, title: &str) {
    let _ = write!(
        page,
        "\n## {title}\n\n{}\n\n",
        section_.doc.trim().lines().map(str::trim).collect::<Vec<_>>().join("\n")
    );
    let (tables, plain): (Vec<&Key>, Vec<&Key>) = section_.keys.iter().partition(|key| (key.section)().is_some());
    if !plain.is_empty() {
        page.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    }
    for key in plain {
        let id = format!("{path}{}", key.name);
        let list =
            if key.presence == Presence::Default("[]") || key.example().starts_with('[') { "list of " } else { "" };
        let file = if key.or_file { ", or file" } else { "" };
        let default = match key.presence {
            Presence::Required { example } => format!("required, e.g. `{example}`"),
            Presence::Optional { example } => format!("none; e.g. `{example}`"),
            Presence::Default(text) => format!("`{text}`"),
            Presence::Table => String::new(),
        };
        let _ = writeln!(
            page,
            "| <a id=\"{id}\"></a>`{}` | {list}{}{file} | {} | {} |",
            key.name,
            key.kind,
            cell(&default),
            cell(key.doc)
        );
    }
    for key in tables {
        let Some(inner) = (key.section)() else { continue };
        let full = format!("{path}{}", key.name);
        let title = match key.shape {
            Shape::Tables => format!("`[[{full}]]`"),
            Shape::Named => format!("`[{full}.NAME]`"),
            Shape::Table | Shape::Value => format!("`[{full}]`"),
        };
        section(page, inner, &format!("{full}."), &title);
    }
}
