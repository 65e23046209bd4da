//! The reference pages, generated from the code that they describe.
//!
//! `doorward docs --write DIR` writes them; a test compares the committed pages with what the code
//! says, so that neither can drift from the other. A further page is a line in [`PAGES`].

mod cli;
mod config;
mod limits;
mod metrics;
mod reasons;
mod routes;

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
    Page { file: "routes.md", about: "every route of our own", render: routes::page },
    Page { file: "limits.md", about: "every rate limit", render: limits::page },
    Page { file: "metrics.md", about: "every metric", render: metrics::page },
    Page { file: "openapi.json", about: "the routes as OpenAPI 3.1", render: openapi },
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

/// The document that a server answers at `/openapi.json`, with the default `base_path`.
fn openapi() -> String {
    let document = crate::http::openapi::document("/auth");
    // A value of strings always serialises.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
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
