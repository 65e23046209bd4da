//! The async library to embed: verifier and tower layer by default; `axum`, `sign-in`, `mail` by feature.
//!
//! Nothing here installs anything global: clock, mailer, observer and spawner come from the host.

pub mod clock;
#[cfg(feature = "sign-in")]
pub mod flow;
pub mod issuer;
#[cfg(feature = "mail")]
pub mod mail;
pub mod rate;
pub mod ring;
