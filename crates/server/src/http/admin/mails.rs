//! `/mails` on the admin listener: mails that were given up, and another try.

use std::sync::Arc;

use axum::body::Body;
use doorward_core::{decision::Denial, id::MailId, reason::Reason};
use doorward_store::RetryMail;
use http::{Method, Response, StatusCode, request::Parts};
use serde::Deserialize;
use serde_json::json;

use super::super::{Server, call};
use crate::cli::mail::{retry, shown};

/// Who asks for another try, in the audit log.
const BY: &str = "admin listener";
/// Mails in an answer, at most.
const PAGE: u32 = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    id: MailId,
}

/// `GET /mails`.
pub(super) async fn list(server: &Arc<Server>) -> Result<Response<Body>, Denial> {
    let mails = server.gate.store().dead_mails(PAGE).await?;
    Ok(call::json(StatusCode::OK, &json!({ "mails": mails.iter().map(shown).collect::<Vec<_>>() })))
}

/// `POST /mails/retry`.
pub(super) async fn again(server: &Arc<Server>, parts: &Parts, body: Body) -> Result<Response<Body>, Denial> {
    if parts.method != Method::POST {
        return Err(Reason::MethodNotAllowed.into());
    }
    let bytes = call::read_json(&parts.headers, body).await?;
    let named: Named = serde_json::from_slice(&bytes)
        .map_err(|error| Denial::from(Reason::RequestMalformed).with_note(error.to_string()))?;
    let now = server.gate.clock().now().wall;
    match retry(server.gate.store(), named.id, now, BY).await? {
        RetryMail::Queued => Ok(call::json(StatusCode::OK, &json!({ "queued": named.id }))),
        RetryMail::Empty => {
            let why = "The text of this mail was not kept, because it held a link or a code; it is asked for again.";
            Err(Denial::from(Reason::RequestMalformed).with_explanation(why))
        }
        RetryMail::Unknown => Err(Reason::NotFound.into()),
    }
}
