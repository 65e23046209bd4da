use serde_json::{Value, json};

use super::*;
use crate::wire::{Answer, Wire};

async fn server() -> LicenseServer {
    LicenseServer::start(|| 1_800_000_000_000).await
}

async fn get(server: &LicenseServer, path: &str) -> Answer {
    let head = format!("GET /v1/accounts/{ACCOUNT}{path} HTTP/1.1\r\nHost: licenses.example:8443\r\n");
    Wire::ask(server.address(), format!("{head}Authorization: Bearer {PRODUCT_TOKEN}\r\n\r\n")).await
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn a_license_goes_through_its_states_and_the_verdict_is_not_the_status() {
    let server = server().await;
    let user = server.user("Ann@Example.com");
    let license = server.license(&user);
    let validate = format!("/licenses/{license}/actions/validate");
    let verdict = async || {
        let body = json_of(&get(&server, &validate).await);
        (body["meta"]["valid"].clone(), body["meta"]["code"].clone(), body["data"]["attributes"]["status"].clone())
    };
    assert_eq!(verdict().await, (json!(true), json!("VALID"), json!("ACTIVE")));
    server.suspend(&license);
    assert_eq!(verdict().await, (json!(false), json!("SUSPENDED"), json!("SUSPENDED")));
    server.reinstate(&license);
    server.ban(&user);
    assert_eq!(verdict().await, (json!(false), json!("BANNED"), json!("BANNED")));
    server.unban(&user);
    server.ends_in(&license, -1);
    assert_eq!(verdict().await, (json!(false), json!("EXPIRED"), json!("EXPIRED")));
    server.change(&license, |license| license.on_expiry = OnExpiry::Allow);
    assert_eq!(verdict().await, (json!(true), json!("EXPIRED"), json!("EXPIRED")));
    server.renew(&license);
    assert_eq!(verdict().await.0, json!(true));
    assert_eq!(server.validation_events(), 0, "a quick validation tells nobody");

    let users = json_of(&get(&server, "/users/ann%40example.com").await);
    assert_eq!(users["data"]["id"], json!(user));
    assert_eq!(json_of(&get(&server, &format!("/licenses?user={user}")).await)["data"][0]["id"], json!(license));
    server.revoke(&license);
    assert_eq!(get(&server, &validate).await.status, 404);
    assert_eq!(server.heard()[0].host, "licenses.example:8443");
}

#[tokio::test]
async fn answers_are_signed_for_the_host_without_its_port_and_errors_before_the_account_are_not() {
    let server = server().await;
    let answer = get(&server, "/users/nobody").await;
    assert_eq!(answer.status, 404);
    let digest = answer.header("digest").unwrap();
    let date = answer.header("keygen-date").unwrap();
    assert_eq!((date, answer.header("date")), ("Fri, 15 Jan 2027 08:00:00 GMT", Some(date)));
    let header = answer.header("keygen-signature").unwrap();
    let (_, signature) = header.split_once("signature=\"").unwrap();
    let signature = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, signature.split_once('"').unwrap().0);
    let text = format!(
        "(request-target): get /v1/accounts/{ACCOUNT}/users/nobody\nhost: licenses.example\ndate: {date}\ndigest: {digest}"
    );
    let key: Vec<u8> = {
        let hex = server.public_key(Algorithm::Ed25519);
        (0..32).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()).collect()
    };
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, key);
    key.verify(text.as_bytes(), &signature.unwrap()).unwrap();

    let other = "GET /v1/accounts/another/me HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(Wire::ask(server.address(), other).await.header("keygen-signature"), None);
    server.fault(Some(Fault::TooMany(7)));
    let limited = get(&server, "/me").await;
    assert_eq!((limited.status, limited.header("retry-after")), (429, Some("7")));
    assert_eq!(limited.header("keygen-signature"), None);
}

#[tokio::test]
async fn a_webhook_is_signed_for_its_url_and_again_for_each_attempt() {
    let server = server().await;
    let license = server.license(&server.user("ann@example.com"));
    server.suspend(&license);
    let delivery = server.webhook("https://app.example:8443/hooks?a=b", "license.suspended", &license);
    assert_eq!((delivery.host.as_str(), delivery.target.as_str()), ("app.example", "/hooks?a=b"));
    let body: Value = serde_json::from_str(&delivery.body).unwrap();
    let payload: Value = serde_json::from_str(body["data"]["attributes"]["payload"].as_str().unwrap()).unwrap();
    assert_eq!(payload["data"]["attributes"]["status"], "SUSPENDED");
    server.skew(60);
    let again = server.again(&delivery);
    assert_eq!((again.idempotency_token(), &again.body), (delivery.idempotency_token(), &delivery.body));
    assert_ne!(again.headers, delivery.headers);
    let next = server.webhook("https://app.example/", "license.suspended", &license);
    assert_ne!(next.idempotency_token(), delivery.idempotency_token());
}

#[tokio::test]
async fn what_died_answers_nobody_until_it_is_back() {
    let server = server().await;
    server.die().await;
    assert!(tokio::net::TcpStream::connect(server.address()).await.is_err());
    server.revive().await;
    assert_eq!(get(&server, "/me").await.status, 200);
    assert_eq!(server.hits(), 1);
}

#[test]
fn of_very_many_requests_the_newest_are_kept_and_all_are_counted() {
    let mut state = State::default();
    for number in 0..state::KEPT + 5 {
        state.hear(Heard {
            method: "GET".to_owned(),
            target: number.to_string(),
            host: String::new(),
            version: None,
            has_credential: false,
            body: None,
        });
    }
    assert_eq!((state.heard.len(), state.hits), (state::KEPT, state::KEPT + 5));
    assert_eq!((&*state.heard[0].target, state.heard.back().unwrap().target.parse()), ("5", Ok(state::KEPT + 4)));
}
