//! The reference pages, generated from the code that they describe.
//!
//! `doorward docs --write DIR` writes them; a test compares the committed pages with what the code
//! says, so that neither can drift from the other. A further page is a line in [`PAGES`].

mod cli;
mod config;
mod reasons;

use std::{fs, io, path::Path};

/// A generated page.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// File name below `docs/reference`.
    pub file: &'static str,
    /// What it is about, for a list.
    pub about: &'static str,
    /// Writes it.
    pub render: fn() -> String,
}

/// All generated pages.
pub const PAGES: &[Page] = &[
    Page { file: "reasons.md", about: "every reason for a refusal", render: reasons::page },
    Page { file: "config.md", about: "every key of the configuration", render: config::page },
    Page { file: "cli.md", about: "every command and option", render: cli::page },
];

/// Writes all pages into `dir`, which is made if missing.
///
/// # Errors
/// Those of the file system.
pub fn write(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    PAGES.iter().try_for_each(|page| fs::write(dir.join(page.file), (page.render)()))
}

/// The note at the top of each page.
fn head(title: &str) -> String {
    format!(
        "<!-- Written by `doorward docs --write docs/reference`. Change the code, not this page. -->\n\n# {title}\n\n"
    )
}

/// Text inside a table cell.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_references_say_what_the_code_says() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
        for page in PAGES {
            let committed = fs::read_to_string(dir.join(page.file)).unwrap_or_default();
            assert!(
                committed == (page.render)(),
                "docs/reference/{} is not what the code says: cargo run -- docs --write docs/reference",
                page.file
            );
        }
    }

    #[test]
    fn write_makes_every_page() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        write(&below).unwrap();
        assert_eq!(fs::read_dir(&below).unwrap().count(), PAGES.len());
    }
}
