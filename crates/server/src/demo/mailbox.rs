//! The demo's mailbox: the mails that the mailer keeps in memory, read in a browser.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing,
};
use doorward_core::{
    id::MailId,
    session::{OpaqueToken, TokenHash},
};
use doorward_gate::mail::Mailbox;
use doorward_store::Mail;

use super::{assets, page};
use crate::pages::{self, Site};

/// Path of the mailbox; also of its cookie, which therefore never reaches the hub on the same host (ports
/// do not separate cookies, RFC 6265 §8.5).
const BASE: &str = "/mailbox";
const COOKIE: &str = "doorward_mailbox";

/// What opens the mailbox: a token for one use in the printed address, then a cookie in that browser.
pub struct MailboxKey {
    token: OpaqueToken,
    cookie: OpaqueToken,
}

impl MailboxKey {
    /// Mints both from random bytes.
    pub fn mint(token: [u8; 32], cookie: [u8; 32]) -> Self {
        Self { token: OpaqueToken::mint(token), cookie: OpaqueToken::mint(cookie) }
    }

    /// The address to print, with the one-time token; `origin` is where [`mailbox`] listens.
    pub fn url(&self, origin: &str) -> String {
        format!("{}{BASE}?token={}", origin.trim_end_matches('/'), self.token.expose())
    }
}

struct Door {
    mailbox: Mailbox,
    site: Site,
    token: TokenHash,
    cookie: TokenHash,
    cookie_text: String,
    used: AtomicBool,
}

/// The mailbox, to be served on a loopback port of its own. Without `key` it shows nothing.
pub fn mailbox(mailbox: Mailbox, key: &MailboxKey) -> Router {
    let door = Arc::new(Door {
        mailbox,
        site: Site { name: "Doorward demo".to_owned(), base: BASE.to_owned() },
        token: key.token.hash(),
        cookie: key.cookie.hash(),
        cookie_text: key.cookie.expose(),
        used: AtomicBool::new(false),
    });
    Router::new()
        .route(BASE, routing::get(list))
        .route(&format!("{BASE}/{{id}}"), routing::get(one))
        .with_state(door)
        .merge(assets(BASE))
}

async fn list(State(door): State<Arc<Door>>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let token = token_of(&uri);
    if door.is_open_to(&headers) {
        return match token {
            // Out of the address bar with it, also when the printed address is opened once more.
            Some(_) => to_the_list(None),
            None => page(StatusCode::OK, pages::demo::mailbox(&door.site, &door.newest_first())),
        };
    }
    // Compared as hashes: what a comparison's duration tells about a hash helps nobody.
    if token.is_none_or(|token| token.hash() != door.token) {
        return page(StatusCode::FORBIDDEN, pages::demo::mailbox_closed(&door.site, false));
    }
    // A HEAD, as link checkers send it, must not use the token up.
    if method != Method::GET {
        return StatusCode::NO_CONTENT.into_response();
    }
    if door.used.swap(true, Ordering::SeqCst) {
        return page(StatusCode::FORBIDDEN, pages::demo::mailbox_closed(&door.site, true));
    }
    to_the_list(Some(&door.cookie_text))
}

async fn one(State(door): State<Arc<Door>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    if !door.is_open_to(&headers) {
        return page(StatusCode::FORBIDDEN, pages::demo::mailbox_closed(&door.site, false));
    }
    match id.parse().ok().and_then(|id| door.mail(id)) {
        Some(mail) => page(StatusCode::OK, pages::demo::mail(&door.site, &mail)),
        None => page(StatusCode::NOT_FOUND, pages::demo::mailbox(&door.site, &door.newest_first())),
    }
}

fn token_of(uri: &Uri) -> Option<OpaqueToken> {
    let query = uri.query()?;
    let (_, token) = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "token")?;
    OpaqueToken::parse(&token)
}

fn to_the_list(cookie: Option<&str>) -> Response {
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, BASE)]).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let cookie = cookie.map(|text| format!("{COOKIE}={text}; Path={BASE}; HttpOnly; SameSite=Strict"));
    if let Some(cookie) = cookie.and_then(|cookie| HeaderValue::try_from(cookie).ok()) {
        headers.insert(header::SET_COOKIE, cookie);
    }
    response
}

impl Door {
    fn newest_first(&self) -> Vec<Mail> {
        let mut mails = self.mailbox.mails();
        mails.reverse();
        mails
    }

    fn mail(&self, id: MailId) -> Option<Mail> {
        self.mailbox.mails().into_iter().find(|mail| mail.id == id)
    }

    fn is_open_to(&self, headers: &HeaderMap) -> bool {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(name, value)| {
            name == COOKIE && OpaqueToken::parse(value).is_some_and(|token| token.hash() == self.cookie)
        })
    }
}
