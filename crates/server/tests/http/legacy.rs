//! The soak window: tokens and passwords of the old system, and how it ends.

mod closing;

use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use doorward_core::{
    cutover::{self, STATE, Window as State},
    effects::Effects,
    revocation::{NewRevocation, Scope},
    secret::Secret,
    user::User,
};
use doorward_gate::window::Window;
use doorward_store::SetState;
use doorward_testkit::wire::{Answer, Wire};
use serde_json::{Value, json};

use crate::{
    door::until,
    world::{Caller, NOW, Request, Seen, Setup, World, json as body, outcome},
};

const SECRET: &str = "the-old-system-signed-with-this-one";
const PASSWORD: &str = "correct horse battery staple";
/// bcrypt of [`PASSWORD`], written by another implementation.
const HASH: &str = "$2b$04$V4vBBZ6hxGgWIpDOwQu9COCZPxvEroo1AzvgwIVkfUquU1ikFus/y";
const DAY: Duration = Duration::from_secs(86_400);

/// `NOW` is 2027-01-15.
fn rules(legacy: &str) -> String {
    format!(
        "[[rules]]\npath = \"/bearer/*\"\nallow = [\"bearer\"]\napp = \"web\"\n\
         [[rules]]\npath = \"/recent/*\"\nallow = [\"session\"]\nrequire = {{ recent_auth = true }}\napp = \"web\"\n\
         [[rules]]\npath = \"/*\"\nallow = [\"session\", \"bearer\"]\ncsrf = \"token\"\napp = \"web\"\n{legacy}\n"
    )
}

fn open() -> String {
    rules(&format!("[legacy]\nallow = true\nhs256_secret = \"{SECRET}\"\ncutover_on = \"2027-01-18\"\n"))
}

async fn world() -> World {
    let world = Setup::of(&open()).jobs("cutover = \"* * * * *\"").start().await;
    until("the window is open", || world.gate().window() == Window::Open).await;
    world
}

async fn ada(world: &World) -> User {
    with_password(world, "ada@example.com", HASH).await
}

async fn with_password(world: &World, email: &str, hash: &str) -> User {
    let user = world.user(email).await;
    world.store().set_password(user.id, Some(Secret::new(hash.to_owned())), Effects::default()).await.unwrap();
    user
}

