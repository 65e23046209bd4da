//! What passes between client and app: which headers are taken off, which say who is calling.
//!
//! Taken off first and set last, so nothing that a client sends adds to or takes away from what is set.

use std::{collections::BTreeSet, fmt::Write as _};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use uuid::Uuid;

use crate::{
    credential::{
        CookieNames, CredentialKind,
        cookie::{pair, trim},
    },
    id::DecisionId,
    license::Licensed,
    principal::Principal,
};

/// What of a request its app must not see.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForwardPolicy<'a> {
    /// Names in which the app expects identity besides ours; nobody else may speak in them.
    pub extra: &'a [HeaderName],
    /// The credential that Doorward used; it stays here.
    pub used: Option<CredentialKind>,
    /// Whether the rule leaves a JWT to the app.
    pub forward_authorization: bool,
}

/// Takes off a request what the client must not tell the app: identity headers, forwarding headers (whoever
/// forwards sets its own), other paths and methods than those that were judged, our cookies, and the
/// credential that was used. Doing it twice changes nothing more.
///
/// Hop-by-hop fields are the proxy's business and have to be gone before identity is set.
pub fn strip(headers: &mut HeaderMap, policy: &ForwardPolicy<'_>) {
    remove_all(headers, |name| is_reserved(name) || policy.extra.iter().any(|extra| is_alike(name, extra)));
    let used = match policy.used {
        Some(CredentialKind::ApiKey) => true,
        Some(CredentialKind::Bearer | CredentialKind::Legacy) => !policy.forward_authorization,
        Some(CredentialKind::Session) | None => false,
    };
    if used {
        headers.remove(header::AUTHORIZATION);
    }
    strip_cookies(headers);
}

/// Takes off an app's answer what only Doorward may say: its headers and its cookies.
pub fn strip_response(headers: &mut HeaderMap) {
    remove_all(headers, is_ours);
    if headers.get_all(header::SET_COOKIE).iter().any(sets_our_cookie) {
        let kept: Vec<_> =
            headers.get_all(header::SET_COOKIE).iter().filter(|line| !sets_our_cookie(line)).cloned().collect();
        headers.remove(header::SET_COOKIE);
        for line in kept {
            headers.append(header::SET_COOKIE, line);
        }
    }
}

/// Marks the answer to an authenticated request as private if the app says nothing about caching
/// (RFC 9111 §3.5 lets a shared cache keep what came without `Authorization`).
pub fn keep_private(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CACHE_CONTROL) && !headers.contains_key(header::EXPIRES) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    }
}

/// Whether a client may say nothing under this name: ours, what tells an app who the client is, and what
/// tells some apps another path or method than the one that was judged.
///
/// Everything but letters and digits counts as `-`, a leading `HTTP_` and marks at either end do not
/// count: gateways of the CGI family make one variable of all of these (CVE-2025-64484, CVE-2026-54763).
pub fn is_reserved(name: &HeaderName) -> bool {
    const PREFIXES: [&str; 3] = ["x-forwarded-", "x-original-", "x-rewrite-"];
    const NAMES: [&str; 15] = [
        "forwarded",
        "x-forwarded",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-envoy-external-address",
        "x-envoy-original-path",
        "true-client-ip",
        "fastly-client-ip",
        "cf-connecting-ip",
        "cf-connecting-ipv6",
        "client-ip",
    ];
    let bare = bare(name);
    // No other name begins with one of these.
    matches!(bare.first(), Some(b'x' | b'f' | b't' | b'c'))
        && (is_ours(name)
            || PREFIXES.iter().any(|prefix| begins(bare, prefix))
            || NAMES.iter().any(|known| bare.len() == known.len() && begins(bare, known)))
}

/// Whether this is a name in which Doorward speaks.
pub fn is_ours(name: &HeaderName) -> bool {
    let bare = bare(name);
    begins(bare, "x-doorward-") || bare.len() == "x-doorward".len() && begins(bare, "x-doorward")
}

/// Whether an app could take one name for the other.
pub fn is_alike(name: &HeaderName, known: &HeaderName) -> bool {
    let (name, known) = (bare(name), bare(known));
    let alike = |(a, b): (&u8, &u8)| a == b || !a.is_ascii_alphanumeric() && !b.is_ascii_alphanumeric();
    name.len() == known.len() && name.iter().zip(known).all(alike)
}

