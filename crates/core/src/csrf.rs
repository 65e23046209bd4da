//! Cross-site request forgery: a token bound to the session, and where a request comes from.
//!
//! Only sessions are concerned, because only cookies are sent by a browser unasked. What decides is
//! the credential that authenticated, never which headers are there besides.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, Method, header};
use subtle::ConstantTimeEq as _;

use crate::{
    decision::Denial, origin::Origin, reason::Reason, request::RequestFacts, rule::CsrfMode, secret::Secret,
    session::TokenHash,
};

/// The header that carries the token.
pub const HEADER: HeaderName = HeaderName::from_static("x-csrf-token");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Separates this use of the key from every other.
const CONTEXT: &[u8] = b"doorward csrf v1\0";
const TAG: usize = 32;

/// A key that tokens are made with.
#[derive(Clone)]
pub struct CsrfKey(hmac::Key);

impl CsrfKey {
    /// From 32 secret bytes.
    pub fn new(bytes: &Secret<[u8; 32]>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes.expose()))
    }

    fn tag(&self, session: &TokenHash) -> [u8; TAG] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(CONTEXT);
        context.update(session.as_bytes());
        let mut tag = [0; TAG];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

impl std::fmt::Debug for CsrfKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CsrfKey(…)")
    }
}

/// The keys of the ring: tokens are made with the current one and accepted under both.
#[derive(Clone, Debug)]
pub struct CsrfKeys {
    /// Makes and checks.
    pub current: CsrfKey,
    /// Checks only, while a rotation is young.
    pub previous: Option<CsrfKey>,
}

/// The token of a session: HMAC-SHA256 over its hash, base64url. It can be made again at any time, so
/// nothing is stored; another session, also the same person's after signing in again, has another one.
pub fn mint(keys: &CsrfKeys, session: &TokenHash) -> String {
    URL_SAFE_NO_PAD.encode(keys.current.tag(session))
}

/// Whether `token` is the one of `session`. The comparison takes the same time whatever differs.
pub fn verify(keys: &CsrfKeys, session: &TokenHash, token: &[u8]) -> bool {
    let mut presented = [0; TAG];
    // Fixed length first: decoding more than fits would be an error that depends on the content.
    if token.len() != TAG.div_ceil(3) * 4 - 1 || URL_SAFE_NO_PAD.decode_slice(token, &mut presented) != Ok(TAG) {
        return false;
    }
    let same = |key: &CsrfKey| key.tag(session).ct_eq(&presented);
    let current = same(&keys.current);
    keys.previous.as_ref().map_or(current, |previous| current | same(previous)).into()
}

/// Which origins may send requests that change something.
#[derive(Clone, Debug)]
pub struct OriginPolicy {
    /// The origin of `public_url`.
    pub own: Origin,
    /// `login.allowed_origins`.
    pub allowed: Vec<Origin>,
}

impl OriginPolicy {
    fn admits(&self, origin: &Origin) -> bool {
        *origin == self.own || self.allowed.contains(origin)
    }
}

/// Checks a request that a session authenticated against its rule's mode.
///
/// `GET`, `HEAD` and `OPTIONS` pass, because they must not change anything, unless they open a
/// WebSocket, which needs an admitted `Origin` (RFC 6455 §10.2). For others, with [`CsrfMode::Token`] the
/// header [`HEADER`] decides first, then [`check_origin`]. The token is read from that header only,
/// never from query, body or cookie.
///
/// # Errors
/// `csrf_missing`, `csrf_mismatch`, `cross_site`; `request_malformed` for doubled headers.
pub fn check(
    facts: &RequestFacts<'_>,
    mode: CsrfMode,
    session: &TokenHash,
    keys: &CsrfKeys,
    policy: &OriginPolicy,
) -> Result<(), Denial> {
    if mode == CsrfMode::Off {
        return Ok(());
    }
    if facts.is_upgrade {
        return check_upgrade(facts.headers, policy);
    }
    if is_safe(facts.method) {
        return Ok(());
    }
    if mode == CsrfMode::Token {
        let token = single(facts.headers, &HEADER)?.unwrap_or_default();
        if token.is_empty() {
            return Err(Denial::from(Reason::CsrfMissing).with_required(HEADER.as_str()));
        }
        if !verify(keys, session, token) {
            return Err(Reason::CsrfMismatch.into());
        }
    }
    check_origin(facts.headers, policy)
}

