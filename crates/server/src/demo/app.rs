//! The demo application: it has no sign-in and shows what Doorward tells it.

use std::sync::Arc;

use axum::{
    Json, Router,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    routing,
};
use serde::Serialize;

use super::{BASE_PATH, assets, page};
use crate::pages::{self, Site};

/// Where the app's own assets are; our routes below `/auth` are not the app's.
const BASE: &str = "/demo";

/// The demo application, to be served on a loopback port behind the hub at `public_url`.
///
/// `/` is a page, `/api/echo` and `/public/echo` answer any method with JSON; everything else is 404. It
/// believes identity headers without proof, as an app may that only Doorward can reach.
pub fn app(public_url: &str) -> Router {
    let site = Arc::new(Site { name: "Demo application".to_owned(), base: BASE.to_owned() });
    let public_url: Arc<str> = public_url.trim_end_matches('/').into();
    let home = move |headers: HeaderMap| {
        let html = pages::demo::app(&site, BASE_PATH, &public_url, &identity(&headers));
        async move { page(StatusCode::OK, html) }
    };
    Router::new()
        .route("/", routing::get(home))
        .route("/api/echo", routing::any(echo))
        .route("/public/echo", routing::any(echo))
        .merge(assets(BASE))
        .fallback(nothing_here)
}

async fn nothing_here() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "The demo application has nothing at this address.\n")
}

/// What arrived. Values of cookies and of `Authorization` are secrets and stay out; that they arrived is said.
#[derive(Serialize)]
struct Echo {
    app: &'static str,
    method: String,
    path: String,
    query: Option<String>,
    host: Option<String>,
    identity: Vec<(String, String)>,
    cookies: Vec<String>,
    authorization: bool,
}

async fn echo(method: Method, uri: Uri, headers: HeaderMap) -> Json<Echo> {
    Json(Echo {
        app: "doorward demo",
        method: method.to_string(),
        path: uri.path().to_owned(),
        query: uri.query().map(str::to_owned),
        host: headers.get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned()),
        identity: identity(&headers),
        cookies: cookie_names(&headers),
        authorization: headers.contains_key(header::AUTHORIZATION),
    })
}

fn cookie_names(headers: &HeaderMap) -> Vec<String> {
    let mut names = Vec::new();
    for line in headers.get_all(header::COOKIE) {
        let line = String::from_utf8_lossy(line.as_bytes());
        names.extend(line.split(';').map(|pair| pair.split('=').next().unwrap_or_default().trim().to_owned()));
    }
    names
}

/// Every `X-Doorward-*` header that arrived, in order; a name that stands twice is shown twice.
fn identity(headers: &HeaderMap) -> Vec<(String, String)> {
    let ours = headers.iter().filter(|(name, _)| name.as_str().starts_with("x-doorward-"));
    let shown = ours.map(|(name, value)| {
        let value = if name.as_str() == "x-doorward-assertion" {
            // A token, even a short-lived one, has no place on a page (CVE-2024-39315).
            format!("(a signed assertion of {} bytes)", value.len())
        } else {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        (title_case(name.as_str()), value)
    });
    shown.collect()
}

/// `x-doorward-email` as people write it: `X-Doorward-Email`.
fn title_case(name: &str) -> String {
    let mut start = true;
    let cased = name.chars().map(|c| {
        let shown = if start { c.to_ascii_uppercase() } else { c };
        start = c == '-';
        shown
    });
    cased.collect()
}
