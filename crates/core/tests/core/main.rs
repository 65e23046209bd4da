//! Everything about the core that needs only its public face: simulations and vectors.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails the test that asked for it")]

mod api_key_vectors;
mod cookie_vectors;
mod family_vectors;
mod golden_license;
mod handshake_vectors;
mod header_vectors;
mod issuer_captures;
mod jose_examples;
#[cfg(feature = "keygen")]
mod keygen_vectors;
mod keys_sim;
mod path_vectors;
mod redirect_vectors;
mod request_props;
mod strict_profile;
mod vectors;
mod webhook_vectors;
mod wycheproof;
