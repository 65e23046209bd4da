//! Real front proxies in front of an app, on the very files of `deploy/`, asking a real Doorward.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use doorward::{
    config::Config,
    lifecycle::{self, Host, Running},
};
use doorward_gate::{
    clock::Clock,
    mail::{Mailbox, Mailer},
};
use doorward_testkit::{
    folder,
    issuer::Issuer,
    port,
    proxies::{Kind, Proxy},
    upstream::{Conversation, RawUpstream},
    wire::{Answer, Wire},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

const WITHIN: Duration = Duration::from_mins(1);
/// The identity headers, all of which Doorward owns.
const IDENTITY: [&str; 9] =
    ["subject", "issuer", "email", "method", "org", "license", "entitlements", "decision", "assertion"];

/// A proxy, the Doorward that it asks and the app behind it.
struct Front {
    kind: Kind,
    proxy: Proxy,
    hub: Running,
    app: RawUpstream,
    issuer: Issuer,
    mailbox: Mailbox,
    origin: String,
    _data: TempDir,
}

/// What the app got: the request's lines as they came.
struct Seen(String);

impl Front {
    /// `None`, loudly, where the proxy is not installed.
    async fn start(kind: Kind) -> Option<Self> {
        let (port, data) = (port::free(), folder::quick());
        let (app, issuer, mailbox) = (RawUpstream::with(app).await, Issuer::start().await, Mailbox::new());
        let origin = format!("http://127.0.0.1:{port}");
        let hub = lifecycle::start(
            &config(&origin, &app, &issuer, data.path()),
            Host {
                clock: Clock::system(),
                mailer: Some(Mailer::Memory(mailbox.clone())),
                directory: None,
                license: None,
                vars: BTreeMap::new(),
                is_demo: false,
            },
        )
        .await
        .unwrap();
        let proxy = Proxy::start(kind, port, hub.http, app.address()).await?;
        let front = Self { kind, proxy, hub, app, issuer, mailbox, origin, _data: data };
        front.until_ready().await;
        Some(front)
    }

    fn addr(&self) -> SocketAddr {
        self.proxy.addr()
    }

    /// In the background the store opens, then the ring of keys without which nobody signs in, the revocation log
    /// without which no token counts, and the issuer's keys.
    async fn until_ready(&self) {
        let (host, bearer) = (self.host(), self.bearer());
        let ring = request("GET", "/auth/assertion/jwks", &host, &[], "");
        let token = request("GET", "/a", &host, &[("authorization", &bearer)], "");
        let ready = async {
            for question in [&ring, &token] {
                while Wire::ask(self.hub.http, question).await.status != 200 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        timeout(WITHIN, ready).await.expect("Doorward gets ready");
    }

    /// A good token in an `Authorization` value.
    fn bearer(&self) -> String {
        let now = Clock::system().now().wall.as_secs();
        format!("Bearer {}", self.issuer.mint(&self.issuer.claims("app", now)))
    }

    fn host(&self) -> String {
        self.origin.trim_start_matches("http://").to_owned()
    }

    async fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        Wire::ask(self.addr(), request(method, target, &self.host(), headers, body)).await
    }

    async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", target, headers, "").await
    }

    /// Signs in by mail, all of it through the proxy; gives the `Cookie` of the session.
    async fn sign_in(&self, email: &str) -> String {
        let json = [("content-type", "application/json"), ("origin", &self.origin)];
        let asked = self.ask("POST", "/auth/login/request-link", &json, &format!(r#"{{"email":"{email}"}}"#)).await;
        assert_eq!(asked.status, 200, "{}: {}", self.kind.name(), asked.text());
        timeout(WITHIN, self.mailbox.arrived(1)).await.expect("the mail arrives");
        let mail = self.mailbox.mails().pop().unwrap();
        let text = format!("{mail:?}");
        let token: String = text.split("token=").nth(1).unwrap().chars().take_while(|c| is_of_a_token(*c)).collect();
        let login = cookies(&asked);
        let mut headers = json.to_vec();
        headers.push(("cookie", &login));
        let done = self.ask("POST", "/auth/login/callback", &headers, &format!(r#"{{"token":"{token}"}}"#)).await;
        assert_eq!(done.status, 200, "{}: {}", self.kind.name(), done.text());
        cookies(&done)
    }

    /// The answer came from the app; what it got.
    fn reached(&self, answer: &Answer) -> Seen {
        assert_eq!(answer.status, 200, "{}: {}\n{}", self.kind.name(), answer.head, answer.text());
        assert_eq!(answer.header("x-app"), Some("reached"), "{}: {}", self.kind.name(), answer.head);
        Seen(answer.text())
    }

    /// The answer is a refusal with this status and reason, and the app heard nothing of it.
    fn refused(&self, answer: &Answer, status: u16, reason: &str) {
        let name = self.kind.name();
        assert_eq!(answer.status, status, "{name}: {}\n{}", answer.head, answer.text());
        assert_eq!(answer.header("x-doorward-reason"), Some(reason), "{name}: {}", answer.head);
        let problem: Value = serde_json::from_str(&answer.text()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(problem["reason"], reason, "{name}: {problem}");
        assert_eq!(problem["status"], status, "{name}: {problem}");
        assert!(answer.header("x-app").is_none(), "{name}: the app answered");
    }
}

impl Seen {
    fn first_line(&self) -> &str {
        self.0.lines().next().unwrap()
    }

    /// All values under names that an app takes for this one.
    fn values(&self, wanted: &str) -> Vec<&str> {
        let same = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric(), "-").eq_ignore_ascii_case(wanted);
        let head = self.0.split("\r\n\r\n").next().unwrap();
        let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(name, _)| same(name)).map(|(_, value)| value.trim()).collect()
    }

    /// The identity header of this name; a proxy may write an empty one as none.
    fn identity(&self, name: &str) -> &str {
        let values = self.values(&format!("x-doorward-{name}"));
        assert!(values.len() <= 1, "x-doorward-{name} comes as {values:?}");
        values.first().copied().unwrap_or_default()
    }

    fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").unwrap().1
    }
}

/// Answers with the request as it came, and echoes five bytes on a socket.
async fn app(mut conversation: Conversation) {
    while let Some(request) = conversation.request().await {
        if request.to_ascii_lowercase().contains("\r\nupgrade: websocket") {
            let accepted = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                            sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            conversation.say(accepted).await;
            while let Some(bytes) = conversation.exactly(5).await {
                conversation.say(bytes).await;
            }
            return;
        }
        let head = format!("HTTP/1.1 200 OK\r\nx-app: reached\r\ncontent-length: {}\r\n\r\n", request.len());
        conversation.say(head + &request).await;
    }
}

fn config(origin: &str, app: &RawUpstream, issuer: &Issuer, data: &Path) -> Config {
    let text = format!(
        r#"
        public_url = "{origin}"
        data_dir = "{data}"
        listen = {{ http = "127.0.0.1:{port}", admin = "127.0.0.1:0", trusted_proxies = ["127.0.0.1/32"] }}
        mail = {{ url = "smtp://127.0.0.1:1", from = "Doorward <login@example.com>" }}
        login = {{ allow_sign_up = true, response_floor = "0ms" }}

        [apps.web]
        upstream = "{upstream}"

        [[issuers]]
        name = "main"
        issuer = "{issuer}"
        audiences = ["app"]
        algorithms = ["EdDSA"]
        keys = {{ jwks_url = "{keys}", fetch_timeout = "60s" }}

        [[rules]]
        path = "/public/*"
        allow = ["public"]
        app = "web"

        [[rules]]
        path = "/read-only/*"
        methods = ["GET"]
        allow = ["session"]
        app = "web"

        [[rules]]
        path = "/*"
        allow = ["session", "bearer"]
        app = "web"
        "#,
        data = data.display(),
        // Nobody else listens there when it is dead.
        port = port::free(),
        upstream = app.url(),
        issuer = issuer.url(),
        keys = issuer.jwks_url(),
    );
    Config::parse(&text, &data.join("doorward.toml"), &BTreeMap::new()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn request(method: &str, target: &str, host: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("connection")) {
        text += "Connection: close\r\n";
    }
    text + "\r\n" + body
}

/// The cookies that an answer sets, as a browser sends them back.
fn cookies(answer: &Answer) -> String {
    let fields = answer.head.lines().filter_map(|line| line.split_once(':'));
    let set = fields.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).map(|(_, value)| value.trim());
    let pairs = set.filter_map(|cookie| cookie.split(';').next()).filter(|pair| !pair.ends_with('='));
    pairs.collect::<Vec<_>>().join("; ")
}

fn is_of_a_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_through_each_proxy_and_reaches_the_app() {
    for kind in Kind::ALL {
        let Some(front) = Front::start(kind).await else { continue };
        let cookie = front.sign_in("ann@example.com").await;

        let seen = front.reached(&front.get("/a%20b/~ann?x=%2F&y", &[("cookie", &cookie)]).await);
        assert_eq!(seen.first_line(), "GET /a%20b/~ann?x=%2F&y HTTP/1.1", "the bytes that were judged");
        assert_eq!(seen.identity("email"), "ann@example.com");
        assert_eq!(seen.identity("method"), "session");
        assert_eq!(seen.identity("issuer"), "local");
        assert!(!seen.identity("subject").is_empty() && !seen.identity("decision").is_empty());

        let large = "x".repeat(70_000);
        let origin = [("cookie", cookie.as_str()), ("origin", front.origin.as_str())];
        let seen = front.reached(&front.ask("POST", "/a", &origin, &large).await);
        assert!(seen.body() == large, "{}: the body came through as {} bytes", kind.name(), seen.body().len());

        let session = front.get("/auth/session", &[("cookie", &cookie)]).await;
        let session: Value = serde_json::from_str(&session.text()).unwrap();
        assert_eq!(session["user"]["email"], "ann@example.com", "Doorward's own routes pass: {session}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_its_rule_allows_through_each_proxy() {
    for kind in Kind::ALL {
        let Some(front) = Front::start(kind).await else { continue };
        let bearer = front.bearer();
        let seen = front.reached(&front.get("/a", &[("authorization", &bearer)]).await);
        assert_eq!(seen.identity("method"), "bearer");
        assert_eq!(seen.identity("issuer"), "main");

        let forged = front.get("/a", &[("authorization", &format!("{bearer}A"))]).await;
        assert!(forged.header("www-authenticate").unwrap_or_default().contains("invalid_token"), "{}", forged.head);
        front.refused(&forged, 401, "token_bad_signature");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_about_its_identity_reaches_the_app_through_no_proxy() {
    let names = ["X-Doorward-{}", "X_Doorward_{}", "x-doorward_{}", "X_Doorward-{}"];
    for kind in Kind::ALL {
        let Some(front) = Front::start(kind).await else { continue };
        let cookie = front.sign_in("ann@example.com").await;
        for name in names {
            let spoofed = IDENTITY.map(|header| name.replace("{}", header));
            let mut headers: Vec<_> = spoofed.iter().map(|name| (name.as_str(), "spoofed")).collect();
            headers.push(("X-Original-URL", "/public/x"));
            headers.push(("X-Forwarded-Uri", "/public/x"));
            headers.push(("X-Forwarded-Method", "OPTIONS"));
            headers.push(("X-Forwarded-For", "192.0.2.1"));
            headers.push(("Forwarded", "for=192.0.2.1"));

            let nobody = front.get("/a", &headers).await;
            front.refused(&nobody, 401, "no_credential");
            let public = front.reached(&front.get("/public/x", &headers).await);
            assert_eq!(public.identity("subject"), "", "{}: {}", kind.name(), public.0);
            headers.push(("cookie", &cookie));
            let known = front.reached(&front.get("/a", &headers).await);
            assert_eq!(known.identity("email"), "ann@example.com");
            for seen in [public, known] {
                assert!(!seen.0.contains("spoofed"), "{}: {}", kind.name(), seen.0);
                assert!(!seen.0.contains("192.0.2.1"), "{}: {}", kind.name(), seen.0);
                assert!(seen.values("x-original-url").is_empty() && seen.values("x-forwarded-uri").is_empty());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_make_another_request_of_the_one_that_was_judged_reaches_the_app_through_no_proxy() {
    for kind in Kind::ALL {
        let Some(front) = Front::start(kind).await else { continue };
        for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "x_http_method_override"] {
            let answer = front.get("/public/x", &[(name, "DELETE")]).await;
            if answer.status == 400 {
                continue; // refused by the check
            }
            let seen = front.reached(&answer);
            assert!(seen.values(name).is_empty(), "{} {name}: {}", kind.name(), seen.0);
        }
        // An app that takes it would leave HTTP behind, and with it every rule.
        for upgrade in ["h2c", "h2c, websocket", "TLS/1.3"] {
            let answer = front.get("/public/x", &[("connection", "Upgrade"), ("upgrade", upgrade)]).await;
            if answer.status == 200 {
                let seen = front.reached(&answer);
                assert!(seen.values("upgrade").is_empty(), "{}: {}", kind.name(), seen.0);
            } else {
                assert!((400..=499).contains(&answer.status), "{}: {}", kind.name(), answer.head);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_the_client_through_each_proxy_as_it_was_meant() {
    for kind in Kind::ALL {
        let Some(front) = Front::start(kind).await else { continue };
        let cookie = front.sign_in("ann@example.com").await;
        let cookie = ("cookie", cookie.as_str());

        let anonymous = front.get("/a", &[]).await;
        assert!(anonymous.header("www-authenticate").is_some(), "{}: {}", kind.name(), anonymous.head);
        front.refused(&anonymous, 401, "no_credential");

        let person = front.get("/a?b=1", &[("accept", "text/html"), ("sec-fetch-mode", "navigate")]).await;
        assert_eq!(person.status, 302, "{}: {}", kind.name(), person.head);
        let to = person.header("location").unwrap_or_default();
        assert_eq!(to.trim_start_matches(&front.origin), "/auth/login?return_to=%2Fa%3Fb%3D1", "{}", kind.name());

        let wrong_method = front.ask("DELETE", "/read-only/x", &[cookie, ("origin", &front.origin)], "").await;
        front.refused(&wrong_method, 403, "rule_denies");
        let elsewhere = front.ask("POST", "/a", &[cookie, ("origin", "https://elsewhere.example")], "x").await;
        front.refused(&elsewhere, 403, "cross_site");
        let escaped = front.get("/public/%2e%2e/a", &[]).await;
        assert_eq!(escaped.status, 400, "{}: {}", kind.name(), escaped.head);
        let twice = front.get("/a", &[("authorization", "Bearer a.b.c"), ("authorization", "Bearer d.e.f")]).await;
        assert_eq!(twice.status, 400, "{}: {}", kind.name(), twice.head);
        let host = Wire::ask(front.addr(), request("GET", "/a", "elsewhere.example", &[cookie], "")).await;
        assert_eq!(host.status, 421, "{}: {}", kind.name(), host.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_opens_through_each_proxy_for_a_session_only() {
    let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let upgrade = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"), key];
    for kind in Kind::ALL {
        let Some(front) = Front::start(kind).await else { continue };
        let cookie = front.sign_in("ann@example.com").await;
        let with = |more: &[(&'static str, &str)]| {
            let headers: Vec<(&str, &str)> = upgrade.iter().chain(more).copied().collect();
            request("GET", "/socket", &front.host(), &headers, "")
        };

        let mut socket = Wire::to(front.addr()).await;
        socket.send(with(&[("cookie", &cookie), ("origin", &front.origin)])).await;
        assert_eq!(socket.answer().await.status, 101, "{}", kind.name());
        socket.send("hello").await;
        assert_eq!(socket.exactly(5).await, b"hello", "{}", kind.name());

        let nobody = Wire::ask(front.addr(), with(&[("origin", &front.origin)])).await;
        front.refused(&nobody, 401, "no_credential");
        let elsewhere =
            Wire::ask(front.addr(), with(&[("cookie", &cookie), ("origin", "https://elsewhere.example")])).await;
        front.refused(&elsewhere, 403, "cross_site");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_reaches_a_check_through_a_proxy() {
    for kind in Kind::ALL {
        let Some(front) = Front::start(kind).await else { continue };
        let cookie = front.sign_in("ann@example.com").await;
        let name = kind.name();
        for target in ["/auth/check/{}", "/auth/check/{}?x", "/auth/%63heck/{}", "/auth/./check/{}", "/auth//check/{}"]
        {
            let target = target.replace("{}", name);
            let headers = [("cookie", cookie.as_str()), ("x-original-method", "GET"), ("x-original-url", "/public/x")];
            let answer = front.get(&target, &headers).await;
            assert!(matches!(answer.status, 400 | 404), "{name} {target}: {}", answer.head);
            assert!(answer.header("x-doorward-subject").is_none(), "{name} {target}: {}", answer.head);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_passes_a_proxy_while_doorward_is_dead() {
    for kind in Kind::ALL {
        let Some(front) = Front::start(kind).await else { continue };
        let cookie = front.sign_in("ann@example.com").await;
        front.reached(&front.get("/a", &[("cookie", &cookie)]).await);
        let Front { proxy, hub, app, origin, .. } = front;
        timeout(WITHIN * 2, hub.stop()).await.expect("Doorward stops");
        let heard = app.text().len();
        let host = origin.trim_start_matches("http://");
        for target in ["/a", "/public/x"] {
            let answer = Wire::ask(proxy.addr(), request("GET", target, host, &[("cookie", &cookie)], "")).await;
            assert!(matches!(answer.status, 502 | 503), "{} {target}: {}", kind.name(), answer.head);
        }
        assert_eq!(app.text().len(), heard, "{}: the app heard something", kind.name());
    }
}
