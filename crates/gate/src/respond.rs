//! A refusal as bytes: `application/problem+json` (RFC 9457) and the headers that every surface shares.
//!
//! The layer answers with this alone; the server adds pages and redirects for people's browsers.

use bytes::Bytes;
use doorward_core::{
    decision::{Denial, Grant, RateBudget},
    id::DecisionId,
    license::Licensed,
    reason::Reason,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

/// Names the exact reason on every denial.
pub const REASON: HeaderName = HeaderName::from_static("x-doorward-reason");
/// Names the decision on every denial.
pub const DECISION: HeaderName = HeaderName::from_static("x-doorward-decision");

/// Days of grace that are left, on what passes because of it.
pub const LICENSE_GRACE: HeaderName = HeaderName::from_static("x-license-grace");

/// The limit that an answer is under (draft-ietf-httpapi-ratelimit-headers-10 §3).
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What is left of it (§4 there).
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The body of a refusal.
#[derive(Debug, Serialize)]
pub struct Problem<'a> {
    /// Link to the reason's text.
    pub r#type: String,
    /// One sentence for people.
    pub title: &'a str,
    /// What this case has to say besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
    /// HTTP status.
    pub status: u16,
    /// The coarse word.
    pub error: &'a str,
    /// The exact code.
    pub reason: &'a str,
    /// What the caller can do.
    pub remedy: &'a str,
    /// Whether the same request can succeed later.
    pub retryable: bool,
    /// Joins this answer with the logs.
    pub decision_id: String,
    /// `re_auth_required`: how old a sign-in may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u32>,
    /// Seconds until a retry makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    /// What was asked for and not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<&'a str>,
}

impl<'a> Problem<'a> {
    /// The body for `denial`; `docs` is the address of the reasons' texts. What masks a reason also hides
    /// its details.
    pub fn of(denial: &'a Denial, id: DecisionId, docs: &str) -> Self {
        let shown = denial.reason.shown();
        let detail = denial.detail().filter(|_| shown == denial.reason);
        Self {
            r#type: format!("{docs}#{}", shown.code()),
            title: shown.text(),
            detail: detail.and_then(|detail| detail.explanation),
            status: shown.status(),
            error: shown.error(),
            reason: shown.code(),
            remedy: shown.remedy().as_str(),
            retryable: shown.is_retryable(),
            decision_id: id.to_string(),
            max_age_seconds: detail.and_then(|detail| detail.max_age_seconds),
            retry_after: denial.retry_after(),
            required: detail.and_then(|detail| detail.required.as_deref()),
        }
    }
}

/// The whole answer to a refused request, for programs.
pub fn problem(denial: &Denial, id: DecisionId, docs: &str) -> Response<Bytes> {
    // A struct of strings and numbers always serialises.
    let body = serde_json::to_vec(&Problem::of(denial, id, docs)).unwrap_or_default();
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status(denial.reason);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    mark(headers, denial, id);
    response
}

/// Says on an answer that it came only because of a grace, where it did.
pub fn mark_grace(headers: &mut HeaderMap, grant: &Grant) {
    if let Some(days) = grant.license.as_ref().and_then(Licensed::grace_days) {
        headers.insert(LICENSE_GRACE, HeaderValue::from(days));
    }
}

/// The status that a caller is told.
pub fn status(reason: Reason) -> StatusCode {
    StatusCode::from_u16(reason.shown().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Puts the headers on a denial that every surface shares: reason, decision, `WWW-Authenticate` on every
/// 401, `Retry-After` on every 429 and 503, `RateLimit` where a limit was met.
pub fn mark(headers: &mut HeaderMap, denial: &Denial, id: DecisionId) {
    let shown = denial.reason.shown();
    headers.insert(REASON, HeaderValue::from_static(shown.code()));
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        headers.insert(DECISION, id);
    }
    if let Some(challenge) = challenge(shown) {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(seconds) = denial.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(budget) = denial.detail().and_then(|detail| detail.budget.as_ref()) {
        budgeted(headers, budget);
    }
}

/// Says what is left of a limit.
pub fn budgeted(headers: &mut HeaderMap, budget: &RateBudget) {
    let RateBudget { policy, quota, window, remaining, reset } = budget;
    let fields = [
        (RATE_LIMIT_POLICY, format!("\"{policy}\";q={quota};w={window}")),
        (RATE_LIMIT, format!("\"{policy}\";r={remaining};t={reset}")),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

/// `WWW-Authenticate` (RFC 6750 §3): on every 401, and where the standard has a word for the refusal.
fn challenge(reason: Reason) -> Option<HeaderValue> {
    match reason.bearer_error() {
        Some(word) => {
            let text = format!("Bearer realm=\"doorward\", error=\"{word}\", error_description=\"{}\"", reason.text());
            HeaderValue::try_from(text).ok()
        }
        None => (reason.status() == 401).then(|| HeaderValue::from_static("Bearer realm=\"doorward\"")),
    }
}

#[cfg(test)]
mod tests {
    use doorward_core::time::Timestamp;

    use super::*;

    fn answer(denial: &Denial) -> (Response<Bytes>, serde_json::Value) {
        let response = problem(denial, DecisionId::mint(Timestamp::EPOCH, [7; 10]), "/auth/docs");
        let body = serde_json::from_slice(response.body()).unwrap();
        (response, body)
    }

    #[test]
    fn every_reason_renders_with_its_status_code_and_headers() {
        for &reason in Reason::ALL {
            let denial = Denial::from(reason);
            let (response, body) = answer(&denial);
            let shown = reason.shown();
            assert_eq!(response.status(), shown.status(), "{reason}");
            assert_eq!(body["reason"], shown.code());
            assert_eq!(body["error"], shown.error());
            assert_eq!(response.headers()[&REASON], shown.code());
            assert_eq!(body["decision_id"], response.headers()[&DECISION].to_str().unwrap());
            if shown.status() == 401 {
                assert!(response.headers().contains_key(header::WWW_AUTHENTICATE), "{reason}");
            }
            if matches!(shown.status(), 429 | 503) {
                assert!(response.headers().contains_key(header::RETRY_AFTER), "{reason}");
            }
        }
    }

    #[test]
    fn a_limit_that_was_met_is_told_in_structured_fields() {
        let budget = RateBudget { policy: "callback", quota: 10, window: 60, remaining: 0, reset: 6 };
        let (response, body) = answer(&Denial::limited(budget).with_explanation("Wait a moment."));
        assert_eq!(response.headers()[RATE_LIMIT_POLICY], "\"callback\";q=10;w=60");
        assert_eq!(response.headers()[RATE_LIMIT], "\"callback\";r=0;t=6");
        assert_eq!(response.headers()[header::RETRY_AFTER], "6");
        assert_eq!((&body["detail"], &body["retry_after"]), (&"Wait a moment.".into(), &6.into()));
    }

    #[test]
    fn notes_for_the_operator_and_masked_details_stay_inside() {
        let denial = Denial::from(Reason::UntrustedPeer).with_note("peer 192.0.2.1").with_required("secret rule");
        let (response, body) = answer(&denial);
        let text = String::from_utf8(response.body().to_vec()).unwrap();
        assert!(!text.contains("192.0.2.1") && !text.contains("secret rule") && !text.contains("untrusted"), "{text}");
        assert_eq!(body["status"], 404);
        let (response, _) = answer(&Denial::from(Reason::StoreUnavailable).with_note("postgres://u:p@db"));
        assert!(!String::from_utf8(response.body().to_vec()).unwrap().contains("postgres"));
    }
}
