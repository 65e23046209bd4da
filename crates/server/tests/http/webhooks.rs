//! Webhooks about licenses, over real sockets: which are believed, what they change, and how soon.

mod keygen;

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    task::{Context, Wake, Waker},
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use doorward_core::{
    effects::Effects,
    license::{Holder, LicenseState, Observation},
    time::{Now, Timestamp},
    user::User,
};
use doorward_gate::license::{Answering, FaultKind, LicenseProvider, ProviderFault, Question};
use doorward_store::LicenseRow;
use doorward_testkit::wire::Answer;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    door::until,
    process::A_SECOND,
    world::{NOW, Request, Setup, World, json as body, outcome},
};

pub(crate) const HUB: &str = "/auth/webhooks/license/titanium";
pub(crate) const SECRET: &str = "whsec_own_test_secret_0123456789abcdef";
const PREVIOUS: &str = "whsec_own_test_previous_0123456789abc";
const RULES: &str = "[[rules]]\npath = \"/*\"\nallow = [\"session\"]\nlicense = \"active\"\napp = \"web\"\n";

/// A provider that says what it is told to, by subject, and counts its questions.
#[derive(Debug, Default)]
pub(crate) struct Told {
    answers: Mutex<HashMap<String, Observation>>,
    asked: Mutex<Vec<Question>>,
}

impl Told {
    pub(crate) fn say(&self, subject: &str, observation: Option<Observation>) {
        let mut answers = self.answers.lock().unwrap();
        match observation {
            Some(observation) => answers.insert(subject.to_owned(), observation),
            None => answers.remove(subject),
        };
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl LicenseProvider for Told {
    fn name(&self) -> &'static str {
        "told"
    }

    fn ask(&self, question: Question, now: Now) -> Answering {
        let subject = question.subject.clone().unwrap_or_default();
        self.asked.lock().unwrap().push(question);
        let answer = self.answers.lock().unwrap().get(&subject).cloned();
        let fault = ProviderFault::new(FaultKind::Unavailable, "told nothing");
        let answer =
            answer.map(|said| Observation { observed_at: said.observed_at.max(now.wall), ..said }).ok_or(fault);
        async move { answer }.boxed()
    }

    fn is_per_user(&self) -> bool {
        true
    }
}

/// An observation of now with an end in 300 days and one entitlement.
pub(crate) fn active(license: &str) -> Observation {
    let now = Timestamp::from_secs(NOW);
    Observation {
        state: LicenseState::Active,
        license_id: Some(license.to_owned()),
        expires_at: Some(now.plus(Duration::from_hours(300 * 24))),
        entitlements: ["sso".to_owned()].into(),
        observed_at: now,
    }
}

/// A world with licenses of users, and the webhook under these secrets.
async fn world(secrets: &[&str], provider: &Arc<Told>) -> World {
    let secrets = json!(secrets);
    let rules = format!("{RULES}[license]\nwebhook_secrets = {secrets}\n");
    Setup::of(&rules).license(Arc::clone(provider) as Arc<dyn LicenseProvider>).start().await
}

/// A user whom the provider calls `subject`.
async fn linked(world: &World, email: &str, subject: &str) -> User {
    let user = world.user(email).await;
    world.store().link_subject(user.id, subject.to_owned(), Effects::default()).await.unwrap();
    user
}

fn tag(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let message = [timestamp.as_bytes(), b".", body].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), &message);
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A genuine webhook, signed at `at`.
pub(crate) fn signed(at: i64, body: &Value) -> Request {
    let (at, body) = (at.to_string(), body.to_string());
    let signature = format!("sha256={}", tag(SECRET, &at, body.as_bytes()));
    Request::new("POST", HUB).with("X-Titanium-Signature", signature).with("X-Titanium-Timestamp", at).body(body)
}

async fn send(world: &World, request: Request) -> Answer {
    world.anonymous().ask(request).await
}

