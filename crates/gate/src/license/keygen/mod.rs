//! Keygen as the provider of licenses.
//!
//! Answers are signed by the account, whose keys are pinned; only what was signed for this very question, lately, counts.
//! What carries no signature (429, errors of proxies, an account that is not there) says nothing about a license.
//!
//! # What is asked
//!
//! For a user: who has the mail address, unless the subject is known; their licenses for the product; and a *quick
//! validation* of the best of them, since the verdict is `meta.valid` and not the status that people see. A quick
//! validation is a GET: it judges no scope, sends no event to webhook endpoints (so a webhook's handler may cause one
//! without feeding itself) and changes nothing but `lastValidated`. The full validation by POST, with a nonce and the
//! product as scope, is [`KeygenProvider::validate`], for somebody who asks about one license by hand.
//!
//! # Version
//!
//! [`VERSION`] is pinned: the account's default may change at any time, and with it names of members. 1.7 is the
//! oldest that has everything used here; 1.8 differs only in the errors of password sign-ins, which nobody does here,
//! and servers that do not know it yet would refuse everything.

mod answer;
mod choose;
#[cfg(feature = "sign-in")]
mod directory;
mod inspect;
mod users;

use std::{fmt, sync::Arc, time::Duration};

use doorward_core::{
    keygen::{AccountKeys, License, Validation, read_entitlements},
    license::{LicenseState, Observation},
    secret::Secret,
    time::{Now, Timestamp},
};
use http::Method;
use serde_json::json;

pub use self::{inspect::Inspection, users::Enrolled};
use super::{
    http::{Connection, ConnectionError, Endpoint, encode},
    provider::{ASK_TIMEOUT, Answering, LicenseProvider, Question},
    trouble::Trouble,
};
use crate::clock::Clock;

/// `Keygen-Version` of every question.
pub const VERSION: &str = "1.7";
/// How far the signed date of an answer may be from our clock, on either side.
pub const FRESHNESS: Duration = Duration::from_secs(300);

/// Entries that are asked for at once; the most that Keygen gives.
const PAGE: usize = 100;
/// Pages that are read of one list.
const MAX_PAGES: usize = 3;
/// Licenses of one user that are validated for one question.
const MAX_VALIDATED: usize = 3;

/// An account of a Keygen server.
#[derive(Clone, Debug)]
pub struct KeygenConfig {
    /// Where the server is; the token should be one of the product.
    pub endpoint: Endpoint,
    /// Id of the account: a UUID, since that is what signatures name.
    pub account: String,
    /// Id of the product.
    pub product: String,
    /// The account's keys.
    pub keys: AccountKeys,
}

/// A license, named by whoever asks about it.
#[derive(Debug)]
pub enum LicenseName {
    /// Its id.
    Id(String),
    /// Its key.
    Key(Secret<String>),
}

/// Asks Keygen. A cheap handle.
#[derive(Clone)]
pub struct KeygenProvider(Arc<Inner>);

struct Inner {
    connection: Connection,
    account: String,
    product: String,
    keys: AccountKeys,
    clock: Clock,
}

impl KeygenProvider {
    /// Sets it up. Nothing is asked.
    ///
    /// # Errors
    /// Misconfiguration.
    pub fn new(config: KeygenConfig, clock: Clock) -> Result<Self, ConnectionError> {
        let KeygenConfig { endpoint, account, product, keys } = config;
        let connection = Connection::new(&endpoint)?;
        Ok(Self(Arc::new(Inner { connection, account, product, keys, clock })))
    }

    /// Asks about one license, with a nonce and the product as scope. The server tells its webhook endpoints, and a
    /// license whose time starts with the first validation starts: this is for people who ask, not for requests.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn validate(&self, name: &LicenseName) -> Result<Observation, Trouble> {
        in_time(self.0.validate(name)).await
    }
}

impl fmt::Debug for KeygenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { connection, account, product, keys, .. } = &*self.0;
        let mut shown = f.debug_struct("KeygenProvider");
        shown.field("connection", connection).field("account", account).field("product", product).field("keys", keys);
        shown.finish()
    }
}

impl LicenseProvider for KeygenProvider {
    fn name(&self) -> &'static str {
        "keygen"
    }

    fn ask(&self, question: Question, _: Now) -> Answering {
        let inner = Arc::clone(&self.0);
        // How fresh an answer is, is judged when it is here.
        Box::pin(async move { Ok(in_time(inner.ask(&question)).await?) })
    }

    fn is_per_user(&self) -> bool {
        true
    }
}

/// Everything that one question takes, bounded.
async fn in_time<T>(work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    tokio::time::timeout(ASK_TIMEOUT, work).await.unwrap_or(Err(Trouble::TimedOut))
}

/// "No license", said at that time.
fn none(observed_at: Timestamp) -> Observation {
    Observation {
        state: LicenseState::None,
        license_id: None,
        expires_at: None,
        entitlements: Default::default(),
        observed_at,
    }
}

impl Inner {
    /// The target of something of the account's.
    fn target(&self, rest: impl fmt::Display) -> String {
        format!("/v1/accounts/{}{rest}", encode(&self.account))
    }

