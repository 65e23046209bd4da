//! `own/jwt-strict-profile.json`: every verdict, with its exact reason in our words. Those words are pinned in
//! `own/jwt-strict-reasons.json` for readers that speak HTTP; `UPDATE_GOLDEN=1` writes it again.

use std::{collections::BTreeMap, fs, time::Duration};

use doorward_core::{
    decision::Denial,
    jose::{Algorithm, AlgorithmSet, JwkSet, Selection},
    reason::Reason,
    time::{Now, Timestamp},
    token::{self, TokenPolicy},
};
use serde_json::{Value, json};

use crate::vectors::{cases, load, root, text};

/// The moment for cases that bring no clock.
const NOW: i64 = 1_800_000_000;

/// Cases that the standards leave open, and our decision; `docs/token-decisions.md` says why.
const DECIDED: &[(&str, Option<Reason>)] = &[
    ("E-16", None),
    ("G-47", Some(Reason::TokenMalformed)),
    ("H-14", Some(Reason::TokenMalformed)),
    ("I-12", Some(Reason::TokenInvalidClaim)),
    ("I-14", Some(Reason::TokenInvalidClaim)),
    ("I-15", Some(Reason::TokenInvalidClaim)),
    ("I-18", Some(Reason::TokenInvalidClaim)),
    ("I-23", Some(Reason::TokenInvalidClaim)),
    ("N-04", None),
    ("N-20", Some(Reason::TokenUnknownKey)),
    ("N-23", None),
    ("N-27", None),
    ("T-12", Some(Reason::TokenInvalidClaim)),
];

/// Our word for the vectors' word.
fn reason(id: &str, word: &str) -> Reason {
    match (word, &id[..1]) {
        // A number that JSON readers cannot hold is no JSON for us; the others are JSON and no date.
        ("malformed", "I") if !matches!(id, "I-11" | "I-16") => Reason::TokenInvalidClaim,
        ("malformed", "L") => Reason::TokenInvalidClaim,
        ("malformed" | "too_large" | "crit_unsupported" | "malformed_or_expired", _) => Reason::TokenMalformed,
        ("alg_not_allowed" | "jwks_symmetric_key", _) => Reason::TokenAlgNotAllowed,
        ("alg_key_mismatch" | "key_not_for_signing", _) => Reason::TokenKeyMismatch,
        ("kid_unknown" | "kid_missing", _) => Reason::TokenUnknownKey,
        // A key that cannot be used is as good as not published.
        ("jwk_invalid" | "key_too_weak" | "key_too_large", _) => Reason::TokenUnknownKey,
        ("jwks_malformed", _) => Reason::KeysUnavailable,
        ("bad_signature", _) => Reason::TokenBadSignature,
        ("expired" | "expired_or_malformed", _) => Reason::TokenExpired,
        ("not_yet_valid" | "issued_in_future", _) => Reason::TokenNotYetValid,
        ("missing_exp" | "missing_iss" | "missing_aud" | "missing_sub", _) => Reason::TokenMissingClaim,
        ("missing_exp_or_malformed" | "bad_subject", _) => Reason::TokenInvalidClaim,
        ("wrong_issuer", _) => Reason::TokenWrongIssuer,
        ("wrong_audience", _) => Reason::TokenWrongAudience,
        ("wrong_type", _) => Reason::TokenWrongType,
        _ => panic!("{id}: no word of ours for {word}"),
    }
}

fn judge(token: &str, keys: &Value, policy: &TokenPolicy, now: Now) -> Result<(), Denial> {
    let token = token::parse(token)?;
    let algorithm = token.algorithm()?;
    token.check_kind(policy)?;
    let keys = JwkSet::parse(keys.to_string().as_bytes()).map_err(|_| Denial::from(Reason::KeysUnavailable))?;
    match keys.select(token.key_id(), algorithm) {
        Selection::Key(key) => token::verify(token, key, policy, now).map(|_| ()),
        Selection::Mismatch => Err(Reason::TokenKeyMismatch.into()),
        Selection::Unknown => Err(Reason::TokenUnknownKey.into()),
    }
}

fn policy(default: &Value, case: &Value) -> TokenPolicy {
    let names = case["policy"]["algorithms"].as_array().or(default["algorithms"].as_array()).unwrap();
    let algorithms: Vec<_> = names.iter().map(|name| Algorithm::parse(name.as_str().unwrap()).unwrap()).collect();
    TokenPolicy {
        issuer: text(default, "issuer").to_owned(),
        aliases: vec![],
        audiences: vec![text(default, "audience").to_owned()],
        algorithms: AlgorithmSet::of(&algorithms),
        required_claims: vec![],
        clock_tolerance: Duration::from_secs(default["leeway_s"].as_u64().unwrap()),
        max_token_age: None,
        kind: case["policy"]["typ"].as_str().map(str::to_owned),
    }
}

#[test]
fn every_case_of_the_strict_profile_gets_its_verdict_and_its_reason() {
    let file = load("own/jwt-strict-profile.json");
    let (mut wrong, mut decided) = (Vec::new(), Vec::new());
    let mut words = BTreeMap::new();
    for case in cases(&file) {
        let id = text(case, "id");
        let secs = case["policy"]["now"].as_i64().unwrap_or(NOW);
        let now = Now { wall: Timestamp::from_secs(secs), mono: Duration::ZERO };
        let keys = if case["jwks"].is_null() { &file["jwks"] } else { &case["jwks"] };
        let verdict = judge(text(case, "token"), keys, &policy(&file["default_policy"], case), now);
        let verdict = verdict.err().map(|denial| denial.reason);
        let expected = match text(case, "expect") {
            "accept" => None,
            "reject" => Some(reason(id, text(case, "reason"))),
            "either" => {
                decided.push(id);
                DECIDED.iter().find(|(known, _)| *known == id).unwrap_or_else(|| panic!("{id} is undecided")).1
            }
            other => panic!("{id}: {other}"),
        };
        words.insert(id.to_owned(), expected.map_or("accepted", Reason::code));
        if verdict != expected {
            wrong.push(format!("{id} {}: {verdict:?}, not {expected:?}", text(case, "name")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(decided.len(), DECIDED.len(), "a decision about a case that is not there");
    let pinned =
        json!({ "about": "Our reason for each case of jwt-strict-profile.json (own work, CC0)", "reasons": words });
    let name = "own/jwt-strict-reasons.json";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(root().join("vectors").join(name), format!("{pinned:#}\n")).unwrap();
    }
    assert_eq!(load(name), pinned, "write it again with UPDATE_GOLDEN=1");
}

#[test]
fn every_decision_is_explained() {
    let text = fs::read_to_string(root().join("docs/token-decisions.md")).unwrap();
    for (id, decision) in DECIDED {
        let verdict = decision.map_or("accepted", Reason::code);
        let is_explained = text.lines().any(|line| line.contains(&format!("`{id}`")) && line.contains(verdict));
        assert!(is_explained, "docs/token-decisions.md does not say that {id} is {verdict}");
    }
}
