//! Failures to reach an app, put into words of the reason table.

use std::{error::Error, io};

use doorward_core::{decision::Denial, reason::Reason};
use hyper_util::client::legacy;

use super::{Upstream, body::Exchange, malformed};

/// The denial for `error`; the cause goes into the operator's note.
pub(super) fn denial_of(error: &legacy::Error, exchange: &Exchange, upstream: &Upstream) -> Denial {
    if exchange.has_client_failed() {
        return malformed("the request body broke off or is not framed as declared");
    }
    let reason = match is_timeout(error) {
        true => Reason::UpstreamTimeout,
        false => Reason::UpstreamUnavailable,
    };
    Denial::from(reason).with_note(format!("{}: {}", upstream.name(), chain(error)))
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    // A chain of causes is short; the bound is for one that loops.
    std::iter::successors(Some(error), |error| Error::source(*error)).take(8)
}

fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|io| io.kind() == io::ErrorKind::TimedOut)
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        let cause = cause.to_string();
        // hyper's wrappers repeat what they wrap.
        if !text.ends_with(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}