    async fn ask(&self, question: &Question) -> Result<Observation, Trouble> {
        let subject = match (&question.subject, &question.email) {
            (Some(subject), _) => subject.clone(),
            (None, Some(email)) => match self.find_user(email.as_str()).await? {
                (Some(user), _) => user.id,
                (None, at) => return Ok(none(at)),
            },
            (None, None) => match &question.license_id {
                Some(id) => return self.entitled(self.quick(id).await?).await,
                // Somebody whom the provider cannot know has no license there.
                None => return Ok(none(self.clock.now().wall)),
            },
        };
        self.best_of(&subject).await
    }

    /// The best license of a user: the first that is usable, in the order of [`choose`].
    async fn best_of(&self, subject: &str) -> Result<Observation, Trouble> {
        let (licenses, at) = self.licenses_of(subject).await?;
        let mut best = none(at);
        for license in choose::in_order(licenses).iter().take(MAX_VALIDATED) {
            let observation = self.quick(&license.id).await?;
            if choose::rank(observation.state) < choose::rank(best.state) {
                best = observation;
            }
            if choose::rank(best.state) == 0 {
                break;
            }
        }
        self.entitled(best).await
    }

    /// A user's licenses for the product, owned or shared; the newest [`PAGE`] × [`MAX_PAGES`] of them. Also when this
    /// was said.
    async fn licenses_of(&self, subject: &str) -> Result<(Vec<License>, Timestamp), Trouble> {
        let (subject, product) = (encode(subject).to_string(), encode(&self.product).to_string());
        let mut licenses = Vec::new();
        let mut said_at = Timestamp::EPOCH;
        for page in 1..=MAX_PAGES {
            let target = self.target(format_args!("/licenses?user={subject}&product={product}&{}", paging(page)));
            // Newer servers answer 404 where the user is none of theirs.
            let (said, at) = self.say(Method::GET, &target, None).await?.found();
            said_at = at;
            let Some(said) = said else { break };
            let read = License::read_list(&said).map_err(Trouble::shape)?;
            let is_last = read.len() < PAGE;
            licenses.extend(read.into_iter().filter(|license| self.is_ours(license)));
            if is_last {
                return Ok((licenses, said_at));
            }
        }
        Ok((licenses, said_at))
    }

    fn is_ours(&self, license: &License) -> bool {
        license.product.as_ref().is_none_or(|product| *product == self.product)
    }

    /// The verdict on a license by a quick validation.
    async fn quick(&self, id: &str) -> Result<Observation, Trouble> {
        let target = self.target(format_args!("/licenses/{}/actions/validate", encode(id)));
        let (said, at) = self.say(Method::GET, &target, None).await?.found();
        let Some(said) = said else { return Ok(none(at)) };
        let validation = Validation::read(&said).map_err(Trouble::shape)?;
        Ok(self.observed(validation, at))
    }

    async fn validate(&self, name: &LicenseName) -> Result<Observation, Trouble> {
        // A number that every reader of JSON reads alike (RFC 8259 §6).
        let nonce = u64::from_be_bytes(self.clock.random()) >> 11;
        let mut meta = json!({ "nonce": nonce, "scope": { "product": self.product } });
        let target = match name {
            LicenseName::Id(id) => self.target(format_args!("/licenses/{}/actions/validate", encode(id))),
            LicenseName::Key(key) => {
                meta["key"] = key.expose().as_str().into();
                self.target("/licenses/actions/validate-key")
            }
        };
        let (said, at) = self.say(Method::POST, &target, Some(&json!({ "meta": meta }))).await?.found();
        let Some(said) = said else { return Ok(none(at)) };
        let validation = Validation::read(&said).map_err(Trouble::shape)?;
        if validation.nonce != Some(nonce) {
            return Err(Trouble::OtherNonce);
        }
        self.entitled(self.observed(validation, at)).await
    }

    /// What a validation says here. Every observation carries the signed date, whatever its body holds beside it: one
    /// clock, in whole seconds, orders them all.
    fn observed(&self, validation: Validation, at: Timestamp) -> Observation {
        let is_ours = validation.license.as_ref().is_none_or(|license| self.is_ours(license));
        let observation = validation.observe();
        let state = if is_ours { observation.state } else { LicenseState::Invalid };
        Observation { state, observed_at: at, ..observation }
    }

    /// Adds the entitlements of a license that opens anything.
    async fn entitled(&self, mut observation: Observation) -> Result<Observation, Trouble> {
        let opens = matches!(
            observation.state,
            LicenseState::Active | LicenseState::ActiveBeyondExpiry | LicenseState::Expired
        );
        let Some(id) = observation.license_id.as_ref().filter(|_| opens) else { return Ok(observation) };
        for page in 1..=MAX_PAGES {
            let target = self.target(format_args!("/licenses/{}/entitlements?{}", encode(id), paging(page)));
            let (said, at) = self.say(Method::GET, &target, None).await?.found();
            // Gone since a moment ago.
            let Some(said) = said else { return Ok(none(at)) };
            let codes = read_entitlements(&said).map_err(Trouble::shape)?;
            let is_last = codes.len() < PAGE;
            observation.entitlements.extend(codes);
            if is_last {
                break;
            }
        }
        Ok(observation)
    }
}

/// `page[number]=…&page[size]=…`
fn paging(page: usize) -> String {
    format!("page%5Bnumber%5D={page}&page%5Bsize%5D={PAGE}")
}

#[cfg(test)]
mod tests;
