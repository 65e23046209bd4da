//! `vectors/own/webhook-hmac.json`: which webhooks are believed. Its bodies are of an older shape; what is judged
//! here is signature and time, and that a signed body that is no JSON object is refused.

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use doorward_core::{
    reason::Reason,
    secret::Secret,
    time::Timestamp,
    webhook::{self, LicenseEvent, WebhookSecrets},
};
use http::{HeaderMap, HeaderValue};

use crate::vectors::{cases, load, text};

const PREVIOUS: &str = "whsec_own_test_previous_0123456789abc";

/// The reason behind a verdict of the vector, where it is not plain.
fn reason_of(name: &str, expect: &str) -> Option<Reason> {
    Some(match (name, expect) {
        (_, "200" | "200_or_401_documented" | "200 while two secrets are configured") => return None,
        (_, expect) if expect.starts_with("200 noop") => return None,
        ("no signature header", _) => Reason::WebhookMissingSignature,
        (_, "401 stale") => Reason::WebhookStale,
        (_, "401 malformed" | "401 missing") => Reason::WebhookBadTimestamp,
        (_, "401") => Reason::WebhookBadSignature,
        (_, "503 webhook_disabled") => Reason::WebhookDisabled,
        (_, "400") => Reason::WebhookBadPayload,
        _ => panic!("{name}: {expect}"),
    })
}

#[test]
fn every_webhook_gets_the_verdict_of_the_vector() {
    let file = load("own/webhook-hmac.json");
    let secret = Secret::new(text(&file, "secret").to_owned());
    let previous = Secret::new(PREVIOUS.to_owned());
    let now = Timestamp::from_secs(file["now"].as_i64().unwrap());
    let mut read = 0;
    for case in cases(&file) {
        let name = text(case, "name");
        let mut headers = HeaderMap::new();
        for (member, header) in [("timestamp", webhook::TIMESTAMP), ("signature", webhook::SIGNATURE)] {
            if let Some(value) = case[member].as_str() {
                headers.insert(header, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
        }
        let secrets = match name {
            "secret unset on the server" => WebhookSecrets::default(),
            "previous secret during rotation" => WebhookSecrets::new([&secret, &previous]),
            _ => WebhookSecrets::new([&secret]),
        };
        let body = BASE64_STANDARD.decode(text(case, "body_b64")).unwrap();
        if name == "previous secret during rotation" {
            // The file does not say which secret that was.
            let unknown = webhook::verify(&WebhookSecrets::new([&secret]), &headers, &body, now).unwrap_err();
            assert_eq!(unknown.reason, Reason::WebhookBadSignature);
            let message = [text(case, "timestamp").as_bytes(), b".", &body].concat();
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, PREVIOUS.as_bytes()), &message);
            let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            headers.insert(webhook::SIGNATURE, HeaderValue::from_str(&format!("sha256={hex}")).unwrap());
        }
        let outcome = webhook::verify(&secrets, &headers, &body, now).map(drop).map_err(|denial| denial.reason);
        match reason_of(name, text(case, "expect")) {
            Some(Reason::WebhookBadPayload) => {
                assert_eq!(outcome, Ok(()), "{name}");
                let payload = LicenseEvent::parse(&body).unwrap_err();
                assert_eq!(payload.reason, Reason::WebhookBadPayload, "{name}");
            }
            Some(reason) => assert_eq!(outcome, Err(reason), "{name}"),
            None => assert_eq!(outcome, Ok(()), "{name}"),
        }
        read += 1;
    }
    assert_eq!(read, 37);
}
