//! Prints the figures of `docs/performance.md` in one run: `cargo run --release -p doorward-bench`.
//!
//! Only ratios within one run count: what is compared runs in turns, on the same machine in the same minute. Costs
//! are CPU time of the thread or process at work, so that neighbours on the machine do not count, except where a
//! figure is a rate of a disk or the time until a port is open.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot be taken must not look like one")]
#![allow(clippy::print_stdout, reason = "the report")]
#![allow(clippy::disallowed_methods, reason = "a bench reads clocks")]

mod blocklist;
mod check;
mod house;
mod kept;
mod load;
mod outage;
mod process;
mod proxy;
mod report;
mod roles;
mod store;
mod verify;

use std::{env, process::ExitCode};

use report::Report;

/// What can be asked for with `--only`, in the order in which it runs.
const PARTS: [&str; 8] = ["verify", "kept", "blocklist", "check", "outage", "proxy", "store", "process"];

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Turns that everything to be compared takes.
    pub(crate) rounds: usize,
    /// Whether this is a look rather than a measurement.
    pub(crate) is_quick: bool,
}

fn main() -> ExitCode {
    if let Some(role) = env::var_os(roles::VARIABLE) {
        return roles::play(&role.to_string_lossy());
    }
    let mut arguments = env::args().skip(1);
    let (mut only, mut is_quick) = (None, false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => is_quick = true,
            "--only" => only = arguments.next().filter(|name| PARTS.contains(&name.as_str())),
            _ => only = None,
        }
        if argument != "--quick" && only.is_none() {
            println!("doorward-bench [--quick] [--only {}]", PARTS.join("|"));
            return ExitCode::from(2);
        }
    }
    if cfg!(debug_assertions) {
        println!("These figures mean nothing: build with --release.");
    }
    let effort = Effort { rounds: if is_quick { 2 } else { 7 }, is_quick };
    let mut report = Report::begin();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for part in PARTS {
        if only.as_deref().is_some_and(|only| only != part) {
            continue;
        }
        match part {
            "verify" => verify::run(&mut report, effort),
            "kept" => runtime.block_on(kept::run(&mut report, effort)),
            "blocklist" => runtime.block_on(blocklist::run(&mut report, effort)),
            "check" => runtime.block_on(check::run(&mut report, effort)),
            "outage" => runtime.block_on(outage::run(&mut report, effort)),
            "proxy" => runtime.block_on(proxy::run(&mut report, effort)),
            "store" => runtime.block_on(store::run(&mut report, effort)),
            _ => runtime.block_on(process::run(&mut report, effort)),
        }
    }
    report.end();
    ExitCode::SUCCESS
}
