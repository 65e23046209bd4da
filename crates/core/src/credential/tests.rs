use http::HeaderValue;

use super::*;
use crate::reason::Reason;

const ALL: CredentialSet = CredentialSet::NONE
    .with(CredentialKind::Session)
    .with(CredentialKind::ApiKey)
    .with(CredentialKind::Bearer)
    .with(CredentialKind::Legacy);

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for &(name, value) in pairs {
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn kind(headers: &HeaderMap, allowed: CredentialSet) -> Result<Option<CredentialKind>, Reason> {
    find(headers, allowed, &CookieNames::SECURE)
        .map(|found| found.map(|credential| credential.kind()))
        .map_err(|denial| denial.reason)
}

fn jwt(header: &str, claims: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    format!("Bearer {}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

#[test]
fn the_first_allowed_kind_decides_and_the_others_are_not_looked_at() {
    let session = format!("__Host-doorward_sid={}", OpaqueToken::mint([1; 32]).expose());
    let both = headers(&[("cookie", &session), ("authorization", "Bearer dwk_x")]);
    assert_eq!(kind(&both, ALL), Ok(Some(CredentialKind::Session)));
    assert_eq!(kind(&both, CredentialSet::NONE.with(CredentialKind::ApiKey)), Ok(Some(CredentialKind::ApiKey)));
    assert_eq!(kind(&both, CredentialSet::NONE.with(CredentialKind::Bearer)), Ok(None));
    assert_eq!(kind(&both, CredentialSet::NONE), Ok(None));
}

#[test]
fn a_broken_session_cookie_does_not_give_way_to_a_bearer() {
    let both = headers(&[("cookie", "__Host-doorward_sid=junk"), ("authorization", "Bearer a.b.c")]);
    assert!(matches!(find(&both, ALL, &CookieNames::SECURE), Ok(Some(Credential::Session(None)))));
    let cleared = headers(&[("cookie", "__Host-doorward_sid="), ("authorization", "Bearer a.b.c")]);
    assert_eq!(kind(&cleared, ALL), Ok(Some(CredentialKind::Bearer)));
}

#[test]
fn doubles_are_refused_only_where_they_would_be_looked_at() {
    let two = headers(&[("authorization", "Bearer a.b.c"), ("authorization", "Bearer a.b.c")]);
    assert_eq!(kind(&two, ALL), Err(Reason::AmbiguousCredential));
    assert_eq!(kind(&two, CredentialSet::NONE.with(CredentialKind::Session)), Ok(None));
    let cookies = headers(&[("cookie", "__Host-doorward_sid=a"), ("cookie", "x=1; __Host-doorward_sid=b")]);
    assert_eq!(kind(&cookies, ALL), Err(Reason::AmbiguousCredential));
    assert_eq!(kind(&cookies, CredentialSet::NONE.with(CredentialKind::Bearer)), Ok(None));
}

#[test]
fn the_form_of_a_bearer_says_whose_check_judges_it() {
    let of = |text: &str, allowed| kind(&headers(&[("authorization", text)]), allowed);
    let tokens = CredentialSet::NONE.with(CredentialKind::Bearer);
    assert_eq!(of("Bearer dwk_a.b.c", ALL), Ok(Some(CredentialKind::ApiKey)));
    assert_eq!(of("Bearer dwk_x", tokens), Ok(None));
    assert_eq!(of("Bearer a.b.c", ALL), Ok(Some(CredentialKind::Bearer)));
    assert_eq!(of("Bearer a.b.c.d.e", ALL), Ok(Some(CredentialKind::Bearer)));
    assert_eq!(of("Bearer eyJhbGciOiJub25lIn0", ALL), Ok(Some(CredentialKind::Bearer)));
    assert_eq!(of("Bearer old_key", ALL), Ok(Some(CredentialKind::ApiKey)));
    assert_eq!(of("Bearer old_key", tokens), Ok(Some(CredentialKind::Bearer)));
}

#[test]
fn a_legacy_token_is_known_by_iss_and_typ_and_never_by_its_alg() {
    let of = |header: &str, claims: &str, allowed| kind(&headers(&[("authorization", &jwt(header, claims))]), allowed);
    let user = r#"{"sub":"u","email":"a@b.test"}"#;
    for header in [
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"alg":"HS256","typ":"jwt"}"#,
        r#"{"alg":"HS256","t\u0079p":"JWT"}"#,
        r#"{"alg":"RS256","typ":"application/jwt"}"#,
        r#"{"alg":"none"}"#,
    ] {
        assert_eq!(of(header, user, ALL), Ok(Some(CredentialKind::Legacy)), "{header}");
        let without = CredentialSet::NONE.with(CredentialKind::Bearer);
        assert_eq!(of(header, user, without), Ok(Some(CredentialKind::Bearer)), "{header}");
    }
    for (header, claims) in [
        (r#"{"alg":"HS256","typ":"at+jwt"}"#, user),
        (r#"{"alg":"HS256","typ":"doorward-link+jwt"}"#, user),
        (r#"{"alg":"HS256","typ":""}"#, user),
        (r#"{"alg":"HS256","typ":7}"#, user),
        (r#"{"alg":"HS256","typ":null}"#, user),
        (r#"{"alg":"HS256"}"#, r#"{"iss":"x","sub":"u"}"#),
        (r#"{"alg":"HS256"}"#, r#"{"\u0069ss":"x","sub":"u"}"#),
        (r#"{"alg":"HS256"}"#, r#"{"iss":1}"#),
        (r#"{"alg":"HS256"}"#, r#"{"iss":null}"#),
        (r#"{"alg":"HS256"}"#, r#"{"sub":"u","iss":"a","iss":"b"}"#),
        (r#"{"alg":"HS256","typ":"a","typ":"b"}"#, user),
        (r#"{"alg":"HS256","typ":"JWT","typ":"JWT"}"#, user),
        (r#"{"alg":"HS256""#, user),
        (r#"{"alg":"HS256"}"#, "7"),
    ] {
        assert_eq!(of(header, claims, ALL), Ok(Some(CredentialKind::Bearer)), "{header} {claims}");
    }
}

#[test]
fn a_credential_does_not_print() {
    let found = headers(&[("authorization", "Bearer dwk_secret")]);
    let found = find(&found, ALL, &CookieNames::SECURE).unwrap();
    assert_eq!(format!("{found:?}"), "Some(Credential(ApiKey))");
}