async fn known(world: &World, user: &User) -> Option<LicenseRow> {
    world.store().license(Holder::User(user.id)).await.unwrap()
}

async fn state(world: &World, user: &User) -> Option<LicenseState> {
    known(world, user).await.map(|row| row.known.observation.state)
}

fn load(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The vectors' bodies are of an older shape: those that must be refused are sent as they are, those that must be taken
/// say the same in the shape of the contract, signed at the same time.
#[tokio::test]
async fn every_vector_gets_its_verdict_from_the_whole_server() {
    let file = load("own/webhook-hmac.json");
    assert_eq!((file["secret"].as_str(), file["now"].as_i64()), (Some(SECRET), Some(NOW)));
    let provider = Arc::new(Told::default());
    let (one, two) = (world(&[SECRET], &provider).await, world(&[SECRET, PREVIOUS], &provider).await);
    let off = world(&[], &provider).await;
    let mut judged = 0;
    for (number, case) in file["cases"].as_array().unwrap().iter().enumerate() {
        let text = |name: &str| case[name].as_str();
        let (name, expect) = (text("name").unwrap(), text("expect").unwrap());
        let world = match name {
            "secret unset on the server" => &off,
            "previous secret during rotation" => &two,
            _ => &one,
        };
        // Another client each time, so that no limit is met.
        let dress = |request: Request| request.with("X-Forwarded-For", format!("203.0.113.{number}"));
        if expect.starts_with("200") {
            taken(world, name, number, text("timestamp").unwrap(), dress).await;
        } else {
            let raw = BASE64_STANDARD.decode(text("body_b64").unwrap()).unwrap();
            let mut request = dress(Request::new("POST", HUB)).body(raw);
            for (member, header) in [("timestamp", "X-Titanium-Timestamp"), ("signature", "X-Titanium-Signature")] {
                if let Some(value) = text(member) {
                    request = request.with(header, value);
                }
            }
            let answer = send(world, request).await;
            let reason = match (name, expect) {
                ("no signature header", _) => "webhook_missing_signature",
                // HTTP takes the blanks round a value away, and without them it is not what was signed.
                ("timestamp with spaces", _) => "webhook_bad_signature",
                (_, "401 stale") => "webhook_stale",
                (_, "401 malformed" | "401 missing") => "webhook_bad_timestamp",
                (_, "401") => "webhook_bad_signature",
                (_, "400") => "webhook_bad_payload",
                (_, "503 webhook_disabled") => "webhook_disabled",
                _ => panic!("{name}: {expect}"),
            };
            let status: u16 = expect[..3].parse().unwrap();
            assert_eq!(outcome(&answer), (status, Some(reason)), "{name}: {answer:?}");
        }
        judged += 1;
    }
    assert_eq!(judged, 37);
    assert_eq!(one.store().license_counts().await.unwrap().iter().map(|(_, count)| count).sum::<u64>(), 7);
    assert_eq!(provider.asked(), 0, "a state that is bad news needs no question");
}

/// Sends what the vector means, and asserts what it changes.
async fn taken(world: &World, name: &str, number: usize, at: &str, dress: impl Fn(Request) -> Request) {
    let subject = format!("subject-{number}");
    let user = linked(world, &format!("user{number}@example.com"), &subject).await;
    let event = |state: &str, seq: i64| {
        json!({ "event": "x", "id": format!("evt_{number}"), "subject": subject, "license_status": state,
            "license_id": "lic_1", "seq": seq })
    };
    let post = |body: Value, secret: &str, upper: bool| {
        let mut hex = tag(secret, at, body.to_string().as_bytes());
        if upper {
            hex = hex.to_uppercase();
        }
        let request = Request::new("POST", HUB).with("X-Titanium-Signature", format!("sha256={hex}"));
        dress(request.with("X-Titanium-Timestamp", at).body(body.to_string()))
    };
    let suspended = event("SUSPENDED", 7);
    let (secret, upper) = match name {
        "previous secret during rotation" => (PREVIOUS, false),
        "valid, hex upper case" => (SECRET, true),
        _ => (SECRET, false),
    };
    if name == "signed body unknown subject" {
        let stranger = json!({ "subject": "nobody", "license_status": "SUSPENDED", "id": "evt_9" });
        let answer = send(world, post(stranger, secret, upper)).await;
        assert_eq!((outcome(&answer), body(&answer)), ((200, None), json!({ "ok": true, "noop": "unknown_subject" })));
        assert_eq!(state(world, &user).await, None);
        return;
    }
    let answer = send(world, post(suspended.clone(), secret, upper)).await;
    assert_eq!((outcome(&answer), body(&answer)), ((200, None), json!({ "ok": true })), "{name}");
    assert_eq!(state(world, &user).await, Some(LicenseState::Suspended), "{name}");
    let again = match name {
        "exact replay of the same request" => suspended,
        "older seq arrives after a newer one" => event("ACTIVE", 3),
        _ => return,
    };
    let before = known(world, &user).await;
    let answer = send(world, post(again, secret, upper)).await;
    assert_eq!((outcome(&answer), body(&answer)), ((200, None), json!({ "ok": true, "noop": "repeated" })), "{name}");
    assert_eq!(known(world, &user).await, before, "{name}");
}

#[tokio::test]
async fn a_webhook_takes_effect_here_at_once_and_in_another_process_within_a_second() {
    let provider = Arc::new(Told::default());
    let world = world(&[SECRET], &provider).await;
    let mut ada = world.browser("ada@example.com").await;
    let user = world.store().users(None, 10).await.unwrap().remove(0);
    world.store().link_subject(user.id, "s1".to_owned(), Effects::default()).await.unwrap();
    world.gate().licenses().unwrap().observe(Holder::User(user.id), active("lic_1"), None).await.unwrap();
    let other = world.replica().await;
    let mut there = world.at(other.http).with("Cookie", &ada.cookies());
    assert_eq!((ada.get("/x").await.status, there.get("/x").await.status), (200, 200));

    let suspended = json!({ "subject": "s1", "license_status": "suspended", "id": "e1" });
    assert_eq!(body(&send(&world, signed(NOW, &suspended)).await), json!({ "ok": true }));
    assert_eq!(outcome(&ada.get("/x").await), (402, Some("license_suspended")));
    // An answer that is on its way when the license ends may be cut.
    let followed = tokio::time::timeout(A_SECOND, there.until_outcome("/x", (402, Some("license_suspended"))));
    assert!(followed.await.is_ok(), "another process follows by itself");

    // The license, its end and what it allows stay known, though the webhook named none of them.
    let row = known(&world, &user).await.unwrap().known.observation;
    assert_eq!(row, Observation { state: LicenseState::Suspended, observed_at: row.observed_at, ..active("lic_1") });
    let profile = body(&ada.get("/auth/profile/license").await);
    assert_eq!((&profile["status"], &profile["license_id"]), (&json!("suspended"), &json!("lic_1")));
    assert_eq!(profile["entitlements"], json!([]), "what is suspended allows nothing");

    let active = json!({ "subject": "s1", "license_status": "ACTIVE", "id": "e2" });
    assert_eq!(body(&send(&world, signed(NOW, &active)).await), json!({ "ok": true }));
    assert_eq!(ada.get("/x").await.status, 200);
    let rows = world.store().audit_tail(0, 1000).await.unwrap();
    let changes: Vec<Value> = rows
        .iter()
        .filter(|row| row.kind == "license.changed")
        .map(|row| serde_json::from_str(row.detail.as_deref().unwrap()).unwrap())
        .collect();
    let changes: Vec<_> = changes.iter().map(|row| (row["old"].as_str(), row["new"].as_str())).collect();
    let expected = [(None, "active"), (Some("active"), "suspended"), (Some("suspended"), "active")]
        .map(|(old, new)| (old, Some(new)));
    assert_eq!(changes, expected);
    other.stop().await;
}

#[tokio::test]
async fn what_was_signed_before_or_came_before_changes_nothing_with_or_without_an_id() {
    let provider = Arc::new(Told::default());
    let world = world(&[SECRET], &provider).await;
    let user = linked(&world, "ada@example.com", "s1").await;
    let event = |state: &str| json!({ "subject": "s1", "license_status": state, "license_id": "lic_1" });
    let banned = signed(NOW, &event("BANNED"));
    assert_eq!(body(&send(&world, banned.clone()).await), json!({ "ok": true }));
    assert_eq!(body(&send(&world, banned.clone()).await), json!({ "ok": true, "noop": "repeated" }));
    // Signed a minute before, and delivered late.
    assert_eq!(body(&send(&world, signed(NOW - 60, &event("ACTIVE"))).await), json!({ "ok": true, "noop": "older" }));
    assert_eq!(state(&world, &user).await, Some(LicenseState::Banned));
    world.advance(Duration::from_secs(10)).await;
    provider.say("s1", Some(active("lic_1")));
    assert_eq!(body(&send(&world, signed(NOW + 10, &event("ACTIVE"))).await), json!({ "ok": true }));
    assert_eq!(body(&send(&world, banned).await), json!({ "ok": true, "noop": "older" }), "the first one, late");
    // How long it is good for the webhook does not say, so the provider is asked.
    until("the provider is asked", || provider.asked() >= 1).await;
    for _ in 0..2000 {
        if known(&world, &user).await.unwrap().known.observation.expires_at == active("lic_1").expires_at {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let row = known(&world, &user).await.unwrap().known.observation;
    assert_eq!((row.state, row.expires_at), (LicenseState::Active, active("lic_1").expires_at));
}

/// Tells when a future wants to be polled.
#[derive(Default)]
struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Hands over an event about `user` and hangs up once it counts, as the server does with a request whose client is gone.
/// Tells whether it did: where the store answers faster than it is asked, the event is taken to its end.
async fn cut_off(world: &World, user: &User, request: &Request) -> bool {
    let field = |(name, value): &(String, Vec<u8>)| {
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value).unwrap())
    };
    let headers: HeaderMap = request.headers.iter().map(field).collect();
    let client = "203.0.113.7".parse().unwrap();
    let mut taking = Box::pin(world.server().webhooks.hub(&headers, &request.body, client, world.clock.now()));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    // One answer of the store after the other, until the one that says that it counts.
    while state(world, user).await.is_none() {
        if taking.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return false;
        }
        woken.0.notified().await;
    }
    true
}

