//! What happens to an issuer's keys that somebody should hear of.

use std::{fmt, sync::Arc};

use doorward_core::time::Now;

/// Something that happened to the keys of an issuer. It is in the log already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerEvent {
    /// Our name of the issuer.
    pub issuer: Arc<str>,
    /// When.
    pub at: Now,
    /// What.
    pub what: IssuerChange,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssuerChange {
    /// The id stands for other key material than before, which is used from now on.
    KeyChanged {
        /// `kid`.
        kid: Box<str>,
    },
    /// The keys were fetched because of a token that the known ones did not explain.
    FetchedForToken {
        /// Whether the answer is in use; otherwise the known keys stay.
        is_in_use: bool,
    },
}

/// Hears of events; must not block. Cheap to clone.
#[derive(Clone)]
pub struct Listener(Arc<dyn Fn(IssuerEvent) + Send + Sync>);

impl Listener {
    /// Calls `hear` for each event.
    pub fn new(hear: impl Fn(IssuerEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    pub(super) fn hear(&self, event: IssuerEvent) {
        (self.0)(event);
    }
}

/// Hears of nothing.
impl Default for Listener {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}
