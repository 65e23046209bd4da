//! `routes.md`: our own routes and who may call them.

use std::fmt::Write as _;

use doorward_core::rule::CsrfMode;

use super::{cell, head};
use crate::http::{
    admin,
    routes::{Guard, ROUTES, SESSION},
};

pub(super) fn page() -> String {
    let mut page = head("Routes");
    page.push_str(
        "Under `base_path` (`/auth` by default); those marked *root* also without it. They outrank `[[rules]]`;\n\
         every other path is judged by the rules and goes to its app. Besides the refusals listed, any route can\n\
         answer `request_malformed`, `host_unknown` and `internal`. `GET` includes `HEAD`.\n\n\
         - **open**: everybody; **optional**: everybody, and who it is makes a difference; **session**: a session is\n  \
         needed; **peer**: proxies in `listen.trusted_proxies`, for others the route does not exist; **signed**: whoever\n  \
         signed the body.\n\
         - **origin**: a changing request must come from our own pages or from `login.allowed_origins`\n  \
         (`Sec-Fetch-Site`, `Origin`).\n\
         - **token**: the same, and it carries the session's CSRF token: `X-CSRF-Token`, or `csrf_token` in a form.\n\
         - **recent**: the sign-in is younger than `session.recent_auth`.\n\n\
         | route | who | what | answers | refusals |\n|---|---|---|---|---|\n",
    );
    for route in ROUTES {
        let methods = if route.methods.is_empty() { "ANY".to_owned() } else { route.methods.join(", ") };
        let root = if route.is_at_root { " *root*" } else { "" };
        let who = match route.guard {
            Guard::Open => "open",
            Guard::Optional(_) => "optional",
            Guard::Required(kinds) if kinds == SESSION => "session",
            Guard::Required(_) => "credential",
            Guard::Peer => "peer",
            Guard::Signed => "signed",
        };
        let csrf = match route.csrf {
            CsrfMode::Off => "",
            CsrfMode::Origin => ", origin",
            CsrfMode::Token => ", token",
        };
        let recent = if route.recent_auth { ", recent" } else { "" };
        let answers: Vec<_> = route.answers.iter().map(|(status, text)| format!("{status} {text}")).collect();
        let refusals: Vec<_> = route
            .refusals
            .iter()
            .map(|reason| format!("[`{0}`](reasons.md#{0}) {1}", reason.code(), reason.shown().status()))
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `{methods} {}`{root} | {who}{csrf}{recent} | {} | {} | {} |",
            route.path,
            cell(route.summary),
            cell(&answers.join("; ")),
            refusals.join(", "),
        );
    }
    page.push_str("\n## Admin listener\n\nOn `listen.admin`, with `listen.admin_token` where one is set.\n\n");
    page.push_str("| route | what |\n|---|---|\n");
    for (path, what) in admin::ROUTES {
        let _ = writeln!(page, "| `{path}` | {what} |");
    }
    page
}
