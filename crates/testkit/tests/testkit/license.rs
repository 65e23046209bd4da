//! `doorward-testkit license`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{net::SocketAddr, process::Command, time::Duration};

use doorward_testkit::{
    process::Process,
    wire::{Answer, Wire},
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

const WITHIN: Duration = Duration::from_secs(20);

struct Started {
    ready: Value,
    _process: Process,
}

impl Started {
    async fn with(options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward-testkit"));
        let process = Process::start("the license server", command.arg("license").args(options));
        let ready = process.line(WITHIN, |line| serde_json::from_str(line).ok()).await;
        Self { ready, _process: process }
    }

    fn address(&self, name: &str) -> SocketAddr {
        self.ready[name].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Asks as a gate does.
    async fn get(&self, path: &str) -> Answer {
        let (account, token) = (self.ready["account"].as_str().unwrap(), self.ready["token"].as_str().unwrap());
        let head = format!("GET /v1/accounts/{account}{path} HTTP/1.1\r\nHost: licenses.example\r\n");
        Wire::ask(self.address("url"), format!("{head}Authorization: Bearer {token}\r\n\r\n")).await
    }

    async fn order(&self, head: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let length = body.len();
        let request = format!("{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
        let answer = Wire::ask(self.address("control"), request).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn it_prints_what_a_gate_needs_and_answers_signed() {
    let started = Started::with(&["--user", "Ann@example.com"]).await;
    let ready = &started.ready;
    let config = ready["config"].as_str().unwrap();
    for told in [&ready["url"], &ready["account"], &ready["product"], &ready["token"], &ready["public_keys"][0]] {
        assert!(config.contains(&format!("\"{}\"", told.as_str().unwrap())), "{told} is in:\n{config}");
    }
    let user = started.get("/users/ann%40example.com").await;
    assert_eq!((user.status, &json_of(&user)["data"]["id"]), (200, &ready["users"][0]["id"]));
    assert!(user.header("keygen-signature").unwrap().contains(ready["account"].as_str().unwrap()));
    let license = ready["users"][0]["license"].as_str().unwrap();
    let validate = format!("/licenses/{license}/actions/validate");
    let verdict = async || json_of(&started.get(&validate).await)["meta"]["code"].clone();
    assert_eq!(verdict().await, json!("VALID"));

    let key = ready["users"][0]["key"].as_str().unwrap();
    assert_eq!(started.order("POST /do", json!({"suspend": key})).await, (200, json!({"done": true})));
    assert_eq!(verdict().await, json!("SUSPENDED"));
    assert_eq!(started.order("POST /do", json!({"reinstate": license})).await.0, 200);
    assert_eq!(started.order("POST /do", json!({"ends_in": [license, -5]})).await.0, 200);
    assert_eq!(verdict().await, json!("EXPIRED"));
    assert_eq!(started.order("POST /do", json!({"ban": "ann@example.com"})).await.0, 200);
    assert_eq!(verdict().await, json!("BANNED"));

    let (_, bob) = started.order("POST /users", json!({"email": "bob@example.com"})).await;
    let (_, theirs) = started.order("POST /licenses", json!({"owner": "bob@example.com"})).await;
    let found = json_of(&started.get(&format!("/licenses?user={}", bob["id"].as_str().unwrap())).await);
    assert_eq!(found["data"][0]["id"], theirs["id"]);
    let (_, stats) = started.order("GET /stats", Value::Null).await;
    assert_eq!((&stats["requests"], &stats["alive"]), (&json!(6), &json!(true)));
    let (_, heard) = started.order("GET /heard", Value::Null).await;
    assert_eq!(
        heard["heard"][0]["target"],
        format!("/v1/accounts/{}/users/ann%40example.com", ready["account"].as_str().unwrap())
    );
}

#[tokio::test]
async fn faults_are_chosen_at_the_start_and_switched_while_it_runs() {
    let started = Started::with(&["--fault", "unsigned"]).await;
    assert_eq!(started.get("/me").await.header("keygen-signature"), None);
    for (fault, status, is_signed) in [
        (json!({"page": 502}), 502, false),
        (json!({"too_many": 7}), 429, false),
        (json!({"refuse": [401, "TOKEN_EXPIRED"]}), 401, true),
        (json!({"slow": 1}), 200, true),
        (json!("empty_signature"), 200, true),
        (json!("wrong_key"), 200, true),
        (json!("other_account"), 200, true),
        (json!("tampered"), 200, true),
        (json!("replay"), 200, true),
        (json!("rewritten_date"), 200, true),
        (json!("wrong_nonce"), 200, true),
        (json!("other_shape"), 200, true),
        (json!({"redirect": "https://elsewhere.example/"}), 301, false),
    ] {
        assert_eq!(started.order("POST /do", json!({"fault": fault})).await.0, 200, "{fault}");
        let answer = started.get("/me").await;
        assert_eq!((answer.status, answer.header("keygen-signature").is_some()), (status, is_signed), "{fault}");
    }
    assert_eq!(started.order("POST /do", json!("mend")).await.0, 200);
    assert_eq!(started.get("/me").await.status, 200);
    assert_eq!(started.order("POST /do", json!("die")).await.0, 200);
    assert!(TcpStream::connect(started.address("url")).await.is_err());
    assert_eq!(started.order("GET /stats", Value::Null).await.1["alive"], false);
    assert_eq!(started.order("POST /do", json!("revive")).await.0, 200);
    assert_eq!(started.get("/me").await.status, 200);

    for (route, wrong) in [
        ("POST /do", json!("dance")),
        ("POST /do", json!({"suspend": "no such license"})),
        ("POST /do", json!({"fault": {"page": 99}})),
        ("POST /users", json!({})),
        ("POST /licenses", json!({"owner": "nobody"})),
        ("POST /webhook", json!({"url": "nowhere", "event": "license.suspended", "license": "x"})),
    ] {
        let (status, said) = started.order(route, wrong.clone()).await;
        assert!(status == 400 && said["error"].is_string(), "{route} {wrong}: {said}");
    }
    assert_eq!(started.order("GET /nothing", Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_webhook_is_posted_where_it_is_told() {
    let started = Started::with(&["--user", "ann@example.com"]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let license = started.ready["users"][0]["license"].clone();
    let order = json!({"url": "https://app.example/hooks", "event": "license.suspended", "license": license, "to": to});
    let posted = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut text = Vec::new();
        while !text.windows(4).any(|end| end == b"\r\n\r\n") {
            stream.readable().await.unwrap();
            let mut part = [0; 4096];
            if let Ok(read) = stream.try_read(&mut part) {
                text.extend_from_slice(&part[..read]);
            }
        }
        stream.writable().await.unwrap();
        stream.try_write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        String::from_utf8_lossy(&text).into_owned()
    };
    let (head, (status, said)) = tokio::join!(posted, started.order("POST /webhook", order));
    assert_eq!((status, said), (200, json!({"status": 200, "body": "ok"})));
    assert!(
        head.starts_with("POST /hooks HTTP/1.1\r\nHost: app.example\r\n") && head.contains("Keygen-Signature: keyid=")
    );
}

#[tokio::test]
async fn a_hub_answers_with_short_lived_tokens_that_state_the_end_of_the_license() {
    let started = Started::with(&["--hub", "--user", "ann@example.com"]).await;
    let config = started.ready["config"].as_str().unwrap();
    assert!(config.contains("provider = \"jwt\"") && config.contains("jwks_url"), "{config}");
    let license = started.ready["users"][0]["license"].as_str().unwrap();
    assert_eq!(started.order("POST /do", json!({"ends_in": [license, 86_400]})).await.0, 200);
    let account = started.ready["account"].as_str().unwrap();
    let body = json!({"meta": {"key": license}}).to_string();
    let head = format!("POST /v1/accounts/{account}/licenses/actions/validate-key HTTP/1.1\r\nHost: x\r\n");
    let asked = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let token = json_of(&Wire::ask(started.address("url"), asked).await)["meta"]["token"].clone();
    let payload = token.as_str().unwrap().split('.').nth(1).unwrap();
    let payload = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, payload).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    let after = |name: &str| claims[name].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(after("exp"), 3600);
    assert!((86_390..=86_400).contains(&after("license_expires_at")), "{claims}");
    assert_eq!((&claims["sub"], &claims["status"]), (&started.ready["users"][0]["id"], &json!("ACTIVE")));
}

#[tokio::test]
async fn help_is_printed_and_what_is_not_understood_is_refused() {
    let run = |options: &[&str]| Command::new(env!("CARGO_BIN_EXE_doorward-testkit")).args(options).output().unwrap();
    let help = run(&["license", "--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--fault FAULT"));
    for wrong in
        [&["license", "--fault", "dance"][..], &["license", "--listen"], &["license", "--listen", "here"], &["licence"]]
    {
        let refused = run(wrong);
        assert_eq!(refused.status.code(), Some(2), "{wrong:?}");
        assert!(!refused.stderr.is_empty());
    }
}
