//! The situations, by what goes wrong.

mod faults;
mod forgeries;
mod outages;
mod rotation;

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{Case, Play, Setup, Stage};

/// All of them, in the order of the table.
pub fn all() -> Vec<Case> {
    [
        rotation::cases(),
        rotation::poisoned(),
        faults::cases(),
        outages::cases(),
        forgeries::claims(),
        forgeries::cases(),
    ]
    .concat()
}

/// The verifier's defaults.
fn defaults(_: &mut Setup) {}

/// Where the situation needs more than one fetch, and nobody wants to wait half a minute for it.
fn a_second(setup: &mut Setup) {
    setup.min_interval = Some(Duration::from_secs(1));
}

fn plain(
    group: &'static str,
    id: &str,
    title: &str,
    expected: &'static str,
    settings: fn(&mut Setup),
    play: for<'a> fn(&'a mut Stage) -> BoxFuture<'a, ()>,
) -> Case {
    Case {
        group,
        id: id.to_owned(),
        title: title.to_owned(),
        expected,
        settings,
        is_slow: false,
        play: Play::Plain(play),
    }
}
