//! What `doorward demo` puts round the hub: a small application behind it, a mailbox, and its config.
//!
//! Nothing here is part of `serve`. Everything listens on loopback; who may read the mailbox is decided
//! by a one-time address, because other users of the machine reach loopback too.

mod app;
mod config;
mod mailbox;
#[cfg(test)]
mod tests;

use axum::{
    Router,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing,
};

pub use self::{
    app::app,
    config::config,
    mailbox::{MailboxKey, mailbox},
};
use crate::{http::harden::harden, pages};

/// `base_path` of the demo's config.
pub const BASE_PATH: &str = "/auth";

/// A page with the headers that every page has.
fn page(status: StatusCode, html: String) -> Response {
    let mut response = (status, html).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(pages::CONTENT_TYPE));
    harden(headers);
    response
}

/// Serves the assets of the pages below `base`.
fn assets(base: &str) -> Router {
    pages::assets().into_iter().fold(Router::new(), |router, asset| {
        let headers = [
            (header::CONTENT_TYPE, asset.content_type),
            (header::CACHE_CONTROL, pages::Asset::CACHE_CONTROL),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        router.route(&format!("{base}{}", asset.path), routing::get(move || async move { (headers, asset.bytes) }))
    })
}
