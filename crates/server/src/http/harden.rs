//! Security headers of our own responses, errors included (B72). Proxied responses are left alone unless the
//! configuration asks for more.

use doorward_core::{origin::Origin, request::Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, header};

static HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    // `strict-origin` and `no-referrer` both keep a link's token out of `Referer`; under the latter a browser
    // sends `Origin: null` with our own forms (Fetch, "append a request Origin header"), which the Origin check
    // would refuse.
    (header::REFERRER_POLICY, "strict-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=(), interest-cohort=()",
    ),
];

/// Adds them, and `Cache-Control: no-store` where the handler said nothing about caching.
pub fn harden(headers: &mut HeaderMap) {
    for (name, value) in &HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// What of it the configuration decides.
#[derive(Clone, Debug, Default)]
pub struct Configured {
    /// `headers.hsts`.
    pub hsts: Option<HeaderValue>,
    /// The content security policy where pages of other origins take part: a form of ours may lead there
    /// (browsers hold `form-action` against the redirect that follows a form, too).
    pub policy: Option<HeaderValue>,
}

impl Configured {
    /// For this `Strict-Transport-Security` and these origins besides our own.
    pub fn new(hsts: Option<&str>, allowed: &[Origin]) -> Self {
        let own =
            HEADERS.iter().find(|(name, _)| name == header::CONTENT_SECURITY_POLICY).map_or("", |(_, value)| value);
        let listed: String = allowed.iter().map(|origin| format!(" {origin}")).collect();
        let policy = own.replace("form-action 'self'", &format!("form-action 'self'{listed}"));
        Self {
            hsts: hsts.and_then(|value| HeaderValue::try_from(value).ok()),
            policy: (!allowed.is_empty()).then(|| HeaderValue::try_from(policy).ok()).flatten(),
        }
    }

    /// Puts it on an answer of ours.
    pub fn finish(&self, headers: &mut HeaderMap, scheme: Scheme) {
        if let (Some(policy), true) = (&self.policy, headers.contains_key(header::CONTENT_SECURITY_POLICY)) {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
        }
        if let Some(hsts) = self.hsts_over(scheme) {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts);
        }
    }

    /// Adds to an app's answer what it does not say itself, where the configuration asks for it.
    pub fn finish_for_app(&self, headers: &mut HeaderMap, scheme: Scheme) {
        headers.remove(header::SERVER);
        headers.remove("x-powered-by");
        let defaults = [
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
            (header::REFERRER_POLICY, "strict-origin-when-cross-origin"),
        ];
        for (name, value) in defaults {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        if let Some(hsts) = self.hsts_over(scheme) {
            headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(hsts);
        }
    }

    /// Over plain HTTP the header means nothing and must not be sent (RFC 6797 §7.2).
    fn hsts_over(&self, scheme: Scheme) -> Option<HeaderValue> {
        self.hsts.clone().filter(|_| scheme == Scheme::Https)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_admits_what_the_pages_use_and_nothing_inline() {
        let mut headers = HeaderMap::new();
        harden(&mut headers);
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        for part in ["default-src 'none'", "style-src 'self'", "script-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.split(';').any(|given| given.trim() == part), "{part}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    }

    #[test]
    fn a_handler_that_says_how_to_cache_is_heard() {
        let mut headers = HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"))]);
        harden(&mut headers);
        assert_eq!(headers[header::CACHE_CONTROL], "max-age=60");
    }
}
