//! A license server on loopback that answers as Keygen does: signed, with the faults that the network and people add.
//!
//! It plays the parts of the API that a gate asks, from Keygen's documented behaviour: accounts in the path, JSON:API
//! documents, a verdict beside a display status, signatures over target, host, date and digest. As a hub it also
//! answers `validate-key` with a license JWT. [`LicenseServer::webhook`] makes the events that it would send.

mod answer;
pub mod control;
mod delivery;
mod fault;
pub mod hub;
mod route;
mod sign;
mod state;

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};

pub use self::{
    delivery::Delivery,
    fault::Fault,
    sign::Algorithm,
    state::{Heard, License, OnExpiry, User},
};
use self::{sign::Keys, state::State};
use crate::port;

/// Id of the account that it serves.
pub const ACCOUNT: &str = "5c1f0c1e-0000-4000-8000-000000000001";
/// Id of the product that its licenses are for, unless a test says otherwise.
pub const PRODUCT: &str = "5c1f0c1e-0000-4000-8000-000000000002";
/// A token of the product, which may ask everything.
pub const PRODUCT_TOKEN: &str = "prod-0123456789abcdef0123456789abcdef-testkit-v3";
/// A token of a user, which may not.
pub const USER_TOKEN: &str = "user-0123456789abcdef0123456789abcdef-testkit-v3";

/// A license server. Dropping it closes its port.
pub struct LicenseServer(Arc<Shared>);

/// Its clock: milliseconds since the Unix epoch.
type Time = Box<dyn Fn() -> i64 + Send + Sync>;
/// Mints the license JWT of a hub.
type Mint = Box<dyn Fn(&License, Option<&User>) -> Option<String> + Send + Sync>;

