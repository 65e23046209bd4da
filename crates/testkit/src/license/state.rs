//! What the license server knows: users, licenses, and what follows for them.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ACCOUNT, PRODUCT, sign::timestamp};

const DAY: i64 = 86_400_000;

/// What a policy does with licenses that have ended (`expirationStrategy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    /// Not valid any more.
    #[default]
    Restrict,
    /// Not valid, and the license no longer opens anything.
    Revoke,
    /// Valid: what was released before its end may be used.
    Maintain,
    /// Valid.
    Allow,
}

/// A license.
#[derive(Clone, Debug)]
pub struct License {
    /// Its id.
    pub id: String,
    /// Its key.
    pub key: String,
    /// The user who owns it.
    pub owner: Option<String>,
    /// Users that are attached to it.
    pub users: Vec<String>,
    /// What it is for.
    pub product: String,
    /// Its end, in milliseconds since the Unix epoch.
    pub expiry: Option<i64>,
    /// Whether it is suspended.
    pub is_suspended: bool,
    /// Whether it counts as unused for long; it is usable all the same.
    pub is_inactive: bool,
    /// What happens at its end.
    pub on_expiry: OnExpiry,
    /// Codes.
    pub entitlements: Vec<String>,
    /// Another verdict and code than dates and states give: `(false, "TOO_MANY_MACHINES")`.
    pub verdict: Option<(bool, &'static str)>,
    /// When it was last validated.
    pub last_validated: Option<i64>,
}

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    /// Their id.
    pub id: String,
    /// Lower case.
    pub email: String,
    /// Whether they are banned.
    pub is_banned: bool,
    /// What was given when they were made.
    pub metadata: Value,
}

/// A request, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Heard {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// `Host`.
    pub host: String,
    /// `Keygen-Version`.
    pub version: Option<String>,
    /// Whether it came with a credential.
    pub has_credential: bool,
    /// The body, if it was JSON.
    pub body: Option<Value>,
}

/// Requests that are kept, the newest ones: as a program it may run for days. The others are counted alone.
pub(super) const KEPT: usize = 10_000;

#[derive(Default)]
pub(super) struct State {
    pub(super) users: BTreeMap<String, User>,
    /// By id: ids grow, so this is the order in which they were made.
    pub(super) licenses: BTreeMap<String, License>,
    pub(super) heard: VecDeque<Heard>,
    pub(super) hits: usize,
    pub(super) validation_events: u64,
    made: u64,
}

impl State {
    fn id(&mut self, kind: u16) -> String {
        self.made += 1;
        format!("5c1f0c1e-{kind:04x}-4000-8000-{:012x}", self.made)
    }

    pub(super) fn hear(&mut self, heard: Heard) {
        if self.heard.len() == KEPT {
            self.heard.pop_front();
        }
        self.heard.push_back(heard);
        self.hits += 1;
    }

    pub(super) fn add_user(&mut self, email: &str) -> String {
        let id = self.id(3);
        let email = email.to_ascii_lowercase();
        let user = User { id: id.clone(), email, is_banned: false, metadata: json!({}) };
        self.users.insert(id.clone(), user);
        id
    }

    pub(super) fn add_license(&mut self, owner: Option<String>) -> String {
        let id = self.id(4);
        let license = License {
            id: id.clone(),
            key: format!("{:06X}-{:06X}-TESTKIT-V3", self.made, self.made * 7919),
            owner,
            users: Vec::new(),
            product: PRODUCT.to_owned(),
            expiry: None,
            is_suspended: false,
            is_inactive: false,
            on_expiry: OnExpiry::default(),
            entitlements: Vec::new(),
            verdict: None,
            last_validated: None,
        };
        self.licenses.insert(id.clone(), license);
        id
    }

    pub(super) fn delete_user(&mut self, user: &str) {
        self.users.remove(user);
        self.licenses.retain(|_, license| license.owner.as_deref() != Some(user));
    }

    /// By id or mail address.
    pub(super) fn find_user(&self, name: &str) -> Option<&User> {
        let by_email = || self.users.values().find(|user| user.email == name);
        self.users.get(name).or_else(by_email)
    }

    /// The id of the license with this id or key.
    pub(super) fn find_license(&self, name: &str) -> Option<String> {
        let mut licenses = self.licenses.values();
        licenses.find(|license| license.id == name || license.key == name).map(|license| license.id.clone())
    }

    fn is_banned(&self, license: &License) -> bool {
        license.owner.as_ref().and_then(|owner| self.users.get(owner)).is_some_and(|owner| owner.is_banned)
    }

    /// `meta.valid` and `meta.code`, in the order in which the service judges.
    pub(super) fn verdict(&self, license: &License, now: i64) -> (bool, &'static str) {
        let is_over = license.expiry.is_some_and(|end| end <= now);
        if self.is_banned(license) {
            (false, "BANNED")
        } else if license.is_suspended {
            (false, "SUSPENDED")
        } else if is_over && license.on_expiry == OnExpiry::Revoke {
            (false, "EXPIRED")
        } else if let Some(verdict) = license.verdict {
            verdict
        } else if is_over {
            (matches!(license.on_expiry, OnExpiry::Maintain | OnExpiry::Allow), "EXPIRED")
        } else {
            (true, "VALID")
        }
    }

    /// The word for people.
    fn status(&self, license: &License, now: i64) -> &'static str {
        if self.is_banned(license) {
            "BANNED"
        } else if license.is_suspended {
            "SUSPENDED"
        } else if license.expiry.is_some_and(|end| end <= now) {
            "EXPIRED"
        } else if license.expiry.is_some_and(|end| end - now < 3 * DAY) {
            "EXPIRING"
        } else if license.is_inactive {
            "INACTIVE"
        } else {
            "ACTIVE"
        }
    }

    pub(super) fn license_document(&self, id: &str, now: i64) -> Option<Value> {
        Some(json!({ "data": self.license_resource(self.licenses.get(id)?, now) }))
    }

    pub(super) fn license_resource(&self, license: &License, now: i64) -> Value {
        let id = &license.id;
        let owner = license.owner.as_ref().map(|owner| json!({"type": "users", "id": owner}));
        json!({
            "id": id,
            "type": "licenses",
            "attributes": {
                "name": null,
                "key": license.key,
                "expiry": license.expiry.map(timestamp),
                "status": self.status(license, now),
                "uses": 0,
                "suspended": license.is_suspended,
                "scheme": null,
                "lastValidated": license.last_validated.map(timestamp),
                "metadata": {},
                "created": timestamp(now - DAY),
                "updated": timestamp(now),
            },
            "relationships": {
                "account": {"data": {"type": "accounts", "id": ACCOUNT}},
                "product": {"data": {"type": "products", "id": license.product}},
                "owner": {"data": owner},
                "users": {"meta": {"count": license.users.len()}},
            },
            "links": {"self": format!("/v1/accounts/{ACCOUNT}/licenses/{id}")},
        })
    }
}

impl User {
    pub(super) fn resource(&self) -> Value {
        json!({
            "id": self.id,
            "type": "users",
            "attributes": {
                "email": self.email,
                "status": if self.is_banned { "BANNED" } else { "ACTIVE" },
                "role": "user",
                "metadata": self.metadata,
            },
            "relationships": {"account": {"data": {"type": "accounts", "id": ACCOUNT}}},
        })
    }
}
