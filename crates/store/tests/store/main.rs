//! The store's promises, kept by every backend.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod conformance;
mod processes;
