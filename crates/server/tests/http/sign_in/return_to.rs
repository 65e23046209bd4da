//! Where people land: nowhere outside, whatever was asked for.

use std::{fs, time::Duration};

use doorward_testkit::neighbour;
use serde_json::{Value, json};

use super::{RULES, confirm};
use crate::world::{Caller, World};

/// Where `/auth/login` sends somebody who is signed in already and asked for this.
async fn landing(browser: &mut Caller, wish: &[u8]) -> String {
    let wish: String = url::form_urlencoded::byte_serialize(wish).collect();
    let answer = browser.get(&format!("/auth/login?return_to={wish}")).await;
    assert_eq!(answer.status, 303, "{wish}: {answer:?}");
    answer.header("location").unwrap().to_owned()
}

/// What a browser makes of it (WHATWG URL): it stays on our origin.
fn stays(location: &str) -> bool {
    let base = url::Url::parse("https://app.example/auth/login").unwrap();
    base.join(location).is_ok_and(|url| url.origin() == base.origin())
}

fn percent_decoded(line: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), line.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| byte == b'%') {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    bytes
}

#[tokio::test]
async fn none_of_the_open_redirect_payloads_leads_away_over_http() {
    let world = World::start(RULES).await;
    let mut ada = world.browser("ada@example.com").await;
    let file = neighbour::repository().join("vectors/oauth2-proxy/openredirects.json");
    let file: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let lines = file["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 558);
    for line in lines {
        let line = line.as_str().unwrap();
        // As it stands, and as it is when something in between unescaped it.
        for wish in [line.as_bytes().to_vec(), percent_decoded(line)] {
            let location = landing(&mut ada, &wish).await;
            assert!(stays(&location), "{line}: {location}");
            assert!(location.starts_with('/') && !location.starts_with("//"), "{line}: {location}");
        }
    }
}

#[tokio::test]
async fn a_sign_in_ends_at_the_local_address_that_was_asked_for_or_at_the_root() {
    let world = World::start(RULES).await;
    for (n, (wish, expected)) in [
        ("/reports?x=1&y=%2F", "/reports?x=1&y=%2F"),
        ("https://app.example/inside", "/inside"),
        ("https://evil.example/", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/auth/logout", "/"),
    ]
    .into_iter()
    .enumerate()
    {
        // The limit of three links a minute is not what is tested here.
        world.advance(Duration::from_secs(20)).await;
        let mut browser = world.visitor();
        let token = browser.ask_for_link(&world.mailbox, &format!("ada-{n}@example.com"), wish).await;
        let done = browser.post_form("/auth/login/callback", &format!("token={token}")).await;
        assert_eq!((done.status, done.header("location")), (303, Some(expected)), "{wish}");
        let replayed = confirm(&mut browser, &token).await;
        assert_eq!(replayed.status, 409);
        assert_eq!(browser.post("/auth/logout", &json!({})).await.status, 200);
    }
}
