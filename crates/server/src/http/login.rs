//! Signing in by mail: the routes of journey C.

use axum::body::Body;
use doorward_core::{
    credential::cookie, decision::Denial, link::Asker, reason::Reason, redirect::ReturnTo, request::Host,
    session::OpaqueToken,
};
use doorward_gate::{
    flow::sign_in::{Callback, LinkInput, Peek},
    window::Window,
};
use http::{Response, StatusCode, header};
use serde::Deserialize;

use super::{
    call::{self, Call},
    respond::Want,
    routes::Guard,
    session,
};
use crate::pages;

/// Query of the login page after a sign-out.
pub const SIGNED_OUT: &str = "signed_out";

/// Body of `POST /login/request-link`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkBody {
    email: String,
    #[serde(default)]
    return_to: Option<String>,
}

/// Body of `POST /login/callback`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallbackBody {
    #[serde(default)]
    token: Option<String>,
}

/// Query of the pages.
#[derive(Debug, Default, Deserialize)]
struct PageQuery {
    #[serde(default)]
    return_to: Option<String>,
    #[serde(default)]
    token: Option<String>,
}

/// Who asks, for records and mails.
pub fn asker(call: &Call) -> Asker {
    let agent = call.parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    Asker::new(Some(call.client.ip), agent)
}

fn query(call: &Call) -> PageQuery {
    call.parts.uri.query().and_then(|query| serde_urlencoded::from_str(query).ok()).unwrap_or_default()
}

fn return_to(call: &Call, text: Option<&str>) -> ReturnTo {
    call.site.return_to(text.unwrap_or("/"))
}

/// The login cookie of this browser, if it has a readable one.
pub(super) fn browser(call: &Call) -> Option<OpaqueToken> {
    let value = cookie::value(&call.parts.headers, call.site.cookies.names.login).ok().flatten()?;
    OpaqueToken::parse(std::str::from_utf8(value).ok()?)
}

/// The host that was asked, where it is not that of `public_url`. It is one of the configuration's: others got 421.
pub(super) fn other_host(call: &Call) -> Option<String> {
    let host = Host::parse(&call.client.host).ok()?;
    (host.name() != call.site.redirects.own.host()).then(|| host.name().to_owned())
}

/// `GET /login`. Whoever is signed in already goes on.
pub async fn page(call: Call, guard: Guard) -> Response<Body> {
    let query = query(&call);
    let to = return_to(&call, query.return_to.as_deref());
    // A store that is down must not keep the page from showing.
    let ended = match session::caller(&call, guard).await.map(|decision| decision.outcome) {
        Ok(Ok(_)) => return call::see_other(to.as_str()),
        Ok(Err(denial)) => Some(denial.reason).filter(|reason| *reason != Reason::NoCredential),
        Err(_) => None,
    };
    if call.parts.uri.query() == Some(SIGNED_OUT) {
        return call::page(StatusCode::OK, pages::signed_out(&call.site.pages));
    }
    let page = pages::Login {
        return_to: to.as_str(),
        email: "",
        ended,
        with_password: call.server.gate.window() == Window::Open,
    };
    call::page(StatusCode::OK, pages::login(&call.site.pages, &page))
}

/// `POST /login/request-link`: always the same answer, never before the floor.
pub async fn request_link(call: Call) -> Response<Body> {
    let floor = tokio::time::sleep(call.site.response_floor);
    let sent = match call.read::<LinkBody>().await {
        Ok(sent) => sent,
        Err(denial) => return call.refuse(denial),
    };
    let to = return_to(&call, sent.value.return_to.as_deref());
    let asked = call.server.sign_in.request_link(LinkInput {
        email: sent.value.email.clone(),
        host: other_host(&call),
        return_to: to.as_str().to_owned(),
        browser: browser(&call),
        asker: asker(&call),
    });
    floor.await;
    let mut response = if sent.is_form {
        let page = pages::CheckInbox {
            email: &sent.value.email,
            return_to: to.as_str(),
            link_ttl: call.site.link_ttl,
            in_demo: call.site.is_demo,
        };
        call::page(StatusCode::OK, pages::check_inbox(&call.site.pages, &page))
    } else {
        call::ok()
    };
    call.site.cookies.login(response.headers_mut(), &asked.browser);
    response
}

/// `GET /login/callback?token=`: a page; consumes nothing, however often it is fetched and by whom.
pub async fn callback_page(call: Call) -> Response<Body> {
    let query = query(&call);
    let Some(token) = query.token.as_deref().filter(|token| !token.is_empty()) else {
        return call.refuse(Reason::MissingToken.into());
    };
    let now = call.server.gate.clock().now();
    let peek = match call.server.sign_in.peek(token, browser(&call).as_ref(), now).await {
        Ok(peek) => peek,
        Err(denial) => return call.refuse(denial),
    };
    let html = match &peek {
        Peek::Here { email } => {
            // Somebody else already signed in here is asked first; nobody is a reason to go on by itself.
            let goes_on = session::presented(&call).is_none();
            pages::confirm(&call.site.pages, &pages::Confirm { token, email, goes_on })
        }
        Peek::Elsewhere => pages::elsewhere(&call.site.pages),
    };
    call::page(StatusCode::OK, html)
}

/// `POST /login/callback`: consumes the link and begins the session, in one transaction.
pub async fn callback(call: Call) -> Response<Body> {
    let sent = match call.read::<CallbackBody>().await {
        Ok(sent) => sent,
        Err(denial) => return call.refuse(denial),
    };
    let Some(token) = sent.value.token.filter(|token| !token.is_empty()) else {
        return call.refuse(Denial::from(Reason::MissingToken));
    };
    // Asked before anything is consumed: a session without its CSRF value would be a burnt link.
    if call.server.gate.csrf_keys().is_none() {
        return call.refuse(Denial::from(Reason::StoreUnavailable).with_note("the session key ring is not loaded yet"));
    }
    let now = call.server.gate.clock().now();
    let replaces = session::presented(&call);
    let input = Callback { token, browser: browser(&call), replaces, asker: asker(&call) };
    let signed_in = match call.server.sign_in.callback(input, now).await {
        Ok(signed_in) => signed_in,
        Err(denial) => return call.refuse(denial),
    };
    call.server.methods.signed_in(signed_in.session.method);
    if let Some(old) = replaces {
        call.server.gate.forget_session(&old);
    }
    let csrf = call.server.csrf_value(&signed_in.session.hash).unwrap_or_default();
    let mut response = match (sent.is_form, &call.want) {
        (true, _) | (_, Want::Page { .. }) => call::see_other(&signed_in.return_to),
        (false, Want::Json) => call::ok(),
    };
    let age = signed_in.session.expires_at.since(now.wall);
    call.site.cookies.sign_in(response.headers_mut(), &signed_in.token, &csrf, age);
    response
}
