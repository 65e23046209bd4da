use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    id::{OrgId, UserId},
    license::{Holder, Known, LicensePolicy, LicenseState, Observation},
    principal::{Authenticated, PrincipalKind, SubjectId},
    time::Timestamp,
    token::Claims,
    user::Email,
};

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for &(name, value) in pairs {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn stripped(pairs: &[(&str, &str)], policy: &ForwardPolicy<'_>) -> HeaderMap {
    let mut headers = headers(pairs);
    strip(&mut headers, policy);
    headers
}

#[test]
fn no_spelling_of_a_reserved_name_gets_through() {
    let extra = [HeaderName::from_static("remote-email")];
    let policy = ForwardPolicy { extra: &extra, ..ForwardPolicy::default() };
    for name in [
        "X-Doorward-Subject",
        "x_doorward_subject",
        "X-Doorward.Anything",
        "X-Doorward-Subject-",
        "HTTP_X_DOORWARD_SUBJECT",
        "_x-doorward-org",
        "x-doorward",
        "http_http_x_doorward_org_",
        "Remote-Email",
        "Remote_Email",
        "remote.email-",
        "HTTP_REMOTE_EMAIL",
        "X-Forwarded-For",
        "X_Forwarded_Uri",
        "Forwarded",
        "X-Real-IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Envoy-Original-Path",
    ] {
        assert!(stripped(&[(name, "admin")], &policy).is_empty(), "{name}");
    }
    for name in
        ["X-Doorwardly", "X-App", "Remote-Email-2", "Http", "Http-X", "-", "Cf-Ray", "X-Request-Id", "Authorization"]
    {
        assert_eq!(stripped(&[(name, "v")], &policy).len(), 1, "{name}");
    }
}

#[test]
fn our_cookies_go_and_the_others_keep_their_bytes() {
    let policy = ForwardPolicy::default();
    for (before, after) in [
        ("__Host-doorward_sid=x", None),
        ("a=1; __Host-doorward_sid=x; b=\"2\"", Some("a=1; b=\"2\"")),
        ("__Host-doorward_csrf=x;a=1;doorward_login=y", Some("a=1")),
        ("a=1;  b=2 ;c", Some("a=1;  b=2 ;c")),
        ("=doorward_sid; doorward_sidx=1", Some("=doorward_sid; doorward_sidx=1")),
        ("__Host-doorward_sid=x; __Host-doorward_sid=y; z", Some("z")),
    ] {
        let headers = stripped(&[("cookie", before)], &policy);
        assert_eq!(headers.get(header::COOKIE).map(|line| line.to_str().unwrap()), after, "{before}");
    }
    let lines = stripped(&[("cookie", "a=1"), ("cookie", "doorward_sid=x"), ("cookie", "b=2")], &policy);
    assert_eq!(lines.get_all(header::COOKIE).iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
}

#[test]
fn the_credential_that_was_used_stays_here_unless_the_rule_leaves_a_jwt() {
    let gone = |used, forward_authorization| {
        let policy = ForwardPolicy { used, forward_authorization, ..ForwardPolicy::default() };
        stripped(&[("authorization", "Bearer x")], &policy).is_empty()
    };
    use CredentialKind::{ApiKey, Bearer, Legacy, Session};
    assert!(gone(Some(ApiKey), false) && gone(Some(Bearer), false) && gone(Some(Legacy), false));
    assert!(gone(Some(ApiKey), true) && !gone(Some(Bearer), true) && !gone(Some(Legacy), true));
    assert!(!gone(Some(Session), false) && !gone(None, false));
}

#[test]
fn an_app_cannot_speak_or_set_cookies_in_our_name() {
    let mut answer = headers(&[
        ("X-Doorward-Reason", "x"),
        ("X_Doorward_Decision", "x"),
        ("set-cookie", "a=1; Path=/"),
        ("set-cookie", "__Host-doorward_sid=x; Path=/; Secure"),
        ("set-cookie", " doorward_sid =x"),
        ("set-cookie", "=doorward_csrf=x"),
        ("set-cookie", "doorward_login"),
        ("set-cookie", "b=doorward_sid=1"),
        ("x-app", "y"),
    ]);
    strip_response(&mut answer);
    assert_eq!(answer.get_all(header::SET_COOKIE).iter().collect::<Vec<_>>(), ["a=1; Path=/", "b=doorward_sid=1"]);
    assert_eq!((answer.len(), answer.contains_key("x-app")), (3, true));
    keep_private(&mut answer);
    assert_eq!(answer[header::CACHE_CONTROL], "private");
    let mut told = headers(&[("expires", "0")]);
    keep_private(&mut told);
    assert_eq!(told.len(), 1);
}

#[test]
fn identity_is_written_whole_and_cannot_break_out_of_its_header() {
    let at = Timestamp::from_secs(1_800_000_000);
    let (user, org, decision) = (UserId::mint(at, [1; 10]), OrgId::mint(at, [2; 10]), DecisionId::mint(at, [3; 10]));
    let mut caller = Principal {
        kind: PrincipalKind::Service,
        subject: SubjectId { issuer: "main".into(), subject: "ä\r\nX: 1 %41".into() },
        user_id: None,
        email: Email::parse("a@b.test"),
        org_id: Some(org),
        authenticated: Authenticated::Bearer { claims: Arc::new(Claims::default()) },
        expires_at: None,
    };
    let codes = ["SSO", "a,b", "\u{e4} %"].map(str::to_owned);
    let observation = Observation {
        state: LicenseState::Active,
        license_id: None,
        expires_at: None,
        entitlements: codes.into(),
        observed_at: at,
    };
    let known = Some(Arc::new(Known { observation, confirmed_at: at }));
    let policy = LicensePolicy { trust_for: Duration::from_secs(60), grace: Duration::ZERO };
    let license = Licensed::derive(Holder::User(user), known, &policy, at);
    let identity = identity_headers(Some(&caller), Some(&license), decision);
    for (field, expected) in [
        (IdentityField::Subject, "main|%C3%A4%0D%0AX:%201%20%2541".to_owned()),
        (IdentityField::Issuer, "main".to_owned()),
        (IdentityField::Email, "a@b.test".to_owned()),
        (IdentityField::Method, "bearer".to_owned()),
        (IdentityField::Org, org.to_string()),
        (IdentityField::License, "active".to_owned()),
        (IdentityField::Entitlements, "SSO,a%2Cb,%C3%A4%20%25".to_owned()),
        (IdentityField::Decision, decision.to_string()),
    ] {
        assert_eq!(identity.value(field), expected.as_str(), "{field:?}");
        assert_eq!(IdentityField::parse(field.as_str()), Some(field));
    }
    caller.subject = SubjectId::local(user);
    let mut headers = headers(&[("x-doorward-subject", "admin"), ("remote-email", "admin"), ("x-doorward-org", "x")]);
    caller.org_id = None;
    let extra = [(IdentityField::Email, HeaderName::from_static("remote-email"))];
    identity_headers(Some(&caller), None, decision).write(&mut headers, &extra);
    assert_eq!(headers["x-doorward-subject"], user.to_string().as_str());
    assert_eq!(
        (&headers["remote-email"], &headers["x-doorward-org"]),
        (&HeaderValue::from_static("a@b.test"), &HeaderValue::from_static(""))
    );
    let nobody = identity_headers(None, None, decision);
    assert_eq!(nobody.all().filter(|(_, value)| value.is_empty()).count(), 7);
    assert_eq!(nobody.all().count(), 8);
}
