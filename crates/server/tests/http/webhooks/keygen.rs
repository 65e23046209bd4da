//! Keygen's webhook: signed by the account over the URL that Keygen was told, and a hint to ask again.

use std::{sync::Arc, time::Duration};

use doorward_core::{
    license::{Holder, LicenseState, Observation},
    time::Timestamp,
};
use doorward_gate::{clock::Clock, license::LicenseProvider};
use doorward_testkit::license::{ACCOUNT, Algorithm, Delivery, LicenseServer};
use serde_json::{Value, json};

use super::{Told, active, known, linked, load, send, state};
use crate::{
    door::until,
    world::{NOW, Request, Setup, World, json as body, outcome},
};

const HOOK: &str = "/auth/webhooks/license/keygen";
const RULES: &str = "[[rules]]\npath = \"/*\"\nallow = [\"session\"]\napp = \"web\"\n";

async fn world(provider: &Arc<Told>, license: &str, at: Timestamp) -> World {
    let setup = Setup::of(&format!("{RULES}[license]\n{license}\n")).clock(Clock::manual(at));
    setup.license(Arc::clone(provider) as Arc<dyn LicenseProvider>).start().await
}

/// `vectors/keygen/keygen.json`, each delivery to the URL that the vector says it was checked for.
#[tokio::test]
async fn every_webhook_of_the_vectors_is_judged_for_the_url_that_keygen_was_told() {
    let file = load("keygen/keygen.json");
    let hooks = file["vectors"].as_array().unwrap().iter().filter(|vector| vector["kind"] == "webhook_signature");
    let mut judged = 0;
    for vector in hooks {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (name, input) = (text(&vector["name"]), &vector["input"]);
        let (path, query) = (text(&input["request_target"]), text(&input["host"]));
        let (host, (path, query)) = (query, path.split_once('?').unwrap_or((&path, "")));
        let date = text(&input["headers"]["Date"]);
        let date = jiff::fmt::rfc2822::parse(&date).unwrap().timestamp();
        let (key, account) = (text(&vector["public_key"]["value"]), text(&vector["keyid"]));
        let license =
            format!("account = \"{account}\"\npublic_keys = ['''{key}''']\nwebhook_url = \"https://{host}{path}\"\n");
        let world = world(&Arc::new(Told::default()), &license, Timestamp::from_secs(date.as_second())).await;
        let target = if query.is_empty() { HOOK.to_owned() } else { format!("{HOOK}?{query}") };
        let mut request = Request::new("POST", target).body(text(&input["body"]));
        for (header, value) in input["headers"].as_object().unwrap() {
            request = request.with(header, value.as_str().unwrap());
        }
        let answer = send(&world, request).await;
        // Keygen signs the host without its port; a URL with one is the same URL.
        let is_genuine = vector["expected"] == "valid" || name == "neg-webhook-host-with-port";
        let expected = if is_genuine { (200, None) } else { (401, Some("webhook_bad_signature")) };
        assert_eq!(outcome(&answer), expected, "{name}: {answer:?}");
        if is_genuine {
            assert_eq!(body(&answer), json!({ "ok": true, "noop": "unknown_license" }), "{name}");
        }
        judged += 1;
    }
    assert_eq!(judged, 5);
}

/// A world whose provider says what it is told to, and whose webhooks the license server of the testkit signs.
async fn with_server(provider: &Arc<Told>) -> (World, LicenseServer) {
    let server = LicenseServer::start(|| NOW * 1000).await;
    let license = format!("account = \"{ACCOUNT}\"\npublic_keys = [\"{}\"]\n", server.public_key(Algorithm::Ed25519));
    (world(provider, &license, Timestamp::from_secs(NOW)).await, server)
}

const URL: &str = "https://app.example/auth/webhooks/license/keygen";

async fn post(world: &World, delivery: &Delivery) -> doorward_testkit::wire::Answer {
    delivery.send(world.address()).await
}