/// A header name without `http_` before it and without marks at its ends. Names are lower case here.
fn bare(name: &HeaderName) -> &[u8] {
    let mut bare = name.as_str().as_bytes();
    loop {
        let start = bare.iter().position(u8::is_ascii_alphanumeric).unwrap_or(bare.len());
        bare = &bare[start..];
        match bare {
            [b'h', b't', b't', b'p', mark, rest @ ..] if !mark.is_ascii_alphanumeric() => bare = rest,
            _ => break,
        }
    }
    let end = bare.iter().rposition(u8::is_ascii_alphanumeric).map_or(0, |last| last + 1);
    &bare[..end]
}

/// Whether `name` begins with `known`, any mark counting as `-`.
fn begins(name: &[u8], known: &str) -> bool {
    name.len() >= known.len()
        && name.iter().zip(known.bytes()).all(|(&a, b)| a == b || b == b'-' && !a.is_ascii_alphanumeric())
}

fn remove_all(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    if headers.keys().any(&is_unwanted) {
        let unwanted: Vec<_> = headers.keys().filter(|name| is_unwanted(name)).cloned().collect();
        for name in unwanted {
            headers.remove(name);
        }
    }
}

/// Whether a cookie name is one of ours, over https or on loopback.
fn is_our_cookie(name: &[u8]) -> bool {
    [CookieNames::SECURE, CookieNames::LOOPBACK]
        .iter()
        .any(|names| names.all().iter().any(|ours| ours.as_bytes() == name))
}

/// Removes our cookies from `Cookie`; the others keep their bytes and their order.
fn strip_cookies(headers: &mut HeaderMap) {
    let is_ours = |crumb: &[u8]| pair(crumb).is_some_and(|(name, _)| is_our_cookie(name));
    let has_ours = |line: &HeaderValue| line.as_bytes().split(|&byte| byte == b';').any(is_ours);
    if !headers.get_all(header::COOKIE).iter().any(has_ours) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    headers.remove(header::COOKIE);
    for line in lines {
        if !has_ours(&line) {
            headers.append(header::COOKIE, line);
            continue;
        }
        let kept: Vec<&[u8]> = line.as_bytes().split(|&byte| byte == b';').filter(|crumb| !is_ours(crumb)).collect();
        let joined = kept.join(&b';');
        // Pieces of a valid value are valid, so this keeps every line that still says something.
        if let Ok(line) = HeaderValue::from_bytes(trim(&joined))
            && !line.is_empty()
        {
            headers.append(header::COOKIE, line);
        }
    }
}

/// Whether a `Set-Cookie` line makes a browser send one of our names: also a nameless cookie whose value
/// looks like one of them.
pub fn sets_our_cookie(line: &HeaderValue) -> bool {
    let crumb = line.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
    let mut crumb = trim(crumb);
    while let [b'=' | b' ' | b'\t', rest @ ..] = crumb {
        crumb = rest;
    }
    let name = crumb.split(|&byte| byte == b'=').next().unwrap_or_default();
    is_our_cookie(trim(name))
}

/// What is said about the caller, one header each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityField {
    /// Local id, or `<issuer name>|<sub>`.
    Subject,
    /// Name of the issuer; `local` for our own users.
    Issuer,
    /// Mail address, verified only.
    Email,
    /// `session`, `bearer`, `api_key`, `legacy`.
    Method,
    /// Organisation.
    Org,
    /// State of the license.
    License,
    /// Codes of the license's entitlements.
    Entitlements,
    /// Id of the decision.
    Decision,
}

impl IdentityField {
    /// All fields.
    pub const ALL: [Self; 8] = [
        Self::Subject,
        Self::Issuer,
        Self::Email,
        Self::Method,
        Self::Org,
        Self::License,
        Self::Entitlements,
        Self::Decision,
    ];

