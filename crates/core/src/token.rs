//! Claims of a token, and the proof that they were verified.

use serde_json::{Map, Value};

use crate::time::Timestamp;

/// The claims of a JWT (RFC 7519 §4.1), typed; everything not registered stays in `more`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// `aud`, always as a list.
    pub audience: Vec<String>,
    /// `exp`.
    pub expires_at: Option<Timestamp>,
    /// `nbf`.
    pub not_before: Option<Timestamp>,
    /// `iat`.
    pub issued_at: Option<Timestamp>,
    /// `jti`.
    pub id: Option<String>,
    /// `scope` (RFC 8693 §4.2), split at spaces.
    pub scopes: Vec<String>,
    /// All other members, as they came.
    pub more: Map<String, Value>,
}
