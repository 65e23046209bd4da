//! Licenses over HTTP: who gets through, what apps and clients are told, and what is never gated.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use doorward_core::{
    api_key::KeyOwner,
    effects::Effects,
    id::UserId,
    license::{Holder, LicenseState, Observation},
    time::{Now, Timestamp},
    ws::close_frame,
};
use doorward_gate::license::{Answering, FaultKind, LicenseProvider, ProviderFault, Question};
use doorward_testkit::{
    upstream::RawUpstream,
    wire::{Answer, Wire},
};

use super::world::{HOST, NOW, Request, Seen, Setup, World, json, outcome};
use crate::{door::until, process::A_SECOND};

const DAY: Duration = Duration::from_hours(24);

/// What the vendor has on its books about one holder.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    state: LicenseState,
    expires_at: Option<Timestamp>,
    entitlements: BTreeSet<String>,
}

impl Book {
    pub(crate) fn of(state: LicenseState) -> Self {
        Self { state, expires_at: None, entitlements: BTreeSet::new() }
    }

    pub(crate) fn until(self, end: Timestamp) -> Self {
        Self { expires_at: Some(end), ..self }
    }

    pub(crate) fn with(mut self, code: &str) -> Self {
        self.entitlements.insert(code.to_owned());
        self
    }
}

/// A vendor in the test's own process; clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vendor(Arc<Mutex<Office>>);

#[derive(Debug, Default)]
struct Office {
    books: HashMap<Holder, Book>,
    is_down: bool,
}

impl Vendor {
    pub(crate) fn book(&self, holder: Holder, book: Book) {
        self.0.lock().unwrap().books.insert(holder, book);
    }

    fn go_down(&self) {
        self.0.lock().unwrap().is_down = true;
    }
}

impl LicenseProvider for Vendor {
    fn name(&self) -> &'static str {
        "vendor"
    }

    fn ask(&self, question: Question, now: Now) -> Answering {
        let office = self.0.lock().unwrap();
        let book = office.books.get(&question.holder).cloned().unwrap_or_else(|| Book::of(LicenseState::None));
        let Book { state, expires_at, entitlements } = book;
        let answer = match office.is_down {
            true => Err(ProviderFault::new(FaultKind::Unavailable, "connection refused")),
            false => Ok(Observation { state, license_id: None, expires_at, entitlements, observed_at: now.wall }),
        };
        Box::pin(std::future::ready(answer))
    }

    fn is_per_user(&self) -> bool {
        true
    }
}

const RULES: &str = r#"
    [[rules]]
    path = "/public/*"
    allow = ["public"]
    app = "web"

    [[rules]]
    path = "/free/*"
    allow = ["api_key", "session"]
    app = "web"

    [[rules]]
    path = "/*"
    allow = ["api_key", "session"]
    license = "active_or_grace_read"
    app = "web"
"#;

/// A world with a vendor, and the key of a user of whom its books say something.
struct Paid {
    world: World,
    vendor: Vendor,
    user: UserId,
    key: String,
}

impl Paid {
    async fn with(book: Book) -> Self {
        Self::set_up(book, |setup| setup).await
    }

    async fn set_up(book: Book, change: impl FnOnce(Setup) -> Setup) -> Self {
        let vendor = Vendor::default();
        let world = change(Setup::of(RULES).license(Arc::new(vendor.clone()))).start().await;
        let user = world.user("ada@example.com").await.id;
        let key = world.api_key(KeyOwner::User(user), &[], |_| {}).await;
        vendor.book(Holder::User(user), book);
        Self { world, vendor, user, key }
    }

    async fn ask(&self, request: Request) -> Answer {
        self.world.bearer(&self.key).ask(request).await
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask(Request::get(target)).await
    }

    /// The vendor's books change, and a webhook says so.
    async fn rebook(&self, book: Book) {
        let holder = Holder::User(self.user);
        self.vendor.book(holder, book);
        self.world.advance(Duration::from_millis(1)).await;
        self.world.gate().licenses().unwrap().refresh(holder).await.unwrap();
    }
}

