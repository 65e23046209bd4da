//! JOSE, the strict part that Doorward needs: compact JWS (RFC 7515), JWK and JWK Sets (RFC 7517),
//! the signature algorithms of RFC 7518 and RFC 8037 on aws-lc-rs.
//!
//! Left out on purpose: JSON serialisations, JWE, `crit` extensions, unencoded payloads, and every
//! header member that brings or points at a key (`jwk`, `jku`, `x5c`, `x5u`): they are ignored, never
//! followed. HMAC exists for tokens that Doorward mints for itself and for those of the soak window ([`hs256`]),
//! never for an issuer's.

mod algorithm;
mod base64url;
mod der;
pub mod hs256;
mod json;
mod jwk;
mod jwk_set;
mod jws;
mod key_material;
mod public_key;
mod reader;
mod roca;
pub mod sign;

pub use algorithm::{Algorithm, AlgorithmSet};
pub use base64url::NotBase64Url;
pub use json::{MAX_DEPTH, StrictValue};
pub use jwk::Jwk;
pub use jwk_set::{JwkSet, MAX_KEYS, MAX_SET_BYTES, Selection, SetProblem, Skipped};
pub(crate) use jws::malformed;
pub use jws::{Compact, Header, HeaderAlgorithm, MAX_TOKEN_BYTES, Type};
#[cfg(feature = "keygen")]
pub(crate) use key_material::KeyMaterial;
pub use public_key::{KeyProblem, PublicKey};
pub(crate) use reader::{Member, Span, read_object};
