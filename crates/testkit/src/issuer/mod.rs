//! An issuer of tokens on loopback: mints whatever it is told to, rotates its keys, and fails on demand.
//!
//! Tests hold an [`Issuer`]. Programs start `doorward-testkit issuer`, which follows a [`script`] and listens to
//! [`control`] routes. [`forge`] makes the tokens that nobody should accept.

mod answer;
pub mod control;
mod fault;
mod forge;
mod key;
mod poison;
pub mod script;
mod state;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::state::{Shared, State};
pub use self::{fault::Fault, forge::Forgery, key::Algorithm, poison::Poison, state::Etag};
use crate::port;

/// How keys change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// The old keys stay published.
    Overlap,
    /// The old keys are gone at once.
    Abrupt,
    /// New material under the old id.
    SameId,
}

/// An issuer. Dropping it closes its port.
pub struct Issuer(Arc<Shared>);

impl Issuer {
    /// Starts one with an Ed25519 key.
    ///
    /// # Panics
    /// If no port can be bound.
    pub async fn start() -> Self {
        Self::start_with(Algorithm::EdDsa).await
    }

    /// Starts one with a key of this kind.
    ///
    /// # Panics
    /// If no port can be bound.
    pub async fn start_with(algorithm: Algorithm) -> Self {
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), algorithm).await
    }

    /// Starts one at this address, with a key of this kind.
    ///
    /// # Panics
    /// If the address cannot be bound.
    pub async fn listen(address: SocketAddr, algorithm: Algorithm) -> Self {
        let (place, address) = port::hold(address);
        let listener = TcpListener::bind(address).await.unwrap();
        let mut state = State::default();
        state.add_key(algorithm);
        state.before = None;
        let shared = Arc::new(Shared { address, _place: place, state: Mutex::new(state), server: Mutex::new(None) });
        *shared.server.lock().unwrap() = Some(answer::serve(listener, &shared));
        Self(shared)
    }

    /// `iss`: its origin.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// Address of its key set.
    pub fn jwks_url(&self) -> String {
        format!("http://{}/jwks.json", self.0.address)
    }

    /// Good claims for `audience` at this time, in seconds since the Unix epoch.
    pub fn claims(&self, audience: &str, now: i64) -> Value {
        let now = now + self.0.state.lock().unwrap().skew;
        json!({"iss": self.url(), "sub": "subject-1", "aud": audience, "iat": now, "exp": now + 300})
    }

    /// Mints a token with the newest key.
    pub fn mint(&self, claims: &Value) -> String {
        self.mint_with(&json!({}), claims)
    }

    /// Mints a token with the newest key; members of `header` replace the usual ones, null removes.
    pub fn mint_with(&self, header: &Value, claims: &Value) -> String {
        self.mint_by(0, header, claims)
    }

    /// Mints a token with the key that came `age` keys before the newest.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn mint_by(&self, age: usize, header: &Value, claims: &Value) -> String {
        let mut state = self.0.state.lock().unwrap();
        state.minted += 1;
        let key = &state.keys[age];
        let mut protected = json!({"alg": key.algorithm.as_str(), "kid": key.id, "typ": "at+jwt"});
        for (name, value) in header.as_object().unwrap() {
            if value.is_null() {
                protected.as_object_mut().unwrap().remove(name);
            } else {
                protected[name] = value.clone();
            }
        }
        key.sign(&protected, claims)
    }

    /// A token that must not be accepted, made from good claims.
    pub fn forge(&self, forgery: &Forgery, claims: &Value) -> String {
        let mut state = self.0.state.lock().unwrap();
        state.minted += 1;
        forgery.token(&state.keys[0], claims)
    }

    /// The id of the newest key.
    pub fn key_id(&self) -> String {
        self.0.state.lock().unwrap().keys[0].id.clone()
    }

    /// How many keys it can sign with.
    pub fn key_count(&self) -> usize {
        self.0.state.lock().unwrap().keys.len()
    }

    /// The key set as it is published.
    pub fn key_set(&self) -> Value {
        self.0.state.lock().unwrap().set()
    }

    /// Changes keys; the kind stays.
    pub fn rotate(&self, rotation: Rotation) {
        self.0.state.lock().unwrap().rotate(rotation);
    }

    /// Adds a key of this kind, which signs from now on.
    pub fn add_key(&self, algorithm: Algorithm) {
        self.0.state.lock().unwrap().add_key(algorithm);
    }

    /// Publishes this beside the keys.
    pub fn publish(&self, member: Value) {
        self.0.state.lock().unwrap().more.push(member);
    }

    /// Publishes an unusable key beside the good ones.
    pub fn poison(&self, poison: Poison) {
        self.publish(poison.jwk());
    }

    /// Whether changes of the keys are kept back: the set stays as it is now, tokens are signed with new keys.
    pub fn freeze(&self, is_frozen: bool) {
        let mut state = self.0.state.lock().unwrap();
        state.frozen = is_frozen.then(|| state.live());
    }

    /// Breaks the key set's address, or mends it.
    pub fn fault(&self, fault: Option<Fault>) {
        self.0.state.lock().unwrap().fault = fault;
    }

    /// Says this about versions of the set.
    pub fn etag(&self, etag: Etag) {
        self.0.state.lock().unwrap().etag = etag;
    }

    /// Sends this header with the key set, in place of one of the same name.
    pub fn header(&self, name: &str, value: &str) {
        let headers = &mut self.0.state.lock().unwrap().headers;
        headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        headers.push((name.to_owned(), value.to_owned()));
    }

    /// Sends this `Cache-Control` with the key set.
    pub fn cache_control(&self, value: &str) {
        self.header("cache-control", value);
    }

    /// Puts its clock this far ahead, in seconds: what [`Issuer::claims`] says moves with it.
    pub fn skew(&self, seconds: i64) {
        self.0.state.lock().unwrap().skew = seconds;
    }

    /// How often the key set was asked for.
    pub fn hits(&self) -> u64 {
        self.0.state.lock().unwrap().hits
    }

    /// How often its discovery document was asked for.
    pub fn discoveries(&self) -> u64 {
        self.0.state.lock().unwrap().discoveries
    }

    /// How many tokens it has minted.
    pub fn minted(&self) -> u64 {
        self.0.state.lock().unwrap().minted
    }

    /// Whether its port is open.
    pub fn is_alive(&self) -> bool {
        self.0.server.lock().unwrap().is_some()
    }

    /// Closes the port and every connection.
    pub async fn die(&mut self) {
        self.0.die().await;
    }

    /// Opens the same port again.
    ///
    /// # Panics
    /// If it cannot be bound.
    pub async fn revive(&mut self) {
        self.0.revive().await;
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        if let Some(server) = &*self.0.server.lock().unwrap() {
            server.abort();
        }
    }
}
