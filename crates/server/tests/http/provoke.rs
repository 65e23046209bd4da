//! Every reason that can occur, provoked over HTTP: its answer is what the table says.

mod stage;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use doorward::http::{OwnRules, Site};
use doorward_core::{
    api_key::{self, KeyOwner},
    effects::Effects,
    license::LicenseState,
    reason::Reason,
    revocation::Scope,
    time::Timestamp,
};
use doorward_gate::window::Window;
use doorward_testkit::wire::{Answer, Wire};
use serde_json::{Value, json};

use self::stage::{Provoked, Stage, with_webhooks};
use crate::{
    door::until,
    license::Book,
    webhooks,
    world::{NOW, Request, Setup, World, json as body, outcome},
};

/// Makes `reason` happen. No `_`: a new reason without an answer here does not compile.
async fn provoke(reason: Reason) -> Provoked {
    use Provoked::NotYet;
    const MINUTE: Duration = Duration::from_secs(60);
    let at = Timestamp::from_secs(NOW);
    let stage = Stage::set;
    match reason {
        Reason::RequestMalformed => stage().await.ask(Request::get("/api/../x")).await,
        Reason::HostUnknown => stage().await.ask(Request::get("/api/x").to("other.example")).await,
        Reason::NoCredential => stage().await.ask(Request::get("/api/x")).await,
        Reason::AmbiguousCredential => {
            let twice =
                Request::get("/api/x").with("Authorization", "Bearer a.b.c").with("Authorization", "Bearer d.e.f");
            stage().await.ask(twice).await
        }
        Reason::PayloadTooLarge => {
            let large = json!({ "email": "x".repeat(20_000) }).to_string();
            let request = Request::new("POST", "/auth/login/request-link").with("Content-Type", "application/json");
            stage().await.ask(request.body(large)).await
        }

        Reason::TokenMalformed => stage().await.bearer("/api/x", "a.b.c").await,
        Reason::TokenAlgNotAllowed => stage().await.headed(&json!({ "alg": "HS256" })).await,
        Reason::TokenKeyMismatch => stage().await.headed(&json!({ "alg": "ES256" })).await,
        Reason::TokenUnknownKey => {
            let stage = stage().await;
            let mut claims = stage.claims();
            claims["iat"] = json!(NOW - 100);
            let token = stage.issuer.mint_with(&json!({ "kid": "nobody's" }), &claims);
            stage.bearer("/api/x", &token).await
        }
        Reason::TokenBadSignature => {
            let stage = stage().await;
            let (one, mut other) = (stage.claims(), stage.claims());
            other["sub"] = json!("somebody-else");
            let (one, other) = (stage.issuer.mint(&one), stage.issuer.mint(&other));
            let signature = one.rsplit_once('.').unwrap().1;
            let forged = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
            stage.bearer("/api/x", &forged).await
        }
        Reason::TokenExpired => stage().await.but("exp", json!(NOW - 60)).await,
        Reason::TokenNotYetValid => stage().await.but("nbf", json!(NOW + 120)).await,
        Reason::TokenWrongIssuer => stage().await.but("iss", json!("https://other.example")).await,
        Reason::TokenWrongAudience => stage().await.but("aud", json!("other")).await,
        Reason::TokenWrongType => stage().await.headed(&json!({ "typ": "logout+jwt" })).await,
        Reason::TokenMissingClaim => stage().await.but("exp", Value::Null).await,
        Reason::TokenInvalidClaim => stage().await.but("exp", json!("soon")).await,
        Reason::TokenRevoked => {
            let stage = stage().await;
            stage.revoke(Scope::Token { issuer: "main".to_owned(), jti: "t-1".to_owned() }).await;
            stage.but("jti", json!("t-1")).await
        }
        Reason::KeysUnavailable => stage().await.but("iss", json!("https://dead.example")).await,

        Reason::SessionUnknown => {
            let cookie = format!("__Host-doorward_sid={}", "A".repeat(43));
            stage().await.ask(Request::get("/api/x").with("Cookie", cookie)).await
        }
        Reason::SessionIdle => stage().await.in_session("/api/x", &[60 * MINUTE]).await,
        Reason::SessionExpiredAbsolute => {
            let stage = Stage::with(|setup| setup.session("absolute = \"2h\"")).await;
            stage.in_session("/api/x", &[40 * MINUTE; 3]).await
        }
        Reason::SessionRevoked => {
            let stage = stage().await;
            let mut ada = stage.world.browser("ada@example.com").await;
            // The log alone; a command removes the rows besides.
            stage.revoke(Scope::AllSessions).await;
            let answer = ada.get("/api/x").await;
            stage.refused(answer)
        }
        Reason::UserBanned => {
            let stage = stage().await;
            let mut ada = stage.world.browser("ada@example.com").await;
            let user = stage.world.store().users(None, 10).await.unwrap().remove(0);
            stage.world.store().set_banned(user.id, Some(at), Effects::default()).await.unwrap();
            stage.revoke(Scope::User { id: user.id }).await;
            let answer = ada.get("/api/x").await;
            stage.refused(answer)
        }

        Reason::CsrfMissing => stage().await.posting(("X-CSRF-Token", "")).await,
        Reason::CsrfMismatch => stage().await.posting(("X-CSRF-Token", "of-somebody-else")).await,
        Reason::CrossSite => stage().await.posting(("Sec-Fetch-Site", "cross-site")).await,
        Reason::ReAuthRequired => stage().await.in_session("/recent", &[6 * MINUTE]).await,

        Reason::MissingToken => stage().await.sending_a_link(json!({})).await,
        Reason::LinkInvalid => stage().await.sending_a_link(json!({ "token": "a.b.c" })).await,
        Reason::LinkExpired => stage().await.using_a_link(1, 15 * MINUTE, false).await,
        Reason::LinkWrongBrowser => stage().await.using_a_link(1, Duration::ZERO, true).await,
        Reason::LinkReused => stage().await.using_a_link(2, Duration::ZERO, false).await,
        Reason::LegacyLoginDisabled => stage().await.with_a_password().await,
        Reason::PasswordInvalid => {
            let window = "legacy = { allow = true, cutover_on = \"2027-01-18\" }";
            let stage = Stage::with(|setup| setup.top(window)).await;
            until("the window is open", || stage.world.gate().window() == Window::Open).await;
            stage.with_a_password().await
        }
        Reason::LinkMismatch => {
            let knows = Arc::new(crate::sign_in::magic::Provider::of(&[("ada@example.com", "somebody-else")]));
            let stage = Stage::with(|setup| setup.directory(knows)).await;
            let ada = stage.world.user("ada@example.com").await;
            stage.world.store().set_pending(ada.id, "subject-of-ada".into(), Effects::default()).await.unwrap();
            stage.using_a_link(1, Duration::ZERO, false).await
        }
        Reason::CodeInvalid => {
            let stage = stage().await;
            let answer = stage.world.visitor().post("/auth/login/code", &json!({ "code": "0000-0000" })).await;
            stage.refused(answer)
        }

        Reason::ApiKeyNotFound => {
            let key = api_key::mint([7; 32]).text;
            stage().await.bearer("/api/x", key.expose()).await
        }
        Reason::ApiKeyRevoked => stage().await.with_key(|key| key.revoked_at = Some(at)).await,
        Reason::ApiKeyDeleted => stage().await.with_key(|key| key.deleted_at = Some(at)).await,
        Reason::ApiKeyExpired => stage().await.with_key(|key| key.expires_at = Some(at)).await,
        Reason::MissingCapability => {
            let stage = stage().await;
            let owner = KeyOwner::User(stage.world.user("owner@example.com").await.id);
            let key = stage.world.api_key(owner, &["read"], |_| {}).await;
            stage.bearer("/deploy", &key).await
        }
        Reason::NoProjectOrRootless | Reason::SessionDisconnected | Reason::HostnameRequired | Reason::AuthTimeout => {
            NotYet("agent sockets")
        }

        // Without a provider nothing is licensed, so what asks for a license is closed.
        Reason::LicenseUnknown => stage().await.with_token("/licensed").await,
        Reason::LicenseEntitlementMissing => {
            Stage::with_a_license("GET", "/with-sso", Book::of(LicenseState::Active), false).await
        }
        Reason::LicenseNone => Stage::with_a_license("GET", "/licensed", Book::of(LicenseState::None), false).await,
        Reason::LicenseExpired => {
            let book = Book::of(LicenseState::Expired).until(at.minus(Duration::from_hours(8 * 24)));
            Stage::with_a_license("GET", "/licensed", book, false).await
        }
        Reason::LicenseExpiredGrace => {
            let book = Book::of(LicenseState::Active).until(at.minus(Duration::from_hours(24)));
            Stage::with_a_license("POST", "/licensed", book, false).await
        }
        Reason::LicenseSuspended => {
            Stage::with_a_license("GET", "/licensed", Book::of(LicenseState::Suspended), false).await
        }
        Reason::LicenseBanned => Stage::with_a_license("GET", "/licensed", Book::of(LicenseState::Banned), false).await,
        Reason::LicenseBlocked => Stage::with_a_license("GET", "/licensed", Book::of(LicenseState::Active), true).await,
        Reason::LicenseInvalid => {
            Stage::with_a_license("GET", "/licensed", Book::of(LicenseState::Invalid), false).await
        }

        Reason::RefreshExpired | Reason::RefreshRevoked | Reason::RefreshReused | Reason::RefreshNotHere => {
            NotYet("refresh tokens")
        }

        Reason::NotAMember => NotYet("organisations"),
        Reason::MissingScope => stage().await.with_token("/scoped").await,
        Reason::MissingClaim => stage().await.with_token("/claimed").await,
        Reason::RuleDenies => stage().await.ask(Request::new("PUT", "/api/x")).await,
        Reason::NoRule => stage().await.ask(Request::get("/nowhere")).await,
        Reason::UntrustedPeer => {
            let stage = Stage::with(|setup| setup.listen("trusted_proxies = []")).await;
            stage.ask(Request::get("/auth/check/nginx")).await
        }

        Reason::WebhookDisabled => stage().await.ask(Request::new("POST", webhooks::HUB)).await,
        Reason::WebhookMissingSignature => with_webhooks().await.ask(Request::new("POST", webhooks::HUB)).await,
        Reason::WebhookBadTimestamp => {
            let undated = Request::new("POST", webhooks::HUB).with("X-Titanium-Signature", "sha256=00");
            with_webhooks().await.ask(undated).await
        }
        Reason::WebhookBadSignature => {
            let altered = webhooks::signed(NOW, &json!({})).body("{ }");
            with_webhooks().await.ask(altered).await
        }
        Reason::WebhookStale => with_webhooks().await.ask(webhooks::signed(NOW - 301, &json!({}))).await,
        Reason::WebhookBadPayload => with_webhooks().await.ask(webhooks::signed(NOW, &json!({}))).await,

        // Too many requests for links are answered like every other one, or the answer would tell who exists.
        Reason::RateLimited => {
            let stage = stage().await;
            let mut browser = stage.world.visitor();
            browser.ask_for_link(&stage.world.mailbox, "ada@example.com", "/").await;
            let mut last = None;
            for _ in 0..6 {
                last = Some(browser.post("/auth/login/code", &json!({ "code": "0000-0000" })).await);
            }
            stage.refused(last.unwrap())
        }

        Reason::StoreUnavailable => {
            let stage = stage().await;
            stage.world.store().close().await;
            let cookie = format!("__Host-doorward_sid={}", "A".repeat(43));
            stage.ask(Request::get("/api/x").with("Cookie", cookie)).await
        }
        Reason::SharedUnavailable => {
            let stage = stage().await;
            let token = stage.issuer.mint(&stage.claims());
            assert_eq!(stage.world.bearer(&token).get("/api/x").await.status, 200);
            stage.world.store().close().await;
            stage.world.clock.advance(Duration::from_secs(3));
            stage.bearer("/api/x", &token).await
        }
        Reason::MailUnavailable => {
            let stage = Stage::with(Setup::without_mail).await;
            let mut ada = stage.world.first_admin("ada@example.com").await;
            let answer = ada.get("/auth/reauth").await;
            stage.refused(answer)
        }
        Reason::UpstreamUnavailable => stage().await.ask(Request::get("/dead")).await,
        Reason::UpstreamTimeout => stage().await.ask(Request::get("/silent")).await,
        // No request is known that leads to a fault of ours, so one is made: a site whose rules point to no app.
        Reason::Internal => {
            let stage = stage().await;
            let server = stage.world.server();
            let site = server.site();
            let broken = Site {
                policy: Arc::clone(&site.policy),
                pages: site.pages.clone(),
                redirects: site.redirects.clone(),
                trusted: site.trusted.clone(),
                apps: Vec::new(),
                cookies: site.cookies,
                response_floor: site.response_floor,
                code_ttl: site.code_ttl,
                jobs: site.jobs.clone(),
                link_ttl: site.link_ttl,
                is_demo: site.is_demo,
                headers: site.headers.clone(),
                own_rules: OwnRules::new(false).unwrap(),
                legacy: None,
            };
            server.sites.store(Arc::new(broken));
            let token = stage.issuer.mint(&stage.claims());
            stage.bearer("/api/x", &token).await
        }
        Reason::NotFound => stage().await.ask(Request::get("/auth/nothing")).await,
        Reason::MethodNotAllowed => stage().await.ask(Request::new("DELETE", "/auth/login")).await,
    }
}

