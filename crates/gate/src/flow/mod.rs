//! Flows of more than one step: they take plain inputs and return outcomes or denials; no HTTP types.

pub mod email_change;
pub mod first_admin;
mod link_queue;
mod mail_people;
pub mod mail_text;
pub mod password;
pub mod re_auth;
mod re_auth_mail;
pub mod sessions;
pub mod sign_in;

pub use link_queue::{LinkStats, LinkWorker};
