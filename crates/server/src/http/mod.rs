//! The HTTP surface: what arrives is checked, then either a route of ours or the rules answer.

pub mod admin;
pub mod call;
pub mod check;
pub mod cookies;
pub mod cors;
pub mod docs;
pub mod entry;
pub mod first_admin;
pub mod front;
pub mod guard;
pub mod harden;
pub mod health;
pub mod license;
pub mod login;
pub mod openapi;
pub mod password;
pub mod people;
pub mod reauth;
pub mod respond;
pub mod routes;
pub mod session;
pub mod sessions;
mod site;
pub mod webhooks;

use std::{
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::AtomicBool},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::body::Body;
use doorward_core::{
    csrf,
    decision::Denial,
    reason::Reason,
    request::{self, RequestPath, Scheme},
    rule::PathMode,
    secret::Secret,
    session::TokenHash,
};
use doorward_gate::{
    assertion::Assertions,
    flow::{
        email_change::EmailChanges, password::PasswordSignIn, re_auth::ReAuth, sign_in::SignIn,
        webhook::LicenseWebhooks,
    },
    gate::Gate,
};
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response, header};

pub use self::site::{OwnRules, Site, SiteApp};
use self::{
    call::Call,
    respond::Want,
    routes::{Found, Handler, Route},
};
use crate::{
    local_license::LocalLicense,
    proxy::Proxy,
    shared::Shared,
    telemetry::{Methods, Metrics},
};

/// Everything that a request can need. One per process.
#[derive(Debug)]
pub struct Server {
    /// Decides.
    pub gate: Gate,
    /// Signs people in and out.
    pub sign_in: SignIn,
    /// Lets people prove again who they are.
    pub re_auth: ReAuth,
    /// Signs people in with passwords of the old system, while the soak window is open.
    pub passwords: PasswordSignIn,
    /// Counts methods of authentication.
    pub methods: Arc<Methods>,
    /// Changes mail addresses.
    pub emails: EmailChanges,
    /// Hears of licenses from their provider.
    pub webhooks: LicenseWebhooks,
    /// What the admin listener asks for, if anything; see [`Server::use_admin_token`].
    pub admin_token: ArcSwapOption<Secret<String>>,
    /// The license file or lease, with provider `file`.
    pub local_license: ArcSwapOption<LocalLicense>,
    /// Signs identity assertions.
    pub assertions: Assertions,
    /// Carries requests to apps.
    pub proxy: Proxy,
    /// The blocklist that somebody else writes.
    pub shared: Shared,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What of the config the HTTP surface needs; swapped with the policy.
    pub sites: ArcSwap<Site>,
    /// Whether anything takes our mails. Without, what needs one is refused instead of promised.
    pub can_mail: bool,
    /// Set once shutdown began.
    pub is_draining: AtomicBool,
    /// Whether the store answered when last asked.
    pub store_is_up: AtomicBool,
    /// Whether the key ring has been opened, or has turned out not to open: either way waiting is over.
    pub ring_is_settled: AtomicBool,
}

impl Server {
    /// The site in force.
    pub fn site(&self) -> Arc<Site> {
        self.sites.load_full()
    }

    /// Has the admin listener, which is open at `address`, ask for `token` from now on. Without one only its address
    /// protects it: off loopback the old one stays, and `false` is given back.
    pub fn use_admin_token(&self, token: Option<Secret<String>>, address: IpAddr) -> bool {
        let is_safe = token.is_some() || address.is_loopback();
        if is_safe {
            self.admin_token.store(token.map(Arc::new));
        }
        is_safe
    }

    /// Refuses what cannot be done without a mail. Not for signing in, whose answer is the same for everybody.
    ///
    /// # Errors
    /// `mail_unavailable` where nothing takes our mails.
    pub fn needs_mail(&self) -> Result<(), Denial> {
        match self.can_mail {
            true => Ok(()),
            false => Err(Denial::from(Reason::MailUnavailable).with_note("there is no [mail] in the configuration")),
        }
    }

    /// The CSRF value of a session; `None` until the key ring is loaded.
    pub fn csrf_value(&self, session: &TokenHash) -> Option<String> {
        self.gate.csrf_keys().map(|keys| csrf::mint(&keys, session))
    }

    /// Answers one request. Never fails and never panics outwards: the last resort is `internal`.
    pub async fn handle(self: Arc<Self>, request: Request<Body>, peer: SocketAddr, scheme: Scheme) -> Response<Body> {
        let started = self.gate.clock().now().mono;
        self.metrics.requests.inc();
        let (parts, body) = request.into_parts();
        let site = self.site();
        let want = Want::of(&parts.method, &parts.headers, "/");
        let answered = AssertUnwindSafe(Arc::clone(&self).answer(Arc::clone(&site), parts, body, peer, scheme));
        let response = answered.catch_unwind().await.unwrap_or_else(|_| {
            let denial = Denial::from(Reason::Internal).with_note("a handler panicked");
            let decision = self.gate.refuse(denial.clone());
            self.metrics.decided(Err(Reason::Internal), "-");
            tracing::error!(decision = %decision.id, "a handler panicked");
            let mut response = respond::denial(&denial, decision.id, &want, &site.pages);
            site.headers.finish(response.headers_mut(), scheme);
            response
        });
        let took = self.gate.clock().now().mono.saturating_sub(started);
        self.metrics.duration.observe(took.as_secs_f64());
        response
    }

