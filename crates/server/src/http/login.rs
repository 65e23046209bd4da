//! Signing in by mail: the routes of journey C.

use std::sync::Arc;

use axum::body::Body;
use doorward_core::{
    credential::cookie,
    decision::Denial,
    id::UserId,
    link::Asker,
    principal::Principal,
    reason::Reason,
    redirect::ReturnTo,
    request::Host,
    session::{OpaqueToken, TokenHash},
    time::Now,
    user::Email,
};
use doorward_gate::{
    flow::{
        CodeInput,
        sign_in::{Callback, LinkInput, Peek, SignedIn},
    },
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

/// Body of `POST /login/code`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeBody {
    #[serde(default)]
    code: String,
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

/// What this browser keeps of an earlier sign-in.
fn known(call: &Call) -> Option<String> {
    let value = cookie::value(&call.parts.headers, call.site.cookies.names.known).ok().flatten()?;
    std::str::from_utf8(value).ok().map(str::to_owned)
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
        known: known(&call),
        asker: asker(&call),
    });
    let asked = asked.await;
    floor.await;
    let mut response = if sent.is_form {
        let page = pages::CheckInbox {
            email: &sent.value.email,
            return_to: to.as_str(),
            link_ttl: call.site.link_ttl,
            code_ttl: call.site.code_ttl,
            in_demo: call.site.is_demo,
            is_re_auth: false,
        };
        call::page(StatusCode::OK, pages::check_inbox(&call.site.pages, &page))
    } else {
        call::ok()
    };
    call.site.cookies.login(response.headers_mut(), &asked.browser);
    response
}

/// `GET /login/callback?token=`: a page; consumes nothing, however often it is fetched and by whom.
pub async fn callback_page(call: Call, guard: Guard) -> Response<Body> {
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
        Peek::Here { email, user } => {
            let signed_in = somebody(&call, guard).await;
            let page = pages::Confirm {
                token,
                email,
                goes_on: !is_fetched_ahead(&call) && !signed_in.is_another_than(*user),
                other: signed_in.email(),
            };
            pages::confirm(&call.site.pages, &page)
        }
        Peek::Elsewhere => pages::elsewhere(&call.site.pages),
    };
    call::page(StatusCode::OK, html)
}

/// Who is signed in in this browser.
enum Somebody {
    Nobody,
    Known(Arc<Principal>),
    /// Nobody can tell now.
    Unclear,
}

impl Somebody {
    /// Whether going on without asking could take somebody else's session away.
    fn is_another_than(&self, user: UserId) -> bool {
        match self {
            Self::Nobody => false,
            Self::Known(principal) => principal.user_id != Some(user),
            Self::Unclear => true,
        }
    }

    fn email(&self) -> Option<&Email> {
        match self {
            Self::Known(principal) => principal.email.as_ref(),
            Self::Nobody | Self::Unclear => None,
        }
    }
}

async fn somebody(call: &Call, guard: Guard) -> Somebody {
    match session::caller(call, guard).await {
        Ok(decision) if decision.outcome.is_ok() => decision.caller.map_or(Somebody::Nobody, Somebody::Known),
        Ok(_) => Somebody::Nobody,
        Err(_) => Somebody::Unclear,
    }
}

/// Whether a browser fetches this before anybody wants it (Fetch, `Sec-Purpose`; Safari says it with `X-Moz` and
/// `Purpose`): then nothing may go on by itself.
fn is_fetched_ahead(call: &Call) -> bool {
    ["sec-purpose", "purpose", "x-moz", "x-purpose"].iter().any(|name| {
        let values = call.parts.headers.get_all(*name).iter();
        values.filter_map(|value| value.to_str().ok()).any(|value| {
            let value = value.to_ascii_lowercase();
            value.contains("prefetch") || value.contains("prerender") || value.contains("preview")
        })
    })
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
    let input = Callback { token, browser: browser(&call), known: known(&call), replaces, asker: asker(&call) };
    let signed_in = match call.server.sign_in.callback(input, now).await {
        Ok(signed_in) => signed_in,
        Err(denial) => return call.refuse(denial),
    };
    signed_in_answer(&call, &signed_in, replaces, sent.is_form, now)
}

/// `POST /login/code`: the same by the code of the mail. Wrong or right, it answers no sooner than the floor: what
/// is looked up for a browser that got a mail takes longer than for one that got none.
pub async fn code(call: Call) -> Response<Body> {
    let floor = tokio::time::sleep(call.site.response_floor);
    let sent = match call.read::<CodeBody>().await {
        Ok(sent) => sent,
        Err(denial) => return call.refuse(denial),
    };
    if call.server.gate.csrf_keys().is_none() {
        return call.refuse(Denial::from(Reason::StoreUnavailable).with_note("the session key ring is not loaded yet"));
    }
    let now = call.server.gate.clock().now();
    let replaces = session::presented(&call);
    let input = CodeInput {
        code: sent.value.code,
        browser: browser(&call),
        known: known(&call),
        replaces,
        asker: asker(&call),
    };
    let outcome = call.server.sign_in.code(input, now).await;
    floor.await;
    match outcome {
        Ok(signed_in) => signed_in_answer(&call, &signed_in, replaces, sent.is_form, now),
        Err(denial) => call.refuse(denial),
    }
}

/// The answer to a sign-in: cookies, and where to go.
fn signed_in_answer(
    call: &Call,
    signed_in: &SignedIn,
    replaces: Option<TokenHash>,
    is_form: bool,
    now: Now,
) -> Response<Body> {
    call.server.methods.signed_in(signed_in.session.method);
    if let Some(old) = replaces {
        call.server.gate.forget_session(&old);
    }
    let csrf = call.server.csrf_value(&signed_in.session.hash).unwrap_or_default();
    let mut response = match (is_form, &call.want) {
        (true, _) | (_, Want::Page { .. }) => call::see_other(&signed_in.return_to),
        (false, Want::Json) => call::ok(),
    };
    let age = signed_in.session.expires_at.since(now.wall);
    call.site.cookies.sign_in(response.headers_mut(), &signed_in.token, &csrf, age);
    if let Some(known) = &signed_in.known {
        call.site.cookies.known(response.headers_mut(), known);
    }
    response
}
