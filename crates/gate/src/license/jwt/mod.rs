//! A hub that answers for licenses with license JWTs.
//!
//! # Which license is asked about
//! The one whose id the store knows, which the hub's webhook or an import told; the hub takes it as the key of
//! `validate-key`. A user without one has no license here: nobody is asked.
//!
//! # What counts
//! The token in `meta.token`, verified as any token of the named `[[issuers]]` entry is: keys, `iss`, `aud`, times. It
//! must be about the user who asks. Its `iat` is the moment at which the hub said so. Its `exp` bounds how long the token
//! can be presented, to us in this answer or to anybody, and is not the end of the license: that is the claim which the
//! configuration names, from which the grace counts, and a license without it has no end that is known here. An answer *without* a token can only take away: `meta.valid` that is
//! `false` is believed, since the connection is the hub's; `true` is not.
//!
//! A token that cannot be verified (no keys, unknown key, wrong signature) is a fault and says nothing of the license; one
//! that is verified and does not fit (another audience, another subject) is a license that does not count here.

#[cfg(feature = "sign-in")]
mod directory;
mod said;

use std::{fmt, sync::Arc};

use doorward_core::{
    keygen::{ApiError, User},
    license::{Holder, LicenseState, Observation},
    time::Now,
    user::Email,
};
use http::Method;
use serde_json::{Map, Value, json};

use self::said::{Answer, Said};
use super::{
    http::{Connection, ConnectionError, Endpoint, Reply, encode},
    keygen::Enrolled,
    provider::{ASK_TIMEOUT, Answering, LicenseProvider, ProviderFault, Question},
    trouble::Trouble,
};
use crate::{clock::Clock, issuer::Issuers};

/// A hub.
#[derive(Clone, Debug)]
pub struct JwtConfig {
    /// Where it is; the token is the one for its portal.
    pub endpoint: Endpoint,
    /// The account in its paths.
    pub account: String,
    /// The product that is asked about; license JWTs must name it in `aud`.
    pub product: Option<String>,
    /// Name of the issuer whose keys verify license JWTs.
    pub issuer: String,
    /// Claim in which a license JWT states the end of the license; `exp` where hubs make tokens last as long.
    pub end_claim: String,
    /// Where that issuer is found.
    pub issuers: Issuers,
}

/// Asks a hub. A cheap handle.
#[derive(Clone)]
pub struct JwtProvider(Arc<Inner>);

struct Inner {
    connection: Connection,
    account: String,
    product: Option<String>,
    issuer: String,
    end_claim: String,
    issuers: Issuers,
    clock: Clock,
}

impl JwtProvider {
    /// Sets it up. Nothing is asked. Tokens are judged by `clock`.
    ///
    /// # Errors
    /// Misconfiguration.
    pub fn new(config: JwtConfig, clock: Clock) -> Result<Self, ConnectionError> {
        let JwtConfig { endpoint, account, product, issuer, end_claim, issuers } = config;
        let connection = Connection::new(&endpoint)?;
        Ok(Self(Arc::new(Inner { connection, account, product, issuer, end_claim, issuers, clock })))
    }

    /// The user with this mail address.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn find_user(&self, email: &Email) -> Result<Option<User>, Trouble> {
        in_time(self.0.find_user(email.as_str())).await
    }

    /// Makes a user without a password (B23); `metadata` is kept beside them. Asking twice is harmless: nothing is made
    /// where the address is known.
    ///
    /// # Errors
    /// [`Trouble`]; after one that leaves open whether it was done, ask again.
    pub async fn create_user(&self, email: &Email, metadata: Map<String, Value>) -> Result<Enrolled, Trouble> {
        in_time(self.0.create_user(email.as_str(), metadata)).await
    }

    /// Asks about a license that does not exist: whether the hub is there, takes our token and answers in its form.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn inspect(&self) -> Result<(), Trouble> {
        let asked = async {
            let reply = self.0.ask_about("doorward-check").await?;
            Answer::read(reply.text()).map(drop)
        };
        in_time(asked).await
    }
}

impl fmt::Debug for JwtProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { connection, account, product, issuer, .. } = &*self.0;
        let mut shown = f.debug_struct("JwtProvider");
        shown.field("connection", connection).field("account", account).field("product", product);
        shown.field("issuer", issuer).finish_non_exhaustive()
    }
}

