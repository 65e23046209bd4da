//! What strangers write never reaches logs and audit as anything but text, and secrets never reach them at all.

use doorward_core::{
    api_key::{self, ApiKey, KeyOwner},
    effects::Effects,
    id::ApiKeyId,
    user::Email,
};
use doorward_gate::clock::Clock;
use doorward_store::{Store, StoreOptions};
use doorward_testkit::{issuer::Issuer, mail::MailSink, process::Process, upstream::EchoApp, wire::Wire};
use serde_json::{Value, json};

use super::{Installation, cookie, reason};

const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "correct horse battery staple";
/// bcrypt of [`PASSWORD`], written by another implementation.
const HASH: &str = "$2b$04$V4vBBZ6hxGgWIpDOwQu9COCZPxvEroo1AzvgwIVkfUquU1ikFus/y";
const HS256: &str = "the-old-system-signed-with-this-one";

fn rest(sink: &MailSink, app: &EchoApp, issuer: &Issuer) -> String {
    format!(
        r#"
[login]
response_floor = "0s"
[legacy]
allow = true
hs256_secret = "{HS256}"
cutover_on = "2099-01-01"
[mail]
url = "{}"
from = "Doorward <login@example.com>"
[apps.web]
upstream = "{}"
[[issuers]]
name = "main"
issuer = "{}"
audiences = ["app"]
algorithms = ["EdDSA"]
keys = {{ jwks_url = "{}" }}
[[rules]]
path = "/*"
allow = ["session", "api_key", "bearer"]
csrf = "token"
app = "web"
"#,
        sink.url(),
        app.url(),
        issuer.url(),
        issuer.jwks_url()
    )
}

/// The server with everything of ours written down that there is to write.
async fn serve_talkative(installation: &Installation, format: &str) -> Process {
    let mut command = installation.command(&["serve", "--log-format", format]);
    let server = Process::start("doorward", command.env("RUST_LOG", "info,doorward=trace"));
    super::until("the port opens", super::PATIENCE, async || {
        tokio::net::TcpStream::connect(installation.address()).await.ok()
    })
    .await;
    installation.until_ready().await;
    server
}

/// The text of a new API key of [`EMAIL`], put into the database as one more process would.
async fn api_key(installation: &Installation, clock: &Clock) -> String {
    let options = StoreOptions::new(installation.path().join("data"), clock.random());
    let store = Store::open("sqlite:doorward.db", options).unwrap();
    store.wait_ready(super::PATIENCE).await.unwrap();
    let owner = store.user_by_email(Email::parse(EMAIL).unwrap()).await.unwrap().unwrap();
    let at = clock.now().wall;
    let minted = api_key::mint(clock.random());
    let key = ApiKey {
        id: ApiKeyId::mint(at, clock.random()),
        hash: minted.hash,
        owner: KeyOwner::User(owner.id),
        org_id: None,
        name: "test".to_owned(),
        prefix: minted.prefix,
        capabilities: std::collections::BTreeSet::new(),
        created_at: at,
        expires_at: None,
        revoked_at: None,
        deleted_at: None,
        last_used_at: None,
    };
    store.put_api_key(key, Effects::default()).await.unwrap();
    store.close().await;
    minted.text.expose().clone()
}

