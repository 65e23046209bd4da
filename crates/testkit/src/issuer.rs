//! An issuer of tokens on loopback: mints whatever it is told to, rotates its keys, and fails on demand.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    rsa::{self, KeySize},
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519.
    EdDsa,
    /// P-256.
    Es256,
    /// RSA with 2048 bits, PKCS#1 v1.5.
    Rs256,
}

impl Algorithm {
    /// The name in a header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// How keys change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The old keys stay published.
    Overlap,
    /// The old keys are gone at once.
    Abrupt,
    /// New material under the old id.
    SameId,
}

/// What is wrong with the key set's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status, no keys.
    Status(u16),
    /// The right answer, that much later.
    Slow(Duration),
    /// A cut-off document.
    Garbage,
    /// A set without keys.
    Empty,
    /// A page for people, with status 200.
    Html,
    /// A redirect to this address.
    Redirect(String),
    /// A document of this many bytes.
    Large(usize),
}

enum Signer {
    EdDsa(Ed25519KeyPair),
    Es256(EcdsaKeyPair),
    Rs256(rsa::KeyPair),
}

struct Key {
    id: String,
    algorithm: Algorithm,
    signer: Signer,
}

struct State {
    /// The first one signs.
    keys: Vec<Key>,
    made: u32,
    fault: Option<Fault>,
    cache_control: Option<String>,
    hits: u64,
}

/// An issuer. Dropping it closes its port.
pub struct Issuer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: Option<JoinHandle<()>>,
}

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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { keys: Vec::new(), made: 0, fault: None, cache_control: None, hits: 0 };
        let mut issuer = Self { address, state: Arc::new(Mutex::new(state)), server: None };
        issuer.add_key(algorithm);
        issuer.server = Some(serve(listener, Arc::clone(&issuer.state)));
        issuer
    }

    /// `iss`: its origin.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Address of its key set.
    pub fn jwks_url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    /// Good claims for `audience` at this time, in seconds since the Unix epoch.
    pub fn claims(&self, audience: &str, now: i64) -> Value {
        json!({"iss": self.url(), "sub": "subject-1", "aud": audience, "iat": now, "exp": now + 300})
    }

    /// Mints a token with the newest key.
    pub fn mint(&self, claims: &Value) -> String {
        self.mint_with(&json!({}), claims)
    }

    /// Mints a token with the newest key; members of `header` replace the usual ones, null removes.
    pub fn mint_with(&self, header: &Value, claims: &Value) -> String {
        let state = self.state.lock().unwrap();
        let key = &state.keys[0];
        let mut protected = json!({"alg": key.algorithm.as_str(), "kid": key.id, "typ": "at+jwt"});
        for (name, value) in header.as_object().unwrap() {
            if value.is_null() {
                protected.as_object_mut().unwrap().remove(name);
            } else {
                protected[name] = value.clone();
            }
        }
        sign(key, &protected, claims)
    }

    /// The id of the newest key.
    pub fn key_id(&self) -> String {
        self.state.lock().unwrap().keys[0].id.clone()
    }

    /// The key set as it is published.
    pub fn key_set(&self) -> Value {
        set(&self.state.lock().unwrap())
    }

    /// Changes keys; the kind stays.
    pub fn rotate(&self, rotation: Rotation) {
        let mut state = self.state.lock().unwrap();
        let (algorithm, old_id) = (state.keys[0].algorithm, state.keys[0].id.clone());
        if rotation != Rotation::Overlap {
            state.keys.clear();
        }
        state.made += 1;
        let id = if rotation == Rotation::SameId { old_id } else { format!("k{}", state.made) };
        state.keys.insert(0, Key { id, algorithm, signer: generate(algorithm) });
    }

    /// Adds a key of this kind, which signs from now on.
    pub fn add_key(&self, algorithm: Algorithm) {
        let mut state = self.state.lock().unwrap();
        state.made += 1;
        let id = format!("k{}", state.made);
        state.keys.insert(0, Key { id, algorithm, signer: generate(algorithm) });
    }

    /// Breaks the key set's address, or mends it.
    pub fn fault(&self, fault: Option<Fault>) {
        self.state.lock().unwrap().fault = fault;
    }

    /// Sends this `Cache-Control` with the key set.
    pub fn cache_control(&self, value: &str) {
        self.state.lock().unwrap().cache_control = Some(value.to_owned());
    }

    /// How often the key set was asked for.
    pub fn hits(&self) -> u64 {
        self.state.lock().unwrap().hits
    }

    /// Closes the port and every connection.
    pub async fn die(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            server.await.ok();
        }
    }

    /// Opens the same port again.
    ///
    /// # Panics
    /// If somebody else took it.
    pub async fn revive(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.server = Some(serve(listener, Arc::clone(&self.state)));
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

fn serve(listener: TcpListener, state: Arc<Mutex<State>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        // Dropped with this task, and all connections with it.
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let state = Arc::clone(&state);
            connections.spawn(async move {
                let service = service_fn(|request| answer(request, Arc::clone(&state)));
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
            });
            while connections.try_join_next().is_some() {}
        }
    })
}

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/jwks.json" {
        return Ok(response(StatusCode::NOT_FOUND, "text/plain", "not found"));
    }
    let (fault, cache_control) = {
        let mut state = state.lock().unwrap();
        state.hits += 1;
        (state.fault.clone(), state.cache_control.clone())
    };
    let keys = || set(&state.lock().unwrap()).to_string();
    let json = "application/jwk-set+json";
    let mut response = match fault {
        Some(Fault::Status(status)) => response(StatusCode::from_u16(status).unwrap(), "text/plain", "no"),
        Some(Fault::Garbage) => response(StatusCode::OK, json, "{\"keys\":[{"),
        Some(Fault::Empty) => response(StatusCode::OK, json, "{\"keys\":[]}"),
        Some(Fault::Html) => response(StatusCode::OK, "text/html", "<!doctype html><title>Sign in</title>"),
        Some(Fault::Large(bytes)) => response(StatusCode::OK, json, " ".repeat(bytes)),
        Some(Fault::Redirect(to)) => {
            let mut response = response(StatusCode::FOUND, "text/plain", "over there");
            response.headers_mut().insert(header::LOCATION, to.parse().unwrap());
            response
        }
        Some(Fault::Slow(pause)) => {
            tokio::time::sleep(pause).await;
            response(StatusCode::OK, json, keys())
        }
        None => response(StatusCode::OK, json, keys()),
    };
    if let Some(value) = cache_control {
        response.headers_mut().insert(header::CACHE_CONTROL, value.parse().unwrap());
    }
    Ok(response)
}

