//! What the configuration can already describe and this release does not do yet.
//!
//! Asking for it stops the start: a key that is accepted and ignored would be worse than none. A
//! feature that lands removes its line here.

use super::{read::Reader, root::Settings};

pub(super) fn check(settings: &Settings, cx: &mut Reader<'_>) {
    let mut asked: Vec<(String, &str)> = Vec::new();
    if settings.compat_paths {
        asked.push(("compat_paths".into(), "the origin hub's paths"));
    }
    if settings.shared.as_ref().is_some_and(|shared| shared.blocklist_set.is_none()) {
        asked.push(("shared".into(), "Redis for anything but `blocklist_set`"));
    }
    for (key, feature) in asked {
        cx.problem_in(&key, format!("not available in this release: {feature}"), format!("remove `{key}`"));
    }
}
