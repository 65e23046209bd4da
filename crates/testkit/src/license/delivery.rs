//! Webhooks: what the license server posts, and how it signs it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{
    ACCOUNT,
    sign::{Algorithm, Keys, timestamp},
};
use crate::wire::{Answer, Wire};

/// A webhook, ready to be posted; tests change what they like before that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Host of the endpoint's URL, without port: what is signed.
    pub host: String,
    /// `Host` as sent.
    pub authority: String,
    /// Path and query of the endpoint's URL.
    pub target: String,
    /// The headers besides `Host` and `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// Document; its `payload` is JSON in a text.
    pub body: String,
}

impl Delivery {
    /// As HTTP/1.1 puts it on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let fields: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n{}",
            self.target,
            self.authority,
            self.body.len(),
            self.body
        )
        .into_bytes()
    }

    /// Posts it to whoever listens there.
    pub async fn send(&self, address: SocketAddr) -> Answer {
        Wire::ask(address, self.bytes()).await
    }

    /// What tells repetitions: `data.meta.idempotencyToken`.
    ///
    /// # Panics
    /// If the body was changed so that there is none.
    pub fn idempotency_token(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        body["data"]["meta"]["idempotencyToken"].as_str().unwrap().to_owned()
    }

    /// Puts another value in place of a header, or takes it away.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }
}

pub(super) fn deliver(keys: &Keys, now: i64, number: u64, url: &str, event: &str, payload: &Value) -> Delivery {
    let (_, rest) = url.split_once("://").unwrap();
    let (authority, target) =
        rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, path.to_owned()));
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let at = timestamp(now);
    let body = json!({
        "data": {
            "id": format!("5c1f0c1e-0005-4000-8000-{number:012x}"),
            "type": "webhook-events",
            "attributes": {
                "endpoint": url,
                "apiVersion": "1.7",
                "payload": payload.to_string(),
                "event": event,
                "status": "DELIVERING",
                "lastResponseCode": null,
                "lastResponseBody": null,
                "created": at,
                "updated": at,
            },
            "relationships": {"account": {"data": {"type": "accounts", "id": ACCOUNT}}},
            "meta": {"idempotencyToken": format!("testkit-{number:032x}")},
        },
    });
    let delivery = Delivery {
        host: host.to_owned(),
        authority: authority.to_owned(),
        target: format!("/{target}"),
        headers: Vec::new(),
        body: body.to_string(),
    };
    sign(keys, now, delivery)
}

/// Date and signature are made anew for every attempt.
pub(super) fn sign(keys: &Keys, now: i64, mut delivery: Delivery) -> Delivery {
    let place = ("POST", delivery.target.as_str(), delivery.host.as_str());
    let mut headers = keys.headers(Algorithm::Ed25519, place, now, delivery.body.as_bytes());
    for (name, value) in
        [("Content-Type", "application/json"), ("User-Agent", "Keygen/1.8 (testkit)"), ("Keygen-Version", "1.7")]
    {
        headers.push((name.to_owned(), value.to_owned()));
    }
    delivery.headers = headers;
    delivery
}
