//! The identity assertion: a short-lived signed JWT that tells an app who is calling, for apps that want
//! proof rather than headers. Off unless an app switches it on; cached per principal.
//!
//! Its `typ` is its own and no issuer's policy admits it, so it is never taken as a credential.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use doorward_core::{
    decision::Denial,
    jose::sign::SigningKey,
    license::Licensed,
    principal::{Authenticated, Principal},
    reason::Reason,
    ring::KeySet,
    time::{Now, Timestamp},
};
use http::{HeaderName, HeaderValue};
use quick_cache::sync::Cache;
use serde::Serialize;
use serde_json::{Value, json};

/// `typ` of an assertion.
pub const KIND: &str = "doorward-assertion+jwt";
/// The header that carries it.
pub const HEADER: HeaderName = HeaderName::from_static("x-doorward-assertion");
/// How long an assertion is valid.
const LIFETIME: Duration = Duration::from_secs(300);
/// A cached one is used until this much of its life is left: an app must have time to read it.
const MARGIN: Duration = Duration::from_secs(120);
/// Assertions kept.
const CAPACITY: usize = 10_000;

/// Signs and keeps assertions.
#[derive(Debug)]
pub struct Assertions {
    issuer: String,
    keys: ArcSwapOption<Keys>,
    cache: Cache<Key, Arc<Kept>>,
}

#[derive(Debug)]
struct Keys {
    current: SigningKey,
    kid: String,
    jwks: Value,
}

/// What distinguishes assertions: the credential, not only the subject, because method and end differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    credential: String,
    audience: Arc<str>,
    kid: String,
}

#[derive(Debug)]
struct Kept {
    principal: Arc<Principal>,
    license: Option<Licensed>,
    value: HeaderValue,
    expires_at: Timestamp,
}

#[derive(Serialize)]
struct Content<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: String,
    iat: i64,
    exp: i64,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entitlements: Option<&'a BTreeSet<String>>,
}

impl Assertions {
    /// Signs as `issuer`, the public URL. There are no keys until [`Assertions::use_keys`].
    pub fn new(issuer: impl Into<String>) -> Self {
        Self { issuer: issuer.into(), keys: ArcSwapOption::empty(), cache: Cache::new(CAPACITY) }
    }

    /// Signs with the current key from now on, and publishes the previous ones too.
    ///
    /// # Errors
    /// `internal` where the library refuses a key of the ring.
    pub fn use_keys(&self, set: &KeySet) -> Result<(), Denial> {
        let rejected = |_| Denial::from(Reason::Internal).with_note("a key of the assertion ring is unusable");
        let current = SigningKey::from_seed(set.current().expose()).map_err(rejected)?;
        let mut published = Vec::new();
        for key in set.accepted() {
            published.push(SigningKey::from_seed(key.expose()).map_err(rejected)?.public_jwk(&key.id.to_string()));
        }
        let kid = set.current().id.to_string();
        self.keys.store(Some(Arc::new(Keys { current, kid, jwks: json!({ "keys": published }) })));
        Ok(())
    }

    /// The public keys as a JWK set.
    ///
    /// # Errors
    /// `store_unavailable` until the keys are loaded.
    pub fn jwks(&self) -> Result<Value, Denial> {
        self.keys.load().as_ref().map(|keys| keys.jwks.clone()).ok_or_else(not_loaded)
    }

    /// The assertion about `principal` for the app with this audience. `license` is what counted for the decision, if
    /// the rule asks for a license.
    ///
    /// # Errors
    /// `store_unavailable` until the keys are loaded: an app that asks for proof gets no request without it.
    pub fn for_principal(
        &self,
        principal: &Arc<Principal>,
        license: Option<&Licensed>,
        audience: &Arc<str>,
        now: Now,
    ) -> Result<HeaderValue, Denial> {
        let keys = self.keys.load();
        let keys = keys.as_ref().ok_or_else(not_loaded)?;
        let key = Key { credential: credential(principal), audience: Arc::clone(audience), kid: keys.kid.clone() };
        if let Some(kept) = self.cache.get(&key)
            && now.wall.plus(MARGIN) < kept.expires_at
            // A credential's principal changes with its user: an old copy must not speak for the new one.
            && (Arc::ptr_eq(&kept.principal, principal) || kept.principal == *principal)
            && says(kept.license.as_ref()) == says(license)
        {
            return Ok(kept.value.clone());
        }
        let end = now.wall.plus(LIFETIME);
        let expires_at = principal.expires_at.map_or(end, |own| own.min(end));
        let content = Content {
            iss: &self.issuer,
            aud: audience,
            sub: principal.subject.to_string(),
            iat: now.wall.as_secs(),
            exp: expires_at.as_secs(),
            method: principal.authenticated.as_str(),
            email: principal.email.as_ref().map(doorward_core::user::Email::as_str),
            org: principal.org_id.map(|org| org.to_string()),
            auth_time: match &principal.authenticated {
                Authenticated::Session { authenticated_at, .. } => Some(authenticated_at.as_secs()),
                _ => None,
            },
            license: license.map(Licensed::status),
            entitlements: license.and_then(Licensed::entitlements),
        };
        let token = keys.current.mint(KIND, Some(&keys.kid), &content).map_err(|_| Reason::Internal)?;
        let value = HeaderValue::try_from(token).map_err(|_| Reason::Internal)?;
        let license = license.cloned();
        let kept = Kept { principal: Arc::clone(principal), license, value: value.clone(), expires_at };
        self.cache.insert(key, Arc::new(kept));
        Ok(value)
    }
}