/// The answer as text, also where the connection ends without one.
async fn raw(installation: &Installation, bytes: impl AsRef<[u8]>) -> String {
    let mut wire = Wire::to(installation.address()).await;
    wire.send(bytes).await;
    String::from_utf8_lossy(&wire.rest().await).into_owned()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[tokio::test]
async fn no_secret_of_a_whole_sign_in_is_in_logs_or_audit_also_where_it_is_refused() {
    let Some(sink) = MailSink::start().await else { return };
    let (app, issuer, clock) = (EchoApp::start().await, Issuer::start().await, Clock::system());
    let one = Installation::with(&rest(&sink, &app, &issuer));
    one.ok(&["users", "add", EMAIL, "--password-hash", HASH]).await;
    let server = serve_talkative(&one, "json").await;
    let mut secrets: Vec<(&str, String)> = vec![("password", PASSWORD.into()), ("HS256 secret", HS256.into())];
    secrets.push(("password hash", HASH.into()));

    // By link.
    let asked = one.post("/auth/login/request-link", "", &json!({ "email": EMAIL })).await;
    let login = cookie(&asked, "doorward_login");
    let text = sink.arrived(1).await[0].text.clone().unwrap();
    let link = text.split_whitespace().find(|word| word.contains("/login/callback?token=")).unwrap();
    let token = link.split_once("?token=").unwrap().1.to_owned();
    assert_eq!(one.get(&format!("/auth/login/callback?token={token}"), "").await.status, 200);
    let sent = json!({ "token": token });
    assert_eq!(reason(&one.post("/auth/login/callback", "", &sent).await), (403, Some("link_wrong_browser")));
    let done = one.post("/auth/login/callback", &format!("Cookie: {login}\r\n"), &sent).await;
    assert_eq!(done.status, 200, "{done:?}");
    let again = one.post("/auth/login/callback", &format!("Cookie: {login}\r\n"), &sent).await;
    assert_eq!(reason(&again), (409, Some("link_reused")));
    let (sid, csrf) = (cookie(&done, "doorward_sid"), cookie(&done, "doorward_csrf"));
    assert_eq!(one.judged("/x", &format!("Cookie: {sid}\r\n")).await.status, 200);
    let value = csrf.split_once('=').unwrap().1;
    for (sent, expected) in [(value, 200), (&value[1..], 403)] {
        let fields = format!("Cookie: {sid}; {csrf}\r\nX-CSRF-Token: {sent}\r\n");
        assert_eq!(one.post("/x", &fields, &json!({})).await.status, expected);
    }
    secrets.push(("link token", token.clone()));
    secrets.push(("signature of the link", token.rsplit_once('.').unwrap().1.to_owned()));
    for pair in [&login, &sid, &csrf] {
        let (name, value) = pair.split_once('=').unwrap();
        secrets.push((if name.contains("sid") { "session" } else { "login or CSRF cookie" }, value.to_owned()));
    }

    // By code: wrong, right, again.
    let asked = one.post("/auth/login/request-link", "", &json!({ "email": EMAIL })).await;
    let other = cookie(&asked, "doorward_login");
    let text = sink.arrived(2).await[1].text.clone().unwrap();
    let code = text.lines().find(|line| line.len() == 9 && line.as_bytes()[4] == b'-').unwrap().to_owned();
    let fields = format!("Cookie: {other}\r\n");
    let mistyped = format!("{}{}", &code[..8], if code.ends_with('Z') { "Y" } else { "Z" });
    for (typed, expected) in [(&mistyped, 401), (&code, 200), (&code, 401)] {
        let answer = one.post("/auth/login/code", &fields, &json!({ "code": typed })).await;
        assert_eq!(answer.status, expected, "{answer:?}");
    }
    for path in ["/auth/login/code", "/auth/login/callback"] {
        let refused = one.post(path, &fields, &json!({ "code": [code], "token": code, code.clone(): 1 })).await;
        assert!((400..500).contains(&refused.status), "{path}: {refused:?}");
    }
    for text in [code.clone(), code.replace('-', ""), code.to_lowercase(), code.replace('-', " "), mistyped] {
        secrets.push(("typed code", text));
    }

    // By password: right, wrong, and where it does not belong.
    let right = one.post("/auth/login/password", "", &json!({ "email": EMAIL, "password": PASSWORD })).await;
    assert_eq!(right.status, 200, "{right:?}");
    secrets.push(("session", cookie(&right, "doorward_sid").split_once('=').unwrap().1.to_owned()));
    let mistyped = format!("{PASSWORD} and more");
    let wrong = one.post("/auth/login/password", "", &json!({ "email": EMAIL, "password": mistyped })).await;
    assert_eq!(reason(&wrong), (401, Some("password_invalid")));
    for body in
        [json!(PASSWORD), json!([PASSWORD]), json!({ "email": EMAIL, PASSWORD: 1 }), json!({ "token": [sent, token] })]
    {
        for path in ["/auth/login/password", "/auth/login/callback", "/auth/login/request-link"] {
            let refused = one.post(path, "", &body).await;
            assert!((400..500).contains(&refused.status), "{path} {body}: {refused:?}");
        }
    }
    one.post("/auth/login/request-link", "", &json!({ "email": PASSWORD })).await;

    // By token and key: good, damaged, in the address, twice.
    let jwt = issuer.mint(&issuer.claims("app", clock.now().wall.as_secs()));
    let key = api_key(&one, &clock).await;
    for credential in [&jwt, &key] {
        assert_eq!(one.judged("/x", &bearer(credential)).await.status, 200);
        let damaged = credential[..credential.len() - 2].to_owned();
        for fields in [bearer(&damaged), bearer(credential).repeat(2), bearer(&format!("{credential} {credential}"))] {
            let refused = one.get("/x", &fields).await;
            assert!([400, 401].contains(&refused.status), "{refused:?}");
        }
        let refused = one.get(&format!("/x?access_token={credential}"), "").await;
        assert!((400..500).contains(&refused.status), "{refused:?}");
        // Cut short, because a damaged one is told from a whole one by its end only.
        secrets.push(("bearer or key", credential[credential.len() - 20..credential.len() - 2].to_owned()));
    }

    let audit = one.ok(&["audit", "tail", "--count", "1000", "--json"]).await;
    let people = one.ok(&["audit", "tail", "--count", "1000"]).await;
    let listed = one.ok(&["users", "list"]).await;
    let logged = server.output();
    for part in ["link_reused", "password_invalid", "token_bad_signature", "\"level\":\"DEBUG\""] {
        assert!(logged.contains(part), "looked in the wrong place, no {part} in:\n{logged}");
    }
    assert!(audit.contains("session.created"), "{audit}");
    for (name, secret) in &secrets {
        let text: &str = secret;
        assert!(text.len() >= if *name == "typed code" { 8 } else { 16 }, "{name}");
        for (place, all) in [("log", &logged), ("audit", &audit), ("audit", &people), ("list", &listed)] {
            let found = all.lines().find(|line| line.contains(text));
            assert!(found.is_none(), "the {name} is in the {place}: {found:?}");
        }
    }
}

/// ESC and C1 sequences for terminals, line ends in every form, a bidirectional override.
const CONTROLS: &[&str] = &[
    "\u{1b}[2J",
    "\u{9b}31m",
    "\nFORGED auth ok",
    "\r\nFORGED",
    "\u{85}FORGED",
    "\u{2028}FORGED",
    "\u{202e}",
    "\u{7}",
];

#[tokio::test]
async fn nothing_that_clients_write_forges_a_line_or_moves_a_terminal() {
    let Some(sink) = MailSink::start().await else { return };
    let (app, issuer, clock) = (EchoApp::start().await, Issuer::start().await, Clock::system());
    for format in ["json", "text"] {
        let one = Installation::with(&rest(&sink, &app, &issuer));
        // Otherwise the start prints where the first administrator signs in, which is no line of the log.
        one.ok(&["users", "add", EMAIL, "--admin"]).await;
        let server = serve_talkative(&one, format).await;
        let host = one.address();
        let claims = issuer.claims("app", clock.now().wall.as_secs());
        for text in CONTROLS {
            raw(&one, format!("GET /a{text}b HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
            raw(&one, format!("GET /x HTTP/1.1\r\nHost: a{text}b\r\nConnection: close\r\n\r\n")).await;
            raw(&one, format!("GET /x HTTP/1.1\r\nHost: {host}\r\nUser-Agent: a{text}b\r\nConnection: close\r\n\r\n"))
                .await;
            let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            raw(&one, format!("GET /a{escaped} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
            one.get(&format!("/auth/login?return_to={escaped}"), "").await;
            one.post("/auth/login/request-link", "", &json!({ "email": format!("a{text}@example.com") })).await;
            one.post("/auth/login/password", "", &json!({ "email": format!("a{text}@example.com"), "password": text }))
                .await;
            one.post("/auth/login/callback", "", &json!({ "token": "x", *text: text })).await;
            one.post("/auth/login/callback", "", &json!(text)).await;
            for member in ["kid", "alg", "typ", "jku", "crit"] {
                let mut header = json!({ "alg": "EdDSA", "kid": issuer.key_id() });
                header[member] = json!(format!("a{text}"));
                let refused = one.get("/x", &bearer(&issuer.mint_with(&header, &claims))).await;
                // Where else keys might be is not looked at, so that one is good.
                assert!(member == "jku" || refused.status != 200, "{member}: {refused:?}");
            }
            for member in ["iss", "sub", "aud", "jti", "exp"] {
                let mut claims = claims.clone();
                claims[member] = json!(format!("a{text}"));
                one.get("/x", &bearer(&issuer.mint(&claims))).await;
            }
        }
        one.get("/marker-of-the-test", "").await;
        let seen = |line: &str| line.contains("/marker-of-the-test").then_some(());
        server.line(super::PATIENCE, seen).await;
        let tail = one.ok(&["audit", "tail", "--count", "1000"]).await;
        let logged = server.output();
        for (place, all) in [("log", &logged), ("audit", &tail)] {
            for line in all.lines() {
                assert!(!line.chars().any(char::is_control), "{format} {place}: {line:?}");
                assert!(!line.starts_with("FORGED"), "{format} {place}: {line:?}");
            }
        }
        if format == "json" {
            for line in logged.lines() {
                assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()), "{line}");
            }
        }
    }
}

#[tokio::test]
async fn nesting_without_end_is_a_refusal_and_the_process_lives() {
    let Some(sink) = MailSink::start().await else { return };
    let (app, issuer, clock) = (EchoApp::start().await, Issuer::start().await, Clock::system());
    let one = Installation::with(&rest(&sink, &app, &issuer));
    let mut server = serve_talkative(&one, "json").await;
    let encode = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    let good = issuer.mint(&issuer.claims("app", clock.now().wall.as_secs()));
    let parts: Vec<_> = good.split('.').collect();
    for (depth, open, close) in [(33, "[", "]"), (2_500, "[", "]"), (600, "{\"a\":", "}"), (5_000, "[", "")] {
        let (open, close) = (open.repeat(depth), close.repeat(depth));
        let nested = format!("{{\"x\":{open}1{close}}}");
        for token in [
            format!("{}.{}.{}", encode(&nested), parts[1], parts[2]),
            format!("{}.{}.{}", parts[0], encode(&nested), parts[2]),
            issuer.mint_with(&json!({ "alg": "EdDSA", "x": nested }), &json!({ "sub": nested })),
        ] {
            let refused = one.get("/x", &bearer(&token)).await;
            assert!((400..500).contains(&refused.status), "{depth}: {refused:?}");
        }
        for path in ["/auth/login/request-link", "/auth/login/callback", "/auth/login/password"] {
            for body in [format!("{open}1{close}"), format!("{{\"email\":{open}1{close}}}")] {
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: {0}\r\nOrigin: http://{0}\r\nContent-Type: application/json\r\n\
                     Connection: close\r\nContent-Length: {1}\r\n\r\n{body}",
                    one.address(),
                    body.len()
                );
                let refused = raw(&one, head).await;
                assert!(refused.starts_with("HTTP/1.1 4"), "{path} {depth}: {refused}");
            }
        }
        let parentheses = "(".repeat(depth);
        let refused = one.get(&format!("/{parentheses}?filter={parentheses}"), "").await;
        assert!((400..500).contains(&refused.status), "{depth}: {refused:?}");
    }
    assert!(server.is_running(), "{}", server.output());
    assert_eq!(one.judged("/x", &bearer(&good)).await.status, 200);
}