    /// The key in an app's `headers`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Issuer => "issuer",
            Self::Email => "email",
            Self::Method => "method",
            Self::Org => "org",
            Self::License => "license",
            Self::Entitlements => "entitlements",
            Self::Decision => "decision",
        }
    }

    /// Reads the key.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.as_str() == text)
    }

    /// The header.
    pub const fn header(self) -> HeaderName {
        match self {
            Self::Subject => HeaderName::from_static("x-doorward-subject"),
            Self::Issuer => HeaderName::from_static("x-doorward-issuer"),
            Self::Email => HeaderName::from_static("x-doorward-email"),
            Self::Method => HeaderName::from_static("x-doorward-method"),
            Self::Org => HeaderName::from_static("x-doorward-org"),
            Self::License => HeaderName::from_static("x-doorward-license"),
            Self::Entitlements => HeaderName::from_static("x-doorward-entitlements"),
            Self::Decision => HeaderName::from_static("x-doorward-decision"),
        }
    }
}

/// What an app is told about a permitted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity([HeaderValue; IdentityField::ALL.len()]);

/// The identity headers of a permitted request. `caller` is `None` on a public rule, `license` where the rule asks for
/// none; what there is nothing to say about is empty.
pub fn identity_headers(caller: Option<&Principal>, license: Option<&Licensed>, decision: DecisionId) -> Identity {
    Identity(IdentityField::ALL.map(|field| match (field, caller) {
        (IdentityField::Decision, _) => {
            encode(decision.as_uuid().as_hyphenated().encode_lower(&mut Uuid::encode_buffer()))
        }
        (IdentityField::License, _) => HeaderValue::from_static(license.map_or("", Licensed::status)),
        (IdentityField::Entitlements, _) => {
            license.and_then(Licensed::entitlements).map_or(HeaderValue::from_static(""), encode_list)
        }
        (_, None) => HeaderValue::from_static(""),
        (IdentityField::Subject, Some(caller)) if caller.subject.is_local() => encode(&caller.subject.subject),
        (IdentityField::Subject, Some(caller)) => encode(&caller.subject.to_string()),
        (IdentityField::Issuer, Some(caller)) => encode(&caller.subject.issuer),
        (IdentityField::Email, Some(caller)) => encode(caller.email.as_ref().map_or("", |email| email.as_str())),
        (IdentityField::Method, Some(caller)) => HeaderValue::from_static(caller.authenticated.as_str()),
        (IdentityField::Org, Some(caller)) => {
            caller.org_id.map_or(HeaderValue::from_static(""), |org| encode(&org.to_string()))
        }
    }))
}

impl Identity {
    /// One value; empty where there is nothing to say.
    pub fn value(&self, field: IdentityField) -> &HeaderValue {
        &self.0[field as usize]
    }

    /// All headers, empty ones too: for forward-auth, where a proxy passes a client's own header on if we
    /// do not write it.
    pub fn all(&self) -> impl Iterator<Item = (HeaderName, &HeaderValue)> {
        IdentityField::ALL.into_iter().map(|field| (field.header(), self.value(field)))
    }

    /// Writes all headers and the app's own names for some of them, each replacing what was there.
    pub fn write(&self, headers: &mut HeaderMap, extra: &[(IdentityField, HeaderName)]) {
        for (name, value) in self.all() {
            headers.insert(name, value.clone());
        }
        for (field, name) in extra {
            headers.insert(name.clone(), self.value(*field).clone());
        }
    }
}

/// Makes a header value of any text: visible ASCII as it is, everything else and `%` as percent escapes of
/// its UTF-8 bytes, so that two texts never look alike to an app that trims or cuts.
fn encode(text: &str) -> HeaderValue {
    // The usual case, in one pass and one allocation; an empty value takes none.
    if text.bytes().all(is_plain)
        && let Ok(value) = HeaderValue::from_str(text)
    {
        return value;
    }
    let mut value = String::with_capacity(text.len());
    escape(text, is_plain, &mut value);
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static(""))
}

/// The same of several texts, separated by commas; a comma in a text is escaped too.
fn encode_list(texts: &BTreeSet<String>) -> HeaderValue {
    let mut value = String::new();
    for (at, text) in texts.iter().enumerate() {
        if at > 0 {
            value.push(',');
        }
        escape(text, |byte| is_plain(byte) && byte != b',', &mut value);
    }
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static(""))
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'%'
}

fn escape(text: &str, is_plain: impl Fn(u8) -> bool, into: &mut String) {
    for byte in text.bytes() {
        if is_plain(byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests;
