//! `/profile/email`: a person changes their mail address.

use std::sync::Arc;

use axum::body::Body;
use doorward_core::{decision::Denial, principal::Principal, reason::Reason, user::Email};
use doorward_gate::flow::email_change::{Confirmer, EmailAsk};
use http::{Response, StatusCode};
use serde::Deserialize;

use super::{
    call::{self, Call},
    login,
    respond::Want,
    routes::Guard,
    session,
    sessions::Own,
};
use crate::pages;

/// Body of `POST /profile/email`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    email: String,
    /// Judged before the handler.
    #[serde(default, rename = "csrf_token")]
    _csrf: Option<String>,
}

/// Query of the page behind the link, and body of its form.
#[derive(Debug, Default, Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
}

/// `GET /profile/email`.
pub fn page(call: &Call) -> Response<Body> {
    if let Err(denial) = call.server.needs_mail() {
        return call.refuse(denial);
    }
    let csrf = session::presented(call).and_then(|hash| call.server.csrf_value(&hash));
    let Some(csrf) = csrf else {
        return call.refuse(Denial::from(Reason::StoreUnavailable).with_note("the session key ring is not loaded yet"));
    };
    call::page(StatusCode::OK, pages::change_email(&call.site.pages, &pages::ChangeEmail { csrf: &csrf }))
}

/// The page behind the link, on the host that was asked: the browser's cookies belong to it.
fn confirm_url(call: &Call) -> String {
    let url = format!("{}{}/profile/email/confirm", call.site.redirects.own, call.site.pages.base);
    let moved = login::other_host(call).and_then(|host| {
        let mut url = url::Url::parse(&url).ok()?;
        url.set_host(Some(&host)).ok()?;
        Some(url.to_string())
    });
    moved.unwrap_or(url)
}

/// `POST /profile/email`: the same answer for every address, never before the floor.
pub async fn change(call: Call, caller: Option<Arc<Principal>>) -> Response<Body> {
    let floor = tokio::time::sleep(call.site.response_floor);
    let own = match call.server.needs_mail().and_then(|()| Own::of(caller.as_ref())) {
        Ok(own) => own,
        Err(denial) => return call.refuse(denial),
    };
    let sent = match call.read::<ChangeBody>().await {
        Ok(sent) => sent,
        Err(denial) => return call.refuse(denial),
    };
    let base = &call.site.pages.base;
    let ask = EmailAsk {
        user: own.user,
        to: sent.value.email.clone(),
        browser: login::browser(&call),
        site: call.site.pages.name.clone(),
        confirm_url: confirm_url(&call),
        return_to: format!("{base}/whoami"),
        ttl: call.site.link_ttl,
        asker: login::asker(&call),
    };
    let asked = call.server.emails.request(ask, call.server.gate.clock().now()).await;
    floor.await;
    let browser = match asked {
        Ok(browser) => browser,
        Err(denial) => return call.refuse(denial),
    };
    let mut response = if sent.is_form {
        let page = pages::EmailAsked { email: &sent.value.email, link_ttl: call.site.link_ttl };
        call::page(StatusCode::OK, pages::email_asked(&call.site.pages, &page))
    } else {
        call::ok()
    };
    call.site.cookies.login(response.headers_mut(), &browser);
    response
}

/// Who stands at the page: a live session, the login cookie, or neither.
async fn confirmer(call: &Call, guard: Guard) -> Result<Confirmer, Denial> {
    let decision = session::caller(call, guard).await?;
    let user = decision.outcome.is_ok().then_some(decision.caller).flatten().and_then(|caller| caller.user_id);
    Ok(Confirmer {
        browser: login::browser(call),
        session: user.zip(session::presented(call)),
        asker: login::asker(call),
    })
}

/// `GET /profile/email/confirm?token=`: a page; consumes nothing, however often it is fetched and by whom.
pub async fn confirm_page(call: Call, guard: Guard) -> Response<Body> {
    let query = call.parts.uri.query().unwrap_or_default();
    let Token { token } = serde_urlencoded::from_str(query).unwrap_or_default();
    let peeked: Result<Email, Denial> = async {
        let who = confirmer(&call, guard).await?;
        call.server.emails.peek(&token, &who, call.server.gate.clock().now()).await
    }
    .await;
    match peeked {
        Ok(email) => {
            let page = pages::ConfirmEmail { token: &token, email: &email };
            call::page(StatusCode::OK, pages::confirm_email(&call.site.pages, &page))
        }
        Err(denial) => call.refuse(denial),
    }
}

/// `POST /profile/email/confirm`: the address changes and the other sessions end, in one transaction.
pub async fn confirm(call: Call, guard: Guard) -> Response<Body> {
    let sent = match call.read::<Token>().await {
        Ok(sent) => sent,
        Err(denial) => return call.refuse(denial),
    };
    let confirmed = async {
        let who = confirmer(&call, guard).await?;
        let now = call.server.gate.clock().now();
        call.server.emails.confirm(&sent.value.token, &call.site.pages.name, &who, now).await
    }
    .await;
    let confirmed = match confirmed {
        Ok(confirmed) => confirmed,
        Err(denial) => return call.refuse(denial),
    };
    // The session that stays too: the page that this leads to shows the new address, and may be asked for before the
    // revocation log was read.
    for hash in confirmed.ended.iter().chain(&session::presented(&call)) {
        call.server.gate.forget_session(hash);
    }
    // What else is cached about this person goes with the log.
    match (sent.is_form, &call.want) {
        (true, _) | (_, Want::Page { .. }) => call::see_other(&confirmed.return_to),
        (false, Want::Json) => call::ok(),
    }
}