    async fn answer(
        self: Arc<Self>,
        site: Arc<Site>,
        parts: http::request::Parts,
        body: Body,
        peer: SocketAddr,
        scheme: Scheme,
    ) -> Response<Body> {
        let authority = parts.uri.authority().map(http::uri::Authority::as_str);
        let head = request::check_head(&parts.method, &parts.headers, authority);
        let (call, derived) = Call::new(Arc::clone(&self), Arc::clone(&site), parts, body, peer, scheme);
        let (origin, scheme) = (cors::allowed(&call.parts.headers, &site), call.client.scheme);
        let mut response = self.find_and_answer(call, derived.and(head)).await;
        finish(&site, scheme, origin.as_ref(), &mut response);
        response
    }

    async fn find_and_answer(self: Arc<Self>, call: Call, checked: Result<(), Denial>) -> Response<Body> {
        let site = Arc::clone(&call.site);
        let found = routes::find(&site.pages.base, &call.parts.method, call.path());
        if let Err(denial) = checked {
            return match found {
                // A front proxy understands refusals only in its own dialect.
                Found::Route(Route { handler: Handler::Check(dialect), .. }, _) => {
                    check::refuse(&call, *dialect, denial)
                }
                _ => call.refuse(denial),
            };
        }
        let is_exempt =
            matches!(&found, Found::Route(route, _) if route.is_at_root || matches!(route.handler, Handler::Check(_)));
        if !is_exempt && !site.policy.knows_host(&call.client.host) {
            return call.refuse(Reason::HostUnknown.into());
        }
        match found {
            Found::NotOurs => front::front(call).await,
            Found::Nothing => call.refuse(Reason::NotFound.into()),
            Found::OtherMethods(methods) => {
                cors::preflight(&call, &methods).unwrap_or_else(|| other_methods(&call, &methods))
            }
            Found::Route(route, rest) => {
                let rest = rest.to_owned();
                self.route(call, route, &rest).await
            }
        }
    }

    async fn route(&self, mut call: Call, route: &'static Route, rest: &str) -> Response<Body> {
        // Forward-auth judges the path that it carries; every other route is found by its own.
        if !matches!(route.handler, Handler::Check(_))
            && let Err(denial) = RequestPath::parse(call.target(), PathMode::Strict)
        {
            return call.refuse(denial);
        }
        let caller = match guard::admit(&mut call, route).await {
            Ok(caller) => caller,
            Err(refused) => return *refused,
        };
        match route.handler {
            Handler::Healthz => health::healthz(),
            Handler::Readyz => health::readyz(&call),
            Handler::LoginPage => login::page(call, route.guard).await,
            Handler::RequestLink => login::request_link(call).await,
            Handler::CallbackPage => login::callback_page(call, route.guard).await,
            Handler::Callback => login::callback(call).await,
            Handler::Password => password::sign_in(call).await,
            Handler::Code => login::code(call).await,
            Handler::Logout => session::logout(call).await,
            Handler::Session => session::session(call, route.guard).await,
            Handler::Sessions => sessions::list(call, caller).await,
            Handler::RevokeSession | Handler::RevokeSessionForm => sessions::revoke(call, caller, rest).await,
            Handler::RevokeOthers => sessions::revoke_others(call, caller).await,
            Handler::ReAuthPage => reauth::page(call, caller).await,
            Handler::ReAuth => reauth::request(call, caller).await,
            Handler::Whoami => session::whoami(call, route.guard).await,
            Handler::EmailPage => people::page(&call),
            Handler::ChangeEmail => people::change(call, caller).await,
            Handler::ConfirmEmailPage => people::confirm_page(call, route.guard).await,
            Handler::ConfirmEmail => people::confirm(call, route.guard).await,
            Handler::FirstAdminPage => first_admin::page(&call).await,
            Handler::FirstAdmin => first_admin::claim(call).await,
            Handler::ProfileLicense => license::profile(&call, caller).await,
            Handler::HubWebhook => webhooks::hub(call).await,
            Handler::KeygenWebhook => webhooks::keygen(call).await,
            Handler::Check(dialect) => check::check(call, dialect, rest).await,
            Handler::AssertionJwks => docs::assertion_jwks(&call),
            Handler::OpenApi => docs::openapi(&call),
            Handler::Docs => docs::page(&call),
            Handler::Asset => docs::asset(&call, rest),
        }
    }
}

/// Whose answer it is; decides what is added to it last. An answer without it is one of our own routes.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// An app's, as it came.
    App {
        /// Whether we speak CORS for it.
        cors: bool,
        /// Whether it gets security headers.
        harden: bool,
    },
    /// Our refusal of a request that was meant for an app.
    RefusalFor {
        /// Whether we speak CORS for the app.
        cors: bool,
    },
    /// For the front proxy that asked.
    Check,
}

/// Adds what depends on the configuration and on who asked.
fn finish(site: &Site, scheme: Scheme, origin: Option<&HeaderValue>, response: &mut Response<Body>) {
    let source = response.extensions().get::<Source>().copied();
    let headers = response.headers_mut();
    match source {
        Some(Source::Check) => return,
        Some(Source::App { harden: false, .. }) => {}
        Some(Source::App { harden: true, .. }) => site.headers.finish_for_app(headers, scheme),
        Some(Source::RefusalFor { .. }) | None => site.headers.finish(headers, scheme),
    }
    let speaks_cors = match source {
        Some(Source::App { cors, .. } | Source::RefusalFor { cors }) => cors,
        Some(Source::Check) => false,
        None => true,
    };
    if speaks_cors && !site.redirects.allowed.is_empty() {
        cors::mark(headers, origin);
    }
}

fn other_methods(call: &Call, methods: &[&str]) -> Response<Body> {
    let mut response = call.refuse(Reason::MethodNotAllowed.into());
    if let Ok(allow) = HeaderValue::try_from(methods.join(", ")) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}
