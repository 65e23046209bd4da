//! The decision table (B50): state × expiry × freshness × method × rule × what else is known of the caller.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::Method;

use super::*;
use crate::{
    credential::{CredentialKind, CredentialSet},
    decision::{Action, Freshness, Snapshot, authorize},
    id::{ApiKeyId, SessionId, UserId},
    principal::{Authenticated, Principal, PrincipalKind, SubjectId},
    reason::Reason,
    rule::{Access, LicenseMode, OnStale, Require, Rule},
    session::SignInMethod,
    token::Claims,
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const POLICY: LicensePolicy = LicensePolicy { trust_for: DAY, grace: DAY.saturating_mul(7) };

/// Ends, relative to now.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Never,
    Ahead,
    /// Within the grace.
    Lately,
    /// The grace is over, by a millisecond.
    Over,
}

impl End {
    const ALL: [Self; 4] = [Self::Never, Self::Ahead, Self::Lately, Self::Over];

    fn at(self) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::Ahead => Some(NOW.plus(DAY * 30)),
            Self::Lately => Some(NOW.minus(DAY)),
            Self::Over => Some(NOW.minus(POLICY.grace)),
        }
    }
}

/// When the provider confirmed it last.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Confirmed {
    Lately,
    /// Past `trust_for`, within the grace after it.
    Silent,
    /// Past both.
    Lost,
}

impl Confirmed {
    const ALL: [Self; 3] = [Self::Lately, Self::Silent, Self::Lost];

    fn at(self) -> Timestamp {
        match self {
            Self::Lately => NOW.minus(HOUR),
            Self::Silent => NOW.minus(DAY),
            Self::Lost => NOW.minus(DAY).minus(POLICY.grace),
        }
    }
}

fn known(state: LicenseState, end: End, confirmed: Confirmed) -> Arc<Known> {
    // What is over was over when it was said.
    let observed_at = end.at().map_or(confirmed.at(), |end| end.max(confirmed.at()).min(NOW));
    let observation = Observation {
        state,
        license_id: Some("lic".to_owned()),
        expires_at: end.at(),
        entitlements: BTreeSet::from(["SSO".to_owned()]),
        observed_at,
    };
    Arc::new(Known { observation, confirmed_at: confirmed.at() })
}

/// The table in words of the issue: what passes everything, what only reads, and why the rest is refused.
fn expected(state: LicenseState, end: End, confirmed: Confirmed) -> Verdict {
    let itself = match (state, end) {
        (LicenseState::ActiveBeyondExpiry, _) | (LicenseState::Active, End::Never | End::Ahead) => Verdict::Allow,
        // An end that is ahead was cut short when the provider said that it is over: just now.
        (LicenseState::Expired, End::Ahead) => Verdict::ReadOnly { reason: Reason::LicenseExpiredGrace },
        (LicenseState::Active | LicenseState::Expired, End::Lately) => {
            Verdict::ReadOnly { reason: Reason::LicenseExpiredGrace }
        }
        (LicenseState::Active | LicenseState::Expired, _) => Verdict::Deny { reason: Reason::LicenseExpired },
        (LicenseState::Suspended, _) => Verdict::Deny { reason: Reason::LicenseSuspended },
        (LicenseState::Banned, _) => Verdict::Deny { reason: Reason::LicenseBanned },
        (LicenseState::None, _) => Verdict::Deny { reason: Reason::LicenseNone },
        (LicenseState::Invalid, _) => Verdict::Deny { reason: Reason::LicenseInvalid },
    };
    match (confirmed, itself) {
        (Confirmed::Lately, itself) => itself,
        (Confirmed::Silent, Verdict::Allow | Verdict::ReadOnly { .. }) => {
            Verdict::ReadOnly { reason: Reason::LicenseUnknown }
        }
        // Whoever was refused may have paid meanwhile: nobody can tell, so it is no verdict about them.
        (Confirmed::Silent, Verdict::Deny { .. }) | (Confirmed::Lost, _) => {
            Verdict::Deny { reason: Reason::LicenseUnknown }
        }
    }
}

