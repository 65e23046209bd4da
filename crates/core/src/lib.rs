//! The pure core of Doorward: it decides, and nothing else.
//!
//! Facts go in, a decision comes out. This crate does no I/O, reads no clock, makes no randomness and
//! knows no async runtime; time and random bytes arrive as values ([`time::Now`], byte arrays). Every
//! refusal is a [`reason::Reason`] of one table.
//!
//! Three shapes recur: a *check* (input + snapshot + policy + now → proof or [`decision::Denial`]), a
//! *ticketed state machine* ([`keys`]) and *plan and commit* (a record goes in, the change comes out;
//! the store applies it only if the record is still that one).

pub mod api_key;
pub mod audit;
pub mod client;
pub mod credential;
pub mod csrf;
pub mod cutover;
pub mod decision;
pub mod dialect;
pub mod effects;
pub mod email_change;
pub mod forward;
pub mod framing;
pub mod id;
pub mod jose;
#[cfg(feature = "keygen")]
pub mod keygen;
pub mod keys;
pub mod legacy;
pub mod license;
pub mod link;
pub mod one_time;
pub mod origin;
pub mod password;
pub mod principal;
pub mod reason;
pub mod redirect;
pub mod request;
pub mod revocation;
pub mod ring;
pub mod rule;
pub mod schedule;
pub mod secret;
pub mod session;
pub mod time;
pub mod token;
pub mod user;
pub mod webhook;
pub mod ws;
