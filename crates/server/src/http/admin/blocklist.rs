//! `/blocklist` on the admin listener: the list, an entry more, an entry less.

use std::sync::Arc;

use axum::body::Body;
use doorward_core::{decision::Denial, reason::Reason, revocation::Scope, time::Timestamp};
use doorward_gate::blocklist::Block;
use http::{Method, Response, StatusCode, request::Parts};
use serde::Deserialize;
use serde_json::json;

use super::super::{Server, call};
use crate::{cli::blocklist::shown, config};

/// Entries in an answer, at most.
const PAGE: u32 = 1000;
/// Who makes an entry, in the audit log.
const BY: &str = "admin listener";

/// What `GET` may ask for.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    after: i64,
    limit: Option<u32>,
}

/// What `POST` and `DELETE` name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    issuer: String,
    jti: Option<String>,
    subject: Option<String>,
    #[serde(default)]
    why: String,
    /// `POST` only: a duration as in the configuration.
    #[serde(rename = "for")]
    for_: Option<String>,
    /// `POST` only: RFC 3339.
    until: Option<String>,
}

impl Named {
    async fn read(parts: &Parts, body: Body) -> Result<Self, Denial> {
        let bytes = call::read_json(&parts.headers, body).await?;
        serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))
    }

    fn scope(&self) -> Result<Scope, Denial> {
        let scope = match (&self.jti, &self.subject) {
            (Some(jti), None) => Scope::token(&self.issuer, jti),
            (None, Some(subject)) => Scope::subject(&self.issuer, subject),
            (Some(_), Some(_)) | (None, None) => None,
        };
        scope.ok_or_else(|| Denial::from(Reason::RequestMalformed).with_required("either `jti` or `subject`"))
    }

    fn end(&self, now: Timestamp) -> Result<Option<Timestamp>, Denial> {
        let end = match (&self.for_, &self.until) {
            (None, None) => return Ok(None),
            (Some(text), None) => config::parse_duration(text).ok().map(|after| now.plus(after)),
            (None, Some(text)) => {
                let at: Option<jiff::Timestamp> = text.parse().ok();
                at.map(|at| Timestamp::from_millis(at.as_millisecond()))
            }
            (Some(_), Some(_)) => None,
        };
        let required = "`for` as a duration (12h) or `until` as a time ahead (2027-01-31T00:00:00Z)";
        end.filter(|end| *end > now)
            .map(Some)
            .ok_or_else(|| Denial::from(Reason::RequestMalformed).with_required(required))
    }
}

fn malformed(note: String) -> Denial {
    Denial::from(Reason::RequestMalformed).with_note(note)
}

/// Answers a request that may come in.
pub(super) async fn answer(server: &Arc<Server>, parts: &Parts, body: Body) -> Result<Response<Body>, Denial> {
    match parts.method {
        Method::GET | Method::HEAD => {
            let query = parts.uri.query().unwrap_or_default();
            let asked: Asked = serde_urlencoded::from_str(query).map_err(|error| malformed(error.to_string()))?;
            let limit = asked.limit.unwrap_or(PAGE).clamp(1, PAGE);
            let entries = server.gate.blocklist(asked.after, limit).await?;
            let next = entries.last().filter(|_| entries.len() == limit as usize).map(|entry| entry.seq);
            let entries: Vec<_> = entries.iter().map(shown).collect();
            Ok(call::json(StatusCode::OK, &json!({ "entries": entries, "next": next })))
        }
        Method::POST => {
            let named = Named::read(parts, body).await?;
            let now = server.gate.clock().now().wall;
            let (scope, until) = (named.scope()?, named.end(now)?);
            let block = Block { scope: scope.clone(), until, why: named.why, by: BY.to_owned() };
            server.gate.block(block).await?;
            let entry = server.gate.store().blocked(scope, now).await?;
            Ok(call::json(StatusCode::CREATED, &entry.as_ref().map(shown)))
        }
        Method::DELETE => {
            let named = Named::read(parts, body).await?;
            if named.for_.is_some() || named.until.is_some() {
                return Err(malformed("`for` and `until` belong to POST".to_owned()));
            }
            let is_removed = server.gate.unblock(named.scope()?, &named.why, BY).await?;
            Ok(call::json(StatusCode::OK, &json!({ "removed": is_removed })))
        }
        _ => Err(Reason::MethodNotAllowed.into()),
    }
}
