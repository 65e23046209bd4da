use axum::{
    Router,
    body::Body,
    http::{Request, Response, header},
};
use doorward_core::{id::MailId, time::Timestamp, user::Email};
use doorward_gate::mail::Mailbox;
use doorward_store::Mail;
use http_body_util::BodyExt as _;
use tower_service::Service as _;

use super::{MailboxKey, app, mailbox};

async fn ask(router: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> (Response<()>, String) {
    let request = headers
        .iter()
        .fold(Request::builder().method(method).uri(path), |request, (name, value)| request.header(*name, *value));
    let response = router.clone().call(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(parts, ()), String::from_utf8(body.to_vec()).unwrap())
}

fn mail(n: u8) -> Mail {
    Mail {
        id: MailId::mint(Timestamp::from_secs(1_800_000_000), [n; 10]),
        to: Email::parse("alice@example.com").unwrap(),
        kind: "magic_link".into(),
        subject: format!("Mail {n}"),
        text: "Open http://127.0.0.1:8080/auth/login/callback?token=a.b.c".to_owned(),
        html: String::new(),
        created_at: Timestamp::from_secs(1_800_000_000),
        give_up_at: Timestamp::from_secs(1_800_000_900),
    }
}

fn open_mailbox() -> (Mailbox, Router, String) {
    let mails = Mailbox::default();
    let key = MailboxKey::mint([1; 32], [2; 32]);
    let url = key.url("http://127.0.0.1:9000/");
    let path = url.strip_prefix("http://127.0.0.1:9000").unwrap().to_owned();
    (mails.clone(), mailbox(mails, &key), path)
}

fn cookie_of(response: &Response<()>) -> String {
    let line = response.headers()[header::SET_COOKIE].to_str().unwrap();
    assert!(line.ends_with("; Path=/mailbox; HttpOnly; SameSite=Strict"), "{line}");
    line.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn the_printed_address_opens_the_mailbox_in_one_browser_only() {
    let (mails, router, path) = open_mailbox();
    mails.deliver(mail(1));
    mails.deliver(mail(2));
    let one = format!("/mailbox/{}", mail(1).id);
    for closed in ["/mailbox", "/mailbox?token=", "/mailbox?token=AQEB", one.as_str()] {
        let (response, body) = ask(&router, "GET", closed, &[]).await;
        assert_eq!(response.status(), 403, "{closed}");
        assert!(!body.contains("alice") && !body.contains("token=a.b.c"), "{closed}");
    }

    let (response, body) = ask(&router, "GET", &path, &[]).await;
    assert_eq!((response.status().as_u16(), body.as_str()), (303, ""));
    assert_eq!(response.headers()[header::LOCATION], "/mailbox");
    let cookie = cookie_of(&response);

    let (response, body) = ask(&router, "GET", "/mailbox", &[("cookie", &format!("other=1; {cookie}"))]).await;
    assert_eq!(response.status(), 200);
    assert!(body.contains(&one) && body.find("Mail 2") < body.find("Mail 1"), "the newest comes first");
    let (response, body) = ask(&router, "GET", &one, &[("cookie", &cookie)]).await;
    assert_eq!(response.status(), 200);
    assert!(body.contains("<a href=\"http://127.0.0.1:8080/auth/login/callback?token=a.b.c\">"));
    let (response, _) = ask(&router, "GET", "/mailbox/no-id", &[("cookie", &cookie)]).await;
    assert_eq!(response.status(), 404);

    let (response, body) = ask(&router, "GET", &path, &[]).await;
    assert_eq!(response.status(), 403);
    assert!(body.contains("opened before"));
    let (response, _) = ask(&router, "GET", &path, &[("cookie", &cookie)]).await;
    assert_eq!(response.status(), 303);
    assert!(!response.headers().contains_key(header::SET_COOKIE));
}

#[tokio::test]
async fn a_head_request_does_not_use_the_address_up() {
    let (_, router, path) = open_mailbox();
    let (response, _) = ask(&router, "HEAD", &path, &[]).await;
    assert!(!response.headers().contains_key(header::SET_COOKIE));
    let (response, _) = ask(&router, "GET", &path, &[]).await;
    assert_eq!(response.status(), 303);
}

#[tokio::test]
async fn of_two_browsers_at_once_one_gets_in() {
    let (_, router, path) = open_mailbox();
    let (one, two) = tokio::join!(ask(&router, "GET", &path, &[]), ask(&router, "GET", &path, &[]));
    let mut statuses = [one.0.status().as_u16(), two.0.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 403]);
}

#[tokio::test]
async fn the_app_shows_who_it_was_told_about() {
    let router = app("http://127.0.0.1:8080/");
    let told = [("X-Doorward-Email", "alice@example.com"), ("X-Doorward-Method", "session"), ("x-doorward-org", "")];
    let (response, body) = ask(&router, "GET", "/", &told).await;
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    for shown in ["signed in as <strong id=\"who\">alice@example.com<", "X-Doorward-Method", "action=\"/auth/logout\""]
    {
        assert!(body.contains(shown), "{shown}");
    }
    let (_, body) = ask(&router, "GET", "/", &[]).await;
    assert!(body.contains("Hello, stranger"));
    let (response, _) = ask(&router, "GET", "/else", &[]).await;
    assert_eq!(response.status(), 404);
}

#[tokio::test]
async fn the_echo_says_what_arrived_but_no_secret() {
    let router = app("http://127.0.0.1:8080");
    let headers = [
        ("host", "127.0.0.1:8080"),
        ("x-doorward-subject", "u1"),
        ("x-doorward-assertion", "secret.assertion.value"),
        ("cookie", "a=secret; b=secret"),
        ("authorization", "Bearer secret"),
    ];
    for path in ["/api/echo?x=1", "/public/echo?x=1"] {
        let (response, body) = ask(&router, "PUT", path, &headers).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        assert!(!body.contains("secret"), "{body}");
        let echo: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(echo["method"], "PUT");
        assert_eq!(echo["query"], "x=1");
        assert_eq!(echo["identity"][0], serde_json::json!(["X-Doorward-Subject", "u1"]));
        assert_eq!(echo["cookies"], serde_json::json!(["a", "b"]));
        assert_eq!(echo["authorization"], true);
    }
}

#[tokio::test]
async fn every_asset_of_a_page_is_served_where_the_page_looks_for_it() {
    let (_, mailbox, _) = open_mailbox();
    for (router, page) in [(app("http://127.0.0.1:8080"), "/"), (mailbox, "/mailbox")] {
        let (_, html) = ask(&router, "GET", page, &[]).await;
        let paths: Vec<_> = html.split('"').filter(|text| text.contains("/assets/")).collect();
        assert_eq!(paths.len(), 2, "{page}");
        for path in paths {
            let (response, body) = ask(&router, "GET", path, &[]).await;
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(response.headers()[header::CACHE_CONTROL], "public, max-age=31536000, immutable");
            assert!(!body.is_empty());
        }
    }
}
