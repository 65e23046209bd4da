//! Flows of more than one step: they take plain inputs and return outcomes or denials; no HTTP types.

mod link_queue;
pub mod mail_text;
pub mod password;
pub mod re_auth;
mod re_auth_mail;
pub mod sessions;
pub mod sign_in;

pub use link_queue::{LinkStats, LinkWorker};
