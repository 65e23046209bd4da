//! Which credential of a request decides.

mod bearer;
pub mod cookie;

use std::fmt;

use http::HeaderMap;

use crate::{decision::Denial, session::OpaqueToken};

pub use bearer::MAX as BEARER_MAX;

/// The kinds of credential that a rule can admit, in the order in which they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CredentialKind {
    /// The session cookie.
    Session,
    /// `Authorization: Bearer dwk_…`.
    ApiKey,
    /// `Authorization: Bearer` with a JWT of an issuer.
    Bearer,
    /// `Authorization: Bearer` with a JWT of the soak window: no `iss`, and no `typ` other than `JWT`.
    Legacy,
}

impl CredentialKind {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::Session, Self::ApiKey, Self::Bearer, Self::Legacy];

    /// The word in metrics and in `X-Doorward-Method`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::ApiKey => "api_key",
            Self::Bearer => "bearer",
            Self::Legacy => "legacy",
        }
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CredentialSet(u8);

impl CredentialSet {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// This set and `kind`.
    #[must_use]
    pub const fn with(self, kind: CredentialKind) -> Self {
        Self(self.0 | 1 << kind as u8)
    }

    /// Whether `kind` is in the set.
    pub const fn contains(self, kind: CredentialKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The names of our cookies, which differ between https and plain loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieNames {
    /// Session token.
    pub session: &'static str,
    /// CSRF value, readable by scripts.
    pub csrf: &'static str,
    /// Binds a sign-in to the browser that asked.
    pub login: &'static str,
    /// Says that somebody has signed in in this browser before; admits to nothing.
    pub known: &'static str,
}

impl CookieNames {
    /// Over https.
    pub const SECURE: Self = Self {
        session: "__Host-doorward_sid",
        csrf: "__Host-doorward_csrf",
        login: "__Host-doorward_login",
        known: "__Host-doorward_known",
    };
    /// Over http, which only loopback may use.
    pub const LOOPBACK: Self =
        Self { session: "doorward_sid", csrf: "doorward_csrf", login: "doorward_login", known: "doorward_known" };

    /// All of them.
    pub const fn all(&self) -> [&'static str; 4] {
        [self.session, self.csrf, self.login, self.known]
    }
}

/// The credential that decides. Nothing about it is verified yet.
pub enum Credential<'a> {
    /// The session cookie; `None` inside if its value is none that was ever minted, which is
    /// `session_unknown` without asking the store.
    Session(Option<OpaqueToken>),
    /// An API key of ours or an imported one: [`api_key::hash_presented`](crate::api_key::hash_presented).
    ApiKey(&'a str),
    /// A token of an issuer.
    Bearer(&'a str),
    /// A token of the soak window.
    Legacy(&'a str),
}

impl Credential<'_> {
    /// What kind it is.
    pub const fn kind(&self) -> CredentialKind {
        match self {
            Self::Session(_) => CredentialKind::Session,
            Self::ApiKey(_) => CredentialKind::ApiKey,
            Self::Bearer(_) => CredentialKind::Bearer,
            Self::Legacy(_) => CredentialKind::Legacy,
        }
    }
}

impl fmt::Debug for Credential<'_> {
    /// The kind only; the rest is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({:?})", self.kind())
    }
}

/// Finds the credential that decides about a request: of the `allowed` kinds that are present the first
/// in the order of [`CredentialKind`]. The others are not tried, also when it fails later.
///
/// Kinds that are not allowed are not looked at; they are the app's business. Never read: the query
/// and the body.
///
/// # Errors
/// `ambiguous_credential` if an allowed kind is there twice, `request_malformed` if an `Authorization`
/// that would be looked at cannot be a credential.
pub fn find<'a>(
    headers: &'a HeaderMap,
    allowed: CredentialSet,
    cookies: &CookieNames,
) -> Result<Option<Credential<'a>>, Denial> {
    let in_header = [CredentialKind::ApiKey, CredentialKind::Bearer, CredentialKind::Legacy];
    let looks_at_header = in_header.into_iter().any(|kind| allowed.contains(kind));
    // First of all, so that doubles are refused whatever else is there.
    let bearer = if looks_at_header { bearer::find(headers)? } else { None };
    if allowed.contains(CredentialKind::Session)
        && let Some(value) = cookie::value(headers, cookies.session)?
    {
        let token = std::str::from_utf8(value).ok().and_then(OpaqueToken::parse);
        return Ok(Some(Credential::Session(token)));
    }
    let Some(text) = bearer else { return Ok(None) };
    let mut kind = bearer::kind(text, allowed.contains(CredentialKind::Legacy));
    // Where keys are not admitted, a text that is neither key nor JWT can only be a broken token.
    if kind == CredentialKind::ApiKey && !allowed.contains(kind) && !text.starts_with(crate::api_key::PREFIX) {
        kind = CredentialKind::Bearer;
    }
    Ok(allowed.contains(kind).then_some(match kind {
        CredentialKind::Session | CredentialKind::Bearer => Credential::Bearer(text),
        CredentialKind::ApiKey => Credential::ApiKey(text),
        CredentialKind::Legacy => Credential::Legacy(text),
    }))
}

#[cfg(test)]
mod tests;
