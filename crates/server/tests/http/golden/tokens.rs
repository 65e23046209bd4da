//! `vectors/own/jwt-strict-profile.json` over HTTP: each token as a credential, with the reason that the core has
//! pinned for it.

use std::time::Duration;

use doorward_core::{
    credential::{CookieNames, CredentialKind, CredentialSet},
    csrf::OriginPolicy,
    jose::{Algorithm, AlgorithmSet, JwkSet},
    origin::Origin,
    rule::{Access, Rule},
    session::SessionLimits,
    time::Timestamp,
    token::TokenPolicy,
};
use doorward_gate::{
    issuer::{IssuerConfig, Issuers, KeySource},
    policy::{App, Policy},
};
use serde_json::Value;

use super::{NotThere, cases, judge, load, text};
use crate::world::{NOW, Request, Verdict, World};

/// One rule: tokens only.
fn policy() -> Policy {
    let hour = Duration::from_secs(3600);
    let bearer = Access::Credential(CredentialSet::NONE.with(CredentialKind::Bearer));
    Policy::new(
        1,
        vec![Rule::new("app.example", "/*", bearer).unwrap()],
        vec![App { name: "web".into(), audience: None, assertion: false }],
        SessionLimits { idle: hour, absolute: hour, recent_auth: hour },
        CookieNames::SECURE,
        OriginPolicy { own: Origin::parse("https://app.example").unwrap(), allowed: vec![] },
    )
}

/// The issuer of a case; `None` where its key set is refused before any token comes.
fn issuers(file: &Value, case: &Value, world: &World) -> Option<Issuers> {
    let default = &file["default_policy"];
    let names = case["policy"]["algorithms"].as_array().or(default["algorithms"].as_array()).unwrap();
    let algorithms: Vec<_> = names.iter().map(|name| Algorithm::parse(name.as_str().unwrap()).unwrap()).collect();
    let policy = TokenPolicy {
        issuer: text(default, "issuer").to_owned(),
        aliases: vec![],
        audiences: vec![text(default, "audience").to_owned()],
        algorithms: AlgorithmSet::of(&algorithms),
        required_claims: vec![],
        clock_tolerance: Duration::from_secs(default["leeway_s"].as_u64().unwrap()),
        // The vectors' tokens are years old, which the configuration would not let pass.
        max_token_age: None,
        kind: case["policy"]["typ"].as_str().map(str::to_owned),
    };
    let keys = if case["jwks"].is_null() { &file["jwks"] } else { &case["jwks"] };
    let keys = JwkSet::parse(keys.to_string().as_bytes()).ok()?;
    let config = IssuerConfig::new("main", policy, KeySource::Inline(keys));
    Issuers::new(vec![config], &world.clock, None).ok()
}

/// Cases that get another verdict over HTTP than from the core's reader alone, each with the reason why.
const OTHERWISE: [(&str, &str, &str); 2] = [
    ("F-04", "accepted", "spaces round a header's value are no part of it (RFC 9110 §5.5)"),
    ("M-14", "token_missing_claim", "it names no issuer, so no issuer's rule about `typ` is there to be broken"),
];

/// Cases whose token is no text of RFC 6750 §2.1, or too long for it: refused before anybody takes it for a token.
const NO_CREDENTIAL: [(&str, u16, &str); 9] = [
    ("F-03", 400, "request_malformed"),
    ("F-05", 400, "request_malformed"),
    ("F-15", 400, "request_malformed"),
    ("G-01", 401, "no_credential"),
    ("G-09", 400, "request_malformed"),
    ("G-11", 413, "payload_too_large"),
    ("G-12", 400, "ambiguous_credential"),
    ("G-13", 400, "ambiguous_credential"),
    ("G-43", 400, "request_malformed"),
];

/// Cases whose key set has nothing usable: the server does not start with it, so no token is ever judged by it.
const NO_KEYS: [&str; 12] =
    ["N-06", "N-07", "N-10", "N-11", "N-12", "N-14", "N-15", "N-16", "N-18", "N-20", "N-24", "N-26"];

#[tokio::test]
async fn every_token_of_the_strict_profile_gets_its_reason_over_http() {
    let world = World::start("[[rules]]\npath = \"/*\"\nallow = [\"bearer\"]\napp = \"web\"\n").await;
    let (file, pinned) = (load("own/jwt-strict-profile.json"), load("own/jwt-strict-reasons.json"));
    let (mut wrong, mut refused, mut no_keys) = (Vec::new(), Vec::new(), Vec::new());
    let mut not_there = NotThere::new();
    for case in cases(&file) {
        let id = text(case, "id");
        let Some(issuers) = issuers(&file, case, &world) else {
            no_keys.push(id);
            continue;
        };
        world.gate().swap(policy().into(), issuers);
        world.clock.set_wall(Timestamp::from_secs(case["policy"]["now"].as_i64().unwrap_or(NOW)));
        let request = Request::get("/x").with("Authorization", format!("Bearer {}", text(case, "token")));
        let (verdict, _) = judge(&world, id, &request, &mut not_there).await;
        let otherwise = OTHERWISE.iter().find(|(other, ..)| *other == id).map(|(_, verdict, _)| *verdict);
        let expected = otherwise.unwrap_or(text(&pinned["reasons"], id));
        match &verdict {
            Verdict::Admitted(_) if expected == "accepted" => {}
            Verdict::Refused(401, reason) if reason == expected => {}
            Verdict::Refused(status, reason) if !reason.starts_with("token_") => {
                refused.push((id, *status, reason.clone()));
            }
            other => wrong.push(format!("{id} {}: {other:?}, not {expected}", text(case, "name"))),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let refused: Vec<_> = refused.iter().map(|(id, status, reason)| (*id, *status, reason.as_str())).collect();
    assert_eq!((refused.as_slice(), no_keys.as_slice()), (&NO_CREDENTIAL[..], &NO_KEYS[..]));
    // The two that only the reverse proxy is shown: one too long for a head, one with a byte no header can carry.
    assert_eq!(not_there.into_values().collect::<Vec<_>>(), [1; 12]);
}
