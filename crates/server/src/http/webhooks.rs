//! `/webhooks/license/…`: providers tell that a license changed.

use axum::body::Body;
use doorward_core::{
    decision::Denial,
    keygen::MAX_NOTICE_BYTES,
    webhook::{self, WebhookSecrets},
};
use doorward_gate::flow::webhook::{KeygenHook, Taken, WebhookConfig};
use http::{Response, StatusCode};
use serde_json::json;

use super::call::{self, Call};
use crate::config::{Config, SecretText};

/// Path of Keygen's webhook below `base_path`.
pub const KEYGEN: &str = "/webhooks/license/keygen";

/// `POST /webhooks/license/titanium`.
pub async fn hub(call: Call) -> Response<Body> {
    let taken = async {
        let body = call.raw(webhook::MAX_BODY).await?;
        let now = call.server.gate.clock().now();
        call.server.webhooks.hub(&call.parts.headers, &body, call.client.ip, now).await
    };
    answer(&call, taken.await)
}

/// `POST /webhooks/license/keygen`.
pub async fn keygen(call: Call) -> Response<Body> {
    let taken = async {
        let body = call.raw(MAX_NOTICE_BYTES).await?;
        let now = call.server.gate.clock().now();
        let query = call.parts.uri.query();
        call.server.webhooks.keygen(query, &call.parts.headers, &body, call.client.ip, now).await
    };
    answer(&call, taken.await)
}

fn answer(call: &Call, taken: Result<Taken, Denial>) -> Response<Body> {
    match taken {
        Ok(Taken::Done) => call::ok(),
        Ok(Taken::Noop(why)) => call::json(StatusCode::OK, &json!({ "ok": true, "noop": why })),
        Err(denial) => call.refuse(denial),
    }
}

/// What webhooks are verified with, from the configuration. Whether licenses are users' at all, the provider says.
pub(crate) fn settings(config: &Config) -> WebhookConfig {
    let license = &config.license;
    let secrets = license.webhook_secrets.iter().map(|SecretText(secret)| secret);
    // What is signed is the URL that the provider was told, which no header of a request may choose.
    let (host, path) = match &license.webhook_url {
        Some(url) => (url.0.host_str().unwrap_or_default().to_owned(), url.0.path().to_owned()),
        None => (config.public_url.host().to_owned(), format!("{}{KEYGEN}", config.base_path.as_str())),
    };
    let account = license.account.clone().filter(|_| !license.public_keys.is_empty());
    let keygen = account.map(|account| KeygenHook { keys: license.account_keys(), account, host, path });
    WebhookConfig { secrets: WebhookSecrets::new(secrets), keygen }
}
