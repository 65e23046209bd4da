//! The only file of the server that turns a `Denial` into bytes: JSON by the gate's own form, pages and
//! redirects for people's browsers.

use axum::body::Body;
use doorward_core::{decision::Denial, id::DecisionId, reason::Reason};
use doorward_gate::respond;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::pages;

/// The form in which a caller can take a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// `application/problem+json`; never a redirect.
    Json,
    /// A person's browser, at this local target.
    Page {
        /// Where to come back to after signing in.
        return_to: String,
    },
}

impl Want {
    /// Reads the wish from a request: only a top-level navigation gets pages and redirects, because a
    /// script that follows a redirect to a login page breaks in ways nobody can see.
    pub fn of(method: &Method, headers: &HeaderMap, target: &str) -> Self {
        let is_navigation = match headers.get("sec-fetch-mode") {
            Some(mode) => mode == "navigate",
            None => headers
                .get_all(header::ACCEPT)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .any(|value| value.split(',').any(|item| item.trim_start().starts_with("text/html"))),
        };
        if is_navigation {
            // What a form sent cannot be repeated by a redirect back.
            let is_safe = method == Method::GET || method == Method::HEAD;
            Self::Page { return_to: if is_safe { target.to_owned() } else { "/".to_owned() } }
        } else {
            Self::Json
        }
    }
}

/// Whether a sign-in would help: no credential at all, or a session that is over.
fn is_cured_by_sign_in(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NoCredential
            | Reason::SessionUnknown
            | Reason::SessionIdle
            | Reason::SessionExpiredAbsolute
            | Reason::SessionRevoked
    )
}

/// Where a person's browser is led on `reason`, to come back to `return_to` afterwards; `None` where a page says more.
pub fn lead(reason: Reason, base: &str, return_to: &str) -> Option<String> {
    match reason {
        Reason::ReAuthRequired => Some(with_return_to(&format!("{base}/reauth"), return_to)),
        reason => is_cured_by_sign_in(reason).then(|| login_url(base, return_to)),
    }
}

/// The login page's address with where to come back to.
fn login_url(base: &str, return_to: &str) -> String {
    with_return_to(&format!("{base}/login"), return_to)
}

fn with_return_to(page: &str, return_to: &str) -> String {
    let query: String = url::form_urlencoded::byte_serialize(return_to.as_bytes()).collect();
    format!("{page}?return_to={query}")
}

/// The answer to a refused request.
pub fn denial(denial: &Denial, id: DecisionId, want: &Want, site: &pages::Site) -> Response<Body> {
    let base = &site.base;
    let shown = denial.reason.shown();
    let led = match want {
        Want::Page { return_to } => lead(shown, base, return_to),
        Want::Json => None,
    };
    let mut response = match (want, led) {
        (Want::Page { .. }, Some(to)) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::FOUND;
            if let Ok(location) = HeaderValue::try_from(to) {
                response.headers_mut().insert(header::LOCATION, location);
            }
            response
        }
        (Want::Page { return_to }, None) => {
            let html = pages::denied(site, &pages::Denied { denial, decision: id, return_to });
            let mut response = Response::new(Body::from(html));
            *response.status_mut() = respond::status(shown);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            response
        }
        (Want::Json, _) => respond::problem(denial, id, &format!("{base}/docs")).map(Body::from),
    };
    respond::mark(response.headers_mut(), denial, id);
    super::harden::harden(response.headers_mut());
    response
}
