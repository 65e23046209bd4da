//! The whole API on one page. Dispatch, route policy, `docs/reference/routes.md` and `openapi.json` all read
//! this table, so they cannot disagree.

mod lookup;

use doorward_core::{
    credential::{CredentialKind, CredentialSet},
    dialect::Dialect,
    reason::Reason,
    rule::CsrfMode,
};

pub use lookup::{Found, find};

use super::webhooks;

/// Who may call a route of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Everybody.
    Open,
    /// Everybody; who it is makes a difference.
    Optional(CredentialSet),
    /// Holders of one of these kinds of credential; others are refused before the handler sees them.
    Required(CredentialSet),
    /// Proxies in `listen.trusted_proxies`; for others the route does not exist.
    Peer,
    /// Whoever signed the body; browsers have nothing here, so there are no cookies to protect.
    Signed,
}

/// What answers a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each stands beside its route below")]
pub enum Handler {
    Healthz,
    Readyz,
    LoginPage,
    RequestLink,
    CallbackPage,
    Callback,
    Password,
    Code,
    Logout,
    Session,
    Sessions,
    RevokeSession,
    RevokeSessionForm,
    RevokeOthers,
    ReAuthPage,
    ReAuth,
    Whoami,
    EmailPage,
    ChangeEmail,
    ConfirmEmailPage,
    ConfirmEmail,
    FirstAdminPage,
    FirstAdmin,
    ProfileLicense,
    HubWebhook,
    KeygenWebhook,
    Check(Dialect),
    AssertionJwks,
    OpenApi,
    Docs,
    Asset,
}

/// One route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// What answers.
    pub handler: Handler,
    /// Methods; `GET` includes `HEAD`. Empty: any.
    pub methods: &'static [&'static str],
    /// Path under `base_path`; a last segment `*` stands for the rest, a segment `{id}` for any one.
    pub path: &'static str,
    /// Also served without `base_path`.
    pub is_at_root: bool,
    /// Who may call it.
    pub guard: Guard,
    /// What a changing request must show: that it comes from our own pages or an allowed origin
    /// (`Sec-Fetch-Site`, `Origin`), and with [`CsrfMode::Token`] the session's token besides, in the header
    /// `X-CSRF-Token` or in the field `csrf_token` of a form.
    pub csrf: CsrfMode,
    /// Whether it asks for a recent sign-in (`session.recent_auth`).
    pub recent_auth: bool,
    /// The page that a browser is led back to after it posted here and had to prove itself first.
    pub back: &'static str,
    /// One line for the reference.
    pub summary: &'static str,
    /// What it answers when all is well.
    pub answers: &'static [(u16, &'static str)],
    /// What it can refuse with, besides what every route can (`host_unknown`, `request_malformed`, `internal`).
    pub refusals: &'static [Reason],
}

const ANY_CREDENTIAL: CredentialSet = CredentialSet::NONE
    .with(CredentialKind::Session)
    .with(CredentialKind::ApiKey)
    .with(CredentialKind::Bearer)
    .with(CredentialKind::Legacy);
/// Sessions alone.
pub const SESSION: CredentialSet = CredentialSet::NONE.with(CredentialKind::Session);

/// What every route has unless it says otherwise.
const PLAIN: Route = Route {
    handler: Handler::Healthz,
    methods: &["GET"],
    path: "",
    is_at_root: false,
    guard: Guard::Open,
    csrf: CsrfMode::Off,
    recent_auth: false,
    back: "",
    summary: "",
    answers: &[],
    refusals: &[],
};

/// What ends sessions of the caller: someone with a stolen cookie must not shut its owner out (ASVS 5.0 7.5.2).
const REVOKE: Route = Route {
    handler: Handler::RevokeSession,
    methods: &["POST"],
    guard: Guard::Required(SESSION),
    csrf: CsrfMode::Token,
    recent_auth: true,
    back: "/sessions",
    refusals: &[
        Reason::NoCredential,
        Reason::CsrfMissing,
        Reason::CsrfMismatch,
        Reason::CrossSite,
        Reason::ReAuthRequired,
        Reason::NotFound,
        Reason::StoreUnavailable,
    ],
    ..PLAIN
};