/// What an assertion says of a license.
fn says(license: Option<&Licensed>) -> Option<(&'static str, Option<&BTreeSet<String>>)> {
    license.map(|license| (license.status(), license.entitlements()))
}

fn not_loaded() -> Denial {
    Denial::from(Reason::StoreUnavailable).with_note("the assertion key ring is not loaded yet")
}

fn credential(principal: &Principal) -> String {
    match &principal.authenticated {
        Authenticated::Session { id, .. } => format!("session:{id}"),
        Authenticated::ApiKey { id, .. } => format!("key:{id}"),
        // Without a `jti` the subject and the token's times tell tokens apart well enough for a cache that
        // compares the whole principal anyway.
        Authenticated::Bearer { claims } | Authenticated::Legacy { claims } => {
            format!("token:{}:{}", principal.subject, claims.id.as_deref().unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use doorward_core::{
        id::{RingKeyId, UserId},
        jose::{Algorithm, AlgorithmSet},
        principal::{PrincipalKind, SubjectId},
        ring::{KeyMaterial, KeyState, Purpose, RingKey, RootSecret, wrap},
        session::SignInMethod,
        token::{self, TokenPolicy},
    };

    use super::*;

    const NOW: Now = Now { wall: Timestamp::from_secs(1_800_000_000), mono: Duration::ZERO };

    fn assertions() -> Assertions {
        let root = RootSecret::parse(&[b'r'; 32]).unwrap();
        let key = KeyMaterial::mint(RingKeyId::mint(NOW.wall, [1; 10]), [5; 32]);
        let wrapped = wrap(&root, Purpose::Assertion, &key, [1; 12]).unwrap();
        let row = RingKey {
            id: key.id,
            purpose: Purpose::Assertion,
            wrapped,
            created_at: NOW.wall,
            state: KeyState::Current,
        };
        let assertions = Assertions::new("https://app.example");
        assertions.use_keys(&KeySet::open(&root, &[row]).unwrap().unwrap()).unwrap();
        assertions
    }

    fn principal() -> Arc<Principal> {
        let user = UserId::mint(NOW.wall, [2; 10]);
        Arc::new(Principal {
            kind: PrincipalKind::User,
            subject: SubjectId::local(user),
            user_id: Some(user),
            email: doorward_core::user::Email::parse("ada@example.com"),
            org_id: None,
            authenticated: Authenticated::Session {
                id: doorward_core::id::SessionId::mint(NOW.wall, [3; 10]),
                method: SignInMethod::MagicLink,
                authenticated_at: NOW.wall,
                created_at: NOW.wall,
            },
            expires_at: None,
        })
    }

    fn policy(kind: Option<&str>) -> TokenPolicy {
        TokenPolicy {
            issuer: "https://app.example".to_owned(),
            aliases: Vec::new(),
            audiences: vec!["web".to_owned()],
            algorithms: AlgorithmSet::of(&[Algorithm::EdDsa]),
            required_claims: Vec::new(),
            clock_tolerance: Duration::ZERO,
            max_token_age: None,
            kind: kind.map(str::to_owned),
        }
    }

    #[test]
    fn an_app_can_verify_it_with_the_published_key_and_nobody_takes_it_as_a_credential() {
        let assertions = assertions();
        let value = assertions.for_principal(&principal(), None, &"web".into(), NOW).unwrap();
        let text = value.to_str().unwrap();
        let key = assertions.keys.load().as_ref().unwrap().current.public_key().unwrap();
        let verified = token::verify(token::parse(text).unwrap(), &key, &policy(Some(KIND)), NOW).unwrap();
        assert_eq!(verified.get().more.str("email").as_deref(), Some("ada@example.com"));
        let refused = token::verify(token::parse(text).unwrap(), &key, &policy(None), NOW).unwrap_err();
        assert_eq!(refused.reason, Reason::TokenWrongType);
    }

    #[test]
    fn it_is_signed_once_and_again_before_it_ends() {
        let assertions = assertions();
        let principal = principal();
        let first = assertions.for_principal(&principal, None, &"web".into(), NOW).unwrap();
        let soon = Now { wall: NOW.wall.plus(Duration::from_secs(100)), ..NOW };
        assert_eq!(assertions.for_principal(&principal, None, &"web".into(), soon).unwrap(), first);
        let later = Now { wall: NOW.wall.plus(LIFETIME - MARGIN), ..NOW };
        assert_ne!(assertions.for_principal(&principal, None, &"web".into(), later).unwrap(), first);
        assert_ne!(assertions.for_principal(&principal, None, &"other".into(), NOW).unwrap(), first);
    }
}
