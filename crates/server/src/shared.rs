//! The set of `[shared]`: opened with the configuration, kept while that says the same.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use doorward_core::secret::Secret;
use doorward_gate::gate::Gate;
use doorward_store::{
    StoreConfigError,
    shared::{SharedSet, SharedStatus},
};

use crate::config::Config;

/// The blocklist that somebody else writes, if one is configured.
#[derive(Debug, Default)]
pub struct Shared(ArcSwapOption<Opened>);

#[derive(Debug)]
struct Opened {
    url: Secret<String>,
    name: String,
    set: SharedSet,
}

impl Shared {
    /// Opens what the configuration names and hands it to the gate; what is open already stays open.
    ///
    /// # Errors
    /// [`StoreConfigError`]: the URL cannot be used.
    pub(crate) fn take(&self, config: &Config, gate: &Gate) -> Result<(), StoreConfigError> {
        let wanted = config.shared.as_ref().and_then(|shared| Some((&shared.url.0, shared.blocklist_set.as_ref()?)));
        let Some((url, name)) = wanted else {
            gate.use_blocked_subjects(None);
            self.0.store(None);
            return Ok(());
        };
        let is_same = |opened: &Opened| opened.url.expose() == url.expose() && opened.name == *name;
        if self.0.load().as_deref().is_some_and(is_same) {
            return Ok(());
        }
        let set = SharedSet::open(url.expose(), name)?;
        gate.use_blocked_subjects(Some(Box::new(set.clone())));
        self.0.store(Some(Arc::new(Opened { url: url.clone(), name: name.clone(), set })));
        Ok(())
    }

    /// How it stands; `None` if none is configured.
    pub fn status(&self) -> Option<SharedStatus> {
        self.0.load().as_ref().map(|opened| opened.set.status())
    }
}