/// Members that a body may have.
const ALWAYS: [&str; 8] = ["type", "title", "status", "error", "reason", "remedy", "retryable", "decision_id"];

/// Asserts that an answer is what the table says about `reason`.
fn assert_answer(reason: Reason, answer: &Answer) {
    let shown = reason.shown();
    let header = |name: &str| answer.header(name).unwrap_or_else(|| panic!("{reason}: no {name} in {}", answer.head));
    assert_eq!(outcome(answer), (shown.status(), Some(shown.code())), "{reason}: {}", answer.text());
    assert_eq!(header("content-type"), "application/problem+json", "{reason}");
    assert_eq!(header("cache-control"), "no-store", "{reason}");
    let body = body(answer);
    assert_eq!(body["type"], format!("/auth/docs#{}", shown.code()), "{reason}");
    assert_eq!(body["title"], shown.text(), "{reason}");
    assert_eq!(body["status"], shown.status(), "{reason}");
    assert_eq!(body["error"], shown.error(), "{reason}");
    assert_eq!(body["reason"], shown.code(), "{reason}");
    assert_eq!(body["remedy"], shown.remedy().as_str(), "{reason}");
    assert_eq!(body["retryable"], shown.is_retryable(), "{reason}");
    assert_eq!(body["decision_id"], header("x-doorward-decision"), "{reason}");

    let challenge = answer.header("www-authenticate");
    assert!(shown.status() != 401 || challenge.is_some(), "{reason}: RFC 9110 §15.5.2 asks for WWW-Authenticate");
    if let Some(challenge) = challenge {
        assert!(challenge.starts_with("Bearer realm=\"doorward\""), "{reason}: {challenge}");
        let word = shown.bearer_error().map(|word| format!("error=\"{word}\""));
        assert_eq!(challenge.contains("error="), word.is_some(), "{reason}: {challenge}");
        assert!(word.is_none_or(|word| challenge.contains(&word)), "{reason}: {challenge}");
    }
    let is_later = matches!(shown.status(), 429 | 503);
    assert_eq!(is_later, answer.header("retry-after").is_some(), "{reason}: {answer:?}");
    if is_later {
        assert_eq!(body["retry_after"].to_string(), header("retry-after"), "{reason}");
    }

    let required = match reason {
        Reason::MissingCapability => Some("deploy"),
        Reason::MissingScope => Some("write"),
        Reason::MissingClaim => Some("tenant_id"),
        Reason::LicenseEntitlementMissing => Some("sso"),
        Reason::CsrfMissing => Some("x-csrf-token"),
        _ => None,
    };
    assert!(required.is_none() || body["required"].as_str() == required, "{reason}: {body}");
    assert_eq!(reason == Reason::ReAuthRequired, body["max_age_seconds"] == 300, "{reason}: {body}");
    let more = ["max_age_seconds", "retry_after", "required", "detail"];
    for name in body.as_object().unwrap().keys() {
        assert!(ALWAYS.contains(&&**name) || more.contains(&&**name), "{reason}: {name} is no part of the contract");
    }
    if shown != reason {
        assert!(!format!("{answer:?}").contains(reason.code()), "{reason} is masked: {answer:?}");
    }
}

