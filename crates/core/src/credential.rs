//! Which credential of a request decides.

/// The kinds of credential that a rule can admit, in the order in which they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CredentialKind {
    /// The session cookie.
    Session,
    /// `Authorization: Bearer dwk_…`.
    ApiKey,
    /// `Authorization: Bearer` with a JWT of an issuer.
    Bearer,
    /// `Authorization: Bearer` with a JWT of the soak window: no `iss`, `typ` other than `JWT`.
    Legacy,
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
}

impl CookieNames {
    /// Over https.
    pub const SECURE: Self =
        Self { session: "__Host-doorward_sid", csrf: "__Host-doorward_csrf", login: "__Host-doorward_login" };
    /// Over http, which only loopback may use.
    pub const LOOPBACK: Self = Self { session: "doorward_sid", csrf: "doorward_csrf", login: "doorward_login" };
}
