//! Journey C: from the request for a link to the session, over every store.

mod codes;
mod house;
mod journey;
mod mail;
mod mail_api;
mod requests;
mod rotation;
mod store_down;