#[tokio::test]
async fn an_event_of_keygen_makes_us_ask_again_once_and_says_nothing_by_itself() {
    let provider = Arc::new(Told::default());
    let (world, server) = with_server(&provider).await;
    let subject = server.user("eve@example.com");
    let eve = linked(&world, "eve@example.com", &subject).await;
    let license = server.license(&subject);
    world.gate().licenses().unwrap().observe(Holder::User(eve.id), active(&license), None).await.unwrap();

    // Suspended, says the event; the provider knows better.
    server.suspend(&license);
    provider.say(&subject, Some(Observation { state: LicenseState::Banned, ..active(&license) }));
    let delivery = server.webhook(URL, "license.suspended", &license);
    let answer = post(&world, &delivery).await;
    assert_eq!((outcome(&answer), body(&answer)), ((200, None), json!({ "ok": true })), "{answer:?}");
    until("the provider is asked", || provider.asked() == 1).await;
    for _ in 0..2000 {
        if state(&world, &eve).await == Some(LicenseState::Banned) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(state(&world, &eve).await, Some(LicenseState::Banned));
    assert_eq!(known(&world, &eve).await.unwrap().last_seq, None);

    // The same event once more, as a retry and as a manual resend bring it: one question was enough.
    for again in [delivery.clone(), server.again(&delivery)] {
        assert_eq!(body(&post(&world, &again).await), json!({ "ok": true, "noop": "repeated" }));
    }
    // A user event has no license in it; an event about strangers is nobody's.
    let user_event = json!({ "data": { "type": "users", "id": subject, "attributes": { "status": "BANNED" } } });
    assert_eq!(body(&post(&world, &server.event(URL, "user.banned", &user_event)).await), json!({ "ok": true }));
    until("the provider is asked about the user", || provider.asked() == 2).await;
    let stranger = json!({ "data": { "type": "licenses", "id": "5c1f0c1e-0000-4000-8000-00000000dead" } });
    let noop = json!({ "ok": true, "noop": "unknown_license" });
    assert_eq!(body(&post(&world, &server.event(URL, "license.revoked", &stranger)).await), noop);
    let policy = json!({ "data": { "type": "policies", "id": "p1" } });
    assert_eq!(body(&post(&world, &server.event(URL, "policy.updated", &policy)).await), noop);
    assert_eq!(provider.asked(), 2);
    assert_eq!(server.validation_events(), 0, "a handler that validates would feed itself");
}

#[tokio::test]
async fn a_note_outlives_a_provider_that_is_away() {
    let provider = Arc::new(Told::default());
    let (world, server) = with_server(&provider).await;
    let ada = linked(&world, "ada@example.com", "s1").await;
    let license = "5c1f0c1e-0000-4000-8000-000000000007";
    world.gate().licenses().unwrap().observe(Holder::User(ada.id), active(license), None).await.unwrap();
    let event = json!({ "data": { "type": "licenses", "id": license } });
    assert_eq!(body(&post(&world, &server.event(URL, "license.updated", &event)).await), json!({ "ok": true }));
    until("the provider is asked, in vain", || provider.asked() == 1).await;
    let now = world.clock.now().wall;
    assert_eq!(world.store().license_hints(now, 10).await.unwrap(), [(Holder::User(ada.id), now)]);
    provider.say("s1", Some(Observation { state: LicenseState::Suspended, ..active(license) }));
    world.advance(Duration::from_secs(60)).await;
    for _ in 0..3000 {
        if state(&world, &ada).await == Some(LicenseState::Suspended) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(state(&world, &ada).await, Some(LicenseState::Suspended));
    let left = async || world.store().license_hints(world.clock.now().wall, 10).await.unwrap().len();
    for _ in 0..1000 {
        if left().await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the note is settled");
}

#[tokio::test]
async fn a_webhook_of_keygen_is_refused_by_name_and_never_with_an_answer_that_ends_the_subscription() {
    let provider = Arc::new(Told::default());
    let (world, server) = with_server(&provider).await;
    let event = json!({ "data": { "type": "licenses", "id": "l1" } });
    let good = server.event(URL, "license.updated", &event);
    let changed = |change: &dyn Fn(&mut Delivery)| {
        let mut delivery = good.clone();
        change(&mut delivery);
        delivery
    };
    let elsewhere = server.event("https://other.example/auth/webhooks/license/keygen", "license.updated", &event);
    let elsewhere = Delivery { authority: good.authority.clone(), ..elsewhere };
    let no_payload = server.again(&Delivery { body: good.body.replace("payload", "load"), ..good.clone() });
    for (delivery, status, reason) in [
        (changed(&|it| it.set("Keygen-Signature", None)), 401, "webhook_missing_signature"),
        (changed(&|it| it.set("Keygen-Signature", Some("keyid=\"x\""))), 401, "webhook_bad_signature"),
        (changed(&|it| it.body.push(' ')), 401, "webhook_bad_signature"),
        (changed(&|it| it.target.push_str("?tenant=a")), 401, "webhook_bad_signature"),
        (elsewhere, 401, "webhook_bad_signature"),
        (no_payload, 400, "webhook_bad_payload"),
    ] {
        let answer = post(&world, &delivery).await;
        assert_eq!(outcome(&answer), (status, Some(reason)), "{answer:?}");
    }
    let with_query = server.event(&format!("{URL}?tenant=a"), "license.updated", &event);
    assert_eq!(outcome(&post(&world, &with_query).await), (200, None), "a query is part of the URL");
    world.advance(Duration::from_secs(301)).await;
    assert_eq!(outcome(&post(&world, &good).await), (401, Some("webhook_stale")));
    assert_eq!(provider.asked(), 0);
}
