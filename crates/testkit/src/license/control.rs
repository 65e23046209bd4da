//! What the license server's control routes do; see [`crate::control`].
//!
//! - `POST /users` with `{"email": "…"}` and `POST /licenses` with `{"owner": "…"}` make one, and answer its `id`.
//! - `POST /do` with an [`Action`] does it.
//! - `POST /webhook` with `{"url": "…", "event": "…", "license": "…"}` posts the event, signed for that URL.
//! - `GET /stats` counts, `GET /heard` lists the requests.

use std::net::SocketAddr;

use http::Uri;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{Fault, LicenseServer, OnExpiry};
use crate::{
    control::{Order, Refusal},
    wire::Wire,
};

/// Something to do. Licenses are named by id or key, users by id or mail address.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// See [`LicenseServer::fault`].
    Fault(Fault),
    /// Mends whatever [`Action::Fault`] broke.
    Mend,
    /// See [`LicenseServer::skew`].
    Skew(i64),
    /// See [`LicenseServer::in_production`].
    InProduction(String),
    /// See [`LicenseServer::die`].
    Die,
    /// See [`LicenseServer::revive`].
    Revive,
    /// Suspends a license.
    Suspend(String),
    /// Takes a suspension back.
    Reinstate(String),
    /// Lets a license end that many seconds from now.
    EndsIn(String, i64),
    /// What happens at the end of a license.
    OnExpiry(String, OnExpiry),
    /// Gives a license another 30 days from now.
    Renew(String),
    /// Gives a license an entitlement.
    Entitle(String, String),
    /// Revokes a license: it is gone.
    Revoke(String),
    /// Bans a user.
    Ban(String),
    /// Takes a ban back.
    Unban(String),
    /// Deletes a user and what they own.
    DeleteUser(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    email: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLicense {
    owner: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Webhook {
    url: String,
    event: String,
    license: String,
    /// Where it is posted, if that is not what `url` names.
    to: Option<SocketAddr>,
}

/// Does it, and says what came of it.
///
/// # Errors
/// [`Refusal`].
pub async fn answer(server: &LicenseServer, order: Order) -> Result<Value, Refusal> {
    match order.route() {
        ("POST", "/users") => {
            let NewUser { email } = order.read()?;
            if server.find_user(&email).is_some() {
                return Err(Refusal::bad(format!("there is a user {email}")));
            }
            Ok(json!({"id": server.user(&email)}))
        }
        ("POST", "/licenses") => {
            let NewLicense { owner } = order.read()?;
            let license = server.license(&user(server, &owner)?);
            Ok(json!({"id": license, "key": server.key_of(&license)}))
        }
        ("POST", "/do") => {
            perform(server, order.read()?).await?;
            Ok(json!({"done": true}))
        }
        ("POST", "/webhook") => deliver(server, order.read()?).await,
        ("GET", "/stats") => Ok(json!({
            "requests": server.hits(),
            "validation_events": server.validation_events(),
            "alive": server.is_alive(),
        })),
        ("GET", "/heard") => Ok(json!({"heard": server.heard()})),
        _ => Err(Refusal::NoRoute("POST /users, /licenses, /do, /webhook, GET /stats, /heard")),
    }
}

fn license(server: &LicenseServer, name: &str) -> Result<String, Refusal> {
    server.find_license(name).ok_or_else(|| Refusal::bad(format!("there is no license {name}")))
}

fn user(server: &LicenseServer, name: &str) -> Result<String, Refusal> {
    server.find_user(name).ok_or_else(|| Refusal::bad(format!("there is no user {name}")))
}

async fn perform(server: &LicenseServer, action: Action) -> Result<(), Refusal> {
    match action {
        Action::Fault(fault) => {
            fault.check().map_err(Refusal::Bad)?;
            server.fault(Some(fault));
        }
        Action::Mend => server.fault(None),
        Action::Skew(seconds) => server.skew(seconds),
        Action::InProduction(host) => server.in_production(&host),
        Action::Die => server.die().await,
        Action::Revive => server.revive().await,
        Action::Suspend(name) => server.suspend(&license(server, &name)?),
        Action::Reinstate(name) => server.reinstate(&license(server, &name)?),
        Action::EndsIn(name, seconds) => server.ends_in(&license(server, &name)?, seconds),
        Action::OnExpiry(name, strategy) => {
            server.change(&license(server, &name)?, |license| license.on_expiry = strategy);
        }
        Action::Renew(name) => server.renew(&license(server, &name)?),
        Action::Entitle(name, code) => server.entitle(&license(server, &name)?, &code),
        Action::Revoke(name) => server.revoke(&license(server, &name)?),
        Action::Ban(name) => server.ban(&user(server, &name)?),
        Action::Unban(name) => server.unban(&user(server, &name)?),
        Action::DeleteUser(name) => server.delete_user(&user(server, &name)?),
    }
    Ok(())
}

async fn deliver(server: &LicenseServer, webhook: Webhook) -> Result<Value, Refusal> {
    let url: Uri = webhook.url.parse().map_err(Refusal::bad)?;
    let authority = url.authority().filter(|_| url.scheme().is_some());
    let authority = authority.ok_or_else(|| Refusal::bad("`url` is no URL with a host"))?;
    let license = license(server, &webhook.license)?;
    let stream = match webhook.to {
        Some(address) => TcpStream::connect(address).await,
        None => TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await,
    };
    let stream = stream.map_err(|error| Refusal::bad(format!("it cannot be posted: {error}")))?;
    let delivery = server.webhook(&webhook.url, &webhook.event, &license);
    let mut wire = Wire::over(stream);
    wire.send(delivery.bytes()).await;
    let answer = wire.answer().await;
    Ok(json!({"status": answer.status, "body": answer.text()}))
}
