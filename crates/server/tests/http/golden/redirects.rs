//! Where nobody may be sent after signing in. Only routes of the server's own take such a target: the layer has
//! none, and forward-auth sends a browser to the login page with the path that was judged.

use serde_json::json;

use super::{cases, load, text};
use crate::world::{Setup, World, outcome};

async fn world() -> World {
    let login = "allow_sign_up = true\nresponse_floor = \"0s\"\nallowed_origins = [\"https://docs.app.example:8443\"]";
    Setup::of("").login(login).start().await
}

fn encode(bytes: &[u8]) -> String {
    url::form_urlencoded::byte_serialize(bytes).collect()
}

/// Where a browser ends that follows `location` from our origin.
fn landing(location: &str) -> url::Url {
    url::Url::parse("https://app.example").unwrap().join(location).unwrap()
}

/// `vectors/own/redirect-targets.json`, through the page that sends on whoever is signed in already.
#[tokio::test]
async fn whoever_is_signed_in_is_sent_on_only_to_where_the_vector_allows() {
    let world = world().await;
    let mut alice = world.browser("alice@example.com").await;
    let file = load("own/redirect-targets.json");
    assert_eq!(text(&file, "origin"), "https://app.example");
    for case in cases(&file) {
        let target = text(case, "return_to").replace("/.pilot", "/auth");
        let answer = alice.get(&format!("/auth/login?return_to={}", encode(target.as_bytes()))).await;
        assert_eq!(outcome(&answer), (303, None), "{target}");
        let location = answer.header("location").unwrap();
        match text(case, "expect") {
            "allow" => assert_eq!(landing(location), landing(&target), "{target}"),
            "fallback" => assert_eq!(location, "/", "{target}: {}", text(case, "why")),
            other => panic!("{target}: unknown verdict {other}"),
        }
    }
}

/// Query-unescapes once, as Go's `url.QueryUnescape` does; a line with a bad escape stays as it is.
fn query_unescape(line: &str) -> Vec<u8> {
    let escapes = line.match_indices('%').all(|(at, _)| {
        line.as_bytes().get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if !escapes {
        return line.as_bytes().to_vec();
    }
    // Its one key is empty and its value the line: nothing in it is split at `&`, which is escaped before.
    let query = format!("={}", line.replace('&', "%26"));
    let decoded = url::form_urlencoded::parse(query.as_bytes()).next().map(|(_, value)| value.into_owned());
    decoded.unwrap_or_default().into_bytes()
}

/// `vectors/oauth2-proxy/openredirects.json`.
#[tokio::test]
async fn none_of_the_open_redirect_payloads_is_followed_by_a_browser_that_is_signed_in() {
    let world = world().await;
    let mut alice = world.browser("alice@example.com").await;
    let file = load("oauth2-proxy/openredirects.json");
    let lines = file["lines"].as_array().unwrap();
    for line in lines {
        let target = query_unescape(line.as_str().unwrap());
        let answer = alice.get(&format!("/auth/login?return_to={}", encode(&target))).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{line}");
    }
    assert_eq!(lines.len(), 558);
}

/// The stored target is the judged one: through a link from the mailbox.
#[tokio::test]
async fn a_link_from_the_mail_leads_only_to_where_the_vector_allows() {
    let world = world().await;
    let file = load("own/redirect-targets.json");
    // Every allowed target, and as many of the others.
    let allowed: Vec<_> = cases(&file).iter().filter(|case| case["expect"] == "allow").collect();
    let others = cases(&file).iter().filter(|case| case["expect"] == "fallback").step_by(3).take(allowed.len());
    for (n, case) in allowed.iter().copied().chain(others).enumerate() {
        let (target, email) = (text(case, "return_to").replace("/.pilot", "/auth"), format!("user{n}@example.com"));
        // Each from an address of its own: how many links one may ask for is limited.
        let mut browser = world.visitor().with("X-Forwarded-For", &format!("192.0.2.{n}"));
        let token = browser.ask_for_link(&world.mailbox, &email, &target).await;
        let answer = browser.post_form("/auth/login/callback", &format!("token={token}")).await;
        assert_eq!(outcome(&answer), (303, None), "{target}: {answer:?}");
        let location = answer.header("location").unwrap();
        let expected = if case["expect"] == "allow" { landing(&target) } else { landing("/") };
        assert_eq!(landing(location), expected, "{target}");
        let session = browser.get("/auth/session").await;
        assert_eq!(crate::world::json(&session)["user"]["email"], json!(email));
    }
}