struct Shared {
    address: SocketAddr,
    /// Nobody else gets the port while it is closed.
    _place: TcpSocket,
    time: Time,
    keys: Keys,
    other_keys: Keys,
    state: Mutex<State>,
    controls: Mutex<Controls>,
    server: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Controls {
    fault: Option<Fault>,
    /// How far its clock is ahead, in milliseconds.
    skew: i64,
    /// The only host that it answers for, and only over TLS or a proxy that says so.
    public_host: Option<String>,
    mint: Option<Mint>,
    /// The last good answer to each question.
    recorded: HashMap<String, answer::Recorded>,
    deliveries: u64,
}

impl Shared {
    fn now(&self) -> i64 {
        (self.time)() + self.controls.lock().unwrap().skew
    }
}

impl LicenseServer {
    /// Starts one whose clock shows what `time` says, in milliseconds since the Unix epoch.
    ///
    /// # Panics
    /// If no port can be bound.
    pub async fn start(time: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), time).await
    }

    /// Starts one at this address, whose clock shows what `time` says, in milliseconds since the Unix epoch.
    ///
    /// # Panics
    /// If the address cannot be bound.
    pub async fn listen(address: SocketAddr, time: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        let (place, address) = port::hold(address);
        let listener = TcpListener::bind(address).await.unwrap();
        let shared = Arc::new(Shared {
            address,
            _place: place,
            time: Box::new(time),
            keys: Keys::generate(),
            other_keys: Keys::generate(),
            state: Mutex::default(),
            controls: Mutex::default(),
            server: Mutex::new(None),
        });
        *shared.server.lock().unwrap() = Some(answer::serve(listener, &shared));
        Self(shared)
    }

    /// Base URL of its API.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The account's public key for this algorithm, as its dashboard shows it: hex, or DER in base64.
    pub fn public_key(&self, algorithm: Algorithm) -> String {
        self.0.keys.public(algorithm)
    }

    /// `[license]` for this server.
    pub fn toml(&self) -> String {
        format!(
            "[license]\nprovider = \"keygen\"\napi_url = \"{}\"\naccount = \"{ACCOUNT}\"\nproduct = \"{PRODUCT}\"\n\
             token = \"{PRODUCT_TOKEN}\"\npublic_keys = [\"{}\"]\n",
            self.url(),
            self.public_key(Algorithm::Ed25519)
        )
    }

    /// A new user; the id.
    pub fn user(&self, email: &str) -> String {
        self.0.state.lock().unwrap().add_user(email)
    }

    /// A new license of this user for [`PRODUCT`], without an end; the id.
    pub fn license(&self, owner: &str) -> String {
        self.0.state.lock().unwrap().add_license(Some(owner.to_owned()))
    }

    /// Changes a license in any way.
    ///
    /// # Panics
    /// If there is none with this id.
    pub fn change<T>(&self, license: &str, change: impl FnOnce(&mut License) -> T) -> T {
        change(self.0.state.lock().unwrap().licenses.get_mut(license).unwrap())
    }

    /// Changes a user in any way.
    ///
    /// # Panics
    /// If there is none with this id.
    pub fn change_user<T>(&self, user: &str, change: impl FnOnce(&mut User) -> T) -> T {
        change(self.0.state.lock().unwrap().users.get_mut(user).unwrap())
    }

    /// Suspends a license.
    pub fn suspend(&self, license: &str) {
        self.change(license, |license| license.is_suspended = true);
    }

    /// Takes a suspension back.
    pub fn reinstate(&self, license: &str) {
        self.change(license, |license| license.is_suspended = false);
    }

    /// Lets a license end that many seconds from now; a negative number lets it have ended.
    pub fn ends_in(&self, license: &str, seconds: i64) {
        let end = self.0.now() + seconds * 1000;
        self.change(license, |license| license.expiry = Some(end));
    }

    /// The id of the license with this id or key.
    pub fn find_license(&self, name: &str) -> Option<String> {
        self.0.state.lock().unwrap().find_license(name)
    }

    /// The id of the user with this id or mail address.
    pub fn find_user(&self, name: &str) -> Option<String> {
        self.0.state.lock().unwrap().find_user(&name.to_ascii_lowercase()).map(|user| user.id.clone())
    }

    /// Gives a license another 30 days from now.
    pub fn renew(&self, license: &str) {
        self.ends_in(license, 30 * 86_400);
    }

    /// Bans a user, and with them the licenses that they own.
    pub fn ban(&self, user: &str) {
        self.change_user(user, |user| user.is_banned = true);
    }

    /// Takes a ban back.
    pub fn unban(&self, user: &str) {
        self.change_user(user, |user| user.is_banned = false);
    }

    /// Gives a license an entitlement.
    pub fn entitle(&self, license: &str, code: &str) {
        self.change(license, |license| license.entitlements.push(code.to_owned()));
    }

    /// Revokes a license: it is gone.
    pub fn revoke(&self, license: &str) {
        self.0.state.lock().unwrap().licenses.remove(license);
    }

    /// Deletes a user and what they own.
    pub fn delete_user(&self, user: &str) {
        self.0.state.lock().unwrap().delete_user(user);
    }

    /// The key of a license.
    pub fn key_of(&self, license: &str) -> String {
        self.change(license, |license| license.key.clone())
    }

    /// Answers `validate-key` as a hub does: with a license JWT from `mint` in `meta.token`, none where it gives none.
    /// The list of users then has a filter by mail address.
    pub fn be_hub(&self, mint: impl Fn(&License, Option<&User>) -> Option<String> + Send + Sync + 'static) {
        self.0.controls.lock().unwrap().mint = Some(Box::new(mint));
    }

    /// Breaks its answers, or mends them.
    pub fn fault(&self, fault: Option<Fault>) {
        self.0.controls.lock().unwrap().fault = fault;
    }

    /// Puts its clock this far ahead, in seconds.
    pub fn skew(&self, seconds: i64) {
        self.0.controls.lock().unwrap().skew = seconds * 1000;
    }

    /// Behaves as in production: answers for this host alone, and redirects what did not come over TLS.
    pub fn in_production(&self, host: &str) {
        self.0.controls.lock().unwrap().public_host = Some(host.to_owned());
    }

    /// How many requests reached it.
    pub fn hits(&self) -> usize {
        self.0.state.lock().unwrap().hits
    }

    /// The requests that reached it, without their secrets; of very many the newest.
    pub fn heard(&self) -> Vec<Heard> {
        self.0.state.lock().unwrap().heard.iter().cloned().collect()
    }

    /// How many validations it told its webhook endpoints of.
    pub fn validation_events(&self) -> u64 {
        self.0.state.lock().unwrap().validation_events
    }

    /// The event about a license as it is now, as it would be posted to `url`.
    ///
    /// # Panics
    /// If there is no such license, or `url` is none.
    pub fn webhook(&self, url: &str, event: &str, license: &str) -> Delivery {
        let now = self.0.now();
        let payload = self.0.state.lock().unwrap().license_document(license, now).unwrap();
        self.event(url, event, &payload)
    }

    /// Any event with this payload, as it would be posted to `url`.
    ///
    /// # Panics
    /// If `url` is none.
    pub fn event(&self, url: &str, event: &str, payload: &Value) -> Delivery {
        let number = {
            let mut controls = self.0.controls.lock().unwrap();
            controls.deliveries += 1;
            controls.deliveries
        };
        delivery::deliver(&self.0.keys, self.0.now(), number, url, event, payload)
    }

    /// The same event once more, as a second attempt brings it: same body, new date and signature.
    pub fn again(&self, delivery: &Delivery) -> Delivery {
        delivery::sign(&self.0.keys, self.0.now(), delivery.clone())
    }

    /// Whether its port is open.
    pub fn is_alive(&self) -> bool {
        self.0.server.lock().unwrap().is_some()
    }

    /// Closes the port and every connection.
    pub async fn die(&self) {
        let server = self.0.server.lock().unwrap().take();
        if let Some(server) = server {
            server.abort();
            server.await.ok();
        }
    }

    /// Opens the same port again.
    ///
    /// # Panics
    /// If somebody else took it.
    pub async fn revive(&self) {
        if self.is_alive() {
            return;
        }
        let listener = TcpListener::bind(self.0.address).await.unwrap();
        *self.0.server.lock().unwrap() = Some(answer::serve(listener, &self.0));
    }
}

impl Drop for LicenseServer {
    fn drop(&mut self) {
        if let Some(server) = &*self.0.server.lock().unwrap() {
            server.abort();
        }
    }
}

#[cfg(test)]
mod tests;
