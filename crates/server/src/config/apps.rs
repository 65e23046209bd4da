//! `[apps.NAME]`: what stands behind the door.

use std::{collections::BTreeMap, time::Duration};

use doorward_core::rule::PathMode;
use http::HeaderName;

use super::{
    key::settings,
    read::Reader,
    scalar::{Scalar, scalar_field, shown, words},
    urls::Upstream,
};

settings! {
    /// An app behind the door. `NAME` is how rules call it.
    pub struct App check App::check {
        /// Where it listens.
        upstream: Upstream = required "http://127.0.0.1:3000";
        /// Audience of its identity assertion, also in forward-auth; the app's name when absent.
        audience: String = optional "web";
        /// How long it may take.
        timeout: Timeout = table {};
        /// Further header names under which it expects the identity; stripped from requests alike.
        /// Keys: `subject`, `issuer`, `email`, `method`, `org`, `license`, `entitlements`,
        /// `decision`.
        headers: BTreeMap<String, IdentityHeader> = default {};
        /// Whether requests carry a signed identity JWT, `X-Doorward-Assertion`.
        assertion: bool = default false;
        /// Whether Doorward speaks CORS for it: answers the preflights of `login.allowed_origins`, and marks answers and
        /// refusals for them, in place of what the app says. Off: CORS is the app's own business.
        cors: bool = default false;
        /// Whether answers that say nothing about it get `X-Content-Type-Options`, `X-Frame-Options: SAMEORIGIN`,
        /// `Referrer-Policy` and `headers.hsts`, and lose `Server` and `X-Powered-By`. Off: left as they are.
        harden: bool = default false;
        /// Paths that can be read in more than one way: `strict` refuses them, `same_rule` lets them pass
        /// where every reading meets the same rule.
        paths: PathMode = default "strict";
    }

    /// How long an app may take.
    pub struct Timeout check Timeout::check {
        /// To accept a connection.
        connect: Duration = default "2s";
        /// Between two pieces of an answer.
        idle: Duration = default "60s";
    }
}

words!(PathMode, "word": "strict" => PathMode::Strict, "same_rule" => PathMode::SameRule);
scalar_field!(IdentityHeader);

/// The parts of an identity that an app can be told, as keys of `headers`.
pub const IDENTITY_FIELDS: [&str; 8] =
    ["subject", "issuer", "email", "method", "org", "license", "entitlements", "decision"];

/// A header name that an app expects an identity under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityHeader(pub HeaderName);

/// Headers that mean something to HTTP itself, to proxies or to credentials; an identity must not replace them.
const RESERVED: [&str; 21] = [
    "accept",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "origin",
    "proxy-authorization",
    "range",
    "referer",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

impl Scalar for IdentityHeader {
    const TYPE: &'static str = "header name";
    const HINT: &'static str = "a header name";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let name: HeaderName = text.parse().map_err(|_| format!("`{}` is not a header name", shown(text)))?;
        let plain: String = name.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        if plain.starts_with("x-doorward-") {
            return Err("names under X-Doorward- are our own".into());
        }
        if RESERVED.contains(&plain.as_str())
            || ["x-forwarded-", "x-original-", "sec-"].iter().any(|prefix| plain.starts_with(prefix))
        {
            return Err(format!("`{name}` has a meaning of its own in HTTP"));
        }
        Ok(Self(name))
    }
}

impl App {
    /// An app of which nothing but the address is known.
    pub(super) fn at(upstream: Upstream) -> Self {
        let timeout = Timeout { connect: Duration::from_secs(2), idle: Duration::from_secs(60) };
        let headers = BTreeMap::new();
        Self {
            upstream,
            audience: None,
            timeout,
            headers,
            assertion: false,
            cors: false,
            harden: false,
            paths: PathMode::Strict,
        }
    }

    fn check(&self, cx: &mut Reader<'_>) {
        for name in self.headers.keys().filter(|name| !IDENTITY_FIELDS.contains(&name.as_str())) {
            cx.problem_in(
                &format!("headers.{name}"),
                "not a part of an identity",
                format!("use one of {}", IDENTITY_FIELDS.join(", ")),
            );
        }
    }
}

impl Timeout {
    fn check(&self, cx: &mut Reader<'_>) {
        let (low, high) = ((Duration::from_millis(10), "10ms"), (Duration::from_secs(86_400), "24h"));
        cx.check_range("connect", self.connect, low, high);
        cx.check_range("idle", self.idle, low, high);
    }
}