fn rule(license: LicenseMode, on_stale: OnStale, entitlements: &[&str]) -> Rule {
    let kinds = [CredentialKind::Session, CredentialKind::ApiKey, CredentialKind::Bearer, CredentialKind::Legacy];
    let access = Access::Credential(kinds.into_iter().fold(CredentialSet::NONE, CredentialSet::with));
    let entitlements = entitlements.iter().map(|&code| code.to_owned()).collect();
    let require = Require { entitlements, ..Require::default() };
    Rule { license, on_stale, require, ..Rule::new("app.example", "/*", access).unwrap() }
}

fn callers() -> [Arc<Principal>; 4] {
    let user = UserId::mint(NOW, [1; 10]);
    let claims = || Arc::new(Claims { subject: Some("u1".into()), ..Claims::default() });
    let of = |user_id, authenticated| {
        Arc::new(Principal {
            kind: PrincipalKind::User,
            subject: SubjectId { issuer: "main".into(), subject: "u1".into() },
            user_id,
            email: None,
            org_id: None,
            authenticated,
            expires_at: None,
        })
    };
    let (id, method) = (SessionId::mint(NOW, [2; 10]), SignInMethod::MagicLink);
    [
        of(Some(user), Authenticated::Session { id, method, authenticated_at: NOW, created_at: NOW }),
        of(Some(user), Authenticated::ApiKey { id: ApiKeyId::mint(NOW, [3; 10]), capabilities: BTreeSet::new() }),
        of(None, Authenticated::Bearer { claims: claims() }),
        of(Some(user), Authenticated::Legacy { claims: claims() }),
    ]
}

const METHODS: [(Method, bool, bool); 9] = [
    (Method::GET, false, true),
    (Method::HEAD, false, true),
    (Method::OPTIONS, false, true),
    (Method::POST, false, false),
    (Method::PUT, false, false),
    (Method::PATCH, false, false),
    (Method::DELETE, false, false),
    // A socket is a way for changes, however it is asked for.
    (Method::GET, true, false),
    (Method::CONNECT, true, false),
];

