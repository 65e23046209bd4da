//! Black-box tests over real sockets. One binary: a file per subject.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers fail the test that asked for them")]

mod assertion;
mod attacks;
mod blocklist;
mod cli;
mod cors;
mod csrf;
mod door;
mod forward_auth;
mod golden;
mod headers;
mod hosts;
mod issuer_outage;
mod legacy;
mod license;
mod license_file;
mod license_hub;
mod license_keygen;
mod license_notices;
mod mails;
mod people;
mod process;
mod provoke;
mod proxy;
mod sessions;
mod sign_in;
mod smuggling;
mod step_up;
mod webhooks;
#[allow(dead_code, reason = "a harness for all subjects; which of its verbs are in use changes with them")]
mod world;
