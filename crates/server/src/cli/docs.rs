//! `docs`: the reference pages.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Out};
use crate::docs::{self, PAGES};

/// Print or write the reference pages.
#[derive(Debug, Args)]
pub struct Docs {
    /// Write all pages into this folder.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Print this page, for example `config`; without it, the list of pages.
    #[arg(value_name = "PAGE", conflicts_with = "write")]
    page: Option<String>,
}

impl Docs {
    pub(super) fn run(&self, out: &mut Out<'_>) -> Result<(), Failure> {
        if let Some(dir) = &self.write {
            docs::write(dir).map_err(|error| Failure::Failed(format!("cannot write to {}: {error}", dir.display())))?;
            return out.line(format!("{} pages written to {}", PAGES.len(), dir.display()));
        }
        let Some(wanted) = &self.page else {
            let rows: Vec<_> =
                PAGES.iter().map(|page| vec![stem(page.file).to_owned(), page.about.to_owned()]).collect();
            return out.table(&["PAGE", "ABOUT"], &rows);
        };
        match PAGES.iter().find(|page| stem(page.file) == wanted || page.file == wanted) {
            Some(page) => out.text(&(page.render)()),
            None => {
                let known: Vec<_> = PAGES.iter().map(|page| stem(page.file)).collect();
                Err(Failure::Wrong(format!("there is no page `{wanted}`; there are {}", known.join(", "))))
            }
        }
    }
}

/// `config` of `config.md`.
fn stem(file: &str) -> &str {
    file.split_once('.').map_or(file, |(stem, _)| stem)
}
