//! `metrics.md`: what Prometheus scrapes.

use std::fmt::Write as _;

use super::{cell, head};
use crate::telemetry::metrics::DESCRIBED;

pub(super) fn page() -> String {
    let mut page = head("Metrics");
    page.push_str(
        "`GET /metrics` on the admin listener, in the OpenMetrics text format. Label values come from the\n\
         configuration and the table of reasons only: never a path, a key id or a subject.\n\n\
         | metric | kind | labels | what |\n|---|---|---|---|\n",
    );
    for metric in DESCRIBED {
        let labels = if metric.labels.is_empty() { "–".to_owned() } else { format!("`{}`", metric.labels) };
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{}` | {} | {labels} | {} |", metric.name, metric.kind, cell(metric.help));
    }
    page
}
