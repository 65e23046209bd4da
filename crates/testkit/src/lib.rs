//! Plays the others in tests: servers made by others, ports, processes. A dev-dependency only, never published.
//!
//! Helpers here panic with a sentence that says what failed; a test has no better way to go on. Whatever a
//! helper starts ends with the value that stands for it: dropping it kills exactly that process.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed helper fails the test that asked for it")]

pub mod better_auth;
pub mod control;
pub mod folder;
pub mod issuer;
pub mod keycloak;
pub mod license;
pub mod mail;
pub mod neighbour;
pub mod oidc_provider;
pub mod paper;
pub mod pgbouncer;
pub mod port;
pub mod postgres;
pub mod process;
pub mod proxies;
pub mod redis;
pub mod relay;
pub mod scoreboard;
pub mod switch;
pub mod upstream;
pub mod wire;
