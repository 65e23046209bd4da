//! A keygen-relay on loopback: it hands out license files to nodes, for a while each.
//!
//! As the original: `PUT /v1/nodes/{fingerprint}` answers 201 with the file and its key to whoever claims one, 202
//! without them to whoever has one already (or 409, where leases are not extended), 410 where none is free; `DELETE`
//! answers 204 or 404; every answer has `Relay-Clock`, and `Relay-Signature` where there is a secret.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::upstream::RawUpstream;

/// A relay. Dropping it closes its port.
pub struct Relay {
    server: RawUpstream,
    state: Arc<Mutex<State>>,
    /// Method of the requests whose answers do not leave.
    held_back: watch::Sender<Option<&'static str>>,
}

/// Its clock: seconds since the Unix epoch.
type Time = Box<dyn Fn() -> i64 + Send + Sync>;

struct State {
    time: Time,
    /// Files and keys that are free, handed out from the front.
    free: Vec<(String, String)>,
    held: BTreeMap<String, (String, String)>,
    /// Nodes that claim whatever gets free, before anybody else can.
    waiting: Vec<String>,
    secret: Option<String>,
    /// Whether a lease is extended; otherwise whoever has one hears 409.
    extends: bool,
    ttl: u64,
    heard: Vec<String>,
}

impl Relay {
    /// One with these files and their license keys, and leases of `ttl` seconds.
    pub async fn start(
        licenses: &[(String, String)],
        ttl: u64,
        time: impl Fn() -> i64 + Send + Sync + 'static,
    ) -> Self {
        let state = State {
            time: Box::new(time),
            free: licenses.to_vec(),
            held: BTreeMap::new(),
            waiting: Vec::new(),
            secret: None,
            extends: true,
            ttl,
            heard: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let (held_back, holding) = watch::channel(None);
        let server = RawUpstream::with(move |mut conversation| {
            let (state, mut holding) = (Arc::clone(&shared), holding.clone());
            async move {
                while let Some(request) = conversation.request().await {
                    let answer = state.lock().unwrap().answer(&request);
                    let may_leave = |held: &Option<&str>| held.is_none_or(|method| !request.starts_with(method));
                    if holding.wait_for(may_leave).await.is_err() {
                        return;
                    }
                    conversation.say(answer).await;
                }
            }
        })
        .await;
        Self { server, state, held_back }
    }

    /// Its address.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Signs its answers from now on, or no more.
    pub fn sign_with(&self, secret: Option<&str>) {
        self.state.lock().unwrap().secret = secret.map(str::to_owned);
    }

    /// Extends leases, or answers 409 to whoever has one.
    pub fn extend(&self, extends: bool) {
        self.state.lock().unwrap().extends = extends;
    }

    /// Does what requests of this method want, and does not answer them until it is told [`None`].
    pub fn hold_back(&self, method: Option<&'static str>) {
        self.held_back.send_replace(method);
    }

    /// Lets a node wait for a license: it claims the next one that is given back or taken back at that moment.
    pub fn wait_as(&self, node: &str) {
        self.state.lock().unwrap().waiting.push(node.to_owned());
    }

    /// Takes a node's lease back, as the reaper does when it has ended.
    pub fn reap(&self, node: &str) {
        self.state.lock().unwrap().free(node);
    }

    /// Nodes that have a lease.
    pub fn nodes(&self) -> Vec<String> {
        self.state.lock().unwrap().held.keys().cloned().collect()
    }

    /// Method and path of every request so far.
    pub fn heard(&self) -> Vec<String> {
        self.state.lock().unwrap().heard.clone()
    }
}

impl State {
    fn answer(&mut self, request: &str) -> String {
        let line = request.lines().next().unwrap_or_default();
        let (asked, _) = line.rsplit_once(" HTTP/").unwrap_or((line, ""));
        self.heard.push(asked.to_owned());
        let (status, body) = match asked.split_once(" /v1/nodes/") {
            Some(("PUT", node)) => self.claim(node),
            Some(("DELETE", node)) => match self.free(node) {
                true => ("204 No Content", None),
                false => ("404 Not Found", Some(json!({ "error": "claim not found" }))),
            },
            _ if asked == "GET /v1/health" => ("200 OK", None),
            _ => ("404 Not Found", None),
        };
        self.write(status, body)
    }

    /// Ends a node's lease; tells whether it had one.
    fn free(&mut self, node: &str) -> bool {
        let Some(license) = self.held.remove(node) else { return false };
        match self.waiting.pop() {
            Some(next) => drop(self.held.insert(next, license)),
            None => self.free.push(license),
        }
        true
    }

    fn claim(&mut self, node: &str) -> (&'static str, Option<Value>) {
        let ends = json!({ "expires_at": (self.time)() + self.ttl as i64, "expires_in": self.ttl });
        if self.held.contains_key(node) {
            return match self.extends {
                true => ("202 Accepted", Some(ends)),
                false => ("409 Conflict", Some(json!({ "error": "failed to claim license due to conflict" }))),
            };
        }
        if self.free.is_empty() {
            return ("410 Gone", Some(json!({ "error": "no licenses available" })));
        }
        let (file, key) = self.free.remove(0);
        let mut claimed = ends;
        claimed["license_file"] = BASE64_STANDARD.encode(&file).into();
        claimed["license_key"] = key.as_str().into();
        self.held.insert(node.to_owned(), (file, key));
        ("201 Created", Some(claimed))
    }

    fn write(&self, status: &str, body: Option<Value>) -> String {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let now = (self.time)();
        let signature = self.secret.as_ref().map(|secret| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            let tag = hmac::sign(&key, format!("{now}.{body}").as_bytes());
            let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            format!("Relay-Signature: t={now},v1={hex}\r\n")
        });
        let length =
            if status.starts_with("204") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        format!("HTTP/1.1 {status}\r\nRelay-Clock: {now}\r\n{}{length}\r\n{body}", signature.unwrap_or_default())
    }
}