fn now() -> Timestamp {
    Timestamp::from_secs(NOW)
}

#[tokio::test]
async fn an_app_is_told_the_state_and_the_entitlements_and_nobody_else_can_say_so() {
    let book = Book::of(LicenseState::Active).until(now().plus(DAY * 3)).with("SSO").with("AUDIT");
    let paid = Paid::with(book).await;
    let forged = |target: &str| {
        Request::get(target)
            .with("X-Doorward-License", "active")
            .with("X-Doorward-Entitlements", "EVERYTHING")
            .with("X_Doorward_Entitlements", "EVERYTHING")
    };
    let seen = Seen::of(&paid.ask(forged("/x")).await);
    assert_eq!(seen.header("x-doorward-license"), Some("expiring"));
    assert_eq!(seen.header("x-doorward-entitlements"), Some("AUDIT,SSO"));
    assert!(!format!("{seen:?}").contains("EVERYTHING"), "{seen:?}");
    // Where a rule asks for no license, nothing is said about one.
    for target in ["/free/x", "/public/x"] {
        let seen = Seen::of(&paid.ask(forged(target)).await);
        assert_eq!(
            (seen.header("x-doorward-license"), seen.header("x-doorward-entitlements")),
            (None, None),
            "{target}"
        );
        assert!(!format!("{seen:?}").contains("EVERYTHING"), "{seen:?}");
    }
}

#[tokio::test]
async fn forward_auth_writes_the_license_headers_always_and_says_402_in_each_dialect() {
    let paid = Paid::with(Book::of(LicenseState::Active).with("SSO")).await;
    let question = |dialect: &str, target: &str| {
        let request = Request::get(format!("/auth/check/{dialect}")).with("X-Forwarded-Host", HOST);
        match dialect {
            "nginx" => request.with("X-Original-Method", "GET").with("X-Original-URL", target),
            _ => request
                .with("X-Forwarded-Method", "GET")
                .with("X-Forwarded-Proto", "https")
                .with("X-Forwarded-Uri", target),
        }
    };
    for dialect in ["nginx", "traefik"] {
        let answer = paid.ask(question(dialect, "/x")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("x-doorward-license"), Some("active"));
        assert_eq!(answer.header("x-doorward-entitlements"), Some("SSO"));
        let answer = paid.ask(question(dialect, "/free/x")).await;
        assert_eq!(
            (answer.header("x-doorward-license"), answer.header("x-doorward-entitlements")),
            (Some(""), Some(""))
        );
    }
    paid.rebook(Book::of(LicenseState::Active).until(now().minus(DAY))).await;
    let answer = paid.ask(question("nginx", "/x")).await;
    assert_eq!((answer.status, answer.header("x-license-grace")), (200, Some("6")));
    paid.rebook(Book::of(LicenseState::Suspended)).await;
    let answer = paid.ask(question("nginx", "/x")).await;
    assert_eq!((answer.status, answer.header("x-doorward-status")), (403, Some("402")));
    assert_eq!(answer.header("x-doorward-reason"), Some("license_suspended"));
    assert_eq!(outcome(&paid.ask(question("traefik", "/x")).await), (402, Some("license_suspended")));
}