impl LicenseProvider for JwtProvider {
    fn name(&self) -> &'static str {
        "jwt"
    }

    fn ask(&self, question: Question, now: Now) -> Answering {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            match tokio::time::timeout(ASK_TIMEOUT, inner.ask(&question, now)).await {
                Ok(answer) => answer,
                Err(_) => Err(Trouble::TimedOut.into()),
            }
        })
    }

    fn is_per_user(&self) -> bool {
        true
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    tokio::time::timeout(ASK_TIMEOUT, work).await.unwrap_or(Err(Trouble::TimedOut))
}

impl Inner {
    async fn ask(&self, question: &Question, now: Now) -> Result<Observation, ProviderFault> {
        let Some(license_id) = &question.license_id else {
            return Ok(Observation {
                state: LicenseState::None,
                license_id: None,
                expires_at: None,
                entitlements: Default::default(),
                observed_at: now.wall,
            });
        };
        let reply = self.ask_about(license_id).await?;
        let observation = match Answer::read(reply.text())? {
            Answer::Refused(observation) => observation,
            Answer::Token(token) => {
                // Bounded by the issuer's own limits too, and its fetches are shared with everybody. The token may have been
                // made after the question, so it is judged when it is here.
                let verdict = self.issuers.verify(&token, self.clock.now()).wait().await;
                let product = self.product.as_deref();
                let said = Said::read(&token, verdict, &self.issuer, product, &self.end_claim)?;
                // What belongs to nobody in particular has no subject to compare.
                let subject = matches!(question.holder, Holder::User(_)).then_some(question.subject.as_deref());
                said.observe(subject, now.wall)
            }
        };
        // It was asked about under this name, and will be again.
        Ok(Observation { license_id: Some(license_id.clone()), ..observation })
    }

    fn target(&self, rest: impl fmt::Display) -> String {
        format!("/v1/accounts/{}{rest}", encode(&self.account))
    }

    async fn ask_about(&self, license_id: &str) -> Result<Reply, Trouble> {
        let mut meta = json!({ "key": license_id });
        if let Some(product) = &self.product {
            meta["scope"] = json!({ "product": product });
        }
        let target = self.target("/licenses/actions/validate-key");
        self.send(Method::POST, &target, Some(&json!({ "meta": meta }))).await
    }

    async fn send(&self, method: Method, target: &str, body: Option<&Value>) -> Result<Reply, Trouble> {
        let reply = self.connection.send(method, target, &[], body).await?;
        if let Some(failure) = reply.failure() {
            return Err(failure);
        }
        let (status, error) = (reply.status.as_u16(), ApiError::read(reply.text()));
        match status {
            200..=299 => Ok(reply),
            // About us, whatever was asked.
            400..=403 => Err(Trouble::Refused { status, error }),
            _ => Err(Trouble::RefusedUnsigned { status, error }),
        }
    }

    async fn create_user(&self, email: &str, metadata: Map<String, Value>) -> Result<Enrolled, Trouble> {
        // Most hubs refuse a second user of an address, and some do not.
        if let Some(user) = self.find_user(email).await? {
            return Ok(Enrolled::Known(user));
        }
        let body = json!({
            "data": {"type": "users", "attributes": {"email": email.to_lowercase(), "metadata": metadata}},
        });
        match self.send(Method::POST, &self.target("/users"), Some(&body)).await {
            Ok(reply) => Ok(Enrolled::Created(User::read(reply.text()).map_err(Trouble::shape)?)),
            // Somebody else was faster.
            Err(refused @ Trouble::RefusedUnsigned { status: 409 | 422, .. }) => match self.find_user(email).await? {
                Some(user) => Ok(Enrolled::Known(user)),
                None => Err(refused),
            },
            Err(trouble) => Err(trouble),
        }
    }

    async fn find_user(&self, email: &str) -> Result<Option<User>, Trouble> {
        let email = email.to_lowercase();
        let target = self.target(format_args!("/users?filter%5Bemail%5D={}", encode(&email)));
        let reply = self.send(Method::GET, &target, None).await?;
        let users = User::read_list(reply.text()).map_err(Trouble::shape)?;
        // A server that ignores the filter gives us anybody.
        let is_theirs = |user: &User| user.email.as_ref().is_some_and(|found| found.to_lowercase() == email);
        Ok(users.into_iter().find(is_theirs))
    }
}

#[cfg(test)]
mod tests;
