//! `[[rules]]`: which requests reach which app, and what they must show.

use std::collections::BTreeMap;

use doorward_core::{
    credential::{CredentialKind, CredentialSet},
    rule::{Access, CsrfMode, LicenseMode, OnStale, PathPattern},
};
use http::Method;
use serde_json::Value;

use super::{
    key::settings,
    read::Reader,
    scalar::{Scalar, scalar_field, shown, words},
    urls::{HostName, Upstream},
};

settings! {
    /// A rule. The first whose host and path match decides; then its methods are looked at, and later
    /// rules are not tried. What no rule matches is denied.
    pub struct Rule check Rule::check {
        /// Host it speaks for; the host of `public_url` when absent.
        host: HostName = optional "app.example.com";
        /// Path by segments: `/a/b` exactly, `/a/*` for `/a` and everything below it, `/*` for all.
        path: PathPattern = required "/api/*";
        /// Methods it admits; all when absent. `GET` admits `HEAD`. Others on this path are denied.
        methods: Vec<MethodName> = default [];
        /// Who is admitted: `["public"]`, or some of `session`, `api_key`, `bearer`.
        allow: Vec<Admit> = required ["session"];
        /// Protection of sessions against requests from other sites: `origin` looks at `Sec-Fetch-Site` and
        /// `Origin`, `token` asks for the `X-CSRF-Token` header besides, `off` does nothing.
        csrf: CsrfMode = default "origin";
        /// What it asks of the license: `active`, `active_or_grace_read`, `none`. When absent:
        /// `active_or_grace_read` where a license provider is set and the rule is not public, else `none`.
        license: LicenseMode = optional "active_or_grace_read";
        /// What happens while the revocation state is too old to rely on: `deny`, `allow`.
        on_stale: OnStale = default "deny";
        /// What callers must show besides. What does not apply to the caller at hand denies.
        require: Require = table {};
        /// Name of the app, from `[apps.NAME]`.
        app: String = optional "web";
        /// In place of `app`: an app of its own at this address, with all its defaults.
        upstream: Upstream = optional "http://127.0.0.1:3000";
        /// Whether a JWT stays in `Authorization` on its way to the app.
        forward_authorization: bool = default false;
    }

    /// What callers must show besides being admitted.
    pub struct Require {
        /// API keys: this capability.
        capability: String = optional "deploy";
        /// Bearers: these scopes, all of them.
        scopes: Vec<String> = default [];
        /// Bearers: these claims with these values.
        claims: BTreeMap<String, Value> = default {};
        /// License entitlements, all of them.
        entitlements: Vec<String> = default [];
        /// Sessions: a sign-in within `session.recent_auth`.
        recent_auth: bool = default false;
    }
}

/// One word of `allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Everybody.
    Public,
    /// Holders of this kind of credential.
    Kind(CredentialKind),
}

words!(Admit, "word":
    "public" => Admit::Public,
    "session" => Admit::Kind(CredentialKind::Session),
    "api_key" => Admit::Kind(CredentialKind::ApiKey),
    "bearer" => Admit::Kind(CredentialKind::Bearer));
words!(CsrfMode, "word": "origin" => CsrfMode::Origin, "token" => CsrfMode::Token, "off" => CsrfMode::Off);
words!(LicenseMode, "word":
    "active" => LicenseMode::Active,
    "active_or_grace_read" => LicenseMode::ActiveOrGraceRead,
    "none" => LicenseMode::None);
words!(OnStale, "word": "deny" => OnStale::Deny, "allow" => OnStale::Allow);
scalar_field!(MethodName, PathPattern);

/// A method in upper case. `CONNECT` and `TRACE` never pass, so they cannot be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodName(pub Method);

impl Scalar for MethodName {
    const TYPE: &'static str = "method";
    const HINT: &'static str = "methods in upper case";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let bad = || format!("`{}` is not a method in upper case", shown(text));
        if text.is_empty() || text.len() > 32 || !text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
            return Err(bad());
        }
        match text {
            "CONNECT" | "TRACE" => Err(format!("{text} never passes")),
            _ => Method::from_bytes(text.as_bytes()).map(Self).map_err(|_| bad()),
        }
    }
}

impl Scalar for PathPattern {
    const TYPE: &'static str = "path pattern";
    const HINT: &'static str = "a path such as /a/b, /a/* or /*";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        Self::parse(text).map_err(|error| format!("`{}`: {error}", shown(text)))
    }
}

impl Rule {
    /// Who is admitted.
    pub fn access(&self) -> Access {
        let kinds = self.allow.iter().filter_map(|admit| match admit {
            Admit::Public => None,
            Admit::Kind(kind) => Some(*kind),
        });
        if self.is_public() {
            Access::Public
        } else {
            Access::Credential(kinds.fold(CredentialSet::NONE, CredentialSet::with))
        }
    }

    /// Whether everybody is admitted.
    pub fn is_public(&self) -> bool {
        self.allow.contains(&Admit::Public)
    }

    fn check(&self, cx: &mut Reader<'_>) {
        if self.allow.is_empty() {
            cx.problem_in(
                "allow",
                "nobody is admitted",
                "name who is: [\"public\"], or some of session, api_key, bearer",
            );
        }
        if self.is_public() && self.allow.len() > 1 {
            cx.problem_in("allow", "`public` together with credentials", "keep [\"public\"] alone, or remove it");
        }
        let require = &self.require;
        let asks = [
            ("capability", require.capability.is_some()),
            ("scopes", !require.scopes.is_empty()),
            ("claims", !require.claims.is_empty()),
            ("entitlements", !require.entitlements.is_empty()),
            ("recent_auth", require.recent_auth),
        ];
        if let Some((name, _)) = asks.iter().find(|(_, asked)| *asked)
            && self.is_public()
        {
            cx.problem_in(&format!("require.{name}"), "a public rule has no caller who could show this", "remove it");
        }
        match (&self.app, &self.upstream) {
            (Some(_), Some(_)) => {
                cx.problem_in("upstream", "both `app` and `upstream` are given", "keep one of the two");
            }
            (None, None) => {
                cx.problem_in("app", "the rule leads nowhere", "add `app = \"NAME\"` or `upstream = \"http://…\"`");
            }
            _ => {}
        }
    }
}
