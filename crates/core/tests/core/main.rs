//! Everything about the core that needs only its public face: simulations and vectors.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails the test that asked for it")]

mod keys_sim;