fn response(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let builder = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
    builder.body(Full::new(body.into())).unwrap()
}

fn set(state: &State) -> Value {
    json!({ "keys": state.keys.iter().map(jwk).collect::<Vec<_>>() })
}

fn generate(algorithm: Algorithm) -> Signer {
    match algorithm {
        Algorithm::EdDsa => Signer::EdDsa(Ed25519KeyPair::generate().unwrap()),
        Algorithm::Es256 => Signer::Es256(EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
        Algorithm::Rs256 => Signer::Rs256(rsa::KeyPair::generate(KeySize::Rsa2048).unwrap()),
    }
}

fn jwk(key: &Key) -> Value {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let mut jwk = match &key.signer {
        Signer::EdDsa(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())}),
        Signer::Es256(pair) => {
            // 04 ‖ x ‖ y (SEC 1 §2.3.3).
            let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
            json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)})
        }
        Signer::Rs256(pair) => {
            // SubjectPublicKeyInfo of a 2048-bit key ends with 256 bytes of modulus and INTEGER 65537.
            let der = pair.public_key().as_der().unwrap();
            let modulus = &der.as_ref()[der.as_ref().len() - 5 - 256..der.as_ref().len() - 5];
            json!({"kty": "RSA", "n": encode(modulus), "e": "AQAB"})
        }
    };
    jwk["kid"] = json!(key.id);
    jwk["alg"] = json!(key.algorithm.as_str());
    jwk["use"] = json!("sig");
    jwk
}

#[allow(clippy::disallowed_methods, reason = "test keys only; the library wants a generator for RSA and ECDSA")]
fn sign(key: &Key, header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let input = format!("{}.{}", encode(header), encode(claims));
    let random = SystemRandom::new();
    let signature = match &key.signer {
        Signer::EdDsa(pair) => pair.sign(input.as_bytes()).as_ref().to_vec(),
        Signer::Es256(pair) => pair.sign(&random, input.as_bytes()).unwrap().as_ref().to_vec(),
        Signer::Rs256(pair) => {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(&signature::RSA_PKCS1_SHA256, &random, input.as_bytes(), &mut signature).unwrap();
            signature
        }
    };
    format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}
