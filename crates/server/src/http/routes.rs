//! The whole API on one page. Dispatch, route policy, `docs/reference/routes.md` and `openapi.json` all read
//! this table, so they cannot disagree.

use doorward_core::{
    credential::{CredentialKind, CredentialSet},
    dialect::Dialect,
    reason::Reason,
};

/// Who may call a route of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Everybody.
    Open,
    /// Everybody; who it is makes a difference.
    Optional(CredentialSet),
    /// Proxies in `listen.trusted_proxies`; for others the route does not exist.
    Peer,
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
    Logout,
    Session,
    Whoami,
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
    /// Path under `base_path`; a last segment `*` stands for the rest.
    pub path: &'static str,
    /// Also served without `base_path`.
    pub is_at_root: bool,
    /// Who may call it.
    pub guard: Guard,
    /// Whether a changing request must come from our own pages (`Sec-Fetch-Site`, `Origin`).
    pub checks_origin: bool,
    /// One line for the reference.
    pub summary: &'static str,
    /// What it answers when all is well.
    pub answers: &'static [(u16, &'static str)],
    /// What it can refuse with, besides what every route can (`host_unknown`, `request_malformed`, `internal`).
    pub refusals: &'static [Reason],
}

const ANY_CREDENTIAL: CredentialSet =
    CredentialSet::NONE.with(CredentialKind::Session).with(CredentialKind::ApiKey).with(CredentialKind::Bearer);
const SESSION: CredentialSet = CredentialSet::NONE.with(CredentialKind::Session);

/// What every route has unless it says otherwise.
const PLAIN: Route = Route {
    handler: Handler::Healthz,
    methods: &["GET"],
    path: "",
    is_at_root: false,
    guard: Guard::Open,
    checks_origin: false,
    summary: "",
    answers: &[],
    refusals: &[],
};

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
        checks_origin: true,
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
        checks_origin: true,
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
            Reason::UserBanned,
            Reason::CrossSite,
            Reason::StoreUnavailable,
        ],
        ..PLAIN
    },
    Route {
        handler: Handler::Logout,
        methods: &["POST"],
        path: "/logout",
        checks_origin: true,
        summary: "Sign out: the session's row is deleted, cookies cleared, sockets closed",
        answers: &[(303, "pages: to `/login?signed_out`"), (200, "JSON callers: `{\"ok\":true}`")],
        refusals: &[Reason::CrossSite, Reason::StoreUnavailable],
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
        refusals: &[Reason::StoreUnavailable],
        ..PLAIN
    },
    Route {
        handler: Handler::Whoami,
        path: "/whoami",
        guard: Guard::Optional(ANY_CREDENTIAL),
        summary: "The caller as the server sees it: principal, method, client address",
        answers: &[(200, "JSON, or a page for a browser")],
        refusals: &[Reason::StoreUnavailable, Reason::KeysUnavailable],
        ..PLAIN
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

impl Route {
    /// Whether it answers `method`.
    pub fn admits(&self, method: &http::Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(&method.as_str())
            || *method == http::Method::HEAD && self.methods.contains(&"GET")
    }

    /// Whether `path`, below `base_path`, is this route's; returns what `*` stands for.
    pub fn matches<'p>(&self, path: &'p str) -> Option<&'p str> {
        match self.path.strip_suffix('*') {
            None => (path == self.path).then_some(""),
            // `/check/envoy/*` gives the rest with its slash: it is the original path.
            Some(prefix) => path.strip_prefix(prefix.trim_end_matches('/')).filter(|rest| rest.starts_with('/')),
        }
    }
}

/// What stands at an address of ours.
#[derive(Debug)]
pub enum Found<'p> {
    /// A route, and what its `*` stands for.
    Route(&'static Route, &'p str),
    /// Routes with other methods.
    OtherMethods(Vec<&'static str>),
    /// Nothing, though it lies under `base_path`.
    Nothing,
    /// Not ours: the rules decide.
    NotOurs,
}

/// Finds the route at `path` (without query).
pub fn find<'p>(base: &str, method: &http::Method, path: &'p str) -> Found<'p> {
    let below = path.strip_prefix(base).filter(|rest| rest.starts_with('/'));
    let mut other = Vec::new();
    for route in ROUTES {
        let at_root = route.is_at_root.then(|| route.matches(path)).flatten();
        let Some(rest) = below.and_then(|below| route.matches(below)).or(at_root) else { continue };
        if route.admits(method) {
            return Found::Route(route, rest);
        }
        other.extend(route.methods);
    }
    match (other.is_empty(), below) {
        (false, _) => Found::OtherMethods(other),
        (true, Some(_)) if !base.is_empty() => Found::Nothing,
        _ => Found::NotOurs,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn handler(method: &Method, path: &str) -> Option<Handler> {
        match find("/auth", method, path) {
            Found::Route(route, _) => Some(route.handler),
            _ => None,
        }
    }

    #[test]
    fn routes_are_found_below_the_base_and_health_also_at_the_root() {
        assert_eq!(handler(&Method::GET, "/auth/login"), Some(Handler::LoginPage));
        assert_eq!(handler(&Method::HEAD, "/auth/login"), Some(Handler::LoginPage));
        assert_eq!(handler(&Method::GET, "/healthz"), Some(Handler::Healthz));
        assert_eq!(handler(&Method::POST, "/auth/login/callback"), Some(Handler::Callback));
        assert!(matches!(find("/auth", &Method::GET, "/authx/login"), Found::NotOurs));
        assert!(matches!(find("/auth", &Method::GET, "/auth/nothing"), Found::Nothing));
        assert!(matches!(find("/auth", &Method::DELETE, "/auth/login/callback"), Found::OtherMethods(_)));
    }

    #[test]
    fn the_rest_of_an_envoy_check_is_the_original_path() {
        let Found::Route(_, rest) = find("/auth", &Method::PUT, "/auth/check/envoy/a/b") else { panic!() };
        assert_eq!(rest, "/a/b");
    }

    #[test]
    fn every_changing_route_that_browsers_use_checks_the_origin() {
        for route in ROUTES {
            let changes = route.methods.iter().any(|method| !matches!(*method, "GET"));
            assert!(!changes || route.checks_origin, "{}", route.path);
        }
    }
}