#[test]
fn every_cell_of_the_matrix_is_decided_as_the_table_says() {
    let holder = Holder::User(UserId::mint(NOW, [1; 10]));
    let mut cells = 0;
    let mut seen = BTreeSet::new();
    for &state in LicenseState::ALL {
        for (end, confirmed) in End::ALL.into_iter().flat_map(|end| Confirmed::ALL.map(|confirmed| (end, confirmed))) {
            let licensed = Licensed::derive(holder, Some(known(state, end, confirmed)), &POLICY, NOW);
            let table = expected(state, end, confirmed);
            assert_eq!(licensed.standing.verdict, table, "{state:?} {end:?} {confirmed:?}");
            for mode in [LicenseMode::None, LicenseMode::Active, LicenseMode::ActiveOrGraceRead] {
                for on_stale in [OnStale::Deny, OnStale::Allow] {
                    for freshness in [Freshness::Fresh, Freshness::Stale] {
                        for (method, is_upgrade, reads) in METHODS {
                            for caller in callers() {
                                let rule = rule(mode, on_stale, &[]);
                                let snapshot = Snapshot { freshness, revoked: None, license: Some(&licensed) };
                                let action = Action {
                                    rule: &rule,
                                    recent_auth: DAY,
                                    reads: Action::is_read(&method, is_upgrade),
                                };
                                let found = authorize(Arc::clone(&caller), &action, &snapshot, NOW);
                                let wanted = match (freshness, on_stale, mode, table) {
                                    (Freshness::Stale, OnStale::Deny, _, _) => Err(Reason::SharedUnavailable),
                                    (_, _, LicenseMode::None, _) | (_, _, _, Verdict::Allow) => Ok(()),
                                    (_, _, LicenseMode::ActiveOrGraceRead, Verdict::ReadOnly { .. }) if reads => Ok(()),
                                    (_, _, _, Verdict::ReadOnly { reason } | Verdict::Deny { reason }) => Err(reason),
                                };
                                let case = (state, end, confirmed, mode, on_stale, freshness, &method, is_upgrade);
                                let reason = found.as_ref().map(|_| ()).map_err(|denial| denial.reason);
                                assert_eq!(reason, wanted, "{case:?} {}", caller.authenticated.as_str());
                                if let Ok(grant) = found {
                                    let looked_at = mode != LicenseMode::None;
                                    assert_eq!(grant.license.is_some(), looked_at, "{case:?}");
                                    let in_grace = looked_at && matches!(table, Verdict::ReadOnly { .. });
                                    let days = grant.license.as_ref().and_then(Licensed::grace_days);
                                    assert_eq!(days.is_some(), in_grace, "{case:?}");
                                }
                                seen.extend(reason.err());
                                cells += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    assert_eq!(cells, 7 * 4 * 3 * 3 * 2 * 2 * 9 * 4);
    let all = Reason::ALL.iter().copied().filter(|reason| reason.is_license());
    let unseen: Vec<Reason> = all.filter(|reason| !seen.contains(reason)).collect();
    assert_eq!(unseen, [Reason::LicenseBlocked, Reason::LicenseEntitlementMissing], "they have tests of their own");
}

#[test]
fn what_nobody_can_tell_is_never_402() {
    for &state in LicenseState::ALL {
        for (end, confirmed) in
            End::ALL.into_iter().flat_map(|end| [Confirmed::Silent, Confirmed::Lost].map(|c| (end, c)))
        {
            let licensed = Licensed::derive(Holder::Installation, Some(known(state, end, confirmed)), &POLICY, NOW);
            for (reads, needed) in [(true, &[][..]), (false, &[]), (true, &["AUDIT"]), (false, &["AUDIT"])] {
                for mode in [LicenseMode::ActiveOrGraceRead, LicenseMode::None] {
                    let verdict = check(Some(&licensed), &rule(mode, OnStale::Deny, needed), reads);
                    let reason = verdict.err().map(|denial| denial.reason);
                    assert!(
                        reason.is_none_or(|reason| reason == Reason::LicenseUnknown),
                        "{state:?} {end:?} {needed:?}"
                    );
                }
            }
        }
    }
    assert_eq!(Reason::LicenseUnknown.status(), 503);
}

#[test]
fn a_blocked_subject_comes_first_whatever_the_license_says_and_however_old_the_state_is() {
    let known = known(LicenseState::Active, End::Ahead, Confirmed::Lately);
    let licensed = Licensed { is_blocked: true, ..Licensed::derive(Holder::Installation, Some(known), &POLICY, NOW) };
    for freshness in [Freshness::Fresh, Freshness::Stale] {
        let snapshot = Snapshot { freshness, revoked: None, license: Some(&licensed) };
        let ask = |rule: &Rule| {
            let action = Action { rule, recent_auth: DAY, reads: true };
            let [session, ..] = callers();
            authorize(session, &action, &snapshot, NOW).map(drop).map_err(|denial| denial.reason)
        };
        for mode in [LicenseMode::Active, LicenseMode::ActiveOrGraceRead] {
            assert_eq!(ask(&rule(mode, OnStale::Deny, &[])), Err(Reason::LicenseBlocked));
        }
        assert_eq!(ask(&rule(LicenseMode::None, OnStale::Allow, &["SSO"])), Err(Reason::LicenseBlocked));
        assert_eq!(ask(&rule(LicenseMode::None, OnStale::Allow, &[])), Ok(()), "a rule that asks for no license");
    }
    assert_eq!(licensed.entitlements(), None);
    // A credential that is revoked itself says so.
    let snapshot =
        Snapshot { freshness: Freshness::Fresh, revoked: Some(Reason::TokenRevoked), license: Some(&licensed) };
    let rule = rule(LicenseMode::Active, OnStale::Deny, &[]);
    let action = Action { rule: &rule, recent_auth: DAY, reads: true };
    let [session, ..] = callers();
    assert_eq!(authorize(session, &action, &snapshot, NOW).unwrap_err().reason, Reason::TokenRevoked);
}

#[test]
fn a_missing_entitlement_is_named_and_those_of_a_dead_license_do_not_count() {
    let ask = |state, end, confirmed, mode, codes: &[&str]| {
        let licensed = Licensed::derive(Holder::Installation, Some(known(state, end, confirmed)), &POLICY, NOW);
        let denial = check(Some(&licensed), &rule(mode, OnStale::Deny, codes), true).err()?;
        Some((denial.reason, denial.detail().and_then(|detail| detail.required.clone()).unwrap_or_default()))
    };
    let (active, lately) = (LicenseState::Active, Confirmed::Lately);
    let missing = |code: &str| Some((Reason::LicenseEntitlementMissing, code.to_owned()));
    for mode in [LicenseMode::None, LicenseMode::Active, LicenseMode::ActiveOrGraceRead] {
        assert_eq!(ask(active, End::Ahead, lately, mode, &["SSO"]), None);
        assert_eq!(ask(active, End::Ahead, lately, mode, &["SSO", "AUDIT"]), missing("AUDIT"));
        assert_eq!(ask(active, End::Ahead, lately, mode, &["sso"]), missing("sso"), "codes are compared byte for byte");
    }
    assert_eq!(ask(active, End::Lately, lately, LicenseMode::ActiveOrGraceRead, &["SSO"]), None);
    assert_eq!(ask(LicenseState::Suspended, End::Ahead, lately, LicenseMode::None, &["SSO"]), missing("SSO"));
    let refused = ask(LicenseState::Suspended, End::Ahead, lately, LicenseMode::Active, &["SSO"]);
    assert_eq!(refused, Some((Reason::LicenseSuspended, String::new())), "the state says more than what is missing");
    let unknown = ask(active, End::Ahead, Confirmed::Lost, LicenseMode::None, &["SSO"]);
    assert_eq!(unknown, Some((Reason::LicenseUnknown, String::new())));
}

#[test]
fn who_can_have_no_license_has_none_and_where_nobody_is_asked_everything_stays_closed() {
    let nobody = Licensed::nobody(NOW);
    let active = rule(LicenseMode::ActiveOrGraceRead, OnStale::Deny, &[]);
    assert_eq!(check(Some(&nobody), &active, true).unwrap_err().reason, Reason::LicenseNone);
    assert_eq!(check(None, &active, true).unwrap_err().reason, Reason::LicenseUnknown);
    assert_eq!(check(None, &rule(LicenseMode::None, OnStale::Deny, &[]), false), Ok(()));
}

#[test]
fn days_of_grace_count_down_to_the_end_that_the_license_states() {
    let known = known(LicenseState::Active, End::Lately, Confirmed::Lately);
    let at = |after| Licensed::derive(Holder::Installation, Some(Arc::clone(&known)), &POLICY, NOW.plus(after));
    // It ended a day ago, so six of the seven days are left.
    assert_eq!(at(Duration::ZERO).grace_days(), Some(6));
    assert_eq!(at(Duration::from_millis(1)).grace_days(), Some(6));
    // Nobody has confirmed it since: the grace of not knowing ends later, that of the license first.
    assert_eq!(at(DAY * 2).grace_days(), Some(4));
    assert_eq!(at(DAY * 6 - Duration::from_millis(1)).grace_days(), Some(1));
    assert_eq!(at(DAY * 6).grace_days(), None);
    assert_eq!(at(DAY * 6).standing.verdict, Verdict::Deny { reason: Reason::LicenseUnknown });
}
