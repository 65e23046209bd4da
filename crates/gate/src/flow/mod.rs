//! Flows of more than one step: they take plain inputs and return outcomes or denials; no HTTP types.

mod code;
mod consume;
mod directory;
mod doubt;
pub mod email_change;
pub mod first_admin;
mod link_queue;
pub mod mail_license;
mod mail_people;
pub mod mail_text;
mod notes;
pub mod password;
pub mod re_auth;
mod re_auth_mail;
pub mod sessions;
pub mod sign_in;
#[cfg(feature = "keygen")]
pub mod webhook;

pub use code::CodeInput;
pub use directory::{DirectoryFault, SubjectAnswer, SubjectDirectory};
pub use link_queue::{LinkStats, LinkWorker};
pub use notes::address_hash_under;