/// Checks where a request that changes something comes from; for sign-in and sign-out, which have no
/// session to bind a token to, and as the second line of the others.
///
/// `Sec-Fetch-Site` and `Origin` must both admit it as far as they are there. Without both, `Referer` has
/// to admit it if it is there; a request without any of them comes from no browser that would send
/// cookies for another site, and passes.
///
/// # Errors
/// `cross_site`; `request_malformed` for doubled headers.
pub fn check_origin(headers: &HeaderMap, policy: &OriginPolicy) -> Result<(), Denial> {
    let refused = |note: &str| Err(Denial::from(Reason::CrossSite).with_note(note));
    let origin = single(headers, &header::ORIGIN)?;
    let read = origin.map(|text| std::str::from_utf8(text).ok().and_then(Origin::parse));
    let site = single(headers, &SEC_FETCH_SITE)?;
    match site {
        Some(b"same-origin" | b"none") | None => {}
        // A sibling or foreign site has to be on the list by name.
        Some(_) => {
            let listed = read.as_ref().is_some_and(|read| read.as_ref().is_some_and(|at| policy.allowed.contains(at)));
            return if listed { Ok(()) } else { refused("sec-fetch-site: another site") };
        }
    }
    match read {
        Some(Some(origin)) if policy.admits(&origin) => Ok(()),
        Some(_) => refused("origin: not admitted"),
        None if site.is_some() => Ok(()),
        None => match single(headers, &header::REFERER)? {
            None => Ok(()),
            Some(referer) if origin_of(referer).is_some_and(|origin| policy.admits(&origin)) => Ok(()),
            Some(_) => refused("referer: not admitted"),
        },
    }
}

/// Checks that a WebSocket is opened by an admitted origin; none at all is none of them.
///
/// # Errors
/// `cross_site`; `request_malformed` for two `Origin` headers.
pub fn check_upgrade(headers: &HeaderMap, policy: &OriginPolicy) -> Result<(), Denial> {
    let origin =
        single(headers, &header::ORIGIN)?.and_then(|text| std::str::from_utf8(text).ok()).and_then(Origin::parse);
    if origin.is_some_and(|origin| policy.admits(&origin)) {
        return Ok(());
    }
    Err(Denial::from(Reason::CrossSite).with_note("origin: missing or not admitted, and this opens a WebSocket"))
}

/// Methods that must not change anything (RFC 9110 §9.2.1). TRACE never gets here.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// The one value of a header.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Denial> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(http::HeaderValue::as_bytes);
    if values.next().is_some() {
        return Err(Denial::from(Reason::RequestMalformed).with_note(format!("{name}: more than one")));
    }
    Ok(value)
}

/// The origin of a URL in `Referer`.
fn origin_of(url: &[u8]) -> Option<Origin> {
    let url = std::str::from_utf8(url).ok()?;
    let authority = url.find("://")? + 3;
    let end = url[authority..].find(['/', '?', '#']).map_or(url.len(), |end| authority + end);
    Origin::parse(&url[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(current: u8, previous: Option<u8>) -> CsrfKeys {
        let key = |byte| CsrfKey::new(&Secret::new([byte; 32]));
        CsrfKeys { current: key(current), previous: previous.map(key) }
    }

    #[test]
    fn a_token_belongs_to_one_session_and_one_key() {
        let (one, other) = (TokenHash::of(b"one"), TokenHash::of(b"other"));
        let token = mint(&keys(1, None), &one);
        assert_eq!(token.len(), 43);
        assert!(verify(&keys(1, None), &one, token.as_bytes()));
        assert!(!verify(&keys(1, None), &other, token.as_bytes()));
        assert!(!verify(&keys(2, None), &one, token.as_bytes()));
        assert!(verify(&keys(2, Some(1)), &one, token.as_bytes()));
        assert!(!verify(&keys(2, Some(3)), &one, token.as_bytes()));
        for wrong in ["", "x", &token[..42], &format!("{token}A"), &token.to_lowercase(), &format!("{}=", &token[..42])]
        {
            assert!(!verify(&keys(1, None), &one, wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn the_token_is_an_hmac_that_others_can_make_again() {
        // HMAC-SHA256 with a key of 32 zero bytes over "doorward csrf v1\0" and 32 bytes 0x01.
        let token = mint(&keys(0, None), &TokenHash::from_bytes([1; 32]));
        assert_eq!(token, "LiPF4eFRxzBN17IXBBIMgKekmzbnWr0Q70AjAqTguWI");
    }

    #[test]
    fn a_listed_origin_may_be_another_site_and_its_sibling_may_not() {
        let policy = OriginPolicy {
            own: Origin::parse("https://app.example").unwrap(),
            allowed: vec![Origin::parse("https://spa.example").unwrap()],
        };
        let from = |pairs: &[(&'static str, &'static str)]| {
            let pair = |&(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value));
            let headers: HeaderMap = pairs.iter().map(pair).collect();
            check_origin(&headers, &policy).is_ok()
        };
        assert!(from(&[("sec-fetch-site", "cross-site"), ("origin", "https://spa.example")]));
        assert!(from(&[("sec-fetch-site", "same-origin"), ("origin", "https://app.example")]));
        assert!(from(&[("sec-fetch-site", "none")]) && from(&[("referer", "https://app.example/x?y")]) && from(&[]));
        assert!(!from(&[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")]));
        assert!(!from(&[("sec-fetch-site", "same-site")]) && !from(&[("sec-fetch-site", "")]));
        assert!(!from(&[("sec-fetch-site", "same-origin"), ("origin", "https://evil.test")]));
        assert!(!from(&[("referer", "about:blank")]) && !from(&[("referer", "https://app.example@evil.test/")]));
    }
}
