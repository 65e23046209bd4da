//! What is taken off a message on its way through, and what is put on.

use doorward_core::{
    credential::CookieNames,
    forward::{is_alike, is_ours, is_reserved, sets_our_cookie},
    request::Scheme,
};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, EXPIRES, HOST, SET_COOKIE, TE,
        TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};

use super::{ForwardPlan, Upstream};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Fields that concern one connection only (RFC 9110 §7.6.1), besides those that `Connection` names.
static HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Our cookies, over https and on loopback.
static OUR_COOKIES: [[&str; 4]; 2] = [CookieNames::SECURE.all(), CookieNames::LOOPBACK.all()];

/// Makes the client's headers into those for the app.
pub(super) fn to_upstream(headers: &mut HeaderMap, plan: &ForwardPlan<'_>, upstream: &Upstream, is_upgrade: bool) {
    let takes_trailers = tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    remove_hop_by_hop(headers);
    // Bodies are sent without waiting, so nobody is to be asked whether he expects one; the client is
    // told to go on as soon as its body is wanted.
    headers.remove(EXPECT);
    remove_all(headers, |name| is_reserved(name) || plan.strip.iter().any(|other| is_alike(name, other)));
    if !plan.keep_authorization {
        headers.remove(AUTHORIZATION);
    }
    sift_cookies(headers, plan.cookies);

    headers.insert(HOST, upstream.own_host().unwrap_or(plan.host).clone());
    if let Ok(client) = HeaderValue::try_from(plan.client.to_string()) {
        headers.insert(X_FORWARDED_FOR, client);
    }
    let scheme = match plan.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    headers.insert(X_FORWARDED_HOST, plan.host.clone());
    for (name, value) in plan.set {
        headers.insert(name, value.clone());
    }
    if is_upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    } else if takes_trailers {
        headers.insert(CONNECTION, HeaderValue::from_static("TE"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Makes the app's headers into those for the client.
pub(super) fn from_upstream(headers: &mut HeaderMap, is_authenticated: bool) {
    if headers.contains_key(TRANSFER_ENCODING) {
        // The body's end was told by its encoding, which ends here (RFC 9112 §6.3).
        headers.remove(CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers);
    remove_all(headers, is_ours);
    if headers.get_all(SET_COOKIE).iter().any(sets_our_cookie) {
        let kept: Vec<_> =
            headers.get_all(SET_COOKIE).iter().filter(|value| !sets_our_cookie(value)).cloned().collect();
        headers.remove(SET_COOKIE);
        for value in kept {
            headers.append(SET_COOKIE, value);
        }
    }
    if is_authenticated && !headers.contains_key(CACHE_CONTROL) && !headers.contains_key(EXPIRES) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
}

/// Takes off trailers what a header of that name would not have survived: apps may merge the two.
pub(super) fn sift_request_trailers(trailers: &mut HeaderMap, strip: &[HeaderName]) {
    remove_hop_by_hop(trailers);
    remove_all(trailers, |name| {
        is_reserved(name)
            || strip.iter().any(|other| is_alike(name, other))
            || [AUTHORIZATION, COOKIE, HOST, CONTENT_LENGTH, EXPECT, TRAILER].contains(name)
    });
}

/// The same for an app's trailers.
pub(super) fn sift_response_trailers(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    remove_all(trailers, |name| is_ours(name) || [SET_COOKIE, CONTENT_LENGTH, TRAILER].contains(name));
}

/// The comma-separated tokens of a field that may stand on several lines.
pub(super) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|token| token.trim_matches([' ', '\t']))
        .filter(|token| !token.is_empty())
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        // Usually a word or two of these, and nothing to be gathered.
        let is_plain =
            |token: &&str| ["keep-alive", "close", "upgrade", "te"].iter().any(|word| token.eq_ignore_ascii_case(word));
        let named = tokens(headers, &CONNECTION).filter(|token| !is_plain(token));
        let named: Vec<_> = named.filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok()).collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

fn remove_all(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    let unwanted: Vec<_> = headers.keys().filter(|name| is_unwanted(name)).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// Removes our cookies and `others`; several lines (HTTP/2 clients split them) become one.
fn sift_cookies(headers: &mut HeaderMap, others: &[&str]) {
    let is_unwanted = |pair: &[u8]| {
        let name = pair.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii();
        OUR_COOKIES.iter().flatten().chain(others).any(|unwanted| unwanted.as_bytes() == name)
    };
    let pairs = |value: &HeaderValue| value.as_bytes().split(|&byte| byte == b';').any(is_unwanted);
    let mut lines = headers.get_all(COOKIE).iter();
    let (first, second) = (lines.next(), lines.next());
    if first.is_none() || second.is_none() && !first.is_some_and(pairs) {
        return;
    }
    let mut kept = Vec::new();
    for line in headers.get_all(COOKIE) {
        for pair in line.as_bytes().split(|&byte| byte == b';') {
            let pair = pair.trim_ascii();
            if !pair.is_empty() && !is_unwanted(pair) {
                if !kept.is_empty() {
                    kept.extend(b"; ");
                }
                kept.extend(pair);
            }
        }
    }
    headers.remove(COOKIE);
    if !kept.is_empty()
        && let Ok(value) = HeaderValue::try_from(kept)
    {
        headers.insert(COOKIE, value);
    }
}

#[cfg(test)]
mod tests;