#[tokio::test]
async fn what_a_hub_leaves_open_is_noted_before_it_counts_so_that_hanging_up_loses_nothing() {
    let provider = Arc::new(Told::default());
    let world = world(&[SECRET], &provider).await;
    for number in 0..100 {
        let subject = format!("s{number}");
        let user = linked(&world, &format!("user{number}@example.com"), &subject).await;
        let event = json!({ "subject": subject, "license_status": "ACTIVE", "id": format!("e{number}") });
        let request = signed(NOW, &event);
        if !cut_off(&world, &user, &request).await {
            continue;
        }
        let row = known(&world, &user).await.unwrap().known.observation;
        assert_eq!((row.state, row.expires_at), (LicenseState::Active, None));
        assert_eq!(body(&send(&world, request).await), json!({ "ok": true, "noop": "repeated" }));
        let noted = world.store().license_hints(Timestamp::from_secs(NOW), 1000).await.unwrap();
        assert!(noted.iter().any(|(holder, _)| *holder == Holder::User(user.id)), "somebody has to ask for its end");
        return;
    }
    panic!("nobody could hang up in time");
}

#[tokio::test]
async fn what_only_our_own_later_stamp_keeps_out_is_asked_about() {
    let provider = Arc::new(Told::default());
    let world = world(&[SECRET], &provider).await;
    let user = linked(&world, "ada@example.com", "s1").await;
    provider.say("s1", Some(active("lic_1")));
    world.gate().licenses().unwrap().refresh(Holder::User(user.id)).await.unwrap();
    assert_eq!((state(&world, &user).await, provider.asked()), (Some(LicenseState::Active), 1));
    // Signed after that, by a clock that is a little behind ours.
    provider.say("s1", Some(Observation { state: LicenseState::Suspended, ..active("lic_1") }));
    let event = json!({ "subject": "s1", "license_status": "SUSPENDED", "license_id": "lic_1", "id": "e1" });
    assert_eq!(body(&send(&world, signed(NOW - 5, &event)).await), json!({ "ok": true, "noop": "older" }));
    until("the provider is asked", || provider.asked() == 2).await;
    for _ in 0..2000 {
        if state(&world, &user).await == Some(LicenseState::Suspended) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the answer counts");
}

#[tokio::test]
async fn a_client_that_forges_is_slowed_down_and_all_of_it_is_on_record() {
    let provider = Arc::new(Told::default());
    let world = world(&[SECRET], &provider).await;
    linked(&world, "ada@example.com", "s1").await;
    let event = json!({ "subject": "s1", "license_status": "ACTIVE" });
    let forged = Request { body: b"{}".to_vec(), ..signed(NOW, &event) };
    for _ in 0..30 {
        let answer = send(&world, forged.clone()).await;
        assert_eq!(outcome(&answer), (401, Some("webhook_bad_signature")));
    }
    let slowed = send(&world, forged).await;
    assert_eq!(outcome(&slowed), (429, Some("rate_limited")));
    assert!(slowed.header("retry-after").is_some());
    let elsewhere = signed(NOW, &event).with("X-Forwarded-For", "203.0.113.9");
    assert_eq!(send(&world, elsewhere).await.status, 200, "others are not held back");
    let large = Request::new("POST", HUB).body(vec![b' '; 64 * 1024 + 1]).with("X-Forwarded-For", "203.0.113.10");
    assert_eq!(outcome(&send(&world, large).await), (413, Some("payload_too_large")));
    for _ in 0..2000 {
        let rows = world.store().audit_tail(0, 1000).await.unwrap();
        let reason = |wanted: &str| rows.iter().filter(|row| row.reason.as_deref() == Some(wanted)).count();
        if reason("webhook_bad_signature") == 1 && reason("rate_limited") >= 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("one row a minute for each reason and client");
}

#[tokio::test]
async fn no_credential_no_license_and_no_origin_is_asked_of_a_webhook_and_no_page_can_send_one() {
    let provider = Arc::new(Told::default());
    let world = world(&[SECRET], &provider).await;
    let user = linked(&world, "ada@example.com", "s1").await;
    let event = json!({ "subject": "s1", "license_status": "EXPIRED", "id": "e1" });
    let foreign = signed(NOW, &event).with("Origin", "https://hub.example").with("Sec-Fetch-Site", "cross-site");
    assert_eq!(outcome(&send(&world, foreign).await), (200, None));
    assert_eq!(state(&world, &user).await, Some(LicenseState::Expired));
    assert_eq!(outcome(&send(&world, Request::get(HUB)).await), (405, Some("method_not_allowed")));
    // A provider that is not asked about users, or none at all: nothing to hear of.
    let none = Setup::of(&format!("{RULES}[license]\nwebhook_secrets = [\"{SECRET}\"]\n")).start().await;
    for path in [HUB, "/auth/webhooks/license/keygen"] {
        let request = Request { target: path.into(), ..signed(NOW, &event) };
        assert_eq!(outcome(&send(&none, request).await), (503, Some("webhook_disabled")));
    }
}