/// What a license provider calls.
const WEBHOOK: Route = Route { methods: &["POST"], guard: Guard::Signed, ..PLAIN };

const WEBHOOK_REFUSALS: &[Reason] = &[
    Reason::WebhookDisabled,
    Reason::WebhookMissingSignature,
    Reason::WebhookBadTimestamp,
    Reason::WebhookBadSignature,
    Reason::WebhookStale,
    Reason::WebhookBadPayload,
    Reason::PayloadTooLarge,
    Reason::RateLimited,
    Reason::StoreUnavailable,
];

/// Forward-auth in a proxy's dialect.
const fn check(dialect: Dialect, path: &'static str, summary: &'static str) -> Route {
    Route {
        handler: Handler::Check(dialect),
        methods: &[],
        path,
        guard: Guard::Peer,
        summary,
        answers: &[(200, "let it through; identity headers, empty where there is nothing to say")],
        refusals: &[Reason::UntrustedPeer, Reason::NoCredential, Reason::NoRule, Reason::RuleDenies],
        ..PLAIN
    }
}

/// Every route of this release.
pub const ROUTES: &[Route] = &[
    Route {
        handler: Handler::Healthz,
        path: "/healthz",
        is_at_root: true,
        summary: "Liveness, whatever neighbour is down",
        answers: &[(200, "`{\"ok\":true}`")],
        ..PLAIN
    },
    Route {
        handler: Handler::Readyz,
        path: "/readyz",
        is_at_root: true,
        summary: "Readiness: 503 while draining or while the store is down",
        answers: &[(200, "`{\"ok\":true}`")],
        refusals: &[Reason::StoreUnavailable],
        ..PLAIN
    },
    Route {
        handler: Handler::LoginPage,
        path: "/login",
        guard: Guard::Optional(SESSION),
        summary: "Page that asks for a sign-in link",
        answers: &[(200, "page")],
        ..PLAIN
    },
    Route {
        handler: Handler::RequestLink,
        methods: &["POST"],
        path: "/login/request-link",
        csrf: CsrfMode::Origin,
        summary: "Ask for a sign-in link: `{email, return_to?}`, JSON or form. Always the same answer, never \
                  faster than `login.response_floor`",
        answers: &[(200, "`{\"ok\":true}`; a form gets the \"check your inbox\" page. Sets the login cookie")],
        refusals: &[Reason::CrossSite, Reason::PayloadTooLarge],
        ..PLAIN
    },
    Route {
        handler: Handler::CallbackPage,
        path: "/login/callback",
        guard: Guard::Optional(SESSION),
        summary: "Where the link in the mail leads: a page; consumes nothing",
        answers: &[(200, "page with one button, or where to go on")],
        refusals: &[Reason::MissingToken, Reason::LinkInvalid, Reason::LinkExpired, Reason::LinkReused],
        ..PLAIN
    },
    Route {
        handler: Handler::Callback,
        methods: &["POST"],
        path: "/login/callback",
        csrf: CsrfMode::Origin,
        summary: "Sign in: `{token}`, JSON or form, from the browser with the login cookie",
        answers: &[
            (303, "to the stored `return_to`; session and CSRF cookies"),
            (200, "JSON callers: `{\"ok\":true}` and the cookies"),
        ],
        refusals: &[
            Reason::MissingToken,
            Reason::LinkInvalid,
            Reason::LinkExpired,
            Reason::LinkWrongBrowser,
            Reason::LinkReused,
            Reason::LinkMismatch,
            Reason::UserBanned,
            Reason::CrossSite,
            Reason::RateLimited,
            Reason::StoreUnavailable,
        ],
        ..PLAIN
    },
    Route {
        handler: Handler::Code,
        methods: &["POST"],
        path: "/login/code",
        csrf: CsrfMode::Origin,
        summary: "Sign in by the code of the mail: `{code}`, JSON or form, from the browser with the login cookie. \
                  Five tries; never faster than `login.response_floor`",
        answers: &[
            (303, "to the stored `return_to`; session and CSRF cookies"),
            (200, "JSON callers: `{\"ok\":true}` and the cookies"),
        ],
        refusals: &[
            Reason::CodeInvalid,
            Reason::LinkMismatch,
            Reason::UserBanned,
            Reason::CrossSite,
            Reason::RateLimited,
            Reason::StoreUnavailable,
        ],
        ..PLAIN
    },
    Route {
        handler: Handler::Password,
        methods: &["POST"],
        path: "/login/password",
        csrf: CsrfMode::Origin,
        summary: "Sign in with a password of the old system, while the soak window is open: \
                  `{email, password, return_to?}`, JSON or form",
        answers: &[
            (303, "forms: to `return_to`; session and CSRF cookies"),
            (200, "JSON callers: `{\"ok\":true}` and the cookies"),
        ],
        refusals: &[
            Reason::PasswordInvalid,
            Reason::LegacyLoginDisabled,
            Reason::UserBanned,
            Reason::CrossSite,
            Reason::RateLimited,
            Reason::PayloadTooLarge,
            Reason::StoreUnavailable,
        ],
        ..PLAIN
    },
    Route {
        handler: Handler::Logout,
        methods: &["POST"],
        path: "/logout",
        csrf: CsrfMode::Origin,
        summary: "Sign out: the session's row is deleted, cookies cleared, sockets closed",
        answers: &[(303, "pages: to `/login?signed_out`"), (200, "JSON callers: `{\"ok\":true}`")],
        refusals: &[Reason::CrossSite, Reason::RateLimited, Reason::StoreUnavailable],
        ..PLAIN
    },
    Route {
        handler: Handler::Session,
        path: "/session",
        guard: Guard::Optional(SESSION),
        summary: "The caller's session and its CSRF token",
        answers: &[(
            200,
            "`{authenticated, user, method, csrf_token, created_at, authenticated_at, \
                          idle_expires_at, expires_at}`; `{\"authenticated\":false}` for everybody else",
        )],
        refusals: &[Reason::RateLimited, Reason::StoreUnavailable],
        ..PLAIN
    },
    Route {
        handler: Handler::Sessions,
        path: "/sessions",
        guard: Guard::Required(SESSION),
        summary: "The caller's sessions, the one last used first",
        answers: &[(
            200,
            "`{sessions: [{id, current, created_at, last_used_at, ip, user_agent}], more}`, or a page for a browser. \
             1,000 at most: those that began last, and `more` is true",
        )],
        refusals: &[Reason::NoCredential, Reason::StoreUnavailable],
        ..PLAIN
    },
    Route {
        handler: Handler::RevokeSession,
        methods: &["DELETE"],
        path: "/sessions/{id}",
        summary: "End one of the caller's sessions; the current one: sign out. Its sockets and streams close within \
                  a second",
        answers: &[(200, "`{\"ok\":true}`")],
        ..REVOKE
    },
    Route {
        handler: Handler::RevokeSessionForm,
        path: "/sessions/{id}/revoke",
        summary: "The same, for the form of the page",
        answers: &[(303, "to `/sessions`, or to `/login?signed_out`"), (200, "JSON callers: `{\"ok\":true}`")],
        ..REVOKE
    },
    Route {
        handler: Handler::RevokeOthers,
        path: "/sessions/revoke-others",
        summary: "End every session of the caller but the current one",
        answers: &[(200, "`{\"ok\":true,\"ended\":n}`"), (303, "pages: to `/sessions`")],
        ..REVOKE
    },
    Route {
        handler: Handler::ReAuthPage,
        path: "/reauth",
        guard: Guard::Required(SESSION),
        summary: "Page that leads to a fresh proof of who one is, where a recent sign-in is asked for",
        answers: &[(200, "page with one button")],
        refusals: &[Reason::NoCredential, Reason::MailUnavailable, Reason::StoreUnavailable],
        ..PLAIN
    },
    Route {
        handler: Handler::ReAuth,
        methods: &["POST"],
        path: "/reauth",
        guard: Guard::Required(SESSION),
        csrf: CsrfMode::Token,
        back: "/reauth",
        summary: "Prove again who one is: `{return_to?}`, JSON or form. A mail with link and code goes to the \
                  session's own address; using it gives a new session id and token, the same absolute end and a new \
                  `authenticated_at`, and ends the old id",
        answers: &[(200, "`{\"ok\":true}`; a form gets the \"check your inbox\" page. Sets the login cookie")],
        refusals: &[
            Reason::NoCredential,
            Reason::CsrfMissing,
            Reason::CsrfMismatch,
            Reason::CrossSite,
            Reason::RateLimited,
            Reason::UserBanned,
            Reason::MailUnavailable,
            Reason::StoreUnavailable,
        ],
        ..PLAIN
    },
    Route {
        handler: Handler::Whoami,
        path: "/whoami",
        guard: Guard::Optional(ANY_CREDENTIAL),
        summary: "The caller as the server sees it: principal, method, client address",
        answers: &[(200, "JSON, or a page for a browser")],
        refusals: &[Reason::RateLimited, Reason::StoreUnavailable, Reason::KeysUnavailable],
        ..PLAIN
    },
    Route {
        handler: Handler::EmailPage,
        path: "/profile/email",
        guard: Guard::Required(SESSION),
        summary: "Page that asks for another mail address",
        answers: &[(200, "page")],
        refusals: &[Reason::NoCredential, Reason::MailUnavailable, Reason::StoreUnavailable],
        ..PLAIN
    },
    Route {
        handler: Handler::ChangeEmail,
        methods: &["POST"],
        path: "/profile/email",
        guard: Guard::Required(SESSION),
        csrf: CsrfMode::Token,
        recent_auth: true,
        back: "/profile/email",
        summary: "Ask for another mail address: `{email}`, JSON or form. A link goes to the new address; the answer is \
                  the same whether or not it belongs to somebody",
        answers: &[(200, "`{\"ok\":true}`; a form gets the \"check your inbox\" page. Sets the login cookie")],
        refusals: &[
            Reason::NoCredential,
            Reason::CsrfMissing,
            Reason::CsrfMismatch,
            Reason::CrossSite,
            Reason::ReAuthRequired,
            Reason::PayloadTooLarge,
            Reason::RateLimited,
            Reason::MailUnavailable,
            Reason::StoreUnavailable,
        ],
        ..PLAIN
    },
    Route {
        handler: Handler::ConfirmEmailPage,
        path: "/profile/email/confirm",
        guard: Guard::Optional(SESSION),
        summary: "Where the link in that mail leads: a page; consumes nothing",
        answers: &[(200, "page with one button")],
        refusals: &[
            Reason::MissingToken,
            Reason::LinkInvalid,
            Reason::LinkExpired,
            Reason::LinkWrongBrowser,
            Reason::LinkReused,
            Reason::UserBanned,
            Reason::StoreUnavailable,
        ],
        ..PLAIN
    },
    Route {
        handler: Handler::ConfirmEmail,
        methods: &["POST"],
        path: "/profile/email/confirm",
        guard: Guard::Optional(SESSION),
        csrf: CsrfMode::Origin,
        summary: "Take the new address: `{token}`, JSON or form, from a session of its person or the browser that \
                  asked. Every other session ends, older links are void, the old address is told",
        answers: &[(303, "pages: to `/whoami`"), (200, "JSON callers: `{\"ok\":true}`")],
        refusals: &[
            Reason::MissingToken,
            Reason::LinkInvalid,
            Reason::LinkExpired,
            Reason::LinkWrongBrowser,
            Reason::LinkReused,
            Reason::UserBanned,
            Reason::CrossSite,
            Reason::PayloadTooLarge,
            Reason::StoreUnavailable,
        ],
        ..PLAIN
    },
    Route {
        handler: Handler::FirstAdminPage,
        path: "/first-admin",
        summary: "Where the address leads that `serve` prints while there is no administrator: a page; consumes nothing",
        answers: &[(200, "page that asks for a mail address")],
        refusals: &[
            Reason::MissingToken,
            Reason::LinkInvalid,
            Reason::LinkExpired,
            Reason::LinkReused,
            Reason::RateLimited,
            Reason::StoreUnavailable,
        ],
        ..PLAIN
    },
    Route {
        handler: Handler::FirstAdmin,
        methods: &["POST"],
        path: "/first-admin",
        csrf: CsrfMode::Origin,
        summary: "Become the first administrator: `{token, email}`, JSON or form. Works once, and only while there is \
                  none",
        answers: &[
            (303, "pages: to `/whoami`; session and CSRF cookies"),
            (200, "JSON callers: `{\"ok\":true}` and the cookies"),
        ],
        refusals: &[
            Reason::MissingToken,
            Reason::LinkInvalid,
            Reason::LinkExpired,
            Reason::LinkReused,
            Reason::UserBanned,
            Reason::CrossSite,
            Reason::PayloadTooLarge,
            Reason::RateLimited,
            Reason::StoreUnavailable,
        ],
        ..PLAIN
    },
    Route {
        handler: Handler::ProfileLicense,
        path: "/profile/license",
        guard: Guard::Required(ANY_CREDENTIAL),
        summary: "The license that counts for the caller. Never refused for want of one",
        answers: &[(
            200,
            "`{status, license_id, checked_at, expires_at, grace_until, entitlements}`; `status` is `active`, `expiring`, \
             `expired`, `suspended`, `banned`, `none` or `unknown`, times are RFC 3339 or null",
        )],
        refusals: &[Reason::NoCredential, Reason::RateLimited, Reason::StoreUnavailable, Reason::KeysUnavailable],
        ..PLAIN
    },
    Route {
        handler: Handler::HubWebhook,
        path: "/webhooks/license/titanium",
        summary: "Provider `jwt` says what a license is now: `{subject, license_status, license_id?, id?, seq?}`, with \
                  `X-Titanium-Timestamp` (Unix seconds, within 5 minutes) and `X-Titanium-Signature: sha256=` and the \
                  hex of HMAC-SHA256 over `{timestamp}.{body}`",
        answers: &[(200, "`{\"ok\":true}`; with `noop` where nothing changed: `unknown_subject`, `repeated`, `older`")],
        refusals: WEBHOOK_REFUSALS,
        ..WEBHOOK
    },
    Route {
        handler: Handler::KeygenWebhook,
        path: webhooks::KEYGEN,
        summary: "Provider `keygen` says that something happened: Keygen's webhook, signed by the account's key over \
                  `license.webhook_url`. The license is asked for again; the payload itself changes nothing",
        answers: &[(200, "`{\"ok\":true}`; with `noop` where nobody is asked: `unknown_license`, `repeated`")],
        refusals: WEBHOOK_REFUSALS,
        ..WEBHOOK
    },
    check(Dialect::Nginx, "/check/nginx", "Forward-auth for nginx `auth_request`: answers 2xx, 401 or 403 only"),
    check(Dialect::Caddy, "/check/caddy", "Forward-auth for Caddy"),
    check(Dialect::Traefik, "/check/traefik", "Forward-auth for Traefik"),
    check(Dialect::Haproxy, "/check/haproxy", "Forward-auth for HAProxy"),
    check(Dialect::Envoy, "/check/envoy/*", "Forward-auth for Envoy `ext_authz`: original method, host and path"),
    Route {
        handler: Handler::AssertionJwks,
        path: "/assertion/jwks",
        summary: "Public keys of the identity assertion",
        answers: &[(200, "JWK set")],
        refusals: &[Reason::StoreUnavailable],
        ..PLAIN
    },
    Route {
        handler: Handler::OpenApi,
        path: "/openapi.json",
        summary: "This API as OpenAPI 3.1",
        answers: &[(200, "JSON")],
        ..PLAIN
    },
    Route {
        handler: Handler::Docs,
        path: "/docs",
        summary: "This API and every reason, as a page",
        answers: &[(200, "page")],
        ..PLAIN
    },
    Route {
        handler: Handler::Asset,
        path: "/assets/*",
        summary: "Style and script of our own pages, under hashed names",
        answers: &[(200, "cacheable for ever")],
        refusals: &[Reason::NotFound],
        ..PLAIN
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changing_route_says_how_it_is_protected_from_other_sites() {
        for route in ROUTES {
            let is_signed = route.guard == Guard::Signed;
            assert!(!route.changes() || is_signed || route.csrf != CsrfMode::Off, "{}", route.path);
            // A token belongs to a session, so only a route that asks for one can check it.
            assert!(route.csrf != CsrfMode::Token || matches!(route.guard, Guard::Required(_)), "{}", route.path);
            assert!(!route.recent_auth || matches!(route.guard, Guard::Required(_)), "{}", route.path);
        }
    }
}
