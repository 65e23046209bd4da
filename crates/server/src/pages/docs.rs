//! The page behind the `type` of a problem document.

use askama::Template;
use doorward_core::reason::{Exposure, Reason};

use super::{Site, render};

#[derive(Template)]
#[template(path = "docs.html")]
struct DocsPage<'a> {
    site: &'a Site,
    reasons: Vec<Reason>,
}

/// Every reason that a caller can be told, each at the anchor of its code. Masked ones are never told.
pub fn docs(site: &Site) -> String {
    let reasons = Reason::ALL.iter().copied().filter(|reason| reason.exposure() == Exposure::Public).collect();
    render(&DocsPage { site, reasons })
}
