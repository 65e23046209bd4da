//! `/reauth`: whoever is signed in proves again who they are, and goes back to what asked for it.

use std::sync::Arc;

use axum::body::Body;
use doorward_core::{
    decision::Denial,
    principal::{Authenticated, Principal},
    reason::Reason,
    user::Email,
};
use doorward_gate::flow::re_auth::ReAuthInput;
use http::{Response, StatusCode, header};
use serde::Deserialize;

use super::{
    call::{self, Call, Sent},
    login, session,
};
use crate::pages;

/// Body of `POST /reauth`, and query of the page.
#[derive(Debug, Default, Deserialize)]
struct Wish {
    #[serde(default)]
    return_to: Option<String>,
}

/// `GET /reauth`: says why, and has one button.
pub async fn page(call: Call, caller: Option<Arc<Principal>>) -> Response<Body> {
    let wish: Wish =
        call.parts.uri.query().and_then(|query| serde_urlencoded::from_str(query).ok()).unwrap_or_default();
    let to = call.site.return_to(wish.return_to.as_deref().unwrap_or("/"));
    if let Err(denial) = call.server.needs_mail() {
        return call.refuse(denial);
    }
    let csrf = session::presented(&call).and_then(|hash| call.server.csrf_value(&hash));
    let (Some(csrf), Some(caller)) = (csrf, caller) else {
        return call.refuse(Denial::from(Reason::StoreUnavailable).with_note("the session key ring is not loaded yet"));
    };
    let email = caller.email.as_ref().map_or("your mail address", Email::as_str);
    let page = pages::ReAuth { email, return_to: to.as_str(), csrf: &csrf };
    call::page(StatusCode::OK, pages::re_auth(&call.site.pages, &page))
}

/// `POST /reauth`: a mail to the session's own address, whatever the request says.
pub async fn request(call: Call, caller: Option<Arc<Principal>>) -> Response<Body> {
    match mailed(&call, caller).await {
        Ok(response) => response,
        Err(denial) => call.refuse(denial),
    }
}

async fn mailed(call: &Call, caller: Option<Arc<Principal>>) -> Result<Response<Body>, Denial> {
    let caller = caller.ok_or(Reason::Internal)?;
    let (Authenticated::Session { id, .. }, Some(user)) = (&caller.authenticated, caller.user_id) else {
        return Err(Reason::Internal.into());
    };
    call.server.needs_mail()?;
    let sent = match call.parts.headers.contains_key(header::CONTENT_TYPE) {
        true => call.read::<Wish>().await?,
        false => Sent { value: Wish::default(), is_form: false },
    };
    let to = call.site.return_to(sent.value.return_to.as_deref().unwrap_or("/"));
    let input = ReAuthInput {
        user,
        session: *id,
        host: login::other_host(call),
        return_to: to.as_str().to_owned(),
        browser: login::browser(call),
        asker: login::asker(call),
    };
    let asked = call.server.re_auth.request(input, call.server.gate.clock().now()).await?;
    let mut response = if sent.is_form {
        let page = pages::CheckInbox {
            email: caller.email.as_ref().map_or("your mail address", Email::as_str),
            return_to: to.as_str(),
            link_ttl: call.site.link_ttl,
            code_ttl: call.site.code_ttl,
            in_demo: call.site.is_demo,
            is_re_auth: true,
        };
        call::page(StatusCode::OK, pages::check_inbox(&call.site.pages, &page))
    } else {
        call::ok()
    };
    call.site.cookies.login(response.headers_mut(), &asked.browser);
    Ok(response)
}
