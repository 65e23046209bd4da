//! `Gate::check` over a store and a clock that stands still.

mod blocklist;
mod ended;
mod house;
mod keys;
mod legacy;
mod licenses;
mod policy;
mod revocations;
mod sessions;
mod tokens;
