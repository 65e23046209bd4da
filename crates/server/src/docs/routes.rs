//! `routes.md`: our own routes and who may call them.

use std::fmt::Write as _;

use super::{cell, head};
use crate::http::{
    admin,
    routes::{Guard, ROUTES},
};

pub(super) fn page() -> String {
    let mut page = head("Routes");
    page.push_str(
        "Under `base_path` (`/auth` by default); those marked *root* also without it. They outrank `[[rules]]`;\n\
         every other path is judged by the rules and goes to its app. Besides the refusals listed, any route can\n\
         answer `request_malformed`, `host_unknown` and `internal`. `GET` includes `HEAD`.\n\n\
         - **open**: everybody; **optional**: everybody, and who it is makes a difference; **peer**: proxies in\n  \
         `listen.trusted_proxies`, for others the route does not exist.\n\
         - **origin**: a changing request must come from our own pages (`Sec-Fetch-Site`, `Origin`).\n\n\
         | route | who | what | answers | refusals |\n|---|---|---|---|---|\n",
    );
    for route in ROUTES {
        let methods = if route.methods.is_empty() { "ANY".to_owned() } else { route.methods.join(", ") };
        let root = if route.is_at_root { " *root*" } else { "" };
        let who = match route.guard {
            Guard::Open => "open",
            Guard::Optional(_) => "optional",
            Guard::Peer => "peer",
        };
        let origin = if route.checks_origin { ", origin" } else { "" };
        let answers: Vec<_> = route.answers.iter().map(|(status, text)| format!("{status} {text}")).collect();
        let refusals: Vec<_> = route
            .refusals
            .iter()
            .map(|reason| format!("[`{0}`](reasons.md#{0}) {1}", reason.code(), reason.shown().status()))
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `{methods} {}`{root} | {who}{origin} | {} | {} | {} |",
            route.path,
            cell(route.summary),
            cell(&answers.join("; ")),
            refusals.join(", "),
        );
    }
    page.push_str("\n## Admin listener\n\nOn `listen.admin`, with `listen.admin_token` where one is set.\n\n");
    page.push_str("| route | what |\n|---|---|\n");
    for (path, what) in admin::ROUTES {
        let _ = writeln!(page, "| `GET {path}` | {what} |");
    }
    page
}
