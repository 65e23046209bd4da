//! The routes of the API that a gate asks.

use serde_json::{Value, json};

use super::{
    ACCOUNT, Keys, Mint, PRODUCT_TOKEN, USER_TOKEN,
    sign::{Algorithm, timestamp},
    state::{State, User},
};

/// Most entries on one page.
const MAX_PAGE: usize = 100;
/// Entries on a page, unless the question says how many.
const PAGE: usize = 10;

/// A request, taken apart.
pub(super) struct Asked {
    pub(super) method: String,
    /// The path's segments, decoded.
    pub(super) path: Vec<String>,
    /// The query's pairs, decoded.
    pub(super) query: Vec<(String, String)>,
    pub(super) authorization: Option<String>,
    pub(super) version: Option<String>,
    pub(super) body: Option<Value>,
}

impl Asked {
    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn meta(&self, name: &str) -> Option<&Value> {
        self.body.as_ref()?.get("meta")?.get(name)
    }

    /// The page of `all` that was asked for.
    fn page(&self, all: Vec<Value>) -> Value {
        let number = |name: &str| self.query(name).and_then(|value| value.parse::<usize>().ok());
        let size = number("page[size]").or_else(|| number("limit")).unwrap_or(PAGE).clamp(1, MAX_PAGE);
        let skipped = number("page[number]").map_or(0, |page| page.saturating_sub(1) * size);
        json!({ "data": all.into_iter().skip(skipped).take(size).collect::<Vec<_>>() })
    }
}

/// What is answered.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Value,
    /// Nothing is signed before the account is known.
    pub(super) is_signed: bool,
}

impl Reply {
    fn ok(body: Value) -> Self {
        Self { status: 200, body, is_signed: true }
    }

    pub(super) fn error(status: u16, code: &str) -> Self {
        let title = if status == 404 { "Not found" } else { "Error" };
        let body = json!({
            "meta": {"id": "request-1"},
            "errors": [{"title": title, "detail": format!("the testkit says {code}"), "code": code}],
        });
        Self { status, body, is_signed: true }
    }

    fn unsigned(self) -> Self {
        Self { is_signed: false, ..self }
    }
}

/// Answers; `keys` for the account document, `mint` as a hub.
pub(super) fn answer(state: &mut State, asked: &Asked, keys: &Keys, mint: Option<&Mint>, now: i64) -> Reply {
    let path: Vec<&str> = asked.path.iter().map(String::as_str).collect();
    let ["v1", "accounts", account, rest @ ..] = path.as_slice() else {
        return Reply::error(404, "NOT_FOUND").unsigned();
    };
    if *account != ACCOUNT {
        return Reply::error(404, "NOT_FOUND").unsigned();
    }
    let version = asked.version.as_deref().unwrap_or("1.8").trim_start_matches('v');
    if !matches!(version.split_once('.'), Some(("1", minor)) if minor.parse::<u8>().is_ok_and(|minor| minor <= 8)) {
        return Reply::error(400, "INVALID_API_VERSION").unsigned();
    }
    let method = asked.method.as_str();
    if (method, rest) == ("POST", &["licenses", "actions", "validate-key"]) {
        return validate_key(state, asked, mint, now);
    }
    match asked.authorization.as_deref().and_then(|credential| credential.split_once(' ')) {
        None => return Reply::error(401, "TOKEN_MISSING"),
        Some(("License", _)) => return Reply::error(403, "LICENSE_NOT_ALLOWED"),
        Some(("Bearer", PRODUCT_TOKEN)) => {}
        Some(("Bearer", USER_TOKEN)) => return Reply::error(403, "TOKEN_NOT_ALLOWED"),
        Some(_) => return Reply::error(401, "TOKEN_INVALID"),
    }
    match (method, rest) {
        ("GET", []) => Reply::ok(account_document(keys)),
        ("GET", ["me"]) => Reply::ok(json!({"data": {"id": super::PRODUCT, "type": "products", "attributes": {}}})),
        ("GET", ["products", super::PRODUCT]) => Reply::ok(json!({"data": {"id": super::PRODUCT, "type": "products"}})),
        ("GET", ["users"]) => {
            // Only a hub has this filter; Keygen ignores what it does not know.
            let wanted = mint.and(asked.query("filter[email]"));
            let users = state.users.values().rev().filter(|user| wanted.is_none_or(|email| user.email == email));
            let users = users.map(User::resource).collect();
            Reply::ok(asked.page(users))
        }
        ("POST", ["users"]) => create_user(state, asked),
        ("GET", ["users", name]) => match state.find_user(&name.to_ascii_lowercase()) {
            Some(user) => Reply::ok(json!({ "data": user.resource() })),
            None => Reply::error(404, "NOT_FOUND"),
        },
        ("GET", ["licenses"]) => licenses(state, asked, asked.query("user"), now),
        ("GET", ["users", name, "licenses"]) => licenses(state, asked, Some(name), now),
        ("GET", ["licenses", name, rest @ ..]) => {
            let Some(id) = state.find_license(name) else { return Reply::error(404, "NOT_FOUND") };
            match rest {
                [] => Reply::ok(state.license_document(&id, now).unwrap()),
                ["entitlements"] => entitlements(state, asked, &id),
                ["actions", "validate"] => validation(state, &id, None, now),
                _ => Reply::error(404, "NOT_FOUND"),
            }
        }
        ("POST", ["licenses", name, "actions", "validate"]) => {
            let Some(id) = state.find_license(name) else { return Reply::error(404, "NOT_FOUND") };
            state.validation_events += 1;
            validation(state, &id, Some(asked), now)
        }
        _ => Reply::error(404, "NOT_FOUND"),
    }
}