#[tokio::test]
async fn every_reason_that_can_occur_is_answered_as_the_table_says_and_counted() {
    let (mut refused, mut not_yet) = (0, BTreeSet::new());
    for &reason in Reason::ALL {
        match Box::pin(provoke(reason)).await {
            Provoked::Refused(stage, answer) => {
                assert_answer(reason, &answer);
                let scrape = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                let metrics = Wire::ask(stage.world.running.admin, scrape).await.text();
                // Counted and logged as what it was, also where the caller is told less.
                let counted = format!("outcome=\"deny\",reason=\"{}\"", reason.code());
                assert!(metrics.contains(&counted), "{reason} is not counted:\n{metrics}");
                refused += 1;
            }
            Provoked::NotYet(feature) => {
                not_yet.insert(feature);
            }
        }
    }
    assert!(refused >= 59, "only {refused} reasons were provoked; still to come: {not_yet:?}");
}

#[tokio::test]
async fn the_page_that_a_refusal_points_to_has_every_reason() {
    let stage = Stage::set().await;
    let page = stage.world.anonymous().get("/auth/docs").await;
    assert_eq!(page.status, 200);
    let text = page.text();
    for reason in Reason::ALL {
        let is_there = |reason: Reason| text.contains(&format!("id=\"{}\"", reason.code()));
        assert!(is_there(reason.shown()), "{reason}");
        assert!(*reason == reason.shown() || !is_there(*reason), "{reason} is masked, and the page is public");
    }
}

#[tokio::test]
async fn the_admin_listener_answers_no_foreign_name_and_counts_what_it_refuses() {
    let world = World::start("[[rules]]\npath = \"/*\"\nallow = [\"public\"]\napp = \"web\"").await;
    let ask = |host: &str, path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let admin = world.running.admin;
    let rebound = Wire::ask(admin, &ask("evil.example:8081", "/metrics")).await;
    assert_eq!(outcome(&rebound), (421, Some("host_unknown")));
    assert!(!rebound.text().contains("doorward_decisions"));
    let metrics = Wire::ask(admin, &ask("127.0.0.1:8081", "/metrics")).await.text();
    assert!(metrics.contains("reason=\"host_unknown\""), "{metrics}");
}
