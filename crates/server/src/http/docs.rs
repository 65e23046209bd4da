//! Static answers: assets, OpenAPI, the reasons as a page, the assertion's keys.

use axum::body::Body;
use doorward_core::reason::Reason;
use http::{HeaderValue, Response, StatusCode, header};

use super::{
    call::{self, Call},
    openapi,
};
use crate::pages;

/// `GET /openapi.json`.
pub fn openapi(call: &Call) -> Response<Body> {
    call::json(StatusCode::OK, &openapi::document(&call.site.pages.base))
}

/// `GET /docs`.
pub fn page(call: &Call) -> Response<Body> {
    call::page(StatusCode::OK, pages::docs(&call.site.pages))
}

/// `GET /assets/*`: names carry a hash of their content, so they may be kept for ever.
pub fn asset(call: &Call, rest: &str) -> Response<Body> {
    let wanted = format!("/assets{rest}");
    let Some(asset) = pages::assets().into_iter().find(|asset| asset.path == wanted) else {
        return call.refuse(Reason::NotFound.into());
    };
    let mut response = call::own(StatusCode::OK, asset.content_type, Body::from(asset.bytes));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(pages::Asset::CACHE_CONTROL));
    response
}

/// `GET /assertion/jwks`.
pub fn assertion_jwks(call: &Call) -> Response<Body> {
    match call.server.assertions.jwks() {
        Ok(set) => {
            let mut response = call::json(StatusCode::OK, &set);
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
            response
        }
        Err(denial) => call.refuse(denial),
    }
}