/// A JWT as any library would write it, signed with HMAC-SHA256 whatever the header says.
fn token(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let input = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn claims(user: &User) -> Value {
    json!({ "sub": "17", "email": user.email, "role": "admin", "iat": NOW - 86_400, "exp": NOW + 30 * 86_400 })
}

fn old(user: &User) -> String {
    token(&json!({ "alg": "HS256", "typ": "JWT" }), &claims(user), SECRET.as_bytes())
}

async fn refusal(caller: &mut Caller, target: &str) -> Option<String> {
    let answer = caller.get(target).await;
    outcome(&answer).1.map(str::to_owned)
}

/// Tries a password from a client of its own.
async fn sign_in_from(caller: &mut Caller, client: u8, email: &str, password: &str) -> Answer {
    let body = json!({ "email": email, "password": password }).to_string();
    let request = Request::new("POST", "/auth/login/password").with("Content-Type", "application/json").body(body);
    caller.ask(request.with("X-Forwarded-For", format!("198.51.100.{client}"))).await
}

async fn sign_in(caller: &mut Caller, email: &str, password: &str) -> Answer {
    caller.post("/auth/login/password", &json!({ "email": email, "password": password })).await
}

#[tokio::test]
async fn a_token_of_the_old_system_is_let_in_where_sessions_are() {
    let world = world().await;
    let ada = ada(&world).await;
    let mut by_id = claims(&ada);
    by_id["sub"] = json!(ada.id);
    for header in
        [json!({ "alg": "HS256" }), json!({ "alg": "HS256", "typ": "JWT" }), json!({ "typ": "jwt", "alg": "HS256" })]
    {
        for claims in [claims(&ada), by_id.clone()] {
            let text = token(&header, &claims, SECRET.as_bytes());
            let seen = Seen::of(&world.bearer(&text).get("/x").await);
            assert_eq!(seen.header("x-doorward-subject"), Some(ada.id.to_string().as_str()), "{header}");
            assert_eq!(seen.header("x-doorward-method"), Some("legacy"));
            assert_eq!(seen.header("authorization"), None, "the credential stays here");
        }
    }
    // It is none of a browser's ambient credentials: a changing request needs no CSRF value.
    assert_eq!(world.bearer(&old(&ada)).ask(Request::new("POST", "/x")).await.status, 200);
    assert_eq!(refusal(&mut world.bearer(&old(&ada)), "/recent/x").await.as_deref(), Some("re_auth_required"));
    assert_eq!(refusal(&mut world.bearer(&old(&ada)), "/bearer/x").await.as_deref(), Some("token_alg_not_allowed"));
    let whoami = body(&world.bearer(&old(&ada)).get("/auth/whoami").await);
    assert_eq!((&whoami["method"], &whoami["subject"]), (&json!("legacy"), &json!(ada.id)));
    assert_eq!(body(&world.bearer(&old(&ada)).get("/auth/session").await), json!({ "authenticated": false }));
    // Written down with its method, once an hour.
    until_audited(&world, "legacy.used", "legacy", 1).await;
}

#[allow(clippy::disallowed_methods, reason = "measures, does not decide")]
async fn until_audited(world: &World, kind: &str, method: &str, times: usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let rows = world.store().audit_tail(0, 1000).await.unwrap();
        let is_meant = |detail: &Option<String>| {
            detail.as_deref().is_some_and(|detail| detail.contains(&format!("\"method\":\"{method}\"")))
        };
        let found = rows.iter().filter(|row| row.kind == kind && is_meant(&row.detail)).count();
        if found == times {
            return;
        }
        assert!(found < times && Instant::now() < deadline, "{found} rows of {kind} by {method}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn no_form_or_key_but_the_old_systems_own_is_let_in_as_legacy() {
    let world = world().await;
    let ada = ada(&world).await;
    let good = claims(&ada);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let mut endless = good.clone();
    endless.as_object_mut().unwrap().remove("exp");
    let issued = world.issuer.url().to_owned();
    let hs256 = || json!({ "alg": "HS256" });
    let jwks = body(
        &Wire::ask(
            world.issuer.jwks_url().trim_start_matches("http://").split('/').next().unwrap().parse().unwrap(),
            &format!(
                "GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                jwks_path(world.issuer.jwks_url().as_str())
            ),
        )
        .await,
    );
    let public = jwks["keys"][0]["x"].as_str().unwrap_or_default().to_owned();
    for (name, header, claims, secret, reason) in [
        ("none", json!({ "alg": "none" }), good.clone(), SECRET, "token_alg_not_allowed"),
        ("case of alg", json!({ "alg": "hs256" }), good.clone(), SECRET, "token_alg_not_allowed"),
        ("HS384", json!({ "alg": "HS384" }), good.clone(), SECRET, "token_alg_not_allowed"),
        ("HS512", json!({ "alg": "HS512" }), good.clone(), SECRET, "token_alg_not_allowed"),
        ("RS256", json!({ "alg": "RS256" }), good.clone(), SECRET, "token_alg_not_allowed"),
        ("EdDSA", json!({ "alg": "EdDSA", "typ": "JWT" }), good.clone(), SECRET, "token_alg_not_allowed"),
        ("another secret", hs256(), good.clone(), "another-secret-of-the-same-length-xx", "token_bad_signature"),
        ("an issuer's public key", hs256(), good.clone(), public.as_str(), "token_bad_signature"),
        ("with iss", hs256(), with("iss", json!(issued)), SECRET, "token_alg_not_allowed"),
        ("with iss null", hs256(), with("iss", Value::Null), SECRET, "token_alg_not_allowed"),
        ("at+jwt", json!({ "alg": "HS256", "typ": "at+jwt" }), good.clone(), SECRET, "token_alg_not_allowed"),
        (
            "a link of ours",
            json!({ "alg": "HS256", "typ": "doorward-link+jwt" }),
            good.clone(),
            SECRET,
            "token_alg_not_allowed",
        ),
        ("typ null", json!({ "alg": "HS256", "typ": null }), good.clone(), SECRET, "token_alg_not_allowed"),
        ("crit", json!({ "alg": "HS256", "crit": ["exp"] }), good.clone(), SECRET, "token_malformed"),
        ("no exp", hs256(), endless.clone(), SECRET, "token_missing_claim"),
        ("over", hs256(), with("exp", json!(NOW)), SECRET, "token_expired"),
        ("from the future", hs256(), with("iat", json!(NOW + 60)), SECRET, "token_not_yet_valid"),
        ("a stranger", hs256(), with("email", json!("eve@example.com")), SECRET, "token_invalid_claim"),
        ("nobody", hs256(), with("email", json!(7)), SECRET, "token_missing_claim"),
    ] {
        let answer = world.bearer(&token(&header, &claims, secret.as_bytes())).get("/x").await;
        assert_eq!(outcome(&answer), (401, Some(reason)), "{name}");
        assert!(answer.header("www-authenticate").is_some(), "{name}");
    }
    // A token of the issuer goes on being judged as one, beside them.
    let issued = world.issuer.mint(&world.claims());
    assert_eq!(Seen::of(&world.bearer(&issued).get("/x").await).header("x-doorward-method"), Some("bearer"));
    // Spelling of the scheme and of the header's name changes nothing; two of them are none.
    let spelt = world.anonymous().with("aUTHORIZATION", &format!("bEARER {}", old(&ada))).get("/x").await;
    assert_eq!(Seen::of(&spelt).header("x-doorward-method"), Some("legacy"));
    for other in [old(&ada), issued.clone(), "x".to_owned()] {
        let two = Request::get("/x")
            .with("Authorization", format!("Bearer {}", old(&ada)))
            .with("Authorization", format!("Bearer {other}"));
        assert_eq!(outcome(&world.anonymous().ask(two).await), (400, Some("ambiguous_credential")));
        let list = Request::get("/x").with("Authorization", format!("Bearer {}, Bearer {other}", old(&ada)));
        assert_eq!(outcome(&world.anonymous().ask(list).await), (400, Some("ambiguous_credential")));
    }
    assert_eq!(
        outcome(&world.anonymous().get(&format!("/x?access_token={}", old(&ada))).await),
        (401, Some("no_credential"))
    );
}

fn jwks_path(url: &str) -> String {
    let rest = url.trim_start_matches("http://");
    rest[rest.find('/').unwrap()..].to_owned()
}

#[tokio::test]
async fn the_session_cookie_wins_and_a_dead_one_does_not_give_way() {
    let world = world().await;
    let ada = ada(&world).await;
    let mut bob = world.browser("bob@example.com").await;
    let with_both = |bob: &Caller| bob.clone().with("Authorization", &format!("Bearer {}", old(&ada)));
    let seen = Seen::of(&with_both(&bob).get("/x").await);
    assert_eq!(seen.header("x-doorward-method"), Some("session"));
    assert_ne!(seen.header("x-doorward-subject"), Some(ada.id.to_string().as_str()));
    // And with it CSRF: a header that is not used proves nothing.
    assert_eq!(outcome(&with_both(&bob).ask(Request::new("POST", "/x")).await), (403, Some("csrf_missing")));
    let dead = bob.clone();
    bob.post("/auth/logout", &json!({})).await;
    let answer = with_both(&dead).get("/x").await;
    assert_eq!(answer.status, 401, "{answer:?}");
}

#[tokio::test]
async fn ending_all_sessions_of_a_user_and_a_ban_end_the_old_tokens() {
    let world = world().await;
    let ada = ada(&world).await;
    let text = old(&ada);
    assert_eq!(world.bearer(&text).get("/x").await.status, 200);
    let at = world.clock.now().wall;
    let entry = NewRevocation { scope: Scope::UserSessions { id: ada.id }, at, until: None, why: "test".to_owned() };
    world.store().append(Effects::default().with_revocation(entry)).await.unwrap();
    world.advance(Duration::from_secs(2)).await;
    assert_eq!(refusal(&mut world.bearer(&text), "/x").await.as_deref(), Some("token_revoked"));
    let mut later = claims(&ada);
    later["iat"] = json!(NOW + 1);
    let text = token(&json!({ "alg": "HS256" }), &later, SECRET.as_bytes());
    assert_eq!(world.bearer(&text).get("/x").await.status, 200);
    let entry = NewRevocation { scope: Scope::User { id: ada.id }, at, until: None, why: "ban".to_owned() };
    world.store().set_banned(ada.id, Some(at), Effects::default().with_revocation(entry)).await.unwrap();
    world.advance(Duration::from_secs(1)).await;
    let banned = world.bearer(&text).get("/x").await;
    assert_eq!(outcome(&banned), (403, Some("user_banned")));
}

#[tokio::test]
async fn a_password_signs_in_and_every_wrong_one_gets_the_same_answer() {
    let world = world().await;
    let ada = ada(&world).await;
    with_password(&world, "absurd@example.com", "$2b$31$V4vBBZ6hxGgWIpDOwQu9COCZPxvEroo1AzvgwIVkfUquU1ikFus/y").await;
    world.user("none@example.com").await;
    let mut browser = world.visitor();
    let answer = sign_in(&mut browser, " Ada@Example.com ", PASSWORD).await;
    assert_eq!((outcome(&answer), body(&answer)), ((200, None), json!({ "ok": true })), "{answer:?}");
    let session = body(&browser.get("/auth/session").await);
    assert_eq!((&session["method"], &session["user"]["id"]), (&json!("password"), &json!(ada.id)));
    assert_eq!(browser.get("/x").await.status, 200);
    // Signing in again ends the session that the browser had.
    let before = browser.clone();
    assert_eq!(sign_in(&mut browser, "ada@example.com", PASSWORD).await.status, 200);
    assert_eq!(before.clone().get("/x").await.status, 401);
    let long = format!("{PASSWORD}{}", "x".repeat(2000));
    let nul = format!("{PASSWORD}\0");
    let mut answers = Vec::new();
    for (client, (email, password)) in [
        ("ada@example.com", "wrong"),
        ("ada@example.com", ""),
        ("ada@example.com", long.as_str()),
        ("ada@example.com", nul.as_str()),
        ("none@example.com", PASSWORD),
        ("absurd@example.com", PASSWORD),
        ("nobody@example.com", PASSWORD),
        ("not an address", PASSWORD),
    ]
    .into_iter()
    .enumerate()
    {
        let mut visitor = world.visitor();
        let answer = sign_in_from(&mut visitor, u8::try_from(client).unwrap(), email, password).await;
        assert_eq!(outcome(&answer), (401, Some("password_invalid")), "{email} {answer:?}");
        assert!(answer.header("set-cookie").is_none() && answer.header("www-authenticate").is_some());
        let mut said = body(&answer);
        said.as_object_mut().unwrap().remove("decision_id");
        answers.push(said);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    until_audited(&world, "legacy.sign_in", "password", 2).await;
    // One a minute for each address.
    until_audited(&world, "legacy.refused", "password", 5).await;
    let rows = world.store().audit_tail(0, 1000).await.unwrap();
    assert!(
        rows.iter().filter(|row| row.kind == "legacy.refused").all(|row| !row.detail.as_deref().unwrap().contains('@'))
    );
    // A banned user hears of it only with the right password.
    let at = world.clock.now().wall;
    world.store().set_banned(ada.id, Some(at), Effects::default()).await.unwrap();
    let mut visitor = world.visitor();
    assert_eq!(
        outcome(&sign_in_from(&mut visitor, 100, "ada@example.com", PASSWORD).await),
        (403, Some("user_banned"))
    );
    assert_eq!(
        outcome(&sign_in_from(&mut visitor, 101, "ada@example.com", "x").await),
        (401, Some("password_invalid"))
    );
}

#[tokio::test]
async fn a_form_gets_the_login_page_back_and_other_sites_cannot_sign_anybody_in() {
    let world = world().await;
    ada(&world).await;
    let mut browser = world.visitor();
    let page = browser.ask(Request::get("/auth/login").with("Sec-Fetch-Mode", "navigate")).await.text();
    assert!(page.contains("/auth/login/password") && page.contains("type=\"password\""), "{page}");
    let wrong = browser.post_form("/auth/login/password", "email=ada%40example.com&password=x&return_to=%2Fdeep").await;
    assert_eq!((wrong.status, wrong.header("x-doorward-reason")), (401, Some("password_invalid")));
    let text = wrong.text();
    assert!(
        text.contains("Mail address or password is not right.") && text.contains("value=\"ada@example.com\""),
        "{text}"
    );
    let form = "email=ada%40example.com&password=correct+horse+battery+staple&return_to=%2Fdeep";
    for (name, value) in [("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.example")] {
        let request = Request::new("POST", "/auth/login/password")
            .with("Content-Type", "application/x-www-form-urlencoded")
            .with(name, value)
            .body(form);
        assert_eq!(outcome(&browser.ask(request).await), (403, Some("cross_site")), "{name}");
    }
    let right = browser.post_form("/auth/login/password", form).await;
    assert_eq!((right.status, right.header("location")), (303, Some("/deep")));
    assert_eq!(browser.get("/x").await.status, 200);
}

#[tokio::test]
async fn tries_are_limited_by_client_and_by_address_and_the_right_password_clears_the_address() {
    let world = world().await;
    ada(&world).await;
    let mut visitor = world.visitor();
    for number in 0..10 {
        let answer = sign_in_from(&mut visitor, 1, &format!("{number}@example.com"), "x").await;
        assert_eq!(outcome(&answer), (401, Some("password_invalid")));
    }
    let over = sign_in_from(&mut visitor, 1, "ada@example.com", PASSWORD).await;
    assert_eq!(outcome(&over), (429, Some("rate_limited")));
    assert!(over.header("retry-after").is_some() && over.header("ratelimit").is_some(), "{over:?}");
    // An address, known or not, from clients that are all fresh.
    for email in ["ada@example.com", "nobody@example.com"] {
        for client in 10..20 {
            assert_eq!(sign_in_from(&mut visitor, client, email, "x").await.status, 401);
        }
        let over = sign_in_from(&mut visitor, 30, email, PASSWORD).await;
        assert_eq!(outcome(&over), (429, Some("rate_limited")), "{email}");
        world.advance(Duration::from_secs(3600)).await;
    }
    for client in 40..49 {
        assert_eq!(sign_in_from(&mut visitor, client, "ada@example.com", "x").await.status, 401);
    }
    assert_eq!(sign_in_from(&mut visitor, 50, "ada@example.com", PASSWORD).await.status, 200);
    for client in 60..70 {
        assert_eq!(sign_in_from(&mut visitor, client, "ada@example.com", "x").await.status, 401, "{client}");
    }
}

/// The shortest of a few times, in milliseconds: whatever else the machine does only adds to it.
fn fastest(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

#[allow(clippy::disallowed_methods, clippy::print_stdout, reason = "measures, does not decide")]
#[tokio::test]
async fn an_unknown_address_costs_the_time_of_a_known_one() {
    // 2^9 rounds: far more than everything else that a request costs. The output is another one than the password's.
    let slow = HASH.replace("$04$", "$09$");
    let world = world().await;
    for number in 0..30 {
        with_password(&world, &format!("known{number}@example.com"), &slow).await;
    }
    world.user("without@example.com").await;
    world.server().passwords.learn_costs().await.unwrap();
    let mut visitor = world.visitor();
    let (mut known, mut unknown, mut without) = (Vec::new(), Vec::new(), Vec::new());
    // Under steady load hardly any of thirty runs from its begin to its end without a pause: then more are measured. What
    // told addresses apart would do so however many there are.
    let mut apart = String::new();
    for _ in 0..5 {
        for number in 0..30 {
            for (times, email) in [
                (&mut known, format!("known{number}@example.com")),
                (&mut unknown, format!("unknown{number}@example.com")),
                (
                    &mut without,
                    if number < 9 { "without@example.com".to_owned() } else { format!("no address {number}") },
                ),
            ] {
                let began = Instant::now();
                let answer =
                    sign_in_from(&mut visitor, number * 3 + u8::try_from(times.len() % 3).unwrap(), &email, "x").await;
                assert_eq!(answer.status, 401, "{answer:?}");
                times.push(began.elapsed().as_secs_f64() * 1000.0);
            }
        }
        let [known, unknown, without] = [&known, &unknown, &without].map(|times| fastest(times));
        println!("fastest in ms: known {known:.1}, unknown {unknown:.1}, without a password {without:.1}");
        assert!(known > 5.0, "too fast to tell anything: {known} ms");
        if [unknown, without].iter().all(|other| (other - known).abs() < known * 0.25) {
            return;
        }
        apart = format!("{unknown} and {without} ms for nobody, {known} ms for somebody");
        // The limits of clients and addresses begin anew.
        world.advance(Duration::from_secs(3600)).await;
    }
    panic!("{apart}");
}

#[allow(clippy::disallowed_methods, clippy::print_stdout, reason = "measures, does not decide")]
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_passwords_at_once_stay_bounded_and_hold_nobody_else_up() {
    let world = world().await;
    let user = with_password(&world, "ada@example.com", &HASH.replace("$04$", "$07$")).await;
    world.server().passwords.learn_costs().await.unwrap();
    let tries = (0..200_u8).map(|number| {
        let mut visitor = world.visitor();
        tokio::spawn(async move { sign_in_from(&mut visitor, number, &format!("{number}@example.com"), "x").await })
    });
    let tries: Vec<_> = tries.collect();
    let (mut took, mut most) = (Vec::new(), 0);
    let (text, flood) = (old(&user), Instant::now());
    while tries.iter().any(|one| !one.is_finished()) {
        most = most.max(world.server().passwords.inside());
        let began = Instant::now();
        assert_eq!(world.anonymous().get("/healthz").await.status, 200);
        assert_eq!(world.bearer(&text).get("/x").await.status, 200);
        took.push(began.elapsed());
    }
    let flood = flood.elapsed();
    let (mut wrong, mut turned_away) = (0, 0);
    for one in tries {
        let answer = one.await.unwrap();
        match outcome(&answer) {
            (401, Some("password_invalid")) => wrong += 1,
            (429, Some("rate_limited")) => {
                assert!(answer.header("retry-after").is_some());
                turned_away += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    took.sort_unstable();
    let usual = took.get(took.len() / 2).copied().unwrap_or_default();
    let (others, slowest) = (took.len(), took.last());
    println!(
        "{wrong} checked, {turned_away} turned away, {most} at most inside; \
         {others} other pairs, usually {usual:?}, slowest {slowest:?}"
    );
    assert!(wrong > 0 && turned_away > 0, "{wrong} {turned_away}");
    // 4 that run, 32 that wait, and those that are just being turned away.
    assert!(most < 64, "{most}");
    // Whoever is held up waits for about as long as all of them take, however slow the machine is. The pair in the middle
    // says so: a machine that stands still for a moment spoils one, a runtime that is held up all.
    assert!(usual < Duration::from_secs(2).max(flood / 3), "{usual:?} of {flood:?}, {others} pairs");
    assert_eq!(world.server().passwords.inside(), 0);
}

#[tokio::test]
async fn without_a_soak_window_nothing_of_the_old_system_is_looked_at() {
    let absent = World::start(&rules("")).await;
    let ada = ada(&absent).await;
    assert_eq!(refusal(&mut absent.bearer(&old(&ada)), "/x").await.as_deref(), Some("token_alg_not_allowed"));
    let gone = sign_in(&mut absent.visitor(), "ada@example.com", PASSWORD).await;
    assert_eq!(outcome(&gone), (410, Some("legacy_login_disabled")));
    let page = absent.visitor().ask(Request::get("/auth/login").with("Sec-Fetch-Mode", "navigate")).await.text();
    assert!(!page.contains("type=\"password\""));
    let forbidden = World::start(&rules(&format!("[legacy]\nallow = false\nhs256_secret = \"{SECRET}\"\n"))).await;
    let ada = self::ada(&forbidden).await;
    let answer = forbidden.bearer(&old(&ada)).get("/x").await;
    assert_eq!(outcome(&answer), (410, Some("legacy_login_disabled")));
    let gone = sign_in(&mut forbidden.visitor(), "ada@example.com", PASSWORD).await;
    assert_eq!(outcome(&gone), (410, Some("legacy_login_disabled")));
}

async fn report(world: &World) -> Value {
    let answer =
        Wire::ask(world.running.admin, "GET /admin/cutover HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    body(&answer.await)
}

/// A day passes; what was counted on it is written first, as it is every minute.
async fn a_day_later(world: &World) {
    report(world).await;
    world.advance(DAY).await;
    report(world).await;
}

#[tokio::test]
async fn the_window_is_extended_while_it_is_used_closes_when_it_is_not_and_can_be_taken_back() {
    let world = world().await;
    let ada = ada(&world).await;
    world.browser("bob@example.com").await;
    assert_eq!(sign_in(&mut world.visitor(), "ada@example.com", PASSWORD).await.status, 200);
    assert_eq!(world.bearer(&old(&ada)).get("/x").await.status, 200);
    let first = report(&world).await;
    assert_eq!(
        (&first["open"], &first["closes_on"], &first["by"]),
        (&json!(true), &json!("2027-01-18"), &json!("file"))
    );
    let today = &first["days"][0];
    assert_eq!(today["day"], "2027-01-15");
    assert_eq!(today["sign_ins"], json!({ "magic_link": 1, "password": 1 }), "{first:#}");
    assert_eq!(today["requests"]["legacy"], 1);
    assert_eq!((&today["share"]["legacy"], &today["share"]["total"]), (&json!(2), &json!(3)));
    let metrics =
        Wire::ask(world.running.admin, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            .await
            .text();
    for line in
        ["doorward_sign_ins_total{method=\"password\"} 1", "doorward_authenticated_requests_total{method=\"legacy\"} 1"]
    {
        assert!(metrics.contains(line), "{metrics}");
    }
    for _ in 0..2 {
        a_day_later(&world).await;
    }
    assert_eq!(report(&world).await["closes_on"], "2027-01-18", "not before its day");
    a_day_later(&world).await;
    until_state(&world, |state| state.closes_on.to_string() == "2027-01-25").await;
    let extended = report(&world).await;
    assert_eq!((&extended["open"], &extended["by"]), (&json!(true), &json!("job")));
    assert!(extended["why"].as_str().unwrap().contains("66.67 % (2 of 3)"), "{extended:#}");
    for _ in 0..7 {
        assert_eq!(world.gate().window(), Window::Open);
        a_day_later(&world).await;
    }
    until("the window closes", || world.gate().window() == Window::Closed).await;
    assert_eq!(outcome(&world.bearer(&old(&ada)).get("/x").await), (410, Some("legacy_login_disabled")));
    assert_eq!(sign_in(&mut world.visitor(), "ada@example.com", PASSWORD).await.status, 410);
    assert_eq!(report(&world).await["decision"], "none");
    // Another process takes it back.
    let stored = world.store().state(STATE.to_owned()).await.unwrap().unwrap();
    let closed: State = stored.value.parse().unwrap();
    let ceiling = world.server().site().legacy.unwrap();
    let now = world.clock.now().wall;
    let step = cutover::plan_rollback(&closed, &ceiling, now).unwrap();
    let text = step.window.to_text().unwrap();
    assert_eq!(
        world.store().set_state(STATE.to_owned(), stored.version, text, now, step.effects).await.unwrap(),
        SetState::Set
    );
    until("the window is open again", || world.gate().window() == Window::Open).await;
    assert_eq!(sign_in(&mut world.visitor(), "ada@example.com", PASSWORD).await.status, 200);
    let rows = world.store().audit_tail(0, 1000).await.unwrap();
    let kinds: Vec<&str> =
        rows.iter().map(|row| row.kind.as_str()).filter(|kind| kind.starts_with("cutover")).collect();
    assert_eq!(kinds, ["cutover.extended", "cutover.closed", "cutover.rolled_back"]);
    world.stop().await;
}

#[allow(clippy::disallowed_methods, reason = "measures, does not decide")]
async fn until_state(world: &World, is_meant: impl Fn(&State) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let state = world.store().state(STATE.to_owned()).await.unwrap();
        if state.is_some_and(|state| is_meant(&state.value.parse().unwrap())) {
            return;
        }
        assert!(Instant::now() < deadline, "the state is not as expected");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
