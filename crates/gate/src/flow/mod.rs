//! Flows of more than one step: they take plain inputs and return outcomes or denials; no HTTP types.

pub mod mail_text;
