//! The example over real sockets, with tokens of an issuer that rotates its keys.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails fails its test")]

use std::{net::SocketAddr, time::Duration};

use axum_embedded::{Door, Keys, Settings};
use doorward_core::{jose::JwkSet, time::Timestamp};
use doorward_gate::clock::Clock;
use doorward_testkit::{
    issuer::{Issuer, Rotation},
    wire::{Answer, Wire},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

const NOW: i64 = 1_800_000_000;

struct App {
    address: SocketAddr,
    issuer: Issuer,
    clock: Clock,
    stop: oneshot::Sender<()>,
    work: JoinHandle<()>,
}

impl App {
    async fn start(keys: impl FnOnce(&Issuer) -> Keys) -> Self {
        let issuer = Issuer::start().await;
        let clock = Clock::manual(Timestamp::from_secs(NOW));
        let settings = Settings {
            host: "app.example".to_owned(),
            issuer: issuer.url(),
            audience: "app".to_owned(),
            keys: keys(&issuer),
        };
        let (stop, stopped) = oneshot::channel();
        let door = Door::new(&settings, clock.clone()).unwrap();
        let (app, work) = door.open(async { stopped.await.unwrap() });
        let work = tokio::spawn(work);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        let app = Self { address, issuer, clock, stop, work };
        app.until_ready().await;
        app
    }

    async fn with_url() -> Self {
        Self::start(|issuer| Keys::Url(issuer.jwks_url().parse().unwrap())).await
    }

    /// Until revocations have been read, at the start and after the clock's jumps, a token is refused rather than
    /// taken on trust.
    async fn until_ready(&self) {
        for _ in 0..1_000 {
            if self.me(&self.token()).await.status == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("does not get ready: {:?}", self.me(&self.token()).await);
    }

    fn token(&self) -> String {
        self.issuer.mint(&self.issuer.claims("app", self.clock.now().wall.as_secs()))
    }

    async fn get(&self, target: &str, headers: &str) -> Answer {
        let request = format!("GET {target} HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n{headers}\r\n");
        Wire::ask(self.address, request).await
    }

    async fn me(&self, token: &str) -> Answer {
        self.get("/api/me", &format!("Authorization: Bearer {token}\r\n")).await
    }
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

fn outcome(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status, answer.header("x-doorward-reason"))
}

#[tokio::test]
async fn a_token_opens_the_api_and_everybody_else_is_told_why_not() {
    let app = App::with_url().await;
    let answer = app.me(&app.token()).await;
    assert_eq!(outcome(&answer), (200, None));
    assert_eq!(body(&answer), json!({ "subject": "main|subject-1", "email": null, "method": "bearer" }));
    assert_eq!(body(&app.get("/public", "X-Doorward-Subject: admin\r\n").await), json!({ "hello": "stranger" }));

    let mut old = app.issuer.claims("app", NOW);
    old["exp"] = json!(NOW - 3600);
    let foreign = app.issuer.mint(&app.issuer.claims("other", NOW));
    for (answer, status, reason) in [
        (app.get("/api/me", "").await, 401, "no_credential"),
        (app.me(&app.issuer.mint(&old)).await, 401, "token_expired"),
        (app.me(&foreign).await, 401, "token_wrong_audience"),
        (app.me("a.b.c").await, 401, "token_malformed"),
        (app.get("/else", "").await, 403, "no_rule"),
        (app.get("/public/../api/me", "").await, 400, "request_malformed"),
        (app.get("/api/me", "Host: other.example\r\n").await, 400, "request_malformed"),
    ] {
        assert_eq!(outcome(&answer), (status, Some(reason)), "{answer:?}");
        assert_eq!(body(&answer)["reason"], reason);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    app.stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(10), app.work).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_rotation_of_keys_closes_nothing() {
    let app = App::with_url().await;
    let old = app.token();
    for rotation in [Rotation::Overlap, Rotation::Abrupt] {
        app.issuer.rotate(rotation);
        // A token of the next minute, past the pause between two fetches.
        app.clock.advance(Duration::from_secs(60));
        let hits = app.issuer.hits();
        app.until_ready().await;
        assert_eq!(app.issuer.hits(), hits + 1, "{rotation:?} costs one fetch");
        assert_eq!(outcome(&app.me(&app.token()).await), (200, None));
        assert_eq!(app.issuer.hits(), hits + 1, "and later tokens none");
    }
    // Its key is gone from the set, and with it the token's worth.
    assert_eq!(outcome(&app.me(&old).await), (401, Some("token_unknown_key")));
}

#[tokio::test]
async fn with_keys_written_down_nobody_is_asked() {
    let set = |issuer: &Issuer| Keys::Inline(JwkSet::parse(issuer.key_set().to_string().as_bytes()).unwrap());
    let app = App::start(set).await;
    assert_eq!(outcome(&app.me(&app.token()).await), (200, None));
    app.issuer.rotate(Rotation::Abrupt);
    assert_eq!(outcome(&app.me(&app.token()).await), (401, Some("token_unknown_key")));
    assert_eq!(app.issuer.hits(), 0);
}
