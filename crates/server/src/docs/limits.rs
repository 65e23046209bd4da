//! `limits.md`: every rate limit.

use std::fmt::Write as _;

use doorward_gate::rate::{Limit, Quota, UNKNOWN_CREDENTIALS};

use super::{cell, head};
use crate::pages::text;

pub(super) fn page() -> String {
    let mut page = head("Rate limits");
    page.push_str(
        "Counted with the generic cell rate algorithm: as many at once as the period has, then evenly spread; what is\n\
         refused is not counted. In memory, per process, with a bounded number of keys; a client is an IPv4 address or\n\
         an IPv6 /64, as derived from `listen.trusted_proxies`. Where a limit answers, `RateLimit-Policy` and `RateLimit`\n\
         (draft-ietf-httpapi-ratelimit-headers-10) name it, and 429 has `Retry-After`. Met limits are audited as\n\
         `rate.limited`, once a minute for each limit and key.\n\n\
         | limit | how many | of one | over it |\n|---|---|---|---|\n",
    );
    let mut row = |name: &str, quota: Quota, by: &str, over: &str| {
        let many = format!("{} in {}", quota.events, text::span(quota.period));
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{name}` | {many} | {} | {} |", cell(by), cell(over));
    };
    for limit in Limit::ALL {
        row(limit.as_str(), limit.quota(), limit.counted_by(), limit.over());
    }
    let (name, quota) = UNKNOWN_CREDENTIALS;
    let by = "client whose session cookie or API key the store has looked up in vain; one that is in memory is never held back";
    row(name, quota, by, "429 `rate_limited` without asking the store");
    page
}
