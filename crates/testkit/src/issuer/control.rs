//! What an issuer's control routes do; see [`crate::control`].
//!
//! - `POST /mint` with `{"claims": {…}, "header": {…}, "audience": "app", "age": 0, "forge": "none"}`, each optional,
//!   answers `{"token": "…"}`. Claims replace the good ones, null removes.
//! - `POST /do` with an [`Action`] does it.
//! - `GET /stats` counts fetches and tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Forgery, Issuer, script::Action};
use crate::control::{Order, Refusal};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mint {
    #[serde(default = "empty")]
    claims: Value,
    #[serde(default = "empty")]
    header: Value,
    #[serde(default = "app")]
    audience: String,
    #[serde(default)]
    age: usize,
    forge: Option<Forgery>,
}

fn empty() -> Value {
    json!({})
}

fn app() -> String {
    "app".to_owned()
}

/// Does it, and says what came of it.
///
/// # Errors
/// [`Refusal`].
pub async fn answer(issuer: &Issuer, order: Order) -> Result<Value, Refusal> {
    match order.route() {
        ("POST", "/mint") => {
            let mint: Mint = order.read()?;
            if mint.age < issuer.key_count() { Ok(token(issuer, &mint)) } else { Err(Refusal::bad("not so many keys")) }
        }
        ("POST", "/do") => {
            issuer.perform(order.read::<Action>()?).await;
            Ok(json!({"done": true}))
        }
        ("GET", "/stats") => Ok(json!({
            "fetches": issuer.hits(),
            "discoveries": issuer.discoveries(),
            "minted": issuer.minted(),
            "alive": issuer.is_alive(),
            "kid": issuer.key_id(),
        })),
        _ => Err(Refusal::NoRoute("POST /mint, POST /do, GET /stats")),
    }
}

fn token(issuer: &Issuer, mint: &Mint) -> Value {
    let mut claims = issuer.claims(&mint.audience, now());
    for (name, value) in mint.claims.as_object().into_iter().flatten() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    let token = match &mint.forge {
        Some(forgery) => issuer.forge(forgery, &claims),
        None => issuer.mint_by(mint.age, &mint.header, &claims),
    };
    json!({ "token": token })
}

/// Seconds since the Unix epoch.
#[allow(clippy::disallowed_methods, reason = "an issuer has a clock of its own")]
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::{Control, tests::ask};

    #[tokio::test]
    async fn it_mints_does_and_counts_also_while_the_issuer_is_dead() {
        let issuer = Arc::new(Issuer::start().await);
        let control = Control::bind("127.0.0.1".parse().unwrap()).await;
        let address = control.address();
        let theirs = Arc::clone(&issuer);
        let server = tokio::spawn(control.serve(move |order| {
            let issuer = Arc::clone(&theirs);
            async move { answer(&issuer, order).await }
        }));

        let (status, minted) = ask(address, "POST /mint", r#"{"claims": {"sub": "ann", "iat": null}}"#).await;
        assert_eq!(status, 200);
        assert_eq!(minted["token"].as_str().unwrap().split('.').count(), 3);
        let (_, forged) = ask(address, "POST /mint", r#"{"forge": {"kid": "../../etc/passwd"}}"#).await;
        assert!(forged["token"].is_string(), "{forged}");

        let before = issuer.key_id();
        assert_eq!(ask(address, "POST /do", r#"{"rotate": "abrupt"}"#).await.0, 200);
        assert_ne!(issuer.key_id(), before);
        assert_eq!(ask(address, "POST /do", r#""die""#).await.0, 200);
        let (_, stats) = ask(address, "GET /stats", "").await;
        assert_eq!((&stats["minted"], &stats["alive"]), (&json!(2), &json!(false)));
        assert_eq!(ask(address, "POST /do", r#""revive""#).await.0, 200);
        assert!(issuer.is_alive());

        assert_eq!(ask(address, "POST /do", r#""dance""#).await.0, 400);
        assert_eq!(ask(address, "POST /mint", r#"{"age": 7}"#).await.0, 400);
        assert_eq!(ask(address, "GET /", "").await.0, 404);
        server.abort();
    }
}
