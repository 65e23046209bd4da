//! `reasons.md`: the one table of refusals.

use std::fmt::Write as _;

use doorward_core::reason::{Exposure, Reason, Remedy};

use super::{cell, head};

pub(super) fn page() -> String {
    let mut page = head("Reasons");
    page.push_str(
        "Every refusal has exactly one of these reasons. The code is in `reason` of the body, in\n\
         `X-Doorward-Reason`, in logs, audit rows and metrics, and is the text of a WebSocket close. Codes are\n\
         append-only.\n\n\
         - **error**: the coarse word, `error` in the body.\n\
         - **RFC 6750**: `error` in `WWW-Authenticate`, where a credential was judged.\n\
         - **close**: close code on an open WebSocket.\n\
         - **retry**: whether the same request can succeed later without any change.\n\
         - **shown**: what a caller is told; another code where the exact one stays with the operator.\n\n\
         | code | status | error | RFC 6750 | close | remedy | retry | shown | text |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let shown = match reason.exposure() {
            Exposure::Public => "as is".to_owned(),
            Exposure::Masked(other) => format!("`{}`", other.code()),
        };
        let code = reason.code();
        let bearer = reason.bearer_error().map_or_else(|| "–".to_owned(), |word| format!("`{word}`"));
        let retry = if reason.is_retryable() { "yes" } else { "no" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| <a id=\"{code}\"></a>`{code}` | {} | `{}` | {bearer} | {} | `{}` | {retry} | {shown} | {} |",
            reason.status(),
            reason.error(),
            reason.close_code(),
            reason.remedy().as_str(),
            cell(reason.text()),
        );
    }
    page.push_str("\n## Remedies\n\n| remedy | what to do |\n|---|---|\n");
    for remedy in Remedy::ALL {
        let _ = writeln!(page, "| `{}` | {} |", remedy.as_str(), cell(remedy.text()));
    }
    page
}
