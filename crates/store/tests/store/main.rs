//! The store's promises, kept by every backend.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests; a child process prints to its parent"
)]

mod conformance;
mod detours;
mod processes;
mod shared;
