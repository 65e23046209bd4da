//! API keys: the verdicts that need no store.

use std::collections::BTreeSet;

use doorward_core::{
    api_key::{self, ApiKey, KeyOwner},
    credential::{self, CookieNames, CredentialKind, CredentialSet},
    id::{ApiKeyId, UserId},
    reason::Reason,
    time::Timestamp,
};
use http::{HeaderMap, HeaderValue};

use crate::vectors::{cases, load, text};

/// Cases that need a record, a license or a running server, each with where it is shown.
const ELSEWHERE: &[(&str, &str)] = &[
    ("missing capability", "core::authorize, by the rule's requirement"),
    ("owner disabled", "gate, authentication by key: user_banned"),
    ("owner license expired", "gate, license gate"),
    ("key of another tenant", "gate: a key is found by its hash alone"),
    ("API key used as cookie session on re-auth routes", "core::authorize: recent_auth admits sessions only"),
    ("last_used write fails", "gate: touches are batched and never waited for"),
    ("timing: first byte wrong vs last byte wrong", "no secret is compared: a key is looked up by its SHA-256"),
    ("failure reasons: outsiders get one code, owner/logs get the precise one", "reason table: exposure"),
];

fn record(key: &api_key::MintedKey) -> ApiKey {
    let at = Timestamp::from_secs(1_800_000_000);
    ApiKey {
        id: ApiKeyId::mint(at, [1; 10]),
        hash: key.hash,
        owner: KeyOwner::User(UserId::mint(at, [2; 10])),
        org_id: None,
        name: "ci".to_owned(),
        prefix: key.prefix.clone(),
        capabilities: BTreeSet::new(),
        created_at: at,
        expires_at: None,
        revoked_at: None,
        deleted_at: None,
        last_used_at: None,
    }
}

#[test]
fn every_key_case_gets_the_verdict_of_the_vector() {
    let key = api_key::mint([5; 32]);
    let whole = key.text.expose().clone();
    let now = Timestamp::from_secs(1_800_000_100);
    let looked_up =
        |text: &str| api_key::hash_presented(text).map(|hash| hash == key.hash).map_err(|denial| denial.reason);
    let checked = |record: &ApiKey| api_key::check(record, now).map_err(|denial| denial.reason);
    let presented = |lines: &[&str]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("authorization", HeaderValue::from_str(&format!("Bearer {line}")).unwrap());
        }
        let allowed = CredentialSet::NONE.with(CredentialKind::ApiKey);
        let found = credential::find(&headers, allowed, &CookieNames::SECURE).map_err(|denial| denial.reason);
        found.map(|found| found.map(|credential| credential.kind()))
    };
    let mut elsewhere = 0;
    let file = load("own/api-keys.json");
    for case in cases(&file) {
        let name = text(case, "name");
        match name {
            _ if ELSEWHERE.iter().any(|(other, _)| *other == name) => elsewhere += 1,
            "valid key, capability present" => {
                assert_eq!(presented(&[&whole]), Ok(Some(CredentialKind::ApiKey)));
                assert_eq!((looked_up(&whole), checked(&record(&key))), (Ok(true), Ok(())));
            }
            "unknown key of right shape" => {
                let other = api_key::mint([6; 32]);
                assert_eq!(
                    looked_up(other.text.expose()),
                    Ok(false),
                    "well-formed, so the store is asked and finds nothing"
                );
            }
            "deleted" => {
                let deleted = ApiKey { deleted_at: Some(now), revoked_at: Some(now), ..record(&key) };
                assert_eq!(checked(&deleted), Err(Reason::ApiKeyDeleted));
            }
            "expired" => {
                let expired = ApiKey { expires_at: Some(now), ..record(&key) };
                assert_eq!(checked(&expired), Err(Reason::ApiKeyExpired));
            }
            "bad checksum/prefix" => {
                let mut bad = whole.clone().into_bytes();
                bad[30] ^= 1;
                assert_eq!(looked_up(&String::from_utf8(bad).unwrap()), Err(Reason::ApiKeyNotFound));
                assert_eq!(
                    looked_up(&whole.replacen("dwk_", "dwx_", 1)),
                    Ok(false),
                    "another prefix is an imported key"
                );
            }
            "valid key + suffix" => assert_eq!(looked_up(&format!("{whole}A")), Err(Reason::ApiKeyNotFound)),
            "case changed" => {
                let lower = format!("dwk_{}", whole[4..].to_ascii_lowercase());
                assert_eq!(looked_up(&lower), Err(Reason::ApiKeyNotFound));
            }
            "key in query" => assert_eq!(presented(&[]), Ok(None), "the query is not among what is looked at"),
            "two keys in one request" => {
                assert_eq!(presented(&[&whole, &whole]), Err(Reason::AmbiguousCredential));
                assert_eq!(Reason::AmbiguousCredential.status(), 400);
            }
            other => panic!("{other}: no check for this case"),
        }
    }
    assert_eq!(elsewhere, ELSEWHERE.len());
}
