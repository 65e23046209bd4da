//! Path confusion: what the gate makes of targets that upstreams read in different ways.

use doorward_core::{
    credential::{CredentialKind, CredentialSet},
    reason::Reason,
    request::RequestPath,
    rule::{Access, CsrfMode, LicenseMode, OnStale, PathMode, PathPattern, Require, Rule, RuleSet},
};
use http::Method;

use crate::vectors::{cases, load, text};

/// A rule for `app.example` that admits everybody, or holders of a session.
pub(crate) fn rule(path: &str, public: bool, paths: PathMode) -> Rule {
    let session = CredentialSet::NONE.with(CredentialKind::Session);
    Rule {
        name: path.into(),
        host: "app.example".into(),
        path: PathPattern::parse(path).unwrap(),
        methods: Vec::new(),
        access: if public { Access::Public } else { Access::Credential(session) },
        csrf: CsrfMode::Origin,
        license: LicenseMode::None,
        on_stale: OnStale::Deny,
        require: Require::default(),
        app: 0,
        paths,
        forward_authorization: false,
    }
}

fn find(rules: &RuleSet, target: &str) -> Result<usize, (Reason, String)> {
    let found =
        RequestPath::parse(target, rules.path_mode()).and_then(|path| rules.find("app.example", &path, &Method::GET));
    found.map_err(|denial| {
        let note = denial.detail().and_then(|detail| detail.note.clone()).unwrap_or_default();
        (denial.reason, note)
    })
}

/// The bytes that were sent; the file shows them as Latin-1.
fn target(case: &serde_json::Value) -> String {
    let bytes = text(case, "target").chars().map(|c| u8::try_from(u32::from(c)).unwrap());
    String::from_utf8(bytes.collect()).unwrap()
}

#[test]
fn every_path_gets_the_verdict_of_the_vector_and_the_fault_its_name() {
    let rules =
        RuleSet::new(vec![rule("/public/*", true, PathMode::Strict), rule("/admin/*", false, PathMode::Strict)]);
    let file = load("own/path-confusion.json");
    for case in cases(&file) {
        let target = target(case);
        let found = find(&rules, &target);
        match text(case, "expect") {
            "public" => assert_eq!(found, Ok(0), "{target}"),
            "admin" => assert_eq!(found, Ok(1), "{target}"),
            "default_deny" => assert_eq!(found.unwrap_err().0, Reason::NoRule, "{target}"),
            "reject_400" => {
                let (reason, note) = found.unwrap_err();
                assert_eq!((reason, reason.status()), (Reason::RequestMalformed, 400), "{target}");
                let whys: Vec<_> = case["why"].as_array().unwrap().iter().map(|why| why.as_str().unwrap()).collect();
                assert!(whys.iter().any(|why| note == format!("path: {why}")), "{target}: {note} is none of {whys:?}");
            }
            other => panic!("{target}: unknown verdict {other}"),
        }
    }
}

/// Thirteen stock servers were measured: which handler they ran for each target. Whatever a public rule
/// lets through must not run the closed handler on any of them.
#[test]
fn nothing_that_a_public_rule_lets_through_reaches_the_closed_handler_of_any_upstream() {
    let file = load("own/path-confusion.json");
    for mode in [PathMode::Strict, PathMode::SameRule] {
        let by_default = RuleSet::new(vec![rule("/public/*", true, mode), rule("/admin/*", false, mode)]);
        let by_exception = RuleSet::new(vec![rule("/admin/*", false, mode), rule("/*", true, mode)]);
        for (rules, public) in [(by_default, 0), (by_exception, 1)] {
            for case in cases(&file) {
                let target = target(case);
                if find(&rules, &target) == Ok(public) {
                    assert_eq!(case["admin_on"].as_array().unwrap().len(), 0, "{mode:?}: {target} is let through");
                }
            }
        }
    }
}
