//! The async library to embed: verifier and tower layer by default; `axum`, `keygen`, `sign-in`, `mail` by feature.
//!
//! Nothing here installs anything global: clock, mailer, observer and spawner come from the host.

pub mod assertion;
#[cfg(feature = "axum")]
pub mod axum;
mod behind;
pub mod blocklist;
pub mod clock;
pub mod external;
#[cfg(feature = "sign-in")]
pub mod flow;
pub mod gate;
pub mod issuer;
pub mod license;
#[cfg(feature = "mail")]
pub mod mail;
pub mod observe;
mod own_time;
mod owned;
#[cfg(feature = "sign-in")]
pub mod passwords;
pub mod policy;
pub mod rate;
mod records;
pub mod respond;
mod revoked;
pub mod ring;
pub mod tail;
pub mod tower;
pub mod window;

pub use records::SessionEntry;
