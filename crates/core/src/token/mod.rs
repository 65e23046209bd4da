//! Tokens of issuers: parsed, then verified under a policy, by one path.
//!
//! [`parse`] takes a token apart and proves nothing. [`verify()`] checks signature, then type, then claims,
//! and is the only way to a [`Verified`] of an issuer's token.

mod claims;
mod members;
mod policy;
#[cfg(test)]
mod tests;
mod verify;

pub use claims::Claims;
pub use members::Members;
pub use policy::{IssuerAlias, TokenPolicy};
pub(crate) use verify::verify_own_claims;
pub use verify::{Unverified, Verified, parse, verify};