#[tokio::test]
async fn what_may_leave_http_is_no_reading_for_a_proxy_that_asks_and_our_own_passes_nothing_on() {
    let paid = Paid::with(Book::of(LicenseState::Active).until(now().minus(DAY))).await;
    let question = |method: &str, upgrade: Option<&str>| {
        let request = Request::get("/auth/check/traefik").with("X-Forwarded-Host", HOST);
        let request = request.with("X-Forwarded-Method", method).with("X-Forwarded-Proto", "https");
        let request = request.with("X-Forwarded-Uri", "/x");
        upgrade.into_iter().fold(request, |request, name| request.with("Upgrade", name))
    };
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert_eq!(paid.ask(question(method, None)).await.status, 200, "{method}");
        for upgrade in ["h2c", "websocket", "h2c, websocket", "anything/1"] {
            let answer = paid.ask(question(method, Some(upgrade))).await;
            assert_eq!(outcome(&answer), (402, Some("license_expired_grace")), "{method} {upgrade}");
        }
    }
    let seen = Seen::of(&paid.ask(Request::get("/x").with("Upgrade", "h2c")).await);
    assert_eq!(seen.header("upgrade"), None);
}

#[tokio::test]
async fn an_operator_who_begins_the_highest_time_anew_is_heard_by_a_running_server_within_a_second() {
    let paid = Paid::with(Book::of(LicenseState::Active).until(now().plus(DAY))).await;
    let store = paid.world.store();
    let (name, ahead) = ("license.highest_time".to_owned(), now().plus(DAY * 365));
    let version = store.state(name.clone()).await.unwrap().map_or(0, |state| state.version);
    store.set_state(name, version, ahead.as_millis().to_string(), now(), Effects::default()).await.unwrap();
    let other = paid.world.replica().await;
    let mut there = paid.world.at(other.http).with("Authorization", &format!("Bearer {}", paid.key));
    assert_eq!(outcome(&there.get("/x").await), (402, Some("license_expired")));
    let admin = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        Wire::ask(other.admin, &request).await
    };
    let time = json(&admin("/healthz/deep").await)["license"]["time"].clone();
    assert_eq!((&time["ahead_of_clock_seconds"], &time["clock_leapt_seconds"]), (&31_536_000.into(), &0.into()));
    let reset = doorward_gate::license::reset_highest_time(store, now()).await.unwrap();
    assert_eq!(reset, doorward_gate::license::ResetTime::Reset(ahead));
    let begun = paid.world.clock.now();
    for _ in 0..500 {
        if there.get("/x").await.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(there.get("/x").await.status, 200);
    assert_eq!(paid.world.clock.now(), begun);
    let time = json(&admin("/healthz/deep").await)["license"]["time"].clone();
    assert_eq!(time["ahead_of_clock_seconds"], 0);
    assert!(admin("/metrics").await.text().contains("doorward_license_time_ahead_seconds"));
    other.stop().await;
}

