//! What an issuer knows and counts; shared by its handle, its server and its control routes.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};

use super::{
    Rotation, answer,
    fault::Fault,
    key::{Algorithm, Key},
};

/// What is said about versions of the key set (RFC 9110 §8.8.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Etag {
    /// Nothing.
    #[default]
    None,
    /// A tag that changes with the set, and 304 where it is the same.
    Honest,
    /// One tag for ever, and 304 to whoever names it, though the set has changed.
    Lying,
}

/// An issuer without its handle.
pub(super) struct Shared {
    pub(super) address: SocketAddr,
    /// Nobody else gets the port while it is closed.
    pub(super) _place: TcpSocket,
    pub(super) state: Mutex<State>,
    pub(super) server: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    pub(super) async fn die(&self) {
        let server = self.server.lock().unwrap().take();
        if let Some(server) = server {
            server.abort();
            server.await.ok();
        }
    }

    pub(super) async fn revive(self: &Arc<Self>) {
        if self.server.lock().unwrap().is_some() {
            return;
        }
        let listener = TcpListener::bind(self.address).await.unwrap();
        *self.server.lock().unwrap() = Some(answer::serve(listener, self));
    }
}

/// Everything that can change.
#[derive(Default)]
pub(super) struct State {
    /// The first one signs.
    pub(super) keys: Vec<Key>,
    /// Published beside them as they are.
    pub(super) more: Vec<Value>,
    /// Published instead, while changes are kept back.
    pub(super) frozen: Option<Value>,
    /// The set before keys last changed.
    pub(super) before: Option<Value>,
    made: u32,
    pub(super) fault: Option<Fault>,
    pub(super) etag: Etag,
    /// Sent with the key set.
    pub(super) headers: Vec<(String, String)>,
    /// How far its clock is ahead, in seconds.
    pub(super) skew: i64,
    /// How often the key set was asked for.
    pub(super) hits: u64,
    /// How often discovery was asked for.
    pub(super) discoveries: u64,
    /// How many tokens were minted.
    pub(super) minted: u64,
}

impl State {
    /// The set as it would be published if nothing were kept back.
    pub(super) fn live(&self) -> Value {
        let keys: Vec<Value> = self.keys.iter().map(Key::jwk).chain(self.more.iter().cloned()).collect();
        json!({ "keys": keys })
    }

    /// The set as it is published.
    pub(super) fn set(&self) -> Value {
        self.frozen.clone().unwrap_or_else(|| self.live())
    }

    /// The version of the set as its tag tells it.
    pub(super) fn tag(&self) -> Option<String> {
        match self.etag {
            Etag::None => None,
            Etag::Lying => Some("\"always\"".to_owned()),
            Etag::Honest => {
                let mut hasher = DefaultHasher::new();
                self.set().to_string().hash(&mut hasher);
                Some(format!("\"{:x}\"", hasher.finish()))
            }
        }
    }

    pub(super) fn rotate(&mut self, rotation: Rotation) {
        let (algorithm, old_id) = (self.keys[0].algorithm, self.keys[0].id.clone());
        self.before = Some(self.live());
        if rotation != Rotation::Overlap {
            self.keys.clear();
        }
        let id = self.next_id();
        let id = if rotation == Rotation::SameId { old_id } else { id };
        self.keys.insert(0, Key::generate(id, algorithm));
    }

    pub(super) fn add_key(&mut self, algorithm: Algorithm) {
        self.before = Some(self.live());
        let id = self.next_id();
        self.keys.insert(0, Key::generate(id, algorithm));
    }

    fn next_id(&mut self) -> String {
        self.made += 1;
        format!("k{}", self.made)
    }
}
