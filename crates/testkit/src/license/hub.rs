//! A hub: a license server that answers with license JWTs of an issuer.

use serde_json::{Value, json};

use super::{ACCOUNT, License, LicenseServer, PRODUCT, PRODUCT_TOKEN, User};
use crate::issuer::{Issuer, control::now};

/// How long a license JWT lives, in seconds: as long as hubs let them, whatever the license's own end is.
pub const TOKEN_LIFE: i64 = 3600;

/// The claims of a license JWT at `now`, in seconds: about its owner, short-lived, with the license's own end in
/// `license_expires_at`. `None` for a license that belongs to nobody.
pub fn claims(issuer: &str, license: &License, owner: Option<&User>, now: i64) -> Option<Value> {
    let is_over = license.expiry.is_some_and(|end| end <= now * 1000);
    let status = match owner? {
        owner if owner.is_banned => "BANNED",
        _ if license.is_suspended => "SUSPENDED",
        _ if is_over => "EXPIRED",
        _ => "ACTIVE",
    };
    Some(json!({
        "iss": issuer,
        "aud": PRODUCT,
        "sub": owner?.id,
        "iat": now,
        "exp": now + TOKEN_LIFE,
        "status": status,
        "license_expires_at": license.expiry.map(|end| end.div_euclid(1000)),
        "entitlements": license.entitlements,
    }))
}

/// Lets `server` answer with license JWTs of `issuer`, which lives as long as it does, and says how Doorward is
/// configured for both.
pub fn answer_with(server: &LicenseServer, issuer: Issuer) -> String {
    let config = toml(server, &issuer);
    server.be_hub(move |license, owner| {
        let claims = claims(&issuer.url(), license, owner, now())?;
        Some(issuer.mint_with(&json!({"typ": "JWT"}), &claims))
    });
    config
}

fn toml(server: &LicenseServer, issuer: &Issuer) -> String {
    format!(
        "[license]\nprovider = \"jwt\"\napi_url = \"{}\"\naccount = \"{ACCOUNT}\"\nproduct = \"{PRODUCT}\"\n\
         token = \"{PRODUCT_TOKEN}\"\nissuer = \"hub\"\n\n[[issuers]]\nname = \"hub\"\nissuer = \"{}\"\n\
         audiences = [\"{PRODUCT}\"]\nalgorithms = [\"EdDSA\"]\n[issuers.keys]\njwks_url = \"{}\"\n",
        server.url(),
        issuer.url(),
        issuer.jwks_url()
    )
}
