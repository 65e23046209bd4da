//! What each program of this folder does with one input. A panic is a finding.

mod seeds;

use std::{sync::LazyLock, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use doorward_core::{
    credential::{self, CookieNames, CredentialKind, CredentialSet},
    jose::{Algorithm, AlgorithmSet, Compact, JwkSet, Selection, StrictValue, sign::SigningKey},
    origin::Origin,
    redirect::{RedirectPolicy, ReturnTo},
    request::{Host, RequestPath},
    rule::PathMode,
    time::{Now, Timestamp},
    token::{self, TokenPolicy},
};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

pub use seeds::seed;

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "https://api.example";

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_seed(&[0x5a; 32]).unwrap());

/// The key of the test under the names that tokens of the vectors use for theirs.
static KEYS: LazyLock<JwkSet> = LazyLock::new(|| {
    let keys: Vec<Value> = ["k1", "ed25519-1", "ed-1", ""].iter().map(|kid| KEY.public_jwk(kid)).collect();
    JwkSet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
});

static POLICY: LazyLock<TokenPolicy> = LazyLock::new(|| TokenPolicy {
    issuer: ISSUER.into(),
    aliases: vec![],
    audiences: vec![AUDIENCE.into()],
    algorithms: AlgorithmSet::of(Algorithm::ALL),
    required_claims: vec![],
    clock_tolerance: Duration::from_secs(30),
    max_token_age: None,
    kind: None,
});

static REDIRECTS: LazyLock<RedirectPolicy> = LazyLock::new(|| RedirectPolicy {
    own: Origin::parse("https://app.example").unwrap(),
    allowed: vec![],
    base_path: "/auth".into(),
});

fn now() -> Now {
    Now { wall: Timestamp::from_secs(NOW), mono: Duration::from_secs(1) }
}

/// A compact JWS.
///
/// # Panics
/// Where two texts are the same token, or a token is accepted that nobody could sign.
pub fn jws(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(jws) = Compact::parse(text) else { return };
    let (header, _) = text.split_once('.').unwrap();
    let [payload, signature] = [jws.payload(), jws.signature()].map(|part| URL_SAFE_NO_PAD.encode(part));
    assert_eq!(text, format!("{header}.{payload}.{signature}"), "two texts of one token");
    let Ok(token) = token::parse(text) else { return };
    let Ok(algorithm) = token.algorithm() else { return };
    let _ = (token.check_kind(&POLICY), token.claimed_issuer(), token.claimed_issued_at(), token.issuer_problem());
    let Selection::Key(key) = KEYS.select(token.key_id(), algorithm) else { return };
    assert!(token::verify(token, key, &POLICY, now()).is_err(), "a forged token: {text}");
}

/// A document of keys.
///
/// # Panics
/// Where a key is counted twice or not at all, or one `kid` means two keys.
pub fn jwk_set(data: &[u8]) {
    let Ok(set) = JwkSet::parse(data) else { return };
    assert_eq!(JwkSet::parse(data).as_ref(), Ok(&set));
    assert_eq!(set.is_empty(), set.len() == 0);
    for (id, key) in set.keys() {
        assert_ne!(key.algorithms(), AlgorithmSet::NONE);
        for algorithm in Algorithm::ALL.iter().filter(|algorithm| key.algorithms().contains(**algorithm)) {
            let found = set.select(id, *algorithm);
            assert!(id.is_none() || matches!(found, Selection::Key(found) if **found == *key), "{id:?} {algorithm}");
            assert!(!key.is_signature(*algorithm, b"message", &[1; 64]), "anything is a signature");
        }
    }
    let listed = serde_json::from_slice::<Value>(data).unwrap()["keys"].as_array().map_or(0, Vec::len);
    // The very same key twice counts once.
    assert!(set.len() + set.skipped().len() <= listed);
    assert!(set.skipped().iter().all(|key| key.index < listed && !key.to_string().is_empty()));
}

/// The payload of a token that is signed as it should be.
///
/// # Panics
/// Where the one-pass reader and the builder of values disagree, or claims are verified that must not be.
pub fn claims(data: &[u8]) {
    const HEADER: &str = "eyJhbGciOiJFZERTQSJ9";
    if data.len() > 10_000 {
        return;
    }
    let signed = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(data));
    let built = serde_json::from_slice::<StrictValue>(data).ok().map(|value| value.0);
    let read = token::parse(&format!("{signed}.")).is_ok();
    // At the very edge of what a double holds the two readers round differently, and both may.
    let is_long = data.split(|byte| !byte.is_ascii_digit()).any(|digits| digits.len() > 290);
    let is_edge = is_long || data.windows(2).any(|pair| matches!(pair, [b'0'..=b'9', b'e' | b'E']));
    assert!(read == built.as_ref().is_some_and(Value::is_object) || is_edge, "{:?}", String::from_utf8_lossy(data));
    let (true, Some(Value::Object(built))) = (read, built) else { return };
    let text = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(KEY.sign(signed.as_bytes())));
    let key = KEY.public_key().unwrap();
    let Ok(verified) = token::verify(token::parse(&text).unwrap(), &key, &POLICY, now()) else { return };
    let claims = verified.into_inner();
    assert!(claims.issuer.as_deref() == Some(ISSUER) && claims.audience.iter().any(|one| one == AUDIENCE));
    assert!(claims.subject.as_ref().is_some_and(|subject| (1..=1024).contains(&subject.len())));
    assert!(claims.expires_at.is_some_and(|at| at > Timestamp::from_secs(NOW - 30)));
    for (name, value) in claims.more.to_map() {
        assert_eq!(built.get(&name), Some(&value), "{name}");
    }
}

/// A request target, cookies and a place to return to, one in each line.
///
/// # Panics
/// Where a path reads differently the second time, or a place to return to is not local.
pub fn request(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    if let Ok(target) = std::str::from_utf8(line()) {
        for mode in [PathMode::Strict, PathMode::SameRule] {
            if let Ok(path) = RequestPath::parse(target, mode) {
                let again = RequestPath::parse(path.target(), mode).map(|path| path.raw().to_owned());
                assert_eq!(again.ok().as_deref(), Some(path.raw()));
                assert!(path.raw().starts_with('/'), "{target:?}");
            }
        }
        let _ = Host::parse(target);
    }
    if let Ok(value) = HeaderValue::from_bytes(line()) {
        let all = [CredentialKind::Session, CredentialKind::ApiKey, CredentialKind::Bearer, CredentialKind::Legacy];
        let allowed = all.into_iter().fold(CredentialSet::NONE, CredentialSet::with);
        for name in [header::COOKIE, header::AUTHORIZATION] {
            let headers: HeaderMap = [(name, value.clone())].into_iter().collect();
            let _ = credential::find(&headers, allowed, &CookieNames::LOOPBACK);
        }
    }
    if let Ok(text) = std::str::from_utf8(line()) {
        let place = ReturnTo::parse(text, &REDIRECTS);
        let place = place.as_str();
        let second = place.as_bytes().get(1);
        assert!(place.starts_with('/') && !matches!(second, Some(b'/' | b'\\')), "{text:?} leads to {place:?}");
    }
}
