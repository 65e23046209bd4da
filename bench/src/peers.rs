//! What other libraries make of the tokens of the strict profile, each set up as its documentation says.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use doorward_core::{
    jose::{Algorithm, AlgorithmSet, JwkSet, Selection},
    time::{Now, Timestamp},
    token::{self, TokenPolicy},
};
use jsonwebtoken::{DecodingKey, Validation, jwk};
use serde_json::{Value, json};

use crate::report::Report;

pub(crate) fn run(report: &Report) {
    let file: Value =
        serde_json::from_slice(&fs::read(root().join("vectors/own/jwt-strict-profile.json")).unwrap()).unwrap();
    let default = &file["default_policy"];
    // Only cases that need no clock: not every library has one that can be set.
    let cases: Vec<Value> = file["cases"].as_array().unwrap().iter().filter(|case| case["policy"]["now"].is_null()).map(|case| {
        let keys = if case["jwks"].is_null() { &file["jwks"] } else { &case["jwks"] };
        let algorithms = if case["policy"]["algorithms"].is_null() { &default["algorithms"] } else { &case["policy"]["algorithms"] };
        json!({"token": case["token"], "jwks": keys, "algorithms": algorithms, "typ": case["policy"]["typ"], "expect": case["expect"]})
    }).collect();
    let count = |what: &str| cases.iter().filter(|case| case["expect"] == what).count();
    report.table(
        &format!(
            "The strict profile: {} to refuse, {} to accept, {} open",
            count("reject"),
            count("accept"),
            count("either")
        ),
        "wrongly accepted",
        "wrongly refused",
    );
    let given = json!({"issuer": default["issuer"], "audience": default["audience"], "leeway": default["leeway_s"], "cases": cases});
    let row = |name: &str, verdicts: &[bool]| {
        let wrong = |what: &str, accepted| {
            cases.iter().zip(verdicts).filter(|(case, verdict)| case["expect"] == what && **verdict == accepted).count()
        };
        println!("| {name} | {} | {} | | |", wrong("reject", true), wrong("accept", false));
    };
    let all = |judge: &dyn Fn(&Value) -> bool| cases.iter().map(judge).collect::<Vec<bool>>();
    row("Doorward", &all(&|case| doorward(case, &given)));
    row("Rust jsonwebtoken, default", &all(&|case| jsonwebtoken(case, &given, false)));
    row("Rust jsonwebtoken, every check that it has", &all(&|case| jsonwebtoken(case, &given, true)));
    let python = root().join("bench/peers/.venv/bin/python");
    let e2e = root().join("e2e");
    let script = fs::read_to_string(root().join("bench/peers/strict.mjs")).unwrap();
    for (name, mut command) in [
        ("npm jose", node(&script, &e2e)),
        ("PyJWT", with(Command::new(&python), &["bench/peers/strict.py", "pyjwt"])),
        ("joserfc", with(Command::new(&python), &["bench/peers/strict.py", "joserfc"])),
    ] {
        match ask(&mut command, &given) {
            Some(verdicts) if verdicts.len() == cases.len() => row(name, &verdicts),
            Some(_) => report.skipped(name, "it stopped half-way; see above"),
            None => report.skipped(name, "not installed: npm ci --prefix e2e; python3 -m venv bench/peers/.venv && bench/peers/.venv/bin/pip install -r bench/peers/requirements.txt"),
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments).current_dir(root());
    command
}

/// A module for node with the packages of e2e.
pub(crate) fn node(script: &str, e2e: &Path) -> Command {
    let mut command = Command::new("node");
    command.args(["--input-type=module", "--eval", script]).current_dir(e2e);
    command
}

fn ask(command: &mut Command, given: &Value) -> Option<Vec<bool>> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    child.stdin.take()?.write_all(given.to_string().as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    let verdicts: Vec<bool> = String::from_utf8_lossy(&output.stdout).lines().map(|line| line == "accept").collect();
    (!verdicts.is_empty()).then_some(verdicts)
}

fn names(case: &Value) -> impl Iterator<Item = &str> {
    case["algorithms"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn doorward(case: &Value, given: &Value) -> bool {
    let algorithms: Vec<Algorithm> = names(case).filter_map(Algorithm::parse).collect();
    let policy = TokenPolicy {
        issuer: given["issuer"].as_str().unwrap().to_owned(),
        aliases: vec![],
        audiences: vec![given["audience"].as_str().unwrap().to_owned()],
        algorithms: AlgorithmSet::of(&algorithms),
        required_claims: vec![],
        clock_tolerance: Duration::from_secs(given["leeway"].as_u64().unwrap()),
        max_token_age: None,
        kind: case["typ"].as_str().map(str::to_owned),
    };
    let now = Now { wall: Timestamp::from_secs(wall()), mono: Duration::ZERO };
    let judge = || {
        let token = token::parse(case["token"].as_str()?).ok()?;
        let set = JwkSet::parse(case["jwks"].to_string().as_bytes()).ok()?;
        let Selection::Key(key) = set.select(token.key_id(), token.algorithm().ok()?) else { return None };
        token::verify(token, key, &policy, now).ok()
    };
    judge().is_some()
}

fn wall() -> i64 {
    doorward_gate::clock::Clock::system().now().wall.as_secs()
}

/// `is_hardened`: with every check that the library has and does not make by itself.
fn jsonwebtoken(case: &Value, given: &Value, is_hardened: bool) -> bool {
    let judge = || {
        let text = case["token"].as_str()?;
        let header = jsonwebtoken::decode_header(text).ok()?;
        let set: jwk::JwkSet = serde_json::from_value(case["jwks"].clone()).ok()?;
        let key = set.find(header.kid.as_deref()?)?;
        let mut validation = Validation::new(header.alg);
        // One family at a time is what the library takes; the header's must be allowed.
        if !names(case).any(|name| name.parse() == Ok(header.alg)) {
            return None;
        }
        validation.leeway = given["leeway"].as_u64()?;
        validation.set_issuer(&[given["issuer"].as_str()?]);
        validation.set_audience(&[given["audience"].as_str()?]);
        if is_hardened {
            validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
            validation.validate_nbf = true;
            let is_kind = |typ: &str| match case["typ"].as_str() {
                Some(kind) => typ.eq_ignore_ascii_case(kind),
                None => typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("at+jwt"),
            };
            if !header.typ.as_deref().is_none_or(is_kind) {
                return None;
            }
        }
        jsonwebtoken::decode::<Value>(text, &DecodingKey::from_jwk(key).ok()?, &validation).ok()
    };
    judge().is_some()
}
