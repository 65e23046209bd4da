//! What happens after a decision: metrics, logs and audit only look.

use doorward_core::{decision::Decision, request::RequestFacts, revocation::Revocation};

/// Looks at decisions and events. Nothing here can change a verdict; implementations must not block.
pub trait Observe: Send + Sync + 'static {
    /// A decision was taken. `app` is the name of the app that the rule points to, `-` without one.
    fn decided(&self, facts: &RequestFacts<'_>, decision: &Decision, app: &str);

    /// An entry of the revocation log was applied.
    fn revoked(&self, _entry: &Revocation) {}

    /// Something went wrong that no request waits for.
    fn fault(&self, _fault: Fault<'_>) {}
}

/// Faults that no request waits for. Each is a metric of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault<'a> {
    /// The revocation log could not be read.
    RevocationTail(&'a str),
    /// Session touches were dropped because the queue was full.
    TouchDropped,
    /// Session touches could not be written.
    TouchFailed(&'a str),
    /// The highest time seen, which licenses are judged by, could not be read or written.
    HighestTime(&'a str),
}

/// Looks away; for tests and for hosts that log for themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observe for Unobserved {
    fn decided(&self, _: &RequestFacts<'_>, _: &Decision, _: &str) {}
}
