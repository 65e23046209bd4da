//! Where to go after signing in: a target that may come from anybody.

use url::Url;

use crate::{credential::cookie::trim, origin::Origin, request::Scheme};

/// Longest accepted target in bytes.
pub const MAX: usize = 2048;

/// Where a browser may be sent.
#[derive(Clone, Debug)]
pub struct RedirectPolicy {
    /// The origin of `public_url`.
    pub own: Origin,
    /// Other origins, by name.
    pub allowed: Vec<Origin>,
    /// Where our own routes are, as `/auth`; only pages under it may be gone to.
    pub base_path: String,
}

/// Pages under the base path that a person may want to go back to. Others do something, or sign in again.
const OWN_PAGES: [&str; 5] = ["/profile", "/profile/license", "/sessions", "/api-keys", "/whoami"];

/// A redirect target that is safe to put into `Location`.
///
/// What was not accepted became [`ReturnTo::FALLBACK`]. The text is the one that was judged, in the
/// spelling of a URL parser: visible ASCII, dots resolved, our own origin left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnTo(Option<String>);

impl ReturnTo {
    /// Where to go if there is no better place.
    pub const FALLBACK: &'static str = "/";

    /// Judges a target; never fails.
    ///
    /// Accepted: paths of our own origin, and URLs of our origin and the allowed ones. Refused is
    /// everything that two parsers could read differently, and our own routes that do something
    /// (CVE-2020-5233, CVE-2020-4037, CVE-2020-11053, CVE-2021-21291).
    pub fn parse(text: &str, policy: &RedirectPolicy) -> Self {
        Self(accepted(text, policy))
    }

    /// The target.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or(Self::FALLBACK)
    }

    /// Whether the given target was refused.
    pub const fn is_fallback(&self) -> bool {
        self.0.is_none()
    }
}

fn accepted(text: &str, policy: &RedirectPolicy) -> Option<String> {
    if text.len() > MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains(['\\', '"', '<', '>']) {
        return None;
    }
    let own = policy.own.to_string();
    let (origin, path) = match text.split_once("://") {
        Some((scheme, rest)) if Scheme::parse(scheme).is_some() => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let origin = Origin::parse(&text[..scheme.len() + 3 + end])?;
            (origin, &rest[end..])
        }
        _ if text.starts_with('/') => (policy.own.clone(), text),
        _ => return None,
    };
    let is_own = origin == policy.own;
    if !is_own && !policy.allowed.contains(&origin) {
        return None;
    }
    let before_query = path.split(['?', '#']).next().unwrap_or_default();
    if !is_plain_path(before_query) {
        return None;
    }
    let url = Url::parse(&format!("{origin}{path}")).ok()?;
    // The parser has to agree about where this leads.
    if Origin::parse(&url.origin().ascii_serialization()).as_ref() != Some(&origin) || url.path().starts_with("//") {
        return None;
    }
    if is_own && (is_own_action(url.path(), &policy.base_path) || carries_a_target(&url)) {
        return None;
    }
    let whole = String::from(url);
    if is_own { whole.strip_prefix(&own).map(str::to_owned) } else { Some(whole) }
}

/// Whether a path stays one path however often it is decoded: no escape stands for a slash, backslash,
/// control or another escape, no segment is empty, and no segment looks like a host.
fn is_plain_path(path: &str) -> bool {
    let escapes = path.match_indices('%').all(|(at, _)| {
        let digits = path.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        value.is_some_and(|value| value >= 0x20 && ![b'/', b'\\', b'%', 0x7f].contains(&value))
    });
    escapes && !path.contains("//")
}

/// Whether a path under our base path is anything but a page to look at.
fn is_own_action(path: &str, base: &str) -> bool {
    let decoded: Vec<u8> = percent_decode(path).to_ascii_lowercase();
    let path = decoded.split(|&byte| byte == b';').next().unwrap_or_default();
    let base = base.trim_end_matches('/').to_ascii_lowercase();
    match path.strip_prefix(base.as_bytes()) {
        Some(rest @ ([] | [b'/', ..])) => !OWN_PAGES.iter().any(|page| page.as_bytes() == rest),
        _ => false,
    }
}

/// Whether the target carries a target of its own: a sign-in page's `return_to` could go on for ever, and
/// a page that redirects to a URL in its query finishes what we refuse to begin.
fn carries_a_target(url: &Url) -> bool {
    const WORDS: [&str; 5] = ["url", "uri", "redir", "return", "goto"];
    url.query_pairs().any(|(name, value)| {
        let name = name.to_ascii_lowercase();
        let leads_away = value.starts_with("//") || value.contains("://");
        name == "return_to" || leads_away && WORDS.iter().any(|word| name.contains(word))
    })
}

fn percent_decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = trim(text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let value =
            (byte == b'%').then(|| after.get(..2)).flatten().and_then(|digits| std::str::from_utf8(digits).ok());
        match value.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                decoded.push(value);
                rest = &after[2..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RedirectPolicy {
        RedirectPolicy {
            own: Origin::parse("https://app.example").unwrap(),
            allowed: vec![Origin::parse("https://docs.example:8443").unwrap()],
            base_path: "/auth".to_owned(),
        }
    }

    fn target(text: &str) -> String {
        ReturnTo::parse(text, &policy()).as_str().to_owned()
    }

    #[test]
    fn a_target_is_written_in_the_spelling_that_was_judged() {
        for (text, expected) in [
            ("/a/b/../c?x=1#y", "/a/c?x=1#y"),
            ("https://APP.example:443/a", "/a"),
            ("https://app.example", "/"),
            ("https://app.example?x", "/?x"),
            ("https://docs.example:8443/x", "https://docs.example:8443/x"),
            ("/a%20b/%C3%A4", "/a%20b/%C3%A4"),
            ("/auth/profile", "/auth/profile"),
            ("/authors", "/authors"),
            ("/dash?next=//evil.test&url=/x", "/dash?next=//evil.test&url=/x"),
        ] {
            let read = ReturnTo::parse(text, &policy());
            assert_eq!((read.as_str(), read.is_fallback()), (expected, false), "{text}");
        }
    }

    #[test]
    fn routes_of_ours_that_do_something_are_not_gone_to() {
        for text in [
            "/auth/logout",
            "/AUTH/login",
            "/%61uth/logout",
            "/x/../auth/logout",
            "/auth",
            "/auth/",
            "/auth;x/logout",
            "/auth/check/nginx",
            "/x?return_to=/x",
            "/x?a&return%5Fto=/",
            "/out?redirectUrl=Https://evil.test",
            "/?url=//evil.test",
        ] {
            assert_eq!(target(text), "/", "{text}");
        }
    }

    #[test]
    fn what_parsers_disagree_about_falls_back() {
        for text in [
            "",
            "//evil.test",
            "/\\evil.test",
            "/a//b",
            "https:evil.test",
            "https:///evil.test",
            "/%5cevil.test",
            "/%2f",
            "/%252fevil.test",
            "/a b",
            "/ä",
            "/a%",
            "/..//evil.test",
            "javascript://app.example/%0aalert(1)",
            "mailto:a@b",
            "https://u@app.example/",
            "https://app.example\n.evil.test/",
        ] {
            assert_eq!(target(text), "/", "{text}");
        }
        assert_eq!(target(&format!("/{}", "a".repeat(MAX))), "/");
    }
}