#[tokio::test]
async fn a_grace_is_reported_and_lets_only_reading_through() {
    let paid = Paid::with(Book::of(LicenseState::Active).until(now().minus(DAY))).await;
    for method in ["GET", "HEAD", "OPTIONS"] {
        let answer = paid.ask(Request::new(method, "/x")).await;
        assert_eq!((answer.status, answer.header("x-license-grace")), (200, Some("6")), "{method}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let answer = paid.ask(Request::new(method, "/x")).await;
        assert_eq!(outcome(&answer), (402, Some("license_expired_grace")), "{method}");
    }
    assert_eq!(paid.get("/free/x").await.header("x-license-grace"), None);
    paid.world.advance(DAY * 6).await;
    assert_eq!(outcome(&paid.get("/x").await), (402, Some("license_expired")));
}

#[tokio::test]
async fn a_refusal_says_what_the_contract_says_to_programs_and_shows_people_a_page() {
    let paid = Paid::with(Book::of(LicenseState::Suspended)).await;
    let answer = paid.get("/x").await;
    assert_eq!(outcome(&answer), (402, Some("license_suspended")));
    let body = json(&answer);
    assert_eq!((&body["error"], &body["remedy"]), (&"license_required".into(), &"renew_license".into()));
    assert_eq!(body["retryable"], false);
    let page = paid.ask(Request::get("/x").with("Sec-Fetch-Mode", "navigate")).await;
    assert_eq!(page.status, 402);
    assert!(page.header("content-type").unwrap().starts_with("text/html"), "{page:?}");
    assert!(page.text().contains("license_suspended"), "{}", page.text());
}

#[tokio::test]
async fn our_own_routes_are_never_gated() {
    let paid = Paid::with(Book::of(LicenseState::Banned)).await;
    let mut ada = paid.world.browser("ada@example.com").await;
    assert_eq!(outcome(&ada.get("/x").await), (402, Some("license_banned")));
    for route in ["/healthz", "/readyz", "/auth/docs", "/auth/openapi.json", "/auth/session", "/auth/sessions"] {
        assert_eq!(ada.get(route).await.status, 200, "{route}");
    }
    for route in ["/auth/whoami", "/auth/assertion/jwks"] {
        assert_eq!(paid.get(route).await.status, 200, "{route}");
    }
    assert_eq!(ada.get("/free/x").await.status, 200);
    assert_eq!(paid.world.anonymous().get("/public/x").await.status, 200);
    // Whoever has no license can still sign in and out.
    assert_eq!(ada.post("/auth/logout", &serde_json::json!({})).await.status, 200);
}

#[tokio::test]
async fn a_change_takes_effect_with_the_next_request() {
    let paid = Paid::with(Book::of(LicenseState::Active)).await;
    assert_eq!(paid.get("/x").await.status, 200);
    paid.rebook(Book::of(LicenseState::Banned)).await;
    assert_eq!(outcome(&paid.get("/x").await), (402, Some("license_banned")));
    paid.rebook(Book::of(LicenseState::Active)).await;
    assert_eq!(paid.get("/x").await.status, 200);
}

#[tokio::test]
async fn without_the_provider_nobody_is_told_to_pay() {
    let paid = Paid::with(Book::of(LicenseState::Active)).await;
    assert_eq!(paid.get("/x").await.status, 200);
    paid.vendor.go_down();
    paid.world.advance(DAY).await;
    let read = paid.get("/x").await;
    assert_eq!((read.status, read.header("x-license-grace")), (200, Some("7")));
    let write = paid.ask(Request::new("POST", "/x")).await;
    assert_eq!(outcome(&write), (503, Some("license_unknown")));
    assert!(write.header("retry-after").is_some());
    paid.world.advance(DAY * 7).await;
    assert_eq!(outcome(&paid.get("/x").await), (503, Some("license_unknown")));
}

#[tokio::test]
async fn refusals_are_audited_once_a_minute_per_reason_and_caller_and_passes_are_silent() {
    let paid = Paid::with(Book::of(LicenseState::Active)).await;
    let rows = async || {
        let rows = paid.world.store().audit_tail(0, 1000).await.unwrap();
        let refused = rows.into_iter().filter(|row| row.kind == "request.refused");
        refused.map(|row| (row.reason.unwrap_or_default(), row.user_id)).collect::<Vec<_>>()
    };
    for _ in 0..10 {
        assert_eq!(paid.get("/x").await.status, 200);
    }
    paid.rebook(Book::of(LicenseState::Suspended)).await;
    for _ in 0..10 {
        assert_eq!(paid.get("/x").await.status, 402);
    }
    paid.rebook(Book::of(LicenseState::Banned)).await;
    for _ in 0..10 {
        assert_eq!(paid.get("/x").await.status, 402);
    }
    let wanted = ["license_suspended", "license_banned"].map(|reason| (reason.to_owned(), Some(paid.user)));
    let found = async || rows().await == wanted;
    for _ in 0..500 {
        if found().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", rows().await);
}

#[tokio::test]
async fn the_assertion_carries_the_license_and_follows_it() {
    let book = Book::of(LicenseState::Active).with("SSO");
    let paid = Paid::set_up(book, |setup| setup.app("assertion = true")).await;
    let claims = async |target: &str| {
        let seen = Seen::of(&paid.get(target).await);
        let assertion = seen.header("x-doorward-assertion").unwrap().to_owned();
        crate::assertion::read(&paid.world, &assertion).await
    };
    let first = claims("/x").await;
    assert_eq!((&first["license"], &first["entitlements"]), (&"active".into(), &serde_json::json!(["SSO"])));
    let free = claims("/free/x").await;
    assert!(free.get("license").is_none() && free.get("entitlements").is_none(), "{free}");
    paid.rebook(Book::of(LicenseState::Active).with("AUDIT")).await;
    assert_eq!(claims("/x").await["entitlements"], serde_json::json!(["AUDIT"]));
}

const ACCEPT: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn upgrade() -> Request {
    Request::get("/ws")
        .with("Connection", "Upgrade")
        .with("Upgrade", "websocket")
        .with("Sec-WebSocket-Version", "13")
        .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .with("Origin", format!("https://{HOST}"))
}

/// Somebody who has paid, with a socket open through the door; the app lives as long as what is given back.
async fn with_a_socket() -> (Paid, Wire, RawUpstream) {
    let app = RawUpstream::with(|mut conversation| async move {
        conversation.until(b"\r\n\r\n").await;
        conversation.say(ACCEPT).await;
        conversation.end().await;
    })
    .await;
    let paid = Paid::set_up(Book::of(LicenseState::Active), |setup| setup.upstream(app.url())).await;
    let mut wire = Wire::to(paid.world.address()).await;
    wire.send(upgrade().with("Authorization", format!("Bearer {}", paid.key)).bytes()).await;
    assert_eq!(wire.answer().await.status, 101);
    until("the socket is counted", || paid.world.server().proxy.open_sockets() == 1).await;
    (paid, wire, app)
}

#[tokio::test]
async fn a_socket_through_the_door_closes_with_the_reason_when_its_license_is_gone() {
    let (paid, mut wire, _app) = with_a_socket().await;
    paid.rebook(Book::of(LicenseState::Active).with("ANOTHER")).await;
    assert_eq!(paid.world.server().proxy.open_sockets(), 1, "another entitlement ends nothing");
    let told = tokio::time::timeout(A_SECOND, async {
        paid.rebook(Book::of(LicenseState::Suspended)).await;
        wire.rest().await
    });
    assert_eq!(told.await.expect("before the app hangs up"), close_frame(4003, "license_suspended"));
    // Nor is a new one opened, also not in a grace: nobody can tell what would go through it.
    paid.rebook(Book::of(LicenseState::Active).until(now().minus(DAY))).await;
    assert_eq!(outcome(&paid.ask(upgrade()).await), (402, Some("license_expired_grace")));
}

#[tokio::test]
async fn a_socket_through_the_door_closes_when_its_license_ends_and_does_not_go_on_through_the_grace() {
    let (paid, mut wire, _app) = with_a_socket().await;
    let told = tokio::time::timeout(A_SECOND, async {
        paid.rebook(Book::of(LicenseState::Active).until(now().minus(DAY))).await;
        wire.rest().await
    });
    assert_eq!(told.await.expect("before the app hangs up"), close_frame(4003, "license_expired_grace"));
}

#[tokio::test]
async fn a_user_whose_subject_is_blocked_at_the_vendor_gets_402() {
    let paid = Paid::set_up(Book::of(LicenseState::Active), |setup| setup.top("license = { issuer = \"main\" }")).await;
    paid.world.store().link_subject(paid.user, "kg-ada".to_owned(), Effects::default()).await.unwrap();
    assert_eq!(paid.get("/x").await.status, 200);
    let block = doorward_gate::blocklist::Block {
        scope: doorward_core::revocation::Scope::subject("main", "kg-ada").unwrap(),
        until: None,
        why: "chargeback".to_owned(),
        by: "a test".to_owned(),
    };
    paid.world.gate().block(block).await.unwrap();
    assert_eq!(outcome(&paid.get("/x").await), (402, Some("license_blocked")));
    assert_eq!(paid.get("/free/x").await.status, 200, "the vendor's list is about licenses");
}