fn account_document(keys: &Keys) -> Value {
    json!({
        "data": {
            "id": ACCOUNT,
            "type": "accounts",
            "attributes": {"name": "Testkit", "slug": "testkit"},
            "meta": {
                "publicKey": keys.published(Algorithm::RsaSha256),
                "keys": {
                    "ed25519": keys.published(Algorithm::Ed25519),
                    "rsa2048": keys.published(Algorithm::RsaSha256),
                    "ecdsa": keys.published(Algorithm::EcdsaP256),
                },
            },
        },
    })
}

fn create_user(state: &mut State, asked: &Asked) -> Reply {
    let attributes = asked.body.as_ref().map(|body| &body["data"]["attributes"]);
    let Some(email) = attributes.and_then(|attributes| attributes["email"].as_str()) else {
        return Reply::error(400, "EMAIL_INVALID");
    };
    if state.find_user(&email.to_ascii_lowercase()).is_some() {
        return Reply::error(422, "EMAIL_TAKEN");
    }
    let id = state.add_user(email);
    let user = state.users.get_mut(&id).unwrap();
    user.metadata = attributes.map(|attributes| attributes["metadata"].clone()).unwrap_or_default();
    Reply { status: 201, body: json!({ "data": user.resource() }), is_signed: true }
}

/// Newest first.
fn licenses(state: &State, asked: &Asked, user: Option<&str>, now: i64) -> Reply {
    let user = match user {
        Some(name) => match state.find_user(name) {
            Some(user) => Some(user.id.as_str()),
            None => return Reply::ok(json!({ "data": [] })),
        },
        None => None,
    };
    let product = asked.query("product");
    let is_theirs = |owner: Option<&str>, users: &[String]| {
        user.is_none_or(|user| owner == Some(user) || users.iter().any(|attached| attached == user))
    };
    let found = state.licenses.values().rev().filter(|license| {
        is_theirs(license.owner.as_deref(), &license.users) && product.is_none_or(|product| license.product == product)
    });
    Reply::ok(asked.page(found.map(|license| state.license_resource(license, now)).collect()))
}

fn entitlements(state: &State, asked: &Asked, license: &str) -> Reply {
    let codes = state.licenses[license].entitlements.iter().enumerate();
    let entitlements = codes.map(|(number, code)| {
        json!({
            "id": format!("5c1f0c1e-0006-4000-8000-{number:012x}"),
            "type": "entitlements",
            "attributes": {"name": code, "code": code, "metadata": {}},
        })
    });
    Reply::ok(asked.page(entitlements.collect()))
}

/// A validation of a license that is there; `asked` is absent for the quick one, which judges no scope.
fn validation(state: &mut State, license: &str, asked: Option<&Asked>, now: i64) -> Reply {
    state.licenses.get_mut(license).unwrap().last_validated = Some(now);
    let license = &state.licenses[license];
    let (mut valid, mut code) = state.verdict(license, now);
    let mut meta = json!({ "ts": timestamp(now), "detail": "as the testkit was told" });
    if let Some(asked) = asked {
        let product = asked.meta("scope").and_then(|scope| scope["product"].as_str());
        if valid && product.is_some_and(|product| product != license.product) {
            (valid, code) = (false, "PRODUCT_SCOPE_MISMATCH");
        }
        for echoed in ["nonce", "scope"] {
            if let Some(value) = asked.meta(echoed) {
                meta[echoed] = value.clone();
            }
        }
    }
    meta["valid"] = valid.into();
    meta["code"] = code.into();
    Reply::ok(json!({ "data": state.license_resource(license, now), "meta": meta }))
}

fn validate_key(state: &mut State, asked: &Asked, mint: Option<&Mint>, now: i64) -> Reply {
    let Some(key) = asked.meta("key").and_then(Value::as_str) else { return Reply::error(400, "PARAMETER_MISSING") };
    let Some(id) = state.find_license(key) else {
        let mut meta = json!({ "ts": timestamp(now), "valid": false, "detail": "does not exist", "code": "NOT_FOUND" });
        if let Some(nonce) = asked.meta("nonce") {
            meta["nonce"] = nonce.clone();
        }
        return Reply::ok(json!({ "data": null, "meta": meta }));
    };
    state.validation_events += 1;
    let mut reply = validation(state, &id, Some(asked), now);
    if let Some(mint) = mint {
        let license = &state.licenses[&id];
        let owner = license.owner.as_ref().and_then(|owner| state.users.get(owner));
        if let Some(token) = mint(license, owner) {
            reply.body["meta"]["token"] = token.into();
        }
    }
    reply
}
